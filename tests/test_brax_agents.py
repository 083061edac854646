"""Brax's agents on the project's episodes: what a curve counts, who evaluates its end, and that both agents learn a point's way."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax_point import Point

from configs import brax_agents as configs
from experiments.settings import ConfigError
from pwm_jax import simulated
from pwm_jax.baselines import brax_agents
from pwm_jax.baselines.brax_agents import PPOConfig, SACConfig
from pwm_jax.baselines.compile_clock import CompileClock
from pwm_jax.envs.simulators.episodes import Episodes

EPISODES = Episodes(Point(), 5)
TINY = dict(eval_envs=16, num_envs=16, batch_size=32, learning_rate=3e-3)
PPO = PPOConfig(
    **TINY, env_steps=4_000, eval_every=2_000, unroll_length=5, num_minibatches=4,
    policy_hidden_layer_sizes=(16,), value_hidden_layer_sizes=(16,),
)  # fmt: skip
SAC = SACConfig(
    **TINY, env_steps=1_600, eval_every=800, min_replay_size=160, max_replay_size=1_600, grad_updates_per_step=4, hidden_layer_sizes=(16,)
)  # fmt: skip


def trained(config):
    points = []
    acting = brax_agents.train(EPISODES, config, 3, points.append)
    return points, brax_agents.as_policy(acting, config, 2, 1)


@pytest.fixture(scope="module")
def ppo():
    return trained(PPO)


@pytest.fixture(scope="module")
def sac():
    return trained(SAC)


def test_steps_are_whole_updates_and_reach_what_was_asked():
    # An update takes 32 * 4 * 5 = 640 steps; the nearest to 2000 are 3 of them; 4000 need 3 evaluations of these.
    assert brax_agents.training_steps(PPO) == (3, 3 * 3 * 640)
    assert brax_agents.training_steps(dataclasses.replace(PPO, eval_every=1)) == (7, 7 * 640)


def test_ppo_s_curve_counts_its_steps_and_rises(ppo):
    points, _ = ppo
    assert [point.env_steps for point in points] == [0, 1_920, 3_840, 5_760]
    assert points[-1].episode_return > points[0].episode_return + 0.1


def test_sac_s_curve_counts_its_random_steps_too_and_rises(sac):
    points, _ = sac
    # 160 steps fill the replay; (1600 - 160) / 2 a training epoch.
    assert [point.env_steps for point in points] == [0, 880, 1_600]
    assert points[-1].episode_return > points[0].episode_return + 0.1


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_compiling_is_apart_from_training(agent, request):
    points, _ = request.getfixturevalue(agent)
    walls, compiling = [point.wall_s for point in points], [point.compile_s for point in points]
    assert walls[0] == 0
    assert all(np.diff(walls) > 0)
    assert all(np.diff(compiling) >= 0)
    assert compiling[1] > 0


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_the_last_point_is_the_final_policy_as_play_measures_it(agent, request):
    points, policy = request.getfixturevalue(agent)
    returns, lengths = simulated.play(EPISODES, policy, jax.random.key(1_000), 16)
    assert points[-1].episode_return == pytest.approx(float(returns.mean()), rel=1e-4)
    assert points[-1].length == pytest.approx(float(lengths.mean()))


def test_brax_s_evaluations_agree_with_play():
    # Nothing is learned and all episodes begin alike, so the first evaluation, which is Brax's, and the last see the same episode.
    points = []
    config = dataclasses.replace(PPO, env_steps=1, eval_every=1, learning_rate=0.0, normalize_observations=False)
    acting = brax_agents.train(Episodes(Point(spread=0.0), 5), config, 0, points.append)
    policy = brax_agents.as_policy(acting, config, 2, 1)
    first, last = points
    assert first.env_steps == 0
    assert first.episode_return == pytest.approx(last.episode_return, rel=1e-4)
    assert first.length == last.length
    action = policy(jnp.ones((4, 2)), jax.random.key(0))
    np.testing.assert_array_equal(action, policy(jnp.ones((4, 2)), jax.random.key(1)))


@pytest.mark.parametrize("config", [PPO, SAC])
def test_what_an_agent_acts_with_has_the_shapes_that_a_saved_one_is_restored_to(config):
    acting = brax_agents.train(EPISODES, dataclasses.replace(config, env_steps=200, eval_every=200), 0, lambda point: None)
    jax.tree.map(
        lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), acting, brax_agents.acting_like(config, 2, 1)
    )


def test_a_return_that_is_not_finite_ends_with_the_step():
    with pytest.raises(FloatingPointError, match="the return is nan after 0 environment steps"):
        brax_agents.train(Episodes(Point(bad_after=0.0), 5), SAC, 0, lambda point: None)
    assert not hasattr(jax, "device_put_replicated") or jax.device_put_replicated.__module__.startswith("jax")


def test_a_curve_s_times_are_those_of_training_alone(monkeypatch):
    clock, points, now = CompileClock(), [], iter([0.0, 10.0, 30.0, 40.0])
    monkeypatch.setattr(clock, "now", lambda: next(now))
    clock._spans = [(0.0, 5.0), (7.0, 9.0), (11.0, 19.0), (24.0, 25.0)]
    curve = brax_agents._Curve(clock, points.append)

    def evaluated(env_steps, seconds, **agents):
        curve.evaluated(env_steps, {"eval/epoch_eval_time": seconds, "eval/episode_reward": 1.0, "eval/avg_episode_length": 2.0, **agents})

    evaluated(0, 4.0)  # from 6 on; compiled until 5, and within the evaluation
    evaluated(100, 5.0, **{"training/walltime": 12.0})  # of 10 to 25, of which 9 were compiling
    evaluated(200, 5.0, **{"training/walltime": 16.0})  # of 30 to 35, of which the agent trained for 4
    curve.add(np.array([3.0, 5.0]), np.array([6, 7]))
    assert [tuple(point) for point in points] == [(0, 0.0, 5.0, 1.0, 2.0), (100, 6.0, 14.0, 1.0, 2.0), (200, 10.0, 14.0, 4.0, 6.5)]


def test_the_clock_counts_nested_and_clipped_spans_once():
    clock = CompileClock()
    clock._spans = [(0.0, 4.0), (1.0, 2.0), (3.0, 5.0), (7.0, 8.0), (9.5, 12.0)]
    assert clock.seconds(0.0, 20.0) == pytest.approx(5 + 1 + 2.5)
    assert clock.seconds(3.5, 10.0) == pytest.approx(1.5 + 1 + 0.5)
    assert clock.seconds(5.0, 7.0) == 0


def test_the_clock_hears_compiling_only_while_it_runs():
    def compiled_seconds(inside):
        begin = CompileClock.now()
        jax.jit(lambda x: x + begin).lower(1.0).compile()
        return inside.seconds(begin, CompileClock.now())

    with CompileClock() as clock:
        begin = clock.now()
        time.sleep(0.05)
        middle = clock.now()
        assert clock.seconds(begin, middle) == 0
        assert 0 < compiled_seconds(clock) <= clock.now() - middle
    assert compiled_seconds(clock) == 0


@pytest.mark.parametrize(("method", "cls"), [("ppo", PPOConfig), ("sac", SACConfig)])
def test_the_config_is_the_dataclass_with_its_defaults(method, cls):
    config = configs.get_config(f"mjx-quadruped,{method}")  # a robot without settings of its own
    assert config.agent.to_dict() == {field.name: field.default for field in dataclasses.fields(cls)}


def test_rewards_and_discounts_of_robots_are_as_published():
    assert configs.get_config("brax-humanoid-spring,sac").agent.reward_scaling == 0.1
    assert configs.get_config("brax-ant-spring,ppo").agent.reward_scaling == 10.0
    assert configs.get_config("brax-hopper-spring,ppo").agent.discounting == 0.997


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"agent\.batch_size times num_minibatches must be a multiple of agent\.num_envs 48"):
        dataclasses.replace(PPO, num_envs=48)
    with pytest.raises(ValueError, match=r"agent\.min_replay_size 1600 leaves nothing of agent\.env_steps 1600"):
        dataclasses.replace(SAC, min_replay_size=1_600)
    with pytest.raises(ValueError, match="seeds must be one or more different seeds"):
        dataclasses.replace(PPO, seeds=(1, 1))
    with pytest.raises(ValueError, match="must be a task and ppo or sac"):
        configs.get_config("brax-hopper-spring")
    from experiments.brax_agents import settings_of

    config = configs.get_config()
    config.method = "pwm"
    with pytest.raises(ConfigError, match=r"config\.method must be ppo or sac, not 'pwm'"):
        settings_of(config)
