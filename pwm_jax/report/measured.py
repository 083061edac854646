"""The studies of measured quantities: which table and figures each has, and all of their figures drawn anew from the published rows.

python -m pwm_jax.report.measured --figures=docs/figures
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pwm_jax.report import ablation, ball_wall, cost, gradients, landscape
from pwm_jax.report.measurements import Measurement, read_measurements
from pwm_jax.report.records import RecordError
from pwm_jax.report.results import origin_list
from pwm_jax.report.text import markdown_table

DIRECTORY = "measured"  # of rows, in the directory of results


class Report(Protocol):
    """How a study is shown; a module of this package."""

    def table(self, rows: Sequence[Measurement]) -> list[list[str]]:
        """Rows of text, the header first."""

    def note(self, rows: Sequence[Measurement]) -> str:
        """What the table's numbers are, in a sentence or two."""

    def save_figures(self, rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
        """Draw the study; returns the files' paths."""


STUDIES: dict[str, Report] = {
    "ball_wall": ball_wall,
    "double_pendulum": gradients,
    "gradient_ladder": gradients,
    "contact": gradients,
    "regularisers": ablation,
    "regularisers_quickstart": ablation,
    "regularisers_hopper": ablation,
    "choices": ablation,
    "generalist": ablation,
    "generalisation": ablation,
    "cost": cost,
    "landscape": landscape,
}


def render(rows: Sequence[Measurement]) -> str:
    """The Markdown of one study: its table, what it shows, and where the numbers come from. Raises RecordError for an unknown study."""
    report = _report_of(rows[0].study)
    return f"{markdown_table(report.table(rows))}\n{report.note(rows)}\n\n{origin_list(rows)}"


def _report_of(study: str) -> Report:
    if study not in STUDIES:
        raise RecordError(f"no table is known for measured rows of study {study!r}; there are {', '.join(STUDIES)}")
    return STUDIES[study]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figures of every study that has rows; returns the exit status."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="python -m pwm_jax.report.measured", description="Draw the figures of all measured studies.")
    parser.add_argument("--results", type=Path, default=root / "results" / DIRECTORY, help="the directory of rows")
    parser.add_argument("--figures", type=Path, required=True, help="the directory to draw into; a study's are in one of its name")
    options = parser.parse_args(arguments)
    try:
        for path in sorted(options.results.glob("*.jsonl")):
            for file in _report_of(path.stem).save_figures(read_measurements(path), options.figures / path.stem):
                print(file)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
