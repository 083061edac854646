"""The scores part of the page: cells and rows of its tables, interval charts and performance profiles."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pwm_jax.report import comparison, figures, stats
from pwm_jax.report.decisions import DecisionTime, format_call, format_decision
from pwm_jax.report.episodes import Scores
from pwm_jax.report.text import format_interval, format_number
from pwm_jax.report.verdict import Judgement

_METHODS = {
    "extracted": "policies extracted from the frozen world model",
    "generalist": "one policy for all tasks",
    "mppi": "planning through the world model at every step",
    "pwm": "policies of the online loop",
    "bc": "behaviour cloning on the same data",
    "data": "episodes in the data",
    "expert": "scripted experts",
    "random": "uniformly random actions",
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """A finished chart: its title and its <svg> element."""

    title: str
    svg: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a smaller line for the interval, what it is sorted by where its text does not say, a verdict or ''."""

    text: str
    interval: str = ""
    sort: float | None = None
    verdict: str = ""


def _estimate_cell(runs: Sequence[np.ndarray]) -> Cell:
    estimate = stats.mean_interval(runs)
    return Cell(format_number(estimate.value), format_interval(estimate.low, estimate.high), estimate.value)


def _verdict_cell(compared: stats.Comparison | None) -> Cell:
    if compared is None:
        return Cell("not measured", verdict="unknown")
    sign = "+" if compared.difference >= 0 else ""
    order = {"worse": -1e9, "better": 1e9}.get(compared.verdict, 0.0) + compared.difference
    return Cell(f"{sign}{format_number(compared.difference)}", format_interval(compared.low, compared.high), order, compared.verdict)


def score_rows(returns: Scores, scores: Scores, methods: Sequence[str], judgement: Judgement | None) -> list[dict[str, Any]]:
    """A row for each task: cells of returns in the order of `methods`, then of the verdicts, and cells of scores."""
    verdicts = {task.task: task for task in judgement.tasks} if judgement else {}
    rows = []
    for task, by_method in returns.items():
        cells = [_estimate_cell(by_method[method]) if method in by_method else Cell("—") for method in methods]
        if judgement:
            cells += [_verdict_cell(verdicts[task].versus(other)) for other in judgement.compared]
        mean_scores = [Cell(f"{np.mean([run.mean() for run in scores[task][m]]):.2f}") if m in by_method else Cell("—") for m in methods]
        rows.append({"task": task, "cells": cells, "scores": mean_scores})
    return rows


def summary_rows(scores: Scores, methods: Sequence[str], policy: str, decisions: Mapping[str, DecisionTime]) -> list[dict[str, Any]]:
    """Aggregates over the tasks on which a method was evaluated, and the policy's chance of improving on it there."""
    rows = []
    for method in methods:
        by_task = comparison.runs_of(scores, method)
        mean, iqm = stats.aggregate(by_task, "mean"), stats.aggregate(by_task, "iqm")
        estimate, chance, decision = comparison.chance(scores, method, policy), Cell("—"), Cell("—")
        if estimate is not None:
            chance = Cell(f"{100 * estimate.value:.0f} %", f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]", estimate.value)
        if method in decisions:
            time = decisions[method]
            decision = Cell(f"{format_decision([time])} ms", f"{format_call([time])}", time.seconds_per_decision)
        rows.append(
            {
                "method": method,
                "meaning": _METHODS.get(method, ""),
                "mean": Cell(format_number(mean.value), format_interval(mean.low, mean.high), mean.value),
                "iqm": Cell(format_number(iqm.value), format_interval(iqm.low, iqm.high), iqm.value),
                "chance": chance,
                "decision": decision,
                "tasks": len(by_task),
                "seeds": "–".join(str(n) for n in sorted({len(runs) for runs in by_task.values()})),
                "episodes": sum(len(run) for runs in by_task.values() for run in runs),
            }
        )
    return rows


def published_rows(scores: Scores, set_name: str) -> list[list[Cell]]:
    """`comparison.published_table` as cells, with what is in brackets below the values."""
    cells = []
    for row in comparison.published_table(scores, set_name):
        parts = [re.split(r" (?=[\[(])", text, maxsplit=1) for text in row]
        cells.append([Cell(value, "".join(brackets)) for value, *brackets in parts])
    return cells


def interval_charts(returns: Scores, methods: Sequence[str]) -> list[Chart]:
    """A chart for each task of every method's mean return and its interval."""
    charts = []
    for index, (task, by_method) in enumerate(returns.items()):
        estimates = {method: stats.mean_interval(by_method[method]) for method in methods if method in by_method}
        figure = figures.interval_figure({task: estimates}, "return", columns=1)
        said = ", ".join(f"{method} {format_number(e.value)} {format_interval(e.low, e.high)}".strip() for method, e in estimates.items())
        charts.append(Chart(task, figures.inline_svg(figure, f"{task}, return: {said}", f"interval{index}")))
    return charts


def profiles(scores: Scores) -> dict[str, stats.Profile]:
    """Performance profiles of the methods that every task of `scores` has, in the order of columns."""
    complete = [method for method in comparison.methods_of(scores) if all(method in by_method for by_method in scores.values())]
    return {method: stats.performance_profile(comparison.runs_of(scores, method)) for method in complete}


def profile_charts(scores: Scores) -> list[Chart]:
    """The chart of all profiles, or none where no method has every task."""
    curves = profiles(scores)
    if not curves:
        return []
    at = (0.25, 0.5, 0.75)
    said = []
    for method, profile in curves.items():
        shares = [profile.value[int(np.argmin(np.abs(profile.thresholds - threshold)))] for threshold in at]
        said.append(f"{method} " + ", ".join(f"{100 * share:.0f} % above {threshold}" for share, threshold in zip(shares, at, strict=True)))
    figure = figures.profile_figure(curves, legend=False)
    return [Chart("performance profile", figures.inline_svg(figure, f"Runs with a score above a threshold: {'; '.join(said)}", "profile"))]
