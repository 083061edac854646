"""The published datasets of TD-MPC2 (arXiv 2310.16828), MT30 and MT80, read where they lie: directories of `chunk_*.pt` files.

A file is a TensorDict of N rows of T frames, saved by torch: obs [N, T, O], action [N, T, A], reward [N, T], task [N, T], each its own
memory-mapped array here. obs[t] is what action[t] led to, and reward[t] what it gave; index 0 of action and reward is filler (garbage
or NaN) and never looked at. The step from obs[t] is therefore (obs[t], action[t+1], reward[t+1], obs[t+1]), and a row is an episode of
T - 1 steps without termination. The files do not tell success (NaN here). MT80's rows of dm_control are parts of longer episodes: what is
called their return is that of the row.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pwm_jax import torch_archive
from pwm_jax.data.format import INDEX_FILE, Contents, DatasetError, Episodes, frame_width
from pwm_jax.data.mapped import announce, mapping_of
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.untrusted import shown

FILE_PATTERN = "chunk_*.pt"
SOURCE = "tdmpc2"
_SETS = {24: "mt30", 39: "mt80"}  # by the width of the observations
PUBLISHED_ROWS = {"mt30": 690_000, "mt80": 5_450_000}  # that TD-MPC2's own loader expects
_KEYS = ("obs", "action", "reward", "task")
_BLOCK_BYTES = 32 << 20
_SAMPLED_ROWS = 4
_MAX_FRAMES = 100_000  # of a row; a block of the file is at least a row


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is wrong in some rows, counted by row, all [n].

    `obs`, `action`, `reward`: numbers that are not finite. `padding`: numbers of obs and action beyond the task's own sizes that are not 0.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    padding: np.ndarray


@dataclasses.dataclass(frozen=True)
class TorchShard:
    """One file's memory-mapped arrays: obs [N, T, O], action [N, T, A], reward [N, T]; `task_id` [N] is in memory."""

    path: Path
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    task_id: np.ndarray

    @property
    def num_frames(self) -> int:
        """How many frames it holds: N T."""
        return self.reward.size

    @property
    def _mapping(self) -> mmap.mmap:
        return mapping_of(self.obs)

    def take(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy the frames of an index array [...]: [..., O + A + 2], into `out` if given; a row's last frame has an observation only."""
        obs_dim, last = self.obs.shape[2], self.reward.shape[1] - 1
        width = frame_width(obs_dim, self.action.shape[2])
        frames = np.empty((*index.shape, width), np.float32) if out is None else out
        row, t = np.divmod(index, last + 1)
        step = np.minimum(t + 1, last)
        frames[..., :obs_dim] = self.obs[row, t]
        frames[..., obs_dim:-2] = self.action[row, step]
        frames[..., -2] = self.reward[row, step]
        frames[..., -1] = 0.0
        frames[t == last, obs_dim:] = 0.0
        return frames

    def verify(self, task_set: TaskSet) -> None:
        """Read the whole file; DatasetError where it fails its checksums, a number is not finite, or padding is not 0."""
        try:
            torch_archive.verify(self.path)
        except torch_archive.ArchiveError as error:
            raise DatasetError(str(error)) from error
        for rows, faults in self.scan(task_set):
            self._refuse(np.arange(rows.start, rows.stop), faults, task_set)

    def check(self, rows: np.ndarray, task_set: TaskSet) -> None:
        """As `verify` but for these rows only, and without checksums."""
        self._refuse(rows, self.faults(rows, task_set), task_set)

    def some_of_each_task(self) -> np.ndarray:
        """A few rows of each task, spread evenly over the file."""
        of_tasks = [np.flatnonzero(self.task_id == task) for task in np.unique(self.task_id)]
        spread = [rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS)).astype(int)] for rows in of_tasks]
        return np.sort(np.concatenate(spread))

    def read_randomly(self) -> None:
        """Turn the kernel's read-ahead off."""
        self._mapping.madvise(mmap.MADV_RANDOM)

    def expect(self, first: np.ndarray, steps: int) -> None:
        """Let the kernel begin to read `steps` frames from each of first [B] on."""
        for array, columns in ((self.obs, self.obs.shape[2]), (self.action, self.action.shape[2]), (self.reward, 1)):
            announce(array.reshape(-1, columns), first, steps + 1)  # action and reward of a step lie in the next frame

    def scan(self, task_set: TaskSet) -> Iterator[tuple[slice, Faults]]:
        """The faults of all rows, block by block."""
        row_bytes = self.obs[0].nbytes + self.action[0].nbytes
        return ((rows, self.faults(rows, task_set)) for rows in _blocks(len(self.reward), row_bytes, self._mapping))

    def faults(self, rows: slice | np.ndarray, task_set: TaskSet) -> Faults:
        """Count what is wrong in these rows; index 0 of action and reward is left out."""
        obs, action, reward, task_id = self.obs[rows], self.action[rows, 1:], self.reward[rows, 1:], self.task_id[rows]
        padding = np.zeros(len(task_id), np.int64)
        for task in np.unique(task_id):
            mine, spec = task_id == task, task_set.specs[task]
            for values, native in ((obs, spec.obs_dim), (action, spec.action_dim)):
                padding[mine] += np.count_nonzero(values[mine, :, native:], axis=(1, 2))
        obs_bad, action_bad = (np.count_nonzero(~np.isfinite(values), axis=(1, 2)) for values in (obs, action))
        return Faults(obs_bad, action_bad, np.count_nonzero(~np.isfinite(reward), axis=1), padding)

    def _refuse(self, rows: np.ndarray, faults: Faults, task_set: TaskSet) -> None:
        for name, counts in dataclasses.asdict(faults).items():
            if counts.any():
                row = int(rows[np.argmax(counts > 0)])
                what = "numbers that are not finite in its " + name
                if name == "padding":
                    what = "numbers beyond the task's own sizes that are not 0: the task ids or the layout are not TD-MPC2's"
                raise DatasetError(
                    f"{self.path}: row {row} (task {task_set.names[self.task_id[row]]}) has {what}. The file is damaged or foreign: get it "
                    f"again, or see `python -m pwm_jax.data.describe {self.path.parent}` for all of them"
                )


def is_dataset(path: Path) -> bool:
    """Whether `path` is a directory with TD-MPC2's files and without a dataset of pwm_jax."""
    return not (path / INDEX_FILE).exists() and any(path.glob(FILE_PATTERN))


def name_of(task_set: TaskSet) -> str:
    """Which of the published datasets has these tasks: mt30 or mt80."""
    return _SETS[task_set.obs_dim]


def open_files(path: Path, check: bool) -> Contents:
    """Open the directory `path`, reading of its frames only rewards and task ids (4 to 6 % of the bytes).

    `check` refuses rewards that are not finite, and looks at some rows of each task for other faults.
    Raises DatasetError, naming the file, for one that is truncated, compressed, hostile or foreign, or does not fit the others.
    """
    # In the order of their names as text (chunk_10 before chunk_2), as TD-MPC2 reads them.
    opened = [_open_file(file, check) for file in sorted(path.glob(FILE_PATTERN))]
    task_set, first, _ = opened[0]
    num_frames = first.reward.shape[1]
    for _, shard, _ in opened[1:]:
        if shard.obs.shape[1:] != first.obs.shape[1:]:
            ours, theirs = (f"rows of {s.obs.shape[1]} frames and {s.obs.shape[2]} observations" for s in (shard, first))
            raise DatasetError(f"{shard.path} has {ours}, {first.path.name} {theirs}: keep the files of one dataset in the directory")
    task_id = np.concatenate([shard.task_id for _, shard, _ in opened])
    episodes = Episodes(
        task_id=task_id,
        frame=np.arange(len(task_id), dtype=np.int64) * num_frames,
        length=np.full(len(task_id), num_frames - 1, np.int32),
        episode_return=np.concatenate([episode_return for *_, episode_return in opened]),
        success=np.full(len(task_id), np.nan, np.float32),
        source=np.full(len(task_id), SOURCE),
        seed=np.full(len(task_id), -1, np.int64),
    )
    recipe = {"published": f"TD-MPC2 {name_of(task_set)}", "rows": {shard.path.name: len(shard.task_id) for _, shard, _ in opened}}
    return Contents(task_set, recipe, tuple(shard for _, shard, _ in opened), episodes)


def _open_file(path: Path, check: bool) -> tuple[TaskSet, TorchShard, np.ndarray]:
    """One file's task set, arrays and returns [N]."""
    try:
        entries = torch_archive.load(path)
    except torch_archive.ArchiveError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(entries, dict) or entries.keys() != set(_KEYS) or not all(isinstance(v, np.ndarray) for v in entries.values()):
        held = ", ".join(shown(str(key)) for key in list(entries)[:8]) if isinstance(entries, dict) else "no dictionary"
        raise DatasetError(f"{path} holds {held}; a file of TD-MPC2's datasets holds the arrays {', '.join(_KEYS)}: it is foreign")
    obs, action, reward, task = (entries[key] for key in _KEYS)
    task_set = TaskSet.from_names(_SETS.get(obs.shape[-1] if obs.ndim else 0, "mt30"))
    rows = reward.shape if reward.ndim == 2 and reward.shape[0] >= 1 and 2 <= reward.shape[1] <= _MAX_FRAMES else ("N", "T")
    expected = {"obs": (*rows, task_set.obs_dim), "action": (*rows, task_set.action_dim), "reward": rows, "task": rows}
    for key, shape in expected.items():
        array, kinds = entries[key], ("int32", "int64") if key == "task" else ("float32",)
        if array.shape != shape or array.dtype.name not in kinds:
            raise DatasetError(
                f"{path}: {key} is {array.dtype} {array.shape}, expected {' or '.join(kinds)} {shape} (24 observations in MT30, "
                "39 in MT80): the layout is foreign"
            )
    task_id, episode_return = _columns(path, task, reward, task_set)
    shard = TorchShard(path, obs, action, reward, task_id)
    if check:
        bad = np.flatnonzero(~np.isfinite(episode_return))
        shard.check(bad[:1] if len(bad) else shard.some_of_each_task(), task_set)
    return task_set, shard, episode_return


def _columns(path: Path, task: np.ndarray, reward: np.ndarray, task_set: TaskSet) -> tuple[np.ndarray, np.ndarray]:
    """Read the rows' task ids and returns, both [N]; DatasetError for a task that changes within a row or is not in the set."""
    task_id, episode_return = np.empty(len(task), np.int32), np.empty(len(task))
    for rows in _blocks(len(task), task[0].nbytes + reward[0].nbytes, mapping_of(task)):
        first = task[rows, 0]
        outside = (first < 0) | (first >= task_set.num_tasks)
        changing = (task[rows] != first[:, None]).any(axis=1)
        for wrong, what in ((outside, f"is outside 0..{task_set.num_tasks - 1}"), (changing, "changes along the row")):
            if wrong.any():
                row = rows.start + int(np.argmax(wrong))
                raise DatasetError(f"{path}: the task id of row {row} {what}: not a file of {name_of(task_set)}, or damaged; get it again")
        task_id[rows] = first
        with np.errstate(invalid="ignore"):  # of infinities; `check` refuses them
            episode_return[rows] = reward[rows, 1:].sum(axis=1, dtype=np.float64)
    return task_id, episode_return


def _blocks(num_rows: int, row_bytes: int, mapping: mmap.mmap) -> Iterator[slice]:
    """Blocks of rows of some 32 MiB; what was read of `mapping` for a block is given back before the next."""
    size = max(_BLOCK_BYTES // row_bytes, 1)
    for first in range(0, num_rows, size):
        yield slice(first, min(first + size, num_rows))
        # Pages read through a mapping count as the process's memory until they are told to go.
        mapping.madvise(mmap.MADV_DONTNEED)
