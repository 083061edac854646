"""Published multi-task scores of PWM and TD-MPC2, to set beside one's own: `published.csv` and what is wrong with it.

The file's header says where the numbers come from. They belong to models of all tasks of a set, trained on far more data than fits a
small run, so they are context for one, not a like-for-like comparison.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from pwm_jax.report.episodes import Scores

SetName = Literal["", "mt30", "mt80"]

# Column titles, in the order of columns.
TITLES = {"pwm": "published PWM, H=16", "pwm-h3": "published PWM, H=3", "tdmpc2": "published TD-MPC2"}
TRANSITIONS = {"mt30": "345 million", "mt80": "545 million"}
# Faults that every row of a method has, marked at the column's title; the others are marked at their rows.
_OF_METHOD = {"pwm": "one seed", "pwm-h3": "one seed", "tdmpc2": "ten rows"}
FAULTS = {
    "one seed": ("§", "one training seed, so that differences of a few hundredths on a task mean nothing"),
    "ten rows": (
        "¶",
        "ten rows a task, on Meta-World one episode each, taken as the episodes of one run (the IQM given with the files is over single "
        "rows: 0.68 on MT30, 0.85 on MT80); whether the agent planned is not recorded",
    ),
    "copied": ("†", "a copy of the H=3 row in the published files, not a measurement of its own, or an aggregate with it"),
    "suspect": (
        "‡",
        "suspect: both PWM files give exactly this success, as they do on 48 of the 50 Meta-World tasks, while their returns differ; "
        "not to be used as a target, nor is an aggregate of such rows, which has the mark, too",
    ),
}


class PublishedError(ValueError):
    """There are no published scores to set beside a run."""


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """One method's result on one task: mean return of an episode, scores [n] in [0, 1] and the names of the row's own faults.

    `scores` holds one mean of 10 episodes for PWM and ten rows for TD-MPC2.
    """

    episode_return: float
    scores: tuple[float, ...]
    faults: tuple[str, ...]

    @property
    def score(self) -> float:
        """Mean of the scores."""
        return float(np.mean(self.scores))

    @property
    def marks(self) -> str:
        """Footnote marks of the row's own faults, '' without any."""
        return "".join(FAULTS[fault][0] for fault in self.faults)


@functools.cache
def _table() -> Mapping[str, Mapping[str, Mapping[str, PublishedRow]]]:
    sets: dict[str, dict[str, dict[str, PublishedRow]]] = {}
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            scores = tuple(float(score) for score in row["scores"].split())
            entry = PublishedRow(float(row["return"]), scores, tuple(row["faults"].split()))
            sets.setdefault(row["set"], {}).setdefault(row["task"], {})[row["method"]] = entry
    return sets


def rows_of(set_name: str) -> Mapping[str, Mapping[str, PublishedRow]]:
    """Published rows by task and method (a key of `TITLES`) of "mt30" or "mt80"; a task has no entry for a method without a result.

    Raises PublishedError for another name.
    """
    if set_name not in _table():
        raise PublishedError(f"no published scores of {set_name!r}; there are {', '.join(_table())}")
    return _table()[set_name]


def check_tasks(set_name: str, tasks: Iterable[str]) -> None:
    """Raise PublishedError when a set other than "" has none of `tasks`, if there are any, or when there is no such set."""
    tasks = list(tasks)
    if set_name and not any(task in rows_of(set_name) for task in tasks) and tasks:
        raise PublishedError(f"{set_name} has no published score of {', '.join(tasks)}")


def scores_of(set_name: str, tasks: Iterable[str]) -> Scores:
    """Published scores of those of `tasks` that the set has, as `episodes.group` gives them: one run a method, keyed by `TITLES`' keys."""
    known = rows_of(set_name)
    return {task: {method: [np.array(row.scores)] for method, row in known[task].items()} for task in tasks if task in known}


def title(method: str) -> str:
    """The column title of a published method with the mark of what holds for all of its rows."""
    return f"{TITLES[method]}{FAULTS[_OF_METHOD[method]][0]}"


def notes(set_name: str, tasks: Iterable[str]) -> list[str]:
    """What a reader of a table of `tasks` must know about its published columns: what they are, then a line for each mark."""
    known = rows_of(set_name)
    shown = [row for task in tasks if task in known for row in known[task].values()]
    faults = [fault for fault in FAULTS if fault in _OF_METHOD.values() or any(fault in row.faults for row in shown)]
    return [
        f"The published columns are of models of all {len(known)} tasks of {set_name.upper()}, trained on {TRANSITIONS[set_name]} "
        "transitions. For a run of fewer tasks or with less data they are context, not a like-for-like comparison.",
        *(f"{FAULTS[fault][0]} {FAULTS[fault][1]}." for fault in faults),
    ]
