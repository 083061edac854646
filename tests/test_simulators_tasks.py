"""The tasks' conventions, stepped by C MuJoCo, which needs no compilation: resets, actions, rewards, termination, batches."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from pwm_jax.envs.simulators import SIMULATORS, make_env, simulator_facts

OWN = [name for name in SIMULATORS if "mujoco" in simulator_facts(name).backends]
RUNNERS = [name for name in OWN if name != "muscle-arms" and not name.endswith("-swingup")]


def _env(name: str) -> Any:
    return make_env(name, "mujoco")


@functools.cache
def _reset_and_step(name: str) -> tuple[Any, Any]:
    return jax.jit(_env(name).reset), jax.jit(_env(name).step)


def _action(env: Any, seed: int = 0, batch: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (*batch, env.action_size), minval=-1.0, maxval=1.0)


@pytest.mark.parametrize("name", OWN)
def test_a_batch_is_its_members_and_resets_differ(name: str) -> None:
    env = _env(name)
    keys = jax.random.split(jax.random.key(3), 3)
    state, action = jax.jit(jax.vmap(env.reset))(keys), _action(env, batch=(3,))
    after = jax.jit(jax.vmap(env.step))(state, action)
    assert not np.allclose(state.obs[0], state.obs[1], atol=1e-3)
    reset, step = _reset_and_step(name)
    single = step(reset(keys[1]), action[1])
    np.testing.assert_allclose(single.obs, after.obs[1], atol=2e-3)
    np.testing.assert_allclose(single.reward, after.reward[1], atol=2e-3)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert np.isfinite(after.obs).all()


@pytest.mark.parametrize("name", OWN)
def test_actions_reach_the_whole_control_range(name: str) -> None:
    env = _env(name)
    model = env.mj_model
    muscle = model.actuator_dyntype == mujoco.mjtDyn.mjDYN_MUSCLE
    assert muscle.all() == name.startswith("muscle")
    ranges = np.where(muscle[:, None], [0.0, 1.0], model.actuator_ctrlrange)
    ones = jnp.ones(env.action_size)
    for action, expected in ((-ones, ranges[:, 0]), (0 * ones, ranges.mean(axis=1)), (ones, ranges[:, 1])):
        np.testing.assert_allclose(env.controls(action), expected, atol=1e-6)
    assert env.effort(ones) == pytest.approx(1.0)
    assert env.effort(-ones) == pytest.approx(0.0 if name.startswith("muscle") else 1.0)


@pytest.mark.parametrize("name", RUNNERS)
def test_runners_stand_upright_and_face_forward(name: str) -> None:
    env = _env(name)
    model, data = env.mj_model, mujoco.MjData(env.mj_model)
    data.qpos[:] = np.asarray(env._joint_noise._pose)
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
    np.testing.assert_allclose(env._frame(env.pipeline_init(jnp.asarray(data.qpos), jnp.zeros(model.nv))), np.eye(3), atol=1e-5)
    toes_and_heel = {
        "mjx-quadruped": ("toe_front_left", "toe_back_left"),
        "mjx-humanoid": ("right_hand", "torso"),
        "mjx-humanoid-cmu": ("ltoes", "lfoot"),
    }.get(name, ("toes_r", "calcn_r"))
    front, rear = (data.body(part).xpos for part in toes_and_heel)
    ahead = front - rear
    assert ahead[0] > 0.05
    assert ahead[0] > 3 * abs(ahead[1]) or name == "mjx-humanoid"


@pytest.mark.parametrize("name", RUNNERS)
def test_reward_by_hand(name: str) -> None:
    env = _env(name)
    model, data = env.mj_model, mujoco.MjData(env.mj_model)
    reset, step = _reset_and_step(name)
    state, action = reset(jax.random.key(0)), _action(env)
    data.qpos[:], data.qvel[:] = state.pipeline_state.qpos, state.pipeline_state.qvel
    data.ctrl[:] = env.controls(action)
    mujoco.mj_fwdPosition(model, data)
    before = data.subtree_com[1, 0]
    mujoco.mj_step(model, data, env.runner.n_frames)
    mujoco.mj_fwdPosition(model, data)
    velocity = (data.subtree_com[1, 0] - before) / (env.runner.n_frames * model.opt.timestep)
    # The model's axis that points up in the standing pose: z, but for the CMU skeleton and the muscle-driven torso, whose is y.
    axis = 2 if name in ("mjx-quadruped", "mjx-humanoid") else 1
    upright = data.body(env.runner.trunk).xmat.reshape(3, 3)[2, axis]
    excitation = (np.asarray(action) + 1) / 2 if name.startswith("muscle") else np.asarray(action)
    after = step(state, action)
    assert after.reward == pytest.approx(velocity + upright + 1 - 0.1 * np.mean(excitation**2), abs=2e-3)
    assert after.done == 0.0


@pytest.mark.parametrize("name", RUNNERS)
def test_runners_terminate_when_they_lie_or_are_low(name: str) -> None:
    env = _env(name)
    state = _reset_and_step(name)[0](jax.random.key(0))
    qpos, still = state.pipeline_state.qpos, jnp.zeros(env.mj_model.nv)

    def done_from(qpos: jax.Array, min_height: float = env.runner.min_height) -> float:
        task = copy.copy(env)
        task.runner = dataclasses.replace(env.runner, min_height=min_height)
        return float(jax.jit(task.step)(state.replace(pipeline_state=env.pipeline_init(qpos, still)), jnp.zeros(env.action_size)).done)

    lying = np.empty(4)
    mujoco.mju_mulQuat(lying, np.array([np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0]), np.asarray(qpos[3:7], np.float64))
    assert done_from(qpos.at[2].add(2.0).at[3:7].set(jnp.asarray(lying, jnp.float32))) == 1.0
    height = float(state.pipeline_state.xpos[env.mj_model.body(env.runner.height_of).id, 2])
    assert height > env.runner.min_height + 0.2
    assert [done_from(qpos, height + change) for change in (-0.05, 0.05)] == [0.0, 1.0]


def test_reaching_rewards_hands_on_their_targets() -> None:
    env = _env("muscle-arms")
    reset, step = _reset_and_step("muscle-arms")
    state, action = reset(jax.random.key(0)), _action(env)
    first = step(state, action)
    hands = np.stack([first.pipeline_state.xpos[env.mj_model.body(f"lunate_{side}").id] for side in "rl"])
    cost = 0.1 * np.mean(((np.asarray(action) + 1) / 2) ** 2)
    distance = np.linalg.norm(np.asarray(state.info["target"]) - hands, axis=1)
    assert first.reward == pytest.approx(np.exp(-distance / 0.2).mean() - cost, abs=1e-4)
    there = step(state.replace(info={"target": jnp.asarray(hands)}), action)
    assert there.reward == pytest.approx(1 - cost, abs=2e-3)
    assert there.done == 0.0
    other = reset(jax.random.key(1))
    assert not np.allclose(state.info["target"], other.info["target"])


@pytest.mark.parametrize(("name", "nv"), [("muscle-legs", 34), ("muscle-legs-torso", 52), ("muscle-body", 128)])
def test_parts_of_the_body_weigh_as_the_whole(name: str, nv: int) -> None:
    model = _env(name).mj_model
    assert model.nv == nv
    assert model.body_mass.sum() == pytest.approx(84.27, abs=0.01)
    data = mujoco.MjData(model)
    data.qpos[:] = np.asarray(_env(name)._joint_noise.sample(jax.random.key(0)))
    mujoco.mj_forward(model, data)
    coupled = data.efc_pos[data.efc_type == mujoco.mjtConstraint.mjCNSTR_EQUALITY]
    assert len(coupled) == model.neq
    np.testing.assert_allclose(coupled, 0.0, atol=1e-5)


def test_c_mujoco_has_no_gradient() -> None:
    env = _env("mjx-quadruped")
    state = env.reset(jax.random.key(0))
    with pytest.raises(ValueError, match="callbacks do not support JVP"):
        jax.grad(lambda action: env.step(state, action).reward)(_action(env))
