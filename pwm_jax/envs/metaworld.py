"""Meta-World tasks (metaworld 3.0.0, the "v3" classes) with the reset protocol of TD-MPC2.

Protocol: the goal is observable, objects and goal are drawn anew at every reset from the environment's own generator, and
after a reset one control step with a zero action runs whose outcome the agent never sees.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from pwm_jax.envs.base import EnvUnavailableError, MuJoCoEnv
from pwm_jax.envs.catalog import TaskFacts

_REMEDY = "pip install metaworld==3.0.0 packaging mujoco==3.16.0"
# Building a class resets it once from NumPy's global generator, which a given seed makes it restore afterwards.
_BUILD_SEED = 0


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvUnavailableError(f"Meta-World cannot be imported ({error}); to install it: {_REMEDY}") from error


class MetaWorldEnv(MuJoCoEnv):
    """One Meta-World task; the reward is the shaped one of version 2, 0 to 10 a control step."""

    def __init__(self, facts: TaskFacts, seed: int | None, render_mode: str | None) -> None:
        super().__init__(facts, render_mode)
        env_id = facts.name.removeprefix("mw-") + "-v3"
        classes = _import("metaworld.env_dict").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        self._policy = _import("metaworld.policies").ENV_POLICY_MAP[env_id]()
        try:
            self._env = classes[f"{env_id}-goal-observable"](seed=_BUILD_SEED)
        except ValueError as error:
            version = _import("mujoco").__version__
            raise EnvUnavailableError(f"Meta-World does not work with mujoco {version} ({error}); what works: {_REMEDY}") from error
        self._set_control_timestep(self._env.dt)
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._latest_obs = np.zeros(facts.obs_dim)
        self._seed(int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed)

    def _seed(self, seed: int) -> None:
        self._env.seed(seed)

    def _reset(self) -> np.ndarray:
        obs, _ = self._env.reset()
        self._env.step(np.zeros(self.facts.action_dim, np.float32))
        self._latest_obs = obs
        return obs

    def _control_steps(self, action: np.ndarray, count: int) -> tuple[np.ndarray, float, float, bool]:
        held = action.astype(np.float32)
        total, success = 0.0, 0.0
        for _ in range(count):
            self._latest_obs, reward, _, _, info = self._env.step(held)
            total += float(reward)
            success = float(info["success"])
        return self._latest_obs, total, success, False

    def expert_action(self) -> np.ndarray:
        """The bundled scripted policy's action [4] for the latest observation in full precision, clipped to [-1, 1]."""
        return np.clip(self._policy.get_action(self._latest_obs), -1.0, 1.0)

    @property
    def camera(self) -> Any:
        """A view from the front right onto the table, nearer than any of the model's own cameras."""
        camera = _import("mujoco").MjvCamera()
        camera.lookat[:] = (0.0, 0.6, 0.15)
        camera.distance, camera.azimuth, camera.elevation = 1.35, 130.0, -30.0
        return camera

    def _mujoco(self) -> tuple[Any, Any]:
        return self._env.model, self._env.data

    def close(self) -> None:
        """Free the simulator and the renderer."""
        super().close()
        self._env.close()
