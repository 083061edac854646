"""The online loop: act in real environments, fine-tune the model on replay, extract from replay states, repeat.

A single task or a set at once, one policy a task. Everything learnt lives on the device; the environments step in worker processes.
Checkpoints fall where every environment begins an episode, so that a resumed run needs no simulator state to repeat the same numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import ops, pwm
from pwm_jax.config import Config, check_fields
from pwm_jax.data import replay as replays
from pwm_jax.data.format import Episode
from pwm_jax.data.replay import Replay
from pwm_jax.envs.pool import Pool
from pwm_jax.training import policies as policy_sets
from pwm_jax.training.policies import PolicySet
from pwm_jax.training.pretrain import fit_replay
from pwm_jax.types import Metrics, Starts, TaskSpec, Transition, WorldModelState, as_leaves


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """Length and rhythm of an online run. Steps are agent steps of all environments together, unless they say otherwise.

    An epoch is `steps_per_epoch` steps of each environment, then `wm_updates` model (0: it stays frozen) and `policy_updates` policy
    updates. `seed_steps` are taken with random actions first. Random actions and the policies' exploration noise are kept for 1 to
    `noise_hold` steps, spread over the environments of a task, see `policies.exploration_noise`. `imagine_from` `replay` starts
    imagination at stored states, `env` at those of the newest epoch. `save_replay` writes the replay as a dataset at the end. Both
    learning rates fall linearly to their `final_lr` over the run.

    `tasks` (names; empty: all of the set) are those that act, each with a policy of its own. `adaptation_rounds` above 0 takes extracted
    policies further instead of beginning anew: the replay starts with the offline data, nothing is seeded, and the run
    is so many epochs long, whatever `env_steps` says; see `adapting`.
    """

    tasks: tuple[str, ...] = ()
    adaptation_rounds: int = 0
    env_steps: int = 1_000_000
    envs_per_task: int = 64
    steps_per_epoch: int = 16
    wm_updates: int = 8
    policy_updates: int = 1
    seed_steps: int = 10_000
    noise_hold: int = 1
    replay_capacity: int = 1_000_000
    imagine_from: Literal["replay", "env"] = "replay"
    eval_every: int = 50_000
    eval_episodes: int = 10
    checkpoint_every: int = 100_000
    policies_per_batch: int = 0
    save_replay: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "online", zero=("adaptation_rounds", "wm_updates", "policy_updates", "seed_steps", "policies_per_batch"))


class OnlineState(flax.struct.PyTreeNode):
    """All that an online run carries: model, policies, replay and the number of steps taken by each environment."""

    world_model: WorldModelState
    policies: PolicySet
    replay: Replay
    step: jax.Array


def adapting(online: OnlineConfig, num_tasks: int) -> OnlineConfig:
    """The settings of a run of `adaptation_rounds` epochs of `num_tasks` acting tasks; the settings themselves where that is 0."""
    if not online.adaptation_rounds:
        return online
    env_steps = online.adaptation_rounds * online.steps_per_epoch * online.envs_per_task * num_tasks
    return dataclasses.replace(online, env_steps=env_steps, seed_steps=0, replay_capacity=env_steps)


def scheduled(config: Config, online: OnlineConfig, num_tasks: int) -> Config:
    """The configuration with both learning-rate schedules stretched over this run of `num_tasks` acting tasks."""
    steps_per_epoch = online.steps_per_epoch * online.envs_per_task * num_tasks
    epochs = max(math.ceil((online.env_steps - online.seed_steps) / steps_per_epoch), 1)
    return dataclasses.replace(
        config,
        world_model=dataclasses.replace(config.world_model, decay_steps=epochs * online.wm_updates),
        policy=dataclasses.replace(config.policy, decay_steps=epochs * online.policy_updates),
    )


def check(config: Config, online: OnlineConfig, specs: Sequence[TaskSpec]) -> None:
    """Raise ValueError where the first epoch that learns would find no window as long as the horizon in the replay.

    An adaptation's replay is full from the start; it must reach an episode's end where its replay is to be saved. `specs` are those of
    the tasks that act.
    """
    longest = max(spec.episode_length for spec in specs)
    if online.adaptation_rounds:
        if online.save_replay and online.adaptation_rounds * online.steps_per_epoch < longest:
            raise ValueError(
                f"{online.adaptation_rounds} adaptation_rounds of {online.steps_per_epoch} steps_per_epoch end before an episode of "
                f"{longest} steps does: raise either, or set save_replay to False"
            )
        return
    num_envs, horizon = online.envs_per_task * len(specs), config.world_model.horizon
    per_epoch = online.steps_per_epoch * num_envs
    first = (math.ceil(online.seed_steps / per_epoch) + 1) * online.steps_per_epoch
    slots = min(online.replay_capacity, online.env_steps) // num_envs
    if min(first, slots) < horizon:
        raise ValueError(
            f"learning begins with {min(first, slots)} steps of each of {num_envs} environments in the replay, fewer than the model's "
            f"horizon {horizon}: raise seed_steps to {horizon * num_envs} and replay_capacity and env_steps at least as high"
        )
    short = [spec.name for spec in specs if spec.episode_length < horizon]
    if short:
        raise ValueError(f"episodes of {', '.join(short)} are shorter than the model's horizon {horizon}: shorten it")


def init(
    config: Config,
    online: OnlineConfig,
    task_ids: Sequence[int],
    seed: int,
    world_model: WorldModelState | None = None,
    policies: PolicySet | None = None,
    recorded: Iterable[Episode] | None = None,
) -> OnlineState:
    """The state before the first step of a run in which `task_ids` act.

    Args:
        world_model: a pre-trained model to start from.
        policies: extracted policies to start from, one for each of `task_ids` in this order, with this configuration's networks.
        recorded: offline episodes for the replay to begin with.

    Raises:
        ValueError: `recorded` holds no episode of the tasks.
    """
    # What is taken over is copied, since the run donates its buffers; optimisers and moments of returns start anew, as the schedules do.
    kept = jax.tree.map(jnp.copy, (world_model, policies))
    fresh_model = pwm.init_world_model(config, jax.random.key(seed))
    if world_model is not None:
        fresh_model = fresh_model.replace(params=kept[0].params, reward_moments=kept[0].reward_moments)
    fresh_policies = policy_sets.init_policies(config, np.asarray(task_ids), np.full(len(task_ids), seed))
    if policies is not None:
        networks = {name: getattr(kept[1].state, name) for name in ("actor_params", "critic_params", "target_critic_params")}
        fresh_policies = fresh_policies._replace(state=fresh_policies.state.replace(**networks))
    env_task_ids = np.repeat(task_ids, online.envs_per_task)
    sizes = (min(online.replay_capacity, online.env_steps), env_task_ids, config.model.obs_dim, config.model.action_dim)
    replay = replays.create(*sizes) if recorded is None else replays.from_episodes(recorded, *sizes)
    return OnlineState(fresh_model, fresh_policies, replay, step=jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("config", "online"), donate_argnums=0)
def learn(state: OnlineState, key: jax.Array, config: Config, online: OnlineConfig) -> tuple[OnlineState, Metrics]:
    """The updates of one epoch; metrics are means over them, policies' ones [P]."""
    key = jax.random.fold_in(key, 1)
    world_model, wm_metrics = fit_replay(state.world_model, state.replay, key, config, online.wm_updates)

    early = config.policy.horizon

    def starts(start_key: jax.Array, task_id: jax.Array) -> Starts:
        p, recent = config.policy, online.steps_per_epoch if online.imagine_from == "env" else None
        obs, action = replays.sample_starts(state.replay, start_key, p.batch_size, task_id, p.start_balance, early, recent)
        return Starts(obs, action, jnp.full(p.batch_size, task_id))

    policies, policy_metrics = policy_sets.update_policies(
        state.policies, world_model.params, starts, online.policy_updates, config, online.policies_per_batch
    )
    # Without updates there is nothing to average: a frozen model, or one trained before any policy.
    metrics: dict[str, jax.Array] = {}
    if online.wm_updates:
        metrics |= {name: value.mean(0) for name, value in wm_metrics.items()}
    if online.policy_updates:
        metrics |= policy_metrics
    return state.replace(world_model=world_model, policies=policies), metrics


@functools.partial(jax.jit, donate_argnums=0)
def remember(state: OnlineState, transitions: Transition, success: jax.Array) -> OnlineState:
    """Append the steps of one epoch, every leaf [T, N, ...], to the replay."""

    def add(replay: Replay, step: tuple[Transition, jax.Array]) -> tuple[Replay, None]:
        return replays.add(replay, *step), None

    replay, _ = jax.lax.scan(add, state.replay, (transitions, success))
    return state.replace(replay=replay, step=state.step + success.shape[0])


@functools.partial(jax.jit, static_argnames=("config", "online"))
def explore(state: OnlineState, obs: jax.Array, key: jax.Array, step: jax.Array, config: Config, online: OnlineConfig) -> jax.Array:
    """Actions [N, A] of step `step` for obs [N, O], the environments ordered by task: uniform while seeding, then the policies' own."""
    policies = state.policies
    grouped = obs.reshape(policies.task_id.shape[0], -1, obs.shape[-1])
    noise = policy_sets.exploration_noise(policies, key, step, grouped.shape[1], config.model.action_dim, online.noise_hold)
    mask = jnp.asarray(config.model.action_mask)[policies.task_id][:, None]
    seeding = step * obs.shape[0] < online.seed_steps
    uniform = mask * jax.lax.erf(noise / math.sqrt(2.0))
    action = jnp.where(seeding, uniform, policy_sets.act(policies, state.world_model.params, grouped, config, noise))
    return action.reshape(obs.shape[0], -1)


def at_boundary(step: int, specs: Sequence[TaskSpec]) -> bool:
    """Whether every environment begins an episode after `step` steps, so that a checkpoint needs no simulator state.

    True of tasks whose episodes end by length alone, as all of MT80 do.
    """
    return all(step % spec.episode_length == 0 for spec in specs)


class Interaction:
    """The real environments of an online run: steps them, restarts ended episodes, keeps the returns of finished ones."""

    def __init__(self, pool: Pool, seed: int, step: int, episode_length: np.ndarray) -> None:
        """Begin at `step` steps of every environment, a multiple of each `episode_length` [N]."""
        self.pool, self.seed = pool, seed
        self.episode = step // episode_length
        self.running = np.zeros(pool.num_envs)
        self.obs = pool.reset(self._seeds(np.arange(pool.num_envs)))
        self.finished: list[tuple[int, float, float]] = []

    def _seeds(self, envs: np.ndarray) -> np.ndarray:
        return np.array([np.random.SeedSequence((self.seed, env, self.episode[env])).generate_state(1)[0] for env in envs])

    def step(self, action: np.ndarray) -> tuple[Transition, np.ndarray]:
        """One agent step of every environment: the transition, and success [N]."""
        result = self.pool.step(action)
        transition = Transition(*as_leaves(self.obs, action, result.reward, result.obs, result.terminated, result.truncated))
        self.running += result.reward
        ended = np.flatnonzero(result.terminated | result.truncated)
        self.obs = result.obs
        if ended.size:
            self.finished += [(int(self.pool.env_task_ids[e]), float(self.running[e]), float(result.success[e])) for e in ended]
            self.episode[ended] += 1
            self.running[ended] = 0.0
            self.obs = self.pool.reset(self._seeds(ended), ended)
        return transition, result.success


def run(
    state: OnlineState,
    config: Config,
    online: OnlineConfig,
    pool: Pool,
    seed: int,
    log: Callable[[OnlineState, Mapping[str, np.ndarray], list[tuple[int, float, float]]], None],
) -> OnlineState:
    """Continue `state` to `online.env_steps`; `log(state, metrics, finished)` is called after every epoch, metrics empty while seeding.

    `finished` lists (task_id, return, success) of the training episodes that ended in the epoch. `config` is a `scheduled` one.

    Raises:
        FloatingPointError: a loss is not finite; names the step and, of a policy's, its task.
    """
    num_envs = pool.num_envs
    labels = [pool.task_set.names[task] for task in np.asarray(state.policies.task_id).tolist()]
    lengths = np.array([pool.task_set.specs[task].episode_length for task in pool.env_task_ids])
    key = jax.random.key(seed)
    act_key, learn_key = jax.random.split(key)
    step = int(state.step)
    interaction = Interaction(pool, seed, step, lengths)
    while step * num_envs < online.env_steps:
        seeding = step * num_envs < online.seed_steps
        steps, successes = [], []
        for t in range(step, step + online.steps_per_epoch):
            action = np.asarray(explore(state, interaction.obs, act_key, t, config, online))
            transition, success = interaction.step(action)
            steps.append(transition)
            successes.append(success)
        state = remember(state, jax.tree.map(lambda *leaves: np.stack(leaves), *steps), np.stack(successes))
        step += online.steps_per_epoch
        metrics: Mapping[str, np.ndarray] = {}
        if not seeding:
            state, device_metrics = learn(state, learn_key, config, online)
            metrics = jax.device_get(device_metrics)
            ops.require_finite(metrics, "online", f"after {step * num_envs:,} environment steps", labels)
        finished, interaction.finished = interaction.finished, []
        log(state, metrics, finished)
    return state
