"""A point on a line as a simulator: x' = x + 0.5 a + drift; reward -(x' - 0.5)^2; ends beyond |x'| > 1, or after `episode_length` steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from pwm_jax.types import SimState, Transition


@dataclasses.dataclass(frozen=True, eq=False)
class PointMass:
    episode_length: int = 5
    drift: float = 0.0

    def reset(self, key: jax.Array, num_envs: int) -> SimState:
        x = jax.random.uniform(key, (num_envs,), minval=-0.1, maxval=0.1)
        return SimState(x, _observe(x), jnp.zeros(num_envs, jnp.int32))

    def step(self, state: SimState, action: jax.Array, key: jax.Array) -> tuple[SimState, Transition]:
        x = state.physics + 0.5 * action[:, 0] + self.drift
        steps = state.steps + 1
        terminated = (jnp.abs(x) > 1).astype(x.dtype)
        truncated = (steps >= self.episode_length) * (1 - terminated)
        last = terminated + truncated > 0
        fresh = self.reset(key, x.shape[0])
        transition = Transition(state.obs, action, -jnp.square(x - 0.5), _observe(x), terminated, truncated)
        x = jnp.where(last, fresh.physics, x)
        return SimState(x, _observe(x), jnp.where(last, 0, steps)), transition


def _observe(x: jax.Array) -> jax.Array:
    return jnp.stack([x, jnp.ones_like(x)], axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class WidePointMass(PointMass):
    """The same with observations as wide as another task's, so that what surrounds a simulator is tested without compiling one."""

    obs_dim: int = 2

    def reset(self, key: jax.Array, num_envs: int) -> SimState:
        return self._widened(super().reset(key, num_envs))

    def step(self, state: SimState, action: jax.Array, key: jax.Array) -> tuple[SimState, Transition]:
        state, transition = super().step(state, action, key)
        return self._widened(state), transition.replace(obs=self._wide(transition.obs), next_obs=self._wide(transition.next_obs))

    def _widened(self, state: SimState) -> SimState:
        return state.replace(obs=self._wide(state.obs))

    def _wide(self, obs: jax.Array) -> jax.Array:
        return jnp.pad(obs[:, :2], ((0, 0), (0, self.obs_dim - 2)))
