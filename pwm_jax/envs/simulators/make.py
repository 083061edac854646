"""From a task's name to its Brax environment, importing the one simulator that it needs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from typing import TYPE_CHECKING, Any

from pwm_jax.envs.base import EnvUnavailableError
from pwm_jax.envs.simulators.catalog import BRAX, MUSCLE, simulator_facts, split_name

if TYPE_CHECKING:
    from brax.envs.base import Env

    from pwm_jax.envs.simulators.episodes import Episodes

_REMEDIES = {
    BRAX: "pip install brax==0.14.2 mujoco-mjx==3.16.0",
    MUSCLE: "pip install musclemimic-models",
}
_REMEDY = "pip install dm_control==1.0.49 brax==0.14.2 mujoco-mjx==3.16.0"
_MODULES = {
    "mjx-quadruped": "quadruped",
    "mjx-humanoid": "humanoid",
    "mjx-humanoid-cmu": "humanoid",
    "mjx-pendulum-swingup": "swing_up",
    "mjx-cartpole-swingup": "swing_up",
    "toy-double-pendulum": "double_pendulum",
}
_NOISE = ("Failed to import warp", "Failed to import mujoco_warp")


def make_env(name: str, backend: str | None = None) -> Env:
    """The Brax environment of a simulated task; the same object for the same arguments.

    Args:
      name: a name of `catalog.SIMULATORS`, as "brax-ant" or "muscle-legs", or one with a backend at its end, as "brax-ant-spring".
      backend: one of the task's backends; the first if None.

    Raises:
      UnknownTaskError: no such task; names the nearest.
      ValueError: the task has no such backend.
      EnvUnavailableError: a package that the task needs is not installed.
    """
    facts = simulator_facts(name)
    backend = facts.backends[0] if backend is None else backend
    if backend not in facts.backends:
        raise ValueError(f"{name} has no backend {backend!r}: there are {', '.join(facts.backends)}")
    return _build(split_name(name)[0], facts.suite, backend, facts.stiffness)


@functools.cache
def make_simulator(name: str, backend: str | None = None) -> Episodes:
    """Batched episodes of a simulated task; the same object for the same arguments, so that programs of it compile once.

    Raises what `make_env` does.
    """
    from pwm_jax.envs.simulators.episodes import Episodes

    return Episodes(make_env(name, backend), simulator_facts(name).episode_length)


@functools.cache
def _build(name: str, suite: str, backend: str, stiffness: float) -> Any:
    try:
        if suite == BRAX:
            return _import("pwm_jax.envs.simulators.brax_tasks").make(name, backend, stiffness)
        module = _MODULES.get(name, "muscle")
        return _import(f"pwm_jax.envs.simulators.{module}").make(name, backend)
    except ImportError as error:
        raise EnvUnavailableError(f"{name} cannot be built ({error}); to install what it needs: {_REMEDIES.get(suite, _REMEDY)}") from error


def _import(module: str) -> Any:
    """Import a module; what mujoco-mjx prints about its optional Warp backend, which is not used here, is dropped."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            return importlib.import_module(module)
    finally:
        print("".join(line for line in printed.getvalue().splitlines(keepends=True) if not line.startswith(_NOISE)), end="")
