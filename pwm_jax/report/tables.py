"""Tables of scores for the terminal and for Markdown, and the generated blocks of RESULTS.md.

A block is everything between `<!-- results:STUDY -->` and the next `<!-- /results -->`; it shows `results/STUDY.jsonl`, or where there is
none `results/measured/STUDY.jsonl`.

    python -m pwm_jax.report.tables --check     # exit 1 when a block differs from its rows
    python -m pwm_jax.report.tables --write     # fill in the blocks
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from pwm_jax.report import comparison, measured, stats
from pwm_jax.report.decisions import NOTE as DECISION_NOTE
from pwm_jax.report.decisions import DecisionTime, times_of_rows
from pwm_jax.report.episodes import Scores, group_rows
from pwm_jax.report.measurements import read_measurements
from pwm_jax.report.progress import format_seconds
from pwm_jax.report.published import PublishedError, check_tasks
from pwm_jax.report.records import RecordError, write_text
from pwm_jax.report.results import ResultRow, origin_list, read_results
from pwm_jax.report.text import format_estimate, format_number, markdown_table, order_methods, screen_width, text_table
from pwm_jax.report.verdict import Judgement, judge

_BLOCK = re.compile(r"(?P<open><!-- results:(?P<study>[\w.-]+) -->)(?P<body>.*?)(?P<close><!-- /results -->)", re.DOTALL)
_SCORE = "return / largest, success on Meta-World"
_MARKER = re.compile(r"<!-- (results:[^>]*|/results) -->")


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
    methods = comparison.methods_of(scores)
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


def _padded(rows: Sequence[list[str]], filling: str) -> list[list[str]]:
    """Rows as long as the first, the header."""
    return [row + [filling] * (len(rows[0]) - len(row)) for row in rows]


def summary(
    returns: Scores,
    scores: Scores,
    policy: str = "extracted",
    decisions: Mapping[str, DecisionTime] | None = None,
    published: str = "",
) -> str:
    """The text a run ends with: returns per task and method, aggregates of the scores, and the criteria with their outcome.

    `decisions` are the times per decision by method. With `published`, "mt30" or "mt80", the scores of each task stand beside the published
    ones of that set; PublishedError where it has none of the tasks.
    """
    judgement = judge(returns, policy) if any(policy in methods for methods in returns.values()) else None
    times = {method: [time] for method, time in (decisions or {}).items()}
    methods = comparison.methods_of(scores)
    text = "Return, mean and 95 % interval\n" + text_table(score_table(returns, judgement))
    below = comparison.rows_below(scores, policy, times)
    notes = comparison.notes_below(scores, policy, times)
    if published:
        text += "\nScore\n" + text_table(_padded([*comparison.published_table(scores, published), *below], comparison.NONE))
        notes = comparison.published_notes(scores, published) + notes
    else:
        text += f"\nScore over all tasks ({_SCORE})\n"
        text += text_table([["", *methods], *comparison.aggregate_rows(scores, methods), *below])
    text += "".join(f"\n{textwrap.fill(note, min(screen_width(), 120))}\n" for note in notes)
    if judgement:
        text += f"\nThe {policy} policies ({judgement.outcome}):\n"
        text += "".join(f"  [{criterion.outcome}] {criterion.text}{_in_brackets(criterion.detail)}\n" for criterion in judgement.criteria)
    return text


def _origin(rows: Sequence[ResultRow]) -> str:
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.method] = max(seconds.get(row.method, 0.0), row.seconds)
    times = [f"{method} {format_seconds(seconds[method])}" for method in order_methods(list(seconds)) if seconds[method] > 0]
    return origin_list(rows) + (f"- longest wall time of a row: {', '.join(times)}\n" if times else "")


def _published_set(rows: Sequence[ResultRow]) -> str:
    """The set of published scores that a study asks for in its rows, "" where it does not."""
    asked = sorted({str((row.extra or {})["published"]) for row in rows if "published" in (row.extra or {})})
    if len(asked) > 1:
        raise RecordError(f"study {rows[0].study}: its rows ask for the published scores of {' and '.join(asked)}; let them ask for one")
    if asked:
        check_tasks(asked[0], dict.fromkeys(row.task for row in rows))
    return asked[0] if asked else ""


def render_study(rows: Sequence[ResultRow]) -> str:
    """The Markdown of one study's block: the table, aggregates, criteria, and where the numbers come from.

    Times per decision are shown where the rows carry them. Where the rows ask for published scores, the scores of each task and all that
    is over tasks stand in a second table beside them.
    Raises RecordError for rows that ask for several sets of published scores, PublishedError for a set without any of their tasks.
    """
    returns, scores = group_rows(rows, "return"), group_rows(rows, "score")
    methods = order_methods(list({row.method for row in rows}))
    policy = "extracted" if "extracted" in methods else "pwm"
    judgement = judge(returns) if "extracted" in methods else None
    counts = sorted({len(runs) for by_method in returns.values() for method, runs in by_method.items() if method in ("extracted", "pwm")})
    published, times = _published_set(rows), times_of_rows(rows)
    below = [] if published else comparison.aggregate_rows(scores, methods) + comparison.decision_rows(times, methods)
    text = markdown_table(_padded([*score_table(returns, judgement), *below], ""))
    seeds = f" over {'-'.join(str(count) for count in counts)} seed{'s' if counts != [1] else ''}" if counts else ""
    meaning = next((str(row.extra["score"]) for row in rows if row.extra and "score" in row.extra), _SCORE)
    text += f"\nReturn: mean{seeds} and 95 % bootstrap interval; score: {meaning}.\n"
    if published:
        text += "\nScores beside the published ones:\n\n" + markdown_table(
            _padded([*comparison.published_table(scores, published), *comparison.rows_below(scores, policy, times)], comparison.NONE)
        )
        notes = comparison.published_notes(scores, published) + comparison.notes_below(scores, policy, times)
        text += "".join(f"\n{note}\n" for note in notes)
    elif times:
        text += f"\n{DECISION_NOTE}\n"
    if judgement:
        text += f"\nThe extracted policies ({judgement.outcome}):\n\n"
        text += "".join(f"- {criterion.outcome}: {criterion.text}{_in_brackets(criterion.detail)}\n" for criterion in judgement.criteria)
    return text + "\n" + _origin(rows)


def render_results(text: str, results_dir: str | os.PathLike[str]) -> str:
    """`text` (of RESULTS.md) with each marked block filled from its study's rows; the rest is left as it is.

    Raises RecordError for damaged rows and for a marker without its partner, PublishedError where a study asks for published scores of
    none of its tasks.
    """
    blocks = list(_BLOCK.finditer(text))
    markers = _MARKER.findall(text)
    if len(markers) != 2 * len(blocks) or any(_MARKER.search(block["body"]) for block in blocks):
        raise RecordError("RESULTS.md: every <!-- results:STUDY --> needs one <!-- /results --> after it, and the other way round")

    def fill(block: re.Match[str]) -> str:
        path = Path(results_dir) / f"{block['study']}.jsonl"
        rows = read_results(path) if path.exists() else []
        if rows:
            body = render_study(rows)
        elif measurements := read_measurements(path.parent / measured.DIRECTORY / path.name):
            body = measured.render(measurements)
        else:
            body = f"No results yet: {path.name} has no rows.\n"
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
    except (RecordError, PublishedError) as error:
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
