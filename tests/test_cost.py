"""The study of cost: times read from runs of each kind, and from how many tasks on pre-training pays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import cost as config_file
from experiments import cost, launch
from pwm_jax.report import cost as report
from pwm_jax.report import measurements
from pwm_jax.report.curves import CurveRow, write_curves
from pwm_jax.report.records import write_json


def _config(root: Path) -> ConfigDict:
    config = config_file.get_config()
    folders = {name: str(root / name) for name in ("offline", "online", "simulated")}
    config.cost.update(tasks=("pendulum-swingup",), methods=("extracted", "pwm", "ppo"), **folders)
    return config.lock()


ORIGIN = {"command": "python -m experiments.x", "commit": "abc", "hardware": "a CPU"}


def _metrics(run: Path, stage: str, rows: dict[float, dict[str, float]]) -> None:
    """A stage's metrics, rows by their time."""
    text = "".join(json.dumps({"step": step, "time": time, **values}) + "\n" for step, (time, values) in enumerate(rows.items(), 1))
    (run / "metrics").mkdir(parents=True)
    (run / "metrics" / f"{stage}.jsonl").write_text(text)
    write_json(run / "provenance.json", {stage: ORIGIN})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two policies of two tasks, extracted in 200 s after 300 s of pre-training; an online run of 400 s; PPO."""
    evaluated = {
        time: {f"eval/return/{task}/seed7": value for task in ("pendulum-swingup", "cartpole-swingup")}
        for time, value in ((5_080.0, 400.0), (5_170.0, 750.0))
    }
    _metrics(tmp_path / "offline", "extract", {5_010.0: {"loss": 1.0}, **evaluated})
    write_json(tmp_path / "offline" / "timing.json", {"pretrain": 300.0, "extract": 200.0})
    run, name = tmp_path / "online" / "pendulum-swingup" / "8", "eval/return/pendulum-swingup/seed8"
    _metrics(run, "online", {7_000.0: {name: 100.0}, 7_100.0: {name: 650.0}, 7_300.0: {name: 900.0}})
    write_json(run / "timing.json", {"online": 400.0})
    ppo = tmp_path / "simulated" / "mjx-pendulum-swingup" / "ppo"
    points = ((100, 20.0), (200, 510.0))
    curve = [CurveRow("mjx-pendulum-swingup", "ppo", 3, steps, steps / 10, 5.0, value, 500.0, 32) for steps, value in points]
    write_curves(ppo / "curves.jsonl", curve)
    write_json(ppo / "provenance.json", {"brax_agents": ORIGIN})
    write_json(ppo / "timing.json", {"brax_agents": 30.0})
    return tmp_path


def test_times_are_those_of_the_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(_config(runs), runs / "cost")
    rows = measurements.read_measurements(runs / "cost" / "cost.jsonl")
    of = {row.setting["method"]: row.values for row in rows}
    assert [row.setting["seed"] for row in rows] == [7, 8, 3]
    assert all((row.command, row.commit, row.hardware) == tuple(ORIGIN.values()) for row in rows)
    # The stage ended 200 s after its beginning, with its last row; each policy has half of it.
    assert (of["extracted"]["to_0.5"], of["extracted"]["to_0.7"], of["extracted"]["to_0.8"]) == (100.0, 100.0, None)
    assert (of["extracted"]["pretrain_s"], of["extracted"]["sharers"], of["extracted"]["last_score"]) == (300.0, 2, 0.75)
    assert (of["pwm"]["to_0.6"], of["pwm"]["to_0.7"]) == (200.0, 400.0)
    assert (of["ppo"]["to_0.5"], of["ppo"]["to_0.7"], of["ppo"]["env_steps"]) == (20.0, None, 200)
    lines = {line[1]: line[3:] for line in report.table(rows)[1:]}
    assert lines["extracted, model for it alone"] == ["400", "400", "400", "—"]
    assert lines["extracted, model of 2 tasks"] == ["250", "250", "250", "—"]
    # 300 s once and 100 s each are as much as 400 s for one task and less for two, and anything is less than never.
    assert report.break_even(rows, 0.7) == {("pendulum-swingup", "pwm"): 2.0, ("pendulum-swingup", "ppo"): 1.0}
    assert report.break_even(rows, 0.6) == {("pendulum-swingup", "pwm"): 4.0, ("pendulum-swingup", "ppo"): 1.0}
    assert report.break_even(rows, 0.5) == {("pendulum-swingup", "pwm"): 4.0, ("pendulum-swingup", "ppo"): float("inf")}
    assert "pwm 2, ppo 1" in capsys.readouterr().out
    assert (runs / "cost" / "figures" / "cost.svg").exists()


def test_a_missing_or_interrupted_run_is_named(runs: Path) -> None:
    write_json(runs / "online" / "pendulum-swingup" / "8" / "timing.json", {"online": 250.0})
    with pytest.raises(launch.ConfigError, match=r"online of .*8 was interrupted"):
        cost.main(_config(runs), runs / "cost")
    (runs / "simulated" / "mjx-pendulum-swingup" / "ppo" / "timing.json").unlink()
    with pytest.raises(launch.ConfigError, match=r"no finished run of ppo on pendulum-swingup: the docstring of configs/cost\.py says"):
        config = _config(runs)
        with config.unlocked():
            config.cost.methods = ("ppo",)
        cost.main(config, runs / "cost")
    assert not (runs / "cost").exists()
