"""What the tasks on MuJoCo models share: actions, sizes and the stepping of a model by MJX or C MuJoCo."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from brax.envs.base import Env

from pwm_jax.envs.simulators.engines import ENGINES


class MjxEnv(Env):
    """A task on a mujoco.MjModel; `pipeline_state` is mjx.Data, or `engines.Physics` under C MuJoCo.

    Actions lie in [-1, 1] and are mapped affinely to each actuator's control range, for muscles to [0, 1]: an action of 0 is the
    middle of the range. MuJoCo itself clips controls to their range. `State.done` is 1.0 where the task terminated.
    """

    def __init__(self, model: mujoco.MjModel, n_frames: int, backend: str) -> None:
        self.engine = ENGINES[backend](model, n_frames)
        self.mj_model = self.engine.model
        self.dt = float(model.opt.timestep * n_frames)
        self._backend = backend
        self.is_muscle = jnp.asarray(model.actuator_dyntype == mujoco.mjtDyn.mjDYN_MUSCLE)
        low, high = jnp.asarray(model.actuator_ctrlrange, jnp.float32).T
        self._ctrl_low, self._ctrl_high = jnp.where(self.is_muscle, 0.0, low), jnp.where(self.is_muscle, 1.0, high)

    def controls(self, action: jax.Array) -> jax.Array:
        """Controls [nu] of an action in [-1, 1]."""
        return self._ctrl_low + (self._ctrl_high - self._ctrl_low) * (action + 1.0) / 2.0

    def effort(self, action: jax.Array) -> jax.Array:
        """Mean square over actuators of the action, or of the excitation in [0, 1] where the actuator is a muscle."""
        return jnp.mean(jnp.square(jnp.where(self.is_muscle, self.controls(action), action)))

    def pipeline_init(self, qpos: jax.Array, qvel: jax.Array) -> Any:
        """The physical state with given positions [nq] and velocities [nv]."""
        return self.engine.init(qpos, qvel)

    def pipeline_step(self, physics: Any, action: jax.Array) -> Any:
        """Hold an action for one environment step."""
        return self.engine.step(physics, self.controls(action))

    @functools.cached_property
    def observation_size(self) -> int:
        """Length of the observation vector."""
        return jax.eval_shape(self.reset, jax.random.key(0)).obs.shape[-1]

    @property
    def action_size(self) -> int:
        """Number of actuators."""
        return int(self.mj_model.nu)

    @property
    def backend(self) -> str:
        """The engine: "mjx" or "mujoco"."""
        return self._backend
