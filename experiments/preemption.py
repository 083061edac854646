"""SIGTERM, by which clusters announce that a run must end: it saves as soon as it can go on from there, and ends.

That moment comes once every `log_every` steps of the loops that run within `at_checkpoints`. Elsewhere, and by a second SIGTERM, a run
ends at once and goes on from the checkpoint before.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class TerminatedError(BaseException):
    """SIGTERM, raised in the main thread so that every `with` block ends in order."""


def listen() -> None:
    """From now on SIGTERM raises TerminatedError in this process."""
    signal.signal(signal.SIGTERM, _end)


class Stop:
    """Whether this run was told to end; of several processes (`jax.distributed`), whether any of them was."""

    def __init__(self, distributed: bool) -> None:
        self._distributed = distributed
        self._received = False
        self._moments = 0

    def asked(self) -> bool:
        """To be called once at each moment that can be saved, by all processes alike: if True, save and raise TerminatedError."""
        self._moments += 1
        if not self._distributed:
            return self._received
        from jax.experimental import multihost_utils

        return bool(multihost_utils.reached_preemption_sync_point(self._moments))

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """The handler of the first SIGTERM; the next one ends the run."""
        self._received = True
        listen()
        os.write(2, b"\nStopping at the next checkpoint. A second SIGTERM stops at once.\n")  # print may not be called in its own midst


@contextlib.contextmanager
def at_checkpoints() -> Iterator[Stop]:
    """Within, SIGTERM waits to be asked for, if the process listens at all: workers of a sweep, whose launcher ends them, do not."""
    import jax

    if jax.process_count() > 1:
        yield Stop(distributed=True)  # JAX has taken SIGTERM over, to tell all processes of it
        return
    stop = Stop(distributed=False)
    if signal.getsignal(signal.SIGTERM) is not _end:
        yield stop
        return
    signal.signal(signal.SIGTERM, stop.receive)
    try:
        yield stop
    finally:
        listen()


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    raise TerminatedError
