"""Datasets on disk: `DatasetWriter` makes one shard by shard, `Dataset` opens one memory-mapped and gives cheap views of it.

`Dataset` also opens TD-MPC2's published files as they are, see `tdmpc2`.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax.data import tdmpc2
from pwm_jax.data.format import (
    EPISODE_COLUMNS,
    FRAMES_FILE,
    INDEX_FILE,
    SHARD_FILE,
    Contents,
    DatasetError,
    Episode,
    Episodes,
    Frames,
    Shard,
    crc32_of,
    frame_bytes,
    frame_width,
    open_column,
    read_index,
    read_json,
    split_frames,
)
from pwm_jax.data.mapped import announce, mapping_of
from pwm_jax.data.writer import DatasetWriter
from pwm_jax.envs.tasks import TaskSet, TaskSetError

__all__ = ["Dataset", "DatasetError", "DatasetWriter", "Episode", "Episodes", "read_index"]

FULL_VERIFY_BYTES = 1 << 30
_VERIFY_ROWS = 1 << 18


@dataclasses.dataclass(frozen=True)
class NpyShard:
    """One shard's memory-mapped frames [F, O + A + 2]."""

    path: Path
    frames: np.ndarray

    @property
    def num_frames(self) -> int:
        """How many frames it holds."""
        return len(self.frames)

    def take(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy the frames of an index array [...]: [..., O + A + 2], into `out` if given."""
        # Without `clip`, NumPy would fill a copy of `out` first.
        return np.take(np.asarray(self.frames), index, axis=0, out=out, mode="raise" if out is None else "clip")

    def verify(self, task_set: TaskSet) -> None:
        """Compare every file's checksum with the shard's record and check that all stored numbers are finite."""
        sums, names = read_json(self.path / SHARD_FILE).get("crc32"), {FRAMES_FILE, *(f"{name}.npy" for name in EPISODE_COLUMNS)}
        if not isinstance(sums, dict) or sums.keys() != names:
            raise DatasetError(f"{self.path / SHARD_FILE} lacks checksums of the shard's files: it is damaged; copy or collect it again")
        for name, crc in sums.items():
            if crc32_of(self.path / name) != crc:
                raise DatasetError(f"{self.path / name} fails its checksum: it was damaged or changed; copy or collect the dataset again")
        for first in range(0, len(self.frames), _VERIFY_ROWS):
            bad = ~np.isfinite(self.frames[first : first + _VERIFY_ROWS])
            if bad.any():
                row, number = np.argwhere(bad)[0]
                frame = first + int(row)
                starts = np.load(self.path / "start.npy")
                episode = int(np.searchsorted(starts, frame, side="right")) - 1
                task = task_set.names[int(np.load(self.path / "task_id.npy")[episode])]
                column = "obs" if number < task_set.obs_dim else "action" if number < task_set.obs_dim + task_set.action_dim else "reward"
                raise DatasetError(
                    f"{self.path / FRAMES_FILE}: {column} is not finite at frame {frame} (task {task}, episode {episode} of the shard, "
                    f"step {frame - int(starts[episode])}): remove the episode or collect the dataset again"
                )

    def read_randomly(self) -> None:
        """Turn the kernel's read-ahead off."""
        mapping_of(self.frames).madvise(mmap.MADV_RANDOM)

    def expect(self, first: np.ndarray, steps: int) -> None:
        """Let the kernel begin to read `steps` frames from each of first [B] on."""
        announce(self.frames, first, steps)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Recorded episodes of a task set, or a view of some of them; frames stay on disk until they are read."""

    path: Path
    task_set: TaskSet
    recipe: Any
    shards: tuple[Shard, ...]
    shard_offsets: np.ndarray
    episodes: Episodes
    announces: bool = False

    @classmethod
    def open(
        cls, path: str | Path, verify: bool | None = None, allow_incomplete: bool = False, random_access: bool | None = None
    ) -> Dataset:
        """Open the dataset directory `path`: one that `DatasetWriter` wrote, or one of TD-MPC2's `chunk_*.pt` files.

        `verify` reads every frame to check checksums and that values are finite; None does so up to 1 GiB of frames, and beyond that
        looks at some rows of TD-MPC2's files. Shapes, dtypes, file sizes and episode bounds are always checked. `allow_incomplete`
        opens what an interrupted writer has left. `random_access` turns the kernel's read-ahead off, which otherwise reads 128 KiB for
        each window, and announces a batch's windows to it; None does so when the frames exceed physical memory, since below that the
        read-ahead fills the file cache sooner.
        Raises DatasetError, naming the file, for whatever is missing, empty, truncated, foreign or non-finite.
        """
        path = Path(path)
        if tdmpc2.is_dataset(path):
            contents = tdmpc2.open_files(path, check=verify is not False)
        else:
            contents = _open_shards(path, allow_incomplete)
        offsets = np.cumsum([0] + [shard.num_frames for shard in contents.shards], dtype=np.int64)
        dataset = cls(path, contents.task_set, contents.recipe, contents.shards, offsets, contents.episodes)
        if verify or (verify is None and dataset.nbytes <= FULL_VERIFY_BYTES):
            for shard in dataset.shards:
                shard.verify(dataset.task_set)
        if random_access or (random_access is None and dataset.nbytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
            for shard in dataset.shards:
                shard.read_randomly()
            dataset = dataclasses.replace(dataset, announces=True)
        return dataset

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def num_steps(self) -> int:
        """Recorded steps (transitions) of this view."""
        return int(self.episodes.length.sum(dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of this view's frames at padded dims."""
        return (self.num_steps + len(self)) * frame_bytes(self.task_set.obs_dim, self.task_set.action_dim)

    def select(
        self,
        tasks: Sequence[str | int] | None = None,
        episode_mask: np.ndarray | None = None,
        sources: Sequence[str] | None = None,
    ) -> Dataset:
        """A view of the episodes of these tasks (names or task ids), within a boolean mask [E], from these sources; task ids stay.

        Raises DatasetError when nothing is left, UnknownTaskError for a task that the set lacks.
        """
        keep = np.ones(len(self), bool) if episode_mask is None else np.array(episode_mask, bool)
        if keep.shape != (len(self),):
            raise DatasetError(f"episode_mask has shape {keep.shape}, the dataset has {len(self)} episodes")
        if tasks is not None:
            keep &= np.isin(self.episodes.task_id, [self.task_set.index(t) if isinstance(t, str) else t for t in tasks])
        if sources is not None:
            keep &= np.isin(self.episodes.source, list(sources))
        if not keep.any():
            raise DatasetError(f"{self.path} has no episode of tasks={tasks} sources={sources} within the mask")
        return dataclasses.replace(self, episodes=self.episodes.take(keep))

    def split_heldout(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Split into (train, held-out) views by whole episodes, `fraction` of each task's held out (at least one, at least one kept).

        Raises DatasetError for a task with a single episode and ValueError for a fraction outside (0, 1).
        """
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"fraction of held-out episodes must lie in (0, 1), got {fraction}")
        heldout = np.zeros(len(self), bool)
        for task_id in np.unique(self.episodes.task_id):
            index = np.flatnonzero(self.episodes.task_id == task_id)
            if len(index) < 2:
                name = self.task_set.names[task_id]
                raise DatasetError(f"{self.path} has one episode of {name}: none can be held out; collect more or set the fraction to 0")
            count = min(max(round(fraction * len(index)), 1), len(index) - 1)
            heldout[np.random.default_rng((seed, int(task_id))).permutation(index)[:count]] = True
        return self.select(episode_mask=~heldout), self.select(episode_mask=heldout)

    def thin(self, task: str, share: float, seed: int) -> Dataset:
        """A view with a random `share` of the episodes of `task`, at least two, and all of the others. Larger shares contain smaller ones.

        Those that `split_heldout` with this seed would hold out are the last to be kept, so that they can be held out of every share.
        Raises UnknownTaskError for a task that the set lacks and ValueError for a share outside (0, 1].
        """
        if not 0.0 < share <= 1.0:
            raise ValueError(f"the share of the episodes of {task} must lie in (0, 1], got {share}")
        task_id = self.task_set.index(task)
        mine = np.flatnonzero(self.episodes.task_id == task_id)
        order = np.random.default_rng((seed, task_id)).permutation(mine)  # as `split_heldout` takes it, which begins at its other end
        dropped = order[: -max(round(share * len(mine)), 2)]
        return self.select(episode_mask=~np.isin(np.arange(len(self)), dropped))

    def require(self, task_set: TaskSet) -> None:
        """Raise DatasetError unless the dataset was recorded for exactly this task set (tasks, order, dims, padding)."""
        if self.task_set.to_dict() == task_set.to_dict():
            return
        raise DatasetError(
            f"{self.path} is not of the tasks needed: {self.task_set.difference(task_set)}. Use the model's own dataset, or pre-train on "
            "this one"
        )

    def read_frames(self, start: np.ndarray, steps: int, last: np.ndarray | None = None) -> Frames:
        """Read `steps` consecutive frames from each global frame in `start` [B]: obs [steps, B, O], action, reward, terminated alike.

        Past the global frame `last` [B], where given, that frame is repeated.
        Raises DatasetError naming task and episode where a number is not finite, which opening a large dataset does not look for.
        """
        width = frame_width(self.task_set.obs_dim, self.task_set.action_dim)
        out = np.empty((steps, len(start), width), np.float32)
        shard_of = np.searchsorted(self.shard_offsets, start, side="right") - 1
        offset = np.arange(steps)[:, None]
        touched = np.unique(shard_of)
        if self.announces:
            for shard_index in touched:
                self.shards[shard_index].expect(start[shard_of == shard_index] - self.shard_offsets[shard_index], steps)
        for shard_index in touched:
            rows = np.flatnonzero(shard_of == shard_index)
            frames = offset + start[rows]
            if last is not None:
                frames = np.minimum(frames, last[rows])
            frames -= self.shard_offsets[shard_index]
            if len(touched) == 1:
                self.shards[shard_index].take(frames, out)
            else:
                out[:, rows] = self.shards[shard_index].take(frames)
        if not np.isfinite(out).all():
            self._refuse_episode_at(int(start[np.argmin(np.isfinite(out).all(axis=(0, 2)))]))
        return split_frames(out, self.task_set.obs_dim)

    def _refuse_episode_at(self, frame: int) -> None:
        row = int(np.argmax(np.where(self.episodes.frame <= frame, self.episodes.frame, -1)))
        task, source, seed, first = (
            column[row] for column in (self.episodes.task_id, self.episodes.source, self.episodes.seed, self.episodes.frame)
        )
        raise DatasetError(
            f"{self.path}: numbers that are not finite in an episode of {self.task_set.names[task]} (by {source}, seed {seed}, from frame "
            f"{first} on): remove it or collect the dataset again"
        )

    def episode(self, index: int) -> Episode:
        """Read one episode of this view into memory, at padded dims."""
        row = self.episodes.take(np.asarray([index]))
        obs, action, reward, terminated = (column[:, 0] for column in self.read_frames(row.frame, int(row.length[0]) + 1))
        task_id, success, seed = int(row.task_id[0]), float(row.success[0]), int(row.seed[0])
        return Episode(task_id, obs, action[:-1], reward[:-1], terminated[:-1] > 0, success, str(row.source[0]), seed)

    def iter_episodes(self) -> Iterator[Episode]:
        """Read the episodes one after another, in the dataset's order."""
        return (self.episode(index) for index in range(len(self)))


def _open_shards(path: Path, allow_incomplete: bool) -> Contents:
    """Open what `DatasetWriter` wrote."""
    index = read_index(path)
    if not index["complete"] and not allow_incomplete:
        raise DatasetError(f"{path} is incomplete: its collection was interrupted; run the same collection again to resume it")
    try:
        task_set = TaskSet.from_dict(index["task_set"])
    except TaskSetError as error:
        raise DatasetError(f"{path / INDEX_FILE}: {error}; the dataset is damaged, copy or collect it again") from error
    if not index["shards"]:
        raise DatasetError(f"{path} holds no episodes; collect some first")
    shards, columns, offset = [], [], 0
    for entry in index["shards"]:
        shard, shard_columns = _open_shard(path / entry["name"], entry, task_set)
        shard_columns["frame"] = shard_columns.pop("start") + offset
        shards.append(shard)
        columns.append(shard_columns)
        offset += shard.num_frames
    episodes = Episodes(**{name: np.concatenate([c[name] for c in columns]) for name in columns[0]})
    return Contents(task_set, index["recipe"], tuple(shards), episodes)


def _open_shard(path: Path, entry: dict[str, Any], task_set: TaskSet) -> tuple[NpyShard, dict[str, np.ndarray]]:
    """Open a shard's frame columns memory-mapped and its episode columns in memory, checking shapes and episode bounds."""
    frames, count = entry["frames"], entry["episodes"]
    shape = (frames, frame_width(task_set.obs_dim, task_set.action_dim))
    shard = NpyShard(path, open_column(path / FRAMES_FILE, shape, np.dtype(np.float32), mmap=True))
    columns = {name: open_column(path / f"{name}.npy", (count,), dtype, mmap=False) for name, dtype in EPISODE_COLUMNS.items()}
    ends = columns["start"] + columns["length"] + 1
    contiguous = columns["start"][0] == 0 and np.array_equal(columns["start"][1:], ends[:-1]) and ends[-1] == frames
    if not contiguous or columns["length"].min() < 1:
        raise DatasetError(f"{path / 'start.npy'}: episodes do not tile the shard's {frames} frames; damaged, collect it again")
    if columns["task_id"].min() < 0 or columns["task_id"].max() >= task_set.num_tasks:
        raise DatasetError(f"{path / 'task_id.npy'} has task ids outside 0..{task_set.num_tasks - 1}: the shard belongs to another dataset")
    return shard, columns
