"""Pre-training and extraction on a small invented dataset: they learn, resume to the same bits, and keep held-out episodes out."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import TASKS, assert_same, differs, fresh_model, make_config, make_episode, write_dataset

from pwm_jax import checkpoint
from pwm_jax.data.sample import DeviceDataset, WindowSampler
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter
from pwm_jax.networks import WorldModel
from pwm_jax.training import extract, pretrain
from pwm_jax.training.extract import ExtractConfig, StartSampler
from pwm_jax.training.pretrain import PretrainConfig

CONFIG = make_config()
PATHS = {"device": 1 << 30, "host": 0}
SETTINGS = PretrainConfig(
    steps=40, log_every=10, eval_every=20, checkpoint_every=20, heldout_fraction=0.2, eval_windows=32, balance="tasks", device_bytes=1 << 30
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


def train(state, data, settings, directory: Path | None = None, config=CONFIG):
    """The final state and the reports by step, saved where they say so."""
    reports = {}

    def log(state, report):
        step = int(state.step)
        assert step not in reports
        reports[step] = report
        if directory is not None and report.checkpoint:
            checkpoint.save(directory, step, state)

    return pretrain.run(state, data, config, settings, seed=0, log=log), reports


@pytest.mark.parametrize("place", PATHS)
def test_pretraining_reduces_the_losses_on_both_paths(data, place):
    settings = dataclasses.replace(SETTINGS, steps=120, eval_every=50, device_bytes=PATHS[place])
    state, reports = train(fresh_model(CONFIG), data, settings)
    assert int(state.step) == 120
    assert list(reports) == list(range(10, 130, 10))
    first, last = reports[10].scalars, reports[120].scalars
    assert last["loss/loss"] < 0.8 * first["loss/loss"]
    assert last["loss/reward_loss"] < 0.9 * first["loss/reward_loss"]
    # Measured at the interval and at the end, for each task, over the whole horizon.
    measured = [step for step, report in reports.items() if report.open_loop is not None]
    assert measured == [50, 100, 120]
    assert last["heldout/reward_loss"] < first["loss/reward_loss"]
    assert reports[120].open_loop.keys() == set(TASKS.names)
    for name, curve in reports[120].open_loop.items():
        assert len(curve) == CONFIG.world_model.horizon
        assert last[f"open_loop/{name}"] == pytest.approx(np.mean(curve), rel=1e-5)


@pytest.mark.parametrize("place", PATHS)
def test_a_resumed_pretraining_is_bit_identical(data, place, tmp_path):
    # 35 is neither a multiple of log_every nor of checkpoint_every: the last chunk is short.
    settings = dataclasses.replace(SETTINGS, steps=35, device_bytes=PATHS[place])
    whole, reports = train(fresh_model(CONFIG), data, settings, tmp_path / "whole")
    assert [step for step, report in reports.items() if report.checkpoint] == [20, 35]
    half, _ = checkpoint.restore(tmp_path / "whole", fresh_model(CONFIG, seed=1), step=20)
    assert differs(half.params, whole.params)
    resumed, later = train(half, data, settings, tmp_path / "resumed")
    assert list(later) == [30, 35]
    assert_same(resumed, whole)
    for step in later:
        assert later[step].scalars == reports[step].scalars
        assert later[step].open_loop == reports[step].open_loop


@pytest.mark.parametrize("place", PATHS)
def test_a_finished_pretraining_does_nothing(data, place):
    settings = dataclasses.replace(SETTINGS, steps=15, device_bytes=PATHS[place])
    state, _ = train(fresh_model(CONFIG), data, settings)
    again, reports = train(jax.tree.map(jnp.copy, state), data, settings)
    assert reports == {}
    assert_same(again, state)


def seeds_of(obs: np.ndarray) -> set[int]:
    """The episodes that observations come from, by their first component."""
    return set(np.round(np.asarray(obs)[..., 0] * 100).astype(int).ravel().tolist())


@pytest.mark.parametrize("place", PATHS)
def test_held_out_episodes_are_measured_and_never_trained_on(data, place, monkeypatch):
    trained, measured = set(), set()
    if place == "host":
        draw = WindowSampler.__call__

        def spy(self, rng):
            batch = draw(self, rng)
            (measured if self.batch_size == SETTINGS.eval_windows else trained).update(seeds_of(batch.obs))
            return batch

        monkeypatch.setattr(WindowSampler, "__call__", spy)
    else:
        from_dataset = DeviceDataset.from_dataset

        def spy(cls_data, **options):
            on_device = from_dataset(cls_data, **options)
            trained.update(seeds_of(on_device.obs))
            return on_device

        monkeypatch.setattr(DeviceDataset, "from_dataset", spy)
        draw = WindowSampler.__call__

        def watch(self, rng):
            batch = draw(self, rng)
            measured.update(seeds_of(batch.obs))
            return batch

        monkeypatch.setattr(WindowSampler, "__call__", watch)
    # One task, so that a seed is an episode.
    one = data.select(tasks=[0])
    train(fresh_model(CONFIG), one, dataclasses.replace(SETTINGS, device_bytes=PATHS[place]))
    assert len(measured) == 2
    assert len(trained) == 8
    assert not trained & measured


def test_open_loop_error_equals_a_loop(data):
    params = fresh_model(CONFIG).params
    batch = WindowSampler(data, 24, 3)(np.random.default_rng(0))
    latent, reward = pretrain.open_loop_error(params, batch, CONFIG)
    model = WorldModel(CONFIG.model)

    def apply(method, *arguments):
        return np.asarray(model.apply({"params": params}, *arguments, method=method), np.float64)

    encoded = [apply("encode", obs, batch.task_id) for obs in batch.obs]
    z = encoded[0]
    for t in range(3):
        logits = apply("reward_output", z.astype(np.float32), batch.action[t], batch.task_id)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        expected = (weights / weights.sum(-1, keepdims=True)) @ np.linspace(-3, 3, 11)
        predicted = np.sign(expected) * np.expm1(np.abs(expected))
        assert float(reward[t]) == pytest.approx(np.abs(predicted - batch.reward[t]).mean(), rel=1e-4)
        z = apply("next", z.astype(np.float32), batch.action[t], batch.task_id)[0]
        # 1 is what the mean over the batch of the encoded observations would score.
        mean = encoded[t + 1].mean(0)
        assert float(latent[t]) == pytest.approx(np.square(z - encoded[t + 1]).mean() / np.square(mean - encoded[t + 1]).mean(), rel=1e-3)
    assert float(latent[0]) > 0


@pytest.mark.parametrize("place", PATHS)
def test_a_diverging_loss_names_its_step(data, place):
    state, _ = train(fresh_model(CONFIG), data, dataclasses.replace(SETTINGS, steps=20, device_bytes=PATHS[place]))
    diverged = state.replace(params=jax.tree.map(lambda leaf: leaf * 1e38, state.params))
    with pytest.raises(FloatingPointError, match=r"pretrain: .*loss.* not finite within 10 steps before step 30$"):
        train(diverged, data, dataclasses.replace(SETTINGS, device_bytes=PATHS[place]))


def test_windows_longer_than_every_episode_are_an_error(data):
    config = make_config(world_model={"horizon": 40})
    for device_bytes in PATHS.values():
        with pytest.raises(DatasetError, match="no episode has 40 steps"):
            train(fresh_model(config), data, dataclasses.replace(SETTINGS, device_bytes=device_bytes, heldout_fraction=0.0), config=config)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_held_out_fraction_that_leaves_nothing_is_an_error(fraction):
    with pytest.raises(ValueError, match="heldout_fraction"):
        PretrainConfig(heldout_fraction=fraction)


# ----------------------------------------------------------------------------------------------------------------- extraction

EXTRACT = ExtractConfig(seeds=(0, 3), steps=6, log_every=2)
SCHEDULED = extract.scheduled(make_config(behaviour_weight=0.1, start_balance=0.5), EXTRACT)


@pytest.fixture(scope="module")
def starts(data) -> StartSampler:
    return StartSampler.of(data, (0, 1), SCHEDULED, max_episodes=5, seed=0)


def run_extraction(policies, starts, saved=None, settings=EXTRACT, params=None):
    history = {}

    def log(policies, step, metrics):
        history[step] = metrics
        if saved is not None:
            checkpoint.save(saved, step, policies, keep=10)

    return extract.run(policies, params or fresh_model(SCHEDULED).params, starts, SCHEDULED, settings, log), history


@pytest.mark.parametrize("policies_per_batch", [0, 1])
def test_a_resumed_extraction_is_bit_identical(starts, tmp_path, policies_per_batch):
    settings = dataclasses.replace(EXTRACT, policies_per_batch=policies_per_batch)
    whole, history = run_extraction(extract.init(SCHEDULED, (0, 1), (0, 3)), starts, tmp_path, settings)
    assert list(history) == [2, 4, 6]
    assert all(value.shape == (4,) for value in history[6].values())
    half, _ = checkpoint.restore(tmp_path, extract.init(SCHEDULED, (0, 1), (7, 8)), step=2)
    assert differs(half.state.actor_params, whole.state.actor_params)
    resumed, later = run_extraction(half, starts, settings=settings)
    assert list(later) == [4, 6]
    assert_same(resumed, whole)
    for step in later:
        assert_same(later[step], history[step])
    again, nothing = run_extraction(jax.tree.map(jnp.copy, whole), starts, settings=settings)
    assert nothing == {}
    assert_same(again, whole)


def test_policies_come_by_task_then_seed_and_learn_apart(starts):
    policies, _ = run_extraction(extract.init(SCHEDULED, (0, 1), (0, 3)), starts)
    assert np.asarray(policies.task_id).tolist() == [0, 0, 1, 1]
    assert np.asarray(policies.seed).tolist() == [0, 3, 0, 3]
    alone, _ = run_extraction(extract.init(SCHEDULED, (1,), (3,)), starts)
    for one, many in zip(jax.tree.leaves(alone.state), jax.tree.leaves(policies.state), strict=True):
        np.testing.assert_allclose(one[0], many[3], rtol=2e-3, atol=2e-5)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], policies.state.actor_params) for i in range(4)]
    assert all(differs(rows[i], rows[j]) for i in range(4) for j in range(i))


def test_start_states_are_of_the_chosen_tasks_and_episodes(data):
    starts = StartSampler.of(data, (1,), SCHEDULED, max_episodes=3, seed=0)
    assert np.asarray(starts.data.task_id).tolist() == [1, 1, 1]
    obs, action, task_id = starts(jax.random.key(0), jnp.asarray(1))
    assert obs.shape == (8, TASKS.obs_dim)
    assert action.shape == (8, TASKS.action_dim)
    assert task_id.tolist() == [1] * 8
    assert seeds_of(obs) <= seeds_of(starts.data.obs)
    other = StartSampler.of(data, (1,), SCHEDULED, max_episodes=3, seed=1)
    assert seeds_of(other.data.obs) != seeds_of(starts.data.obs)


def test_start_states_of_a_task_without_episodes_are_an_error(tmp_path):
    with DatasetWriter(tmp_path / "one", TASKS, {}) as writer:
        writer.add_episode(make_episode(0, 0))
    with pytest.raises(DatasetError, match=r"task ids \[1\]"):
        StartSampler.of(Dataset.open(tmp_path / "one"), (0, 1), SCHEDULED, max_episodes=5, seed=0)


def test_a_diverging_extraction_names_its_iteration(starts):
    params = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), fresh_model(SCHEDULED).params)
    with pytest.raises(FloatingPointError, match=r"extract: .*actor_loss.* not finite within 2 iterations before 2$"):
        run_extraction(extract.init(SCHEDULED, (0, 1), (0, 3)), starts, params=params)


def test_one_policy_function_serves_the_environments_of_all_policies(data):
    policies = extract.init(SCHEDULED, (0, 1), (0, 3))
    params = fresh_model(SCHEDULED).params
    act = extract.as_policy(policies, params, SCHEDULED)
    obs = np.random.default_rng(0).normal(size=(8, TASKS.obs_dim)).astype(np.float32)
    action = np.asarray(act(obs, np.repeat(policies.task_id, 2), jax.random.key(0)))
    assert action.shape == (8, TASKS.action_dim)
    for i in range(4):
        alone = extract.as_policy(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], policies), params, SCHEDULED)
        rows = slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(alone(obs[rows], np.full(2, i // 2), jax.random.key(0)), action[rows], rtol=1e-4, atol=1e-6)
    # Task 0 has one action, task 1 two.
    assert not action[:4, 1].any()
    assert np.abs(action[4:, 1]).min() > 0
    for task_id in (np.repeat([1, 0], 4), np.repeat([0, 1], [3, 5]), np.repeat([0, 1], [3, 4])):
        with pytest.raises(ValueError, match=r"not those of policies for \[0, 0, 1, 1\] in a row"):
            act(obs[: len(task_id)], task_id, jax.random.key(0))
