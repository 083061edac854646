"""The launcher of Brax's agents: its rows, and what it does with seeds that are finished, stopped halfway, or not begun."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from configs import brax_agents as configs
from experiments import brax_agents as launcher
from experiments import evaluate
from experiments.settings import ConfigError
from pwm_jax import checkpoint
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
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1.0 + len(seeds), leaf.dtype), brax_agents.acting_like(config, 11, 3))

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


def test_a_seed_without_its_policy_is_not_finished(trained, tmp_path):
    launcher.main(make_config(0, 1), tmp_path)
    shutil.rmtree(tmp_path / "brax_agents" / "seed_1")
    launcher.main(make_config(0, 1), tmp_path)
    assert trained == [0, 1, 1]


def test_saved_policies_are_evaluated_like_any_other(trained, tmp_path):
    launcher.main(make_config(2, 0), tmp_path)
    policy, task_set, task_id, seed = evaluate._policy("ppo", base.get_config(), tmp_path)
    assert task_set.names == (HOPPER,)
    np.testing.assert_array_equal(task_id, np.zeros(20))
    np.testing.assert_array_equal(seed, np.repeat([0, 2], 10))
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(20, 11)), jnp.float32)
    action = policy(obs, task_id, jax.random.key(0))
    settings = launcher.settings_of(make_config(2, 0))
    for first, filling in ((0, 3.0), (10, 2.0)):  # seed 0 was trained second
        like = jax.tree.map(lambda leaf, x=filling: jnp.full(leaf.shape, x, leaf.dtype), brax_agents.acting_like(settings, 11, 3))
        own = brax_agents.as_policy(like, settings, 11, 3)(obs[first : first + 10], jax.random.key(0))
        np.testing.assert_allclose(action[first : first + 10], own, rtol=1e-6)
    with pytest.raises(ConfigError, match="holds a run of ppo, not sac"):
        evaluate._policy("sac", base.get_config(), tmp_path)
    with pytest.raises(checkpoint.CheckpointError):
        evaluate._policy("ppo", base.get_config(), tmp_path / "nothing")
