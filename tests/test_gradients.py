"""Gradient statistics against one gradient at a time, and against what is known in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from point_mass import PointMass
from tiny_models import make_config, policy_state, world_model_params

from pwm_jax import networks, simulated
from pwm_jax.analysis.gradients import GradientStats, gradient_stats, returns_to
from pwm_jax.types import Params, Rollout, SimStarts, Starts

SAMPLES, HORIZON, HORIZONS = 8, 5, (1, 2, 5)
CONFIG = make_config(
    dict(obs_dim=2, action_dim=1, action_dims=(1,), task_dim=0, reward_space="raw"),
    dynamics="decoupled",
    detach_actor_input=False,
    gamma=0.9,
)
PARAMS, ACTOR = world_model_params(CONFIG), policy_state(CONFIG).actor_params
NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(HORIZON, SAMPLES, 1)), jnp.float32)
SIMULATOR = PointMass(episode_length=4, drift=0.1)


def starts_of(size: int = SAMPLES) -> SimStarts:
    state = SIMULATOR.reset(jax.random.key(1), size)
    return SimStarts(simulator=SIMULATOR, state=state, task_id=jnp.zeros(size, jnp.int32), key=jax.random.key(2))


def stats_of(through: str, chunk: int = 4) -> GradientStats:
    starts = starts_of()
    from_obs = Starts(starts.state.obs, NOISE[0], starts.task_id)
    return gradient_stats(ACTOR, PARAMS, from_obs if through == "model" else starts, NOISE, CONFIG, HORIZONS, through, chunk)  # type: ignore[arg-type]


def test_returns_stop_with_the_first_episode() -> None:
    column = lambda *x: jnp.asarray(x, jnp.float32)[:, None]  # noqa: E731
    zeros = jnp.zeros((5, 1, 2))
    rollout = Rollout(zeros, zeros[:4], column(1, 2, 3, 4), column(1, 1, 1, 1), zeros[:4], column(0, 1, 0, 0))
    np.testing.assert_allclose(returns_to(rollout, jnp.array(0.5), (1, 2, 4))[:, 0], [1, 2, 2])
    np.testing.assert_allclose(returns_to(rollout.replace(cut=None), jnp.array(0.5), (1, 2, 4))[:, 0], [1, 2, 3.25])
    survives = rollout.replace(cut=None, discount=column(0.5, 1, 0, 1))
    np.testing.assert_allclose(returns_to(survives, jnp.array(0.5), (4,))[:, 0], [1 + 0.25 * 2 + 0.125 * 3])


def test_simulators_statistics_are_those_of_gradients_taken_one_by_one() -> None:
    def sample(index: int, horizon: int) -> np.ndarray:
        starts = starts_of()
        alone = starts.replace(state=jax.tree.map(lambda leaf: leaf[index : index + 1], starts.state), task_id=jnp.zeros(1, jnp.int32))

        def objective(params: Params) -> jax.Array:
            state, total, weight = alone.state, jnp.zeros(()), 1.0
            for t in range(horizon):
                x = networks.policy_obs(PARAMS, state.obs, alone.task_id, CONFIG)
                mean, std = networks.actor_of(CONFIG).apply({"params": params}, x)
                state, transition = SIMULATOR.step(state, jnp.tanh(mean + std * NOISE[t, index]), jax.random.fold_in(alone.key, t))
                total += weight * transition.reward[0]
                weight = weight * 0.9 * (1.0 - jnp.maximum(transition.terminated, transition.truncated)[0])
            return total

        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(objective))(ACTOR))]).astype(np.float64)

    stats = stats_of("simulator")
    for column, horizon in enumerate(HORIZONS):
        gradients = np.stack([sample(index, horizon) for index in range(SAMPLES)])
        np.testing.assert_allclose(stats.norm[:, column], np.linalg.norm(gradients, axis=1), rtol=1e-4)
        np.testing.assert_allclose(stats.variance[column], gradients.var(0).mean(), rtol=1e-4)
        np.testing.assert_allclose(stats.esnr[column], (gradients.mean(0) ** 2 / (gradients.var(0) + 1e-9)).mean(), rtol=1e-3)
    assert stats.variance[0] != pytest.approx(float(stats.variance[1]))


@pytest.mark.parametrize("through", ["model", "simulator", "decoupled"])
def test_chunks_do_not_change_the_statistics(through: str) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), stats_of(through, 4), stats_of(through, 8))


def test_decoupled_returns_are_the_simulators_and_models_are_their_own() -> None:
    simulator, decoupled, model = (stats_of(through).episode_return for through in ("simulator", "decoupled", "model"))
    np.testing.assert_allclose(decoupled, simulator, rtol=1e-4, atol=1e-5)
    assert np.abs(model - simulator).max() > 1e-2
    rollout, _ = simulated.unroll(ACTOR, PARAMS, starts_of(), NOISE, CONFIG)
    np.testing.assert_allclose(simulator.T, returns_to(rollout, jnp.array(0.9), HORIZONS), rtol=1e-4, atol=1e-5)


def test_wrong_sizes_and_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk 3 does not divide the 8 samples"):
        stats_of("simulator", 3)
    with pytest.raises(ValueError, match="start from observations"):
        gradient_stats(ACTOR, PARAMS, starts_of(), NOISE, CONFIG, HORIZONS, "model", 4)
