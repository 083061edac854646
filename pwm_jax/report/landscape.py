"""Landscapes of return over two directions in the space of a policy's parameters: the simulator's beside the model's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pwm_jax.report import figures, stats
from pwm_jax.report.measurements import Measurement, number
from pwm_jax.report.text import format_number, text_table


def table(rows: Sequence[Measurement]) -> list[list[str]]:
    """A line for each task, seed and what is rolled through: how rough the landscape is, and how far it agrees with the other."""
    lines = [["task", "seed", "through", "horizon", "roughness", "rank correlation of the two"]]
    for row in rows:
        other = next((o for o in rows if o is not row and _slice(o) == _slice(row)), None)
        agreement = "" if other is None else format_number(stats.rank_correlation(_values(row).ravel(), _values(other).ravel()))
        cells = [row.setting[name] for name in ("task", "seed", "through", "horizon")]
        lines.append([*map(str, cells), format_number(number(row, "roughness")), agreement])
    return lines


def note(rows: Sequence[Measurement]) -> str:
    """What the table's numbers are."""
    size, extent = len(_values(rows[0])), number(rows[0], "extent")
    return (
        f"Returns of {size} x {size} policies around a learnt one, up to {extent:g} of its parameters' length away along two random "
        "directions. Roughness: root mean square of second differences over the standard deviation."
    )


def summary(rows: Sequence[Measurement]) -> str:
    """The table, for the terminal."""
    return f"{text_table(table(rows))}\n{note(rows)}\n"


def save_figures(rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
    """A map of each landscape, with a colour scale of its own; returns the files' paths."""
    maps = {f"{row.setting['task']}, seed {row.setting['seed']}, {row.setting['through']}": _values(row) for row in rows}
    return figures.save(figures.map_figure(maps, number(rows[0], "extent")), Path(directory) / "landscape")


def _slice(row: Measurement) -> tuple[object, ...]:
    return tuple(row.setting[name] for name in ("task", "seed", "horizon"))


def _values(row: Measurement) -> np.ndarray:
    flat = np.array(row.values["landscape"])
    size = round(len(flat) ** 0.5)
    return flat.reshape(size, size)
