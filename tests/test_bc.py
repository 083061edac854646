"""Behaviour cloning: recovers a linear policy of each task, masks its padding, resumes to the same bits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import TASKS, assert_same, differs

from pwm_jax import checkpoint
from pwm_jax.baselines import bc
from pwm_jax.baselines.bc import BCConfig
from pwm_jax.data.sample import DeviceDataset
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter, Episode

CONFIG = BCConfig(steps=1_200, log_every=300, batch_size=64, hidden=(32,), lr=1e-2)
# a = W obs + b, on observations whose scale and offset differ from one component to the next.
WEIGHTS = (np.array([[0.3, -0.2, 0.002]]), np.array([[0.1, 0.2, -0.1, 0.05, 0.15, 0.001], [-0.2, 0.1, 0.1, 0.1, -0.1, 0.002]]))
OFFSET = (0.1, -0.2)


def observations(task_id: int, rng: np.random.Generator, count: int) -> np.ndarray:
    obs = rng.normal(size=(count, TASKS.specs[task_id].obs_dim))
    obs[:, -1] = obs[:, -1] * 100 + 50
    return obs.astype(np.float32)


def expert(task_id: int, obs: np.ndarray) -> np.ndarray:
    return np.clip(obs @ WEIGHTS[task_id].T + OFFSET[task_id], -0.95, 0.95).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DeviceDataset:
    path, rng = tmp_path_factory.mktemp("bc") / "dataset", np.random.default_rng(0)
    with DatasetWriter(path, TASKS, {}) as writer:
        for task_id in range(2):
            for seed in range(60):
                obs = observations(task_id, rng, 26)
                writer.add_episode(Episode(task_id, obs, expert(task_id, obs[:-1]), np.zeros(25), np.zeros(25, bool), 0.0, "linear", seed))
    return DeviceDataset.from_dataset(Dataset.open(path))


def run(state, data, config=CONFIG, saved=None):
    history = {}

    def log(state, step, metrics):
        history[step] = metrics["loss"]
        if saved is not None:
            checkpoint.save(saved, step, state, keep=10)

    return bc.run(state, data, TASKS.action_mask, config, log), history


@pytest.fixture(scope="module")
def cloned(data, tmp_path_factory):
    saved = tmp_path_factory.mktemp("bc") / "checkpoints"
    return *run(bc.init(CONFIG, data, (0, 1), (0, 5)), data, saved=saved), saved


def test_a_linear_policy_is_cloned_on_unseen_observations(cloned):
    state, history, _ = cloned
    assert list(history) == [300, 600, 900, 1_200]
    assert (history[1_200] < 0.3 * history[300]).all()
    act, rng = bc.as_policy(state, TASKS.action_mask, CONFIG), np.random.default_rng(1)
    task_id = np.repeat(np.asarray(state.task_id), 200)
    assert task_id.tolist() == [0] * 400 + [1] * 400
    obs = np.zeros((800, TASKS.obs_dim), np.float32)
    wanted = np.zeros((800, TASKS.action_dim), np.float32)
    for task in range(2):
        native = observations(task, rng, 400)
        obs[task_id == task] = TASKS.pad_obs(native, task)
        wanted[task_id == task] = TASKS.pad_action(expert(task, native), task)
    action = np.asarray(act(obs, task_id, jax.random.key(0)))
    assert np.abs(action - wanted).mean() < 0.03
    # The spread of what is cloned, to compare with.
    assert wanted[task_id == 0, 0].std() > 0.3
    assert not action[:400, 1].any()


def test_each_policy_has_a_seed_of_its_own(cloned):
    state, _, _ = cloned
    assert np.asarray(state.seed).tolist() == [0, 5, 0, 5]
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], state.params) for i in range(4)]
    assert all(differs(rows[i], rows[j]) for i in range(4) for j in range(i))


def test_a_resumed_run_is_bit_identical(data, cloned):
    whole, history, saved = cloned
    half, _ = checkpoint.restore(saved, bc.init(CONFIG, data, (0, 1), (8, 9)), step=600)
    assert differs(half.params, whole.params)
    resumed, later = run(half, data)
    assert list(later) == [900, 1_200]
    assert_same(resumed, whole)
    for step, loss in later.items():
        np.testing.assert_array_equal(loss, history[step])
    again, nothing = run(jax.tree.map(jnp.copy, whole), data)
    assert nothing == {}
    assert_same(again, whole)


def test_the_batches_depend_on_the_step_alone_and_not_on_the_chunks(data, cloned):
    at_once, history = run(bc.init(CONFIG, data, (0, 1), (0, 5)), data, dataclasses.replace(CONFIG, log_every=1_200))
    assert list(history) == [1_200]
    assert_same(at_once, cloned[0])


def test_padded_components_do_not_enter_the_loss(data):
    noisy = data.replace(action=data.action.at[:, 1].set(jnp.where(jnp.repeat(data.task_id, data.length + 1) == 0, 7.0, data.action[:, 1])))
    config = dataclasses.replace(CONFIG, steps=300)
    plain, _ = run(bc.init(CONFIG, data, (0, 1), (0, 5)), data, config)
    masked, _ = run(bc.init(CONFIG, noisy, (0, 1), (0, 5)), noisy, config)
    assert_same(plain, masked)


def test_a_diverging_loss_names_its_step(data):
    state = bc.init(CONFIG, data, (0, 1), (0, 5))
    state = state.replace(params=jax.tree.map(lambda leaf: leaf * np.float32(np.nan), state.params))
    with pytest.raises(FloatingPointError, match="bc: loss not finite within 300 steps before step 300"):
        run(state, data)


def test_a_task_without_episodes_is_an_error(data, tmp_path):
    with DatasetWriter(tmp_path / "one", TASKS, {}) as writer:
        obs = observations(0, np.random.default_rng(0), 6)
        writer.add_episode(Episode(0, obs, expert(0, obs[:-1]), np.zeros(5), np.zeros(5, bool), 0.0, "linear", 0))
    one = DeviceDataset.from_dataset(Dataset.open(tmp_path / "one"))
    with pytest.raises(DatasetError, match=r"task ids \[1\]"):
        bc.init(CONFIG, one, (0, 1), (0,))
