"""Small datasets as one compressed .npz file to ship: native dims, lossless unless told otherwise, never pickled.

Floats are stored as their four byte planes, each column's bits XORed with the frame before. Smooth signals then have long runs of zero
bytes, which deflate compresses far better than raw float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax.data.format import DatasetError, Episode
from pwm_jax.data.store import Dataset
from pwm_jax.data.writer import DatasetWriter
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.portable import read_arrays
from pwm_jax.untrusted import parse_json, shown

COMPACT_FORMAT = "pwm_jax.compact"
COMPACT_VERSION = 1
_MANTISSA_BITS = 23
_MAX_BYTES = 4 << 30  # of a file's arrays; what is larger is no dataset to ship


def export_compact(dataset: Dataset, path: str | Path, mantissa_bits: int = _MANTISSA_BITS) -> int:
    """Write a dataset (or view) to one .npz file and return its bytes.

    `mantissa_bits` < 23 rounds observations and actions to that many bits (relative error 2^-(bits+1)); rewards stay exact.
    """
    if not 1 <= mantissa_bits <= _MANTISSA_BITS:
        raise ValueError(f"mantissa_bits must be in 1..{_MANTISSA_BITS}, got {mantissa_bits}")
    episodes = list(dataset.iter_episodes())
    meta = {"format": COMPACT_FORMAT, "version": COMPACT_VERSION, "task_set": dataset.task_set.to_dict(), "recipe": dataset.recipe}
    arrays: dict[str, np.ndarray] = {
        "meta": np.array(json.dumps(meta)),
        "task_id": dataset.episodes.task_id,
        "length": dataset.episodes.length,
        "success": dataset.episodes.success,
        "source": dataset.episodes.source,
        "seed": dataset.episodes.seed,
        "terminated": np.array([episode.terminated[-1] for episode in episodes]),
    }
    for spec in dataset.task_set.specs:
        chosen = [episode for episode in episodes if episode.task_id == spec.task_id]
        if chosen:
            obs = np.concatenate([episode.obs[:, : spec.obs_dim] for episode in chosen])
            action = np.concatenate([episode.action[:, : spec.action_dim] for episode in chosen])
            arrays[f"obs_{spec.task_id}"] = pack(_round_mantissa(obs, mantissa_bits))
            arrays[f"action_{spec.task_id}"] = pack(np.clip(_round_mantissa(action, mantissa_bits), -1.0, 1.0))
            arrays[f"reward_{spec.task_id}"] = pack(np.concatenate([episode.reward for episode in chosen])[:, None])
    path = Path(path)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path.stat().st_size


def import_compact(path: str | Path, directory: str | Path) -> Dataset:
    """Restore an `export_compact` file as a dataset directory, episodes in their order.

    Raises DatasetError for a missing, damaged or foreign file, or a directory that already holds a dataset.
    """
    path = Path(path)
    try:
        arrays = read_arrays(path, _MAX_BYTES)
        meta = parse_json(str(arrays["meta"]))
        if (meta["format"], meta["version"]) != (COMPACT_FORMAT, COMPACT_VERSION):
            found = shown(f"{meta['format']} {meta['version']}")
            raise DatasetError(f"{path} has format {found}, expected {COMPACT_FORMAT} {COMPACT_VERSION}")
        task_set, recipe = TaskSet.from_dict(meta["task_set"]), meta["recipe"]
        episodes = _restore(arrays, task_set)
    except DatasetError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise DatasetError(f"{path} is not a complete compact dataset ({shown(str(error))}); fetch or export it again") from error
    with DatasetWriter(directory, task_set, recipe) as writer:
        for episode in episodes:
            writer.add_episode(episode)
    return Dataset.open(directory)


def pack(values: np.ndarray) -> np.ndarray:
    """Float32 [F, D] to byte planes uint8 [4, D, F] of each column's bits XORed with those of the row before."""
    bits = np.ascontiguousarray(values.T, np.float32).view(np.uint32)
    change = bits.copy()
    change[:, 1:] ^= bits[:, :-1]
    return np.stack([(change >> shift & 0xFF).astype(np.uint8) for shift in (0, 8, 16, 24)])


def unpack(planes: np.ndarray) -> np.ndarray:
    """The inverse of `pack`."""
    change = sum(plane.astype(np.uint32) << shift for plane, shift in zip(planes, (0, 8, 16, 24), strict=True))
    return np.ascontiguousarray(np.bitwise_xor.accumulate(change, axis=1).astype(np.uint32).view(np.float32).T)


def _restore(arrays: dict[str, Any], task_set: TaskSet) -> list[Episode]:
    values = {name: unpack(array) for name, array in arrays.items() if name.partition("_")[0] in ("obs", "action", "reward")}
    frame, step = np.zeros(task_set.num_tasks, np.int64), np.zeros(task_set.num_tasks, np.int64)
    episodes = []
    for row, (task_id, length) in enumerate(zip(arrays["task_id"].tolist(), arrays["length"].tolist(), strict=True)):
        first_frame, first_step = frame[task_id], step[task_id]
        frame[task_id] += length + 1
        step[task_id] += length
        if length < 1 or frame[task_id] > len(values[f"obs_{task_id}"]):
            raise ValueError(f"an episode of {length} steps, for which there are no observations")
        terminated = np.zeros(length, bool)
        terminated[-1] = arrays["terminated"][row]
        episodes.append(
            Episode(
                task_id=task_id,
                obs=values[f"obs_{task_id}"][first_frame : frame[task_id]],
                action=values[f"action_{task_id}"][first_step : step[task_id]],
                reward=values[f"reward_{task_id}"][first_step : step[task_id], 0],
                terminated=terminated,
                success=float(arrays["success"][row]),
                source=str(arrays["source"][row]),
                seed=int(arrays["seed"][row]),
            )
        )
    return episodes


def _round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 to `bits` mantissa bits, half away from zero in magnitude."""
    drop = _MANTISSA_BITS - bits
    if drop == 0:
        return values
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((raw + np.uint32(1 << (drop - 1))) & np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))).view(np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a dataset directory as a compact file; exit status 1 with one line on standard error when it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m pwm_jax.data.compact", description="Write a dataset as one compressed file to ship.")
    parser.add_argument("directory", help="the dataset's directory")
    parser.add_argument("file", help="the .npz file to write")
    parser.add_argument("--mantissa_bits", type=int, default=_MANTISSA_BITS, help="bits kept of observations and actions (23: all)")
    values = parser.parse_args(arguments)
    try:
        size = export_compact(Dataset.open(values.directory), values.file, values.mantissa_bits)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{values.file}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
