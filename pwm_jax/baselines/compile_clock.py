"""How much of a stretch of time went into tracing and compiling programs, for training loops that do not say."""

from __future__ import annotations

import time
from types import TracebackType

import jax

_COMPILING = "/jax/core/compile/"


class CompileClock:
    """Context manager that listens to JAX's own measurements: `seconds(start, end)` of times that `now()` gave."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> CompileClock:
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith(_COMPILING):
            end = self.now()
            self._spans.append((end - duration_secs, end))

    @staticmethod
    def now() -> float:
        """Seconds since an arbitrary moment."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """Seconds between `start` and `end` within the union of all spans: programs are traced inside of one another."""
        total, reached = 0.0, start
        for first, last in sorted(self._spans):
            first, last = max(first, reached), min(last, end)
            if last > first:
                total, reached = total + last - first, last
        return total
