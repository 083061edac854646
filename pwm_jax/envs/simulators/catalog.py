"""The simulated tasks as data: what is known about a task before any simulator is imported.

This module imports nothing but the standard library.
"""

from __future__ import annotations

import dataclasses
import difflib
import re

from pwm_jax.envs.catalog import UnknownTaskError

BRAX = "brax"
MJX = "mjx"
MUSCLE = "muscle"
TOY = "toy"
SUITES = (BRAX, MJX, MUSCLE, TOY)  # what the name of a simulated task begins with


@dataclasses.dataclass(frozen=True)
class SimulatorFacts:
    """Facts of one task: sizes, `episode_length` in environment steps, `max_return`, and backends with the default one first.

    `max_return` is what a return is divided by to become a score: a good return, not a bound. For the run tasks it is that of
    `episode_length` steps, upright and without control cost, at the speed that the table names. `stiffness` multiplies that of contacts.
    """

    name: str
    suite: str
    obs_dim: int
    action_dim: int
    episode_length: int
    max_return: float
    backends: tuple[str, ...]
    stiffness: float = 1.0


_EPISODE_LENGTHS = {"mjx-pendulum-swingup": 500, "mjx-cartpole-swingup": 500}  # those of all others is 1000
STIFFNESS_BACKENDS = ("generalized", "mjx")  # whose contacts are MuJoCo's, springs with a time constant
_BRAX_BACKENDS = ("generalized", "spring", "positional", "mjx")
_OWN_BACKENDS = ("mjx", "mujoco")
# C MuJoCo first: on a CPU it steps these several times as fast as MJX, and there is no compilation of minutes.
_MUSCLE_BACKENDS = ("mujoco", "mjx")
# MJX takes the full body's model, but XLA had not compiled a step of it in 25 minutes.
_BODY_BACKENDS = ("mujoco",)

# name, suite, obs, action, return of one step that makes `max_return` (and what it stands for), backends
_TABLE = (
    ("brax-hopper", BRAX, 11, 3, 3.0, _BRAX_BACKENDS),  # 1 healthy, 2 m/s
    ("brax-ant", BRAX, 27, 8, 8.0, _BRAX_BACKENDS),  # 1 healthy, 7 m/s
    ("brax-humanoid", BRAX, 244, 17, 12.5, _BRAX_BACKENDS),  # 5 healthy, 1.25 a m/s at 6 m/s
    ("mjx-quadruped", MJX, 69, 12, 5.0, _OWN_BACKENDS),  # 1 healthy, 1 upright, 3 m/s
    ("mjx-humanoid", MJX, 67, 21, 6.0, _OWN_BACKENDS),  # 1 healthy, 1 upright, 4 m/s
    ("mjx-humanoid-cmu", MJX, 137, 56, 6.0, _OWN_BACKENDS),  # 1 healthy, 1 upright, 4 m/s
    ("mjx-pendulum-swingup", MJX, 3, 1, 2.0, _OWN_BACKENDS),  # on top in both control steps
    ("mjx-cartpole-swingup", MJX, 5, 1, 2.0, _OWN_BACKENDS),  # as mjx-pendulum-swingup
    ("muscle-legs", MUSCLE, 161, 80, 5.0, _MUSCLE_BACKENDS),  # 1 healthy, 1 upright, 3 m/s
    ("muscle-arms", MUSCLE, 290, 126, 1.0, _MUSCLE_BACKENDS),  # both hands on their targets
    ("muscle-legs-torso", MUSCLE, 407, 290, 5.0, _MUSCLE_BACKENDS),  # as muscle-legs
    ("muscle-body", MUSCLE, 685, 416, 5.0, _BODY_BACKENDS),  # as muscle-legs
    ("toy-double-pendulum", TOY, 6, 2, 1.0, ("closed-form",)),  # the tip on top
)
_FACTS = {
    name: SimulatorFacts(name, suite, obs_dim, action_dim, length, length * reward, backends)
    for name, suite, obs_dim, action_dim, reward, backends in _TABLE
    for length in [_EPISODE_LENGTHS.get(name, 1000)]
}

SIMULATORS: tuple[str, ...] = tuple(_FACTS)


def split_name(name: str) -> tuple[str, str | None, float]:
    """A task's name without what may follow it, and these: backend and stiffness of contacts.

    brax-ant-mjx-stiffness4 is brax-ant on mjx, with contacts four times as stiff.
    """
    plain, stiffness, factor = name.partition("-stiffness")
    for task, facts in _FACTS.items():
        for backend in facts.backends:
            if plain == f"{task}-{backend}":
                return task, backend, _number(factor, name) if stiffness else 1.0
    return name, None, 1.0


def _number(text: str, name: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) > 0:
        return float(text)
    raise UnknownTaskError(f"unknown simulated task {name!r}: after -stiffness comes a positive number, as in brax-ant-mjx-stiffness4")


def simulator_facts(name: str) -> SimulatorFacts:
    """Facts of a simulated task, on its default backend, or on the one that the name ends in: brax-ant, brax-ant-spring.

    On "generalized" and "mjx", Brax's tasks can have contacts of another stiffness: see `split_name`.

    Raises:
      UnknownTaskError: no such task; names the nearest. Or contacts of this backend have no stiffness that could be changed.
    """
    task, backend, stiffness = split_name(name)
    if task in _FACTS:
        facts = _FACTS[task] if backend is None else dataclasses.replace(_FACTS[task], name=name, backends=(backend,), stiffness=stiffness)
        if stiffness != 1.0 and (facts.suite != BRAX or backend not in STIFFNESS_BACKENDS):
            raise UnknownTaskError(f"{name}: only Brax's tasks on {' or '.join(STIFFNESS_BACKENDS)} can have contacts of another stiffness")
        return facts
    every = [*SIMULATORS, *(f"{task}-{backend}" for task, facts in _FACTS.items() for backend in facts.backends)]
    nearest = difflib.get_close_matches(name, every, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(near) for near in nearest)}?" if nearest else f"there are {', '.join(SIMULATORS)}"
    raise UnknownTaskError(f"unknown simulated task {name!r}: {hint}")
