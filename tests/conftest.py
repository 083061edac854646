"""Tests run on the CPU, one thread a worker under xdist, with compiled programs kept between runs."""

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    for variable in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import jax
import pytest

from experiments import launch

launch.enable_compilation_cache("xla-tests")

MOST_BYTES = 2 * 2**30


@pytest.fixture(autouse=True)
def programs_make_room() -> Iterator[None]:
    """Drop compiled programs once the process is large: hundreds in one process, MJX's above all, take gigabytes and end in a crash."""
    yield
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > MOST_BYTES:
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
