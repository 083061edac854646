"""The comparison's launcher, with launchers that write curves in place of training: what it runs, leaves alone, shows and publishes."""

import pickle
import re
import shutil
import sys
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import compare as configs
from experiments import brax_agents, compare
from experiments.settings import ConfigError
from pwm_jax import checkpoint
from pwm_jax.report.curves import CurveRow, append_curve, read_curves, write_curves
from pwm_jax.report.records import read_json
from pwm_jax.report.results import read_results

HOPPER = "brax-hopper-spring"


@pytest.fixture
def launched(monkeypatch):
    """Both launchers, replaced: each writes a finished curve for every seed and is listed with its task and method."""
    calls = []

    def launcher(stage, section):
        def main(config, workdir):
            calls.append((config.tasks, config.method))
            rows = [
                CurveRow(config.tasks, config.method, seed, steps, steps / 10, 1.0, 10.0 + seed + steps, 5.0, 2)
                for seed in config[section].seeds
                for steps in (10, config[section].env_steps)
            ]
            write_curves(workdir / "curves.jsonl", rows)
            for seed in config[section].seeds:
                checkpoint.save(workdir / stage / f"seed_{seed}", config[section].env_steps, np.zeros(1), {})

        return main

    single = types.ModuleType("experiments.single_task")
    single.main = launcher("single_task", "single_task")
    config = types.ModuleType("configs.single_task")
    config.get_config = lambda text: ConfigDict(
        dict(tasks=text.split(",")[0], method=text.split(",")[1], single_task=dict(seeds=(0,), env_steps=50, num_envs=4))
    )
    monkeypatch.setitem(sys.modules, "experiments.single_task", single)
    monkeypatch.setitem(sys.modules, "configs.single_task", config)
    monkeypatch.setattr(brax_agents, "main", launcher("brax_agents", "agent"))
    return calls


def make_config(**changes):
    config = configs.get_config(HOPPER)
    config.compare.update(methods=("pwm", "ppo"), **changes)
    config.changes = ConfigDict(dict(ppo=dict(agent=dict(env_steps=100))))
    return config.lock()


def test_it_runs_what_is_missing_and_leaves_what_is_finished(launched, tmp_path, capsys):
    compare.main(make_config(seeds=(0, 1, 2)), tmp_path)
    assert launched == [(HOPPER, "pwm"), (HOPPER, "ppo")]
    assert "Final return" in capsys.readouterr().out
    origin = (tmp_path / HOPPER / "ppo" / "provenance.json").read_bytes()
    compare.main(make_config(seeds=(0, 1, 2)), tmp_path)
    assert len(launched) == 2
    assert (tmp_path / HOPPER / "ppo" / "provenance.json").read_bytes() == origin
    path = tmp_path / HOPPER / "ppo" / "curves.jsonl"
    write_curves(path, [row for row in read_curves(path) if row.seed != 1])
    compare.main(make_config(seeds=(0, 1, 2)), tmp_path)
    assert launched[2:] == [(HOPPER, "ppo")]
    assert {row.seed for row in read_curves(path)} == {0, 1, 2}
    # A run killed between the end of its curve and its policy has the policy still to make.
    shutil.rmtree(tmp_path / HOPPER / "ppo" / "brax_agents" / "seed_2")
    shutil.rmtree(tmp_path / HOPPER / "pwm" / "single_task" / "seed_0")
    compare.main(make_config(seeds=(0, 1, 2)), tmp_path)
    assert launched[3:] == [(HOPPER, "pwm"), (HOPPER, "ppo")]


def test_each_run_s_programs_are_dropped_when_it_ends(launched, tmp_path, monkeypatch):
    """Those of nine runs of compiled physics are more than a process may map."""
    when = []
    monkeypatch.setattr(jax, "clear_caches", lambda: when.append(len(launched)))
    compare.main(make_config(), tmp_path)
    assert when == [1, 2]


def test_runs_side_by_side_are_the_same_runs(launched, tmp_path, monkeypatch):
    jobs = {}

    def here(function, named, processes, show):
        jobs.update(named)
        for name, arguments in named.items():
            yield name, function(*arguments)

    monkeypatch.setattr(compare.sweep, "side_by_side", here)  # the stubs of this module are not in other processes
    compare.main(make_config(processes=2), tmp_path)
    assert list(jobs) == [f"{method} on {HOPPER}" for method in ("pwm", "ppo")]
    assert launched == [(HOPPER, "pwm"), (HOPPER, "ppo")]
    for (run,) in jobs.values():
        assert pickle.loads(pickle.dumps(run)) == run  # as it reaches another process
    with pytest.raises(ConfigError, match=r"config\.compare: processes must be at least 1, not 0"):
        compare.main(make_config(processes=0), tmp_path)


def test_a_run_s_config_is_its_launcher_s_with_seeds_and_changes(launched, tmp_path):
    pwm, ppo = compare.runs_of(make_config(seeds=(4, 5)), tmp_path)
    assert (pwm.launcher, pwm.directory, pwm.config.single_task.seeds) == ("single_task", tmp_path / HOPPER / "pwm", (4, 5))
    assert (ppo.launcher, ppo.config.agent.seeds, ppo.config.agent.num_envs, ppo.env_steps) == ("brax_agents", (4, 5), 256, 100)
    compare.main(make_config(seeds=(4, 5)), tmp_path)
    assert read_json(tmp_path / HOPPER / "ppo" / "config.json")["brax_agents"]["agent"]["env_steps"] == 100


def test_results_are_published_with_scores_over_ppo_s(launched, tmp_path):
    compare.main(make_config(seeds=(0, 1, 2), publish=str(tmp_path / "results")), tmp_path / "run")
    rows = {row.key: row for row in read_results(tmp_path / "results" / "single_task.jsonl")}
    assert len(rows) == 6
    # The launchers above: 10 + seed + steps; PPO's mean is 111.
    assert rows[HOPPER, "pwm", 2].episode_return == 62.0
    assert rows[HOPPER, "pwm", 2].score == pytest.approx(62 / 111, abs=1e-6)
    assert (tmp_path / "run" / "comparison.html").exists()
    assert (tmp_path / "run" / "figures" / "learning_curves_wall_s.svg").exists()


def test_without_training_it_shows_what_there_is(launched, tmp_path, capsys):
    with pytest.raises(ConfigError, match="holds no runs of these tasks and methods"):
        compare.main(make_config(train=False), tmp_path)
    compare.main(make_config(), tmp_path)
    append_curve(tmp_path / HOPPER / "ppo" / "curves.jsonl", CurveRow(HOPPER, "ppo", 9, 10, 1.0, 1.0, 1.0, 1.0, 2))
    capsys.readouterr()
    compare.main(make_config(train=False), tmp_path)
    assert len(launched) == 2
    assert re.search(r"brax-hopper-spring +ppo +3 +100 ", capsys.readouterr().out)


def test_mistakes_are_found_before_anything_runs(launched, tmp_path):
    config = configs.get_config(HOPPER)
    config.compare.methods = ("ppo", "trpo")
    with pytest.raises(ConfigError, match=r"config\.compare: needs tasks and some of the methods pwm, shac, decoupled, ppo, sac"):
        compare.main(config, tmp_path)
    config = configs.get_config(HOPPER)
    config.changes = ConfigDict(dict(ppo=dict(agent=dict(num_env=1))))
    with pytest.raises(ConfigError, match=r"unknown field config of ppo\.agent\.num_env; did you mean config of ppo\.agent\.num_envs"):
        compare.main(config, tmp_path)
    config.changes = ConfigDict(dict(pppo=dict()))
    with pytest.raises(ConfigError, match=r"unknown field config\.changes\.pppo; did you mean config\.changes\.ppo"):
        compare.main(config, tmp_path)
    assert launched == []
