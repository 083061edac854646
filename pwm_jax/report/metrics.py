"""Training metrics as JSON lines, TensorBoard events and, where asked for, a run at Weights & Biases.

A row of `<workdir>/metrics/<stage>.jsonl` is `{"step": 500, "time": <unix seconds>, "<name>": <number>, ...}`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pwm_jax.report.records import RecordError, is_number, read_lines, to_line, write_text
from pwm_jax.report.tracking import tracked_run


class MetricsWriter:
    """Writes scalars of one stage to `<workdir>/metrics/<stage>.jsonl` and `<workdir>/tensorboard/<stage>/`; see also `tracking`."""

    def __init__(self, workdir: str | os.PathLike[str], stage: str, start_step: int = 0, tensorboard: bool = True):
        """Open the stage's files for a run that goes on after `start_step`.

        Rows later than `start_step` (written after the checkpoint that the run resumes from) are dropped, as is
        a last line that a killed writer left unfinished. Raises RecordError when an earlier line is damaged, TrackingError where a run at
        Weights & Biases is asked for and cannot be had.
        """
        self.path = Path(workdir) / "metrics" / f"{stage}.jsonl"
        self._stage = stage
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [row for row in read_metrics(self.path) if row["step"] <= start_step]
            write_text(self.path, "".join(to_line(row) for row in kept))
        self._tracked = tracked_run(workdir, stage)
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
        if self._tracked is not None:
            self._tracked.write(int(step), values)

    def close(self, failed: bool = False) -> None:
        """Close all; further writes are errors. `failed` is noted where runs are tracked."""
        self._file.close()
        if self._tracked is not None:
            self._tracked.close(failed)
        if self._tensorboard is not None:
            self._tensorboard.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(failed=kind is not None)


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Rows of a metrics file in the order written; an unfinished last line is left out.

    Raises RecordError naming file and line when another line is damaged, FileNotFoundError when there is no file.
    """
    rows = []
    for number, row in read_lines(path, drop_partial_tail=True):
        if "step" not in row or not all(map(is_number, row.values())):
            raise RecordError(f"{path}, line {number}: a row of metrics needs a step and nothing but numbers")
        rows.append(row)
    return rows


def series(rows: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [n] of the rows that hold metric `name`."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    return np.array([step for step, _ in pairs], dtype=np.float64), np.array([value for _, value in pairs], dtype=np.float64)
