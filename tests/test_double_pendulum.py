"""The double pendulum against C MuJoCo, the conservation of energy, and its own conventions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from pwm_jax.envs.simulators import make_env
from pwm_jax.envs.simulators.double_pendulum import Swing, energy

ENV: Any = make_env("toy-double-pendulum")


def _run(qpos: list[float], action: list[float], steps: int) -> Any:
    """The states of `steps` steps from rest, stacked."""
    state = ENV.reset(jax.random.key(0)).replace(pipeline_state=Swing(jnp.array(qpos), jnp.zeros(2)))

    def step(state: Any, _: None) -> tuple[Any, Any]:
        state = ENV.step(state, jnp.array(action))
        return state, state

    return jax.jit(lambda: jax.lax.scan(step, state, length=steps)[1])()


@pytest.mark.parametrize("action", [[0.0, 0.0], [0.5, -0.3]])
def test_it_swings_as_mujoco_says(action: list[float]) -> None:
    model = ENV.mj_model
    model.opt.timestep, model.opt.integrator = 1e-3, mujoco.mjtIntegrator.mjINT_RK4
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = [2.0, 1.0], action
    mujoco.mj_step(model, data, 1_000)
    last = jax.tree.map(lambda leaf: leaf[-1], _run([2.0, 1.0], action, 20).pipeline_state)
    np.testing.assert_allclose(last.qpos, data.qpos, atol=0.02)  # MuJoCo's bobs have an inertia of their own, of 4e-4 kg m^2
    np.testing.assert_allclose(last.qvel, data.qvel, atol=0.05)
    assert data.ncon == 0


def test_energy_is_kept_without_torque() -> None:
    swing = _run([2.0, 1.0], [0.0, 0.0], 100).pipeline_state
    values = jax.vmap(energy)(swing)
    np.testing.assert_allclose(values, energy(Swing(jnp.array([2.0, 1.0]), jnp.zeros(2))), atol=0.02)


def test_reward_is_the_height_of_the_tip_and_the_top_is_an_equilibrium() -> None:
    top = _run([np.pi, 0.0], [0.0, 0.0], 1)
    assert top.reward[0] == pytest.approx(1.0)
    hanging = _run([0.0, 0.0], [0.0, 0.0], 20)
    np.testing.assert_allclose(hanging.reward, -1.0, atol=1e-6)
    sideways = ENV.step(ENV.reset(jax.random.key(1)).replace(pipeline_state=Swing(jnp.array([np.pi / 2, 0.0]), jnp.zeros(2))), jnp.zeros(2))
    assert -0.03 < sideways.reward < 0.0  # it begins to fall


def test_neighbours_part_exponentially() -> None:
    begin, near = _run([2.5, 0.5], [0.0, 0.0], 200), _run([2.5, 0.5 + 1e-3], [0.0, 0.0], 200)
    apart = np.linalg.norm(np.asarray(begin.obs - near.obs), axis=1)
    assert apart[:10].max() < 0.02
    assert apart[-50:].max() > 1.0
