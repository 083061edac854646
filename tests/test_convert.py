"""The converting launcher: a checkpoint becomes a workdir that extraction accepts, and comes back the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tdmpc2 as preset
from experiments import convert, stages
from experiments.settings import ConfigError
from pwm_jax import checkpoint, pwm, tdmpc2_checkpoint, torch_archive
from pwm_jax.config import Config

PROJECT = Path(__file__).resolve().parents[1]
TASKS = "walker-stand,cheetah-run,pendulum-swingup,cup-catch"


def config_of(**changes: object):
    config = preset.get_config("1M")
    config.tasks = TASKS
    config.model.update(task_dim=8, enc_hidden=(16,), mlp_hidden=(16, 16), latent_dim=16)
    config.update_from_flattened_dict(changes)
    return config.lock()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, dict]:
    """A model of four real tasks as a TD-MPC2 file, its configuration and its state's arrays."""
    config = config_of()
    algorithm = stages.algorithm_of(config, stages.task_set_of(config))
    state = jax.device_get(jax.jit(lambda key: pwm.init_world_model(algorithm, key))(jax.random.key(3)))
    path = tmp_path_factory.mktemp("files") / "model.pt"
    tdmpc2_checkpoint.write(path, algorithm.model, state.params, state.q.target_params)
    return path, algorithm, {"params": state.params, "target": state.q.target_params}


def test_a_file_becomes_a_pretrained_model_and_a_file_again(model_file, tmp_path: Path) -> None:
    path, algorithm, arrays = model_file
    command = [sys.executable, "-m", "experiments.convert", "--config=configs/tdmpc2.py:1M", f"--config.tasks={TASKS}"]
    sizes = [
        "--config.model.reward_space=raw",
        "--config.model.mask_actions=False",
        "--config.model.prior_log_std_low=-10",
        "--config.model.prior_log_std_high=2",
    ]
    read = subprocess.run(
        [*command, *sizes, f"--config.convert.read={path}", f"--workdir={tmp_path / 'run'}"], cwd=PROJECT, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    assert (
        "4 tasks, latent 16, encoder (16,), other networks (16, 16), 2 Q heads and a policy prior (log-std -10 to 2, the config's)"
        in read.stdout
    )
    state, loaded, task_set = stages.load_world_model(config_of(), tmp_path / "run")
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, arrays["params"]))
    assert jax.tree.all(jax.tree.map(np.array_equal, state.q.target_params, arrays["target"]))
    assert task_set.names == tuple(TASKS.split(","))
    assert (loaded.model.reward_space, loaded.model.mask_actions) == ("raw", False)  # what the file does not tell is the config's
    assert (loaded.model.prior_log_std_low, loaded.model.latent_dim) == (-10.0, algorithm.model.latent_dim)
    convert.main(config_of(**{"convert.write": str(tmp_path / "back.pt")}), tmp_path / "run")
    original, back = (torch_archive.load(p)["model"] for p in (path, tmp_path / "back.pt"))
    assert original.keys() == back.keys()
    assert all(np.array_equal(original[key], back[key]) for key in original)


def test_q_heads_can_be_left_behind(model_file, tmp_path: Path) -> None:
    convert.main(config_of(**{"convert.read": str(model_file[0]), "convert.q_heads": False}), tmp_path)
    state, loaded, _ = stages.load_world_model(config_of(), tmp_path)
    assert loaded.model.num_q == 0
    assert state.q is None
    assert state.params.keys() == {"encoder", "dynamics_0", "reward_head", "task_embedding"}


def test_mistakes_are_named(model_file, tmp_path: Path) -> None:
    path = str(model_file[0])
    with pytest.raises(ConfigError, match="nothing to convert"):
        convert.main(config_of(), tmp_path)
    with pytest.raises(ConfigError, match="give one of them"):
        convert.main(config_of(**{"convert.read": path, "convert.write": path}), tmp_path)
    with pytest.raises(tdmpc2_checkpoint.CheckpointFormatError, match="is of 4 tasks, 2 were named"):
        convert.main(config_of(**{"convert.read": path, "tasks": "walker-stand,cheetah-run"}), tmp_path)
    with pytest.raises(tdmpc2_checkpoint.CheckpointFormatError, match="name the checkpoint's own tasks"):
        convert.main(config_of(**{"convert.read": path, "tasks": "reacher-hard,cartpole-swingup,reacher-easy,cup-catch"}), tmp_path)
    with pytest.raises(ConfigError, match="nowhere is no directory"):
        convert.main(config_of(**{"convert.write": str(tmp_path / "nowhere" / "x.pt")}), tmp_path)
    assert checkpoint.latest_step(tmp_path / "pretrain") is None
    convert.main(config_of(**{"convert.read": path}), tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="holds a world model already"):
        convert.main(config_of(**{"convert.read": path}), tmp_path)
