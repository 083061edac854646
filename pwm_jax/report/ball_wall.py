"""The ball and the wall as a table and a figure: the objective and its fits, their gradients, and what ascent finds from every start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pwm_jax.report import figures, stats
from pwm_jax.report.measurements import Measurement, by_setting, number
from pwm_jax.report.text import format_estimate, text_table

_COLUMNS = {
    "error of the fit (m)": "rmse",
    "steepest slope (m/rad)": "steepest",
    "found, mean of starts (m)": "objective_mean",
    "found, best (m)": "objective_best",
    "starts within 5 %": "near_optimum",
}


def table(rows: Sequence[Measurement]) -> list[list[str]]:
    """A line for each of what the ascent goes through: means over seeds and 95 % intervals; the header first."""
    lines = [["through", "updates of the fit", *_COLUMNS]]
    for (through, updates), group in by_setting(rows, "through", "updates").items():
        cells = [stats.mean_interval([[number(row, name)] for row in group]) for name in _COLUMNS.values()]
        lines.append([str(through), str(updates or ""), *map(format_estimate, cells)])
    return lines


def note(rows: Sequence[Measurement]) -> str:
    """What the table's numbers are."""
    seeds = len({row.setting["seed"] for row in rows})
    return (
        f"Mean of {seeds} seeds and 95 % interval. Found: true distance, mean over the policy's noise, of which the best is "
        f"{number(rows[0], 'optimum'):.2f} m."
    )


def summary(rows: Sequence[Measurement]) -> str:
    """The table, for the terminal."""
    return f"Gradient ascent over the wall\n{text_table(table(rows))}\n{note(rows)}\n"


def save_figures(rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
    """Objective, gradient and what is found, each over the angle, for each number of updates; returns the files' paths."""
    panels = []
    for updates in sorted({int(row.setting["updates"]) for row in rows} - {0}) or [0]:
        drawn = [row for row in rows if row.setting["updates"] in (0, updates)]
        for title, name in (("distance (m)", "fitted"), ("slope (m/rad)", "slope"), ("found from a start there (m)", "objective")):
            panels.append(figures.Panel(f"{title}, {updates:,} updates", [_curve(row, name) for row in drawn]))
    return figures.save(figures.curve_figure(panels, "launch angle (rad)", ""), Path(directory) / "ball_wall")


def _curve(row: Measurement, name: str) -> figures.Curve:
    values = row.values[name]
    assert isinstance(values, Sequence)
    return figures.Curve(str(row.setting["through"]), np.linspace(-np.pi, np.pi, len(values)), np.array(values))
