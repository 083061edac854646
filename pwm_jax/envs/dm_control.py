"""dm_control tasks: those of the suite and the eleven custom ones, as agent-step environments."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from pwm_jax.envs.base import EnvUnavailableError, MuJoCoEnv
from pwm_jax.envs.catalog import TaskFacts

_REMEDY = "pip install dm_control==1.0.49 mujoco==3.16.0"


def _import(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            # Where no display is, dm_control's look for a renderer warns; pictures are not drawn through it.
            warnings.filterwarnings("ignore", message=".*DISPLAY environment variable.*")
            return importlib.import_module(module)
    except ImportError as error:
        raise EnvUnavailableError(f"dm_control cannot be imported ({error}); to install it: {_REMEDY}") from error


def domain_and_task(name: str) -> tuple[str, str]:
    """The suite's domain and task of an MT80 name: "cup-catch" is ("ball_in_cup", "catch")."""
    domain, _, task = name.partition("-")
    return {"cup": "ball_in_cup"}.get(domain, domain), task.replace("-", "_")


class DMControlEnv(MuJoCoEnv):
    """One dm_control task; observations are the suite's dictionary, flattened in the order of its keys."""

    def __init__(self, facts: TaskFacts, seed: int | None, render_mode: str | None) -> None:
        super().__init__(facts, render_mode)
        suite = _import("dm_control.suite")
        custom_tasks = _import("pwm_jax.envs.custom_tasks")
        domain, task = domain_and_task(facts.name)
        if facts.name in custom_tasks.BUILDERS:
            self._env = custom_tasks.BUILDERS[facts.name]()
        else:
            self._env = suite.load(domain, task)
        self._physics, self._task = self._env.physics, self._env.task
        self._sub_steps = round(self._env.control_timestep() / self._physics.timestep())
        self._set_control_timestep(self._env.control_timestep())
        if seed is not None:
            self._seed(seed)

    def _seed(self, seed: int) -> None:
        self._task._random = np.random.RandomState(seed)

    def _reset(self) -> np.ndarray:
        self._env.reset()
        return self._observe()

    def _observe(self) -> np.ndarray:
        return np.concatenate([np.ravel(value) for value in self._task.get_observation(self._physics).values()])

    def _control_steps(self, action: np.ndarray, count: int) -> tuple[np.ndarray, float, float, bool]:
        # What dm_control's Environment.step does, less the observation of the steps that the agent never sees.
        total = 0.0
        for _ in range(count):
            self._task.before_step(action, self._physics)
            self._physics.step(self._sub_steps)
            self._task.after_step(self._physics)
            total += float(self._task.get_reward(self._physics))
        return self._observe(), total, 0.0, False

    @property
    def camera(self) -> Any:
        """The domain's first camera, which follows what moves."""
        return 0

    def _mujoco(self) -> tuple[Any, Any]:
        return self._physics.model.ptr, self._physics.data.ptr

    def close(self) -> None:
        """Free the simulator and the renderer."""
        super().close()
        self._env.close()
