"""The launcher of Brax's agents: its rows, and what it does with seeds that are finished, stopped halfway, or not begun."""

import pytest
from ml_collections import ConfigDict

from configs import brax_agents as configs
from experiments import brax_agents as launcher
from pwm_jax.baselines import brax_agents
from pwm_jax.baselines.brax_agents import Point
from pwm_jax.envs.simulators import make
from pwm_jax.report.curves import read_curves, write_curves

HOPPER = "brax-hopper-spring"


@pytest.fixture
def trained(monkeypatch):
    """Training, replaced: two points a seed; the seeds in the order in which they were trained."""
    seeds = []

    def train(episodes, config, seed, progress):
        assert episodes == f"episodes of {HOPPER}"
        seeds.append(seed)
        for env_steps in (0, config.env_steps):
            progress(Point(env_steps, env_steps / 100, 3.0, float(len(seeds)), 7.0))

    monkeypatch.setattr(brax_agents, "train", train)
    monkeypatch.setattr(make, "make_simulator", lambda name: f"episodes of {name}")
    return seeds


def make_config(*seeds) -> ConfigDict:
    config = configs.get_config(f"{HOPPER},ppo")
    config.agent.update(seeds=seeds, env_steps=200, eval_envs=4)
    return config.lock()


def test_seeds_are_trained_in_turn_and_every_point_is_a_row(trained, tmp_path):
    launcher.main(make_config(2, 0), tmp_path)
    rows = read_curves(tmp_path / "curves.jsonl")
    assert trained == [2, 0]
    assert [(row.seed, row.env_steps, row.wall_s, row.episode_return) for row in rows] == [
        (2, 0, 0.0, 1.0),
        (2, 200, 2.0, 1.0),
        (0, 0, 0.0, 2.0),
        (0, 200, 2.0, 2.0),
    ]
    assert {(row.task, row.method, row.compile_s, row.length, row.episodes) for row in rows} == {(HOPPER, "ppo", 3.0, 7.0, 4)}


def test_a_finished_seed_is_kept_and_a_stopped_one_begins_anew(trained, tmp_path):
    path = tmp_path / "curves.jsonl"
    launcher.main(make_config(0, 1, 2), tmp_path)
    write_curves(path, [row for row in read_curves(path) if row.seed == 0 or (row.seed == 1 and row.env_steps == 0)])
    with path.open("a") as file:
        file.write('{"task": "brax-hop')
    launcher.main(make_config(0, 1, 2), tmp_path)
    assert trained == [0, 1, 2, 1, 2]
    assert [(row.seed, row.episode_return) for row in read_curves(path)] == [(0, 1.0), (0, 1.0), (1, 4.0), (1, 4.0), (2, 5.0), (2, 5.0)]
    before = path.read_bytes()
    launcher.main(make_config(0, 1, 2), tmp_path)
    assert (len(trained), path.read_bytes()) == (5, before)
