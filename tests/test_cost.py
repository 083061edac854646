"""The study of cost: times read from runs of each kind, and from how many tasks on pre-training pays."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import cost as config_file
from experiments import cost, launch
from pwm_jax.report import cost as report
from pwm_jax.report import measurements
from pwm_jax.report.curves import CurveRow, write_curves
from pwm_jax.report.metrics import MetricsWriter
from pwm_jax.report.records import write_json


def _config(root: Path) -> ConfigDict:
    config = config_file.get_config()
    folders = {name: str(root / name) for name in ("offline", "online", "simulated")}
    config.cost.update(tasks=("pendulum-swingup",), methods=("extracted", "pwm", "ppo"), **folders)
    config.sweep.seeds = (0,)
    return config.lock()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two policies of two tasks, extracted in 200 s of 100 iterations after 300 s of pre-training; an online run of 400 s; PPO."""
    with MetricsWriter(tmp_path / "offline", "extract", tensorboard=False) as writer:
        for step, value in ((50, 400.0), (100, 750.0)):
            writer.write(step, {f"eval/return/{task}/seed7": value for task in ("pendulum-swingup", "cartpole-swingup")})
    write_json(tmp_path / "offline" / "timing.json", {"pretrain": 300.0, "extract": 200.0})
    run = tmp_path / "online" / "pendulum-swingup" / "7"
    with MetricsWriter(run, "online", tensorboard=False) as writer:
        for step, value in ((10, 100.0), (20, 650.0), (40, 900.0)):
            writer.write(step, {"eval/return/pendulum-swingup/seed7": value})
    write_json(run / "timing.json", {"online": 400.0})
    curve = [
        CurveRow("mjx-pendulum-swingup", "ppo", 3, steps, steps / 10, 5.0, value, 500.0, 32) for steps, value in ((100, 20.0), (200, 510.0))
    ]
    write_curves(tmp_path / "simulated" / "mjx-pendulum-swingup" / "ppo" / "curves.jsonl", curve)
    return tmp_path


def test_times_are_those_of_the_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(_config(runs), runs / "cost")
    rows = measurements.read_measurements(runs / "cost" / "cost.jsonl")
    of = {row.setting["method"]: row.values for row in rows}
    # Each policy has half of the time of extraction: 1 s an iteration.
    assert (of["extracted"]["to_0.5"], of["extracted"]["to_0.7"], of["extracted"]["to_0.8"]) == (100.0, 100.0, None)
    assert (of["extracted"]["pretrain_s"], of["extracted"]["sharers"], of["extracted"]["last_score"]) == (300.0, 2, 0.75)
    assert (of["pwm"]["to_0.6"], of["pwm"]["to_0.7"]) == (200.0, 400.0)
    assert (of["ppo"]["to_0.5"], of["ppo"]["to_0.7"], of["ppo"]["env_steps"]) == (20.0, None, 200)
    lines = {line[1]: line[3:] for line in report.table(rows)[1:]}
    assert lines["extracted, model for it alone"] == ["400", "400", "400", "—"]
    assert lines["extracted, model of 2 tasks"] == ["250", "250", "250", "—"]
    # 300 s once and 100 s each are less than 400 s each from the first task on, and anything is less than never.
    assert report.break_even(rows, 0.7) == {("pendulum-swingup", "pwm"): 1.0, ("pendulum-swingup", "ppo"): 1.0}
    assert report.break_even(rows, 0.6) == {("pendulum-swingup", "pwm"): 3.0, ("pendulum-swingup", "ppo"): 1.0}
    assert report.break_even(rows, 0.5) == {("pendulum-swingup", "pwm"): 3.0, ("pendulum-swingup", "ppo"): float("inf")}
    assert "pwm 1, ppo 1" in capsys.readouterr().out
    assert (runs / "cost" / "figures" / "cost.svg").exists()


def test_a_missing_run_is_named_before_anything_is_read(runs: Path) -> None:
    (runs / "simulated" / "mjx-pendulum-swingup" / "ppo" / "curves.jsonl").unlink()
    with pytest.raises(launch.ConfigError, match=r"there is no run of ppo on pendulum-swingup: the docstring of configs/cost\.py says"):
        cost.main(_config(runs), runs / "cost")
    with pytest.raises(launch.ConfigError, match=r"pwm of pendulum-swingup has 1 of the 2 seeds of config\.sweep\.seeds"):
        config = _config(runs)
        with config.unlocked():
            config.cost.methods, config.sweep.seeds = ("pwm",), (0, 1)
        cost.main(config, runs / "other")
