"""TD-MPC2's Q heads and prior, by hand: targets, losses, log-probability, running scale, averages."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import directional_derivatives, make_batch, make_config, model_config, random_params, to_float64, world_model_state

from configs import base
from configs import tdmpc2 as preset
from experiments import stages
from pwm_jax import ops, pwm, tdmpc2
from pwm_jax.config import Config
from pwm_jax.types import Params, WorldModelState

DISCOUNTS = (0.9, 0.8, 0.95)


def q_config(**model: Any) -> Config:
    return make_config(
        model=dict(num_q=3, discounts=DISCOUNTS, q_dropout=0.0, bin_low=-3.0, bin_high=3.0) | model, world_model=dict(rho=0.7)
    )


@functools.cache
def fresh(config: Config) -> WorldModelState:
    """A state none of whose parameters is zero, with target heads other than the heads."""
    state = world_model_state(config)
    return state.replace(q=state.q.replace(target_params=random_params(state.q.target_params, 7), scale=jnp.ones(())))


def all_q(params: Params, q_params: Params, z: jax.Array, action: jax.Array, task_id: jax.Array, config: Config) -> np.ndarray:
    """Every head's value [num_q, ...], each computed on its own."""
    heads = [jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], q_params) for k in range(3)]
    return np.concatenate([tdmpc2.q_values(params, head, z, action, task_id, config.model) for head in heads])


def test_log_probability_by_hand() -> None:
    config = q_config()
    params, rng = fresh(config).params, np.random.default_rng(0)
    z, task_id, key = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32), jnp.array([0, 1, 2, 1, 0]), jax.random.key(3)
    action, log_prob = tdmpc2.sample_prior(params, z, task_id, key, config.model)
    mean, log_std = tdmpc2.prior_distribution(params, z, task_id, config.model)
    assert np.all((np.asarray(log_std) >= -5.0) & (np.asarray(log_std) <= 0.5))
    eps = np.asarray(jax.random.normal(key, mean.shape))
    for row, task in enumerate(task_id.tolist()):
        n = config.model.action_dims[task]
        np.testing.assert_array_equal(np.asarray(action)[row, n:], 0.0)
        u = np.asarray(mean)[row, :n] + eps[row, :n] * np.exp(np.asarray(log_std)[row, :n])
        np.testing.assert_allclose(np.asarray(action)[row, :n], np.tanh(u), rtol=1e-5)
        gaussian = np.sum(-0.5 * eps[row, :n] ** 2 - np.asarray(log_std)[row, :n]) - 0.918939
        correction = np.sum(np.log(1 - np.tanh(u) ** 2 + 1e-6))
        np.testing.assert_allclose(log_prob[row], n * gaussian - correction, rtol=1e-4, atol=1e-4)


def test_targets_take_the_least_of_two_target_heads_and_stop_at_terminations() -> None:
    config = q_config()
    state, batch = fresh(config), make_batch(config, termination=0.4)
    next_z = jnp.asarray(np.random.default_rng(1).normal(size=(4, 6, 8)), jnp.float32)
    seen = set()
    for seed in range(8):
        key = jax.random.key(seed)
        target = tdmpc2.td_target(state.params, state.q.target_params, batch, next_z, key, config)
        action = tdmpc2.sample_prior(state.params, next_z, batch.task_id, jax.random.split(key)[0], config.model).action
        values = all_q(state.params, state.q.target_params, next_z, action, batch.task_id, config)
        discount = np.array(DISCOUNTS)[np.asarray(batch.task_id)] * (1 - np.asarray(batch.terminated))
        by_pair = {pair: batch.reward + discount * np.minimum(values[pair[0]], values[pair[1]]) for pair in [(0, 1), (0, 2), (1, 2)]}
        matching = [pair for pair, expected in by_pair.items() if np.allclose(target, expected, rtol=1e-4, atol=1e-4)]
        assert len(matching) == 1
        seen |= set(matching)
    assert len(seen) > 1  # redrawn with the key


@pytest.mark.parametrize("ensemble", [1, 2])
def test_value_loss_by_hand(ensemble: int) -> None:
    """With several dynamics networks it is the mean over their latents."""
    config, key = q_config(model_ensemble=ensemble), jax.random.key(0)
    state, batch = fresh(config), make_batch(config, termination=0.3)
    _, parts = jax.jit(pwm.world_model_loss, static_argnames="config")(state.params, batch, batch.reward, config, state.q, key)
    model = config.model
    encode = functools.partial(pwm.WorldModel(model).apply, {"params": state.params}, method="encode")
    target = tdmpc2.td_target(
        state.params, state.q.target_params, batch, encode(batch.obs[1:], batch.task_id), jax.random.split(key)[0], config
    )
    z, total, alive = parts["z"], 0.0, np.ones(6)
    assert z.shape == (5, ensemble, 6, 8)
    for t in range(4):
        for member, k in itertools.product(range(ensemble), range(3)):
            latent = z[t, member]
            x = pwm.WorldModel(model).apply({"params": state.params}, latent, batch.action[t], batch.task_id, method="step_input")
            logits = tdmpc2.q_logits(jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], state.params["q"]), x, model)[0]
            log_p = np.asarray(jax.nn.log_softmax(logits))
            code = np.asarray(ops.two_hot(ops.symlog(target[t]), -3.0, 3.0, 21))
            total += 0.7**t * np.mean(alive * -(code * log_p).sum(-1)) / (12 * ensemble)
        alive = alive * (1 - np.asarray(batch.terminated[t]))
    np.testing.assert_allclose(parts["value_loss"], total, rtol=1e-5)
    without = 20 * parts["consistency_loss"] + 0.1 * parts["reward_loss"]
    np.testing.assert_allclose(parts["loss"] - without, 0.1 * parts["value_loss"], rtol=1e-3)


def test_the_value_loss_reaches_encoder_dynamics_and_heads_but_neither_prior_nor_targets() -> None:
    config, key = q_config(), jax.random.key(0)
    state, batch = fresh(config), make_batch(config)

    def value_loss(params: Params, target_params: Params) -> jax.Array:
        q = state.q.replace(target_params=target_params)
        return pwm.world_model_loss(params, batch, batch.reward, config, q, key)[1]["value_loss"]

    grads, target_grads = jax.jit(jax.grad(value_loss, argnums=(0, 1)))(state.params, state.q.target_params)
    norm = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)) for name, tree in grads.items()}
    assert norm["prior"] == norm["reward_head"] == 0.0
    assert min(norm[name] for name in ("encoder", "dynamics_0", "q", "task_embedding")) > 0.0
    assert all(not leaf.any() for leaf in jax.tree.leaves(target_grads))


def test_an_update_moves_everything_once_and_averages_the_heads() -> None:
    config = q_config()
    state, batch = fresh(config), make_batch(config)
    updated, metrics = jax.jit(pwm.update_world_model, static_argnames="config")(state, batch, jax.random.key(0), config)
    assert metrics.keys() >= {"value_loss", "prior_loss", "q_scale", "prior_grad_norm"}
    for before, after in zip(jax.tree.leaves(state.params), jax.tree.leaves(updated.params), strict=True):
        assert not np.array_equal(before, after)
    # The averages follow the heads of after the step.
    for old, new, heads in zip(*map(jax.tree.leaves, (state.q.target_params, updated.q.target_params, updated.params["q"])), strict=True):
        np.testing.assert_allclose(new, 0.99 * old + 0.01 * heads, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ensemble", [1, 2])
def test_prior_step_by_hand(ensemble: int) -> None:
    """Its objective against a computation with the heads of each pair, its scale against NumPy's percentiles."""
    config = q_config()
    state, key, model = fresh(config), jax.random.key(5), config.model
    rng = np.random.default_rng(2)
    latents, task_id = jnp.asarray(rng.normal(size=(3, ensemble, 40, 8)), jnp.float32), jnp.asarray(rng.integers(3, size=40))
    params, q, metrics = jax.jit(tdmpc2.update_prior, static_argnames="config")(state.params, state.q, latents, task_id, key, config=config)
    # The members' latents side by side, each with the tasks of the batch.
    z, tasks = jnp.concatenate([latents[:, k] for k in range(ensemble)], axis=1), jnp.concatenate([task_id] * ensemble)
    sample = tdmpc2.sample_prior(state.params, z, tasks, jax.random.split(key, 3)[0], model)
    values = all_q(state.params, state.params["q"], z, sample.action, tasks, config)
    matches = 0
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        value = (values[i] + values[j]) / 2
        scale = 0.99 + 0.01 * max(np.subtract(*np.percentile(value[0], [95, 5])), 1.0)
        loss = np.mean(0.7 ** np.arange(3) * np.mean(1e-4 * np.asarray(sample.log_prob) - value / scale, axis=1))
        if np.isclose(loss, metrics["prior_loss"], rtol=1e-4):
            matches += 1
            np.testing.assert_allclose(q.scale, scale, rtol=1e-5)
    assert matches == 1
    assert not jax.tree.all(jax.tree.map(np.array_equal, params["prior"], state.params["prior"]))
    assert jax.tree.all(jax.tree.map(np.array_equal, tdmpc2.without_prior(params), tdmpc2.without_prior(state.params)))


def test_the_priors_step_is_adams_on_the_gradient_of_its_objective() -> None:
    """The gradient, by central differences in double precision of the objective as written here, then optax's first step with it."""
    config, key = q_config(num_bins=11, num_q=2), jax.random.key(1)
    with jax.enable_x64(True):
        state = to_float64(fresh(config))
        latents = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 6, 8)))
        task_id = jnp.array([0, 1, 2, 0, 1, 2])
        params, q, _ = jax.jit(tdmpc2.update_prior, static_argnames="config")(state.params, state.q, latents, task_id, key, config=config)

        def objective(prior: Params) -> jax.Array:
            sample = tdmpc2.sample_prior(state.params | {"prior": prior}, latents[:, 0], task_id, jax.random.split(key, 3)[0], config.model)
            value = tdmpc2.q_values(state.params, state.params["q"], latents[:, 0], sample.action, task_id, config.model).mean(0)
            return jnp.mean(jnp.array([1.0, 0.7]) * (1e-4 * sample.log_prob - value / q.scale).mean(1))

        grads = jax.grad(objective)(state.params["prior"])
        pairs = directional_derivatives(jax.jit(objective), state.params["prior"], grads)
        np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=1e-5, atol=1e-7)
        norm = optax.tree.norm(grads)
        assert norm < 20  # not clipped
        # Adam's first step: lr g / (|g| + eps).
        for old, new, grad in zip(*map(jax.tree.leaves, (state.params["prior"], params["prior"], grads)), strict=True):
            np.testing.assert_allclose(new - old, -3e-4 * grad / (jnp.abs(grad) + 1e-5), rtol=1e-4, atol=1e-9)


def test_dropout_thins_the_first_layer_of_each_head_differently() -> None:
    config = q_config(q_dropout=0.5).model
    params = fresh(q_config(q_dropout=0.5)).params
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 8 + 4 + 3)), jnp.float32)
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 3), params["q"])
    plain, dropped = tdmpc2.q_logits(same, x, config), tdmpc2.q_logits(same, x, config, jax.random.key(0))
    np.testing.assert_array_equal(plain[0], plain[1])
    assert np.abs(np.asarray(dropped[0] - dropped[1])).max() > 0.1
    np.testing.assert_array_equal(dropped, tdmpc2.q_logits(same, x, config, jax.random.key(0)))


def test_a_model_with_heads_is_trained_with_their_state() -> None:
    config = q_config()
    state, batch = fresh(config), make_batch(config)
    with pytest.raises(ValueError, match="num_q 3 needs q and key"):
        pwm.world_model_loss(state.params, batch, batch.reward, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_q=1), "at least 2 heads"),
        (dict(regulariser="relu"), "networks with LayerNorm"),
        (dict(reward_head="scalar"), "reward_head two_hot"),
        (dict(discounts=(0.9,)), "one discount for each of 3 tasks"),
        (dict(q_dropout=1.0), r"q_dropout must lie in \[0, 1\)"),
    ],
)
def test_impossible_heads_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_config(**(dict(num_q=3, discounts=DISCOUNTS) | changes))


# tasks_and_formats.md 3.3: all learnable parameters of a TD-MPC2 model, and the numbers that its checkpoint holds (with target heads).
PUBLISHED_PARAMETERS = {
    "1M-mt30": (1_426_427, 1_980_357),
    "5M-mt30": (5_241_066, 8_316_131),
    "19M-mt30": (16_031_210, 24_802_275),
    "48M-mt30": (48_242_410, 72_766_435),
    "317M-mt30": (317_316_889, 503_472_705),
    "1M-mt80": (1_435_067, 1_988_997),
    "5M-mt80": (5_389_930, 8_546_915),
    "19M-mt80": (18_970_218, 29_215_843),
    "48M-mt80": (48_791_146, 73_601_891),
    "317M-mt80": (317_383_129, 503_538_945),
}


@pytest.mark.parametrize(("name", "counts"), PUBLISHED_PARAMETERS.items())
def test_the_preset_has_tdmpc2s_number_of_parameters(name: str, counts: tuple[int, int]) -> None:
    config = preset.get_config(name)
    algorithm = stages.algorithm_of(config, stages.task_set_of(config))
    state = jax.eval_shape(lambda: pwm.init_world_model(algorithm, jax.random.key(0)))
    learnt, averaged = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, state.q.target_params))
    assert (learnt, learnt + averaged) == counts


def test_discounts_are_tdmpc2s() -> None:
    config = base.get_config("5M-mt80")
    discounts = stages.algorithm_of(config, stages.task_set_of(config)).model.discounts
    np.testing.assert_allclose(discounts, [0.99] * 30 + [0.95] * 50)
