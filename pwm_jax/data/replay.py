"""Replay of an online run: a ring in device memory, as pure functions on a pytree.

All N environments write one slot a step, so memory is [slots, N, ...]. A window of H steps is a run of H slots of one environment within
one episode and between the oldest and the newest slot, or one that a termination ends early: its last step is repeated, which nothing
learns from. Without those a terminating step would be drawn H times less often than any other. Every such window is equally likely.
Sampling never crosses an episode's end or the write head, whatever the episode lengths.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax.data.format import Episode
from pwm_jax.types import Batch, Transition


class Replay(flax.struct.PyTreeNode):
    """The last `slots` steps of N environments: obs, next_obs [S, N, O], action [S, N, A], reward, terminated, success [S, N] float32.

    `time` [S, N] counts the steps of the episode before this one, `last` [S, N] (bool) marks an episode's last step, `next_time` [N] is
    the `time` of the coming step, `task_id` [N] what each environment runs, `count` how many slots have ever been written.
    """

    obs: jax.Array
    next_obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    success: jax.Array
    time: jax.Array
    last: jax.Array
    next_time: jax.Array
    task_id: jax.Array
    count: jax.Array

    @property
    def slots(self) -> int:
        """Capacity in steps of each environment."""
        return self.obs.shape[0]

    @property
    def num_envs(self) -> int:
        """Number of environments N."""
        return self.obs.shape[1]


def create(capacity: int, env_task_ids: Sequence[int] | np.ndarray, obs_dim: int, action_dim: int) -> Replay:
    """An empty replay of at most `capacity` steps of all environments together, in padded dims, on the default device.

    Raises ValueError when the capacity is less than one step of each environment.
    """
    num_envs = len(env_task_ids)
    slots = capacity // num_envs if num_envs else 0
    if slots < 1:
        raise ValueError(f"replay capacity {capacity} holds no step of {num_envs} environments: raise it to {max(num_envs, 1)} or more")
    scalar = jnp.zeros((slots, num_envs))
    obs = jnp.zeros((slots, num_envs, obs_dim))
    empty = Replay(
        obs=obs,
        next_obs=obs,
        action=jnp.zeros((slots, num_envs, action_dim)),
        reward=scalar,
        terminated=scalar,
        success=scalar,
        time=jnp.zeros((slots, num_envs), jnp.int32),
        last=jnp.zeros((slots, num_envs), bool),
        next_time=jnp.zeros((num_envs,), jnp.int32),
        task_id=jnp.asarray(env_task_ids, jnp.int32),
        count=jnp.zeros((), jnp.int32),
    )
    return jax.tree.map(jnp.copy, empty)  # a buffer of its own for every leaf, so that all can be donated


def add(replay: Replay, transition: Transition, success: jax.Array | None = None) -> Replay:
    """Append one step of every environment (over the oldest when full); `transition.next_obs` is the step's own, before any reset.

    `success` [N] is the simulator's flag after the step (0 when not given). Jit with the replay donated to write in place.
    """
    slot = replay.count % replay.slots
    last = (jnp.asarray(transition.terminated) > 0) | (jnp.asarray(transition.truncated) > 0)
    written = {
        "obs": transition.obs,
        "next_obs": transition.next_obs,
        "action": transition.action,
        "reward": transition.reward,
        "terminated": transition.terminated,
        "success": jnp.zeros((replay.num_envs,)) if success is None else success,
        "time": replay.next_time,
        "last": last,
    }
    columns = {
        name: getattr(replay, name).at[slot].set(jnp.asarray(value).astype(getattr(replay, name).dtype)) for name, value in written.items()
    }
    return replay.replace(**columns, next_time=jnp.where(last, 0, replay.next_time + 1), count=replay.count + 1)


def from_episodes(
    episodes: Iterable[Episode], capacity: int, env_task_ids: Sequence[int] | np.ndarray, obs_dim: int, action_dim: int
) -> Replay:
    """A replay that begins with recorded episodes, shared out over the environments of their task.

    There is room for `capacity` more steps of all environments together. Environments with fewer recorded steps than others hold empty
    slots first, which are never drawn. Episodes of tasks that no environment runs are left out.

    Raises ValueError when none is left, or as `create`.
    """
    columns: list[list[Episode]] = [[] for _ in env_task_ids]
    filled = np.zeros(len(columns), np.int64)
    for episode in episodes:
        mine = np.flatnonzero(np.asarray(env_task_ids) == episode.task_id)
        if mine.size:
            env = mine[np.argmin(filled[mine])]
            columns[env].append(episode)
            filled[env] += episode.length
    recorded = int(filled.max(initial=0))
    if not recorded:
        raise ValueError("the dataset holds no episode of the tasks that act: choose another dataset or other tasks")
    replay = create(capacity + recorded * len(columns), env_task_ids, obs_dim, action_dim)
    host = {
        name: np.array(getattr(replay, name)) for name in ("obs", "next_obs", "action", "reward", "terminated", "success", "time", "last")
    }
    host["time"][:recorded] = -1
    for env, column in enumerate(columns):
        slot = recorded - int(filled[env])
        for episode in column:
            rows = slice(slot, slot + episode.length)
            host["obs"][rows, env], host["next_obs"][rows, env] = episode.obs[:-1], episode.obs[1:]
            host["action"][rows, env], host["reward"][rows, env] = episode.action, episode.reward
            host["terminated"][rows, env], host["time"][rows, env] = episode.terminated, np.arange(episode.length)
            slot += episode.length
            host["last"][slot - 1, env], host["success"][slot - 1, env] = True, episode.success
    return replay.replace(**{name: jnp.asarray(value) for name, value in host.items()}, count=jnp.asarray(recorded, jnp.int32))


def num_windows(replay: Replay, horizon: int = 1, task_id: jax.Array | int | None = None) -> jax.Array:
    """How many windows of `horizon` steps can be drawn, of one task or of all; `sample` and `sample_starts` need at least one."""
    return _windows(replay, horizon, task_id).sum()


def sample(replay: Replay, key: jax.Array, batch_size: int, horizon: int, task_id: jax.Array | int | None = None) -> Batch:
    """Draw windows, of one task or of all: obs [H+1, B, O], action [H, B, A], reward, terminated [H, B], task_id [B].

    After a termination all leaves repeat, `terminated` too. Without any window (see `num_windows`) the result is arbitrary.
    """
    end, env, rank = _draw(key, _windows(replay, horizon, task_id), batch_size)
    steps = _steps_back(replay, horizon)[end, env] - rank
    step = jnp.arange(horizon + 1)[:, None]
    slot = (end - steps + 1 + jnp.minimum(step, steps - 1)) % replay.slots
    obs = jnp.where((step < steps)[..., None], replay.obs[slot, env], replay.next_obs[end, env])
    slot = slot[:-1]
    return Batch(
        obs=obs,
        action=replay.action[slot, env],
        reward=replay.reward[slot, env],
        terminated=replay.terminated[slot, env],
        task_id=replay.task_id[env],
    )


def sample_starts(
    replay: Replay,
    key: jax.Array,
    batch_size: int,
    task_id: jax.Array | int,
    early_fraction: jax.Array | float = 0.0,
    early_steps: int = 15,
    newest: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draw states of one task with the action taken there: obs [B, O], action [B, A]; vmappable over key and task_id.

    Only the `newest` slots are drawn from, where given. A share `early_fraction` is uniform over the stored steps among the first
    `early_steps` of their episode, the rest over all.
    Without a step of the task (see `num_windows`) the result is arbitrary.
    """
    uniform_key, early_key, mix_key = jax.random.split(key, 3)
    stored = _windows(replay, 1, task_id) > 0
    if newest is not None:
        stored &= (_age(replay) < newest)[:, None]
    early = stored & (replay.time < early_steps)
    use_early = (jax.random.uniform(mix_key, (batch_size,)) < early_fraction) & early.any()
    slot, env, _ = (
        jnp.where(use_early, e, u) for e, u in zip(_draw(early_key, early, batch_size), _draw(uniform_key, stored, batch_size), strict=True)
    )
    return replay.obs[slot, env], replay.action[slot, env]


def to_episodes(replay: Replay, source: str, seed: int = -1, skip: int = 0) -> Iterator[Episode]:
    """The stored episodes, environment by environment, oldest first, for a `DatasetWriter`, without the first `skip` slots written.

    Episodes that the ring has cut at the front or that still run are left out, too.
    """
    host = jax.device_get(replay)
    stored = min(int(host.count), host.slots)
    if int(host.count) <= skip:
        return
    written = np.arange(max(int(host.count) - stored, skip), int(host.count))
    order = written % host.slots
    for env in range(host.num_envs):
        begins = np.union1d(0, np.flatnonzero(host.time[order, env] == 0))
        for begin, end in itertools.pairwise([*begins, len(order)]):
            slots = order[begin:end]
            whole = host.time[slots[0], env] == 0 and host.last[slots[-1], env]
            if not whole:
                continue
            yield Episode(
                task_id=int(host.task_id[env]),
                obs=np.concatenate([host.obs[slots, env], host.next_obs[slots[-1:], env]]),
                action=host.action[slots, env],
                reward=host.reward[slots, env],
                terminated=host.terminated[slots, env] > 0,
                success=float(host.success[slots[-1], env]),
                source=source,
                seed=seed,
            )


def _windows(replay: Replay, horizon: int, task_id: jax.Array | int | None) -> jax.Array:
    """[S, N] int32: how many windows of `horizon` steps have their last own step in this slot.

    One where the episode reaches back far enough, and one more for each shorter run of steps to a termination.
    """
    steps = _steps_back(replay, horizon)
    windows = jnp.where(replay.terminated > 0, steps, steps == horizon)
    return windows if task_id is None else windows * (replay.task_id == task_id)


def _steps_back(replay: Replay, horizon: int) -> jax.Array:
    """[S, N] int32: the stored steps of the episode up to each slot and with it, at most `horizon`; 0 in an empty slot."""
    stored = jnp.minimum(replay.count, replay.slots) - _age(replay)
    return jnp.clip(jnp.minimum(replay.time + 1, stored[:, None]), 0, horizon)


def _age(replay: Replay) -> jax.Array:
    """[S]: 0 is the newest slot, min(count, slots) - 1 the oldest stored one."""
    return (replay.count - 1 - jnp.arange(replay.slots)) % replay.slots


def _draw(key: jax.Array, weight: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws from [S, N] entries in proportion to their `weight` (int or bool): slot, env and which of the entry's own ones, all [B].

    Counts by row first, so the scan is over S only.
    """
    weight = weight.astype(jnp.int32)
    row_counts = weight.sum(axis=1)
    ends = jnp.cumsum(row_counts)
    drawn = jax.random.randint(key, (batch_size,), 0, jnp.maximum(ends[-1], 1))
    slot = jnp.searchsorted(ends, drawn, side="right")
    rank = drawn - (ends - row_counts)[slot]
    before = jnp.cumsum(weight[slot], axis=1)
    env = jnp.argmax(before > rank[:, None], axis=1)
    own = jnp.take_along_axis(before - weight[slot], env[:, None], axis=1)[:, 0]
    return slot, env, rank - own
