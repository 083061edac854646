"""`Episodes` as the batched environment that Brax's agents train on: ended episodes restart from states drawn anew.

Brax's own training wrapper begins every later episode from the environment's first start state.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax.envs.simulators.episodes import Episodes
from pwm_jax.types import SimState

if TYPE_CHECKING:
    from brax.envs.base import Env, State


@dataclasses.dataclass(frozen=True, eq=False)
class FreshStarts:
    """A vectorised Brax environment whose state wraps that of `episodes`, with what `brax.training` reads of one.

    As there, `done` is termination or truncation, `info["truncation"]` is 1 where only the length ended an episode, and
    `info["steps"]` and `info["episode_metrics"]` still speak of an episode in the step that ends it, while `obs` begins the next.
    The environment's own metrics are left out.
    """

    episodes: Episodes

    @property
    def observation_size(self) -> Any:
        """Length of an observation."""
        return self.episodes.env.observation_size

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return self.episodes.env.action_size

    def reset(self, rng: Array) -> State:
        """Begin an episode in as many environments as there are keys in `rng`; the first draws all start states."""
        from brax.envs.base import State

        num_envs = rng.shape[0]
        start_key, key = jax.random.split(rng[0])
        sim, zeros = self.episodes.reset(start_key, num_envs), jnp.zeros(num_envs)
        totals = {"sum_reward": zeros, "length": zeros}
        info = {"key": key, "steps": zeros, "truncation": zeros, "episode_done": zeros, "episode_metrics": totals}
        return State(sim, sim.obs, zeros, zeros, {}, info)

    def step(self, state: State, action: Array) -> State:
        """One step of every environment with actions [N, A]."""
        key, restart_key = jax.random.split(state.info["key"])
        sim: SimState = state.pipeline_state
        steps = (sim.steps + 1).astype(jnp.float32)
        sim, transition = self.episodes.step(sim, action, restart_key)
        done = jnp.maximum(transition.terminated, transition.truncated)
        earlier = state.info["episode_metrics"]["sum_reward"] * (1.0 - state.info["episode_done"])
        totals = {"sum_reward": earlier + transition.reward, "length": steps}
        info = {"key": key, "steps": steps, "truncation": transition.truncated, "episode_done": done, "episode_metrics": totals}
        return state.replace(pipeline_state=sim, obs=sim.obs, reward=transition.reward, done=done, info={**state.info, **info})


def wrap(env: Env, episode_length: int, action_repeat: int = 1, randomization_fn: None = None) -> FreshStarts:
    """The `wrap_env_fn` of Brax's agents. Raises ValueError where actions are to be repeated or systems randomised."""
    if action_repeat != 1 or randomization_fn is not None:
        raise ValueError("episodes neither repeat actions nor randomise the system")
    return FreshStarts(Episodes(env, episode_length))
