"""The guard under which a reader of files meets a damaged one.

The reader either accepts it or raises its own exception class in one line. Anything else is a fault: another exception, a hang, far more
memory than the file has, code that runs, a file written elsewhere, a new package imported.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

SECONDS = 20.0
RESIDENT_KIB, ADDRESS_SPACE = 128 << 10, 2 << 30  # what a mutant may take beyond what the process has
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_RUNS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class")
_RUNS += ("socket.connect",)
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


class HangError(BaseException):
    """A reader took longer than it may; no reader's `except Exception` catches it."""


_watched: list[str] | None = None
_inside: str = ""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in _RUNS:
        _watched.append(f"{event} {arguments!r:.200}")
    elif event == "exec" and isinstance(arguments[0], CodeType) and arguments[0].co_filename.startswith("<s"):
        # What makes dataclasses and named tuples, or reads annotations, compiles text of its own.
        if (caller := sys._getframe(1).f_globals["__name__"]) not in ("dataclasses", "collections", "typing"):
            _watched.append(f"exec of {arguments[0].co_filename} by {caller}")
    elif event == "import" and str(arguments[0]).partition(".")[0] not in sys.modules:
        _watched.append(f"import of {arguments[0]}")
    elif (event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES)) and _elsewhere(arguments[0]):
        _watched.append(f"{event} {arguments[0]!r:.200}")


def _elsewhere(path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and not f"{os.path.realpath(path)}{os.sep}".startswith(_inside) and str(path) != os.devnull


sys.addaudithook(_audit)


def _hang(signum: int, frame: FrameType | None) -> NoReturn:
    raise HangError(f"not done after {SECONDS:g} s")


def _resident() -> tuple[int, int]:
    """The process's resident memory in KiB, and the most that it was since `clear_refs` was last written."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), int(status["VmHWM"].split()[0])


@contextlib.contextmanager
def guarded(inside: Path) -> Iterator[None]:
    """Fail where the block takes too long or too much memory, runs code, or writes outside the directory `inside`.

    What is guarded is called once before, unguarded, where it imports something late. Memory is the process's, since allocations of
    NumPy and of C++ count, and not tracemalloc's, whose end is a race with the threads of C++.
    """
    global _watched, _inside
    events: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    previous = signal.signal(signal.SIGALRM, _hang)
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True, file=sys.__stderr__)  # of C code, which no signal handler interrupts
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, _ = _resident()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, hard))
    _watched, _inside = events, os.path.realpath(inside) + os.sep
    try:
        yield
    finally:
        _watched = None
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()
        taken = _resident()[1] - before
        assert not events, events
        assert taken <= RESIDENT_KIB, f"{taken:,} KiB taken"


class Reader:
    """Meets a reader with mutants, and counts those accepted and refused; faults are gathered, so that one run shows them all."""

    def __init__(self, refusals: type[Exception] | tuple[type[Exception], ...], inside: Path) -> None:
        """`refusals` are the reader's own classes, `inside` the directory that it may write."""
        self._refusals, self._inside = refusals, inside
        self.accepted, self.refused = 0, 0
        self.faults: list[str] = []

    def meet(self, read: Callable[[], T], what: str, fits: Callable[[T], bool] = lambda _: True) -> T | None:
        """What `read()` gives; None where it refused, or was at fault, as where what it gives does not fit. `what` tells the mutant."""
        try:
            with guarded(self._inside):
                found = read()
        except self._refusals as error:
            self.refused += 1
            if not str(error).isprintable() or not 10 <= len(str(error)) < 2000:
                self.faults.append(f"{what}: its message is no line: {str(error)!r:.300}")
            return None
        except BaseException as error:
            self.faults.append(f"{what}: {type(error).__name__}: {error!s:.300}")
            return None
        self.accepted += 1
        if not fits(found):
            self.faults.append(f"{what}: accepted, but it gives something else")
        return found

    def done(self, name: str, accepts: bool = True) -> None:
        """Tell the numbers; fail with the faults, or where none was refused, or none accepted unless that is right."""
        print(f"{name}: {self.accepted + self.refused} mutants, {self.accepted} accepted, {self.refused} refused")
        assert not self.faults, f"{name}: {len(self.faults)} faults\n" + "\n".join(self.faults[:30])
        assert self.refused
        assert self.accepted or not accepts
