"""Training metrics as JSON lines and TensorBoard events, and a progress line with rate and ETA.

A row of `<workdir>/metrics/<stage>.jsonl` is `{"step": 500, "time": <unix seconds>, "<name>": <number>, ...}`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from pwm_jax.report.records import RecordError, read_lines, to_line, write_text

_QUIET_INTERVAL_S = 60.0


class MetricsWriter:
    """Writes scalars of one stage to `<workdir>/metrics/<stage>.jsonl` and `<workdir>/tensorboard/<stage>/`."""

    def __init__(self, workdir: str | os.PathLike[str], stage: str, start_step: int = 0, tensorboard: bool = True):
        """Open the stage's files for a run that goes on after `start_step`.

        Rows later than `start_step` (written after the checkpoint that the run resumes from) are dropped, as is
        a last line that a killed writer left unfinished. Raises RecordError when an earlier line is damaged.
        """
        self.path = Path(workdir) / "metrics" / f"{stage}.jsonl"
        self._stage = stage
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [row for row in read_metrics(self.path) if row["step"] <= start_step]
            write_text(self.path, "".join(to_line(row) for row in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._tensorboard: Any = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(str(Path(workdir) / "tensorboard" / stage), purge_step=start_step + 1)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write one row of scalars (numbers or arrays of one element) at gradient or environment step `step`.

        Raises FloatingPointError naming stage, step and metric when a value is not finite.
        """
        values = {name: float(np.asarray(value).reshape(())) for name, value in scalars.items()}
        wrong = [f"{name}={value}" for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise FloatingPointError(f"{self._stage}, step {step}: non-finite metrics {', '.join(wrong)}")
        now = time.time()
        self._file.write(to_line({"step": int(step), "time": round(now, 3), **values}))
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, int(step), walltime=now)
            self._tensorboard.flush()

    def close(self) -> None:
        """Close both files; further writes are errors."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Rows of a metrics file in the order written; an unfinished last line is left out.

    Raises RecordError naming file and line when another line is damaged, FileNotFoundError when there is no file.
    """
    rows = []
    for number, row in read_lines(path, drop_partial_tail=True):
        if "step" not in row or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in row.values()):
            raise RecordError(f"{path}, line {number}: a row of metrics needs a step and nothing but numbers")
        rows.append(row)
    return rows


def series(rows: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [n] of the rows that hold metric `name`."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    return np.array([step for step, _ in pairs], dtype=np.float64), np.array([value for _, value in pairs], dtype=np.float64)


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
        self._postfix: dict[str, str] = {}
        self._started = self._last_print = time.monotonic()
        self._bar: Any = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=description, unit=unit, initial=initial, file=self._stream, dynamic_ncols=True)
        else:
            self._stream.write(f"{description}: started at {initial:,} of {total:,} {unit}s\n")
            self._stream.flush()

    def update(self, count: int = 1, **values: float) -> None:
        """Advance by `count` units and show the latest `values`, such as loss=0.12 or score=740.0."""
        before, self._count = self._count, self._count + count
        self._postfix.update({name: f"{float(value):.4g}" for name, value in values.items()})
        if self._bar is not None:
            self._bar.set_postfix(self._postfix, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        passed_tenth = before * 10 // self._total != self._count * 10 // self._total if self._total else False
        if (passed_tenth and self._tenths) or now - self._last_print >= _QUIET_INTERVAL_S:
            self._print_line(now)

    def _print_line(self, now: float) -> None:
        self._last_print = now
        elapsed = now - self._started
        rate = (self._count - self._initial) / elapsed if elapsed > 0 else 0.0
        left = max(self._total - self._count, 0)
        eta = format_seconds(left / rate) if rate > 0 else "unknown"
        values = "".join(f", {name} {value}" for name, value in self._postfix.items())
        share = 100 * self._count // self._total if self._total else 100
        self._stream.write(
            f"{self._description}: {share}% ({self._count:,} of {self._total:,} {self._unit}s, {rate:.3g}/s, "
            f"{format_seconds(elapsed)} so far, ETA {eta}{values})\n"
        )
        self._stream.flush()

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def format_seconds(seconds: float) -> str:
    """A duration for people: '8.2 s', '3 min 5 s', '2 h 10 min'."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
