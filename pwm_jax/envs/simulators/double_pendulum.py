"""A double pendulum without contact, friction or limits: smooth, and chaotic once it swings over."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State
from flax import struct

BACKEND = "closed-form"
_GRAVITY = 9.81
_TORQUE = 5.0  # Nm at an action of 1
_DT, _FRAMES = 0.05, 5  # seconds a step, and into how many steps of the integrator it is cut
_START_VELOCITY = 1.0
_BOB = 0.03  # radius in pictures, m


@struct.dataclass
class Swing:
    """Joint angles in rad, the lower one relative to the upper, 0 hanging, and their velocities in rad/s, [2] each."""

    qpos: jax.Array
    qvel: jax.Array


def acceleration(swing: Swing, torque: jax.Array) -> jax.Array:
    """Joint accelerations [2] in rad/s^2 of two massless rods of 1 m with 1 kg at each end, under torques [2] at the joints in Nm.

    Lagrange's equations in the angles from the vertical, in which M(d) a = b(d, velocities, angles) with d their difference.
    """
    angle, velocity = jnp.cumsum(swing.qpos), jnp.cumsum(swing.qvel)
    cos, sin = jnp.cos(angle[0] - angle[1]), jnp.sin(angle[0] - angle[1])
    push = jnp.array([torque[0] - torque[1], torque[1]])
    first = push[0] - sin * velocity[1] ** 2 - 2.0 * _GRAVITY * jnp.sin(angle[0])
    second = push[1] + sin * velocity[0] ** 2 - _GRAVITY * jnp.sin(angle[1])
    upper, lower = jnp.array([first - cos * second, 2.0 * second - cos * first]) / (2.0 - cos**2)
    return jnp.array([upper, lower - upper])


def energy(swing: Swing) -> jax.Array:
    """Kinetic and potential energy in J, conserved where there is no torque."""
    angle, velocity = jnp.cumsum(swing.qpos), jnp.cumsum(swing.qvel)
    kinetic = velocity[0] ** 2 + velocity[1] ** 2 / 2.0 + velocity[0] * velocity[1] * jnp.cos(angle[0] - angle[1])
    return kinetic - _GRAVITY * (2.0 * jnp.cos(angle[0]) + jnp.cos(angle[1]))


class DoublePendulum(Env):
    """Lift the tip of a double pendulum by torques at both joints; one step is 0.05 s, by the classical Runge-Kutta method.

    Observation [6]: cosine and sine of both joint angles, then their velocities. Reward: the height of the tip over the pivot in
    units of the length of both rods, in [-1, 1]. No episode terminates. Reset: angles uniform over the circle, velocities in
    +-1 rad/s.
    """

    def reset(self, rng: jax.Array) -> State:
        """Start an episode."""
        angle_key, velocity_key = jax.random.split(rng)
        angle = jax.random.uniform(angle_key, (2,), minval=-jnp.pi, maxval=jnp.pi)
        velocity = jax.random.uniform(velocity_key, (2,), minval=-_START_VELOCITY, maxval=_START_VELOCITY)
        swing, zero = Swing(angle, velocity), jnp.zeros(())
        return State(swing, self._observe(swing), zero, zero)

    def step(self, state: State, action: jax.Array) -> State:
        """Take one step."""
        swing: Any = state.pipeline_state
        swing, _ = jax.lax.scan(lambda s, _: (_runge_kutta(s, _TORQUE * action, _DT / _FRAMES), None), swing, length=_FRAMES)
        height = -jnp.cos(jnp.cumsum(swing.qpos)).mean()
        return state.replace(pipeline_state=swing, obs=self._observe(swing), reward=height)

    def _observe(self, swing: Swing) -> jax.Array:
        return jnp.concatenate([jnp.cos(swing.qpos), jnp.sin(swing.qpos), swing.qvel])

    @property
    def observation_size(self) -> int:
        """Length of the observation vector."""
        return 6

    @property
    def action_size(self) -> int:
        """Number of joints."""
        return 2

    @property
    def backend(self) -> str:
        """What the motion is computed by."""
        return BACKEND

    @functools.cached_property
    def mj_model(self) -> Any:
        """The same pendulum as a mujoco.MjModel: for pictures, and to check the motion against."""
        import mujoco

        spec = mujoco.MjSpec()
        parent = spec.worldbody
        for link, height in (("upper", 0.0), ("lower", -1.0)):
            parent = parent.add_body(name=link, pos=[0.0, 0.0, height])
            parent.add_joint(name=link, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0.0, 1.0, 0.0])
            free = dict(contype=0, conaffinity=0)
            parent.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[_BOB, 0.0, 0.0], pos=[0.0, 0.0, -1.0], mass=1.0, **free)
            rod = dict(fromto=[0.0, 0.0, 0.0, 0.0, 0.0, -1.0], size=[0.02, 0.0, 0.0], mass=0.0)
            parent.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, **rod, **free)
            motor = spec.add_actuator(name=link, target=link, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            motor.gear[0] = _TORQUE
        return spec.compile()


def make(name: str, backend: str) -> DoublePendulum:
    """The pendulum."""
    return DoublePendulum()


def _runge_kutta(swing: Swing, torque: jax.Array, dt: float) -> Swing:
    """One step of the classical Runge-Kutta method with a constant torque."""

    def rate(s: Swing) -> Swing:
        return Swing(s.qvel, acceleration(s, torque))

    def along(slope: Swing, fraction: float) -> Swing:
        return jax.tree.map(lambda x, dx: x + fraction * dt * dx, swing, slope)

    k1 = rate(swing)
    k2 = rate(along(k1, 0.5))
    k3 = rate(along(k2, 0.5))
    k4 = rate(along(k3, 1.0))
    return jax.tree.map(lambda x, a, b, c, d: x + dt / 6.0 * (a + 2.0 * b + 2.0 * c + d), swing, k1, k2, k3, k4)
