"""PWM (arXiv 2407.02466), the algorithm: a world model learnt from recorded windows, a policy learnt inside it.

Pure functions of named states. `Config` is static under jit; keys are folded with `state.step`, so that a resumed run draws the
same numbers. The world-model half is `init_world_model`, `world_model_loss`, `update_world_model`; the policy half `init_policy`,
`imagine`, `actor_loss`, `critic_targets`, `critic_loss`, `update_policy`. `act` is the policy in a real environment. `roll` says what
else than the model a policy can be rolled through, in the same update.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from pwm_jax import actor_terms, ops, simulated, tdmpc2
from pwm_jax.config import Config
from pwm_jax.networks import WorldModel, actor_of, count_obs, critics_of, discount_of, policy_obs, state_value
from pwm_jax.optimisers import actor_tx, critic_tx, world_model_tx
from pwm_jax.types import Batch, Metrics, Moments, Params, PolicyState, QState, Rollout, SimStarts, Simulated, Starts, WorldModelState

# ---------------------------------------------------------------------------------------------------------------- world model


def init_world_model(config: Config, key: Array) -> WorldModelState:
    """Fresh parameters, optimiser state and reward moments."""
    m = config.model
    params = WorldModel(m).init(key, jnp.zeros((1, m.obs_dim)), jnp.zeros((1, m.action_dim)), jnp.zeros((1,), jnp.int32))["params"]
    q = None
    if m.num_q:
        params |= tdmpc2.init_params(m, jax.random.fold_in(key, 1))
        q = tdmpc2.init_state(params, config)
    opt_state = world_model_tx(config.world_model).init(tdmpc2.without_prior(params))
    return WorldModelState(jnp.zeros((), jnp.int32), params, opt_state, ops.init_moments(), q)


def world_model_loss(
    params: Params, batch: Batch, reward_target: Array, config: Config, q: QState | None = None, key: Array | None = None
) -> tuple[Array, Metrics]:
    """Pre-training loss on recorded windows, with gradient through the whole latent rollout.

    L = c_cons mean_t rho^t mean (z_{t+1} - sg E(o_{t+1}))^2 + c_rew mean_t rho^t mean CE(R(z_t, a_t), twohot(symlog r_t))
        [+ c_val mean_{t,k} rho^t mean CE(Q_k(z_t, a_t), twohot(symlog y_t))] [+ c_term ...]

    z_0 = E(o_0), rolled with F on the recorded actions, each ensemble member on its own latents. Steps after a termination weigh 0.

    Args:
        reward_target: [H, B], the batch's rewards, normalised where the configuration asks for it.
        q, key: of a model with Q heads (`num_q`): its target heads, and what actions, heads and dropout of y_t are drawn with.

    Returns:
        The loss and its parts, each part also per step: `consistency_per_step`, `reward_per_step` [H], undiscounted; and `z`
        [H+1, K, B, D], the latents of the rollout.
    """
    c, model = config.world_model, WorldModel(config.model)
    horizon, size = batch.reward.shape
    chex.assert_shape((batch.obs[1:], batch.action), [(horizon, size, config.model.obs_dim), (horizon, size, config.model.action_dim)])
    variables, task_id = {"params": params}, batch.task_id

    z0 = model.apply(variables, batch.obs[0], task_id, method="encode")
    target = model.apply({"params": jax.lax.stop_gradient(params)}, batch.obs[1:], task_id, method="encode")

    def advance(z: Array, action: Array) -> tuple[Array, Array]:
        next_z = model.apply(variables, z, action, task_id, method="next_per_member")
        return next_z, next_z

    first = jnp.broadcast_to(z0, (config.model.model_ensemble, *z0.shape))
    _, rolled = jax.lax.scan(advance, first, batch.action)
    z = jnp.concatenate([first[None], rolled[:-1]])
    action = jnp.broadcast_to(batch.action[:, None], (*z.shape[:-1], config.model.action_dim))

    alive = ops.steps_lived(batch.terminated)
    consistency = jnp.mean(alive * jnp.square(rolled - target[:, None]).mean(-1).mean(1), axis=1)
    output = model.apply(variables, z, action, task_id, method="reward_output")
    wanted = jnp.broadcast_to(reward_target[:, None], z.shape[:-1])
    if config.model.reward_head == "two_hot":
        error = ops.two_hot_cross_entropy(output, ops.symlog(wanted), config.model.bin_low, config.model.bin_high)
    else:
        error = jnp.square(output[..., 0] - wanted)
    reward = jnp.mean(alive * error.mean(1), axis=1)

    weight = c.rho ** jnp.arange(horizon)
    parts = {"consistency_loss": jnp.mean(weight * consistency), "reward_loss": jnp.mean(weight * reward)}
    loss = c.consistency_coef * parts["consistency_loss"] + c.reward_coef * parts["reward_loss"]
    if config.model.num_q:
        error = tdmpc2.value_errors(params, q, batch, target, z, action, key, config)
        parts["value_loss"] = jnp.mean(weight * jnp.mean(alive * error, axis=1))
        loss += c.value_coef * parts["value_loss"]
    if config.model.termination_head:
        logit = model.apply(variables, z, action, task_id, method="terminated_logit")
        error = optax.sigmoid_binary_cross_entropy(logit, jnp.broadcast_to(batch.terminated[:, None], logit.shape))
        parts["termination_loss"] = jnp.mean(weight * jnp.mean(alive * error.mean(1), axis=1))
        loss += c.termination_coef * parts["termination_loss"]
    latents = jnp.concatenate([first[None], rolled])
    return loss, parts | {"loss": loss, "consistency_per_step": consistency, "reward_per_step": reward, "z": latents}


def reward_target(moments: Moments, reward: Array, config: Config) -> Array:
    """What the reward head is trained on: the recorded reward, normalised and clipped to +-5 where the configuration asks for it."""
    return ops.normalise(reward, moments) if config.world_model.normalise_reward else reward


def update_world_model(state: WorldModelState, batch: Batch, key: Array, config: Config) -> tuple[WorldModelState, Metrics]:
    """One gradient step of pre-training; afterwards the task embedding is projected back into the unit ball.

    A model with Q heads then averages these into its target heads and takes a step of its policy prior (TD-MPC2).
    """
    lived, moments = ops.steps_lived(batch.terminated), state.reward_moments
    if config.model.normalise_obs:
        state = state.replace(params=count_obs(state.params, batch.obs, batch.task_id, jnp.concatenate([lived[:1], lived])))
    if config.world_model.normalise_reward:
        moments = ops.update_moments(moments, batch.reward, lived)
    target = reward_target(moments, batch.reward, config)
    loss_key, prior_key = jax.random.split(jax.random.fold_in(key, state.step))
    grads, metrics = jax.grad(world_model_loss, has_aux=True)(state.params, batch, target, config, state.q, loss_key)
    trained, grads = tdmpc2.without_prior(state.params), tdmpc2.without_prior(grads)
    updates, opt_state = world_model_tx(config.world_model).update(grads, state.opt_state, trained)
    params = state.params | optax.apply_updates(trained, updates)
    if config.model.task_dim:
        params = params | {"task_embedding": ops.project_to_unit_ball(params["task_embedding"])}
    latents, metrics = metrics["z"], {name: value for name, value in metrics.items() if value.ndim == 0}
    metrics["grad_norm"] = optax.tree.norm(grads)
    q = state.q
    if q is not None:
        params, q, prior_metrics = tdmpc2.update_prior(params, q, jax.lax.stop_gradient(latents), batch.task_id, prior_key, config)
        metrics |= prior_metrics
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state, reward_moments=moments, q=q), metrics


# --------------------------------------------------------------------------------------------------------------------- policy


def init_policy(config: Config, key: Array) -> PolicyState:
    """Fresh actor, critics, their optimiser states and the moments of imagined returns."""
    actor_key, critic_key = jax.random.split(key)
    z = jnp.zeros((1, config.policy_input_dim))
    actor_params = actor_of(config).init(actor_key, z)["params"]
    critic_params = critics_of(config).init(critic_key, z)["params"]
    return PolicyState(
        step=jnp.zeros((), jnp.int32),
        actor_params=actor_params,
        critic_params=critic_params,
        target_critic_params=jax.tree.map(jnp.copy, critic_params),
        actor_opt_state=actor_tx(config.policy).init(actor_params),
        critic_opt_state=critic_tx(config.policy).init(critic_params),
        return_moments=ops.init_moments(),
    )


def act(actor_params: Params, wm_params: Params, obs: Array, task_id: Array, config: Config, noise: Array | None = None) -> Array:
    """Action [N, A] for real observations [N, O]: mask * tanh(mean + std * noise), noise [N, A] standard normal or left out."""
    mean, std = actor_of(config).apply({"params": actor_params}, policy_obs(wm_params, obs, task_id, config))
    if noise is not None:
        mean = mean + std * noise
    return jnp.tanh(mean) * jnp.asarray(config.model.action_mask)[task_id]


def imagine(actor_params: Params, wm_params: Params, z0: Array, task_id: Array, noise: Array, member: Array, config: Config) -> Rollout:
    """Roll the policy through the model from z0 [B, D], differentiably.

    a_t = mask * tanh(mu(x_t) + sigma * noise_t), x_t = sg z_t where `detach_actor_input`; z_{t+1} = F(z_t, a_t); r_t is
    R(z_t, a_t) times `reward_scale`, plus `exploration_bonus` and less `uncertainty_penalty` times the ensemble's disagreement.
    `noise` is standard normal, [H, B, A]; `member` [B] the dynamics-ensemble member that carries each trajectory (0 where there is one).
    """
    p, model, variables = config.policy, WorldModel(config.model), {"params": wm_params}
    actor = actor_of(config)
    policy_input = lambda z: model.apply(variables, z, task_id, p.task_conditioned, method="policy_input")  # noqa: E731

    def advance(z: Array, eps: Array) -> tuple[Array, tuple[Array, ...]]:
        mean, std = actor.apply({"params": actor_params}, policy_input(jax.lax.stop_gradient(z) if p.detach_actor_input else z))
        action = model.apply(variables, jnp.tanh(mean + std * eps), task_id, method="mask")
        candidates = model.apply(variables, z, action, task_id, method="next")
        if config.model.model_ensemble == 1:
            return candidates[0], (z, action, jnp.zeros(z.shape[:-1]))
        next_z = jnp.take_along_axis(candidates, member[None, :, None], axis=0)[0]
        disagreement = jnp.sqrt(jnp.var(candidates, axis=0).sum(-1) + 1e-12)
        return next_z, (z, action, disagreement)

    last, (z, action, disagreement) = jax.lax.scan(advance, z0, noise)
    relative = disagreement / (jax.lax.stop_gradient(disagreement.mean()) + 1e-8)
    reward = p.reward_scale * model.apply(variables, z, action, task_id, method="reward")
    reward += p.exploration_bonus * relative - p.uncertainty_penalty * disagreement
    discount = model.apply(variables, z, action, task_id, method="survival")
    return Rollout(z=policy_input(jnp.concatenate([z, last[None]])), action=action, reward=reward, discount=discount)


def roll(
    actor_params: Params, wm_params: Params, starts: Starts | SimStarts, noise: Array, member: Array, config: Config
) -> tuple[Rollout, Simulated | None]:
    """The policy's trajectories as `dynamics` says, with what the simulator gives beside them where there is one."""
    if isinstance(starts, Starts):
        z0 = WorldModel(config.model).apply({"params": wm_params}, starts.obs, starts.task_id, method="encode")
        return imagine(actor_params, wm_params, z0, starts.task_id, noise, member, config), None
    if config.policy.dynamics == "simulator":
        return simulated.unroll(actor_params, wm_params, starts, noise, config)
    _, real = simulated.unroll(jax.lax.stop_gradient(actor_params), wm_params, starts, noise, config)
    return simulated.follow(actor_params, wm_params, real.transition, starts.task_id, noise, member, config), real


def imagined_return(rollout: Rollout, bootstrap: Array, gamma: Array, config: Config) -> Array:
    """R_b of `ops.discounted_return`, [B]: bootstrap is V of where the trajectory leads, [B] at its end, or [H, B] with `cut`."""
    values = jnp.broadcast_to(bootstrap, rollout.reward.shape)
    return ops.discounted_return(rollout.reward, rollout.discount, values, gamma, rollout.cut, config.policy.bootstrap_power_offset)


def actor_loss(
    actor_params: Params, state: PolicyState, wm_params: Params, starts: Starts | SimStarts, noise: Array, member: Array, config: Config
) -> tuple[Array, tuple[Rollout, Array, Simulated | None, Metrics]]:
    """-mean_b R_b / sqrt(var_running(R) + 1e-5) [- entropy_coef * entropy] [+ behaviour_weight * behaviour loss].

    The running variance includes this batch; the root is at least `min_return_scale`. Returns the loss and (rollout, R [B], what `roll`
    says of the simulator, metrics).
    """
    rollout, after = roll(actor_params, wm_params, starts, noise, member, config)
    bootstrap = state_value(state.critic_params, rollout.z[-1] if rollout.next_z is None else rollout.next_z, config)
    returns = imagined_return(rollout, bootstrap, discount_of(starts.task_id, config), config)
    scale = jnp.ones(())
    if config.policy.normalise_returns:
        moments = ops.update_moments(state.return_moments, jax.lax.stop_gradient(returns))
        scale = jax.lax.rsqrt(jnp.maximum(moments.var + 1e-5, config.policy.min_return_scale**2))
    loss = -returns.mean() * scale
    metrics = {"imagined_return": returns.mean(), "imagined_reward": rollout.reward.mean()}
    if config.policy.entropy_coef:
        _, std = actor_of(config).apply({"params": actor_params}, rollout.z[0])
        metrics["entropy"] = actor_terms.action_entropy(rollout, std, starts.task_id, config)
        loss -= config.policy.entropy_coef * metrics["entropy"]
    if config.policy.behaviour_weight and isinstance(starts, Starts):
        metrics["behaviour_loss"] = actor_terms.behaviour_loss(actor_params, state.critic_params, wm_params, starts, config)
        loss += actor_terms.behaviour_weight(state.step, config) * metrics["behaviour_loss"]
    return loss, (rollout, returns, after, metrics | {"actor_loss": loss})


def critic_targets(critic_params: Params, rollout: Rollout, gamma: Array, config: Config) -> Array:
    """G [H, B] of the trajectory: TD(lambda) or one step, V the least of the ensemble; gamma scalar or [B]."""
    p = config.policy
    lam = p.lam if p.critic_target == "td_lambda" else 0.0
    next_value = state_value(critic_params, rollout.z[1:] if rollout.next_z is None else rollout.next_z, config)
    return jax.lax.stop_gradient(ops.lambda_returns(rollout.reward, gamma * rollout.discount, next_value, lam, rollout.cut))


def critic_loss(critic_params: Params, z: Array, target: Array, config: Config) -> Array:
    """sum_k mean (V_k(z) - G)^2 for z [N, D], target [N]; each critic regresses on its own."""
    values = critics_of(config).apply({"params": critic_params}, z)
    return jnp.square(values - target).mean(1).sum()


def _fit_critics(state: PolicyState, z: Array, target: Array, key: Array, config: Config) -> tuple[PolicyState, Array]:
    """`critic_passes` passes over `critic_minibatches` shuffled minibatches of z [N, D], target [N]; returns the mean loss too."""
    p, tx = config.policy, critic_tx(config.policy)
    permute = jax.vmap(lambda k: jax.random.permutation(k, z.shape[0]))
    rows = permute(jax.random.split(key, p.critic_passes)).reshape(p.critic_passes * p.critic_minibatches, -1)

    def fit(carry: tuple[Params, optax.OptState], row: Array) -> tuple[tuple[Params, optax.OptState], Array]:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(critic_loss)(params, z[row], target[row], config)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    (critic_params, opt_state), losses = jax.lax.scan(fit, (state.critic_params, state.critic_opt_state), rows)
    averaged = optax.incremental_update(critic_params, state.target_critic_params, p.target_critic)
    return state.replace(critic_params=critic_params, critic_opt_state=opt_state, target_critic_params=averaged), losses.mean()


def update_policy(state: PolicyState, wm_params: Params, starts: Starts, key: Array, config: Config) -> tuple[PolicyState, Metrics]:
    """One iteration of extraction: imagine, step the actor, regress the critics. The world model is read, never written."""
    state, _, metrics = _update_policy(state, wm_params, starts, key, config)
    return state, metrics


def update_policy_in_simulator(
    state: PolicyState, wm_params: Params, starts: SimStarts, key: Array, config: Config
) -> tuple[PolicyState, Simulated, Metrics]:
    """The same iteration on simulated trajectories of `horizon` steps."""
    state, after, metrics = _update_policy(state, wm_params, starts, key, config)
    assert after is not None
    return state, after, metrics


def _update_policy(
    state: PolicyState, wm_params: Params, starts: Starts | SimStarts, key: Array, config: Config
) -> tuple[PolicyState, Simulated | None, Metrics]:
    p = config.policy
    noise_key, member_key, fit_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    size = starts.task_id.shape[0]
    noise = jax.random.normal(noise_key, (p.horizon, size, config.model.action_dim))
    member = jax.random.randint(member_key, (size,), 0, config.model.model_ensemble)

    differentiate = jax.grad(actor_loss, has_aux=True)
    grads, (rollout, returns, after, metrics) = differentiate(state.actor_params, state, wm_params, starts, noise, member, config)
    updates, actor_opt_state = actor_tx(p).update(grads, state.actor_opt_state, state.actor_params)
    target = critic_targets(state.target_critic_params, rollout, discount_of(starts.task_id, config), config)
    z = jax.lax.stop_gradient(rollout.z[:-1]).reshape(-1, config.policy_input_dim)
    state, fit_loss = _fit_critics(state, z, target.reshape(-1), fit_key, config)
    metrics |= {"critic_loss": fit_loss, "value": target.mean()}
    metrics |= {"actor_grad_norm": optax.tree.norm(grads), "log_std": state.actor_params["log_std"].mean()}
    actor_params = optax.apply_updates(state.actor_params, updates)
    moments = ops.update_moments(state.return_moments, returns)
    state = state.replace(step=state.step + 1, actor_params=actor_params, actor_opt_state=actor_opt_state, return_moments=moments)
    return state, after, metrics
