"""Episodes of a Brax environment, batched: lengths, restarts from fresh start states, terminations apart from truncations."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax.types import SimState, Transition

if TYPE_CHECKING:
    from brax.envs.base import Env


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """A `types.Simulator` of the Brax environment `env`, whose episodes are cut after `episode_length` steps.

    A step that ends an episode, by termination or length, is followed by a start state drawn anew, not by one kept from earlier.
    """

    env: Env
    episode_length: int

    def reset(self, key: Array, num_envs: int) -> SimState:
        """Begin an episode in each of `num_envs` environments, from a start state of its own."""
        physics = jax.vmap(self.env.reset)(jax.random.split(key, num_envs))
        return SimState(physics, physics.obs, jnp.zeros(num_envs, jnp.int32))

    def step(self, state: SimState, action: Array, key: Array) -> tuple[SimState, Transition]:
        """One agent step with actions [N, A]; `next_obs` of the transition is what the step led to, before any restart."""
        num_envs = state.steps.shape[0]
        stepped = jax.vmap(self.env.step)(state.physics, action)
        steps = state.steps + 1
        terminated = stepped.done.astype(jnp.float32)
        truncated = (steps >= self.episode_length) * (1.0 - terminated)
        last = (terminated + truncated) > 0
        fresh = self.reset(key, num_envs)

        def restarted(begun: Array, running: Array) -> Array:
            return jnp.where(last.reshape(num_envs, *[1] * (running.ndim - 1)), begun, running)

        transition = Transition(state.obs, action, stepped.reward, stepped.obs, terminated, truncated)
        return jax.tree.map(restarted, fresh, SimState(stepped, stepped.obs, steps)), transition
