"""The online launcher on two real tasks: a resumed run leaves the same files, a run starts from a model, its replay is a dataset."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_data import assert_same, write_dataset

from configs import debug
from experiments import collect, launch, online, stages
from pwm_jax import checkpoint, pwm
from pwm_jax.data.format import sealed
from pwm_jax.data.store import Dataset
from pwm_jax.report.metrics import read_metrics
from pwm_jax.report.workdir import load_workdir
from pwm_jax.training import online as training
from pwm_jax.training.policies import init_policies

TASKS = "pendulum-swingup,mw-reach"


def make_config(**changes) -> ConfigDict:
    """600 steps of one environment a task, episodes of 500 and 100: every one begins anew after 500 alone."""
    config = debug.get_config()
    config.tasks, config.num_workers = TASKS, 1
    config.model.update(latent_dim=16, mlp_hidden=(16,), enc_hidden=(16,))
    config.policy.update(horizon=3, batch_size=8, actor_hidden=(8,), critic_hidden=(8,), critic_passes=1, critic_minibatches=2)
    config.world_model.update(horizon=3, batch_size=8)
    config.online.update(
        env_steps=1_200, envs_per_task=1, steps_per_epoch=10, wm_updates=1, policy_updates=1, seed_steps=800,
        replay_capacity=1_200, eval_every=1_000, eval_episodes=1, checkpoint_every=400,
    )  # fmt: skip
    config.online.update(**changes)
    return config.lock()


def rows(workdir: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(workdir / "metrics" / "online.jsonl")]


def contents(workdir: Path) -> dict[str, tuple[int, bytes]]:
    return {str(file.relative_to(workdir)): (file.stat().st_mtime_ns, file.read_bytes()) for file in workdir.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("online") / "run"
    online.main(make_config(), workdir)
    return workdir


def test_checkpoints_fall_where_every_environment_begins_an_episode(finished):
    # Due from 400 steps on, but the first common boundary of 500 and 100 steps is after 2 x 500.
    assert checkpoint.latest_step(finished / "online_state") == 1_000
    assert checkpoint.latest_step(finished / "online") == 1_200


def test_an_interrupted_run_resumes_to_the_same_files(finished, tmp_path, monkeypatch):
    run = online.main
    save = checkpoint.save

    def save_and_die(directory, *arguments, **options):
        save(directory, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(make_config(), tmp_path)
    monkeypatch.setattr(checkpoint, "save", save)
    assert not (tmp_path / "online").exists()
    assert rows(tmp_path)[-1]["step"] == 1_000
    run(make_config(), tmp_path)
    assert rows(tmp_path) == rows(finished)
    resumed, whole = stages.load_policies(tmp_path / "online"), stages.load_policies(finished / "online")
    assert_same(resumed[:2], whole[:2])
    assert int(whole[0].state.step[0]) == 20
    for name in ("frames", "episode_return", "task_id", "length"):
        file = Path("dataset") / "shard-00000" / f"{name}.npy"
        assert (tmp_path / file).read_bytes() == (finished / file).read_bytes()


def test_the_replay_is_a_dataset_with_the_returns_of_the_run(finished):
    data = Dataset.open(finished / "dataset")
    assert data.task_set.names == tuple(TASKS.split(","))
    assert data.episodes.task_id.tolist() == [0] + [1] * 6
    assert data.episodes.length.tolist() == [500] + [100] * 6
    for task_id, name in enumerate(data.task_set.names):
        logged = [row[f"train/return/{name}"] for row in rows(finished) if f"train/return/{name}" in row]
        np.testing.assert_allclose(data.episodes.episode_return[data.episodes.task_id == task_id], logged, rtol=1e-5)
    for episode, total in zip(data.iter_episodes(), data.episodes.episode_return, strict=True):
        assert episode.reward.sum() == pytest.approx(total, rel=1e-5)
    assert data.recipe["replay"] == "online run, seed 0, 1200 steps"
    described = load_workdir(finished).data["tasks"]
    assert [(row["episodes"], row["sources"]) for row in described] == [(1, {"replay": 1}), (6, {"replay": 6})]


def test_losses_and_real_returns_are_logged(finished):
    last = rows(finished)[-1]
    assert {"loss/loss", "loss/actor_loss", "imagined_return"} <= last.keys()
    for name in TASKS.split(","):
        assert last[f"eval/return/{name}/seed0"] > 0 or name == "pendulum-swingup"
    # Nothing is learnt from the 800 random steps.
    assert min(row["step"] for row in rows(finished) if "loss/loss" in row) == 820


def test_a_finished_run_is_left_alone(finished):
    before = contents(finished)
    online.main(make_config(), finished)
    assert contents(finished) == before


def test_a_dataset_that_is_no_replay_is_not_replaced(finished, tmp_path):
    shutil.copytree(finished / "dataset", tmp_path / "dataset")
    index = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    (tmp_path / "dataset" / "dataset.json").write_text(json.dumps(sealed(index | {"recipe": {"sources": []}})))
    with pytest.raises(launch.ConfigError, match="dataset holds a dataset that is not a replay"):
        online.main(make_config(), tmp_path)
    assert Dataset.open(tmp_path / "dataset").recipe == {"sources": []}


def test_a_run_starts_from_a_frozen_model_and_imagines_from_the_newest_states(tmp_path):
    config = make_config(env_steps=120, seed_steps=60, wm_updates=0, imagine_from="env", eval_every=10_000, save_replay=False)
    task_set = stages.task_set_of(config)
    algorithm = stages.algorithm_of(config, task_set)
    model = pwm.init_world_model(algorithm, jax.random.key(42))
    metadata = stages.model_metadata(algorithm, task_set) | {"world_model": dataclasses.asdict(algorithm.world_model)}
    checkpoint.save(tmp_path / "given" / "pretrain", 7, model, metadata)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.pretrained = str(tmp_path / "given")
    online.main(config, tmp_path / "run")
    policies, params, _, _ = stages.load_policies(tmp_path / "run" / "online")
    assert_same(params, model.params)
    assert np.asarray(policies.state.step).tolist() == [3, 3]
    assert not (tmp_path / "run" / "dataset").exists()
    assert "loss/loss" not in rows(tmp_path / "run")[-1]
    assert "loss/actor_loss" in rows(tmp_path / "run")[-1]


def extraction(path: Path) -> ConfigDict:
    """A workdir with a model of two tasks, a policy of two seeds for each and 3 + 3 invented episodes; a config that adapts one of them."""
    config = make_config(
        tasks=("mw-reach",), adaptation_rounds=2, envs_per_task=2, steps_per_epoch=100, wm_updates=3, policy_updates=4, eval_every=400
    )
    task_set = stages.task_set_of(config)
    algorithm = stages.algorithm_of(config, task_set)
    model = pwm.init_world_model(algorithm, jax.random.key(42))
    metadata = stages.model_metadata(algorithm, task_set) | {"world_model": dataclasses.asdict(algorithm.world_model)}
    checkpoint.save(path / "pretrain", 7, model, metadata)
    policies = init_policies(algorithm, [0, 0, 1, 1], [5, 6, 5, 6])
    saved = {"policies": policies, "wm_params": model.params}
    checkpoint.save(path / "extract", 9, saved, stages.policy_metadata(policies, algorithm, task_set))
    write_dataset(path / "dataset", episodes=3, task_set=task_set, steps=20)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.pretrained = str(path)
    return config


def collected_with(source: dict[str, object], workdir: Path) -> Dataset:
    config = make_config().copy_and_resolve_references()
    with config.unlocked():
        config.collect.sources = ConfigDict(dict(mine=source))
        config.collect.envs_per_task = 1
    collect.main(config, workdir)
    return Dataset.open(workdir / "dataset")


def test_adaptation_takes_extracted_policies_further_on_one_task_of_the_model(tmp_path, monkeypatch):
    config = extraction(tmp_path / "extracted")
    begun = []
    run = training.run
    monkeypatch.setattr(training, "run", lambda state, *rest: run(begun.append(jax.device_get(state)) or state, *rest))
    online.main(config, tmp_path / "adapted")
    given, params, _, _ = stages.load_policies(tmp_path / "extracted" / "extract")
    (start,) = begun
    assert start.policies.task_id.tolist() == [1]
    assert_same(start.world_model.params, params)
    for name in ("actor_params", "critic_params"):
        own = jax.tree.map(lambda leaf: leaf[2:3], getattr(given.state, name))  # mw-reach, the first seed
        assert_same(getattr(start.policies.state, name), own)
    assert int(start.replay.count) == 40  # three episodes of 20 steps on two environments
    policies, adapted, _, _ = stages.load_policies(tmp_path / "adapted" / "online")
    assert np.asarray(policies.state.step).tolist() == [8]
    assert max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(params), strict=True)) > 0
    data = Dataset.open(tmp_path / "adapted" / "dataset")  # what was collected, without what was given
    assert data.episodes.task_id.tolist() == [1] * 4
    assert data.episodes.length.tolist() == [100] * 4
    assert data.recipe["replay"] == "online run, seed 0, 400 steps"
    source = dict(kind="policy", workdir=str(tmp_path / "adapted"), episodes=1)
    more = collected_with(source | dict(tasks=("mw-reach",)), tmp_path / "more")  # the pool runs the other task, too
    assert more.episodes.task_id.tolist() == [1]
    with pytest.raises(launch.ConfigError, match="has no policy for pendulum-swingup: set the source's tasks to mw-reach"):
        collected_with(source, tmp_path / "all")
    before = contents(tmp_path / "adapted")
    shutil.rmtree(tmp_path / "extracted")
    online.main(config, tmp_path / "adapted")  # finished: what it began from is not asked for again
    assert contents(tmp_path / "adapted") == before


def test_adaptation_needs_policies_of_its_tasks_with_its_networks(tmp_path):
    config = extraction(tmp_path / "extracted")
    with config.unlocked():
        config.policy.actor_hidden = (9,)
    with pytest.raises(launch.ConfigError, match=r"policy.actor_hidden \(8,\), the config has \(9,\)"):
        online.main(config, tmp_path / "adapted")
        config.policy.actor_hidden = (8,)
    model, _, _ = stages.load_world_model(config, tmp_path)
    other = model.replace(params=jax.tree.map(lambda leaf: leaf + 1, model.params))
    trained = tmp_path / "extracted" / "pretrain"
    checkpoint.save(trained, 8, other, checkpoint.load_metadata(trained))
    with pytest.raises(checkpoint.CheckpointError, match="extracted from another world model"):
        online.main(config, tmp_path / "adapted")
    shutil.rmtree(tmp_path / "extracted" / "extract")
    with pytest.raises(checkpoint.CheckpointError, match="extract"):
        online.main(config, tmp_path / "adapted")


def test_adaptation_that_ends_before_an_episode_does_is_refused(tmp_path):
    config = extraction(tmp_path / "extracted")
    with config.unlocked():
        config.online.steps_per_epoch = 40
    with pytest.raises(launch.ConfigError, match="2 adaptation_rounds of 40 steps_per_epoch end before an episode of 100 steps"):
        online.main(config, tmp_path / "adapted")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(seed_steps=0, steps_per_epoch=2), "config.online: learning begins with 2 steps of each of 2 environments"),
        (dict(replay_capacity=4), "config.online: learning begins with 2 steps"),
    ],
)
def test_a_rhythm_that_cannot_learn_is_refused_before_work_starts(tmp_path, changes, message):
    with pytest.raises(launch.ConfigError, match=message):
        online.main(make_config(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []
