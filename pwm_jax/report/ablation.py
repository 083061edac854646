"""A study of settings as a table, rank correlations and figures: what each variant's model is like, and what its policies earn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pwm_jax.report import figures, stats
from pwm_jax.report.measurements import Measurement, by_setting, number
from pwm_jax.report.text import format_estimate, format_interval, format_number, format_scientific, text_table

# Of a model, by the name in the tables.
MEASURES = {
    "open-loop error": "open_loop",
    "reward error": "reward_error",
    "|dF/dz|": "state_norm",
    "|dF/da|": "action_norm",
    "|dz_H/dz_0|": "product_norm",
    "slope of returns": "return_slope",
    "gradient variance": "variance",
    "ESNR": "esnr",
}


DEFAULT = "default"  # the variant that the others are compared with, where there is one of this name


def table(rows: Sequence[Measurement]) -> list[list[str]]:
    """A line for each variant and method, the header first: mean score with its interval, then medians of its models.

    Where one variant is the default, the differences from it are shown too.
    """
    groups = by_setting(rows, "variant", "method")
    several = len({method for _, method in groups}) > 1
    compared = any(variant == DEFAULT for variant, _ in groups)
    lines = [["variant", *(["method"] if several else []), "score", *(["against the default"] if compared else []), *MEASURES]]
    for (variant, method), group in groups.items():
        cells = [str(variant), *([str(method)] if several else []), format_estimate(stats.aggregate(_by_task(group), "mean"))]
        if compared:
            cells.append("" if variant == DEFAULT else _difference(group, groups.get((DEFAULT, method), [])))
        lines.append([*cells, *(format_scientific(float(np.median([number(r, name) for r in group]))) for name in MEASURES.values())])
    return lines


def _by_task(rows: Sequence[Measurement]) -> dict[str, list[list[float]]]:
    """Scores, a run of one value for each seed, by task."""
    return {str(task): [[number(row, "score")] for row in mine] for (task,), mine in by_setting(rows, "task").items()}


def _difference(rows: Sequence[Measurement], default: Sequence[Measurement]) -> str:
    """The difference of mean scores over the tasks that both have, and whether its interval over seeds lies above or below zero."""
    tasks = {row.setting["task"] for row in rows} & {row.setting["task"] for row in default}
    if not tasks:
        return ""
    shared = [[row for row in part if row.setting["task"] in tasks] for part in (rows, default)]
    first, second = ([[float(np.mean([number(row, "score") for row in mine]))] for mine in by_setting(p, "seed").values()] for p in shared)
    found = stats.compare(first, second)
    return f"{found.verdict} ({'+' if found.difference >= 0 else ''}{format_number(found.difference)})"


def correlations(rows: Sequence[Measurement]) -> dict[str, stats.Estimate]:
    """Spearman's rank correlation over variants of each measure with the score: mean over tasks and seeds, interval over seeds.

    Tasks and seeds in which all scores or all values of the measure are equal have none and are left out.
    """
    found = {}
    for label, name in MEASURES.items():
        by_task: dict[str, list[list[float]]] = {}
        for (task, _, _), group in by_setting(rows, "task", "seed", "method").items():
            value, score = ([number(row, key) for row in group] for key in (name, "score"))
            if len(set(value)) > 1 and len(set(score)) > 1:
                by_task.setdefault(str(task), []).append([stats.rank_correlation(value, score)])
        if by_task:
            found[label] = stats.aggregate(by_task, "mean")
    return found


def note(rows: Sequence[Measurement]) -> str:
    """What the table's numbers are, and the rank correlations."""
    seeds = len({row.setting["seed"] for row in rows})
    counts = sorted({len({row.setting["task"] for row in group}) for group in by_setting(rows, "variant").values()})
    tasks = f"{counts[-1]} task{'s' * (counts[-1] > 1)}" if len(counts) == 1 else f"each variant's {counts[0]} to {counts[-1]} tasks"
    text = f"Score: mean over {tasks} and {seeds} seeds and 95 % interval; the others are medians over both."
    if len({row.setting["variant"] for row in rows}) > 2:
        parts = [f"{label} {format_number(e.value)} {format_interval(e.low, e.high)}".rstrip() for label, e in correlations(rows).items()]
        text += f" Rank correlation with the score over variants, mean over tasks and seeds: {'; '.join(parts)}."
    return text


def summary(rows: Sequence[Measurement]) -> str:
    """The table and the correlations, for the terminal."""
    return f"{text_table(table(rows))}\n{note(rows)}\n"


def save_figures(rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
    """Scores of every variant on each task, and scores over each measure of the model; returns the files' paths."""
    scores = {}
    for (task,), group in by_setting(rows, "task").items():
        by_variant = by_setting(group, "variant", "method").items()
        scores[str(task)] = {
            _label(rows, variant, method): stats.mean_interval([[number(row, "score")] for row in mine])
            for (variant, method), mine in by_variant
        }
    files = figures.save(figures.interval_figure(scores, "score"), Path(directory) / "scores")
    panels = [figures.Panel(label, _points(rows, name)) for label, name in MEASURES.items()]
    return files + figures.save(figures.scatter_figure(panels, "score, mean over tasks"), Path(directory) / "scores_over_measures")


def _points(rows: Sequence[Measurement], name: str) -> list[figures.Curve]:
    """One point for each variant and seed: the mean score over tasks and the median of the measure."""
    points = []
    for (variant, method, _), group in by_setting(rows, "variant", "method", "seed").items():
        value, score = np.median([number(row, name) for row in group]), np.mean([number(row, "score") for row in group])
        points.append(figures.Curve(_label(rows, variant, method), np.array([value]), np.array([score])))
    return points


def _label(rows: Sequence[Measurement], variant: object, method: object) -> str:
    return str(variant) if len({row.setting["method"] for row in rows}) == 1 else f"{variant}, {method}"
