"""The published runs' first steps: a full-size preset through the launchers, on two small files in the format of the published data."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from test_tdmpc2_data import MT30, MT80, arrays, save

from configs import tdmpc2 as preset
from experiments import extract, pretrain, stages
from pwm_jax import checkpoint, pwm
from pwm_jax.data.sample import DeviceDataset
from pwm_jax.report.metrics import read_metrics
from pwm_jax.types import Starts

DATA = Path(__file__).parent / "fixtures" / "tdmpc2"


def test_pretraining_and_extraction_at_5m_on_mt30(tmp_path: Path) -> None:
    """Everything of the preset but batch sizes and the number of steps; networks and horizon are the published ones."""
    config = preset.get_config("5M-mt30")
    config.dataset, config.num_workers = str(DATA), 1
    config.world_model.batch_size = 4
    config.policy.update(batch_size=8, critic_passes=1)
    config.pretrain.update(steps=2, log_every=1, eval_every=2, checkpoint_every=2, eval_windows=4)
    config.extract.update(tasks=("walker-run",), steps=1, log_every=1, eval_every=1, eval_episodes=1, checkpoint_every=1)
    config.lock()

    pretrain.main(config, tmp_path)
    state, algorithm, task_set = stages.load_world_model(config, tmp_path)
    assert (int(state.step), task_set.num_tasks, algorithm.model.num_q) == (2, 30, 5)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 5_241_066  # tasks_and_formats.md 3.3
    losses = read_metrics(tmp_path / "metrics" / "pretrain.jsonl")[-1]
    assert {"loss/value_loss", "loss/prior_loss", "heldout/value_loss", "open_loop/walker-run"} <= losses.keys()

    extract.main(config, tmp_path)
    assert checkpoint.latest_step(tmp_path / "extract") == 1
    _, params, saved, _ = stages.load_policies(tmp_path / "extract")
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_599_717  # what PWM keeps, same section
    assert saved.model.num_q == 0
    scores = read_metrics(tmp_path / "metrics" / "extract.jsonl")[-1]
    assert np.isfinite(scores["eval/return/walker-run/seed0"])


SLOW = ("19M-mt30", "48M-mt30", "48M-mt80", "317M-mt30", "317M-mt80")  # the last two take about 10 GB


@pytest.mark.parametrize("preset_name", ["19M-mt80", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_larger_presets_take_their_first_steps(preset_name: str, tmp_path: Path) -> None:
    """Networks and optimisers in full; batches, imagination and data are small."""
    task_set = {"mt30": MT30, "mt80": MT80}[preset_name.split("-")[1]]
    rows = np.tile(np.arange(task_set.num_tasks), 2).tolist()
    config = preset.get_config(preset_name)
    config.dataset, config.num_workers = str(save(tmp_path / "data" / "chunk_0.pt", arrays(rows, 8, task_set))), 1
    config.world_model.update(batch_size=2, horizon=3)
    config.policy.update(batch_size=2, horizon=2, critic_passes=1, critic_minibatches=1)
    config.lock()

    algorithm = stages.algorithm_of(config, task_set)
    data = DeviceDataset.from_dataset(stages.dataset_of(config, tmp_path))
    batch = data.sample(jax.random.key(0), 2, 3)
    before = pwm.init_world_model(algorithm, jax.random.key(1))
    after, metrics = jax.jit(pwm.update_world_model, static_argnames="config")(before, batch, jax.random.key(2), config=algorithm)
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params["dynamics_0"], after.params["dynamics_0"])
    assert all(jax.tree.leaves(moved))

    params, algorithm = stages.for_policies(after, algorithm)
    starts = Starts(batch.obs[0], batch.action[0], batch.task_id)
    policy = pwm.init_policy(algorithm, jax.random.key(3))
    update = jax.jit(pwm.update_policy, static_argnames="config")
    learnt, metrics = update(policy, params, starts, jax.random.key(4), config=algorithm)
    assert np.isfinite(metrics["actor_loss"])
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), policy.actor_params, learnt.actor_params)))
