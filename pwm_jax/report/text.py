"""Numbers and tables as text: how a score, an interval and a grid of cells are written for the terminal and for Markdown."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence

from pwm_jax.report import stats

_METHOD_ORDER = ("extracted", "generalist", "mppi", "pwm", "shac", "decoupled", "ppo", "sac", "bc", "data", "expert", "random")


def format_number(value: float) -> str:
    """A score with about three digits: '853', '12.4', '0.31'; '—' for NaN."""
    if math.isnan(value):
        return "—"
    magnitude = abs(value)
    text = f"{value:.0f}" if magnitude >= 99.95 else f"{value:.1f}" if magnitude >= 9.995 else f"{value:.2f}"
    return text.replace("-0.00", "0.00")


def format_scientific(value: float) -> str:
    """A positive quantity of any size with two digits: '0.013', '4.2', '3.7e+05'; 'not finite' where it is not."""
    return f"{value:.2g}" if math.isfinite(value) else "not finite"


def format_interval(low: float, high: float) -> str:
    """An interval as '[812, 890]', or '' when there is none."""
    return "" if math.isnan(low) else f"[{format_number(low)}, {format_number(high)}]"


def format_estimate(estimate: stats.Estimate) -> str:
    """A value with its interval: '853 [812, 890]'."""
    return f"{format_number(estimate.value)} {format_interval(estimate.low, estimate.high)}".rstrip()


def order_methods(methods: Sequence[str]) -> list[str]:
    """Methods as columns: the policies first, then what they are measured against, then any others by name."""
    known = [method for method in _METHOD_ORDER if method in methods]
    return known + sorted(set(methods) - set(known))


def first_of(names: Sequence[str], most: int = 3) -> str:
    """Names in a message, those beyond `most` only counted: 'a, b, c and 2 more'."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def screen_width() -> int:
    """Columns of the terminal that is printed to; far more than any text has where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def text_table(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """A plain table for the terminal: first column left, the others right aligned, a rule under the header.

    One that is wider than `width`, the screen's unless given, goes on below, its first column repeated.
    """
    limit = screen_width() if width is None else width
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    parts, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        if len(parts[-1]) > 1 and used + 2 + widths[column] > limit:
            parts.append([0])
            used = widths[0]
        parts[-1].append(column)
        used += 2 + widths[column]
    return "\n".join(_aligned([[row[column] for column in part] for row in rows], [widths[column] for column in part]) for part in parts)


def _aligned(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([lines[0].rstrip(), "  ".join("-" * width for width in widths), *(line.rstrip() for line in lines[1:])]) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: first column left, the others right aligned."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *body])
