"""What all environments share: agent steps of several control steps, padding-free gymnasium environments, errors."""

from __future__ import annotations

import abc
from typing import Any

import gymnasium
import numpy as np

from pwm_jax.envs import rendering
from pwm_jax.envs.catalog import TaskFacts


class EnvUnavailableError(ImportError):
    """A simulator that a task needs is not installed, or not in a version that works."""


class AgentEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One task in agent steps: every action is held for the task's control steps, two in MT80, whose rewards are summed.

    Observations are the native vector in float32 after the last of them; `truncated` is True at the task's episode length;
    `info["success"]` is that of the last control step.
    """

    def __init__(self, facts: TaskFacts, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} is not offered: use 'rgb_array' or None")
        self.facts = facts
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (facts.obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (facts.action_dim,), np.float32)
        self._steps_left = 0

    @abc.abstractmethod
    def _seed(self, seed: int) -> None:
        """Start the simulator's own random generator afresh."""

    @abc.abstractmethod
    def _reset(self) -> np.ndarray:
        """Start an episode; the first native observation."""

    @abc.abstractmethod
    def _control_steps(self, action: np.ndarray, count: int) -> tuple[np.ndarray, float, float, bool]:
        """Hold an action for `count` control steps: last observation, summed reward, success at the last, whether it terminated."""

    @abc.abstractmethod
    def render_frame(self, height: int, width: int, backend: str | None = None) -> np.ndarray:
        """A picture [height, width, 3] uint8 of the present state.

        Args:
          height: rows.
          width: columns.
          backend: what `rendering.rendering_available` answers; asked here if None.
        """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode: obs [o] float32 and info.

        With a seed the episode is the one that a fresh environment built with this seed starts first; without one the
        generator of the last seed runs on.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._seed(seed)
        self._steps_left = self.facts.episode_length
        return self._reset().astype(np.float32), {"success": 0.0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one agent step with action [a], clipped to [-1, 1].

        Raises:
          RuntimeError: the episode is over or was never started.
          ValueError: the action has the wrong shape or a value that is not finite.
        """
        if self._steps_left <= 0:
            raise RuntimeError(f"{self.facts.name}: step() after the end of an episode, or before the first; call reset()")
        action = np.asarray(action, np.float64)
        if action.shape != (self.facts.action_dim,) or not np.isfinite(action).all():
            raise ValueError(f"{self.facts.name}: an action is {self.facts.action_dim} finite numbers, not {action}")
        obs, reward, success, terminated = self._control_steps(np.clip(action, -1.0, 1.0), self.facts.control_steps)
        self._steps_left = 0 if terminated else self._steps_left - 1
        return obs.astype(np.float32), reward, terminated, not terminated and self._steps_left == 0, {"success": success}

    def expert_action(self) -> np.ndarray:
        """The scripted expert's action [a] for the present state.

        Raises:
          NotImplementedError: the suite has no scripted expert.
        """
        raise NotImplementedError(f"{self.facts.name}: only Meta-World tasks have a scripted expert")

    def render(self) -> np.ndarray:
        """A picture of the present state: [480, 480, 3] uint8."""
        return self.render_frame(height=480, width=480)

    def _set_control_timestep(self, seconds: float) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / (self.facts.control_steps * seconds))}


class MuJoCoEnv(AgentEnv):
    """A task whose state is a MuJoCo model's, drawn by OpenGL, or as a labelled schematic where no OpenGL works."""

    def __init__(self, facts: TaskFacts, render_mode: str | None) -> None:
        super().__init__(facts, render_mode)
        self._renderer: rendering.Renderer | None = None

    @property
    @abc.abstractmethod
    def camera(self) -> Any:
        """Where pictures are taken from: a fixed camera's id or a mujoco.MjvCamera."""

    @abc.abstractmethod
    def _mujoco(self) -> tuple[Any, Any]:
        """The mujoco.MjModel and mujoco.MjData to draw."""

    def render_frame(self, height: int, width: int, backend: str | None = None) -> np.ndarray:
        """As `AgentEnv.render_frame`."""
        if self._renderer is None or self._renderer.shape != (height, width):
            self._close_renderer()
            self._renderer = rendering.make_renderer(self._mujoco()[0], height, width, backend)
        return self._renderer.render(*self._mujoco(), self.camera)

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def close(self) -> None:
        """Free the renderer."""
        self._close_renderer()
