"""What was measured of policy gradients, as tables and figures: over horizons for each task, and over the tasks' action dimensions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pwm_jax.report import figures
from pwm_jax.report.measurements import Measurement, by_setting, number
from pwm_jax.report.text import format_scientific, text_table

QUANTITIES = {"variance": "variance of the gradient", "esnr": "expected signal-to-noise ratio"}


def table(rows: Sequence[Measurement]) -> list[list[str]]:
    """A line for each task and what the gradient goes through, at the largest horizon: medians over seeds, the header first."""
    lines = [["task", "actions", "through", "horizon", "variance", "ESNR", "median norm", "largest norm"]]
    for (task, dim, through), group in by_setting(rows, "task", "action_dim", "through").items():
        horizon = max(int(row.setting["horizon"]) for row in group)
        last = [row for row in group if row.setting["horizon"] == horizon]
        cells = [_median(last, name) for name in ("variance", "esnr", "norm_median")]
        largest = max(number(row, "norm_max") for row in last)
        lines.append([str(task), str(dim), str(through), str(horizon), *(format_scientific(value) for value in (*cells, largest))])
    return lines


def note(rows: Sequence[Measurement]) -> str:
    """What the table's numbers are."""
    seeds, samples = len({row.setting["seed"] for row in rows}), sorted({int(row.setting["samples"]) for row in rows})
    return (
        f"Gradients of {' or '.join(map(str, samples))} samples; medians over {seeds} seeds, and the largest norm of all. "
        "Of pure noise the ESNR is about one over the samples."
    )


def summary(rows: Sequence[Measurement]) -> str:
    """The table, for the terminal."""
    return f"Policy gradients\n{text_table(table(rows))}\n{note(rows)}\n"


def save_figures(rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
    """Each quantity over horizons, a panel for each task, and over action dimensions at the largest horizon; returns the files' paths."""
    files = []
    for name, label in QUANTITIES.items():
        by_task = by_setting(rows, "task")
        panels = [figures.Panel(str(task), _curves(group, "horizon", name)) for (task,), group in by_task.items()]
        files += figures.save(figures.curve_figure(panels, "horizon", label, log=True), Path(directory) / f"{name}_over_horizons")
        if len(by_task) > 1:
            largest = max(int(row.setting["horizon"]) for row in rows)
            panel = figures.Panel(f"horizon {largest}", _curves([r for r in rows if r.setting["horizon"] == largest], "action_dim", name))
            figure = figures.curve_figure([panel], "action dimension", label, log=True, log_x=True)
            files += figures.save(figure, Path(directory) / f"{name}_over_actions")
    return files


def _curves(rows: Sequence[Measurement], axis: str, name: str) -> list[figures.Curve]:
    curves = []
    for (through, _), group in by_setting(rows, "through", "seed").items():
        points = sorted((float(row.setting[axis]), number(row, name)) for row in group)
        x, y = zip(*points, strict=True)
        curves.append(figures.Curve(str(through), np.array(x), np.array(y)))
    return curves


def _median(rows: Sequence[Measurement], name: str) -> float:
    return float(np.median([number(row, name) for row in rows]))
