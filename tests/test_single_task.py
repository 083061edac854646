"""The online loop in a simulator, on a point mass: what it stores and counts, that it repeats its numbers and stays on the device."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from point_mass import PointMass
from tiny_models import AFFINE_MODEL, AFFINE_POLICY, make_config

from pwm_jax import pwm
from pwm_jax.config import Config
from pwm_jax.data.replay import to_episodes
from pwm_jax.training import single_task
from pwm_jax.training.single_task import SingleTaskConfig

SIMULATOR = PointMass(episode_length=6)
SEEDS = (3, 8)
SIZES = dict(obs_dim=2, action_dim=1, action_dims=(1,), task_dim=0, normalise_obs=True, termination_head=True)


def settings(dynamics: str, **loop: Any) -> tuple[Config, SingleTaskConfig]:
    small = dict(seeds=SEEDS, env_steps=240, num_envs=4, steps_per_epoch=6, policy_updates=2, seed_steps=32, eval_every=48)
    small |= dict(replay_capacity=1000, eval_envs=8, wm_updates=0 if dynamics == "simulator" else 2)
    rhythm = SingleTaskConfig(**{**small, **loop})
    policy = AFFINE_POLICY | dict(dynamics=dynamics, horizon=3, batch_size=4)
    config = make_config(SIZES | AFFINE_MODEL, dict(horizon=3, batch_size=8), **policy)
    return single_task.scheduled(config, rhythm), rhythm


@functools.cache
def run(dynamics: str, chunks: int, seeds: tuple[int, ...] = SEEDS, seeds_per_batch: int = 1) -> Any:
    """The states on the host after so many chunks, and the metrics of the last."""
    config, loop = settings(dynamics, seeds=seeds, seeds_per_batch=seeds_per_batch)
    _, epochs = single_task.chunks(config, loop)
    states = single_task.init(config, loop, SIMULATOR, jnp.array(seeds, jnp.uint32))
    metrics: Any = {}
    for _ in range(chunks):
        states, metrics = single_task.run_epochs(states, epochs, config, loop, SIMULATOR)
    return jax.device_get(states.replace(key=jax.random.key_data(states.key))), jax.device_get(metrics)


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("dynamics", ["model", "simulator", "decoupled"])
def test_epochs_step_remember_and_learn(dynamics: str) -> None:
    states, metrics = run(dynamics, 2)
    # An epoch is 6 steps of 4 environments in each of the dynamics (two windows of 3 in the simulator), and a chunk two epochs.
    assert states.step.tolist() == [8 + 24] * 2
    assert states.replay.count.tolist() == [8 + 24] * 2
    assert states.policy.step.tolist() == [8] * 2
    assert states.world_model.step.tolist() == [0 if dynamics == "simulator" else 8] * 2
    expected = {"actor_loss", "critic_loss", "train_return", "train_episodes"} | (
        set() if dynamics == "simulator" else {"consistency_loss"}
    )
    assert expected <= metrics.keys()
    first = jax.tree.map(lambda leaf: leaf[0], states)
    episodes = list(to_episodes(first.replay, "replay"))
    assert {e.length for e in episodes} <= set(range(1, 7))
    assert len(episodes) == (first.replay.last > 0).sum()
    reward, next_obs = first.replay.reward[:32], first.replay.next_obs[:32]
    np.testing.assert_allclose(reward, -np.square(next_obs[..., 0] - 0.5), atol=1e-6)
    starts = np.array([e.obs[0, 0] for e in episodes])
    assert len(np.unique(starts)) == len(starts)  # every episode begins from a state of its own
    assert np.abs(starts).max() <= 0.1
    seeding = first.replay.action[:8]
    assert seeding.std() > 0.4
    if dynamics == "simulator":  # every observation is counted once, as acted upon
        np.testing.assert_allclose(first.world_model.params["obs_moments"]["count"], [[4 * 32 + 1e-4]])
        seen = first.replay.obs[:32, :, 0]
        np.testing.assert_allclose(first.world_model.params["obs_moments"]["mean"][0, 0], seen.mean(), atol=1e-5)


@pytest.mark.parametrize("dynamics", ["model", "simulator", "decoupled"])
def test_a_chunk_leaves_the_types_that_it_found(dynamics: str) -> None:
    # Else the second chunk is compiled anew, which takes a minute on a simulator.
    config, loop = settings(dynamics)

    def chunk(seeds: jax.Array) -> tuple[Any, Any]:
        states = single_task.init(config, loop, SIMULATOR, seeds)
        return states, single_task.run_epochs(states, 1, config, loop, SIMULATOR)[0]

    before, after = jax.eval_shape(chunk, jnp.array(SEEDS, jnp.uint32))
    typed = lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type)  # noqa: E731
    assert jax.tree.map(typed, before) == jax.tree.map(typed, after)


@pytest.mark.parametrize("dynamics", ["model", "simulator", "decoupled"])
def test_a_seed_learns_the_same_in_any_company(dynamics: str) -> None:
    states, metrics = run(dynamics, 1)
    alone, alone_metrics = run(dynamics, 1, seeds=SEEDS[1:])
    assert_equal(jax.tree.map(lambda leaf: leaf[1:], (states, metrics)), (alone, alone_metrics))
    together, _ = run(dynamics, 1, seeds_per_batch=0)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), together.replay.action, states.replay.action)
    assert np.abs(states.replay.action[0] - states.replay.action[1]).max() > 0.1


def test_returns_of_training_episodes_are_counted() -> None:
    states, metrics = run("simulator", 1)
    for seed in range(2):
        replay = jax.tree.map(lambda leaf, seed=seed: leaf[seed], states.replay)
        ended, total = [], np.zeros(4)
        for t in range(20):
            total += replay.reward[t]
            if t >= 8:
                ended += total[replay.last[t]].tolist()
            total[replay.last[t]] = 0
        assert metrics["train_episodes"][seed] == len(ended) > 0
        np.testing.assert_allclose(metrics["train_return"][seed], np.mean(ended), rtol=1e-4)


def test_an_epoch_moves_nothing_between_host_and_device() -> None:
    for dynamics in ("model", "simulator", "decoupled"):
        config, loop = settings(dynamics)
        states = single_task.init(config, loop, SIMULATOR, jnp.array(SEEDS, jnp.uint32))
        learn = single_task.run_epochs.lower(states, 1, config, loop, SIMULATOR).compile()
        with jax.transfer_guard("disallow"):
            states, _ = learn(states)
        assert "callback" not in learn.as_text()


def test_evaluation_on_the_device_is_that_of_a_plain_loop() -> None:
    config, loop = settings("model")
    states, _ = run("model", 1)
    actors, models, key = states.policy.actor_params, states.world_model.params, jax.random.key(11)
    returns, lengths = single_task.evaluate(actors, models, key, config, loop, SIMULATOR)
    start_key, step_key = jax.random.split(key)
    for seed in range(2):
        actor_params, wm_params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], (actors, models))
        state, total, length, alive = SIMULATOR.reset(start_key, 8), np.zeros(8), np.zeros(8, int), np.ones(8, bool)
        for t in range(6):
            action = pwm.act(actor_params, wm_params, state.obs, jnp.zeros(8, jnp.int32), config)
            _, restart = jax.random.split(jax.random.fold_in(step_key, t))
            state, transition = SIMULATOR.step(state, action, restart)
            total += alive * np.asarray(transition.reward)
            length += alive
            alive &= ~(np.asarray(transition.terminated + transition.truncated) > 0)
        np.testing.assert_allclose(returns[seed], total, rtol=1e-4)
        np.testing.assert_array_equal(lengths[seed], length)


def test_a_pretrained_model_is_where_the_run_begins() -> None:
    config, loop = settings("model")
    pretrained = pwm.init_world_model(config, jax.random.key(99))
    states = single_task.init(config, loop, SIMULATOR, jnp.array(SEEDS, jnp.uint32), pretrained)
    for seed in range(2):
        assert_equal(jax.tree.map(lambda leaf, seed=seed: leaf[seed], states.world_model.params), pretrained.params)


@pytest.mark.parametrize(
    ("dynamics", "changes", "message"),
    [
        ("simulator", dict(num_envs=5), "set policy.batch_size to single_task.num_envs 5"),
        ("simulator", dict(wm_updates=1), "set single_task.wm_updates to 0"),
        ("model", dict(wm_updates=0), "set single_task.wm_updates above 0"),
        ("model", dict(seed_steps=0, steps_per_epoch=2), "raise single_task.seed_steps to 12"),
        ("model", dict(seeds=(1, 1)), "different seeds"),
    ],
)
def test_settings_that_do_not_fit_are_named(dynamics: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(dynamics, **changes)


def test_the_learning_rate_falls_over_the_whole_run() -> None:
    config, loop = settings("model")
    chunks, epochs = single_task.chunks(config, loop)
    assert (chunks, epochs) == (5, 2)  # 208 steps after the seeding, in chunks of 48
    assert config.policy.decay_steps == chunks * epochs * 2
    assert dataclasses.replace(config.world_model, decay_steps=0) == dataclasses.replace(make_config().world_model, horizon=3, batch_size=8)
