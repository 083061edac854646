"""Batched simulators: tasks as Brax environments, which run inside jitted JAX programs, with their facts and pictures.

`make_env(name, backend)` gives a `brax.envs.base.Env`: pure `reset(key)` and `step(state, action)` that jit and vmap, actions in
[-1, 1], `State.done` 1.0 exactly where the task terminated. Episode length, batching and new episodes are the caller's.
Importing this package imports no simulator and no JAX; conventions of the tasks are in docs/environments.md.
"""

from __future__ import annotations

from pwm_jax.envs.simulators.catalog import SIMULATORS, SimulatorFacts, simulator_facts
from pwm_jax.envs.simulators.make import make_env, make_simulator
from pwm_jax.envs.simulators.pictures import episode_page, render_episode

__all__ = ["SIMULATORS", "SimulatorFacts", "episode_page", "make_env", "make_simulator", "render_episode", "simulator_facts"]
