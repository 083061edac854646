"""Brax's own tasks, on each of its backends."""

from __future__ import annotations

import mujoco
from brax.envs.ant import Ant
from brax.envs.base import PipelineEnv
from brax.envs.hopper import Hopper
from brax.envs.humanoid import Humanoid

_TASKS: dict[str, type[PipelineEnv]] = {"brax-hopper": Hopper, "brax-ant": Ant, "brax-humanoid": Humanoid}


def make(name: str, backend: str) -> PipelineEnv:
    """One of Brax's environments as Brax defines it.

    On "mjx" every task gets the solver settings that Brax gives its ant and humanoid: one Newton iteration of four line-search
    steps, which MJX unrolls, so that the step can be differentiated in reverse; its hopper alone has a loop of unknown length.
    """
    env = _TASKS[name](backend=backend)
    if backend == "mjx":
        env.sys = env.sys.tree_replace(
            {
                "opt.solver": mujoco.mjtSolver.mjSOL_NEWTON,
                "opt.disableflags": mujoco.mjtDisableBit.mjDSBL_EULERDAMP,
                "opt.iterations": 1,
                "opt.ls_iterations": 4,
            }
        )
    return env
