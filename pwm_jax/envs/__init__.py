"""Real environments: MT80 and users' own tasks as gymnasium environments, and many of them at once in worker processes.

Importing this package imports no simulator; `make` imports the one that its task needs.
"""

from __future__ import annotations

from pwm_jax.envs.base import AgentEnv, EnvUnavailableError
from pwm_jax.envs.catalog import DM_CONTROL, UnknownTaskError, task_facts
from pwm_jax.envs.own import PREFIX, OwnEnv, OwnTask, OwnTaskError
from pwm_jax.envs.rendering import rendering_available

__all__ = ["AgentEnv", "EnvUnavailableError", "OwnTask", "OwnTaskError", "UnknownTaskError", "make", "rendering_available"]


def make(name: str, seed: int | None = None, render_mode: str | None = None) -> AgentEnv:
    """Build the environment of one task in native sizes and agent steps (two control steps each in MT80).

    Args:
      name: an MT80 name, as "walker-walk" or "mw-reach", or that of an own task, as "own-pusher" (see `envs.own`).
      seed: of the environment's own generator; drawn by the system if None.
      render_mode: None or "rgb_array"; `render()` works with either.

    Raises:
      UnknownTaskError: no such task; names the nearest.
      OwnTaskError: the own task's file or environment is not as it should be.
      EnvUnavailableError: the task's simulator is not installed or does not work with the installed mujoco.
    """
    if name.startswith(PREFIX):
        return OwnEnv(name, seed, render_mode)
    facts = task_facts(name)
    if facts.suite == DM_CONTROL:
        from pwm_jax.envs.dm_control import DMControlEnv

        return DMControlEnv(facts, seed, render_mode)
    from pwm_jax.envs.metaworld import MetaWorldEnv

    return MetaWorldEnv(facts, seed, render_mode)
