"""dm_control's tasks of swinging a pole up, whose physics has no contact: the suite's rewards, observations and starts, in JAX."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from brax.envs.base import State

from pwm_jax.envs.simulators.mjx_env import MjxEnv
from pwm_jax.envs.simulators.models import suite_spec

_ACTION_REPEAT = 2  # as in MT80
_UPRIGHT_COSINE = math.cos(math.radians(8.0))
_NOISE = 0.01
_CENTRE_MARGIN, _VELOCITY_MARGIN = 2.0, 5.0


class SwingUpEnv(MjxEnv):
    """Swing the pole up and hold it: `pendulum-swingup` and `cartpole-swingup` of dm_control, as MT80 has them.

    One step is two of the suite's control steps with one action, their rewards added, so that an episode of 500 steps earns at most
    1000. Observation: the cart's position where there is one, cosine and sine of the pole's angle from the top, then all velocities. No
    episode terminates.
    """

    def __init__(self, domain: str, backend: str) -> None:
        super().__init__(suite_spec(domain).compile(), 1, backend)
        self.dt *= _ACTION_REPEAT
        self._has_cart = domain == "cartpole"
        self._pole = self.mj_model.body("pole_1" if self._has_cart else "pole").id

    def reset(self, rng: jax.Array) -> State:
        """Start an episode: the pendulum anywhere at rest, the cart's pole hanging, both nearly still."""
        if self._has_cart:
            qpos, qvel = _NOISE * jax.random.normal(rng, (2, 2)) + jnp.array([[0.0, jnp.pi], [0.0, 0.0]])
        else:
            qpos, qvel = jax.random.uniform(rng, (1,), minval=-jnp.pi, maxval=jnp.pi), jnp.zeros(1)
        physics, zero = self.pipeline_init(qpos, qvel), jnp.zeros(())
        return State(physics, self._observe(physics), zero, zero)

    def step(self, state: State, action: jax.Array) -> State:
        """Take one step."""

        def control_step(physics: Any, _: None) -> tuple[Any, jax.Array]:
            physics = self.pipeline_step(physics, action)
            return physics, self._reward(physics, action)

        physics, reward = jax.lax.scan(control_step, state.pipeline_state, length=_ACTION_REPEAT)
        return state.replace(pipeline_state=physics, obs=self._observe(physics), reward=reward.sum())

    def _cosine(self, physics: Any) -> jax.Array:
        return physics.xmat[self._pole, 2, 2]

    def _reward(self, physics: Any, action: jax.Array) -> jax.Array:
        cosine = self._cosine(physics)
        if not self._has_cart:
            return (cosine >= _UPRIGHT_COSINE).astype(jnp.float32)
        centred = (1.0 + _tolerance(physics.qpos[0], _CENTRE_MARGIN)) / 2.0
        slow = (1.0 + _tolerance(physics.qvel[1], _VELOCITY_MARGIN)) / 2.0
        gentle = (4.0 + jnp.maximum(1.0 - jnp.square(action[0]), 0.0)) / 5.0
        return (cosine + 1.0) / 2.0 * gentle * slow * centred

    def _observe(self, physics: Any) -> jax.Array:
        cart = physics.qpos[:1] if self._has_cart else physics.qpos[:0]
        return jnp.concatenate([cart, self._cosine(physics)[None], physics.xmat[self._pole, 0, 2][None], physics.qvel])


def make(name: str, backend: str) -> SwingUpEnv:
    """The swing-up task of dm_control's pendulum or cartpole."""
    return SwingUpEnv(name.split("-")[1], backend)


def _tolerance(x: jax.Array, margin: float) -> jax.Array:
    """dm_control's `rewards.tolerance` about 0 with its default sigmoid: 1 at 0, falling to 0.1 at the margin."""
    return jnp.power(0.1, jnp.square(x / margin))
