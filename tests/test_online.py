"""The online loop on two real environments: what it stores, what it learns from, and that a resumed run repeats the numbers."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import AFFINE_MODEL, AFFINE_POLICY, make_config

from pwm_jax import pwm
from pwm_jax.data.replay import to_episodes
from pwm_jax.envs.pool import EnvPool
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.training import online

TASKS = TaskSet.from_names(["pendulum-swingup", "mw-reach"])
SEED = 3
RHYTHM = online.OnlineConfig(env_steps=2000, envs_per_task=1, steps_per_epoch=100, wm_updates=2, policy_updates=2, seed_steps=400)


SIZES = dict(obs_dim=TASKS.obs_dim, action_dim=TASKS.action_dim, action_dims=(1, 4))
CONFIG = online.scheduled(make_config(SIZES | AFFINE_MODEL, dict(horizon=3, batch_size=16), **AFFINE_POLICY), RHYTHM, TASKS.num_tasks)


@functools.cache
def whole_run() -> tuple[dict[int, Any], list[tuple[int, float, float]]]:
    """The state on the host after each epoch, by steps of each environment, and the finished episodes."""
    states, finished = {}, []

    def log(state: online.OnlineState, metrics: Any, ended: list[tuple[int, float, float]]) -> None:
        states[int(state.step)] = (jax.device_get(state), metrics)
        finished.extend(ended)

    with EnvPool(TASKS, [0, 1], num_workers=1) as pool:
        online.run(online.init(CONFIG, RHYTHM, range(2), SEED), CONFIG, RHYTHM, pool, SEED, log)
    return states, finished


def test_epochs_seed_then_learn() -> None:
    states, _ = whole_run()
    assert list(states) == list(range(100, 1001, 100))
    for step, (state, metrics) in states.items():
        updates = 2 * max(0, step // 100 - 2)  # 200 steps of two environments are random
        assert state.world_model.step == updates
        np.testing.assert_array_equal(state.policies.state.step, [updates, updates])
        assert bool(metrics) == (updates > 0)
        assert state.replay.count == step
    assert metrics["loss"].shape == ()
    assert metrics["actor_loss"].shape == (2,)
    trained, initial = ((states[t][0].world_model.params, states[t][0].policies.state.actor_params) for t in (1000, 200))
    assert min(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(initial), strict=True)) > 0


def test_the_replay_holds_what_happened() -> None:
    states, finished = whole_run()
    episodes = list(to_episodes(states[1000][0].replay, "online"))
    returns = [(e.task_id, float(e.reward.sum())) for e in episodes]
    assert [task for task, _ in returns] == [0] * 2 + [1] * 10
    np.testing.assert_allclose(sorted(returns), sorted((task, total) for task, total, _ in finished), rtol=1e-5)
    for task, native in ((0, 1), (1, 4)):
        actions = np.concatenate([e.action for e in episodes if e.task_id == task])
        assert (actions[:, native:] == 0).all()
        assert np.abs(actions).max() <= 1
        assert abs(actions[:200, :native].std() - 3**-0.5) < 0.05  # uniform while seeding
    first_frames = np.array([e.obs[0] for e in episodes if e.task_id == 0])
    assert np.abs(first_frames[0] - first_frames[1]).max() > 0.01  # every episode begins anew


def test_actions_are_the_policies_own() -> None:
    states, _ = whole_run()
    before, after = states[500][0], states[600][0]
    obs = after.replay.obs[500]
    key = jax.random.split(jax.random.key(SEED))[0]
    for task in range(2):
        actor_params = jax.tree.map(lambda leaf, task=task: leaf[task], before.policies.state.actor_params)
        own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, SEED), task), 0), 500)
        noise = jax.random.normal(own, (1, TASKS.action_dim))
        expected = pwm.act(actor_params, before.world_model.params, obs[task][None], jnp.array([task]), CONFIG, noise)
        np.testing.assert_allclose(after.replay.action[500, task], expected[0], atol=1e-5)


def test_a_resumed_run_repeats_the_numbers() -> None:
    states, _ = whole_run()
    assert online.at_boundary(500, TASKS.specs)
    assert not online.at_boundary(600, TASKS.specs)
    with EnvPool(TASKS, [0, 1], num_workers=2) as pool:
        resumed = online.run(jax.device_put(states[500][0]), CONFIG, RHYTHM, pool, SEED, lambda *_: None)
    for (path, leaf), expected in zip(jax.tree_util.tree_leaves_with_path(resumed), jax.tree.leaves(states[1000][0]), strict=True):
        np.testing.assert_array_equal(leaf, expected, err_msg=jax.tree_util.keystr(path))


def test_schedules_reach_over_the_run() -> None:
    assert CONFIG.world_model.decay_steps == CONFIG.policy.decay_steps == 2 * 8  # 1,600 steps after seeding, 200 an epoch


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    states, _ = whole_run()
    state = jax.device_put(states[500][0])
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.world_model.params["dynamics_0"])
    state = state.replace(world_model=state.world_model.replace(params=state.world_model.params | {"dynamics_0": broken}))
    with EnvPool(TASKS, [0, 1], num_workers=1) as pool, pytest.raises(FloatingPointError, match="not finite after 1,200 environment steps"):
        online.run(state, CONFIG, RHYTHM, pool, SEED, lambda *_: None)


def test_a_run_starts_from_a_given_model() -> None:
    given = pwm.init_world_model(CONFIG, jax.random.key(99))
    started = online.init(CONFIG, RHYTHM, range(2), SEED, given.replace(step=jnp.int32(77)))
    for actual, expected in zip(jax.tree.leaves(started.world_model.params), jax.tree.leaves(given.params), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert started.world_model.step == 0


@pytest.mark.parametrize(
    ("rhythm", "horizon", "message"),
    [(dict(seed_steps=0, steps_per_epoch=2), 3, "horizon 3: raise seed_steps"), (dict(), 101, "episodes of mw-reach are shorter")],
)
def test_what_cannot_learn_is_refused(rhythm: dict[str, Any], horizon: int, message: str) -> None:
    config = dataclasses.replace(CONFIG, world_model=dataclasses.replace(CONFIG.world_model, horizon=horizon))
    with pytest.raises(ValueError, match=message):
        online.check(config, dataclasses.replace(RHYTHM, **rhythm), TASKS.specs)
