"""A unit of work to time: what does it once, and how much work that is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a case: a preset of configs/base.py, the number of windows, start states or environments, and the steps of a rollout."""

    preset: str = "5M-mt30"
    batch_size: int = 64
    horizon: int = 16


@dataclasses.dataclass
class Work:
    """One case, ready to run. `step` does it once and waits for it; the rest is None where it has no meaning."""

    step: Callable[[], object]
    flop: float | None = None
    compile_seconds: float | None = None
    xla_flop: float | None = None
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    close: Callable[[], object] = lambda: None


def compiled(function: Callable[..., Any], *arguments: Any, donate: bool) -> tuple[Any, Work]:
    """The compiled program, and its time to compile, size and XLA's count of operations (bodies of loops once)."""
    lowered = jax.jit(function, donate_argnums=0 if donate else ()).lower(*arguments)
    started = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - started
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    assert memory is not None
    return program, Work(
        step=lambda: None,
        compile_seconds=seconds,
        xla_flop=cost.get("flops"),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
    )


def updating(function: Callable[..., Any], state: Any, *arguments: Any, flop: float) -> Work:
    """A case that carries its state from call to call in donated buffers."""
    program, work = compiled(function, state, *arguments, donate=True)

    def step() -> None:
        nonlocal state
        state, metrics = program(state, *arguments)
        jax.block_until_ready((state, metrics))

    work.step, work.flop = step, flop
    return work


def reading(function: Callable[..., Any], *arguments: Any, flop: float | None = None) -> Work:
    """A case that leaves its arguments as they are."""
    program, work = compiled(function, *arguments, donate=False)
    work.step, work.flop = lambda: jax.block_until_ready(program(*arguments)), flop
    return work
