"""One self-contained HTML page of a run: verdict, scores, curves, videos, data, configuration and provenance.

    write_page("report.html", load_workdir(workdir))

Nothing on the page is fetched: styles, script, charts and videos are inside the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax.report import figures, stats
from pwm_jax.report.episodes import Scores, group
from pwm_jax.report.metrics import format_seconds, series
from pwm_jax.report.records import write_text
from pwm_jax.report.tables import format_interval, format_number, order_methods
from pwm_jax.report.verdict import Judgement, Outcome, judge
from pwm_jax.report.video import data_uri
from pwm_jax.report.workdir import PageData

_MAKERS = {
    "data": "collect",
    "pretrain": "pretrain",
    "extract": "extract",
    "evaluation": "evaluate",
    "videos": "evaluate",
}
_METHODS = {
    "extracted": "policies extracted from the frozen world model",
    "pwm": "policies of the online loop",
    "bc": "behaviour cloning on the same data",
    "data": "episodes in the data",
    "expert": "scripted experts",
    "random": "uniformly random actions",
}
_HEADLINES: dict[Outcome, str] = {
    "met": "The policies meet every criterion",
    "not met": "The policies do not meet every criterion",
    "not measured": "Not everything is measured yet",
}


@dataclasses.dataclass(frozen=True)
class _Chart:
    title: str
    svg: str


@dataclasses.dataclass(frozen=True)
class _Cell:
    text: str
    interval: str = ""
    sort: float = -math.inf
    verdict: str = ""


def _estimate_cell(runs: Sequence[np.ndarray]) -> _Cell:
    estimate = stats.mean_interval(runs)
    return _Cell(format_number(estimate.value), format_interval(estimate.low, estimate.high), estimate.value)


def _verdict_cell(comparison: stats.Comparison | None) -> _Cell:
    if comparison is None:
        return _Cell("not measured", verdict="unknown")
    sign = "+" if comparison.difference >= 0 else ""
    order = {"worse": -1e9, "equal": 0.0, "better": 1e9}[comparison.verdict] + comparison.difference
    interval = format_interval(comparison.low, comparison.high)
    return _Cell(f"{sign}{format_number(comparison.difference)}", interval, order, comparison.verdict)


def _score_rows(returns: Scores, scores: Scores, methods: Sequence[str], judgement: Judgement | None) -> list[dict[str, Any]]:
    verdicts = {task.task: task for task in judgement.tasks} if judgement else {}
    rows = []
    for task, by_method in returns.items():
        cells = [_estimate_cell(by_method[method]) if method in by_method else _Cell("—") for method in methods]
        if judgement:
            cells += [_verdict_cell(verdicts[task].versus(other)) for other in judgement.compared]
        mean_scores = [_Cell(f"{np.mean([run.mean() for run in scores[task][m]]):.2f}") if m in by_method else _Cell("—") for m in methods]
        rows.append({"task": task, "cells": cells, "scores": mean_scores})
    return rows


def _summary_rows(scores: Scores, methods: Sequence[str], policy: str) -> list[dict[str, Any]]:
    """Aggregates over the tasks on which a method was evaluated, and the policy's chance of improving on it there."""
    rows = []
    for method in methods:
        by_task = {task: by_method[method] for task, by_method in scores.items() if method in by_method}
        mean, iqm = stats.aggregate(by_task, "mean"), stats.aggregate(by_task, "iqm")
        chance = _Cell("—")
        if method != policy and all(policy in scores[task] for task in by_task):
            estimate = stats.probability_of_improvement({task: scores[task][policy] for task in by_task}, by_task)
            chance = _Cell(f"{100 * estimate.value:.0f} %", f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]", estimate.value)
        rows.append(
            {
                "method": method,
                "meaning": _METHODS.get(method, ""),
                "mean": _Cell(format_number(mean.value), format_interval(mean.low, mean.high), mean.value),
                "iqm": _Cell(format_number(iqm.value), format_interval(iqm.low, iqm.high), iqm.value),
                "chance": chance,
                "tasks": len(by_task),
                "seeds": "–".join(str(n) for n in sorted({len(runs) for runs in by_task.values()})),
                "episodes": sum(len(run) for runs in by_task.values() for run in runs),
            }
        )
    return rows


def _charts(
    panels: Sequence[figures.Panel], prefix: str, x_label: str, y_label: str, describe: Callable[[figures.Panel], str], log: bool = False
) -> list[_Chart]:
    charts = []
    for index, panel in enumerate(panels):
        figure = figures.curve_figure([panel], x_label, y_label, columns=1, legend=False, log=log)
        charts.append(_Chart(panel.title, figures.inline_svg(figure, describe(panel), f"{prefix}{index}")))
    return charts


def _curves(rows: Sequence[Mapping[str, float]], prefix: str, name: str) -> dict[str, list[figures.Curve]]:
    """Curves of the metrics `<prefix><title>` or `<prefix><title>/seed<k>`, by title; those without values are left out."""
    curves: dict[str, list[figures.Curve]] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key.startswith(prefix)):
        title = key.removeprefix(prefix).partition("/seed")[0]
        curves.setdefault(title, []).append(figures.Curve(name, *series(rows, key)))
    return curves


def _describe_final(panel: figures.Panel) -> str:
    ends = []
    for name in dict.fromkeys(curve.name for curve in panel.curves):
        _, values = figures.mean_curve([curve for curve in panel.curves if curve.name == name])
        if len(values):
            ends.append(f"{name} from {format_number(float(values[0]))} to {format_number(float(values[-1]))}")
    return "; ".join([f"{panel.title}: {', '.join(ends)}", *(f"{name} at {format_number(level)}" for name, level in panel.levels.items())])


def _loss_charts(rows: Sequence[Mapping[str, float]], stage: str) -> list[_Chart]:
    training, heldout = _curves(rows, "loss/", "training"), _curves(rows, "heldout/", "held out")
    panels = [figures.Panel(title, [*training.get(title, []), *heldout.get(title, [])]) for title in dict.fromkeys([*training, *heldout])]
    return _charts(panels, f"{stage}-loss", "gradient steps", "loss", _describe_final, log=True)


def _open_loop_charts(data: PageData) -> list[_Chart]:
    over_training = _curves(data.metrics.get("pretrain", []), "open_loop/", "held out")
    panels = [figures.Panel(task, curves) for task, curves in over_training.items()]
    return _charts(panels, "open-loop", "gradient steps", "error", _describe_final, log=True)


def _horizon_charts(data: PageData) -> list[_Chart]:
    panels = [
        figures.Panel(task, [figures.Curve("held out", np.arange(1, len(errors) + 1), np.asarray(errors))])
        for task, errors in data.open_loop.items()
        if errors
    ]
    return _charts(panels, "horizon", "steps predicted ahead", "error", _describe_final)


def _learning_charts(data: PageData, stage: str, method: str, levels: Scores) -> list[_Chart]:
    curves = _curves(data.metrics.get(stage, []), "eval/return/", method)
    panels = []
    for task in sorted(curves, key=lambda task: (data.tasks.index(task) if task in data.tasks else len(data.tasks), task)):
        known = levels.get(task, {})
        compared = [name for name in ("bc", "data", "random") if name in known and name != method]
        constant: dict[str, float] = {name: float(np.mean([run.mean() for run in known[name]])) for name in compared}
        panels.append(figures.Panel(task, curves[task], constant))
    return _charts(panels, f"{stage}-curve", "environment steps" if stage == "online" else "policy updates", "return", _describe_final)


def _interval_charts(returns: Scores, methods: Sequence[str]) -> list[_Chart]:
    charts = []
    for index, (task, by_method) in enumerate(returns.items()):
        estimates = {method: stats.mean_interval(by_method[method]) for method in methods if method in by_method}
        figure = figures.interval_figure({task: estimates}, "return", columns=1)
        said = ", ".join(f"{method} {format_number(e.value)} {format_interval(e.low, e.high)}".strip() for method, e in estimates.items())
        charts.append(_Chart(task, figures.inline_svg(figure, f"{task}, return: {said}", f"interval{index}")))
    return charts


def _videos(data: PageData) -> list[dict[str, Any]]:
    means: dict[tuple[str, str, int], list[float]] = {}
    for episode in data.episodes:
        means.setdefault((episode.task, episode.method, episode.seed), []).append(episode.episode_return)
    shown = []
    for video in sorted(
        data.videos, key=lambda v: (data.tasks.index(v.task) if v.task in data.tasks else len(data.tasks), v.method, v.seed)
    ):
        values = means.get((video.task, video.method, video.seed))
        mean = f", mean return {format_number(float(np.mean(values)))}" if values else ""
        shown.append({"task": video.task, "caption": f"{video.method}, seed {video.seed}{mean}", "uri": data_uri(video.path)})
    return shown


def _data_rows(data: PageData) -> list[dict[str, Any]]:
    rows = []
    for row in data.data.get("tasks", []):
        quantiles = " / ".join(format_number(value) for value in row["return_quantiles"]) if row["return_quantiles"] else "—"
        sources = ", ".join(f"{name} {count}" for name, count in row["sources"].items())
        mean = format_number(row["return_mean"]) if row["return_mean"] is not None else "—"
        success = f"{100 * row['success_rate']:.0f} %" if row["success_rate"] is not None else "—"
        rows.append(
            {**row, "quantiles": quantiles, "sources": sources, "mean": mean, "success": success, "most": format_number(row["max_return"])}
        )
    return rows


def _timing_rows(data: PageData) -> list[dict[str, Any]]:
    total = sum(data.timing.values())
    rows = [{"stage": stage, "time": format_seconds(s), "share": s / total if total else 0.0} for stage, s in data.timing.items()]
    return [*rows, {"stage": "all stages", "time": format_seconds(total), "share": None}] if rows else []


def _missing(view: Mapping[str, Any], data: PageData) -> dict[str, str]:
    """The command that makes each part the page lacks, by part."""
    lacks = {
        "data": not view["data_rows"],
        "pretrain": not view["pretrain_losses"],
        "extract": not view["learning"] and not view["online"],
        "evaluation": not data.episodes,
        "videos": not data.videos,
    }
    return {
        part: f"python -m experiments.{_MAKERS[part]} --workdir={shlex.quote(data.workdir)}" for part, absent in lacks.items() if absent
    }


def page_view(data: PageData, policy: str = "extracted") -> dict[str, Any]:
    """What the template shows, as plain values and finished charts."""
    returns, scores = group(data.episodes, "return"), group(data.episodes, "score")
    order = [task for task in data.tasks if task in returns]
    returns, scores = {task: returns[task] for task in order}, {task: scores[task] for task in order}
    methods = order_methods(list({method for by_method in returns.values() for method in by_method}))
    judgement = judge(returns, policy) if policy in methods or not methods else None
    view: dict[str, Any] = {
        "workdir": data.workdir,
        "problems": data.problems,
        "policy": policy,
        "methods": methods,
        "judgement": judgement,
        "headline": _HEADLINES[judgement.outcome] if judgement and methods else "No evaluation yet" if not methods else "Evaluation",
        "summary": _summary_rows(scores, methods, policy),
        "score_rows": _score_rows(returns, scores, methods, judgement if methods else None),
        "units": sorted({stats.units(runs)[1] for by_method in returns.values() for method, runs in by_method.items() if method == policy}),
        "intervals": _interval_charts(returns, methods),
        "pretrain_losses": _loss_charts(data.metrics.get("pretrain", []), "pretrain"),
        "open_loop": _open_loop_charts(data),
        "horizon": _horizon_charts(data),
        "learning": _learning_charts(data, "extract", policy, returns),
        "online": _learning_charts(data, "online", "pwm", returns),
        "other_losses": {
            stage: charts for stage in ("extract", "bc", "online") if (charts := _loss_charts(data.metrics.get(stage, []), stage))
        },
        "videos": _videos(data),
        "data_rows": _data_rows(data),
        "recipe": json.dumps(data.data.get("recipe", {}), indent=2, ensure_ascii=False) if data.data else "",
        "config": {stage: json.dumps(part, indent=2, ensure_ascii=False) for stage, part in data.config.items()},
        "provenance": data.provenance,
        "timing": _timing_rows(data),
        "styles": {name: figures.style(name) for name in dict.fromkeys([*methods, "training", "held out"])},
    }
    view["missing"] = _missing(view, data)
    return view


def write_page(path: str | os.PathLike[str], data: PageData, policy: str = "extracted") -> Path:
    """Write the page of a run as one HTML file; returns its path."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).resolve().parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    path = Path(path)
    write_text(path, environment.get_template("template.html").render(page_view(data, policy)))
    return path
