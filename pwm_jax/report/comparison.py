"""Methods over all tasks, as rows of text: aggregate scores beside the published ones, chances of scoring higher, times per decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pwm_jax.report import published, stats
from pwm_jax.report.decisions import NOTE as DECISION_NOTE
from pwm_jax.report.decisions import DecisionTime, format_call, format_decision
from pwm_jax.report.episodes import Scores
from pwm_jax.report.text import format_estimate, order_methods

Times = Mapping[str, Sequence[DecisionTime]]
NONE = "—"
_STATISTICS: tuple[tuple[Literal["mean", "iqm"], str], ...] = (("mean", "mean score"), ("iqm", "IQM score"))


def methods_of(scores: Scores) -> list[str]:
    """The methods that any task has, in the order of columns."""
    return order_methods(list({method for by_method in scores.values() for method in by_method}))


def runs_of(scores: Scores, method: str) -> dict[str, list]:
    """A method's runs by task, without the tasks that it has none on."""
    return {task: by_method[method] for task, by_method in scores.items() if method in by_method}


def aggregate_rows(scores: Scores, methods: Sequence[str]) -> list[list[str]]:
    """Mean and IQM over tasks of normalised scores, one row a statistic, in the order of `methods`; '—' where a task is missing."""
    rows = []
    for statistic, name in _STATISTICS:
        row = [name]
        for method in methods:
            by_task = runs_of(scores, method)
            complete = len(by_task) == len(scores) and by_task
            row.append(format_estimate(stats.aggregate(by_task, statistic)) if complete else NONE)
        rows.append(row)
    return rows


def _has_chance(scores: Scores, method: str, policy: str) -> bool:
    return method != policy and all(policy in scores[task] for task in runs_of(scores, method))


def chance(scores: Scores, method: str, policy: str) -> stats.Estimate | None:
    """The chance that `policy` scores higher than `method`, over the tasks of `method`; None for itself or where it lacks one of them."""
    if not _has_chance(scores, method, policy):
        return None
    by_task = runs_of(scores, method)
    return stats.probability_of_improvement({task: scores[task][policy] for task in by_task}, by_task)


def _compared(scores: Scores, methods: Sequence[str], policy: str) -> list[str]:
    """The methods that have every task and that `policy` can be compared with on all of them."""
    return [method for method in methods if len(runs_of(scores, method)) == len(scores) and _has_chance(scores, method, policy)]


def chance_rows(scores: Scores, methods: Sequence[str], policy: str) -> list[list[str]]:
    """The row of the chances of `policy` against each method, '—' where a task is missing; no row where there is none."""
    estimates = {method: chance(scores, method, policy) for method in _compared(scores, methods, policy)}
    cells = [NONE if (estimate := estimates.get(method)) is None else format_estimate(estimate) for method in methods]
    return [[f"P({policy} higher)", *cells]] if estimates else []


def decision_rows(times: Times, methods: Sequence[str]) -> list[list[str]]:
    """Milliseconds per decision and per policy call of each method, two rows; none where nothing was measured."""
    if not any(method in times for method in methods):
        return []
    known = [times.get(method) for method in methods]
    return [
        ["ms per decision", *(format_decision(time) if time else NONE for time in known)],
        ["ms per call", *(format_call(time) if time else NONE for time in known)],
    ]


def _published_cell(row: published.PublishedRow | None) -> str:
    return NONE if row is None else f"{format_estimate(stats.mean_interval(row.scores))}{row.marks}"


def _published_aggregate(set_name: str, tasks: Sequence[str], method: str, statistic: Literal["mean", "iqm"]) -> str:
    by_task = runs_of(published.scores_of(set_name, tasks), method)
    if not by_task:
        return NONE
    marks = "".join(sorted({published.rows_of(set_name)[task][method].marks for task in by_task}))
    estimate = f"{format_estimate(stats.aggregate(by_task, statistic))}{marks}"
    return estimate if len(by_task) == len(tasks) else f"{estimate} ({len(by_task)} task{'s' if len(by_task) > 1 else ''})"


def published_table(scores: Scores, set_name: str) -> list[list[str]]:
    """Scores of each task and their aggregates by method, beside the published ones of `set_name`; header first.

    `scores` is `episodes.group(..., "score")` or its like. Published aggregates are over the shown tasks that have a score, their number
    in brackets where it is not all of them, with the marks of the rows among them.

    Raises PublishedError where no task has a published score.
    """
    published.check_tasks(set_name, scores)
    methods, known = methods_of(scores), published.rows_of(set_name)
    rows = [["task", *methods, *(published.title(other) for other in published.TITLES)]]
    for task, by_method in scores.items():
        own = [format_estimate(stats.mean_interval(by_method[method])) if method in by_method else NONE for method in methods]
        rows.append([task, *own, *(_published_cell(known.get(task, {}).get(other)) for other in published.TITLES)])
    for (statistic, _), row in zip(_STATISTICS, aggregate_rows(scores, methods), strict=True):
        rows.append([*row, *(_published_aggregate(set_name, list(scores), other, statistic) for other in published.TITLES)])
    return rows


def published_notes(scores: Scores, set_name: str) -> list[str]:
    """What a reader of `published_table` must know: what a score is, how it was measured, what the published columns are and lack."""
    counts = [len(run) for by_method in scores.values() for method, runs in by_method.items() if method != "data" for run in runs]
    span = f", {min(counts)}{f' to {max(counts)}' if max(counts) > min(counts) else ''} episodes a seed" if counts else ""
    score = f"Score: return / largest, success at the last step on Meta-World; mean and 95 % bootstrap interval{span}."
    return [score, *published.notes(set_name, scores)]


def rows_below(scores: Scores, policy: str, times: Times) -> list[list[str]]:
    """What goes under a table beside aggregates, as far as it is known: chances of `policy`, times per decision.

    There are no chances against published columns, which hold a single run.
    """
    methods = methods_of(scores)
    return [*chance_rows(scores, methods, policy), *decision_rows(times, methods)]


def notes_below(scores: Scores, policy: str, times: Times) -> list[str]:
    """A sentence or two on each kind of row that `rows_below` has."""
    methods = methods_of(scores)
    said = (
        f"P({policy} higher): chance that a seed of {policy} (an episode, where there are fewer than three seeds) scores above one of "
        "the method, ties counted half; mean over tasks."
    )
    lines = [said] if _compared(scores, methods, policy) else []
    return lines + ([DECISION_NOTE] if decision_rows(times, methods) else [])
