"""Wall-clock time to a given score: policies extracted from a shared model, pre-training counted, beside methods that learn a task anew."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pwm_jax.report import figures, stats
from pwm_jax.report.measurements import Measurement, by_setting, number
from pwm_jax.report.text import format_estimate, format_number, text_table

STUDY = "cost"
SCORES = (0.5, 0.6, 0.7, 0.8)
EXTRACTED = "extracted"
_DRAWN_SCORE = 0.7


def time_to(score: float) -> str:
    """The name of the value that says after how many seconds of a task's own training a score was reached, None where never."""
    return f"to_{score:g}"


def table(rows: Sequence[Measurement]) -> list[list[str]]:
    """A line for each task and method: the last score, then the median over seeds of the seconds to each of `SCORES`.

    Extracted policies have two: with all of pre-training on the task's account, and with its share among the model's tasks.
    """
    lines = [["task", "method", "last score", *(f"s to {score:g}" for score in SCORES)]]
    for (task, method), group in by_setting(rows, "task", "method").items():
        accounts = {str(method): 0.0}
        if method == EXTRACTED:
            pretraining, sharers = number(group[0], "pretrain_s"), number(group[0], "sharers")
            accounts = {f"{method}, model for it alone": pretraining, f"{method}, model of {sharers:g} tasks": pretraining / sharers}
        last = stats.aggregate({str(task): [[number(row, "last_score")] for row in group]}, "mean")
        for label, shared in accounts.items():
            times = [shared + seconds_to(group, score) for score in SCORES]
            lines.append([str(task), label, format_estimate(last), *("—" if math.isinf(time) else format_number(time) for time in times)])
    return lines


def seconds_to(rows: Sequence[Measurement], score: float) -> float:
    """Median over seeds of the seconds of a task's own training until `score`; infinite where half of the seeds or more never reach it."""
    return float(np.median([number(row, time_to(score)) for row in rows]))


def break_even(rows: Sequence[Measurement], score: float) -> dict[tuple[str, str], float]:
    """With how many tasks like this one, by task and other method, to pre-train once and to extract is the faster; infinite for never.

    It is taken that pre-training for so many tasks lasts as long as it did.
    """
    found = {}
    groups = by_setting(rows, "task", "method")
    for (task, method), group in groups.items():
        ours = groups.get((task, EXTRACTED))
        if method == EXTRACTED or ours is None:
            continue
        each, theirs = seconds_to(ours, score), seconds_to(group, score)
        count = math.inf if each >= theirs else number(ours[0], "pretrain_s") / (theirs - each)
        found[str(task), str(method)] = count if math.isinf(count) else math.floor(count) + 1.0
    return found


def note(rows: Sequence[Measurement]) -> str:
    """What the table's numbers are, and with how many tasks extraction is the faster."""
    says = [
        f"{task}: " + ", ".join(f"{method} {_count(count)}" for (t, method), count in break_even(rows, _DRAWN_SCORE).items() if t == task)
        for task in dict.fromkeys(str(row.setting["task"]) for row in rows)
    ]
    return (
        "Seconds of training, median over seeds: of extraction and the online loop with compiling and evaluations, of Brax's agents "
        "without. — : half of the seeds or more never reach it. The time that it took to make the offline data is not counted. Tasks with "
        f"which pre-training, were it no longer for them than it was, and extraction are the faster to {_DRAWN_SCORE:g} than each other "
        f"method: {'; '.join(says)}."
    )


def summary(rows: Sequence[Measurement]) -> str:
    """The table, for the terminal."""
    return f"{text_table(table(rows))}\n{note(rows)}\n"


def save_figures(rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
    """For each task the seconds that policies of so many like it take to a score, as far as one model has served."""
    most = max((number(row, "sharers") for row in rows if row.setting["method"] == EXTRACTED), default=1.0)
    count = np.arange(1.0, most + 1.0)
    panels = []
    for (task,), group in by_setting(rows, "task").items():
        curves = []
        for (method,), mine in by_setting(group, "method").items():
            each = seconds_to(mine, _DRAWN_SCORE)
            once = number(mine[0], "pretrain_s") if method == EXTRACTED else 0.0
            if math.isfinite(each):
                curves.append(figures.Curve(str(method), count, once + each * count))
        panels.append(figures.Panel(str(task), curves))
    y_label = f"seconds to a score of {_DRAWN_SCORE:g}"
    return figures.save(figures.curve_figure(panels, "tasks", y_label, log=True), Path(directory) / "cost")


def _count(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:g}"
