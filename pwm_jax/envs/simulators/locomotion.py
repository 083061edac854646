"""Running in the direction +x: one observation and one reward for every body."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from brax.envs.base import State

from pwm_jax.envs.simulators.mjx_env import MjxEnv
from pwm_jax.envs.simulators.reset import JointNoise, standing_pose

_JOINT_NOISE = 0.05
_VELOCITY_NOISE = 0.05
_CONTROL_COST = 0.1


@dataclasses.dataclass(frozen=True)
class Runner:
    """What differs between bodies.

    `yaw` turns the model's reference pose to face +x. An episode terminates once the body `height_of` is lower than `min_height`
    metres, or the cosine between the trunk's upward axis and the vertical is lower than `min_upright`.
    """

    trunk: str
    height_of: str
    extremities: tuple[str, ...]
    n_frames: int
    min_height: float
    min_upright: float
    yaw: float = 0.0


class LocomotionEnv(MjxEnv):
    """Run along +x, upright.

    The trunk's frame F has the columns forward, left and up, which in the standing pose are +x, +y and +z. Observation [o], in order:
    height of `height_of` [1]; the rows of F for +x and +z (heading and inclination) [6]; linear and angular velocity of the root,
    in F and in the root's frame [6]; joint positions [nq - 7] and velocities [nv - 6]; extremities relative to the trunk in F
    [3 each]; activations of the actuators that have them [na]. Nothing tells x and y, and nothing is clipped or scaled.

    Reward: v + u + 1 - 0.1 c, with v the mean forward velocity of the centre of mass during the step in m/s, u the cosine between
    the trunk's upward axis and the vertical, and c the effort in [0, 1] (`MjxEnv.effort`).

    Reset: the standing pose with joint noise uniform in +-0.05 rad and velocity noise uniform in +-0.05.
    """

    def __init__(self, model: mujoco.MjModel, runner: Runner, backend: str) -> None:
        super().__init__(model, runner.n_frames, backend)
        self.runner = runner
        pose = standing_pose(model, runner.yaw)
        self._joint_noise = JointNoise(model, pose, _JOINT_NOISE)
        self._trunk, self._height_of = model.body(runner.trunk).id, model.body(runner.height_of).id
        self._extremities = np.array([model.body(name).id for name in runner.extremities])
        data = mujoco.MjData(model)
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        self._standing_axes = jnp.asarray(data.xmat[self._trunk].reshape(3, 3).T, jnp.float32)

    def reset(self, rng: jax.Array) -> State:
        """Start an episode."""
        joint_key, velocity_key = jax.random.split(rng)
        qvel = jax.random.uniform(velocity_key, (self.mj_model.nv,), minval=-_VELOCITY_NOISE, maxval=_VELOCITY_NOISE)
        physics = self.pipeline_init(self._joint_noise.sample(joint_key), qvel)
        zero = jnp.zeros(())
        return State(physics, self._observe(physics), zero, zero, {"forward_velocity": zero, "upright": zero, "effort": zero})

    def step(self, state: State, action: jax.Array) -> State:
        """Take one step."""
        physics = self.pipeline_step(state.pipeline_state, action)
        velocity = (physics.subtree_com[1, 0] - state.pipeline_state.subtree_com[1, 0]) / self.dt
        upright, effort = self._frame(physics)[2, 2], self.effort(action)
        reward = velocity + upright + 1.0 - _CONTROL_COST * effort
        fallen = (physics.xpos[self._height_of, 2] < self.runner.min_height) | (upright < self.runner.min_upright)
        metrics = {"forward_velocity": velocity, "upright": upright, "effort": effort}
        return state.replace(
            pipeline_state=physics, obs=self._observe(physics), reward=reward, done=fallen.astype(jnp.float32), metrics=metrics
        )

    def _frame(self, physics: Any) -> jax.Array:
        """The trunk's frame F [3, 3]."""
        return physics.xmat[self._trunk] @ self._standing_axes

    def _observe(self, physics: Any) -> jax.Array:
        frame = self._frame(physics)
        limbs = (physics.xpos[self._extremities] - physics.xpos[self._trunk]) @ frame
        return jnp.concatenate(
            [
                physics.xpos[self._height_of, 2:],
                frame[0],
                frame[2],
                physics.qvel[:3] @ frame,
                physics.qvel[3:6],
                physics.qpos[7:],
                physics.qvel[6:],
                limbs.ravel(),
                physics.act,
            ]
        )
