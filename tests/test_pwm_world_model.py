"""The world-model half of pwm: the loss against a loop, termination, gradients, optimiser, what an update does besides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import directional_derivatives, make_batch, make_config, network, to_float64, world_model_params, world_model_state

from pwm_jax import ops, pwm
from pwm_jax.config import Config
from pwm_jax.types import Batch, Params

loss_and_parts = jax.jit(pwm.world_model_loss, static_argnames="config")
update = jax.jit(pwm.update_world_model, static_argnames="config")


def two_hot_cross_entropy(logits: np.ndarray, reward: float, low: float, high: float) -> float:
    """By the format's definition: p = (s - low) / spacing, weight 1 - (p - i) on bin i = floor(p) and p - i on the next."""
    bins = logits.shape[-1]
    symlog = np.sign(reward) * np.log1p(abs(reward))
    position = (np.clip(symlog, low, high) - low) / (high - low) * (bins - 1)
    below = min(int(position), bins - 2)
    log_p = logits - np.log(np.exp(logits).sum())
    return -(1 - (position - below)) * log_p[below] - (position - below) * log_p[below + 1]


def loss_by_loops(params: Params, batch: Batch, config: Config) -> dict[str, float]:
    """Section 1.1 of the specification, step by step, sample by sample, in float64 outside the networks."""
    c, m = config.world_model, config.model
    horizon, size = batch.reward.shape
    encode, follow, reward_of = (network(config, name) for name in ("encode", "next", "reward_output"))
    parts = dict.fromkeys(("consistency_loss", "reward_loss", "termination_loss"), 0.0)
    for member in range(m.model_ensemble):
        z = encode(params, batch.obs[0], batch.task_id)
        for t in range(horizon):
            inputs = (params, z, batch.action[t], batch.task_id)
            output = np.asarray(reward_of(*inputs), np.float64)
            logit = np.asarray(network(config, "terminated_logit")(*inputs), np.float64) if m.termination_head else np.zeros(size)
            z = follow(*inputs)[member]
            target = np.asarray(encode(params, batch.obs[t + 1], batch.task_id), np.float64)
            for b in range(size):
                if batch.terminated[:t, b].any():
                    continue
                weight = c.rho**t / (horizon * size * m.model_ensemble)
                parts["consistency_loss"] += weight * np.square(np.asarray(z[b]) - target[b]).mean()
                if m.reward_head == "two_hot":
                    parts["reward_loss"] += weight * two_hot_cross_entropy(output[b], float(batch.reward[t, b]), m.bin_low, m.bin_high)
                else:
                    parts["reward_loss"] += weight * (output[b, 0] - float(batch.reward[t, b])) ** 2
                sign = 1.0 if batch.terminated[t, b] else -1.0
                parts["termination_loss"] += weight * np.logaddexp(0.0, -sign * logit[b])
    loss = c.consistency_coef * parts["consistency_loss"] + c.reward_coef * parts["reward_loss"]
    return parts | {"loss": loss + c.termination_coef * parts["termination_loss"] * m.termination_head}


@pytest.mark.parametrize(
    "model",
    [{}, dict(model_ensemble=2, termination_head=True), dict(reward_head="scalar", termination_head=True, regulariser="none")],
    ids=["plain", "ensemble", "scalar"],
)
def test_the_loss_is_the_equation(model: dict[str, Any]) -> None:
    config = make_config(model, dict(rho=0.7, consistency_coef=3.0, reward_coef=0.5, termination_coef=2.0))
    params, batch = world_model_params(config), make_batch(config, termination=0.2)
    assert 0 < batch.terminated[:-1].sum() < batch.terminated[:-1].size
    loss, parts = loss_and_parts(params, batch, batch.reward, config=config)
    expected = loss_by_loops(params, batch, config)
    assert set(expected) - set(parts) == ({"termination_loss"} if not config.model.termination_head else set())
    for name in parts.keys() & expected.keys():
        np.testing.assert_allclose(parts[name], expected[name], rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(loss, expected["loss"], rtol=2e-5)
    weight = 0.7 ** np.arange(4)
    for name in ("consistency", "reward"):
        np.testing.assert_allclose(np.mean(weight * parts[f"{name}_per_step"]), expected[f"{name}_loss"], rtol=2e-5)


def test_nothing_after_a_termination_counts() -> None:
    config = make_config(dict(termination_head=True))
    params, batch = world_model_params(config), make_batch(config)
    ended = batch.replace(terminated=batch.terminated.at[1].set(1.0))
    other = make_batch(config, seed=5)

    def with_changed_end(batch: Batch, first: int) -> Batch:
        """The windows with other steps from `first` on, and other observations after that step's own."""
        late = jnp.arange(5) >= first
        return batch.replace(
            obs=jnp.where((jnp.arange(5) > first)[:, None, None], other.obs, batch.obs),
            action=jnp.where(late[:4, None, None], other.action, batch.action),
            reward=jnp.where(late[:4, None], other.reward, batch.reward),
        )

    def value(batch: Batch) -> float:
        return float(loss_and_parts(params, batch, batch.reward, config=config)[0])

    assert value(with_changed_end(ended, 2)) == value(ended)
    assert value(with_changed_end(ended, 1)) != value(ended)
    assert value(with_changed_end(batch, 2)) != value(batch)


def test_termination_loss_of_an_undecided_head_is_log_two_while_alive() -> None:
    config = make_config(dict(termination_head=True), dict(rho=0.5))
    batch = make_batch(config).replace(terminated=jnp.zeros((4, 6)).at[1, :3].set(1.0))
    params = world_model_params(config)
    params = params | {"termination": params["termination"] | {"linear_2": jax.tree.map(jnp.zeros_like, params["termination"]["linear_2"])}}
    _, parts = loss_and_parts(params, batch, batch.reward, config=config)
    np.testing.assert_allclose(parts["termination_loss"], np.log(2) * (1 + 0.5 + 0.25 / 2 + 0.125 / 2) / 4, rtol=1e-5)


def test_the_gradient_is_that_of_the_equation_with_fixed_targets() -> None:
    config = make_config(dict(model_ensemble=2, termination_head=True), dict(rho=0.8, reward_coef=1.0))
    with jax.enable_x64(True):
        params, batch = to_float64((world_model_params(config), make_batch(config, termination=0.2)))
        params["task_embedding"] *= 0.3  # inside the unit ball, where its projection is the identity
        fixed = network(config, "encode")(params, batch.obs[1:], batch.task_id)
        grads = jax.jit(jax.grad(lambda p: pwm.world_model_loss(p, batch, batch.reward, config)[0]))(params)

        @jax.jit
        def equation(p: Params) -> jax.Array:
            total, parts = pwm.world_model_loss(p, batch, batch.reward, config)
            alive = jnp.cumprod(jnp.concatenate([jnp.ones((1, 6)), 1 - batch.terminated[:-1]]), axis=0)
            z = jnp.broadcast_to(network(config, "encode")(p, batch.obs[0], batch.task_id), (2, 6, 8))
            consistency = 0.0
            for t in range(4):
                z = network(config, "next_per_member")(p, z, batch.action[t], batch.task_id)
                consistency += 0.8**t * jnp.mean(alive[t] * jnp.square(z - fixed[t]).mean(-1).mean(0)) / 4
            return total + config.world_model.consistency_coef * (consistency - parts["consistency_loss"])

        pairs = directional_derivatives(equation, params, grads)
    assert np.abs(pairs[:, 1]).min() > 1e-6
    np.testing.assert_allclose(pairs[:, 1], pairs[:, 0], rtol=1e-5, atol=1e-8)


def test_the_program_does_not_grow_with_the_horizon() -> None:
    config = make_config()
    params = world_model_params(config)

    def size(horizon: int) -> int:
        batch = make_batch(config, horizon)
        return len(str(jax.make_jaxpr(lambda p: pwm.world_model_loss(p, batch, batch.reward, config)[0])(params)).splitlines())

    assert size(3) == size(9)


def test_an_update_moves_every_network_and_keeps_embeddings_short() -> None:
    config = make_config(dict(model_ensemble=2, termination_head=True), dict(lr=1e-2))
    params = world_model_params(config)
    long = params | {"task_embedding": params["task_embedding"] * 20}
    state = world_model_state(config).replace(params=long)
    batch = make_batch(config, termination=0.1)
    updated, metrics = update(state, batch, jax.random.key(0), config=config)
    assert np.linalg.norm(long["task_embedding"], axis=-1).min() > 1
    np.testing.assert_allclose(np.linalg.norm(updated.params["task_embedding"], axis=-1), 1.0, atol=1e-6)
    steps = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), updated.params, long)
    # The first step of Adam is the learning rate, times the sign of the gradient.
    for name in ("dynamics_0", "dynamics_1", "reward_head", "termination"):
        assert all(0.8e-2 < step < 1.01e-2 for step in jax.tree.leaves(steps[name])), steps[name]
    assert all(0.24e-2 < step < 0.303e-2 for step in jax.tree.leaves(steps["encoder"]))
    assert int(updated.step) == 1
    assert updated.reward_moments.count == state.reward_moments.count
    assert {name for name in metrics if name.endswith("loss")} == {"loss", "consistency_loss", "reward_loss", "termination_loss"}
    grads = jax.jit(jax.grad(lambda p: pwm.world_model_loss(p, batch, batch.reward, config)[0]))(long)
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in map(np.asarray, jax.tree.leaves(grads))))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)


def test_moments_do_not_see_what_follows_a_termination() -> None:
    config = make_config(dict(reward_head="scalar", termination_head=True, normalise_obs=True), dict(normalise_reward=True))
    batch = make_batch(config)
    batch = batch.replace(terminated=jnp.zeros_like(batch.terminated).at[1, 2].set(1.0))
    other = batch.replace(obs=batch.obs.at[3:, 2].add(5.0), reward=batch.reward.at[2:, 2].add(5.0))
    updated, _ = update(world_model_state(config), batch, jax.random.key(0), config=config)
    same, _ = update(world_model_state(config), other, jax.random.key(0), config=config)
    for name in ("mean", "var", "count"):
        np.testing.assert_array_equal(updated.params["obs_moments"][name], same.params["obs_moments"][name], err_msg=name)
        np.testing.assert_array_equal(getattr(updated.reward_moments, name), getattr(same.reward_moments, name), err_msg=name)
    seen = updated.params["obs_moments"]["count"].sum() - world_model_state(config).params["obs_moments"]["count"].sum()
    horizon, size = batch.reward.shape
    assert round(float(seen)) == (horizon + 1) * size - (horizon - 2)


def test_rewards_are_normalised_by_moments_that_include_the_batch() -> None:
    config = make_config(dict(reward_head="scalar"), dict(normalise_reward=True))
    earlier = ops.init_moments().replace(count=jnp.float32(100.0))
    state = world_model_state(config).replace(reward_moments=earlier)
    batch = make_batch(config)
    batch = batch.replace(reward=(batch.reward + 3).at[0, 0].set(90.0))
    updated, metrics = update(state, batch, jax.random.key(0), config=config)
    moments = ops.update_moments(earlier, batch.reward)
    np.testing.assert_allclose([updated.reward_moments.mean, updated.reward_moments.var], [moments.mean, moments.var], rtol=1e-6)
    centred = (np.asarray(batch.reward) - moments.mean) / np.sqrt(moments.var + 1e-5)
    assert centred.max() > 5
    target = np.clip(centred, -5, 5)
    expected, _ = loss_and_parts(state.params, batch, jnp.asarray(target), config=config)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
