"""dm_control tasks against published check numbers, and the eleven custom rewards against hand-set states.

The first table was made with dm_control 1.0.49 and mujoco 3.16.0 by an implementation other than this one: task seed 1, first
reset, then agent step k takes action component i = sin(0.5 k + i). Contact-rich tasks are chaotic, so that another build of
mujoco may give other returns; first observations match everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pwm_jax import envs
from pwm_jax.envs.catalog import MT80, task_facts

# index, name, sum of the first observation, return after 100 agent steps, sum of the observation then
CHECK_NUMBERS = [
    (0, "walker-stand", 4.235348, 77.145444, 19.9765),
    (1, "walker-walk", 4.235348, 19.353529, 19.9765),
    (2, "walker-run", 4.235348, 13.669568, 19.9765),
    (3, "cheetah-run", 0.436025, 0.121685, 7.8668),
    (4, "reacher-easy", 0.591075, 0, -1.5856),
    (5, "reacher-hard", 0.591075, 0, -1.5856),
    (6, "acrobot-swingup", 1.779035, 14.966590, -7.9865),
    (7, "pendulum-swingup", 0.369074, 0, -5.6188),
    (8, "cartpole-balance", 0.982262, 107.588046, 2.2841),
    (9, "cartpole-balance-sparse", 0.982262, 17, 2.2841),
    (10, "cartpole-swingup", -0.993632, 0.441457, -0.8001),
    (11, "cartpole-swingup-sparse", -0.993632, 0, -0.8001),
    (12, "cup-catch", 0.090746, 0, -1.1799),
    (13, "finger-spin", -2.152813, 10, -10.1809),
    (14, "finger-turn-easy", -0.729774, 0, -9.8681),
    (15, "finger-turn-hard", -0.689774, 0, -9.8281),
    (16, "fish-swim", 0.723047, 17.747923, 0.0634),
    (17, "hopper-stand", -2.959830, 0, -2.0116),
    (18, "hopper-hop", -2.959830, 0, -2.0116),
    (19, "walker-walk-backwards", 4.235348, 21.789645, 19.9765),
    (20, "walker-run-backwards", 4.235348, 14.030585, 19.9765),
    (21, "cheetah-run-backwards", 0.436025, 26.022545, 7.8668),
    (22, "cheetah-run-front", 0.436025, 1.414946, 7.8668),
    (23, "cheetah-run-back", 0.436025, 1.288775, 7.8668),
    (24, "cheetah-jump", 0.436025, 13.156534, 7.8668),
    (25, "hopper-hop-backwards", -2.959830, 0, -2.0116),
    (26, "reacher-three-easy", -1.325534, 0, 1.8729),
    (27, "reacher-three-hard", -1.325534, 0, 1.8729),
    (28, "cup-spin", 0.381379, 107.458262, -7.0884),
    (29, "pendulum-spin", 0.369074, 79.811346, -5.6188),
]

# task, joint positions, joint rates, reward of one control step: model defaults otherwise
REWARDS = [
    ("walker-walk-backwards", {}, {"rootx": 0}, 0.166667),
    ("walker-walk-backwards", {}, {"rootx": -0.25}, 0.375),
    ("walker-walk-backwards", {}, {"rootx": -0.5}, 0.583333),
    ("walker-walk-backwards", {}, {"rootx": -1}, 1.0),
    ("walker-walk-backwards", {}, {"rootx": 1}, 0.166667),
    ("walker-walk-backwards", {"rootz": -0.5}, {"rootx": -1}, 0.519536),
    ("walker-run-backwards", {}, {"rootx": 0}, 0.166667),
    ("walker-run-backwards", {}, {"rootx": -1}, 0.270833),
    ("walker-run-backwards", {}, {"rootx": -5}, 0.6875),
    ("walker-run-backwards", {}, {"rootx": -8}, 1.0),
    ("walker-run-backwards", {"rootz": -0.5}, {"rootx": -1}, 0.140708),
    ("cheetah-run-backwards", {}, {"rootx": 0}, 0.0),
    ("cheetah-run-backwards", {}, {"rootx": -4}, 0.5),
    ("cheetah-run-backwards", {}, {"rootx": -8}, 1.0),
    ("cheetah-run-backwards", {}, {"rootx": 3}, 0.0),
    ("cheetah-run-front", {}, {"rootx": 0}, 0.014104),
    ("cheetah-run-front", {}, {"rootx": 3}, 0.049362),
    ("cheetah-run-front", {}, {"rootx": 6}, 0.084621),
    ("cheetah-run-front", {"rootz": 0.4}, {"rootx": 6}, 0.504400),
    ("cheetah-run-front", {"rootz": 0.4}, {"rootx": 0.75}, 0.136608),
    ("cheetah-run-back", {}, {"rootx": 0}, 0.013919),
    ("cheetah-run-back", {}, {"rootx": 3}, 0.048715),
    ("cheetah-run-back", {}, {"rootx": 6}, 0.083511),
    ("cheetah-run-back", {"rootz": 0.4}, {"rootx": 6}, 0.481641),
    ("cheetah-jump", {}, {"rootx": 0}, 0.202213),
    ("cheetah-jump", {}, {"rootx": 3}, 0.035547),
    ("cheetah-jump", {"rootz": 0.4}, {"rootx": 0.25}, 0.630820),
    ("cheetah-jump", {"rootz": 0.4}, {"rootx": 0.75}, 0.547487),
    ("cheetah-jump", {"rootz": 0.4}, {"rootx": 6}, 0.464153),
    ("hopper-hop-backwards", {}, {"rootx": 0}, 0.0),
    ("hopper-hop-backwards", {}, {"rootx": -0.25}, 0.25),
    ("hopper-hop-backwards", {}, {"rootx": -0.5}, 0.5),
    ("hopper-hop-backwards", {}, {"rootx": -0.75}, 0.75),
    ("hopper-hop-backwards", {}, {"rootx": -1}, 1.0),
    ("hopper-hop-backwards", {}, {"rootx": -1.5}, 1.0),
    ("cup-spin", {"ball_x": 0, "ball_z": 0}, {}, 0.233333),
    ("cup-spin", {"ball_x": 0.2, "ball_z": 0}, {"ball_x": 3, "ball_z": 4}, 0.824297),
    ("cup-spin", {"ball_x": 0.3, "ball_z": -0.3}, {"ball_x": 0, "ball_z": 3}, 0.666667),
    ("cup-spin", {"ball_x": 0, "ball_z": 0.35}, {"ball_x": 6, "ball_z": 0}, 0.0),
    ("pendulum-spin", {}, {"hinge": 0}, 0.0),
    ("pendulum-spin", {}, {"hinge": 2}, 0.222222),
    ("pendulum-spin", {}, {"hinge": 4.5}, 0.5),
    ("pendulum-spin", {}, {"hinge": -6.75}, 0.75),
    ("pendulum-spin", {}, {"hinge": 9}, 1.0),
    ("pendulum-spin", {}, {"hinge": -12}, 1.0),
]


@pytest.mark.parametrize(("index", "name", "first_sum", "return_100", "sum_100"), CHECK_NUMBERS, ids=[row[1] for row in CHECK_NUMBERS])
def test_check_numbers(index: int, name: str, first_sum: float, return_100: float, sum_100: float) -> None:
    assert MT80[index] == name
    env = envs.make(name, seed=1)
    fresh, _ = env.reset()
    assert fresh.dtype == np.float32
    assert fresh.astype(np.float64).sum() == pytest.approx(first_sum, abs=2e-6)
    # A used environment that is seeded again must start the very same episode.
    for _ in range(3):
        env.step(np.ones(env.facts.action_dim))
    again, _ = env.reset(seed=1)
    np.testing.assert_array_equal(again, fresh)
    total = 0.0
    for step in range(100):
        obs, reward, _, _, _ = env.step(np.sin(0.5 * step + np.arange(env.facts.action_dim)))
        total += reward
    assert total == pytest.approx(return_100, abs=1e-5)
    assert obs.astype(np.float64).sum() == pytest.approx(sum_100, abs=1e-4)


def _reward_at(name: str, positions: Mapping[str, float], rates: Mapping[str, float]) -> float:
    env = envs.make(name, seed=0)
    env.reset()
    physics = env._physics
    physics.reset()
    for joint, value in positions.items():
        physics.named.data.qpos[joint] = value
    for joint, value in rates.items():
        physics.named.data.qvel[joint] = value
    physics.forward()
    return env._task.get_reward(physics)


@pytest.mark.parametrize(("name", "positions", "rates", "expected"), REWARDS)
def test_custom_rewards(name: str, positions: Mapping[str, float], rates: Mapping[str, float], expected: float) -> None:
    assert _reward_at(name, positions, rates) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "distance", "expected"),
    [
        ("reacher-three-easy", 0.059, 1.0),
        ("reacher-three-easy", 0.061, 0.0),
        ("reacher-three-hard", 0.024, 1.0),
        ("reacher-three-hard", 0.026, 0.0),
    ],
)
def test_three_link_reacher_reward(name: str, distance: float, expected: float) -> None:
    env = envs.make(name, seed=0)
    env.reset()
    physics = env._physics
    physics.named.model.geom_pos["target", :2] = physics.named.data.geom_xpos["finger", :2] + distance * np.array([0.6, 0.8])
    physics.forward()
    assert env._task.get_reward(physics) == expected


def test_three_link_reacher_model() -> None:
    physics = envs.make("reacher-three-easy", seed=0)._physics
    physics.reset()
    # Stretched out along x: 3 x 0.09, at the height of the arm.
    np.testing.assert_allclose(physics.named.data.geom_xpos["finger"], [0.27, 0.0, 0.01], atol=1e-12)
    np.testing.assert_allclose(np.rad2deg(physics.named.model.jnt_range[["shoulder1", "wrist"]]), [[-80, 80], [-80, 80]])
    assert not physics.named.model.jnt_limited["shoulder0"]
    # Capsules are stored by half-length.
    np.testing.assert_allclose(2 * physics.named.model.geom_size[["arm0", "arm1", "hand"], 1], [0.09, 0.09, 0.10])


def test_cup_spin_starts_in_the_cup_nine_times_out_of_ten() -> None:
    env = envs.make("cup-spin", seed=0)
    in_cup = []
    for _ in range(100):
        env.reset()
        in_cup.append(env._physics.in_target())
    assert 0.8 <= np.mean(in_cup) <= 0.97


def test_episode_ends_by_truncation_and_asks_for_a_reset() -> None:
    env = envs.make("walker-stand", seed=1)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(6))
    env.reset()
    ends, total = [], 0.0
    for step in range(500):
        _, reward, terminated, truncated, info = env.step(np.sin(0.5 * step + np.arange(6)))
        assert not terminated
        assert info["success"] == 0.0
        ends.append(truncated)
        total += reward
    assert ends == [False] * 499 + [True]
    assert total == pytest.approx(135.3353, abs=1e-3)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(6))


def test_reset_without_a_seed_runs_the_generator_on() -> None:
    env, same = envs.make("walker-walk", seed=3), envs.make("walker-walk", seed=3)
    first, second = env.reset()[0], env.reset()[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(same.reset()[0], first)
    np.testing.assert_array_equal(same.reset()[0], second)


@pytest.mark.parametrize("action", [np.zeros(5), np.full(6, np.nan)])
def test_bad_actions_are_named(action: np.ndarray) -> None:
    env = envs.make("walker-walk", seed=0)
    env.reset()
    with pytest.raises(ValueError, match="walker-walk: an action is 6 finite numbers"):
        env.step(action)


def test_actions_are_clipped() -> None:
    rewards = []
    for scale in (1.0, 5.0):
        env = envs.make("hopper-stand", seed=0)
        env.reset()
        rewards.append([env.step(np.full(4, scale))[0] for _ in range(3)])
    np.testing.assert_array_equal(*rewards)


def test_no_scripted_expert() -> None:
    with pytest.raises(NotImplementedError, match="only Meta-World"):
        envs.make("walker-walk", seed=0).expert_action()


@pytest.mark.filterwarnings("ignore:.*Box observation space")
def test_gymnasium_contract() -> None:
    check_env(envs.make("pendulum-swingup", seed=0), skip_render_check=True)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(envs.EnvUnavailableError, match=r"dm_control cannot be imported .* pip install dm_control==1"):
        envs.make("walker-walk")


def test_facts_agree_with_the_simulator() -> None:
    for name in ("walker-walk", "reacher-three-easy", "fish-swim", "finger-turn-hard"):
        env, facts = envs.make(name, seed=0), task_facts(name)
        assert env.reset()[0].shape == (facts.obs_dim,)
        assert env._env.action_spec().shape == (facts.action_dim,)
