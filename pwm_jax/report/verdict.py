"""What the policies have shown against the data's mean behaviour and, where they were learnt offline, against behaviour cloning.

Three criteria, each on the 95 % interval of a difference of means (`stats.compare`):
better than the data on every task; better than cloning on three tasks in five; worse than cloning on none. Policies of an online run
meet the first alone.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from pwm_jax.report import stats
from pwm_jax.report.episodes import Scores

Outcome = Literal["met", "not met", "not measured"]
ONLINE = ("pwm",)


@dataclasses.dataclass(frozen=True)
class TaskVerdict:
    """One task's comparisons; None where a side was not evaluated."""

    task: str
    versus_data: stats.Comparison | None
    versus_bc: stats.Comparison | None

    def versus(self, method: str) -> stats.Comparison | None:
        """The comparison with `data` or `bc`."""
        return {"data": self.versus_data, "bc": self.versus_bc}[method]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """What the policies must do, as the rest of a sentence that begins with them; whether they do; and the tasks that decide it (or '')."""

    text: str
    outcome: Outcome
    detail: str


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Verdicts of every task, the criteria over all tasks, and the outcome of all criteria together."""

    policy: str
    tasks: tuple[TaskVerdict, ...]
    criteria: tuple[Criterion, ...]
    outcome: Outcome

    @property
    def compared(self) -> tuple[str, ...]:
        """The methods that the policies are compared with; cloning is a measure of offline ones only."""
        return ("data",) if self.policy in ONLINE else ("data", "bc")


def _compare(methods: dict[str, list], policy: str, other: str) -> stats.Comparison | None:
    return stats.compare(methods[policy], methods[other]) if policy in methods and other in methods else None


def judge(scores: Scores, policy: str = "extracted") -> Judgement:
    """Compare `policy` with methods `data` and, unless it is an online one, `bc` on every task of `scores` (`episodes.group`)."""
    tasks = tuple(TaskVerdict(task, _compare(methods, policy, "data"), _compare(methods, policy, "bc")) for task, methods in scores.items())
    needed = -(-3 * len(tasks) // 5)
    not_above = [task.task for task in tasks if task.versus_data is not None and task.versus_data.verdict != "better"]
    above_bc = [task.task for task in tasks if task.versus_bc is not None and task.versus_bc.verdict == "better"]
    below_bc = [task.task for task in tasks if task.versus_bc is not None and task.versus_bc.verdict == "worse"]
    no_data = [task.task for task in tasks if task.versus_data is None]
    no_bc = [task.task for task in tasks if task.versus_bc is None]
    criteria: tuple[Criterion, ...] = (
        Criterion(
            "beat the mean behaviour in the data on every task",
            _outcome(met=not not_above, missing=no_data, tasks=tasks, decided=bool(not_above)),
            _detail("not shown on", not_above, no_data),
        ),
        Criterion(
            f"beat behaviour cloning on at least {needed} of {len(tasks)} tasks",
            _outcome(met=len(above_bc) >= needed, missing=no_bc, tasks=tasks, decided=len(above_bc) + len(no_bc) < needed),
            _detail(f"better on {len(above_bc)}:", above_bc, no_bc) or "better on none",
        ),
        Criterion(
            "are worse than behaviour cloning on no task",
            _outcome(met=not below_bc, missing=no_bc, tasks=tasks, decided=bool(below_bc)),
            _detail("worse on", below_bc, no_bc),
        ),
    )
    if policy in ONLINE:
        criteria = criteria[:1]
    outcomes = {criterion.outcome for criterion in criteria}
    overall: Outcome = "not met" if "not met" in outcomes else "not measured" if "not measured" in outcomes else "met"
    return Judgement(policy, tasks, criteria, overall)


def _outcome(met: bool, missing: list[str], tasks: tuple[TaskVerdict, ...], decided: bool) -> Outcome:
    """`decided`: the criterion fails whatever the missing tasks would give."""
    if not tasks:
        return "not measured"
    if decided:
        return "not met"
    return "not measured" if missing else "met" if met else "not met"


def _detail(lead: str, tasks: list[str], missing: list[str]) -> str:
    parts = [f"{lead} {', '.join(tasks)}"] if tasks else []
    return "; ".join([*parts, f"not evaluated on {', '.join(missing)}"] if missing else parts)
