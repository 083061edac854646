"""Brax's own tasks, on each of its backends."""

from __future__ import annotations

import math

import jax.numpy as jnp
import mujoco
import numpy as np
from brax.envs.ant import Ant
from brax.envs.base import PipelineEnv
from brax.envs.hopper import Hopper
from brax.envs.humanoid import Humanoid

_TASKS: dict[str, type[PipelineEnv]] = {"brax-hopper": Hopper, "brax-ant": Ant, "brax-humanoid": Humanoid}


def make(name: str, backend: str, stiffness: float = 1.0) -> PipelineEnv:
    """One of Brax's environments as Brax defines it, but for the stiffness of its contacts, which is multiplied.

    Raises ValueError for contacts so stiff that the simulator's time step is more than half of their time constant.

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
    if stiffness != 1.0:
        # MuJoCo's contacts are springs of stiffness 1 / (time constant x damping ratio)^2.
        solref = np.array(env.sys.mj_model.geom_solref)
        if (solref[:, 0] <= 0).any():
            raise ValueError(f"{name} has contacts with a stiffness of their own, not a time constant")
        solref[:, 0] /= math.sqrt(stiffness)
        shortest, step = float(solref[:, 0].min()), float(env.sys.opt.timestep)
        if shortest < 2.0 * step:
            most = stiffness * (shortest / (2.0 * step)) ** 2
            raise ValueError(
                f"{name} on {backend} steps by {step:g} s, too long for contacts {stiffness:g} times as stiff: at most {most:.3g}"
            )
        env.sys.mj_model.geom_solref[:] = solref
        env.sys = env.sys.tree_replace({"geom_solref": jnp.asarray(solref, jnp.float32)})
    return env
