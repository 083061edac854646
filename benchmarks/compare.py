"""Two runs of the benchmarks side by side: which cases became faster or slower by more than the noise of both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.measure import Row

NOISE = 0.03  # what the medians of one program differ by between processes, whatever the spread within one
_RESAMPLES = 2_000


class Change(NamedTuple):
    """New time over old of one case, each in units of its own machine's float32 product where the case has a FLOP count."""

    row: Row
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the 95 % interval, widened by the noise between processes, leaves 1 out."""
        if self.low > 1 + NOISE:
            return "slower"
        return "faster" if self.high < 1 - NOISE else "same"


def read(path: Path) -> list[Row]:
    """The rows of a run. Raises ValueError for a file that is none."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of `python -m benchmarks run --json`: {error}") from error


def changes(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    """Of every case that both runs have, in the order of the new one."""
    before, rng = {row.key: row for row in old}, np.random.default_rng(0)
    found = []
    for row in new:
        if row.key in before:
            ratio = _medians(row, rng) / _medians(before[row.key], rng)
            low, high = np.percentile(ratio[1:], [2.5, 97.5])
            found.append(Change(row, float(ratio[0]), float(low), float(high)))
    return found


def _medians(row: Row, rng: np.random.Generator) -> np.ndarray:
    """The median time and those of resamples; of a compute-bound case in products of the machine it ran on."""

    def resampled(values: Sequence[float]) -> np.ndarray:
        sample = rng.choice(np.asarray(values), (_RESAMPLES, len(values)))
        return np.concatenate([[np.median(values)], np.median(sample, axis=1)])

    times = resampled(row.seconds)
    return times if row.flop is None else times * resampled(row.float32_rate)


def table(found: Sequence[Change]) -> str:
    """A line for each case."""
    lines = [f"{'case':<24}{'preset':<12}{'B':>6}{'H':>4}{'new / old':>11}  95 % interval   verdict"]
    for change in found:
        case, preset, batch_size, horizon = change.row.key
        interval = f"[{change.low:.2f}, {change.high:.2f}]"
        lines.append(f"{case:<24}{preset:<12}{batch_size:>6}{horizon:>4}{change.ratio:>11.2f}  {interval:<16}{change.verdict}")
    mean = math.exp(float(np.mean([math.log(change.ratio) for change in found]))) if found else float("nan")
    return "\n".join([*lines, f"geometric mean of new / old: {mean:.2f}"])
