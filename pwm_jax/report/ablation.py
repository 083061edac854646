"""A study of settings as a table, rank correlations and figures: what each variant's model is like, and what its policies earn.

What they earn is the share of a task's largest return, so that tasks count alike.
"""

from __future__ import annotations

import os
import re
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


EARNED = "share"
DEFAULT = "default"  # the variant that the others are compared with, where there is one of this name
_RESAMPLES = 1000


def table(rows: Sequence[Measurement]) -> list[list[str]]:
    """A line for each variant and method, the header first: what it earns with its interval, then medians of its models.

    Where one variant is the default, the differences from it are shown too. What is the same of all models is left out.
    """
    groups, measures = _by_variant(rows), _measures(rows)
    several = len({method for _, method in groups}) > 1
    compared = any(variant == DEFAULT for variant, _ in groups)
    lines = [["variant", *(["method"] if several else []), "return / largest", *(["against the default"] if compared else []), *measures]]
    for (variant, method), group in groups.items():
        cells = [str(variant), *([str(method)] if several else []), format_estimate(stats.aggregate(_by_task(group), "mean"))]
        if compared:
            cells.append("" if variant == DEFAULT else _difference(group, groups.get((DEFAULT, method), [])))
        lines.append([*cells, *(format_scientific(float(np.median([number(r, name) for r in group]))) for name in measures.values())])
    return lines


def _by_variant(rows: Sequence[Measurement]) -> dict[tuple[str | int | float, ...], list[Measurement]]:
    """Rows by variant and method: the default first, then by name, numbers in it by their size."""
    natural = lambda text: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(text))]  # noqa: E731
    return dict(sorted(by_setting(rows, "variant", "method").items(), key=lambda item: (item[0][0] != DEFAULT, *map(natural, item[0]))))


def _measures(rows: Sequence[Measurement]) -> dict[str, str]:
    """Those of `MEASURES` in which models differ; all of them where there is one variant. Variants may share their models."""
    if len({row.setting["variant"] for row in rows}) == 1:
        return MEASURES
    by_run = by_setting(rows, "task", "seed").values()
    return {label: name for label, name in MEASURES.items() if any(len({number(row, name) for row in group}) > 1 for group in by_run)}


def _by_task(rows: Sequence[Measurement]) -> dict[str, list[list[float]]]:
    """Shares of the largest return, a run of one value for each seed, by task."""
    return {str(task): [[number(row, EARNED)] for row in mine] for (task,), mine in by_setting(rows, "task").items()}


def _difference(rows: Sequence[Measurement], default: Sequence[Measurement]) -> str:
    """The difference of mean shares over the tasks that both have, and whether its interval over seeds lies above or below zero."""
    tasks = {row.setting["task"] for row in rows} & {row.setting["task"] for row in default}
    if not tasks:
        return ""
    shared = [[row for row in part if row.setting["task"] in tasks] for part in (rows, default)]
    first, second = ([[float(np.mean([number(row, EARNED) for row in mine]))] for mine in by_setting(p, "seed").values()] for p in shared)
    found = stats.compare(first, second)
    return f"{found.verdict} ({'+' if found.difference >= 0 else ''}{format_number(found.difference)})"


def correlations(rows: Sequence[Measurement]) -> dict[str, stats.Estimate]:
    """Spearman's rank correlation over variants of each measure with what they earn: mean over tasks, methods and seeds.

    The interval is of 1,000 resamples of variants and, from three on, of seeds: how the number would vary with other settings and other
    runs. Blocks (tasks and seeds) in which all outcomes or all values of the measure are equal have none and are left out.
    """
    variants = sorted({str(row.setting["variant"]) for row in rows})
    seeds = sorted({int(row.setting["seed"]) for row in rows})
    rng = np.random.default_rng(0)
    draws = np.concatenate([np.arange(len(variants))[None], rng.integers(0, len(variants), (_RESAMPLES, len(variants)))])
    drawn_seeds = rng.integers(0, len(seeds), (_RESAMPLES, len(seeds)))
    weights = np.ones((_RESAMPLES + 1, len(seeds)))
    if len(seeds) >= stats.MIN_SEEDS:
        weights[1:] = (drawn_seeds[:, :, None] == np.arange(len(seeds))).sum(1)
    found = {}
    for label, name in MEASURES.items():
        total, count = np.zeros(_RESAMPLES + 1), np.zeros(_RESAMPLES + 1)
        for (_, _, seed), group in by_setting(rows, "task", "method", "seed").items():
            of = {str(row.setting["variant"]): (number(row, name), number(row, EARNED)) for row in group}
            if len(of) < 3:
                continue
            values = np.array([of.get(variant, (np.nan, np.nan)) for variant in variants]).T
            correlation = _rank_correlations(values[:, draws])
            weight = weights[:, seeds.index(int(seed))] * np.isfinite(correlation)
            total += weight * np.nan_to_num(correlation)
            count += weight
        if count[0]:
            mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
            low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
            found[label] = stats.Estimate(float(mean[0]), float(low), float(high), len(seeds), "seeds")
    return found


def _rank_correlations(pairs: np.ndarray) -> np.ndarray:
    """Of [2, N, V], less the variants that there are not (NaN): [N], NaN where one side is constant."""
    from scipy.stats import rankdata

    there = np.isfinite(pairs[:1])
    ranks = np.where(there, rankdata(pairs, axis=-1, nan_policy="omit"), 0.0)
    ranks = np.where(there, ranks - ranks.sum(-1, keepdims=True) / np.maximum(there.sum(-1, keepdims=True), 1), 0.0)
    spread = np.sqrt(np.square(ranks).sum(-1).prod(0))
    return np.divide(ranks.prod(0).sum(-1), spread, out=np.full(len(spread), np.nan), where=spread > 0)


def best(rows: Sequence[Measurement]) -> dict[str, float]:
    """How often each variant and method earns most, of 1,000 resamples of every one's seeds; the most frequent first, ties shared."""
    rng, means = np.random.default_rng(0), {}
    for (variant, method), group in by_setting(rows, "variant", "method").items():
        by_seed = np.array([np.mean([number(row, EARNED) for row in mine]) for mine in by_setting(group, "seed").values()])
        means[_label(rows, variant, method)] = rng.choice(by_seed, (_RESAMPLES, len(by_seed))).mean(1)
    table = np.array(list(means.values()))
    winners = table == table.max(0)
    shares = dict(zip(means, (winners / winners.sum(0)).mean(1).tolist(), strict=True))
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def note(rows: Sequence[Measurement]) -> str:
    """What the table's numbers are, which variants may be the best, and the rank correlations."""
    seeds = len({row.setting["seed"] for row in rows})
    sets = {frozenset(row.setting["task"] for row in group) for group in by_setting(rows, "variant").values()}
    counts = sorted({len(of) for of in sets})
    tasks = f"{counts[-1]} task{'s' * (counts[-1] > 1)}" if len(counts) == 1 else f"each variant's {counts[0]} to {counts[-1]} tasks"
    text = f"Return / largest: mean over {tasks} and {seeds} seeds and 95 % interval"
    text += "; the others are medians over both." if _measures(rows) else "."
    variants = len({row.setting["variant"] for row in rows})
    if seeds >= stats.MIN_SEEDS and len(sets) == 1:
        likely = [f"{label} {share:.2f}" for label, share in best(rows).items() if share >= 0.1]
        text += f" Share of 1,000 resamples of the seeds in which a variant earns most: {', '.join(likely)}."
    if variants > 2 and len(sets) == 1 and _measures(rows):
        parts = [f"{label} {format_number(e.value)} {format_interval(e.low, e.high)}".rstrip() for label, e in correlations(rows).items()]
        text += (
            " Rank correlation over variants with what they earn, mean over tasks and seeds, and 95 % interval over resampled variants and "
            f"seeds: {'; '.join(parts)}."
        )
    return text


def summary(rows: Sequence[Measurement]) -> str:
    """The table and the correlations, for the terminal."""
    return f"{text_table(table(rows))}\n{note(rows)}\n"


def save_figures(rows: Sequence[Measurement], directory: str | os.PathLike[str]) -> list[Path]:
    """What every variant earns on each task, and this over each measure in which models differ; returns the files' paths."""
    scores = {}
    for (task,), group in by_setting(rows, "task").items():
        scores[str(task)] = {
            _label(rows, variant, method): stats.mean_interval([[number(row, EARNED)] for row in mine])
            for (variant, method), mine in _by_variant(group).items()
        }
    files = figures.save(figures.interval_figure(scores, "return / largest"), Path(directory) / "scores")
    panels = [figures.Panel(label, _points(rows, name)) for label, name in _measures(rows).items()]
    if not panels:
        return files
    return files + figures.save(figures.scatter_figure(panels, "return / largest"), Path(directory) / "scores_over_measures")


def _points(rows: Sequence[Measurement], name: str) -> list[figures.Curve]:
    """One point for each variant and seed: the mean over tasks and the median of the measure."""
    points = []
    for (variant, method), mine in _by_variant(rows).items():
        for group in by_setting(mine, "seed").values():
            value, score = np.median([number(row, name) for row in group]), np.mean([number(row, EARNED) for row in group])
            points.append(figures.Curve(_label(rows, variant, method), np.array([value]), np.array([score])))
    return points


def _label(rows: Sequence[Measurement], variant: object, method: object) -> str:
    return str(variant) if len({row.setting["method"] for row in rows}) == 1 else f"{variant}, {method}"
