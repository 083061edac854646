"""The single-task comparison: final returns, scores over PPO's, learning curves and costs as tables, figures, a page and result rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pwm_jax.report import comparison, figures, stats
from pwm_jax.report.curves import CurveRow, last_rows
from pwm_jax.report.episodes import Scores
from pwm_jax.report.page import grouped_origins, render
from pwm_jax.report.page_scores import Cell, Chart
from pwm_jax.report.progress import format_seconds
from pwm_jax.report.records import RecordError
from pwm_jax.report.results import ResultRow
from pwm_jax.report.styles import styles
from pwm_jax.report.text import format_estimate, format_interval, format_number, order_methods, text_table

STUDY = "single_task"
METHODS = ("pwm", "shac", "decoupled", "ppo", "sac")
REFERENCE = "ppo"
TIMES = 10
EFFICIENCY = f"Return of pwm beside PPO's after {TIMES} times the environment steps"
EFFICIENCY_COLUMNS = ["task", "steps of pwm", "pwm", f"ppo, {TIMES} x steps"]
SCORE = "final return / PPO's mean final return on the same task"
MEANINGS = {
    "pwm": "policy gradients through a world model learned beside",
    "shac": "policy gradients through the simulator",
    "decoupled": "simulated trajectories, gradients through a world model learned beside",
    "ppo": "Brax's PPO",
    "sac": "Brax's SAC",
}
_COST_COLUMNS = ["task", "method", "seeds", "steps", "training", "compiling"]
COST_NOTE = (
    "Steps are of all environments together. Training: wall time of acting and learning to the last evaluation, mean over seeds; neither "
    "evaluation nor compiling counts. Compiling: the most that a seed needed, little where compiled programs were kept from an earlier run."
)
_AXES: dict[Literal["env_steps", "wall_s"], str] = {"env_steps": "environment steps", "wall_s": "seconds of training"}


def final_returns(rows: Sequence[CurveRow]) -> Scores:
    """The last mean return of each seed, by task and method: one run of a single value for each seed, in order of seeds."""
    finals: Scores = {}
    for row in sorted(last_rows(rows), key=lambda row: row.seed):
        finals.setdefault(row.task, {}).setdefault(row.method, []).append(np.array([row.episode_return]))
    return {task: finals[task] for task in dict.fromkeys(row.task for row in rows)}


def normalised(returns: Scores) -> Scores:
    """Scores, final returns over PPO's mean on the same task; tasks without PPO are left out.

    Raises RecordError where that mean is not positive, since no score can be had from it.
    """
    scores: Scores = {}
    for task, by_method in returns.items():
        if REFERENCE not in by_method:
            continue
        reference = float(np.mean(by_method[REFERENCE]))
        if reference <= 0:
            raise RecordError(
                f"{task}: {REFERENCE}'s mean final return is {reference:g}; scores need a positive one, so train it for longer"
            )
        scores[task] = {method: [run / reference for run in runs] for method, runs in by_method.items()}
    return scores


def result_rows(rows: Sequence[CurveRow], origins: Mapping[tuple[str, str], Mapping[str, str]], study: str = STUDY) -> list[ResultRow]:
    """Rows of a study, one for each task, method and seed; `origins[task, method]` is `results.provenance()` of the run.

    Raises RecordError for a task without PPO, whose scores are relative to it.
    """
    returns = final_returns(rows)
    scores = normalised(returns)
    without = [task for task in returns if task not in scores]
    if without:
        raise RecordError(f"no {REFERENCE} on {', '.join(without)}: results of study {study} are relative to it, so run it there")
    results = []
    for row in last_rows(rows):
        origin = origins[row.task, row.method]
        score = row.episode_return / float(np.mean(returns[row.task][REFERENCE]))
        results.append(
            ResultRow(
                study=study,
                task=row.task,
                method=row.method,
                seed=row.seed,
                episode_return=round(row.episode_return, 4),
                score=round(score, 6),
                env_steps=row.env_steps,
                seconds=round(row.wall_s, 1),
                command=origin["command"],
                commit=origin["commit"],
                hardware=origin["hardware"],
                episodes=row.episodes,
                extra={"score": SCORE, "compile_s": round(row.compile_s, 1), "length": round(row.length, 2)},
            )
        )
    return results


def at_step(rows: Sequence[CurveRow], task: str, method: str, env_steps: float) -> stats.Runs:
    """Each seed's return after `env_steps`, linear between its evaluations; none where a seed has not been evaluated on both sides."""
    runs = []
    for seed in sorted({row.seed for row in rows if (row.task, row.method) == (task, method)}):
        mine = [row for row in rows if (row.task, row.method, row.seed) == (task, method, seed)]
        steps = [row.env_steps for row in mine]
        if not steps[0] <= env_steps <= steps[-1]:
            return []
        runs.append(np.array([np.interp(env_steps, steps, [row.episode_return for row in mine])]))
    return runs


def efficiency_rows(rows: Sequence[CurveRow]) -> list[list[str]]:
    """Task, steps, pwm's return after them, PPO's after `TIMES` as many, for a quarter, half and all of pwm's steps, as text."""
    cells = []
    for task in dict.fromkeys(row.task for row in rows):
        reached = [row.env_steps for row in last_rows(rows) if (row.task, row.method) == (task, "pwm")]
        for share in (0.25, 0.5, 1.0) if reached else ():
            steps = share * min(reached)
            ours, theirs = (at_step(rows, task, method, count) for method, count in (("pwm", steps), (REFERENCE, TIMES * steps)))
            if ours and theirs:
                cells.append([task, f"{steps:,.0f}", *(format_estimate(stats.mean_interval(runs)) for runs in (ours, theirs))])
    return cells


def summary(rows: Sequence[CurveRow]) -> str:
    """The tables that a comparison ends with, as text: mean and IQM of final returns, costs, and scores over all tasks."""
    returns = final_returns(rows)
    scores, methods = normalised(returns), comparison.methods_of(returns)
    lines = [["task", *methods]]
    for task, by_method in returns.items():
        for name, values in (("", _means(by_method)), (", IQM", _iqms(by_method))):
            lines.append([f"{task}{name}", *(format_estimate(values[m]) if m in values else comparison.NONE for m in methods)])
    text = "Final return, mean and IQM over seeds with 95 % intervals\n" + text_table(lines)
    if efficiency := efficiency_rows(rows):
        text += f"\n{EFFICIENCY}\n" + text_table([EFFICIENCY_COLUMNS, *efficiency])
    text += "\nCost\n" + text_table([_COST_COLUMNS, *([cell.text for cell in row] for row in _costs(rows))])
    if scores:
        table = [["", *methods], *comparison.aggregate_rows(scores, methods), *comparison.chance_rows(scores, methods, "pwm")]
        text += f"\nScore over all tasks ({SCORE})\n" + text_table(table)
    return text


def panels(rows: Sequence[CurveRow], axis: Literal["env_steps", "wall_s"]) -> list[figures.Panel]:
    """A panel of learning curves for each task, against environment steps or wall time, without the evaluation before any of either."""
    shown = []
    for task in dict.fromkeys(row.task for row in rows):
        mine = [row for row in rows if row.task == task and getattr(row, axis) > 0]
        curves = []
        for method in order_methods(list({row.method for row in mine})):
            for seed in sorted({row.seed for row in mine if row.method == method}):
                points = [row for row in mine if (row.method, row.seed) == (method, seed)]
                steps, values = zip(*((getattr(row, axis), row.episode_return) for row in points), strict=True)
                curves.append(figures.Curve(method, np.array(steps, float), np.array(values)))
        shown.append(figures.Panel(task, curves))
    return shown


def save_figures(rows: Sequence[CurveRow], directory: str | os.PathLike[str]) -> list[Path]:
    """Learning curves of all tasks against steps and wall time, and final returns, as PNG and SVG files; returns their paths.

    Final returns are drawn over the stiffness of contacts, too, where the tasks of a robot differ in it.
    """
    directory = Path(directory)
    files = []
    for axis, label in _AXES.items():
        figure = figures.curve_figure(panels(rows, axis), label, "return", log_x=True)
        files += figures.save(figure, directory / f"learning_curves_{axis}")
    finals = {task: _in_order(_means(by_method)) for task, by_method in final_returns(rows).items()}
    files += figures.save(figures.interval_figure(finals, "final return"), directory / "final_returns")
    if over := stiffness_panels(rows):
        figure = figures.curve_figure(over, "stiffness of contacts over Brax's", "final return", log_x=True)
        files += figures.save(figure, directory / "final_returns_over_stiffness")
    return files


def stiffness_panels(rows: Sequence[CurveRow]) -> list[figures.Panel]:
    """A panel for each robot and physics with contacts of several kinds of stiffness: final returns of each method and seed over it."""
    finals: dict[str, dict[tuple[str, int], list[tuple[float, float]]]] = {}
    for row in last_rows(rows):
        robot, _, factor = row.task.partition("-stiffness")
        finals.setdefault(robot, {}).setdefault((row.method, row.seed), []).append((float(factor or 1), row.episode_return))
    panels = []
    for robot, runs in finals.items():
        if len({factor for points in runs.values() for factor, _ in points}) > 1:
            curves = [figures.Curve(method, *map(np.array, zip(*sorted(points), strict=True))) for (method, _), points in runs.items()]
            panels.append(figures.Panel(robot, curves))
    return panels


def write_comparison(path: str | os.PathLike[str], rows: Sequence[CurveRow], origins: Mapping[tuple[str, str], Mapping[str, str]]) -> Path:
    """Write the comparison as one self-contained HTML file; returns its path. `origins` is that of `result_rows`."""
    returns = final_returns(rows)
    scores, methods = normalised(returns), comparison.methods_of(returns)
    view: dict[str, Any] = {
        "methods": methods,
        "meanings": MEANINGS,
        "returns": [_return_row(task, by_method, methods) for task, by_method in returns.items()],
        "scores": [_score_row(scores, method) for method in methods if comparison.runs_of(scores, method)],
        "score_meaning": SCORE,
        "fewest_seeds": min(len(runs) for by_method in returns.values() for runs in by_method.values()),
        "curves": {label: _curve_charts(rows, axis, label) for axis, label in _AXES.items()},
        "finals": _final_charts(returns),
        "efficiency": {"title": EFFICIENCY, "columns": EFFICIENCY_COLUMNS, "rows": efficiency_rows(rows)},
        "costs": _costs(rows),
        "cost_note": COST_NOTE,
        "origins": grouped_origins({f"{task}, {method}": origin for (task, method), origin in origins.items()}),
        "styles": styles(methods),
    }
    return render("single_task.html", path, view)


def _means(by_method: Mapping[str, stats.Runs]) -> dict[str, stats.Estimate]:
    return {method: stats.mean_interval(runs) for method, runs in by_method.items()}


def _iqms(by_method: Mapping[str, stats.Runs]) -> dict[str, stats.Estimate]:
    return {method: stats.aggregate({"": runs}, "iqm") for method, runs in by_method.items()}


def _in_order(estimates: Mapping[str, stats.Estimate]) -> dict[str, stats.Estimate]:
    return {method: estimates[method] for method in order_methods(list(estimates))}


def _costs(rows: Sequence[CurveRow]) -> list[list[Cell]]:
    """Task, method, seeds, steps, training time and compile time of each run."""
    runs: dict[tuple[str, str], list[CurveRow]] = {}
    for row in last_rows(rows):
        runs.setdefault((row.task, row.method), []).append(row)
    cells = []
    for (task, method), ends in runs.items():
        wall, compiling = float(np.mean([row.wall_s for row in ends])), max(row.compile_s for row in ends)
        steps = max(row.env_steps for row in ends)
        counts = Cell(str(len(ends))), Cell(f"{steps:,}", sort=steps)
        times = (Cell(format_seconds(seconds), sort=seconds) for seconds in (wall, compiling))
        cells.append([Cell(task), Cell(method), *counts, *times])
    return cells


def _cell(estimate: stats.Estimate | None) -> Cell:
    if estimate is None:
        return Cell(comparison.NONE)
    return Cell(format_number(estimate.value), format_interval(estimate.low, estimate.high), estimate.value)


def _return_row(task: str, by_method: Mapping[str, stats.Runs], methods: Sequence[str]) -> dict[str, Any]:
    means, iqms = _means(by_method), _iqms(by_method)
    return {"task": task, "means": [_cell(means.get(m)) for m in methods], "iqms": [_cell(iqms.get(m)) for m in methods]}


def _score_row(scores: Scores, method: str) -> dict[str, Any]:
    by_task = comparison.runs_of(scores, method)
    estimates = {statistic: _cell(stats.aggregate(by_task, statistic)) for statistic in ("mean", "iqm")}
    return {"method": method, "tasks": len(by_task), "seeds": sum(len(runs) for runs in by_task.values()), **estimates}


def _curve_charts(rows: Sequence[CurveRow], axis: Literal["env_steps", "wall_s"], label: str) -> list[Chart]:
    charts = []
    for index, panel in enumerate(panels(rows, axis)):
        figure = figures.curve_figure([panel], label, "return", columns=1, legend=False, log_x=True)
        finals = _in_order(_means(final_returns(rows)[panel.title]))
        said = ", ".join(f"{method} to {format_number(estimate.value)}" for method, estimate in finals.items())
        charts.append(Chart(panel.title, figures.inline_svg(figure, f"{panel.title}, return against {label}: {said}", f"{axis}{index}")))
    return charts


def _final_charts(returns: Scores) -> list[Chart]:
    charts = []
    for index, (task, by_method) in enumerate(returns.items()):
        estimates = _in_order(_means(by_method))
        said = ", ".join(f"{method} {format_estimate(estimate)}" for method, estimate in estimates.items())
        figure = figures.interval_figure({task: estimates}, "final return", columns=1)
        charts.append(Chart(task, figures.inline_svg(figure, f"{task}, final return: {said}", f"final{index}")))
    return charts
