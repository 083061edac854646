"""How fast windows come from disk and from device memory: `python benchmarks/sampler.py [--gib 1,10,100] [--json FILE]`.

Of datasets of each size, those above `--sparse` GiB as files with holes: they take no room, and what is read of them comes from the file
system instead of the disk, so that their "cold" is not a disk's. Times batches of (B 1024, H 16, O 39, A 6): from disk with the file cache
dropped ("cold"; also as a dataset larger than memory is read) and filled ("warm", where memory holds it), through the prefetching threads
to the device, and from a device-resident dataset of at most 256 MiB. The bar is 6 ms a batch: a fifth of a 48M model's step.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pwm_jax.data.format import FRAMES_FILE, INDEX_FILE, read_index, sealed, write_json
from pwm_jax.data.sample import DeviceDataset, WindowSampler, prefetch
from pwm_jax.data.store import Dataset, DatasetWriter, Episode
from pwm_jax.envs.tasks import TaskSet

BATCH_SIZE, HORIZON = 1024, 16
BAR_MS = 6.0
EPISODE_STEPS = 500
EPISODES_PER_SHARD = 2_000
DEVICE_BYTES = 256 << 20


def make_dataset(path: Path, gib: float, sparse: bool = False) -> None:
    """Write `gib` GiB of walker (padded to the 39 numbers of Meta-World) episodes of random numbers, in shards of a million frames.

    All shards are copies of the first, or with `sparse` files of its shape without content.
    """
    task_set = TaskSet.from_names(["walker-walk", "mw-reach"])
    rng = np.random.default_rng(0)
    frame = 4 * (task_set.obs_dim + task_set.action_dim + 1) + 1
    episodes = max(round(gib * 2**30 / (frame * (EPISODE_STEPS + 1))), 1)
    terminated = np.zeros(EPISODE_STEPS, bool)
    recipe = {"benchmark": "sampler", "gib": gib}
    with DatasetWriter(path, task_set, recipe, shard_frames=EPISODES_PER_SHARD * (EPISODE_STEPS + 1)) as writer:
        for seed in range(min(episodes, EPISODES_PER_SHARD)):
            obs = rng.standard_normal((EPISODE_STEPS + 1, 24), np.float32)
            action = rng.uniform(-1.0, 1.0, (EPISODE_STEPS, 6)).astype(np.float32)
            writer.add_episode(Episode(0, obs, action, obs[1:, 0], terminated, 0.0, "benchmark", seed))
    index = read_index(path)
    first = index["shards"][0]
    for number in range(1, round(episodes / EPISODES_PER_SHARD)):
        shard = path / f"shard-{number:05d}"
        shutil.copytree(path / first["name"], shard, ignore=shutil.ignore_patterns(FRAMES_FILE) if sparse else None)
        if sparse:
            frames = np.load(path / first["name"] / FRAMES_FILE, mmap_mode="r")
            np.lib.format.open_memmap(shard / FRAMES_FILE, mode="w+", dtype=frames.dtype, shape=frames.shape)
        index["shards"].append(first | {"name": shard.name})
    for name in ("episodes", "frames"):
        index[name] = sum(shard[name] for shard in index["shards"])
    write_json(path / INDEX_FILE, sealed(index))


def drop_cache(path: Path) -> None:
    """Ask the kernel to forget the dataset's cached pages; no mapping of it may be alive."""
    gc.collect()
    for file in path.glob("shard-*/*.npy"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def milliseconds(draw: Callable[[], Any], batches: int) -> list[float]:
    """Wall time of each of `batches` calls, in ms."""
    times = []
    for _ in range(batches):
        start = time.perf_counter()
        jax.block_until_ready(draw())
        times.append(1e3 * (time.perf_counter() - start))
    return times


def host_times(path: Path, batches: int) -> list[float]:
    sampler = WindowSampler(Dataset.open(path, verify=False), BATCH_SIZE, HORIZON, terminations=False)
    rng = np.random.default_rng(1)
    return milliseconds(lambda: sampler(rng), batches)


def cold_stream_times(path: Path, batches: int) -> list[float]:
    """What a dataset larger than memory gets, as training reads it: windows announced, read-ahead off, as `Dataset.open` then chooses."""
    sampler = WindowSampler(Dataset.open(path, verify=False, random_access=True), BATCH_SIZE, HORIZON, terminations=False)
    stream = prefetch(sampler, 0, 0, batches)
    return milliseconds(lambda: next(stream), batches)


def read_all(path: Path) -> None:
    for file in path.glob("shard-*/*.npy"):
        with file.open("rb") as opened:
            while opened.read(64 << 20):
                pass


def measure(path: Path, batches: int) -> dict[str, list[float]]:
    drop_cache(path)
    results = {"disk, cold": host_times(path, batches)}
    drop_cache(path)
    results["disk, cold, windows announced, prefetched"] = cold_stream_times(path, batches)
    read_all(path)
    results["disk, warm"] = host_times(path, batches)
    dataset = Dataset.open(path, verify=False)
    sampler = WindowSampler(dataset, BATCH_SIZE, HORIZON, terminations=False)
    stream = prefetch(sampler, seed=0, first_step=0, last_step=batches + 8)
    for _ in range(8):
        next(stream)
    results["disk, warm, prefetched to the device"] = milliseconds(lambda: next(stream), batches)
    small = dataset.select(episode_mask=np.arange(len(dataset)) < DEVICE_BYTES * len(dataset) / dataset.nbytes)
    resident = DeviceDataset.from_dataset(small)
    keys = iter(jax.random.split(jax.random.key(0), batches + 1))
    jax.block_until_ready(resident.sample(next(keys), BATCH_SIZE, HORIZON))
    results["device"] = milliseconds(lambda: resident.sample(next(keys), BATCH_SIZE, HORIZON), batches)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", default="2", help="sizes of the dataset on disk, separated by commas")
    parser.add_argument("--sparse", type=float, default=16.0, help="size above which datasets are files with holes")
    parser.add_argument("--batches", type=int, default=200, help="batches timed in each setting")
    parser.add_argument("--directory", default=None, help="where to put the dataset (default: the temporary directory)")
    parser.add_argument("--json", default=None, help="file to write the rows to, as JSON")
    flags = parser.parse_args()
    hardware = f"{os.cpu_count()} CPUs {platform.machine()}, {jax.devices()[0].device_kind}"
    rows = []
    print(f"{'B 1024, H 16, O 39, A 6':42s}{'GiB':>6s}{'ms a batch':>12s}{'median':>10s}{'p95':>10s}{'batches/s':>12s}   bar 6 ms")
    for gib in map(float, flags.gib.split(",")):
        sparse = gib > flags.sparse
        with tempfile.TemporaryDirectory(dir=flags.directory) as directory:
            make_dataset(Path(directory) / "dataset", gib, sparse)
            results = measure(Path(directory) / "dataset", flags.batches)
        for name, times in results.items():
            mean = float(np.mean(times))
            row = {"setting": name, "gib": gib, "sparse": sparse, "batches": len(times), "ms_mean": mean, "hardware": hardware}
            row |= {"ms_median": float(np.median(times)), "ms_p95": float(np.percentile(times, 95)), "batches_per_second": 1e3 / mean}
            rows.append(row)
            numbers = f"{mean:12.2f}{row['ms_median']:10.2f}{row['ms_p95']:10.2f}{1e3 / mean:12.0f}"
            print(f"{name:42s}{gib:6g}{numbers}   {'met' if mean <= BAR_MS else 'missed'}", flush=True)
        if flags.json:
            Path(flags.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
