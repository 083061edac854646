"""The chained launcher as a user runs it: every stage's files, finished stages left alone, killed runs that resume to the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_data import assert_same

from configs import debug
from experiments import evaluate, run, stages
from experiments.settings import ConfigError
from pwm_jax import checkpoint
from pwm_jax.data.store import Dataset
from pwm_jax.report.episodes import read_episodes
from pwm_jax.report.metrics import read_metrics

PROJECT = Path(__file__).resolve().parents[1]
TASKS = ("pendulum-swingup", "mw-reach")
# Smaller than configs/debug.py, with many checkpoints, so that a kill after the first one comes well before the last.
CHANGES = {
    "num_workers": 1,
    "collect.sources.random.episodes": 4,
    "pretrain.steps": 300,
    "pretrain.checkpoint_every": 10,
    "pretrain.eval_every": 300,
    "extract.steps": 60,
    "extract.log_every": 2,
    "extract.checkpoint_every": 2,
    "extract.eval_every": 60,
    "generalist.steps": 4,
    "generalist.log_every": 2,
    "generalist.eval_every": 4,
    "generalist.checkpoint_every": 2,
    "evaluate.episodes": 1,
}


def command(workdir: Path, launcher: str = "run") -> list[str]:
    changes = [f"--config.{name}={value}" for name, value in CHANGES.items()]
    return [sys.executable, "-m", f"experiments.{launcher}", "--config=configs/debug.py", f"--workdir={workdir}", *changes]


def config() -> ConfigDict:
    result = debug.get_config()
    result.update_from_flattened_dict(CHANGES)
    return result.lock()


def finish(workdir: Path, launcher: str = "run") -> tuple[str, str]:
    process = subprocess.run(command(workdir, launcher), cwd=PROJECT, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return process.stdout, process.stderr


def rows(workdir: Path, stage: str) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(workdir / "metrics" / f"{stage}.jsonl")]


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """The directory of an uninterrupted run, and what it printed."""
    workdir = tmp_path_factory.mktemp("end_to_end") / "whole"
    return workdir, finish(workdir)[0]


def test_every_stage_leaves_its_files(whole):
    workdir, _ = whole
    data = Dataset.open(workdir / "dataset")
    assert data.task_set.names == TASKS
    assert np.bincount(data.episodes.task_id).tolist() == [4, 8]
    assert set(data.episodes.source) == {"random", "expert"}
    assert checkpoint.latest_step(workdir / "pretrain") == 300
    assert checkpoint.latest_step(workdir / "bc") == 40
    assert checkpoint.latest_step(workdir / "extract") == 60
    assert rows(workdir, "pretrain")[-1]["loss/loss"] < rows(workdir, "pretrain")[0]["loss/loss"]
    assert rows(workdir, "bc")[-1]["loss/bc"] < rows(workdir, "bc")[0]["loss/bc"]
    assert {f"eval/return/{task}/seed{seed}" for task in TASKS for seed in (0, 1)} <= rows(workdir, "extract")[-1].keys()
    assert json.loads((workdir / "metrics" / "open_loop.json").read_text()).keys() == set(TASKS)
    assert json.loads((workdir / "timing.json").read_text()).keys() == {"collect", "pretrain", "bc", "extract", "generalist", "evaluate"}


def test_every_method_is_evaluated_in_the_real_environments(whole):
    workdir, _ = whole
    for method, count in {"extracted": 4, "generalist": 4, "mppi": 2, "bc": 4, "random": 2, "data": 12}.items():
        episodes = read_episodes(workdir / "evaluation" / f"{method}.jsonl")
        assert len(episodes) == count
        assert {episode.task for episode in episodes} == set(TASKS)
    videos = {path.name for path in (workdir / "videos").iterdir()}
    assert videos == {f"{task}-{method}-seed{seed}.gif" for task in TASKS for method in ("extracted", "generalist") for seed in (0, 1)}


def test_the_run_ends_in_a_table_and_a_page(whole):
    workdir, out = whole
    page = (workdir / "report.html").read_text()
    for task in TASKS:
        assert task in out
        assert task in page
    assert page.count("data:image/gif;base64,") == 8
    assert f"The page with curves and videos: {workdir / 'report.html'}" in out
    assert "--config=configs/debug.py" in page


def snapshot(workdir: Path) -> dict[str, tuple[int, bytes]]:
    """Every file that a stage makes and when; of metrics and the dataset's index, which each run closes anew, the content alone."""
    folders = ("dataset", "pretrain", "bc", "extract", "generalist", "evaluation", "videos", "metrics")
    files = [path for folder in folders for path in (workdir / folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(workdir)): (
            0 if path.parent.name == "metrics" or path.name == "dataset.json" else path.stat().st_mtime_ns,
            path.read_bytes(),
        )
        for path in files
        if path.name not in (".lock", "data.json")
    }


def test_a_finished_run_repeated_makes_nothing_anew(whole, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    before = snapshot(workdir)
    assert len(before) > 20
    run.main(config(), workdir)
    assert snapshot(workdir) == before
    # By its own launcher too, whose command differs from the one in the dataset's recipe.
    finish(workdir, "collect")
    assert snapshot(workdir) == before


def test_a_task_that_no_policy_is_for_is_refused(whole, tmp_path):
    shutil.copytree(whole[0] / "extract", tmp_path / "extract")
    wrong = config().copy_and_resolve_references().unlock()
    wrong.extract.tasks, wrong.evaluate.methods = ("mw-reach", "walker-run"), ("extracted",)
    with pytest.raises(ConfigError, match=r"extract has no policy for walker-run, only for mw-reach, pendulum-swingup"):
        evaluate.main(wrong, tmp_path)


def kill_at_first_checkpoint(workdir: Path, stage: str, steps: int) -> None:
    process = subprocess.Popen(command(workdir), cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while checkpoint.latest_step(workdir / stage) is None:
            assert process.poll() is None, "the run ended before its first checkpoint"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert checkpoint.latest_step(workdir / stage) < steps


def test_a_run_killed_in_two_stages_ends_in_the_same_numbers(whole, tmp_path):
    workdir = tmp_path / "killed"
    shutil.copytree(whole[0] / "dataset", workdir / "dataset")
    kill_at_first_checkpoint(workdir, "pretrain", 300)
    kill_at_first_checkpoint(workdir, "extract", 60)
    finish(workdir)
    for stage in ("pretrain", "bc", "extract", "generalist"):
        assert rows(workdir, stage) == rows(whole[0], stage)
    model, *_ = stages.load_world_model(config(), workdir)
    assert_same(model, stages.load_world_model(config(), whole[0])[0])
    assert int(model.step) == 300
    resumed, uninterrupted = stages.load_policies(workdir / "extract"), stages.load_policies(whole[0] / "extract")
    assert_same(resumed[:2], uninterrupted[:2])
    for method in ("extracted", "generalist", "mppi", "bc", "random", "data"):
        file = Path("evaluation") / f"{method}.jsonl"
        assert read_episodes(workdir / file) == read_episodes(whole[0] / file)
