"""How far a stage is: one bar on a terminal, with rate, ETA, loss and return, or lines in a log.

Bars lie within one another where a study runs stages. Only the innermost is shown, with what the others have done before its name; it
goes when it ends, and the outermost stays. Lines that are printed meanwhile come out above the bar.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO, cast

_QUIET_INTERVAL_S = 60.0
_SHORTENED = 100_000  # totals from here on are 100k, so that a bar is left in 80 columns
_RUNNING = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt} ETA {remaining}{postfix}"
_ENDED_BEFORE = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, finished earlier"
_ENDED = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt} in {elapsed}{postfix}"

_shown: list[Progress] = []  # the bars of this process, the innermost last
_tell: Callable[[str], object] | None = None


def tell_instead(tell: Callable[[str], object]) -> None:
    """Show no bars in this process, one of several that share a terminal: `tell` gets 'pretrain 34%', and '' at a stage's end."""
    global _tell
    _tell = tell


class Progress:
    """A progress bar on a terminal; elsewhere one line each tenth of the way (if `tenths`), or each minute when that is sooner."""

    def __init__(
        self, total: int, description: str, unit: str = "step", initial: int = 0, stream: TextIO | None = None, tenths: bool = True
    ):
        """Start counting at `initial` of `total` units; the rate counts only what this run does."""
        self._tenths = tenths
        self._stream = sys.stderr if stream is None else stream
        self._total, self._description, self._unit, self._initial = total, description, unit, initial
        self._count = initial
        self._values: dict[str, str] = {}
        self._note = ""
        self._started = self._last_print = time.monotonic()
        self._on_terminal = self._stream.isatty()
        self._bar: Any = None
        self._open = contextlib.ExitStack()
        if not self._on_terminal:
            self._stream.write(f"{description}: started at {initial:,} of {total:,} {unit}s\n")
            self._stream.flush()
            ended = threading.Event()
            self._open.callback(ended.set)
            threading.Thread(target=self._print_when_quiet, args=(ended,), daemon=True).start()
        elif _tell is None:
            self._open.enter_context(self._bar_shown())
        else:
            self._open.callback(_tell, "")
            _tell(f"{description} {self._percent()}%")

    @contextlib.contextmanager
    def _bar_shown(self) -> Iterator[None]:
        from tqdm import tqdm

        outer = _shown[-1] if _shown else None
        label, stream = self._description, self._stream
        with contextlib.ExitStack() as stack:
            if outer is None:
                stack.enter_context(_lines_above_the_bar())
            else:
                label = f"{outer._count:,}/{outer._total:,} done, {label}"
                stream = outer._stream  # this one is a stand-in by now
                outer._bar.clear()
                outer._bar.disable = True
            self._stream = stream
            self._bar = tqdm(
                total=self._total, desc=label, unit=self._unit, initial=self._initial, file=stream, dynamic_ncols=True,
                bar_format=_RUNNING, position=0, leave=outer is None, unit_scale=self._total >= _SHORTENED,
            )  # fmt: skip
            _shown.append(self)
            try:
                yield
            finally:
                if self._count >= self._total:
                    self._bar.bar_format = _ENDED_BEFORE if self._initial >= self._total else _ENDED
                self._bar.close()
                _shown.remove(self)
                if outer is not None:
                    outer._bar.disable = False
                    outer._bar.refresh()

    def update(self, count: int = 1, loss: float | None = None, episode_return: float | None = None) -> None:
        """Advance by `count` units and show the latest loss and return; NaN is a value that is not known yet."""
        before, self._count = self._count, self._count + count
        for name, value in (("loss", loss), ("return", episode_return)):
            if value is not None and not math.isnan(value):
                self._values[name] = _short(float(value))
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix(), refresh=False)
            self._bar.update(count)
        elif _tell is not None and self._on_terminal and self._percent() != before * 100 // max(self._total, 1):
            _tell(f"{self._description} {self._percent()}%")
        if self._on_terminal:
            return
        now = time.monotonic()
        passed_tenth = before * 10 // self._total != self._count * 10 // self._total if self._total else False
        if (passed_tenth and self._tenths) or now - self._last_print >= _QUIET_INTERVAL_S:
            self._print_line(now)

    def note(self, text: str) -> None:
        """Show a text at the end of the bar, in the place of the one before."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix())

    def _postfix(self) -> str:
        return ", ".join([*(f"{name} {value}" for name, value in self._values.items()), *([self._note] if self._note else [])])

    def _percent(self) -> int:
        return 100 * self._count // self._total if self._total else 100

    def _print_when_quiet(self, ended: threading.Event) -> None:
        """Say that the stage goes on, while it compiles or its first steps take long."""
        while not ended.wait(_QUIET_INTERVAL_S):
            if (now := time.monotonic()) - self._last_print >= _QUIET_INTERVAL_S:
                self._print_line(now)

    def _print_line(self, now: float) -> None:
        self._last_print = now
        elapsed = now - self._started
        rate = (self._count - self._initial) / elapsed if elapsed > 0 else 0.0
        left = max(self._total - self._count, 0)
        eta = format_seconds(left / rate) if rate > 0 else "unknown"
        values = "".join(f", {name} {value}" for name, value in self._values.items())
        self._stream.write(
            f"{self._description}: {self._percent()}% ({self._count:,} of {self._total:,} {self._unit}s, {rate:.3g}/s, "
            f"{format_seconds(elapsed)} so far, ETA {eta}{values})\n"
        )
        self._stream.flush()

    def close(self) -> None:
        """Finish the bar; a second time does nothing."""
        self._open.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Above:
    """Stands in for a stream of the terminal: whole lines come out above the bar, an unfinished one once it is whole."""

    def __init__(self, stream: TextIO):
        self._stream, self._unfinished = stream, ""

    def write(self, text: str) -> int:
        lines, newline, self._unfinished = (self._unfinished + text).rpartition("\n")
        if newline:
            bar: Any = _shown[-1]._bar if _shown else None
            if bar is not None:
                bar.clear()
            self._stream.write(lines + newline)
            self._stream.flush()
            if bar is not None:
                bar.refresh()
        return len(text)

    def end(self) -> None:
        self._stream.write(self._unfinished)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _lines_above_the_bar() -> Iterator[None]:
    """Let what is printed and logged to a terminal come out above the bar."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    standing = {name: _Above(stream) for name, stream in before.items() if stream.isatty()}
    handlers = [getattr(handler, "python_handler", handler) for handler in logging.root.handlers]  # absl's has one inside
    moved = []
    for name, above in standing.items():
        setattr(sys, name, above)
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before[name]:
                handler.setStream(cast(TextIO, above))
                moved.append((handler, before[name]))
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)
        for name, above in standing.items():
            setattr(sys, name, before[name])
            above.end()


def _short(value: float) -> str:
    """Three digits, whole numbers whole, two of what is tiny: '0.0123', '774', '1763', '1.2e-05'."""
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e7 else f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.2g}"


def format_seconds(seconds: float) -> str:
    """A duration for people: '8.2 s', '3 min 5 s', '2 h 10 min'."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
