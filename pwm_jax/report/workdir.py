"""What a run leaves on disk for its report: the file contract, its writers, and `load_workdir`.

    config.json                     {"<stage>": {...the stage's full configuration...}, ...}
    provenance.json                 {"<stage>": {"command": str, "commit": str, "hardware": str}, ...}
    timing.json                     {"<stage>": wall seconds, ...}
    dataset/data.json               {"recipe": {...}, "tasks": [{"task", "suite", "episodes", "steps", "return_mean", "return_quantiles"
                                    (0, 25, 50, 75, 100 %), "success_rate" (or null), "max_return", "sources": {"<source>": episodes}}]}
    metrics/<stage>.jsonl           rows of `metrics.MetricsWriter`, {"step": int, "time": unix seconds, "<name>": number, ...}
    metrics/open_loop.json          optional, {"<task>": [error after 1, 2, ... steps of prediction without observing]}
    evaluation/<method>.jsonl       rows of `episodes.write_episodes`, one an episode
    evaluation/decisions.json       optional, {"<method>": ...}, the time per decision: `decisions.write_decision_time`
    videos/<task>-<method>-seed<k>.gif

Stages are named `collect`, `pretrain`, `bc`, `extract`, `evaluate`, `online`; methods `extracted`, `generalist`, `mppi`, `pwm`, `bc`,
`data`, `random`, `expert`. The first three files are written by `record_stage`, data.json by `write_data_description`. Metric names that
the page draws:

    loss/<name>                          a training loss (any stage)
    heldout/<name>                       the same loss on held-out episodes
    open_loop/<task>                     open-loop prediction error (pretrain)
    eval/return/<task>/seed<k>           return in the real environment at this step (extract, bc, online)

In `online` a step is an environment step, elsewhere a gradient step. Every file may be absent.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm_jax.report.decisions import DecisionTime, read_decision_times
from pwm_jax.report.episodes import Episode, read_episodes
from pwm_jax.report.metrics import read_metrics
from pwm_jax.report.records import RecordError, is_number, read_json, write_json
from pwm_jax.report.results import portable, provenance
from pwm_jax.untrusted import shown

if TYPE_CHECKING:
    from pwm_jax.types import TaskSpec

METRIC_STAGES = ("pretrain", "bc", "extract", "generalist", "online")
_VIDEO = re.compile(r"(?P<task>.+)-(?P<method>\w+)-seed(?P<seed>\d+)\.gif")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_curve(entry: Any) -> bool:
    return isinstance(entry, list) and all(map(is_number, entry))


_DATA_KEYS: dict[str, Callable[[Any], bool]] = {
    "task": lambda value: isinstance(value, str),
    "suite": lambda value: isinstance(value, str),
    "episodes": _is_count,
    "steps": _is_count,
    "return_mean": lambda value: value is None or is_number(value),
    "return_quantiles": lambda value: value is None or (_is_curve(value) and len(value) == 5),
    "success_rate": lambda value: value is None or is_number(value),
    "max_return": is_number,
    "sources": lambda value: isinstance(value, dict) and all(map(_is_count, value.values())),
}


@dataclasses.dataclass(frozen=True)
class Video:
    """A recorded episode of a policy and the GIF that shows it."""

    task: str
    method: str
    seed: int
    path: Path


@dataclasses.dataclass(frozen=True)
class PageData:
    """Everything a page is made from; what the workdir lacks is empty, what could not be read is told in `problems`."""

    workdir: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Mapping[str, str]]
    timing: Mapping[str, float]
    data: Mapping[str, Any]
    metrics: Mapping[str, list[dict[str, float]]]
    open_loop: Mapping[str, list[float]]
    episodes: tuple[Episode, ...]
    decisions: Mapping[str, DecisionTime]
    videos: tuple[Video, ...]
    problems: tuple[str, ...]

    @property
    def tasks(self) -> list[str]:
        """Task names: in the order of the data description, then of the evaluations."""
        described = [row["task"] for row in self.data.get("tasks", [])]
        return list(dict.fromkeys([*described, *(episode.task for episode in self.episodes)]))


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, str | os.PathLike):
        return portable(str(value))
    return value if isinstance(value, bool | int | float) or value is None else str(value)


def record_stage(
    workdir: str | os.PathLike[str], stage: str, *, seconds: float, config: Mapping[str, Any], accelerators: Sequence[str] = ()
) -> None:
    """Note in config.json, provenance.json and timing.json what a finished stage ran with, where, and how long it took.

    `config` is the stage's full configuration (nested mappings of plain values); paths are made portable. An earlier
    note on the same stage is replaced. Raises ValueError when the configuration holds a non-finite number.
    """
    entries = {"config": _portable(config), "provenance": provenance(accelerators), "timing": round(float(seconds), 3)}
    for name, entry in entries.items():
        path = Path(workdir) / f"{name}.json"
        write_json(path, {**(read_json(path) if path.exists() else {}), stage: entry})


def write_data_description(
    workdir: str | os.PathLike[str],
    specs: Sequence[TaskSpec],
    *,
    task_id: np.ndarray,
    length: np.ndarray,
    episode_return: np.ndarray,
    success: np.ndarray,
    source: np.ndarray,
    recipe: Mapping[str, Any],
) -> Path:
    """Write `dataset/data.json` from a dataset's per-episode columns, all [episodes]; returns its path.

    `task_id` indexes `specs`; `success` may be NaN where a task has none; `source` holds names such as 'expert'.
    """
    rows = []
    for index, spec in enumerate(specs):
        mine = np.asarray(task_id) == index
        returns, successes = np.asarray(episode_return, dtype=np.float64)[mine], np.asarray(success, dtype=np.float64)[mine]
        names, counts = np.unique(np.asarray(source)[mine].astype(str), return_counts=True)
        has_success = mine.any() and bool(np.isfinite(successes).all()) and spec.suite != "dm_control"
        rows.append(
            {
                "task": spec.name,
                "suite": spec.suite,
                "episodes": int(mine.sum()),
                "steps": int(np.asarray(length)[mine].sum()),
                "return_mean": round(float(returns.mean()), 3) if mine.any() else None,
                "return_quantiles": [round(float(value), 3) for value in np.quantile(returns, [0, 0.25, 0.5, 0.75, 1])]
                if mine.any()
                else None,
                "success_rate": round(float(successes.mean()), 4) if has_success else None,
                "max_return": float(spec.max_return),
                "sources": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
            }
        )
    path = Path(workdir) / "dataset" / "data.json"
    write_json(path, {"recipe": _portable(recipe), "tasks": rows})
    return path


def _check_data(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    if "recipe" not in data or not isinstance(data.get("tasks"), list):
        raise RecordError(f"{path}: needs a `recipe` and a list `tasks`")
    for row in data["tasks"]:
        missing = [key for key in _DATA_KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise RecordError(f"{path}: a task lacks {missing}")
        for key, fits in _DATA_KEYS.items():
            if not fits(row[key]):
                raise RecordError(f"{path}: {key} of a task cannot be {shown(row[key])}")
    return data


def _check_entries(path: Path, entries: dict[str, Any], fits: Callable[[Any], bool], wanted: str) -> dict[str, Any]:
    wrong = [name for name, entry in entries.items() if not fits(entry)]
    if wrong:
        raise RecordError(f"{path}: {shown(', '.join(wrong))[1:-1]} should be {wanted}")
    return entries


def _is_origin(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("command", "commit", "hardware"))


def load_workdir(workdir: str | os.PathLike[str]) -> PageData:
    """Read what a run has left so far. Absent files leave their part empty; unreadable ones are named in `problems`.

    Raises FileNotFoundError when the directory itself does not exist.
    """
    root = Path(workdir)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a directory; give the --workdir of a run")
    problems: list[str] = []

    def load(path: Path, read: Any, empty: Any) -> Any:
        if not path.exists():
            return empty
        try:
            return read(path)
        except (RecordError, OSError) as error:
            problems.append(str(error).replace(f"{root}{os.sep}", ""))
            return empty

    episodes = [load(path, read_episodes, []) for path in sorted((root / "evaluation").glob("*.jsonl"))]
    videos = []
    for path in sorted((root / "videos").glob("*.gif")):
        match = _VIDEO.fullmatch(path.name)
        if match:
            videos.append(Video(match["task"], match["method"], int(match["seed"]), path))
        else:
            problems.append(f"videos/{path.name}: not named <task>-<method>-seed<k>.gif")
    return PageData(
        workdir=portable(str(root.resolve())),
        config=load(root / "config.json", read_json, {}),
        provenance=load(
            root / "provenance.json",
            lambda path: _check_entries(path, read_json(path), _is_origin, "an object of command, commit and hardware"),
            {},
        ),
        timing=load(root / "timing.json", lambda path: _check_entries(path, read_json(path), is_number, "a number of seconds"), {}),
        data=load(root / "dataset" / "data.json", lambda path: _check_data(path, read_json(path)), {}),
        metrics={stage: rows for stage in METRIC_STAGES if (rows := load(root / "metrics" / f"{stage}.jsonl", read_metrics, []))},
        open_loop=load(
            root / "metrics" / "open_loop.json", lambda path: _check_entries(path, read_json(path), _is_curve, "a list of numbers"), {}
        ),
        episodes=tuple(episode for part in episodes for episode in part),
        decisions=load(root / "evaluation" / "decisions.json", read_decision_times, {}),
        videos=tuple(videos),
        problems=tuple(problems),
    )
