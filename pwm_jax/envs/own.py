"""Tasks of a user's own: `own-<name>` is what the file <name>.py says, found in one of the directories of PWM_JAX_TASKS, or in tasks/.

The file holds `TASK`, an `OwnTask`, and `make(seed)`, which builds an environment of gymnasium or dm_env; docs/own_tasks.md has an example.
What a task needs is imported inside `make`, so that its facts are known without a simulator.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from pwm_jax.envs.base import AgentEnv
from pwm_jax.envs.catalog import TaskFacts, UnknownTaskError

SUITE, PREFIX, VARIABLE = "own", "own-", "PWM_JAX_TASKS"


class OwnTaskError(ValueError):
    """A file of an own task, or the environment that it makes, is not as it should be; names the file and what to change."""


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """Facts of a task: native sizes; episodes in agent steps, each `action_repeat` steps of the environment with summed rewards.

    `max_return` is the largest return of an episode, by which scores are divided.
    """

    obs_dim: int
    action_dim: int
    episode_length: int
    max_return: float
    action_repeat: int = 1


def directories() -> list[Path]:
    """Where the files are looked for, in this order."""
    return [Path(part) for part in os.environ.get(VARIABLE, "tasks").split(os.pathsep) if part]


def own_facts(name: str) -> TaskFacts:
    """Facts of the task `own-...`.

    Raises:
      UnknownTaskError: there is no such file.
      OwnTaskError: it fails, or lacks something.
    """
    task = _module(_file_of(name)).TASK
    return TaskFacts(-1, name, SUITE, task.obs_dim, task.action_dim, task.episode_length, float(task.max_return), task.action_repeat)


def _file_of(name: str) -> Path:
    places = directories()
    for directory in places:
        path = directory / f"{name.removeprefix(PREFIX)}.py"
        if path.is_file():
            return path.resolve()
    there = sorted(f"{PREFIX}{path.stem}" for directory in places for path in directory.glob("*.py"))
    raise UnknownTaskError(
        f"unknown task {name!r}: {' and '.join(map(str, places))} {'have' if len(places) > 1 else 'has'} no {name.removeprefix(PREFIX)}.py "
        f"({', '.join(there) or 'no tasks at all'}); {VARIABLE} names the directories"
    )


@functools.cache
def _module(path: Path) -> ModuleType:
    """The file, run once."""
    spec = importlib.util.spec_from_file_location(f"pwm_jax_own_task_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # What it imports may lie beside it, or where the user starts: environments are built in processes that know neither place.
    sys.path += [place for place in (str(path.parent), os.getcwd()) if place not in sys.path]
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise OwnTaskError(f"{path}: {type(error).__name__}: {error}") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, OwnTask) or not callable(getattr(module, "make", None)):
        raise OwnTaskError(f"{path} needs TASK, a pwm_jax.envs.OwnTask, and a function make(seed)")
    for field in dataclasses.fields(task):
        if not getattr(task, field.name) > 0:
            raise OwnTaskError(f"{path}: TASK.{field.name} is {getattr(task, field.name)!r}, it must be above 0")
    return module


class _Adapted(Protocol):
    """An environment of another library."""

    low: np.ndarray
    high: np.ndarray

    def reset(self, seed: int | None) -> np.ndarray: ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, float]:
        """Observation, reward, terminated, truncated, success."""
        ...

    def picture(self) -> np.ndarray | None: ...

    def close(self) -> None: ...


class _Gymnasium:
    def __init__(self, env: Any) -> None:
        import gymnasium

        self.env = env
        self.flat = lambda obs: np.asarray(gymnasium.spaces.flatten(env.observation_space, obs))
        if not isinstance(env.action_space, gymnasium.spaces.Box):
            raise TypeError(f"its actions are {env.action_space}, not a Box of continuous ones")
        self.low, self.high = (np.ravel(bound).astype(np.float64) for bound in (env.action_space.low, env.action_space.high))

    def reset(self, seed: int | None) -> np.ndarray:
        return self.flat(self.env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, float]:
        space = self.env.action_space
        obs, reward, terminated, truncated, info = self.env.step(action.reshape(space.shape).astype(space.dtype))
        success = info.get("success", info.get("is_success", 0.0))
        return self.flat(obs), float(reward), bool(terminated), bool(truncated), float(success)

    def picture(self) -> np.ndarray | None:
        return self.env.render() if self.env.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.env.close()


class _DmEnv:
    def __init__(self, env: Any, make: Callable[[int], Any]) -> None:
        self.env, self.make = env, make
        spec = self.env.action_spec()
        self.shape = spec.shape
        self.low, self.high = (np.broadcast_to(bound, spec.shape).ravel().astype(np.float64) for bound in (spec.minimum, spec.maximum))

    def reset(self, seed: int | None) -> np.ndarray:
        if seed is not None:  # dm_env has no other way to say where its randomness starts
            self.env.close()
            self.env = self.make(seed)
        return self._flat(self.env.reset().observation)

    def _flat(self, observation: Any) -> np.ndarray:
        parts = observation.values() if hasattr(observation, "values") else [observation]
        return np.concatenate([np.ravel(part) for part in parts])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, float]:
        step = self.env.step(action.reshape(self.shape))
        over = step.last()
        terminated = over and step.discount == 0.0
        return self._flat(step.observation), float(step.reward or 0.0), terminated, over and not terminated, 0.0

    def picture(self) -> np.ndarray | None:
        if (physics := getattr(self.env, "physics", None)) is not None:
            return physics.render(height=240, width=240, camera_id=0)
        return self.env.render() if hasattr(self.env, "render") else None

    def close(self) -> None:
        self.env.close()


class OwnEnv(AgentEnv):
    """The environment of a user's file in agent steps: flat observations, actions scaled from [-1, 1] to the environment's own bounds."""

    def __init__(self, name: str, seed: int | None, render_mode: str | None) -> None:
        super().__init__(own_facts(name), render_mode)
        path = _file_of(name)
        module, self._next_seed = _module(path), seed
        try:
            made = module.make(0 if seed is None else seed)
            self._env: _Adapted = _Gymnasium(made) if hasattr(made, "action_space") else _DmEnv(made, module.make)
            length = self._env.reset(0).size
        except Exception as error:
            raise OwnTaskError(f"{path}: the environment of make() cannot be used: {type(error).__name__}: {error}") from error
        for what, declared, found in (("obs_dim", self.facts.obs_dim, length), ("action_dim", self.facts.action_dim, self._env.low.size)):
            if declared != found:
                raise OwnTaskError(f"{path}: TASK.{what} is {declared}, the environment has {found}")
        if not (np.isfinite(self._env.low).all() and np.isfinite(self._env.high).all()):
            raise OwnTaskError(f"{path}: actions are not bounded ({self._env.low} to {self._env.high}): bound them in make()")
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def _seed(self, seed: int) -> None:
        self._next_seed = seed

    def _reset(self) -> np.ndarray:
        seed, self._next_seed = self._next_seed, None
        return self._env.reset(seed)

    def _control_steps(self, action: np.ndarray, count: int) -> tuple[np.ndarray, float, float, bool]:
        action = self._env.low + (action + 1.0) / 2.0 * (self._env.high - self._env.low)
        total = 0.0
        for _ in range(count):
            obs, reward, terminated, truncated, success = self._env.step(action)
            total += reward
            if terminated or truncated:
                break
        if truncated and self._steps_left > 1:
            raise OwnTaskError(f"{self.facts.name} ended {self._steps_left - 1} agent steps before TASK.episode_length: make that shorter")
        return obs, total, success, terminated

    def render_frame(self, height: int, width: int, backend: str | None = None) -> np.ndarray:
        """As `AgentEnv.render_frame`; a note where the environment draws nothing, or what it draws with is missing."""
        from PIL import Image, ImageDraw

        try:
            picture, reason = self._env.picture(), "It needs render_mode rgb_array (gymnasium), physics or render() (dm_env)"
        except Exception as error:  # whatever the environment's own code raises: no reason to lose a run
            picture, reason = None, str(error)
        if picture is None:
            drawn = Image.new("RGB", (width, height), (128, 128, 128))
            ImageDraw.Draw(drawn).multiline_text((8, 8), "\n".join(textwrap.wrap(f"{self.facts.name}: no picture. {reason}", width // 7)))
            return np.asarray(drawn)
        return np.asarray(Image.fromarray(picture).resize((width, height)))

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
