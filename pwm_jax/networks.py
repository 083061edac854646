"""The networks: world model (encoder, dynamics, reward, termination, task embedding), actor, critic ensemble.

Blocks, input order, LayerNorm epsilon and initialisation are TD-MPC2's (arXiv 2310.16828), as PWM uses them, so that published
parameters map onto these modules one to one.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax import ops
from pwm_jax.config import Config, ModelConfig
from pwm_jax.layers import MLP, flattened, layer_norm, linear, mish_norm, recomputed, stack, torch_uniform, widened
from pwm_jax.types import Moments, Params

RESIDUAL_FLOOR = 1e-6  # keeps a simplex component that has reached zero within reach


class ObsMoments(nn.Module):
    """Running moments of the observations of every task, kept beside the parameters they go with; counted, never trained."""

    num_tasks: int

    @nn.compact
    def __call__(self, obs: Array, task_id: Array) -> Array:
        """Normalised observations [..., O], clipped to +-10; components that never varied are 0."""
        shape = (self.num_tasks, obs.shape[-1])
        mean, var = self.param("mean", nn.initializers.zeros, shape), self.param("var", nn.initializers.ones, shape)
        count = self.param("count", nn.initializers.constant(1e-4), (self.num_tasks, 1))
        return ops.normalise(obs, jax.lax.stop_gradient(Moments(mean[task_id], var[task_id], count)), clip=10.0)


def count_obs(wm_params: Params, obs: Array, task_id: Array, weight: Array | float = 1.0) -> Params:
    """The parameters of a model with `normalise_obs`, its moments merged with those of obs [..., N, O] of tasks task_id [N].

    `weight` [..., N] is 0 for observations that do not count.
    """
    rows, counts = (jnp.broadcast_to(x, obs.shape[:-1]).reshape(-1) for x in (task_id, weight))
    moments = ops.update_moments_by_task(Moments(**wm_params["obs_moments"]), obs.reshape(-1, obs.shape[-1]), rows, counts)
    return wm_params | {"obs_moments": {"mean": moments.mean, "var": moments.var, "count": moments.count}}


class WorldModel(nn.Module):
    """E(obs, e), F(z, e, a), R(z, e, a) and T(z, e, a); `task_id` is an int array that broadcasts against the batch dimensions."""

    config: ModelConfig

    def setup(self) -> None:
        """Create the networks that the configuration names."""
        c = self.config
        latent = dict(
            out=c.latent_dim,
            output=c.regulariser,
            plain_relu=c.regulariser == "relu",
            simnorm_dim=c.simnorm_dim,
            simnorm_temperature=c.simnorm_temperature,
            dtype=c.matmul_dtype,
        )
        if c.task_dim:
            init = lambda key, shape: jax.random.uniform(key, shape, minval=-0.02, maxval=0.02)  # noqa: E731
            self.task_embedding = self.param("task_embedding", init, (c.num_tasks, c.task_dim))
        if c.normalise_obs:
            self.obs_moments = ObsMoments(c.num_tasks)
        self.encoder = MLP(c.enc_hidden, **latent)
        step = dict(out=c.latent_dim, zero_last=True, dtype=c.matmul_dtype) if c.residual_dynamics else latent
        self.dynamics = [MLP(c.mlp_hidden, **step) for _ in range(c.model_ensemble)]
        head = dict(hidden=c.mlp_hidden, plain_relu=c.regulariser == "relu", zero_last=True, dtype=c.matmul_dtype)
        self.reward_head = MLP(out=c.num_bins if c.reward_head == "two_hot" else 1, **head)
        if c.termination_head:
            self.termination = MLP(out=1, **head)

    def with_task(self, x: Array, task_id: Array) -> Array:
        """Append the task's embedding, projected into the unit ball, to x [..., D]."""
        if not self.config.task_dim:
            return x
        embedding = ops.project_to_unit_ball(self.task_embedding[task_id])
        return jnp.concatenate([x, jnp.broadcast_to(embedding, (*x.shape[:-1], self.config.task_dim))], axis=-1)

    def policy_input(self, z: Array, task_id: Array, conditioned: bool) -> Array:
        """What actor and critics read: z [..., D], with the task's embedding where the policy is one of several tasks."""
        return self.with_task(z, task_id) if conditioned else z

    def mask(self, action: Array, task_id: Array) -> Array:
        """Zero the components of action [..., A] that the task does not have, where `mask_actions` is set."""
        return action * jnp.asarray(self.config.action_mask)[task_id] if self.config.mask_actions else action

    def step_input(self, z: Array, action: Array, task_id: Array) -> Array:
        """z, embedding and masked action side by side [..., D + E + A]: what dynamics, reward, termination and Q networks read."""
        return jnp.concatenate([self.with_task(z, task_id), self.mask(action, task_id)], axis=-1)

    def normalised(self, obs: Array, task_id: Array) -> Array:
        """obs [..., O] as the encoder reads it: normalised where `normalise_obs` is set."""
        return self.obs_moments(obs, task_id) if self.config.normalise_obs else obs

    def encode(self, obs: Array, task_id: Array) -> Array:
        """Latent [..., D] of obs [..., O]."""
        return self.encoder(self.with_task(self.normalised(obs, task_id), task_id))

    def _advance(self, member: MLP, z: Array, action: Array, task_id: Array) -> Array:
        """One member's next latent; with `residual_dynamics` SimNorm(log z + f(z, e, a)), a multiplicative step on each simplex."""
        y = member(self.step_input(z, action, task_id))
        if not self.config.residual_dynamics:
            return y
        c = self.config
        return ops.simnorm(c.simnorm_temperature * jnp.log(z + RESIDUAL_FLOOR) + y, c.simnorm_dim, c.simnorm_temperature)

    def next(self, z: Array, action: Array, task_id: Array) -> Array:
        """Next latents [K, ..., D] of every member of the dynamics ensemble, from z [..., D] and action [..., A]."""
        return stack([self._advance(member, z, action, task_id) for member in self.dynamics])

    def next_per_member(self, z: Array, action: Array, task_id: Array) -> Array:
        """Next latents [K, ..., D] where member k continues from its own z[k] of z [K, ..., D]; action [..., A] is shared."""
        return stack([self._advance(member, z[k], action, task_id) for k, member in enumerate(self.dynamics)])

    def reward_output(self, z: Array, action: Array, task_id: Array) -> Array:
        """Raw output of the reward head: logits [..., num_bins], or [..., 1] of the scalar head."""
        return self.reward_head(self.step_input(z, action, task_id))

    def reward(self, z: Array, action: Array, task_id: Array) -> Array:
        """Predicted reward [...] in the configured `reward_space`."""
        c, output = self.config, self.reward_output(z, action, task_id)
        if c.reward_head == "scalar":
            return output[..., 0]
        expected = ops.two_hot_expectation(output, c.bin_low, c.bin_high)
        return ops.symexp(expected) if c.reward_space == "raw" else expected

    def terminated_logit(self, z: Array, action: Array, task_id: Array) -> Array:
        """Logit [...] of the probability that the step terminates the episode."""
        return self.termination(self.step_input(z, action, task_id))[..., 0]

    def survival(self, z: Array, action: Array, task_id: Array) -> Array:
        """Probability [...] that the step does not terminate the episode: 1 without a termination head."""
        if not self.config.termination_head:
            return jnp.ones(z.shape[:-1])
        return 1.0 - jax.nn.sigmoid(self.terminated_logit(z, action, task_id))

    def __call__(self, obs: Array, action: Array, task_id: Array) -> Array:
        """Touch every network once, which initialises all parameters; returns the next latents of the ensemble."""
        z = self.encode(obs, task_id)
        self.reward_output(z, action, task_id)
        if self.config.termination_head:
            self.terminated_logit(z, action, task_id)
        return self.next(z, action, task_id)


class Actor(nn.Module):
    """Gaussian policy before the tanh: mean [..., A] by an MLP of linear, Mish, LayerNorm layers; a state-independent log-std [A]."""

    hidden: Sequence[int]
    action_dim: int
    log_std_init: float = -1.0
    log_std_floor: float = -1.427
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z: Array) -> tuple[Array, Array]:
        """z [..., D] -> mean [..., A] and standard deviation [A]."""
        log_std = self.param("log_std", nn.initializers.constant(self.log_std_init), (self.action_dim,))
        return flattened(self._mean, z), jnp.exp(jnp.maximum(log_std, self.log_std_floor))

    def _mean(self, z: Array) -> Array:
        for i, width in enumerate((*self.hidden, self.action_dim)):
            init = torch_uniform(z.shape[-1])
            z = linear(width, self.dtype, kernel_init=init, bias_init=init, name=f"linear_{i}")(z)
            if i < len(self.hidden):
                z = recomputed(mish_norm, layer_norm(f"norm_{i}"), z)
        return widened(z)


class Critic(nn.Module):
    """State value by an MLP of linear, Mish, LayerNorm layers; orthogonal initialisation with gain sqrt 2."""

    hidden: Sequence[int]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """z [..., D] -> value [...]."""
        return flattened(self._value, z)

    def _value(self, z: Array) -> Array:
        init = nn.initializers.orthogonal(2**0.5)
        for i, width in enumerate((*self.hidden, 1)):
            z = linear(width, self.dtype, kernel_init=init, name=f"linear_{i}")(z)
            if i < len(self.hidden):
                z = recomputed(mish_norm, layer_norm(f"norm_{i}"), z)
        return widened(z[..., 0])


class CriticEnsemble(nn.Module):
    """Independent critics; separate matrix products, since XLA's CPU backend runs them faster than one batched product."""

    hidden: Sequence[int]
    num_critics: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """z [..., D] -> values [K, ...]."""
        return stack([Critic(self.hidden, self.dtype, name=f"critic_{k}")(z) for k in range(self.num_critics)])


def actor_of(config: Config) -> Actor:
    """The actor module of this configuration."""
    p = config.policy
    return Actor(p.actor_hidden, config.model.action_dim, p.log_std_init, p.log_std_floor, p.matmul_dtype)


def critics_of(config: Config) -> CriticEnsemble:
    """The critic-ensemble module of this configuration."""
    return CriticEnsemble(config.policy.critic_hidden, config.policy.num_critics, config.policy.matmul_dtype)


def policy_obs(wm_params: Params, obs: Array, task_id: Array, config: Config) -> Array:
    """What actor and critics read of real observations obs [..., O]: E(obs), or obs itself (normalised) without a model."""
    model, variables = WorldModel(config.model), {"params": wm_params}
    if config.policy.dynamics == "simulator":
        return model.apply(variables, obs, task_id, method="normalised")
    z = model.apply(variables, obs, task_id, method="encode")
    return model.apply(variables, z, task_id, config.policy.task_conditioned, method="policy_input")


def state_value(critic_params: Params, z: Array, config: Config) -> Array:
    """min_k V_k(z) over the ensemble: z [..., D] -> [...]."""
    return critics_of(config).apply({"params": critic_params}, z).min(0)


def discount_of(task_id: Array, config: Config) -> Array:
    """The policy's discount for tasks [...]: `gamma`, or with `task_discounts` each task's own [...]."""
    p = config.policy
    return jnp.asarray(config.model.discounts)[task_id] if p.task_discounts else jnp.asarray(p.gamma)
