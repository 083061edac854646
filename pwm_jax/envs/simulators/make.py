"""Tasks of pure-JAX simulators by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pwm_jax.envs.catalog import UnknownTaskError

if TYPE_CHECKING:
    from brax.envs.base import Env

ROBOTS = ("hopper", "ant", "humanoid")
BACKENDS = ("generalized", "spring", "positional", "mjx")
BRAX_TASKS = tuple(f"brax-{robot}-{backend}" for robot in ROBOTS for backend in BACKENDS)


def make_env(name: str) -> Env:
    """The Brax environment of one of `BRAX_TASKS`, unwrapped.

    Raises:
        UnknownTaskError: there is no such task; names those there are.
    """
    if name not in BRAX_TASKS:
        raise UnknownTaskError(f"unknown task {name!r}; there are {', '.join(BRAX_TASKS)}")
    from brax import envs

    _, robot, backend = name.split("-")
    return envs.get_environment(robot, backend=backend)
