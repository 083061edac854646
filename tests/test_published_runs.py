"""The published runs' first steps: a full-size preset through the launchers, on two small files in the format of the published data."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from configs import tdmpc2 as preset
from experiments import evaluate, extract, generalist, pretrain, stages
from pwm_jax import checkpoint
from pwm_jax.report.episodes import read_episodes
from pwm_jax.report.metrics import read_metrics

DATA = Path(__file__).parent / "fixtures" / "tdmpc2"


def test_pretraining_extraction_and_planning_at_5m_on_mt30(tmp_path: Path) -> None:
    """Everything of the preset but batch sizes, the number of steps, and planning's samples; networks and horizon are published."""
    config = preset.get_config("5M-mt30")
    config.dataset, config.num_workers = str(DATA), 1
    config.world_model.batch_size = 4
    config.policy.update(batch_size=8, critic_passes=1)
    config.pretrain.update(steps=2, log_every=1, eval_every=2, checkpoint_every=2, eval_windows=4)
    config.extract.update(tasks=("walker-run",), steps=1, log_every=1, eval_every=1, eval_episodes=1, checkpoint_every=1)
    config.generalist.update(config.extract)
    config.generalist.update(tasks=("walker-run", "walker-walk"))
    config.mppi.update(guide="q", num_samples=8, num_prior=2, num_elites=4, iterations=2)
    config.evaluate.update(methods=("generalist", "mppi"), episodes=1, videos=0)
    config.lock()

    pretrain.main(config, tmp_path)
    state, algorithm, task_set = stages.load_world_model(config, tmp_path)
    assert (int(state.step), task_set.num_tasks, algorithm.model.num_q) == (2, 30, 5)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 5_241_066  # tasks_and_formats.md 3.3
    losses = read_metrics(tmp_path / "metrics" / "pretrain.jsonl")[-1]
    assert {"loss/value_loss", "loss/prior_loss", "heldout/value_loss", "open_loop/walker-run"} <= losses.keys()

    extract.main(config, tmp_path)
    generalist.main(config, tmp_path)
    assert checkpoint.latest_step(tmp_path / "extract") == checkpoint.latest_step(tmp_path / "generalist") == 1
    evaluate.main(config, tmp_path)
    for method, tasks in {"generalist": {"walker-run", "walker-walk"}, "mppi": {"walker-run"}}.items():
        episodes = read_episodes(tmp_path / "evaluation" / f"{method}.jsonl")
        assert {episode.task for episode in episodes} == tasks
        assert all(np.isfinite(episode.episode_return) and episode.length == 500 for episode in episodes)
