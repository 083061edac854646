"""The published runs' first steps: a full-size preset through the launchers, on two small files in the format of the published data."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from configs import tdmpc2 as preset
from experiments import extract, pretrain, stages
from pwm_jax import checkpoint
from pwm_jax.report.metrics import read_metrics

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
