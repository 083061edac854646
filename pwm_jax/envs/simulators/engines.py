"""Two ways to step one MuJoCo model inside a JAX program: MJX, which has gradients, and C MuJoCo behind a callback, which has not.

Both know a state by the names of mjx.Data: qpos [nq], qvel [nv], act [na], xpos [nbody, 3], xmat [nbody, 3, 3] and
subtree_com [nbody, 3]; both leave positions of bodies that belong to qpos (`mj_step` alone leaves those of one step before).
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import os
import threading
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from mujoco import mjx

# With fewer Newton iterations the quadruped and the humanoid, of stiff joints, limits and contacts, explode within a second.
_SOLVER_ITERATIONS = 5
_LINE_SEARCH_ITERATIONS = 6


@struct.dataclass
class Physics:
    """State of a model under C MuJoCo, and what follows from it."""

    qpos: jax.Array
    qvel: jax.Array
    act: jax.Array
    qacc_warmstart: jax.Array
    xpos: jax.Array
    xmat: jax.Array
    subtree_com: jax.Array


class Engine(Protocol):
    """Steps one model."""

    model: mujoco.MjModel

    def init(self, qpos: jax.Array, qvel: jax.Array) -> Any:
        """The state with given positions and velocities, at rest in everything else."""
        ...

    def step(self, physics: Any, ctrl: jax.Array) -> Any:
        """Hold controls [nu] for `n_frames` steps."""
        ...


class MjxEngine:
    """MJX, with a fixed number of Newton iterations, so that no loop of unknown length remains.

    Asked for several iterations, MJX runs a `while_loop`, through which JAX has no reverse mode; asked for one, it has no loop but
    the line search, a scan. So each step here is MJX's own, with its solver of one iteration scanned, each warm-started with the
    result of the one before.
    """

    def __init__(self, model: mujoco.MjModel, n_frames: int) -> None:
        if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4 and (model.nq != model.nv or model.na):
            raise ValueError("Runge-Kutta steps are for joints that turn or slide and actuators without states: use the Euler integrator")
        self.model = copy.copy(model)
        self.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        self.model.opt.iterations = 1
        self.model.opt.ls_iterations = _LINE_SEARCH_ITERATIONS
        self.model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_ENERGY)  # which MJX does not know
        self.model.opt.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
        self._n_frames = n_frames
        self._device_model = mjx.put_model(self.model, impl="jax")
        self._rest = mjx.make_data(self.model, impl="jax")

    def init(self, qpos: jax.Array, qvel: jax.Array) -> Any:
        """The state with given positions and velocities, at rest in everything else."""
        return mjx.fwd_position(self._device_model, self._rest.replace(qpos=qpos, qvel=qvel))

    def step(self, physics: Any, ctrl: jax.Array) -> Any:
        """Hold controls [nu] for `n_frames` steps."""
        return jax.lax.scan(self._frame, physics.replace(ctrl=ctrl), length=self._n_frames)[0]

    def _frame(self, data: Any, _: None) -> tuple[Any, None]:
        """One step: mjx.step without sensors, with the solver's iterations scanned and `fwd_position` last.

        So what follows from the new positions is known at the end of a step, without a second computation.
        """
        integrate = self._runge_kutta if self.model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4 else mjx.euler
        return mjx.fwd_position(self._device_model, integrate(self._device_model, self._accelerate(data))), None

    def _accelerate(self, data: Any) -> Any:
        """Data with the acceleration at its positions, for which `fwd_position` has run."""
        model = self._device_model

        def newton(data: Any, _: None) -> tuple[Any, None]:
            data = mjx.solve(model, data)
            return data.replace(qacc_warmstart=data.qacc), None

        for stage in (mjx.fwd_velocity, mjx.fwd_actuation, mjx.fwd_acceleration):
            data = stage(model, data)
        return jax.lax.scan(newton, data, length=_SOLVER_ITERATIONS)[0]

    def _runge_kutta(self, model: Any, data: Any) -> Any:
        """The classical Runge-Kutta step of joints that turn or slide; MJX's own would solve each stage by one iteration."""
        dt = model.opt.timestep

        def add(carry: Any, tableau: jax.Array) -> tuple[Any, None]:
            (stage, qvel, qacc), (reach, weight) = carry, tableau
            moved = stage.replace(qpos=data.qpos + reach * dt * stage.qvel, qvel=data.qvel + reach * dt * stage.qacc)
            stage = self._accelerate(mjx.fwd_position(model, moved))
            return (stage, qvel + weight * stage.qvel, qacc + weight * stage.qacc), None

        tableau = jnp.array([[1 / 2, 1 / 3], [1 / 2, 1 / 3], [1.0, 1 / 6]])
        (last, qvel, qacc), _ = jax.lax.scan(add, (data, data.qvel / 6.0, data.qacc / 6.0), tableau)
        return last.replace(qpos=data.qpos + dt * qvel, qvel=data.qvel + dt * qacc, time=data.time + dt)


class MujocoEngine:
    """C MuJoCo with the model's own solver settings, on all CPU cores: a batch is one callback, whose states share the threads."""

    def __init__(self, model: mujoco.MjModel, n_frames: int) -> None:
        self.model = model
        self._n_frames = n_frames
        self._workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._local = threading.local()
        nbody = model.nbody
        shapes = (model.nq,), (model.nv,), (model.na,), (model.nv,), (nbody, 3), (nbody, 3, 3), (nbody, 3)
        fields: Any = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        self._result = Physics(*fields)

    @functools.cached_property
    def _pool(self) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(self._workers, thread_name_prefix="mujoco")

    def init(self, qpos: jax.Array, qvel: jax.Array) -> Physics:
        """The state with given positions and velocities, at rest in everything else."""
        model = self.model
        return self._call(0, qpos, qvel, jnp.zeros(model.na), jnp.zeros(model.nv), jnp.zeros(model.nu))

    def step(self, physics: Physics, ctrl: jax.Array) -> Physics:
        """Hold controls [nu] for `n_frames` steps."""
        return self._call(self._n_frames, physics.qpos, physics.qvel, physics.act, physics.qacc_warmstart, ctrl)

    def _call(self, frames: int, *arguments: jax.Array) -> Physics:
        return jax.pure_callback(functools.partial(self._on_host, frames), self._result, *arguments, vmap_method="broadcast_all")

    def _on_host(self, frames: int, *arguments: jax.Array) -> Physics:
        """Step states [..., n] with any leading axes."""
        inputs = [np.asarray(argument) for argument in arguments]
        batch_shape = inputs[0].shape[:-1]
        size = int(np.prod(batch_shape))
        rows = [array.reshape(size, array.shape[-1]) for array in inputs]
        outputs = jax.tree.map(lambda leaf: np.empty((size, *leaf.shape), np.float32), self._result)
        chunks = [chunk for chunk in np.array_split(np.arange(size), self._workers) if len(chunk)]
        # Even a single chunk: the stack of the thread that calls back is too small for MuJoCo.
        list(self._pool.map(lambda chunk: self._step_rows(frames, chunk, rows, outputs), chunks))
        return jax.tree.map(lambda array: array.reshape(*batch_shape, *array.shape[1:]), outputs)

    def _step_rows(self, frames: int, chunk: np.ndarray, rows: list[np.ndarray], outputs: Any) -> None:
        """Step the rows of one thread, with the thread's own MjData."""
        if not hasattr(self._local, "data"):
            self._local.data = mujoco.MjData(self.model)
        data = self._local.data
        for row in chunk:
            mujoco.mj_resetData(self.model, data)
            data.qpos[:], data.qvel[:], data.act[:], data.qacc_warmstart[:], data.ctrl[:] = (array[row] for array in rows)
            if frames:
                mujoco.mj_step(self.model, data, frames)
            mujoco.mj_kinematics(self.model, data)
            mujoco.mj_comPos(self.model, data)
            outputs.qpos[row], outputs.qvel[row], outputs.act[row] = data.qpos, data.qvel, data.act
            outputs.qacc_warmstart[row] = data.qacc_warmstart
            outputs.xpos[row], outputs.xmat[row], outputs.subtree_com[row] = data.xpos, data.xmat.reshape(-1, 3, 3), data.subtree_com


ENGINES: dict[str, type[MjxEngine] | type[MujocoEngine]] = {"mjx": MjxEngine, "mujoco": MujocoEngine}
