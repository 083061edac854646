"""One case in a process of its own: its times, with the machine's own rates measured between them, and its memory."""

from __future__ import annotations

import dataclasses
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import CASES, EXTRAS
from benchmarks.work import Shape, Work

MIN_SAMPLES, MAX_SAMPLES = 5, 200
_CPU_SIZE, _ACCELERATOR_SIZE = 2048, 8192


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of a case. Seconds of single calls; rates of single calls too, FLOP/s and bytes/s."""

    case: str
    preset: str
    batch_size: int
    horizon: int
    seconds: list[float]
    float32_rate: list[float]
    bfloat16_rate: float
    copy_rate: float
    flop: float | None
    xla_flop: float | None
    compile_seconds: float | None
    argument_bytes: int | None
    temporary_bytes: int | None
    peak_bytes: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What a row is of."""
        return self.case, self.preset, self.batch_size, self.horizon

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def fraction(self) -> float | None:
        """FLOP by formula and second over the rate of large float32 products in the same process."""
        return None if self.flop is None else self.flop / self.median / statistics.median(self.float32_rate)


def measure(case: str, shape: Shape, seconds: float) -> Row:
    """Calls of a case for about so many seconds, at least five (three of calls above ten seconds), the first one not counted."""
    work = (CASES | EXTRAS)[case](shape)
    try:
        product = product_rate(jnp.float32)
        bfloat16, copy = product_rate(jnp.bfloat16)(), copy_rate()
        times, rates = _alternate(work, product, seconds)
    finally:
        work.close()
    return Row(
        case=case,
        preset=shape.preset,
        batch_size=shape.batch_size,
        horizon=shape.horizon,
        seconds=times,
        float32_rate=rates,
        bfloat16_rate=bfloat16,
        copy_rate=copy,
        flop=work.flop,
        xla_flop=work.xla_flop,
        compile_seconds=work.compile_seconds,
        argument_bytes=work.argument_bytes,
        temporary_bytes=work.temporary_bytes,
        peak_bytes=_peak_bytes(),
    )


def _alternate(work: Work, ceiling: Callable[[], float], seconds: float) -> tuple[list[float], list[float]]:
    """Times of the work, and the ceiling about as long after every few calls, so that a machine's slow spell meets both."""
    first = timed(work.step)
    calls = min(max(1, math.ceil(0.1 / timed(work.step))), 50)
    least = 3 if first > 10.0 else MIN_SAMPLES
    times: list[float] = []
    rates: list[float] = []
    began = time.perf_counter()
    while len(times) < least or (time.perf_counter() - began < seconds and len(times) < MAX_SAMPLES):
        times += [timed(work.step) for _ in range(calls)]
        rates.append(ceiling())
    return times, rates


def timed(function: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def product_rate(dtype: Any) -> Callable[[], float]:
    """FLOP/s of one product of large square matrices, at every call."""
    size = _CPU_SIZE if jax.default_backend() == "cpu" else _ACCELERATOR_SIZE
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(lambda a: a @ a)
    jax.block_until_ready(multiply(a))
    return lambda: 2 * size**3 / timed(lambda: jax.block_until_ready(multiply(a)))


def copy_rate() -> float:
    """Bytes/s read and written by an elementwise pass over 256 MiB, the best of three."""
    x = jnp.zeros(64 << 20, jnp.float32)
    add = jax.jit(lambda x: x + 1.0)
    jax.block_until_ready(add(x))
    return 2 * x.nbytes / min(timed(lambda: jax.block_until_ready(add(x))) for _ in range(3))


def _peak_bytes() -> int:
    """The largest memory in use so far: of the accelerator where it says so, else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    unit = 1 if sys.platform == "darwin" else 1024
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
