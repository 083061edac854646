"""Random windows of recorded episodes as a `Batch`: from disk (`WindowSampler`, `prefetch`) or from device memory (`DeviceDataset`).

A window of H steps starts at step t of an episode of T steps with 0 <= t <= T - H and takes observations t..t+H; every such window of
the drawn set is equally likely. Where an episode terminates, windows start at its other steps too: past the end they repeat its last
observation, with actions and rewards of 0, which nothing learns from. Without these windows a terminating step would be drawn H times
less often than any other. Episodes that are shorter than H steps and do not terminate have none.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax.data.format import DatasetError
from pwm_jax.data.store import Dataset
from pwm_jax.types import Batch, as_leaves

Balance = Literal["frames", "tasks"]


class WindowSampler:
    """Draws windows of `horizon` steps from a dataset on disk, NumPy only; vectorised over the batch.

    `balance`: "frames" makes every window equally likely, "tasks" every task and then every window of the task. Whether an episode
    terminates is read from its frames, which takes a while for very many; `terminations` False takes it that none does.
    Of every batch, share i of n equal ones is read where `share` is (i, n): n processes that draw alike read it once together.
    Raises DatasetError when no episode has `horizon` steps, ValueError when the shares are not equal.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        horizon: int,
        balance: Balance = "frames",
        terminations: bool = True,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size % share[1]:
            raise ValueError(f"a batch of {batch_size} windows has no {share[1]} equal shares")
        self._rows = slice(share[0] * batch_size // share[1], (share[0] + 1) * batch_size // share[1])
        self.dataset, self.batch_size, self.horizon, self.balance = dataset, batch_size, horizon, _checked(balance)
        order = np.argsort(dataset.episodes.task_id, kind="stable")
        episodes = dataset.episodes.take(order)
        length = episodes.length.astype(np.int64)
        windows = np.maximum(length - horizon + 1, 0)
        if terminations:
            terminates = dataset.read_frames(episodes.frame + length - 1, 1).terminated[0] > 0
            windows = np.where(terminates, length, windows)
        if length.max() < horizon:
            raise DatasetError(f"{dataset.path}: no episode has {horizon} steps (longest {length.max()}); use a shorter horizon")
        self._task_id, self._frame, self._last = episodes.task_id, episodes.frame, episodes.frame + length
        self._ends = np.cumsum(windows)
        self._starts = self._ends - windows
        _, first = np.unique(episodes.task_id, return_index=True)
        bounds = np.append(self._starts[first], self._ends[-1])
        non_empty = np.diff(bounds) > 0
        self._task_low, self._task_high = bounds[:-1][non_empty], bounds[1:][non_empty]

    @property
    def num_windows(self) -> int:
        """Distinct windows that can be drawn."""
        return int(self._ends[-1])

    def __call__(self, rng: np.random.Generator) -> Batch:
        """Draw one Batch of NumPy arrays: obs [H+1, B, O], action [H, B, A], reward, terminated [H, B], task_id [B]."""
        low, high = self._task_low[0], self._task_high[-1]
        if self.balance == "tasks":
            task = rng.integers(len(self._task_low), size=self.batch_size)
            low, high = self._task_low[task], self._task_high[task]
        window = rng.integers(low, high, size=self.batch_size)[self._rows]
        episode = np.searchsorted(self._ends, window, side="right")
        start = self._frame[episode] + window - self._starts[episode]
        frames = self.dataset.read_frames(start, self.horizon + 1, self._last[episode])
        leaves = as_leaves(frames.obs, frames.action[:-1], frames.reward[:-1], frames.terminated[:-1], self._task_id[episode])
        return Batch(*leaves)


def prefetch(
    sample: Callable[[np.random.Generator], Batch],
    seed: int,
    first_step: int,
    last_step: int,
    prepare: Callable[[Batch], Batch] = jax.device_put,
    depth: int = 4,
    num_threads: int = 2,
) -> Generator[Batch, None, None]:
    """Yield the batches of steps `first_step` .. `last_step` - 1 in order, drawn ahead in threads and moved by `prepare`.

    The batch of step k is drawn from `np.random.default_rng((seed, k))`, whatever the start, so a resumed run draws the same.
    An error in a thread is raised here, at its step.
    """

    def draw(step: int) -> Batch:
        return prepare(sample(np.random.default_rng((seed, step))))

    with ThreadPoolExecutor(num_threads, thread_name_prefix="prefetch") as pool:
        pending: collections.deque[Future[Batch]] = collections.deque()
        try:
            for step in range(first_step, last_step):
                pending.append(pool.submit(draw, step))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class DeviceDataset(flax.struct.PyTreeNode):
    """A small dataset in device memory, episodes ordered by task; a pytree whose methods can be jitted and vmapped.

    Frames: obs [F, O], action [F, A], reward, terminated [F] (float32). Episodes [E]: `frame` (their first), `length`, `task_id`.
    `task_bounds` [n+1]: task i has episodes task_bounds[i] .. task_bounds[i+1] - 1. `longest` [n] (static): its longest, 0 if none.
    """

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    frame: jax.Array
    length: jax.Array
    task_id: jax.Array
    task_bounds: jax.Array
    longest: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def from_dataset(cls, dataset: Dataset, max_bytes: int = 8 << 30) -> DeviceDataset:
        """Copy a dataset (or view) to the default device; DatasetError when it takes more than `max_bytes`."""
        if dataset.nbytes > max_bytes:
            raise DatasetError(
                f"{dataset.path} takes {dataset.nbytes / 2**30:.1f} GiB, more than the {max_bytes / 2**30:.1f} GiB allowed on the device: "
                "sample it from disk, or select fewer episodes"
            )
        order = np.argsort(dataset.episodes.task_id, kind="stable")
        episodes = [dataset.episode(index) for index in order]
        task_id = dataset.episodes.task_id[order]
        length = dataset.episodes.length[order]
        num_tasks = dataset.task_set.num_tasks
        frames = {
            "obs": np.concatenate([episode.obs for episode in episodes]),
            "action": np.concatenate([np.pad(episode.action, ((0, 1), (0, 0))) for episode in episodes]),
            "reward": np.concatenate([np.pad(episode.reward, (0, 1)) for episode in episodes]),
            "terminated": np.concatenate([np.pad(episode.terminated, (0, 1)) for episode in episodes]).astype(np.float32),
        }
        return cls(
            **{name: jnp.asarray(values) for name, values in frames.items()},
            frame=jnp.asarray(np.cumsum(length + 1) - (length + 1), jnp.int32),
            length=jnp.asarray(length, jnp.int32),
            task_id=jnp.asarray(task_id, jnp.int32),
            task_bounds=jnp.asarray(np.searchsorted(task_id, np.arange(num_tasks + 1)), jnp.int32),
            longest=tuple(int(length[task_id == task].max(initial=0)) for task in range(num_tasks)),
        )

    def require(self, task_ids: tuple[int, ...], horizon: int = 1) -> None:
        """Raise DatasetError naming the task ids that have no episode of `horizon` steps; call before sampling starts of a traced task."""
        missing = [task for task in task_ids if self.longest[task] < horizon]
        if missing:
            raise DatasetError(f"the dataset has no episode of {horizon} steps for task ids {missing}: collect some or drop the tasks")

    @functools.partial(jax.jit, static_argnames=("batch_size", "horizon", "balance"))
    def sample(self, key: jax.Array, batch_size: int, horizon: int, balance: Balance = "frames") -> Batch:
        """Draw windows as `WindowSampler` does: obs [H+1, B, O], action [H, B, A], reward, terminated [H, B], task_id [B].

        Raises DatasetError when no episode has `horizon` steps.
        """
        if max(self.longest) < horizon:
            raise DatasetError(f"no episode has {horizon} steps (longest {max(self.longest)}); use a shorter horizon")
        terminates = self.terminated[self.frame + self.length - 1] > 0
        windows = jnp.where(terminates, self.length, jnp.maximum(self.length - horizon + 1, 0))
        ends = jnp.cumsum(windows)
        task_key, window_key = jax.random.split(key)
        low, high = jnp.zeros((batch_size,), jnp.int32), jnp.full((batch_size,), ends[-1])
        if _checked(balance) == "tasks":
            bounds = jnp.append(0, ends)[self.task_bounds]
            available = jnp.cumsum(jnp.diff(bounds) > 0)
            task = jnp.searchsorted(available, jax.random.randint(task_key, (batch_size,), 0, available[-1]), side="right")
            low, high = bounds[task], bounds[task + 1]
        window = jax.random.randint(window_key, (batch_size,), low, high)
        episode = jnp.searchsorted(ends, window, side="right")
        start = self.frame[episode] + window - (ends - windows)[episode]
        frames = jnp.minimum(start + jnp.arange(horizon + 1)[:, None], (self.frame + self.length)[episode])
        steps = frames[:-1]
        return Batch(self.obs[frames], self.action[steps], self.reward[steps], self.terminated[steps], self.task_id[episode])

    @functools.partial(jax.jit, static_argnames=("batch_size", "early_steps"))
    def sample_starts(
        self, key: jax.Array, batch_size: int, task_id: jax.Array | int, early_fraction: jax.Array | float = 0.0, early_steps: int = 15
    ) -> tuple[jax.Array, jax.Array]:
        """Draw recorded states of one task with the action taken there: obs [B, O], action [B, A]; vmappable over key and task_id.

        A share `early_fraction` of the states is uniform over the first `early_steps` steps of a random episode, the rest uniform over
        all steps of the task. A task without episodes gives arbitrary rows: rule that out with `require`.
        """
        first, last = self.task_bounds[task_id], self.task_bounds[task_id + 1]
        ends = jnp.cumsum(self.length)
        begins = ends - self.length
        step_key, episode_key, time_key, mix_key = jax.random.split(key, 4)
        step = jax.random.randint(step_key, (batch_size,), begins[first], ends[last - 1])
        episode = jnp.searchsorted(ends, step, side="right")
        uniform = self.frame[episode] + step - begins[episode]
        episode = jax.random.randint(episode_key, (batch_size,), first, last)
        early = self.frame[episode] + jax.random.randint(time_key, (batch_size,), 0, jnp.minimum(self.length[episode], early_steps))
        frame = jnp.where(jax.random.uniform(mix_key, (batch_size,)) < early_fraction, early, uniform)
        return self.obs[frame], self.action[frame]


def _checked(balance: Balance) -> Balance:
    if balance not in ("frames", "tasks"):
        raise ValueError(f"balance must be 'frames' or 'tasks', got {balance!r}")
    return balance
