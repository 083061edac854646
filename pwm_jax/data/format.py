"""The dataset's format on disk: columns, episodes, and files that are either whole or absent.

A dataset is a directory: `dataset.json` and shards `shard-00000/`, ... of plain .npy files (NumPy's own format, never pickled).
A shard has `frames.npy` [F, O + A + 2] float32 and one file for each per-episode column. A frame is one row, obs_t | action_t | reward_t |
terminated_t, so that a window is one contiguous read. An episode of T steps takes T+1 consecutive frames: frame t holds obs_t and the
action, reward and terminated (0 or 1) of the step taken from it; the last frame has only an observation, the rest is zero.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pwm_jax.envs.tasks import TaskSet
from pwm_jax.portable import NPY_FAULTS
from pwm_jax.untrusted import parse_json, shown

FORMAT_NAME = "pwm_jax.dataset"
FORMAT_VERSION = 1
INDEX_FILE = "dataset.json"
SHARD_FILE = "shard.json"
FRAMES_FILE = "frames.npy"
TEMPORARY_PREFIX = ".partial-"
_CRC_CHUNK = 1 << 24

EPISODE_COLUMNS: dict[str, np.dtype[Any]] = {
    "task_id": np.dtype(np.int32),
    "start": np.dtype(np.int64),
    "length": np.dtype(np.int32),
    "episode_return": np.dtype(np.float64),
    "success": np.dtype(np.float32),
    "source": np.dtype(np.str_),
    "seed": np.dtype(np.int64),
}


class DatasetError(ValueError):
    """A dataset (or an episode meant for one) that cannot be used: missing, truncated, foreign, non-finite, or of other tasks."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps: obs [T+1, O], action [T, A], reward [T], terminated [T] (bool).

    Observations and actions have the task's native dims or the task set's padded ones. `success` is the simulator's success flag at the
    last step (NaN: unknown), `source` names the behaviour that acted, `seed` is what the environment was reset with (-1: unknown).
    """

    task_id: int
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    success: float
    source: str
    seed: int

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(self.reward)


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Per-episode columns, all [E]: `frame` is the first of the episode's `length` + 1 frames, counted over all shards."""

    task_id: np.ndarray
    frame: np.ndarray
    length: np.ndarray
    episode_return: np.ndarray
    success: np.ndarray
    source: np.ndarray
    seed: np.ndarray

    def __len__(self) -> int:
        return len(self.task_id)

    def take(self, index: np.ndarray) -> Episodes:
        """The episodes of an index array or boolean mask."""
        return Episodes(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})


class Shard(Protocol):
    """Frames in a file or several, memory-mapped."""

    @property
    def path(self) -> Path:
        """The file or directory, to name it in errors."""
        ...

    @property
    def num_frames(self) -> int:
        """How many frames it holds."""
        ...

    def take(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy the frames of an index array [...], each in 0 .. num_frames - 1: [..., O + A + 2] float32, into `out` if given."""
        ...

    def verify(self, task_set: TaskSet) -> None:
        """Read all of it; DatasetError where bytes differ from their checksums or numbers are not finite."""
        ...

    def read_randomly(self) -> None:
        """Turn the kernel's read-ahead off."""
        ...

    def expect(self, first: np.ndarray, steps: int) -> None:
        """Let the kernel begin to read `steps` frames from each of first [B] on."""
        ...


class Contents(NamedTuple):
    """What a directory of recorded episodes holds, whatever its format; see `store.Dataset`."""

    task_set: TaskSet
    recipe: Any
    shards: tuple[Shard, ...]
    episodes: Episodes


class Frames(NamedTuple):
    """The columns of frames [..., O + A + 2], as views: obs [..., O], action [..., A], reward and terminated [...]."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


def split_frames(frames: np.ndarray, obs_dim: int) -> Frames:
    """Views of the columns of frames [..., O + A + 2]."""
    return Frames(frames[..., :obs_dim], frames[..., obs_dim:-2], frames[..., -2], frames[..., -1])


def frame_width(obs_dim: int, action_dim: int) -> int:
    """Numbers in one frame of padded dims."""
    return obs_dim + action_dim + 2


def frame_bytes(obs_dim: int, action_dim: int) -> int:
    """Bytes that one frame of padded dims takes on disk and in memory."""
    return np.dtype(np.float32).itemsize * frame_width(obs_dim, action_dim)


def crc32_of(path: Path) -> int:
    """CRC-32 of a file's bytes, read in chunks."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CRC_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def fsync(path: Path) -> None:
    """Force a file's or directory's contents to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON such that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    fsync(temporary)
    os.replace(temporary, path)
    fsync(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; DatasetError names the file when it is missing or is no JSON object."""
    try:
        content = parse_json(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist: {path.parent} is no pwm_jax dataset; make one with experiments/collect.py") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable as JSON ({error}): the dataset is damaged or foreign; make it again") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a {type(content).__name__}, not a JSON object: not a pwm_jax dataset")
    return content


def sealed(index: dict[str, Any]) -> dict[str, Any]:
    """What `dataset.json` holds, with the checksum of all of it but the checksum."""
    content = {key: value for key, value in json.loads(json.dumps(index)).items() if key != "crc32"}
    return content | {"crc32": zlib.crc32(json.dumps(content, sort_keys=True).encode())}


def read_index(path: Path) -> dict[str, Any]:
    """Read and check `dataset.json`; DatasetError when `path` is missing, no dataset, damaged, or of a newer format."""
    if not path.is_dir():
        raise DatasetError(f"{path} does not exist or is not a directory; make a dataset with experiments/collect.py")
    file = path / INDEX_FILE
    index = read_json(file)
    if index.get("format") != FORMAT_NAME:
        raise DatasetError(f"{file} is not a pwm_jax dataset (format {shown(index.get('format'))}, expected {FORMAT_NAME!r})")
    if index.get("version") != FORMAT_VERSION:
        version = shown(index.get("version"))
        raise DatasetError(f"{path} has format version {version}, known is {FORMAT_VERSION}: update pwm_jax or collect it again")
    kinds = {"task_set": dict, "recipe": object, "shards": list, "complete": bool}
    wrong = [name for name, kind in kinds.items() if name not in index or not isinstance(index[name], kind)]
    if wrong or not all(map(_is_entry, index["shards"])):
        raise DatasetError(f"{file} lacks or misstates {', '.join(wrong or ['shards'])}: the dataset is damaged; copy or collect it again")
    # Datasets of earlier versions have no checksum here.
    if "crc32" in index and index != sealed(index):
        raise DatasetError(
            f"{file} fails its checksum: it was damaged or changed; copy the dataset again, or delete the entry crc32 if you did"
        )
    return index


def _is_entry(entry: Any) -> bool:
    """Whether an entry of `shards` is what a writer writes: its directory's name, and natural numbers of episodes and frames."""
    if not isinstance(entry, dict) or not re.fullmatch(r"shard-\d{5,9}", str(entry.get("name")), re.ASCII):
        return False
    return all(type(entry.get(name)) is int and 0 < entry[name] < 1 << 48 for name in ("episodes", "frames"))


def open_column(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], mmap: bool) -> np.ndarray:
    """Open one .npy column (memory-mapped unless `mmap` is False); DatasetError names a file that is missing, cut short or foreign."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped in any case, since a header may claim any size
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: the dataset is incomplete; copy or collect it again") from error
    except NPY_FAULTS as error:
        reason = shown(str(error))
        raise DatasetError(f"{path} is no readable .npy array ({reason}): truncated or foreign; copy or collect it again") from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path} is not a .npy array: the dataset is foreign; collect it again")
    same_kind = array.dtype.kind == "U" if dtype.kind == "U" else array.dtype == dtype
    if array.shape != shape or not same_kind:
        found = shown(f"{array.dtype} {array.shape}")[1:-1]
        raise DatasetError(f"{path} holds {found}, expected {dtype} {shape}: it is damaged or foreign")
    return array if mmap else np.array(array)
