"""Windows announced to the kernel: they come into the file cache, and what is read is the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_data import write_dataset

from pwm_jax.data import mapped
from pwm_jax.data.sample import WindowSampler
from pwm_jax.data.store import Dataset

PUBLISHED = Path(__file__).parent / "fixtures" / "tdmpc2"
ROWS, WIDTH = 40_000, 100  # 16 MB


def cached(descriptor: int, offset: int, length: int) -> bool:
    """Whether all these bytes of a file can be read without its disk."""
    try:
        return os.preadv(descriptor, [bytearray(length)], offset, os.RWF_NOWAIT) == length
    except BlockingIOError:
        return False


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux tells what is cached")
def test_announced_rows_are_read_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "array.npy"
    np.save(file, np.zeros((ROWS, WIDTH), np.float32))
    descriptor = os.open(file, os.O_RDWR)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        if cached(descriptor, 8_000_000, 4096):
            pytest.skip("this file system keeps what it is told to forget")
    except OSError:
        pytest.skip("this file system does not tell what is cached")
    array = np.load(file, mmap_mode="r")
    mapped.mapping_of(array).madvise(mapped.mmap.MADV_RANDOM)
    first = np.array([5, 17_000, ROWS - 20])
    mapped.announce(array, first, 20)
    places = [(128 + row * WIDTH * 4, 20 * WIDTH * 4) for row in first.tolist()]
    deadline = time.monotonic() + 10
    while not all(cached(descriptor, *place) for place in places):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    between = [128 + row * WIDTH * 4 for row in (5_000, 10_000, 25_000, 35_000)]
    assert not any(cached(descriptor, offset, 4096) for offset in between)
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["written", "published"])
def test_windows_are_the_same_with_and_without(kind: str, tmp_path: Path) -> None:
    path = PUBLISHED if kind == "published" else write_dataset(tmp_path / "data", episodes=5).path
    batches = []
    for random_access in (False, True):
        dataset = Dataset.open(path, random_access=random_access)
        assert dataset.announces == random_access
        assert dataset.select(tasks=[dataset.task_set.names[dataset.episodes.task_id[0]]]).announces == random_access
        batches.append(WindowSampler(dataset, 64, 3)(np.random.default_rng(0)))
    jax.tree.map(np.testing.assert_array_equal, *batches)


def test_rows_are_found_in_their_file() -> None:
    """Observations, actions and rewards of TD-MPC2's files lie apart from each other in the file."""
    shard = Dataset.open(PUBLISHED).shards[1]
    found = []
    for array in (shard.obs, shard.action, shard.reward[..., None]):
        rows = array.reshape(-1, array.shape[-1])
        for first, (start, length) in zip((0, 37, 100), mapped.spans(rows, np.array([0, 37, 100]), 4), strict=True):
            assert start % mapped.mmap.PAGESIZE == 0
            content = mapped.mapping_of(rows)[start : start + length]
            assert content.endswith(rows[first : first + 4].tobytes())
            found.append(start)
    assert len(set(found)) > 1
