"""The single-task launcher: its rows and checkpoints, a stopped run that resumes to the same numbers, and its replay as offline data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from point_mass import WidePointMass

from configs import single_task as presets
from experiments import evaluate, extract, launch, pretrain, single_task, stages
from pwm_jax import checkpoint
from pwm_jax.data.format import sealed
from pwm_jax.data.store import Dataset
from pwm_jax.envs.simulators import make

TASK = "brax-hopper-spring"


def config_of(method: str, **changes: Any) -> ConfigDict:
    config = presets.get_config(f"{TASK},{method}")
    config.model.update(enc_hidden=(), mlp_hidden=(), latent_dim=8, regulariser="simnorm", simnorm_dim=4, num_bins=11)
    config.world_model.update(horizon=2, batch_size=4)
    config.policy.update(horizon=4, batch_size=4, actor_hidden=(), critic_hidden=(), critic_passes=1, critic_minibatches=1)
    config.single_task.update(
        env_steps=400, num_envs=4, steps_per_epoch=10, policy_updates=1, seed_steps=40, eval_every=120, eval_envs=2, checkpoint_every=1,
        seeds=(0, 2), wm_updates=0 if method == "shac" else 2,
    )  # fmt: skip
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    config.lock()
    return config


@pytest.fixture(autouse=True)
def point_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = WidePointMass(episode_length=8, obs_dim=11)
    monkeypatch.setattr(make, "make_simulator", lambda name: hopper)


def rows(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["pwm", "shac"])
def test_a_stopped_run_resumes_to_the_same_numbers(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(method)
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    single_task.main(config, tmp_path / "whole")
    whole = rows(tmp_path / "whole")
    assert [row["seed"] for row in whole] == [0, 2] * (len(whole) // 2)
    assert {row["task"] for row in whole} == {TASK}
    assert {row["method"] for row in whole} == {method}
    assert whole[-1]["env_steps"] >= 400
    assert whole[-1]["wall_s"] > whole[0]["wall_s"] > 0

    save, saved = checkpoint.save, []

    def stop_after_second(directory: Path, *arguments: Any, **options: Any) -> None:
        save(directory, *arguments, **options)
        saved.append(directory)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stop_after_second)
    with pytest.raises(KeyboardInterrupt):
        single_task.main(config, tmp_path / "stopped")
    assert len(rows(tmp_path / "stopped")) == 4 < len(whole)
    single_task.main(config, tmp_path / "stopped")
    measured = ("env_steps", "seed", "return", "length", "episodes")
    assert [[row[name] for name in measured] for row in rows(tmp_path / "stopped")] == [[row[name] for name in measured] for row in whole]
    for seed in (0, 2):
        policies, params, algorithm, task_set = stages.load_policies(tmp_path / "stopped" / "single_task" / f"seed_{seed}")
        expected, expected_params, _, _ = stages.load_policies(tmp_path / "whole" / "single_task" / f"seed_{seed}")
        jax.tree.map(np.testing.assert_array_equal, (policies.state, params), (expected.state, expected_params))
        assert task_set.names == (TASK,)
        assert algorithm.policy.dynamics == config.policy.dynamics
    before = (tmp_path / "whole" / "curves.jsonl").read_text()
    single_task.main(config, tmp_path / "whole")  # finished: nothing more to do
    assert (tmp_path / "whole" / "curves.jsonl").read_text() == before


def test_several_tasks_are_refused(tmp_path: Path) -> None:
    config = config_of("pwm", tasks="brax-hopper-spring,brax-ant-spring")
    with pytest.raises(launch.ConfigError, match=r"must be one task of a simulator, not brax-hopper-spring, brax-ant-spring"):
        single_task.main(config, tmp_path)


def test_settings_that_do_not_fit_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(launch.ConfigError, match=r"set single_task\.wm_updates to 0"):
        single_task.main(config_of("shac", single_task__wm_updates=3), tmp_path)
    with pytest.raises(ValueError, match="must be a task and a method"):
        presets.get_config("brax-hopper-spring,ppo")


def test_its_replay_is_offline_data_and_its_policies_are_evaluated_like_any_other(tmp_path: Path) -> None:
    single_task.main(config_of("pwm", single_task__save_replay=True), tmp_path)
    dataset = Dataset.open(tmp_path / "dataset")
    assert dataset.task_set.names == (TASK,)
    lengths = [episode.length for episode in dataset.iter_episodes()]
    assert len(lengths) >= 2 * 4 * 5
    assert max(lengths) <= 8
    config = config_of("pwm", dataset=str(tmp_path / "dataset"))
    with config.unlocked():
        config.pretrain.update(steps=4, log_every=2, eval_every=2, checkpoint_every=2)
        config.extract.update(steps=4, log_every=2, eval_every=2, eval_episodes=1, checkpoint_every=2)
        config.policy.dynamics = "model"
        config.evaluate.update(methods=("extracted", "data", "random"), episodes=1, videos=0)
    offline = tmp_path / "offline"
    offline.mkdir()
    for stage in (pretrain, extract, evaluate):
        stage.main(config, offline)
    for method in ("extracted", "random"):
        episode = json.loads((offline / "evaluation" / f"{method}.jsonl").read_text())
        assert (episode["task"], episode["length"] > 20) == (TASK, True)  # in the real hopper, which takes longer to fall
        np.testing.assert_allclose(episode["score"], episode["return"] / 3000)
    online = config_of("pwm", evaluate__methods=("pwm", "random"), evaluate__episodes=1, evaluate__videos=1)
    evaluate.main(online, tmp_path)
    played = [json.loads(line) for line in (tmp_path / "evaluation" / "pwm.jsonl").read_text().splitlines()]
    assert [(row["method"], row["seed"]) for row in played] == [("pwm", 0), ("pwm", 2)]
    assert {path.stem.split(".")[0] for path in (tmp_path / "videos").iterdir()} >= {f"{TASK}-pwm-seed0"}
    with pytest.raises(launch.ConfigError, match="holds a single-task run of pwm, not shac"):
        evaluate.main(config_of("shac", evaluate__methods=("shac",)), tmp_path)


def test_its_replay_does_not_replace_another_dataset(tmp_path: Path) -> None:
    single_task.main(config_of("shac", single_task__save_replay=True), tmp_path)
    index = tmp_path / "dataset" / "dataset.json"
    index.write_text(json.dumps(sealed({**json.loads(index.read_text()), "recipe": {"sources": []}})))
    with pytest.raises(launch.ConfigError, match=r"holds a dataset that is not a replay.*--config\.single_task\.save_replay=False"):
        single_task.main(config_of("shac", single_task__save_replay=True, single_task__seeds=(5,)), tmp_path)
