"""Write a dataset shard by shard; a killed writer loses at most the shard under way and never leaves half of one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from pwm_jax.data.format import (
    EPISODE_COLUMNS,
    FORMAT_NAME,
    FORMAT_VERSION,
    FRAMES_FILE,
    INDEX_FILE,
    SHARD_FILE,
    TEMPORARY_PREFIX,
    DatasetError,
    Episode,
    crc32_of,
    frame_width,
    fsync,
    read_index,
    sealed,
    split_frames,
    write_json,
)
from pwm_jax.envs.tasks import TaskSet

LOCK_FILE = ".lock"
_LARGEST_ACTION = 1.0 + 1e-4  # but for rounding, what an agent does


class DatasetWriter:
    """Append episodes to a dataset directory; `close` (or leaving the `with` block without an error) marks it complete.

    `recipe` is any JSON value telling how the data is made. Episodes are buffered until `shard_frames` frames or `flush`.
    With `append`, an existing dataset of the same tasks and recipe is continued; otherwise an existing one is an error.
    Raises DatasetError for a directory that holds another dataset, or that another process writes to.
    """

    def __init__(self, path: str | Path, task_set: TaskSet, recipe: Any, shard_frames: int = 1_000_000, append: bool = False) -> None:
        self.path = Path(path)
        self.task_set = task_set
        self._shard_frames = shard_frames
        recipe = json.loads(json.dumps(recipe))
        self._buffer: list[Episode] = []
        self._buffered_frames = 0
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            self._index = self._start_index(recipe, append)
        except BaseException:
            self._lock.close()
            raise

    @property
    def num_shards(self) -> int:
        """Shards written so far, those of earlier runs included."""
        return len(self._index["shards"])

    @property
    def num_episodes(self) -> int:
        """Episodes written or buffered so far."""
        return sum(shard["episodes"] for shard in self._index["shards"]) + len(self._buffer)

    def add_episode(self, episode: Episode) -> None:
        """Check, pad and buffer one episode; DatasetError names the task, the seed and what is wrong with it."""
        self._buffer.append(_padded(episode, self.task_set))
        self._buffered_frames += episode.length + 1
        if self._buffered_frames >= self._shard_frames:
            self.flush()

    def flush(self) -> None:
        """Write the buffered episodes as one shard; without any, do nothing."""
        if not self._buffer:
            return
        name = f"shard-{self.num_shards:05d}"
        temporary, final = self.path / (TEMPORARY_PREFIX + name), self.path / name
        for leftover in (temporary, final):
            if leftover.exists():
                shutil.rmtree(leftover)
        temporary.mkdir()
        columns = _columns(self._buffer)
        for column, values in columns.items():
            np.save(temporary / f"{column}.npy", values, allow_pickle=False)
            fsync(temporary / f"{column}.npy")
        write_json(temporary / SHARD_FILE, {"crc32": {f"{column}.npy": crc32_of(temporary / f"{column}.npy") for column in columns}})
        os.rename(temporary, final)
        fsync(self.path)
        entry = {"name": name, "episodes": len(self._buffer), "frames": self._buffered_frames}
        self._write_index(shards=[*self._index["shards"], entry], complete=False)
        self._buffer, self._buffered_frames = [], 0

    def close(self) -> None:
        """Write what is buffered and mark the dataset complete."""
        self.flush()
        self._write_index(complete=True)
        self.abort()

    def abort(self) -> None:
        """Release the directory without writing what is buffered; the dataset stays incomplete and can be appended to."""
        self._lock.close()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _take_lock(self) -> IO[str]:
        lock = (self.path / LOCK_FILE).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise DatasetError(f"{self.path} is being written by another process: wait for it, or write elsewhere") from error
        return lock

    def _start_index(self, recipe: Any, append: bool) -> dict[str, Any]:
        index_path = self.path / INDEX_FILE
        if index_path.exists():
            index = read_index(self.path)
            if index["task_set"] != self.task_set.to_dict() or index["recipe"] != recipe:
                raise DatasetError(f"{self.path} holds a dataset of other tasks or another recipe: remove it or write elsewhere")
            if not append and index["shards"]:
                raise DatasetError(f"{self.path} already holds a dataset: remove it, write elsewhere, or continue it with append=True")
            return index
        index = {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "task_set": self.task_set.to_dict(),
            "recipe": recipe,
            "complete": False,
            "episodes": 0,
            "frames": 0,
            "shards": [],
        }
        write_json(index_path, sealed(index))
        return index

    def _write_index(self, **changes: Any) -> None:
        index = self._index | changes
        index["episodes"] = sum(shard["episodes"] for shard in index["shards"])
        index["frames"] = sum(shard["frames"] for shard in index["shards"])
        write_json(self.path / INDEX_FILE, sealed(index))
        self._index = index


def _padded(episode: Episode, task_set: TaskSet) -> Episode:
    """The episode with padded, finite, right-typed arrays, or DatasetError."""
    if not 0 <= episode.task_id < task_set.num_tasks:
        raise DatasetError(f"episode of task id {episode.task_id}: the task set has {task_set.num_tasks} tasks")
    spec = task_set.specs[episode.task_id]
    label = f"episode of {spec.name} from {episode.source!r}, seed {episode.seed}"
    steps = episode.length
    if steps < 1:
        raise DatasetError(f"{label} has no steps")
    if steps > spec.episode_length:
        raise DatasetError(f"{label} has {steps} steps, and episodes of the task end after {spec.episode_length}: split it")
    obs = _pad(episode.obs, (steps + 1, spec.obs_dim), task_set.obs_dim, f"{label}: obs")
    action = _pad(episode.action, (steps, spec.action_dim), task_set.action_dim, f"{label}: action")
    if (largest := float(np.abs(action).max(initial=0.0))) > _LARGEST_ACTION:
        raise DatasetError(
            f"{label}: an action of {largest:.3g}; actions lie in [-1, 1]: scale them, "
            "2 * (action - low) / (high - low) - 1 for bounds low and high"
        )
    reward = _pad(np.asarray(episode.reward)[:, None], (steps, 1), 1, f"{label}: reward")[:, 0]
    terminated = np.asarray(episode.terminated, bool)
    if terminated.shape != (steps,) or terminated[:-1].any():
        raise DatasetError(f"{label}: terminated has shape {terminated.shape} or is set before the last of {steps} steps")
    return Episode(episode.task_id, obs, action, reward, terminated, float(episode.success), episode.source, episode.seed)


def _pad(values: np.ndarray, native: tuple[int, int], padded_dim: int, label: str) -> np.ndarray:
    """Zero-pad [T, native] to [T, padded_dim] float32, or pass [T, padded_dim] whose padding is zero."""
    values = np.asarray(values, np.float32)
    if values.shape not in (native, (native[0], padded_dim)):
        raise DatasetError(f"{label} has shape {values.shape}, expected {native} or {(native[0], padded_dim)}")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise DatasetError(f"{label} is not finite at step {int(np.argmin(finite))}")
    if values[:, native[1] :].any():
        raise DatasetError(f"{label} is not zero in its padding (native size {native[1]}): it belongs to another task or layout")
    return np.pad(values, ((0, 0), (0, padded_dim - values.shape[1])))


def _columns(episodes: list[Episode]) -> dict[str, np.ndarray]:
    """What each file of a shard holds, by its stem; an episode's last frame has an observation only."""
    lengths = np.array([episode.length for episode in episodes], np.int64)
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    obs_dim, action_dim = episodes[0].obs.shape[1], episodes[0].action.shape[1]
    frames = np.zeros((int((lengths + 1).sum()), frame_width(obs_dim, action_dim)), np.float32)
    for episode, start in zip(episodes, starts, strict=True):
        columns = split_frames(frames[start : start + episode.length + 1], obs_dim)
        columns.obs[:] = episode.obs
        columns.action[:-1] = episode.action
        columns.reward[:-1] = episode.reward
        columns.terminated[:-1] = episode.terminated
    per_episode = {
        "task_id": [episode.task_id for episode in episodes],
        "start": starts,
        "length": lengths,
        "episode_return": [episode.reward.sum(dtype=np.float64) for episode in episodes],
        "success": [episode.success for episode in episodes],
        "source": [episode.source for episode in episodes],
        "seed": [episode.seed for episode in episodes],
    }
    return {Path(FRAMES_FILE).stem: frames} | {name: np.asarray(per_episode[name], dtype) for name, dtype in EPISODE_COLUMNS.items()}
