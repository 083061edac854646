"""The environment that Brax's agents train on: its flags by hand, its restarts, and equality with Brax's wrapper and with Episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.envs.wrappers import training
from brax_point import Point

from pwm_jax.envs.simulators import fresh_starts
from pwm_jax.envs.simulators.episodes import Episodes

LENGTH, N = 5, 6
KEYS = jax.random.split(jax.random.PRNGKey(0), N)


def trajectory(env, state, actions):
    """States after every step, stacked in time."""

    def step(state, action):
        state = env.step(state, action)
        return state, state

    return jax.jit(lambda state: jax.lax.scan(step, state, actions)[1])(state)


@pytest.fixture(scope="module")
def wrapped():
    return fresh_starts.wrap(Point(), episode_length=LENGTH)


def test_flags_counters_and_totals_of_a_termination_and_a_truncation(wrapped):
    # The first environment walks to beyond 1 within four steps, the others stand still until the episode is cut.
    actions = jnp.zeros((7, N, 1)).at[:, 0].set(0.9)
    start = wrapped.reset(KEYS)
    states = trajectory(wrapped, start, actions)
    x = np.asarray(start.obs[:, 0])
    first = 1 + int(np.argmax(x[0] + 0.45 * np.arange(1, 8) > 1))  # the step that leaves
    assert first < LENGTH
    done, truncation, steps = (np.asarray(value) for value in (states.done, states.info["truncation"], states.info["steps"]))
    assert (done[first - 1, 0], truncation[first - 1, 0], steps[first - 1, 0]) == (1, 0, first)
    assert steps[first, 0] == 1
    np.testing.assert_array_equal(done[:, 1], [0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(truncation[:, 1], [0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(steps[:, 1], [1, 2, 3, 4, 5, 1, 2])
    totals = states.info["episode_metrics"]
    np.testing.assert_array_equal(totals["length"], steps)
    np.testing.assert_allclose(totals["sum_reward"][:5, 1], -np.arange(1, 6) * (x[1] - 0.5) ** 2, rtol=1e-5)
    second = float(states.obs[4, 1, 0])
    np.testing.assert_allclose(totals["sum_reward"][5:, 1], -np.arange(1, 3) * (second - 0.5) ** 2, rtol=1e-5)


def test_every_episode_begins_from_a_start_state_of_its_own(wrapped):
    start = wrapped.reset(KEYS)
    states = trajectory(wrapped, start, jnp.zeros((3 * LENGTH, N, 1)))
    begins = np.concatenate([start.obs[None, :, 0], states.obs[LENGTH - 1 :: LENGTH, :, 0]])
    assert begins.shape == (4, N)
    assert len(np.unique(begins)) == begins.size
    assert np.abs(begins).max() <= 0.4
    assert begins.std() > 0.1


def test_until_the_first_restart_it_is_brax_s_own_training_wrapper(wrapped):
    own = wrapped.reset(KEYS)
    theirs = training.wrap(Point(), episode_length=LENGTH)
    # The same start states: the wrapper's reset with the keys that Episodes splits for each environment.
    brax = theirs.reset(jax.random.split(jax.random.split(KEYS[0])[0], N))
    np.testing.assert_array_equal(own.obs, brax.obs)
    actions = jax.random.uniform(jax.random.key(1), (LENGTH, N, 1), minval=-1.0)
    a, b = trajectory(wrapped, own, actions), trajectory(theirs, brax, actions)
    ended = np.cumsum(np.asarray(b.done), axis=0) - np.asarray(b.done) > 0  # after the step that ended the first episode
    same = ~ended
    assert same.sum() > 20
    for name in ("reward", "done"):
        np.testing.assert_array_equal(np.asarray(getattr(a, name))[same], np.asarray(getattr(b, name))[same])
    for name in ("truncation", "steps", "episode_done"):
        np.testing.assert_array_equal(np.asarray(a.info[name])[same], np.asarray(b.info[name])[same])
    for name in ("sum_reward", "length"):
        np.testing.assert_allclose(
            np.asarray(a.info["episode_metrics"][name])[same], np.asarray(b.info["episode_metrics"][name])[same], rtol=1e-6
        )


def test_its_steps_are_those_of_episodes_with_the_same_keys(wrapped):
    episodes = Episodes(wrapped.episodes.env, LENGTH)
    start_key, key = jax.random.split(KEYS[0])
    sim, state = episodes.reset(start_key, N), wrapped.reset(KEYS)
    step, own_step = jax.jit(episodes.step), jax.jit(wrapped.step)
    for t in range(2 * LENGTH):
        action = jnp.full((N, 1), 0.3 * (-1) ** t)
        key, restart = jax.random.split(key)
        sim, transition = step(sim, action, restart)
        state = own_step(state, action)
        np.testing.assert_array_equal(state.obs, sim.obs)
        np.testing.assert_array_equal(state.reward, transition.reward)
        np.testing.assert_array_equal(state.info["truncation"], transition.truncated)


def test_repeated_actions_and_randomised_systems_are_refused():
    with pytest.raises(ValueError, match="neither repeat actions"):
        fresh_starts.wrap(Point(), LENGTH, action_repeat=2)
