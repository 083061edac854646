"""Task sets: which tasks a model knows, in which order, padded to which sizes.

The position of a task in its set is its `task_id`: its row in the task embedding and in the action mask.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pwm_jax.envs.catalog import ACTION_REPEAT, MT30, MT80, TaskFacts, UnknownTaskError, task_facts
from pwm_jax.envs.own import PREFIX, own_facts
from pwm_jax.envs.own import SUITE as OWN
from pwm_jax.envs.simulators.catalog import SUITES, SimulatorFacts, simulator_facts
from pwm_jax.report.text import first_of
from pwm_jax.types import TaskSpec
from pwm_jax.untrusted import shown

__all__ = ["MT30", "MT80", "TaskSet", "TaskSetError", "UnknownTaskError", "control_steps", "task_spec"]

_MAX_NAME, _MAX_SIZE = 200, 1 << 24  # of what a file describes


class TaskSetError(ValueError):
    """A task set that cannot be: empty, with a repeated task, or padded to less than its tasks need."""


def task_spec(name: str | int) -> TaskSpec:
    """Native facts of an MT80 task by name or index, or of a simulated or own task by name; `task_id` is the MT80 index, else 0.

    Raises:
      UnknownTaskError: no such task; names the nearest.
      OwnTaskError: the file of an own task is not as it should be.
    """
    facts: SimulatorFacts | TaskFacts
    if isinstance(name, str) and name.startswith(PREFIX):
        facts = own_facts(name)
    elif isinstance(name, str) and name.split("-")[0] in SUITES:
        facts = simulator_facts(name)
    else:
        facts = task_facts(name)
    return TaskSpec(
        name=facts.name,
        task_id=0 if isinstance(facts, SimulatorFacts) else max(facts.index, 0),
        suite=facts.suite,
        obs_dim=facts.obs_dim,
        action_dim=facts.action_dim,
        episode_length=facts.episode_length,
        max_return=facts.max_return,
    )


def control_steps(spec: TaskSpec) -> int:
    """How many steps of the environment an agent step is, in which the action is held; of a simulated task's Brax environment, one."""
    if spec.suite == OWN:
        return own_facts(spec.name).control_steps
    return 1 if spec.suite in SUITES else ACTION_REPEAT


def _resolve_names(names: Sequence[str | int] | str) -> Sequence[str | int]:
    if not isinstance(names, str):
        return names
    known = {"mt30": MT30, "mt80": MT80}
    if names in known:
        return known[names]
    return [name.strip() for name in names.split(",") if name.strip()]


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """An ordered set of tasks with common padded sizes; `specs[i].task_id == i`."""

    specs: tuple[TaskSpec, ...]
    obs_dim: int
    action_dim: int

    def __post_init__(self) -> None:
        if not self.specs:
            raise TaskSetError("a task set needs at least one task")
        names = [spec.name for spec in self.specs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise TaskSetError(f"tasks named more than once in a task set: {', '.join(repeated)}")
        for position, spec in enumerate(self.specs):
            if spec.task_id != position:
                raise TaskSetError(f"task {spec.name!r} at position {position} has task_id {shown(spec.task_id)}; they must be equal")
            if spec.obs_dim > self.obs_dim or spec.action_dim > self.action_dim:
                raise TaskSetError(
                    f"task {spec.name!r} has {spec.obs_dim} observations and {spec.action_dim} actions, "
                    f"more than the padded sizes {self.obs_dim} and {self.action_dim}"
                )

    @classmethod
    def from_names(cls, names: Sequence[str | int] | str, obs_dim: int | None = None, action_dim: int | None = None) -> TaskSet:
        """Build a task set from MT80 names or indices, names of simulated and own tasks, "mt30", "mt80", or one comma-separated string.

        Args:
          names: tasks in the order of their task_ids.
          obs_dim: padded observation size; the maximum over the tasks if None.
          action_dim: padded action size; the maximum over the tasks if None.

        Raises:
          UnknownTaskError: a name or index outside MT80.
          TaskSetError: no task, a task given twice, or a padded size below a task's own.
        """
        native = [task_spec(name) for name in _resolve_names(names)]
        specs = tuple(dataclasses.replace(spec, task_id=task_id) for task_id, spec in enumerate(native))
        return cls(
            specs=specs,
            obs_dim=max((spec.obs_dim for spec in specs), default=0) if obs_dim is None else obs_dim,
            action_dim=max((spec.action_dim for spec in specs), default=0) if action_dim is None else action_dim,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in task_id order."""
        return tuple(spec.name for spec in self.specs)

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return len(self.specs)

    @functools.cached_property
    def action_mask(self) -> np.ndarray:
        """[num_tasks, action_dim] float32: row i has ones in the first `specs[i].action_dim` places."""
        native = np.array([spec.action_dim for spec in self.specs])
        return (np.arange(self.action_dim) < native[:, None]).astype(np.float32)

    def index(self, name: str) -> int:
        """The task_id of a task of this set.

        Raises:
          UnknownTaskError: the task is not in this set.
        """
        if name not in self.names:
            raise UnknownTaskError(f"task {name!r} is not in this task set, which has: {', '.join(self.names)}")
        return self.names.index(name)

    def difference(self, needed: TaskSet) -> str:
        """In what this set differs from the one that is needed, as part of a message."""
        lacking, besides = ([name for name in a.names if name not in b.names] for a, b in ((needed, self), (self, needed)))
        parts = [f"it lacks {first_of(lacking)}"] * bool(lacking) + [f"it has {first_of(besides)} besides"] * bool(besides)
        if not parts and self.names != needed.names:
            parts = [f"their order is {first_of(self.names)}, not {first_of(needed.names)}"]
        sizes = [f"obs {tasks.obs_dim}, action {tasks.action_dim}" for tasks in (self, needed)]
        if sizes[0] != sizes[1]:
            parts.append(f"they are padded to {sizes[0]}, not {sizes[1]}")
        return "; ".join(parts) or "their sizes, lengths or largest returns are others"

    def pad_obs(self, obs: np.ndarray, task_id: int) -> np.ndarray:
        """Append zeros to native observations [..., o] of one task: [..., obs_dim] float32."""
        return _pad(obs, self.specs[task_id].obs_dim, self.obs_dim, "observation", self.specs[task_id].name)

    def pad_action(self, action: np.ndarray, task_id: int) -> np.ndarray:
        """Append zeros to native actions [..., a] of one task: [..., action_dim] float32."""
        return _pad(action, self.specs[task_id].action_dim, self.action_dim, "action", self.specs[task_id].name)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description, the inverse of `from_dict`."""
        return {"obs_dim": self.obs_dim, "action_dim": self.action_dim, "tasks": [dataclasses.asdict(spec) for spec in self.specs]}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> TaskSet:
        """Rebuild a task set from `to_dict`'s result.

        Raises:
          TaskSetError: a field is missing, unknown or of another type, or the set is inconsistent.
        """
        try:
            specs = tuple(TaskSpec(**task) for task in description["tasks"])
            sizes = description["obs_dim"], description["action_dim"]
        except (KeyError, TypeError) as error:
            raise TaskSetError(f"not a description of a task set: {shown(repr(error))}") from error
        for spec in specs:
            texts, counts = (spec.name, spec.suite), (spec.obs_dim, spec.action_dim, spec.episode_length)
            named = all(isinstance(text, str) and text.isprintable() and 0 < len(text) <= _MAX_NAME for text in texts)
            counted = type(spec.task_id) is int and all(type(count) is int and 0 < count <= _MAX_SIZE for count in counts)
            if not (named and counted and type(spec.max_return) in (int, float) and 0 < spec.max_return < math.inf):
                raise TaskSetError(f"not a description of a task: {shown(dataclasses.asdict(spec))}")
        if not all(type(size) is int and 0 < size <= _MAX_SIZE for size in sizes):
            raise TaskSetError(f"not the padded sizes of a task set: {shown(sizes)}")
        return cls(specs, *sizes)


def _pad(values: np.ndarray, native: int, padded: int, what: str, task: str) -> np.ndarray:
    if values.shape[-1] != native:
        raise TaskSetError(f"{what} of task {task!r} has {values.shape[-1]} entries, not {native}")
    result = np.zeros((*values.shape[:-1], padded), np.float32)
    result[..., :native] = values
    return result
