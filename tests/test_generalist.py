"""One policy of several tasks: task-conditioned networks, start states of all tasks, the same update as a single task's policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import TASKS, assert_same, fresh_model, make_config, make_episode, write_dataset

from pwm_jax import pwm
from pwm_jax.baselines import generalist
from pwm_jax.baselines.generalist import GeneralistConfig
from pwm_jax.config import Config
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter
from pwm_jax.networks import WorldModel, actor_of, discount_of, state_value
from pwm_jax.training import extract
from pwm_jax.training.extract import StartSampler
from pwm_jax.training.policies import PolicySet

SETTINGS = GeneralistConfig(seeds=(0, 3), steps=4, log_every=2)
CONFIG = generalist.conditioned(make_config(start_balance=0.5, behaviour_weight=0.1, behaviour_filter="advantage"), 2, SETTINGS)


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> StartSampler:
    data = write_dataset(tmp_path_factory.mktemp("data") / "dataset")
    return generalist.starts_of(data, (0, 1), CONFIG, max_episodes=5, seed=0)


def run(policies: PolicySet, starts: StartSampler, steps: int = 4) -> PolicySet:
    settings = dataclasses.replace(SETTINGS, steps=steps)
    return extract.run(policies, fresh_model(CONFIG).params, starts, CONFIG, settings, lambda *_: None)


def test_the_configuration_counts_all_tasks() -> None:
    assert CONFIG.policy.task_conditioned
    assert CONFIG.policy.batch_size == 16  # 8 for each of two tasks
    assert CONFIG.policy.decay_steps == 4
    assert CONFIG.policy_input_dim == 16 + 2
    assert generalist.conditioned(make_config(), 2, dataclasses.replace(SETTINGS, batch_size=6)).policy.batch_size == 6
    lone = make_config()
    lone = dataclasses.replace(lone, model=dataclasses.replace(lone.model, task_dim=0))
    with pytest.raises(ValueError, match="without task embedding"):
        generalist.conditioned(lone, 2, SETTINGS)


def test_start_states_come_from_all_tasks_equally_often(starts: StartSampler) -> None:
    draw = jax.jit(lambda key: starts(key, jnp.int32(0)))
    batches = [draw(key) for key in jax.random.split(jax.random.key(0), 50)]
    task_id = np.concatenate([batch.task_id for batch in batches])
    assert set(task_id.tolist()) == {0, 1}
    assert abs(task_id.mean() - 0.5) < 0.06  # 800 draws
    obs = np.concatenate([batch.obs for batch in batches])
    # Padding tells which task's states these are: the first has 3 observations, the second 6.
    np.testing.assert_array_equal(np.any(obs[:, TASKS.specs[0].obs_dim :] != 0, axis=1), task_id == 1)
    assert all(batch.action.shape == (16, TASKS.action_dim) for batch in batches)


def test_a_task_without_episodes_is_an_error(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "one", TASKS, {}) as writer:
        writer.add_episode(make_episode(0, 0))
    with pytest.raises(DatasetError, match=r"task ids \[1\]"):
        generalist.starts_of(Dataset.open(tmp_path / "one"), (0, 1), CONFIG, 5, 0)


def test_seeds_learn_apart_and_resume_to_the_same_bits(starts: StartSampler) -> None:
    whole = run(generalist.init(CONFIG, (0, 3)), starts)
    rows = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), whole.state.actor_params) for i in range(2)]
    assert not jax.tree.all(jax.tree.map(np.array_equal, *rows))
    half = run(generalist.init(CONFIG, (0, 3)), starts, steps=2)
    assert_same(run(half, starts), whole)


def test_the_same_state_gets_another_action_in_another_task(starts: StartSampler) -> None:
    policies, params = run(generalist.init(CONFIG, (0, 3)), starts), fresh_model(CONFIG).params
    obs = np.tile(np.random.default_rng(0).normal(size=TASKS.obs_dim).astype(np.float32), (4, 1))
    task_id = np.array([0, 1, 0, 1])
    action = np.asarray(generalist.as_policy(policies, params, CONFIG)(obs, task_id, jax.random.key(0)))
    assert action.shape == (4, TASKS.action_dim)
    # By hand: the first two rows are seed 0's, the last two seed 3's; the actor reads latent and embedding.
    model = WorldModel(CONFIG.model)
    for row, (policy, task) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        z = model.apply({"params": params}, obs[row], jnp.int32(task), method="encode")
        x = model.apply({"params": params}, z, jnp.int32(task), method="with_task")
        assert x.shape == (18,)
        actor = jax.tree.map(lambda leaf, i=policy: leaf[i], policies.state.actor_params)
        mean, _ = actor_of(CONFIG).apply({"params": actor}, x)
        expected = np.tanh(mean) * CONFIG.model.action_mask[task]
        np.testing.assert_allclose(action[row], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(action[0, 0] - action[1, 0]) > 1e-6


# --------------------------------------------------------------------------------------------------- a discount for each task


def with_discounts(task_discounts: bool) -> Config:
    config = make_config(gamma=0.5, task_discounts=False)
    model = dataclasses.replace(config.model, discounts=(0.9, 0.6))
    return Config(model, config.world_model, dataclasses.replace(config.policy, task_discounts=task_discounts))


def test_each_task_has_its_own_discount_where_asked() -> None:
    task_id = jnp.array([0, 1, 0])
    np.testing.assert_allclose(discount_of(task_id, with_discounts(True)), [0.9, 0.6, 0.9])
    np.testing.assert_allclose(discount_of(task_id, with_discounts(False)), 0.5)
    config = make_config()
    with pytest.raises(ValueError, match=r"policy\.task_discounts needs model\.discounts"):
        Config(config.model, config.world_model, dataclasses.replace(config.policy, task_discounts=True))


def test_returns_and_targets_use_the_tasks_discount() -> None:
    config = with_discounts(True)
    params = fresh_model(config).params
    state = jax.jit(pwm.init_policy, static_argnums=0)(config, jax.random.key(1))
    rng, task_id = np.random.default_rng(0), jnp.array([0, 1, 1])
    starts = pwm.Starts(jnp.asarray(rng.normal(size=(3, TASKS.obs_dim)), jnp.float32), jnp.zeros((3, TASKS.action_dim)), task_id)
    noise, member = jnp.zeros((3, 3, TASKS.action_dim)), jnp.zeros(3, jnp.int32)
    loss = jax.jit(pwm.actor_loss, static_argnames="config")
    _, (rollout, returns, _, _) = loss(state.actor_params, state, params, starts, noise, member, config=config)
    values = np.asarray(state_value(state.critic_params, rollout.z, config))
    targets = pwm.critic_targets(state.critic_params, rollout, discount_of(task_id, config), config)
    for row, gamma in enumerate([0.9, 0.6, 0.6]):
        reward = np.asarray(rollout.reward)[:, row]
        expected = reward[0] + gamma * reward[1] + gamma**2 * reward[2] + gamma**3 * values[3, row]
        np.testing.assert_allclose(returns[row], expected, rtol=1e-5)
        np.testing.assert_allclose(targets[2, row], reward[2] + gamma * values[3, row], rtol=1e-5)
