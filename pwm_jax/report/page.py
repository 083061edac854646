"""One self-contained HTML page of a run: verdict, scores, curves, videos, data, configuration and provenance.

    write_page("report.html", load_workdir(workdir))

Nothing on the page is fetched: styles, script, charts and videos are inside the file.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax.report import comparison, decisions, figures, stats
from pwm_jax.report.episodes import Scores, group
from pwm_jax.report.metrics import series
from pwm_jax.report.page_scores import Chart, interval_charts, profile_charts, published_rows, score_rows, summary_rows
from pwm_jax.report.progress import format_seconds
from pwm_jax.report.records import write_text
from pwm_jax.report.styles import styles
from pwm_jax.report.text import format_number
from pwm_jax.report.verdict import Outcome, judge
from pwm_jax.report.video import data_uri
from pwm_jax.report.workdir import PageData

_MAKERS = {
    "data": "collect",
    "pretrain": "pretrain",
    "extract": "extract",
    "evaluation": "evaluate",
    "videos": "evaluate",
}
_ORIGIN = ("command", "commit", "hardware")
_HEADLINES: dict[Outcome, str] = {
    "met": "The policies meet every criterion",
    "not met": "The policies do not meet every criterion",
    "not measured": "Not everything is measured yet",
}


def _charts(
    panels: Sequence[figures.Panel], prefix: str, x_label: str, y_label: str, describe: Callable[[figures.Panel], str], log: bool = False
) -> list[Chart]:
    charts = []
    for index, panel in enumerate(panels):
        figure = figures.curve_figure([panel], x_label, y_label, columns=1, legend=False, log=log)
        charts.append(Chart(panel.title, figures.inline_svg(figure, describe(panel), f"{prefix}{index}")))
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


def _loss_charts(rows: Sequence[Mapping[str, float]], stage: str) -> list[Chart]:
    training, heldout = _curves(rows, "loss/", "training"), _curves(rows, "heldout/", "held out")
    panels = [figures.Panel(title, [*training.get(title, []), *heldout.get(title, [])]) for title in dict.fromkeys([*training, *heldout])]
    return _charts(panels, f"{stage}-loss", "gradient steps", "", _describe_final, log=True)


def _open_loop_charts(data: PageData) -> list[Chart]:
    over_training = _curves(data.metrics.get("pretrain", []), "open_loop/", "held out")
    panels = [figures.Panel(task, curves) for task, curves in over_training.items()]
    return _charts(panels, "open-loop", "gradient steps", "error", _describe_final, log=True)


def _horizon_charts(data: PageData) -> list[Chart]:
    panels = [
        figures.Panel(task, [figures.Curve("held out", np.arange(1, len(errors) + 1), np.asarray(errors))])
        for task, errors in data.open_loop.items()
        if errors
    ]
    return _charts(panels, "horizon", "steps predicted ahead", "error", _describe_final)


def _learning_charts(data: PageData, stage: str, method: str, levels: Scores) -> list[Chart]:
    curves = _curves(data.metrics.get(stage, []), "eval/return/", method)
    panels = []
    for task in sorted(curves, key=lambda task: (data.tasks.index(task) if task in data.tasks else len(data.tasks), task)):
        known = levels.get(task, {})
        compared = [name for name in ("bc", "data", "random") if name in known and name != method]
        constant: dict[str, float] = {name: float(np.mean([run.mean() for run in known[name]])) for name in compared}
        panels.append(figures.Panel(task, curves[task], constant))
    return _charts(panels, f"{stage}-curve", "environment steps" if stage == "online" else "policy updates", "return", _describe_final)


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


def grouped_origins(origins: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """What was made by which command, commit and hardware; what has all three in common is one entry, its names under `made`."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, origin in origins.items():
        groups.setdefault(tuple(str(origin[field]) for field in _ORIGIN), []).append(name)
    return [{"made": "; ".join(names), **dict(zip(_ORIGIN, origin, strict=True))} for origin, names in groups.items()]


def _timing_rows(data: PageData) -> list[dict[str, Any]]:
    total = sum(data.timing.values())
    rows = [{"stage": stage, "time": format_seconds(s), "share": s / total if total else 0.0} for stage, s in data.timing.items()]
    return [*rows, {"stage": "all stages", "time": format_seconds(total), "share": None}] if rows else []


def _missing(view: Mapping[str, Any], data: PageData) -> dict[str, str]:
    """The command that makes each part the page lacks, by part."""
    lacks = {
        "data": not view["data_rows"] and not view["online"],
        "pretrain": not view["pretrain_losses"] and not view["online"],
        "extract": not view["learning"] and not view["online"],
        "evaluation": not data.episodes,
        "videos": not data.videos,
    }
    return {
        part: f"python -m experiments.{_MAKERS[part]} --workdir={shlex.quote(data.workdir)}" for part, absent in lacks.items() if absent
    }


def page_view(data: PageData, policy: str = "extracted", published: str = "") -> dict[str, Any]:
    """What the template shows, as plain values and finished charts; see `write_page`."""
    returns, scores = group(data.episodes, "return"), group(data.episodes, "score")
    order = [task for task in data.tasks if task in returns]
    returns, scores = {task: returns[task] for task in order}, {task: scores[task] for task in order}
    methods = comparison.methods_of(returns)
    judgement = judge(returns, policy) if policy in methods or not methods else None
    view: dict[str, Any] = {
        "workdir": data.workdir,
        "problems": data.problems,
        "policy": policy,
        "methods": methods,
        "judgement": judgement,
        "headline": _HEADLINES[judgement.outcome] if judgement and methods else "No evaluation yet" if not methods else "Evaluation",
        "summary": summary_rows(scores, methods, policy, data.decisions),
        "score_rows": score_rows(returns, scores, methods, judgement if methods else None),
        "units": sorted({stats.units(runs)[1] for by_method in returns.values() for method, runs in by_method.items() if method == policy}),
        "decision_note": decisions.NOTE if any(method in data.decisions for method in methods) else "",
        "published": published_rows(scores, published) if published and scores else [],
        "published_notes": comparison.published_notes(scores, published) if published and scores else [],
        "intervals": interval_charts(returns, methods),
        "profile": profile_charts(scores),
        "pretrain_losses": _loss_charts(data.metrics.get("pretrain", []), "pretrain"),
        "open_loop": _open_loop_charts(data),
        "horizon": _horizon_charts(data),
        "learning": _learning_charts(data, "extract", policy, returns),
        "online": _learning_charts(data, "online", "pwm", returns),
        "other_losses": {
            stage: charts
            for stage in ("extract", "generalist", "bc", "online")
            if (charts := _loss_charts(data.metrics.get(stage, []), stage))
        },
        "videos": _videos(data),
        "data_rows": _data_rows(data),
        "recipe": json.dumps(data.data.get("recipe", {}), indent=2, ensure_ascii=False) if data.data else "",
        "config": {stage: json.dumps(part, indent=2, ensure_ascii=False) for stage, part in data.config.items()},
        "provenance": grouped_origins(data.provenance),
        "timing": _timing_rows(data),
        "styles": styles([*methods, "training", "held out"]),
    }
    view["missing"] = _missing(view, data)
    return view


def write_page(path: str | os.PathLike[str], data: PageData, policy: str = "extracted", published: str = "") -> Path:
    """Write the page of a run as one HTML file; returns its path.

    `policy` is the method that is judged. With `published`, "mt30" or "mt80", its scores stand beside the published ones of that set;
    PublishedError where the set has none of the run's tasks.
    """
    return render("template.html", path, page_view(data, policy, published))


def render(template: str, path: str | os.PathLike[str], view: Mapping[str, Any]) -> Path:
    """Write a page of one of this package's templates; returns its path."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).resolve().parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    path = Path(path)
    write_text(path, environment.get_template(template).render(view))
    return path
