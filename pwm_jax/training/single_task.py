"""The online loop of one task in a pure-JAX simulator: stepping, replay, model and policy updates of an epoch are one program.

What `policy.dynamics` says decides how the policy learns (`model`: PWM, `simulator`: SHAC, `decoupled`); everything around it is shared.
Seeds are one more leading axis of the state. Nothing leaves the device between two logs.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import ops, pwm, simulated
from pwm_jax.config import Config, check_fields
from pwm_jax.data import replay as replays
from pwm_jax.data.replay import Replay
from pwm_jax.networks import count_obs
from pwm_jax.training.pretrain import fit_replay
from pwm_jax.types import Metrics, Params, PolicyState, SimStarts, SimState, Simulator, Starts, Transition, WorldModelState


@dataclasses.dataclass(frozen=True)
class SingleTaskConfig:
    """Length and rhythm of a run. Steps are agent steps of all `num_envs` environments together, unless they say otherwise.

    An epoch of dynamics `model` is `steps_per_epoch` steps of each environment, then `wm_updates` model and `policy_updates` policy
    updates from states of the replay. In the other dynamics the policy updates themselves step the environments, `policy.horizon` steps
    each, and the model updates follow. `seed_steps` are taken with random actions first. Learning rates fall linearly to their `final_lr`
    over the run. Whatever the dynamics, the replay keeps the last `replay_capacity` steps.

    `seeds` share one program: `seeds_per_batch` of them are vectorised (0: all, which suits an accelerator; on a CPU 1 is faster).
    Every `eval_every` steps the policy without noise plays one episode in each of `eval_envs` environments of its own; a run ends with
    an evaluation, at or a little after `env_steps`.
    """

    seeds: tuple[int, ...] = (0,)
    env_steps: int = 1_000_000
    num_envs: int = 64
    steps_per_epoch: int = 16
    wm_updates: int = 8
    policy_updates: int = 1
    seed_steps: int = 10_000
    replay_capacity: int = 1_000_000
    eval_every: int = 50_000
    eval_envs: int = 32
    checkpoint_every: int = 200_000
    seeds_per_batch: int = 1
    save_replay: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "single_task", zero=("wm_updates", "seed_steps", "seeds_per_batch", "seeds"))
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"single_task.seeds must be one or more different seeds, not {self.seeds}")


class SingleTaskState(flax.struct.PyTreeNode):
    """All that one seed carries: model, policy, replay, environments with the returns so far [N], and the steps of each environment.

    `finished` is the sum of the returns of the episodes that ended since the last log, and their number.
    """

    key: jax.Array
    world_model: WorldModelState
    policy: PolicyState
    replay: Replay
    sim: SimState
    running_return: jax.Array
    finished: jax.Array
    step: jax.Array


def steps_per_epoch(config: Config, loop: SingleTaskConfig) -> int:
    """Steps that each environment takes in an epoch."""
    return loop.steps_per_epoch if config.policy.dynamics == "model" else loop.policy_updates * config.policy.horizon


def chunks(config: Config, loop: SingleTaskConfig) -> tuple[int, int]:
    """Number of chunks between two evaluations that make the run, after the seeding, and the epochs of each."""
    per_epoch = steps_per_epoch(config, loop) * loop.num_envs
    each = max(loop.eval_every // per_epoch, 1)
    left = loop.env_steps - seed_steps_per_env(loop) * loop.num_envs
    return max(math.ceil(left / (each * per_epoch)), 1), each


def seed_steps_per_env(loop: SingleTaskConfig) -> int:
    """Steps with random actions that each environment takes first."""
    return math.ceil(loop.seed_steps / loop.num_envs)


def scheduled(config: Config, loop: SingleTaskConfig) -> Config:
    """The configuration with both learning-rate schedules stretched over the run.

    Raises:
        ValueError: a setting of the loop does not fit the algorithm's; names both.
    """
    p, c = config.policy, config.world_model
    if p.dynamics != "model" and p.batch_size != loop.num_envs:
        raise ValueError(
            f"policy.dynamics {p.dynamics} learns from the environments themselves: set policy.batch_size to single_task.num_envs "
            f"{loop.num_envs}"
        )
    if p.dynamics == "simulator" and loop.wm_updates:
        raise ValueError("policy.dynamics simulator uses no world model: set single_task.wm_updates to 0")
    if p.dynamics != "simulator" and not loop.wm_updates:
        raise ValueError(f"policy.dynamics {p.dynamics} needs a world model: set single_task.wm_updates above 0")
    slots = min(loop.replay_capacity, loop.env_steps) // loop.num_envs
    first = min(seed_steps_per_env(loop) + steps_per_epoch(config, loop), slots)
    if loop.wm_updates and first < c.horizon:
        raise ValueError(
            f"learning begins with {first} steps of each of {loop.num_envs} environments, fewer than world_model.horizon {c.horizon}: "
            f"raise single_task.seed_steps to {c.horizon * loop.num_envs}, replay_capacity and env_steps at least as high"
        )
    epochs = math.prod(chunks(config, loop))
    return dataclasses.replace(
        config,
        world_model=dataclasses.replace(c, decay_steps=epochs * max(loop.wm_updates, 1)),
        policy=dataclasses.replace(p, decay_steps=epochs * loop.policy_updates),
    )


def init(
    config: Config, loop: SingleTaskConfig, simulator: Simulator, seeds: jax.Array, pretrained: WorldModelState | None = None
) -> SingleTaskState:
    """The states of `seeds` [S] after their random steps, every leaf with a leading axis S; `pretrained` is a model to start from."""

    def one(seed: jax.Array) -> SingleTaskState:
        model_key, policy_key, sim_key, act_key, run_key = jax.random.split(jax.random.key(seed), 5)
        world_model = pwm.init_world_model(config, model_key)
        if pretrained is not None:
            world_model = world_model.replace(params=pretrained.params, reward_moments=pretrained.reward_moments)
        m, n = config.model, loop.num_envs
        state = SingleTaskState(
            key=run_key,
            world_model=world_model,
            policy=pwm.init_policy(config, policy_key),
            replay=replays.create(min(loop.replay_capacity, loop.env_steps), np.zeros(n, np.int32), m.obs_dim, m.action_dim),
            sim=simulator.reset(sim_key, n),
            running_return=jnp.zeros(n),
            finished=jnp.zeros(2),
            step=jnp.zeros((), jnp.int32),
        )

        def act(sim: SimState, t: jax.Array) -> tuple[SimState, Transition]:
            draw, restart = jax.random.split(jax.random.fold_in(act_key, t))
            return simulator.step(sim, jax.random.uniform(draw, (n, m.action_dim), minval=-1.0), restart)

        sim, transition = jax.lax.scan(act, state.sim, jnp.arange(seed_steps_per_env(loop)))
        return _remember(state.replace(sim=sim), transition, config)

    return jax.jit(lambda: jax.lax.map(one, seeds))()


def _remember(state: SingleTaskState, transition: Transition, config: Config) -> SingleTaskState:
    """Append transitions [T, N, ...] to the replay, count ended episodes and, without a model, the observations."""

    def add(carry: tuple[Replay, jax.Array, jax.Array], step: Transition) -> tuple[tuple[Replay, jax.Array, jax.Array], None]:
        replay, running, finished = carry
        running = running + step.reward
        ended = jnp.maximum(step.terminated, step.truncated)
        finished = finished + jnp.stack([jnp.sum(ended * running), jnp.sum(ended)])
        return (replays.add(replay, step), running * (1.0 - ended), finished), None

    carry = (state.replay, state.running_return, state.finished)
    (replay, running, finished), _ = jax.lax.scan(add, carry, transition)
    world_model = state.world_model
    if config.model.normalise_obs and config.policy.dynamics == "simulator":
        task_id = jnp.zeros(transition.reward.shape[1], jnp.int32)
        world_model = world_model.replace(params=count_obs(world_model.params, transition.obs, task_id))
    step = state.step + transition.reward.shape[0]
    return state.replace(replay=replay, running_return=running, finished=finished, world_model=world_model, step=step)


def _learn_in_model(
    state: SingleTaskState, key: jax.Array, config: Config, loop: SingleTaskConfig, simulator: Simulator
) -> tuple[SingleTaskState, Metrics]:
    """Act, fit the model, then learn the policy inside it from states of the replay."""
    p, task_id = config.policy, jnp.zeros(loop.num_envs, jnp.int32)
    noise_key, restart_key, start_key, update_key = jax.random.split(key, 4)
    noise = jax.random.normal(noise_key, (loop.steps_per_epoch, loop.num_envs, config.model.action_dim))
    starts = SimStarts(simulator=simulator, state=state.sim, task_id=task_id, key=restart_key)
    _, real = simulated.unroll(state.policy.actor_params, state.world_model.params, starts, noise, config)
    state = _remember(state.replace(sim=real.state), real.transition, config)
    state, wm_metrics = _fit_model(state, key, config, loop)

    def improve(policy: PolicyState, _: None) -> tuple[PolicyState, Metrics]:
        draw = jax.random.fold_in(start_key, policy.step)
        obs, action = replays.sample_starts(state.replay, draw, p.batch_size, 0, p.start_balance, p.horizon)
        batch = Starts(obs, action, jnp.zeros(p.batch_size, jnp.int32))
        return pwm.update_policy(policy, state.world_model.params, batch, update_key, config)

    policy, metrics = jax.lax.scan(improve, state.policy, None, length=loop.policy_updates)
    return state.replace(policy=policy), {**wm_metrics, **_means(metrics)}


def _learn_in_simulator(
    state: SingleTaskState, key: jax.Array, config: Config, loop: SingleTaskConfig, simulator: Simulator
) -> tuple[SingleTaskState, Metrics]:
    """Learn the policy from simulated windows, each of which steps the environments on; then fit the model, where there is one."""
    restart_key, update_key = jax.random.split(key)
    task_id = jnp.zeros(loop.num_envs, jnp.int32)

    def improve(state: SingleTaskState, _: None) -> tuple[SingleTaskState, Metrics]:
        starts = SimStarts(simulator=simulator, state=state.sim, task_id=task_id, key=jax.random.fold_in(restart_key, state.policy.step))
        policy, real, metrics = pwm.update_policy_in_simulator(state.policy, state.world_model.params, starts, update_key, config)
        return _remember(state.replace(policy=policy, sim=real.state), real.transition, config), metrics

    state, metrics = jax.lax.scan(improve, state, None, length=loop.policy_updates)
    if not loop.wm_updates:
        return state, _means(metrics)
    state, wm_metrics = _fit_model(state, key, config, loop)
    return state, {**wm_metrics, **_means(metrics)}


def _fit_model(state: SingleTaskState, key: jax.Array, config: Config, loop: SingleTaskConfig) -> tuple[SingleTaskState, Metrics]:
    """`wm_updates` gradient steps on windows of the replay."""
    world_model, metrics = fit_replay(state.world_model, state.replay, key, config, loop.wm_updates)
    return state.replace(world_model=world_model), _means(metrics)


def _means(metrics: Metrics) -> dict[str, jax.Array]:
    """Means over the first axis, the updates."""
    return {name: value.mean(0) for name, value in metrics.items()}


@functools.partial(jax.jit, static_argnames=("epochs", "config", "loop", "simulator"), donate_argnums=0)
def run_epochs(
    states: SingleTaskState, epochs: int, config: Config, loop: SingleTaskConfig, simulator: Simulator
) -> tuple[SingleTaskState, Metrics]:
    """`epochs` epochs of every seed as one program; metrics [S] are means over them, `train_return` that of the episodes that ended.

    `config` is a `scheduled` one.
    """
    learn = _learn_in_model if config.policy.dynamics == "model" else _learn_in_simulator

    def one(state: SingleTaskState) -> tuple[SingleTaskState, Metrics]:
        def epoch(state: SingleTaskState, _: None) -> tuple[SingleTaskState, Metrics]:
            return learn(state, jax.random.fold_in(state.key, state.step), config, loop, simulator)

        state, metrics = jax.lax.scan(epoch, state.replace(finished=jnp.zeros(2)), None, length=epochs)
        total, count = state.finished
        return state, _means(metrics) | {"train_return": total / jnp.maximum(count, 1.0), "train_episodes": count}

    return ops.map_rows(one, states, loop.seeds_per_batch)


@functools.partial(jax.jit, static_argnames=("config", "loop", "simulator"))
def evaluate(
    actor_params: Params, wm_params: Params, key: jax.Array, config: Config, loop: SingleTaskConfig, simulator: Simulator
) -> tuple[jax.Array, jax.Array]:
    """Returns and lengths [S, E] of one episode in each of `eval_envs` environments, by the policies without noise.

    The same start states for every seed, a function of `key` alone.
    """
    task_id = jnp.zeros(loop.eval_envs, jnp.int32)

    def one(params: tuple[Params, Params]) -> tuple[jax.Array, jax.Array]:
        act = lambda obs, _: pwm.act(*params, obs, task_id, config)  # noqa: E731
        return simulated.play(simulator, act, key, loop.eval_envs)

    return jax.lax.map(one, (actor_params, wm_params))
