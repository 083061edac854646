"""A point on a line as a Brax environment: x' = x + a / 2, reward -(x' - 1/2)^2, ends beyond |x'| > 1; starts within `spread` of 0."""

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State


class Point(Env):
    observation_size = 2
    action_size = 1
    backend = "none"

    def __init__(self, bad_after: float = jnp.inf, spread: float = 0.4):
        self.bad_after, self.spread = bad_after, spread

    def reset(self, rng):
        x = jax.random.uniform(rng, (), minval=-self.spread, maxval=self.spread)
        zero = jnp.zeros(())
        return State(x, self._observe(x), zero, zero, {"distance": zero})

    def step(self, state, action):
        x = state.pipeline_state + 0.5 * action[0]
        reward = jnp.where(jnp.abs(x) > self.bad_after, jnp.nan, -jnp.square(x - 0.5))
        done = (jnp.abs(x) > 1).astype(jnp.float32)
        return state.replace(pipeline_state=x, obs=self._observe(x), reward=reward, done=done, metrics={"distance": jnp.abs(x)})

    def _observe(self, x):
        return jnp.stack([x, jnp.ones_like(x)])
