"""Sets of policies: one at a time, vmapped or in groups they learn the same, and a policy does not notice its company."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import AFFINE_MODEL, AFFINE_POLICY, make_batch, make_config, world_model_params

from pwm_jax import pwm
from pwm_jax.config import Config
from pwm_jax.training.policies import PolicySet, act, exploration_noise, init_policies, update_policies
from pwm_jax.types import Metrics, Starts

CONFIG = make_config(AFFINE_MODEL, **AFFINE_POLICY)
TASK_ID, SEED = [0, 2, 2, 1, 0], [0, 0, 1, 0, 0]
STATES = make_batch(CONFIG, horizon=1, size=200)
WORLD_MODEL = world_model_params(CONFIG)
traces: list[int] = []


def sample_starts(key: jax.Array, task_id: jax.Array) -> Starts:
    """Random rows of STATES, shifted by the task."""
    rows = jax.random.randint(key, (CONFIG.policy.batch_size,), 0, 200)
    action = STATES.action[0][rows] * jnp.asarray(CONFIG.model.action_mask)[task_id]
    return Starts(STATES.obs[0][rows] + 0.1 * task_id, action, jnp.full(rows.shape, task_id))


@functools.partial(jax.jit, static_argnames=("num_updates", "config", "policies_per_batch"))
def learn(policies: PolicySet, num_updates: int, config: Config, policies_per_batch: int) -> tuple[PolicySet, Metrics]:
    traces.append(policies_per_batch)
    return update_policies(policies, WORLD_MODEL, sample_starts, num_updates, config, policies_per_batch)


start = jax.jit(init_policies, static_argnames="config")


def fresh(members: list[int]) -> PolicySet:
    return start(CONFIG, np.take(TASK_ID, members), np.take(SEED, members))


@functools.cache
def together() -> tuple[PolicySet, Metrics]:
    return learn(fresh([0, 1, 2, 3, 4]), 2, CONFIG, 0)


def assert_same(actual: object, expected: object, members: list[int]) -> None:
    """`actual` is what `expected` holds for these members."""
    for (path, wanted), leaf in zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(actual), strict=True):
        np.testing.assert_allclose(leaf, wanted[np.array(members)], rtol=1e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("policies_per_batch", [1, 2, 7])
def test_groups_of_any_size_learn_the_same(policies_per_batch: int) -> None:
    policies, metrics = learn(fresh([0, 1, 2, 3, 4]), 2, CONFIG, policies_per_batch)
    assert_same((policies.state, metrics), (together()[0].state, together()[1]), [0, 1, 2, 3, 4])


def test_a_policy_does_not_depend_on_its_company() -> None:
    policies, metrics = learn(fresh([3, 1]), 2, CONFIG, 0)
    assert_same((policies.state, metrics), (together()[0].state, together()[1]), [3, 1])


def test_seeds_and_tasks_learn_differently_and_equals_equally() -> None:
    state = together()[0].state
    kernel = np.asarray(state.actor_params["linear_0"]["kernel"])
    np.testing.assert_array_equal(kernel[0], kernel[4])
    for i, j in ((0, 1), (1, 2), (1, 3)):
        assert np.abs(kernel[i] - kernel[j]).max() > 0.01
    np.testing.assert_array_equal(state.step, 2)


def test_a_set_is_updated_like_its_members_one_by_one() -> None:
    key = jax.random.fold_in(jax.random.key(SEED[2]), TASK_ID[2])
    draw_key, update_key = jax.random.split(key)
    update = jax.jit(functools.partial(pwm.update_policy, config=CONFIG))
    state, seen = jax.jit(pwm.init_policy, static_argnums=0)(CONFIG, key), []
    for step in range(2):
        starts = sample_starts(jax.random.fold_in(draw_key, step), jnp.int32(TASK_ID[2]))
        state, metrics = update(state, WORLD_MODEL, starts, update_key)
        seen.append(metrics)
    policies, means = together()
    wanted = jax.tree.map(lambda *values: jnp.stack(values).mean(0)[None], *seen)
    assert_same(jax.tree.map(lambda leaf: leaf[2:3], (policies.state, means)), (jax.tree.map(lambda leaf: leaf[None], state), wanted), [0])


def test_resumed_learning_draws_the_same_numbers() -> None:
    halfway, _ = learn(fresh([0, 1, 2, 3, 4]), 1, CONFIG, 0)
    policies, _ = learn(halfway, 1, CONFIG, 0)
    assert_same(policies.state, together()[0].state, [0, 1, 2, 3, 4])


def test_all_policies_are_one_program() -> None:
    policies, _ = learn(together()[0], 2, CONFIG, 0)  # compiles where the programs of other tests have been dropped
    before = len(traces)
    for _ in range(2):
        policies, _ = learn(policies, 2, CONFIG, 0)
    assert len(traces) == before
    np.testing.assert_array_equal(policies.state.step, 8)


def test_each_policy_acts_in_its_own_environments() -> None:
    policies, params = together()[0], WORLD_MODEL
    obs = jnp.asarray(np.random.default_rng(3).normal(size=(5, 4, 5)), jnp.float32)
    run = jax.jit(lambda obs, noise: act(policies, params, obs, CONFIG, noise))
    noise = jnp.asarray(np.random.default_rng(4).normal(size=(5, 4, 3)), jnp.float32)
    greedy, noisy = run(obs, None), run(obs, noise)
    assert greedy.shape == (5, 4, 3)
    for p, task_id in enumerate(TASK_ID):
        actor_params = jax.tree.map(lambda leaf, p=p: leaf[p], policies.state.actor_params)
        expected = pwm.act(actor_params, params, obs[p], jnp.full(4, task_id), CONFIG)
        np.testing.assert_allclose(greedy[p], expected, atol=2e-6)
        own = CONFIG.model.action_mask[task_id] > 0
        assert (np.asarray(noisy[p])[:, ~own] == 0).all()
        assert (np.abs(noisy - greedy)[p][:, own] > 0).all()


def noise_of(policies: PolicySet, steps: range, longest: int) -> np.ndarray:
    """[T, P, E, A] of three environments."""
    draw = jax.jit(lambda step: exploration_noise(policies, jax.random.key(0), step, 3, 2, longest))
    return np.stack([draw(step) for step in steps])


def test_each_environment_keeps_its_noise_for_its_own_number_of_steps() -> None:
    noise = noise_of(fresh([0, 1, 4]), range(32), 16)
    assert noise.shape == (32, 3, 3, 2)
    for env, hold in enumerate((1, 4, 16)):
        changed = (np.diff(noise[:, :, env], axis=0) != 0).all((1, 2))
        np.testing.assert_array_equal(np.flatnonzero(changed) + 1, np.arange(hold, 32, hold))


def test_exploration_is_a_policys_own_wherever_it_stands() -> None:
    noise = noise_of(fresh([0, 1, 4]), range(200), 1)
    np.testing.assert_array_equal(noise[:, 0], noise[:, 2])  # the same seed and task
    flat = noise[:, :2].reshape(200, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(12)).max() < 0.3  # independent between policies, environments and components
    assert abs(flat.mean()) < 0.05
    assert abs(flat.std() - 1) < 0.05
