"""Evaluation episodes on disk: `evaluation/<method>.jsonl`, one row an episode, and their grouping for statistics.

Keys of a row: task, method, seed, episode, return, success, score, length. `seed` is the training seed of the policy (0
for methods without one, such as `random` and `data`), `episode` numbers the episodes of that task, method and seed,
`success` is 0 or 1 or null where the task has no notion of it, `length` counts agent steps.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pwm_jax.report.decisions import DecisionTime
from pwm_jax.report.records import RecordError, read_lines, to_line, write_text
from pwm_jax.report.results import ResultRow
from pwm_jax.untrusted import shown

if TYPE_CHECKING:
    from pwm_jax.types import EpisodeStats, TaskSpec

Field = Literal["return", "score"]
Scores = dict[str, dict[str, list[np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Episode:
    """One evaluated episode; `episode_return` is the JSON key `return`."""

    task: str
    method: str
    seed: int
    episode: int
    episode_return: float
    success: float | None
    score: float
    length: int

    def to_record(self) -> dict[str, Any]:
        """The episode as a JSON object."""
        return {
            ("return" if field.name == "episode_return" else field.name): getattr(self, field.name) for field in dataclasses.fields(self)
        }


_KEYS = ("task", "method", "seed", "episode", "return", "success", "score", "length")
_KINDS: dict[str, Any] = dict.fromkeys(("task", "method"), str) | dict.fromkeys(("seed", "episode", "length"), int)
_KINDS |= {"return": int | float, "success": int | float | None, "score": int | float}


def episodes_from_stats(
    stats: EpisodeStats, specs: Sequence[TaskSpec], method: str, seed: int | Sequence[int] | np.ndarray = 0
) -> list[Episode]:
    """Episodes of an evaluation: `specs[stats.task_id[i]]` is the task of episode i, `seed` its training seed (or one for all).

    Success is None on dm_control, whose tasks have no notion of it. Episodes of one task and seed are numbered in order.
    """
    seeds = np.broadcast_to(np.asarray(seed), np.shape(stats.task_id))
    count: dict[tuple[str, int], int] = {}
    episodes = []
    for i, task_id in enumerate(stats.task_id):
        spec, training_seed = specs[int(task_id)], int(seeds[i])
        number = count[spec.name, training_seed] = count.get((spec.name, training_seed), -1) + 1
        episodes.append(
            Episode(
                task=spec.name,
                method=method,
                seed=training_seed,
                episode=number,
                episode_return=float(stats.episode_return[i]),
                success=None if spec.suite == "dm_control" else float(stats.success[i]),
                score=float(stats.score[i]),
                length=int(stats.length[i]),
            )
        )
    return episodes


def write_episodes(workdir: str | os.PathLike[str], method: str, episodes: Iterable[Episode]) -> Path:
    """Write `<workdir>/evaluation/<method>.jsonl`, replacing an older one; returns its path.

    Raises RecordError for an episode of another method or with a non-finite number.
    """
    path = Path(workdir) / "evaluation" / f"{method}.jsonl"
    lines = []
    for episode in episodes:
        if episode.method != method:
            raise RecordError(f"{path}: an episode of method {episode.method!r} does not belong there")
        try:
            lines.append(to_line(episode.to_record()))
        except ValueError as error:
            raise RecordError(f"{path}: {episode} is not finite ({error}); look at what the policy did in that episode") from error
    write_text(path, "".join(lines))
    return path


def read_episodes(path: str | os.PathLike[str]) -> list[Episode]:
    """Read one evaluation file; raises RecordError naming file and line."""
    episodes = []
    for number, record in read_lines(path):
        where = f"{path}, line {number}"
        wrong = sorted(set(_KEYS) ^ set(record))
        if wrong:
            raise RecordError(f"{where}: missing or unknown keys {shown(wrong)}; an episode has {', '.join(_KEYS)}")
        for key, kinds in _KINDS.items():
            value = record[key]
            if not isinstance(value, kinds) or isinstance(value, bool) or (kinds is int and value < 0):
                raise RecordError(f"{where}: {key} cannot be {shown(value)}")
        episodes.append(
            Episode(
                task=record["task"],
                method=record["method"],
                seed=record["seed"],
                episode=record["episode"],
                episode_return=float(record["return"]),
                success=None if record["success"] is None else float(record["success"]),
                score=float(record["score"]),
                length=record["length"],
            )
        )
    return episodes


def group(episodes: Iterable[Episode], field: Field = "return") -> Scores:
    """Runs by task and method, `scores[task][method]` = one array for each seed in order of seeds; tasks in order of appearance."""
    cells: dict[str, dict[str, dict[int, list[float]]]] = {}
    for episode in episodes:
        value = episode.episode_return if field == "return" else episode.score
        cells.setdefault(episode.task, {}).setdefault(episode.method, {}).setdefault(episode.seed, []).append(value)
    return {
        task: {method: [np.array(seeds[seed]) for seed in sorted(seeds)] for method, seeds in methods.items()}
        for task, methods in cells.items()
    }


def group_rows(rows: Iterable[ResultRow], field: Field = "return") -> Scores:
    """Runs by task and method of published rows: the episodes in `extra`, or the mean alone where they are not given."""
    scores: Scores = {}
    for row in sorted(rows, key=lambda row: row.seed):
        mean = row.episode_return if field == "return" else row.score
        values = (row.extra or {}).get("returns" if field == "return" else "scores", [mean])
        scores.setdefault(row.task, {}).setdefault(row.method, []).append(np.asarray(values, dtype=np.float64))
    return scores


def rows_from_episodes(
    study: str,
    episodes: Iterable[Episode],
    env_steps: Mapping[str, int],
    seconds: Mapping[str, float],
    origin: Mapping[str, str],
    decisions: Mapping[str, DecisionTime] | None = None,
    published: str = "",
) -> list[ResultRow]:
    """Publishable rows, one for each task, method and seed, with the episode values in `extra`.

    `env_steps` and `seconds` are what each method took (by method name, 0 where absent); `origin` is `results.provenance()`.
    `decisions`, the time per decision of each method where it was measured, and `published`, the set of published scores that the
    study is shown beside ("" for none), go into `extra`, too.
    """
    decisions = decisions or {}
    cells: dict[tuple[str, str, int], list[Episode]] = {}
    for episode in episodes:
        cells.setdefault((episode.task, episode.method, episode.seed), []).append(episode)
    rows = []
    for (task, method, seed), group_ in cells.items():
        returns = [round(episode.episode_return, 3) for episode in group_]
        scores = [round(episode.score, 5) for episode in group_]
        successes = [episode.success for episode in group_ if episode.success is not None]
        extra: dict[str, Any] = {"returns": returns, "scores": scores}
        if method in decisions:
            extra["decision"] = dataclasses.asdict(decisions[method])
        if published:
            extra["published"] = published
        rows.append(
            ResultRow(
                study=study,
                task=task,
                method=method,
                seed=seed,
                episode_return=round(float(np.mean(returns)), 4),
                score=round(float(np.mean(scores)), 6),
                env_steps=int(env_steps.get(method, 0)),
                seconds=round(float(seconds.get(method, 0.0)), 1),
                command=origin["command"],
                commit=origin["commit"],
                hardware=origin["hardware"],
                success=round(float(np.mean(successes)), 6) if successes else None,
                episodes=len(group_),
                extra=extra,
            )
        )
    return rows
