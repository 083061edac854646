"""Tables of scores for the terminal and for Markdown, and the generated blocks of RESULTS.md.

A block is everything between `<!-- results:STUDY -->` and the next `<!-- /results -->`; it shows `results/STUDY.jsonl`.

    python -m pwm_jax.report.tables --check     # exit 1 when a block differs from its rows
    python -m pwm_jax.report.tables --write     # fill in the blocks
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pwm_jax.report import stats
from pwm_jax.report.episodes import Scores, group_rows
from pwm_jax.report.metrics import format_seconds
from pwm_jax.report.records import RecordError, write_text
from pwm_jax.report.results import ResultRow, read_results
from pwm_jax.report.verdict import Judgement, judge

_METHOD_ORDER = ("extracted", "pwm", "bc", "data", "expert", "random")
_BLOCK = re.compile(r"(?P<open><!-- results:(?P<study>[\w.-]+) -->)(?P<body>.*?)(?P<close><!-- /results -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (results:[^>]*|/results) -->")


def format_number(value: float) -> str:
    """A score with about three digits: '853', '12.4', '0.31'; '—' for NaN."""
    if math.isnan(value):
        return "—"
    magnitude = abs(value)
    text = f"{value:.0f}" if magnitude >= 99.95 else f"{value:.1f}" if magnitude >= 9.995 else f"{value:.2f}"
    return text.replace("-0.00", "0.00")


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


def _verdict_text(comparison: stats.Comparison | None) -> str:
    if comparison is None:
        return "not measured"
    sign = "+" if comparison.difference >= 0 else ""
    return f"{comparison.verdict} ({sign}{format_number(comparison.difference)})"


def _in_brackets(detail: str) -> str:
    return f" ({detail})" if detail else ""


def score_table(scores: Scores, judgement: Judgement | None = None) -> list[list[str]]:
    """Rows of text, the header first: a task, each method's mean with its interval, and the verdicts where there are any.

    `scores` is `episodes.group(...)` or `episodes.group_rows(...)`; `judgement` is `verdict.judge(scores)`.
    """
    methods = order_methods(list({method for by_method in scores.values() for method in by_method}))
    verdicts = {task.task: task for task in judgement.tasks} if judgement else {}
    header = ["task", *methods]
    if judgement:
        header += [f"{judgement.policy} vs {other}" for other in judgement.compared]
    rows = [header]
    for task, by_method in scores.items():
        row = [task] + [format_estimate(stats.mean_interval(by_method[method])) if method in by_method else "—" for method in methods]
        if judgement:
            row += [_verdict_text(verdicts[task].versus(other)) for other in judgement.compared]
        rows.append(row)
    return rows


def aggregate_rows(scores: Scores, methods: Sequence[str]) -> list[list[str]]:
    """Mean and IQM over tasks of normalised scores, one row a statistic, in the order of `methods`; '—' where a task is missing."""
    rows = []
    for statistic, name in (("mean", "mean score"), ("iqm", "IQM score")):
        row = [name]
        for method in methods:
            by_task = {task: by_method[method] for task, by_method in scores.items() if method in by_method}
            complete = len(by_task) == len(scores) and by_task
            row.append(format_estimate(stats.aggregate(by_task, statistic)) if complete else "—")  # type: ignore[arg-type]
        rows.append(row)
    return rows


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """A plain table for the terminal: first column left, the others right aligned, a rule under the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
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


def summary(returns: Scores, scores: Scores, policy: str = "extracted") -> str:
    """The text a run ends with: returns per task and method, aggregates of the scores, and the criteria with their outcome."""
    judgement = judge(returns, policy) if any(policy in methods for methods in returns.values()) else None
    table = score_table(returns, judgement)
    methods = order_methods(list({method for by_method in scores.values() for method in by_method}))
    text = "Return, mean and 95 % interval\n" + text_table(table)
    text += "\nScore over all tasks (return / 1000 on dm_control, success on Meta-World)\n" + text_table(
        [["", *methods], *aggregate_rows(scores, methods)]
    )
    if judgement:
        text += f"\nThe {policy} policies ({judgement.outcome}):\n"
        text += "".join(f"  [{criterion.outcome}] {criterion.text}{_in_brackets(criterion.detail)}\n" for criterion in judgement.criteria)
    return text


def _origin(rows: Sequence[ResultRow]) -> str:
    lines = []
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.method] = max(seconds.get(row.method, 0.0), row.seconds)
    times = [f"{method} {format_seconds(seconds[method])}" for method in order_methods(list(seconds)) if seconds[method] > 0]
    for command in dict.fromkeys(row.command for row in rows):
        lines.append(f"- command: `{command}`")
    lines.append(f"- commit: {', '.join(dict.fromkeys(row.commit for row in rows))}")
    lines.append(f"- hardware: {', '.join(dict.fromkeys(row.hardware for row in rows))}")
    if times:
        lines.append(f"- longest wall time of a row: {', '.join(times)}")
    return "\n".join(lines) + "\n"


def render_study(rows: Sequence[ResultRow]) -> str:
    """The Markdown of one study's block: the table, aggregates, criteria, and where the numbers come from."""
    returns, scores = group_rows(rows, "return"), group_rows(rows, "score")
    methods = order_methods(list({row.method for row in rows}))
    judgement = judge(returns) if "extracted" in methods else None
    counts = sorted({len(runs) for by_method in returns.values() for method, runs in by_method.items() if method in ("extracted", "pwm")})
    table = score_table(returns, judgement)
    padding = [""] * (len(table[0]) - 1 - len(methods))
    text = markdown_table([*table, *(row + padding for row in aggregate_rows(scores, methods))])
    seeds = f" over {'-'.join(str(count) for count in counts)} seed{'s' if counts != [1] else ''}" if counts else ""
    text += f"\nReturn: mean{seeds} and 95 % bootstrap interval; score: return / 1000 on dm_control, success on Meta-World.\n"
    if judgement:
        text += f"\nThe extracted policies ({judgement.outcome}):\n\n"
        text += "".join(f"- {criterion.outcome}: {criterion.text}{_in_brackets(criterion.detail)}\n" for criterion in judgement.criteria)
    return text + "\n" + _origin(rows)


def render_results(text: str, results_dir: str | os.PathLike[str]) -> str:
    """`text` (of RESULTS.md) with each marked block filled from its study's rows; the rest is left as it is.

    Raises RecordError for damaged rows and for a marker without its partner.
    """
    blocks = list(_BLOCK.finditer(text))
    markers = _MARKER.findall(text)
    if len(markers) != 2 * len(blocks) or any(_MARKER.search(block["body"]) for block in blocks):
        raise RecordError("RESULTS.md: every <!-- results:STUDY --> needs one <!-- /results --> after it, and the other way round")

    def fill(block: re.Match[str]) -> str:
        path = Path(results_dir) / f"{block['study']}.jsonl"
        rows = read_results(path) if path.exists() else []
        body = render_study(rows) if rows else f"No results yet: {path.name} has no rows.\n"
        return f"{block['open']}\n\n{body}\n{block['close']}"

    return _BLOCK.sub(fill, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or fill in the blocks of RESULTS.md; returns the exit status."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(
        prog="python -m pwm_jax.report.tables", description="Keep the tables of RESULTS.md equal to the published rows."
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="exit 1 when a block differs from its rows")
    mode.add_argument("--write", action="store_true", help="fill in the blocks")
    parser.add_argument("--file", type=Path, default=root / "RESULTS.md", help="the Markdown file (default: RESULTS.md of the checkout)")
    parser.add_argument("--results", type=Path, default=root / "results", help="the directory of rows (default: results/ of the checkout)")
    options = parser.parse_args(arguments)
    if not options.file.exists():
        parser.error(f"{options.file} does not exist")
    text = options.file.read_text(encoding="utf-8")
    try:
        rendered = render_results(text, options.results)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    if options.write:
        if rendered != text:
            write_text(options.file, rendered)
        return 0
    if rendered != text:
        print(f"{options.file} differs from the rows in {options.results}; run python -m pwm_jax.report.tables --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
