"""Learning curves and interval charts that read on light and dark backgrounds and without telling hues apart.

Methods differ in colour, line style and marker. Text and axes are a middle grey in files and take the page's own text
colour inside a page.
"""

from __future__ import annotations

import dataclasses
import html
import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm_jax.report.stats import Estimate, Profile
from pwm_jax.report.styles import styles
from pwm_jax.report.text import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOREGROUND = "#7a7f87"
_WIDTH, _HEIGHT = 3.6, 2.3
_RC: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 8.5, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "text.color": FOREGROUND, "axes.labelcolor": FOREGROUND, "axes.edgecolor": FOREGROUND, "axes.titlecolor": FOREGROUND,
    "xtick.color": FOREGROUND, "ytick.color": FOREGROUND, "grid.color": FOREGROUND, "grid.alpha": 0.22, "axes.grid": True,
    "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none", "svg.hashsalt": "pwm_jax",
    "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line: values [n] at steps [n]; curves of the same `name` (a method) in a panel are its seeds."""

    name: str
    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Panel:
    """One small chart of curves, and constants drawn as level lines, by name."""

    title: str
    curves: Sequence[Curve]
    levels: Mapping[str, float] = dataclasses.field(default_factory=dict)


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] over curves at the union of their steps [n], within the range that all of them cover; linear in between."""
    first, last = max(curve.steps[0] for curve in curves), min(curve.steps[-1] for curve in curves)
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.mean([np.interp(steps, curve.steps, curve.values) for curve in curves], axis=0)


def _grid(count: int, columns: int, height: float, draw: Callable[[Axes, int], None], width: float = _WIDTH) -> Figure:
    import matplotlib
    from matplotlib.figure import Figure

    rows, columns = math.ceil(count / columns), min(columns, count)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        figure.patch.set_alpha(0.0)
        for index in range(count):
            axes = figure.add_subplot(rows, columns, index + 1)
            axes.patch.set_alpha(0.0)
            draw(axes, index)
    return figure


def curve_figure(
    panels: Sequence[Panel], x_label: str, y_label: str, columns: int = 3, legend: bool = True, log: bool = False, log_x: bool = False
) -> Figure:
    """Small multiples of curves: each method's mean in bold over its seeds as thin lines; levels as horizontal lines.

    `log` makes the vertical axis logarithmic in panels whose values are all positive, `log_x` the horizontal one in all of them.
    """
    looks = styles(name for panel in panels for name in (*(curve.name for curve in panel.curves), *panel.levels))

    def draw(axes: Axes, index: int) -> None:
        panel = panels[index]
        for name in dict.fromkeys(curve.name for curve in panel.curves):
            look, seeds = looks[name], [curve for curve in panel.curves if curve.name == name and len(curve.steps)]
            if not seeds:
                continue
            if len(seeds) > 1:
                for curve in seeds:
                    axes.plot(curve.steps, curve.values, color=look.colour, linewidth=0.8, alpha=0.5)
            steps, values = mean_curve(seeds)
            axes.plot(
                steps,
                values,
                color=look.colour,
                linestyle=look.line,
                linewidth=1.9,
                label=name,
                marker=look.marker if len(steps) == 1 else "",
            )
        for name, level in panel.levels.items():
            axes.axhline(level, color=looks[name].colour, linestyle=looks[name].line, linewidth=1.3, label=name)
        if log and all((curve.values > 0).all() for curve in panel.curves):
            axes.set_yscale("log")
            _plain_log_axis(axes.yaxis)
        axes.set_title(panel.title, loc="left")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _short_ticks(axes, log_x, whole=all((curve.steps == np.round(curve.steps)).all() for curve in panel.curves))
        if legend and index == 0:
            axes.legend()

    return _grid(len(panels), columns, _HEIGHT, draw)


def _plain_log_axis(axis: Any) -> None:
    """Few and plain ticks for an axis that is logarithmic already, and shows all there is."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < 1e3 * low else (1.0,)
    axis.set_major_locator(MaxNLocator(4) if high < 8.0 * low else LogLocator(subs=subs, numticks=8 if high < 1e5 * low else 5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _short_ticks(axes: Axes, log: bool, whole: bool) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

    thousands = EngFormatter(sep="")
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6) if log else MaxNLocator(5, integer=whole))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value) if abs(value) >= 1000 else f"{value:g}"))


def interval_figure(panels: Mapping[str, Mapping[str, Estimate]], x_label: str, columns: int = 3) -> Figure:
    """A chart for each task: every method's mean as a marker, its 95 % interval as a bar and the number beside the name."""
    titles, most = list(panels), max(len(methods) for methods in panels.values())
    looks = styles(name for methods in panels.values() for name in methods)

    def draw(axes: Axes, index: int) -> None:
        methods = panels[titles[index]]
        for row, (name, estimate) in enumerate(methods.items()):
            look = looks[name]
            if not math.isnan(estimate.low):
                axes.plot([estimate.low, estimate.high], [row, row], color=look.colour, linewidth=3.2, alpha=0.55, solid_capstyle="round")
            axes.plot([estimate.value], [row], color=look.colour, marker=look.marker, markersize=6.5, linestyle="")
        axes.set_yticks(range(len(methods)), [f"{name} {format_number(estimate.value)}" for name, estimate in methods.items()])
        axes.set_ylim(len(methods) - 0.5, -0.5)
        ends = [x for e in methods.values() for x in (e.low, e.value, e.high) if not math.isnan(x)]
        axes.set_xlim(min([0.0, *ends]), 1.04 * max(ends) if max(ends, default=0.0) > 0 else None)
        axes.grid(axis="y", visible=False)
        axes.set_title(titles[index], loc="left")
        axes.set_xlabel(x_label)

    longest = max(len(name) for methods in panels.values() for name in methods)
    return _grid(len(panels), columns, 0.85 + 0.24 * most, draw, width=max(_WIDTH, 2.2 + 0.08 * longest))


def scatter_figure(panels: Sequence[Panel], y_label: str, columns: int = 4) -> Figure:
    """Points of several names over a positive quantity, a panel for each, whose title is the quantity's name."""
    looks = styles(curve.name for panel in panels for curve in panel.curves)

    def draw(axes: Axes, index: int) -> None:
        panel = panels[index]
        for name in dict.fromkeys(curve.name for curve in panel.curves):
            look, points = looks[name], [curve for curve in panel.curves if curve.name == name]
            x, y = (np.concatenate([getattr(curve, axis) for curve in points]) for axis in ("steps", "values"))
            axes.plot(x, y, color=look.colour, marker=look.marker, markersize=5, linestyle="", alpha=0.8, label=name)
        if all((curve.steps > 0).all() for curve in panel.curves):
            axes.set_xscale("log")
            _plain_log_axis(axes.xaxis)
        axes.set_xlabel(panel.title)
        axes.set_ylabel(y_label)

    figure = _grid(len(panels), columns, _HEIGHT, draw, width=3.0)
    handles, names = figure.axes[0].get_legend_handles_labels()
    ncols = max(1, round(3.0 * min(columns, len(panels)) / (0.5 + 0.07 * max(map(len, names)))))
    figure.legend(handles, names, loc="outside lower center", ncols=ncols, frameon=False, fontsize=8, labelcolor=FOREGROUND)
    return figure


def map_figure(maps: Mapping[str, np.ndarray], extent: float, columns: int = 2) -> Figure:
    """Square maps [G, G] by title, over +-`extent` along both axes, contours over colours; each has a scale of its own."""
    titles = list(maps)

    def draw(axes: Axes, index: int) -> None:
        values = maps[titles[index]]
        ends = np.linspace(-extent, extent, len(values))
        filled = axes.contourf(ends, ends, values.T, levels=16, cmap="viridis")
        axes.plot([0.0], [0.0], marker="+", color="white", markersize=9)
        axes.figure.colorbar(filled, ax=axes)
        axes.grid(visible=False)
        axes.set_title(titles[index], loc="left")
        axes.set_xlabel("first direction")
        axes.set_ylabel("second direction")

    return _grid(len(maps), columns, 3.0, draw)


def profile_figure(profiles: Mapping[str, Profile], legend: bool = True) -> Figure:
    """Performance profiles of several methods in one chart, each a line of steps in its 95 % band."""
    looks = styles(profiles)

    def draw(axes: Axes, _: int) -> None:
        for name, profile in profiles.items():
            look = looks[name]
            if not np.isnan(profile.low).any():
                axes.fill_between(profile.thresholds, profile.low, profile.high, step="post", color=look.colour, alpha=0.16, linewidth=0)
            axes.step(profile.thresholds, profile.value, where="post", color=look.colour, linestyle=look.line, linewidth=1.9, label=name)
        axes.set_xlim(0.0, 1.0)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("score τ")
        axes.set_ylabel("fraction of runs with score > τ")
        if legend:
            axes.legend(loc="upper right")

    return _grid(1, 1, 3.2, draw, width=5.2)


def save(figure: Figure, path: str | os.PathLike[str]) -> list[Path]:
    """Write `<path>.png` and `<path>.svg`, making the directory; returns both paths."""
    import matplotlib

    files = [Path(f"{os.fspath(path)}.{suffix}") for suffix in ("png", "svg")]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_RC):
        for file in files:
            figure.savefig(file, dpi=200, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files


def inline_svg(figure: Figure, description: str, prefix: str) -> str:
    """The figure as an <svg> element for use in a page: page fonts and text colour, ids beginning with `prefix`.

    `description` is what a screen reader says in its place.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**_RC, "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = text.replace(FOREGROUND, "currentColor")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = html.escape(description, quote=True)
    text = text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return re.sub(r"\s*\n\s*", " ", text)
