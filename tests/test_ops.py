"""Every operation against its definition in float64, published check numbers or arithmetic by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pwm_jax import ops

WIDE = np.concatenate([np.linspace(-30, 30, 6001), np.linspace(-100, 100, 401), [-1e30, -1e4, 1e4, 1e30]]).astype(np.float32)
LOW, HIGH, BINS = -10.0, 10.0, 101


def mish_reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x tanh(softplus(x)) and its derivative, in float64."""
    x = x.astype(np.float64)
    gate = np.tanh(np.logaddexp(0.0, x))
    sigmoid = np.exp(-np.logaddexp(0.0, -x))
    return x * gate, gate + np.where(gate < 1.0, x * (1.0 - gate**2) * sigmoid, 0.0)


def test_mish_is_its_definition_over_all_magnitudes() -> None:
    value, slope = mish_reference(WIDE)
    np.testing.assert_allclose(ops.mish(jnp.asarray(WIDE)), value, rtol=2e-6, atol=1e-30)
    np.testing.assert_allclose(jax.vmap(jax.grad(ops.mish))(WIDE), slope, rtol=0, atol=1e-5)


def test_simnorm_is_a_softmax_in_each_group() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 12)).astype(np.float32) * 3
    y = np.asarray(ops.simnorm(jnp.asarray(x), group_size=4))
    np.testing.assert_allclose(y.reshape(3, 4, 3, 4).sum(-1), 1.0, atol=1e-6)
    group = np.exp(x[1, 2, 4:8].astype(np.float64))
    np.testing.assert_allclose(y[1, 2, 4:8], group / group.sum(), rtol=1e-5)


def test_simnorm_temperature_divides_the_logits() -> None:
    x = jnp.asarray([1.0, 3.0, -2.0, 0.0])
    np.testing.assert_allclose(ops.simnorm(x, 2, temperature=0.5), ops.simnorm(2 * x, 2), rtol=1e-6)
    np.testing.assert_allclose(ops.simnorm(x, 2, temperature=1e4), 0.5, atol=1e-3)


def test_simnorm_of_a_size_that_has_no_whole_groups_is_an_error() -> None:
    with pytest.raises(ValueError, match="10 is not a multiple of group_size 4"):
        ops.simnorm(jnp.zeros((2, 10)), 4)


def test_symlog_and_symexp_are_inverse() -> None:
    x = np.array([-2e4, -20.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 20.0, 2e4], np.float32)
    expected = np.sign(x) * np.log1p(np.abs(x.astype(np.float64)))
    np.testing.assert_allclose(ops.symlog(x), expected, rtol=1e-6)
    np.testing.assert_allclose(ops.symexp(ops.symlog(x)), x, rtol=3e-6)
    np.testing.assert_allclose(jax.grad(ops.symlog)(3.0), 0.25, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "weights"),
    [
        (1.0, {53: 0.534264, 54: 0.465736}),
        (2.0, {55: 0.506939, 56: 0.493061}),
        (20.0, {65: 0.777388, 66: 0.222612}),
        (0.0, {50: 1.0}),
        (-1.0, {46: 0.465736, 47: 0.534264}),
        (1e6, {100: 1.0}),
        (-1e6, {0: 1.0}),
        (np.inf, {100: 1.0}),
    ],
)
def test_two_hot_of_published_numbers(x: float, weights: dict[int, float]) -> None:
    expected = np.zeros(BINS)
    expected[list(weights)] = list(weights.values())
    np.testing.assert_allclose(ops.two_hot(ops.symlog(jnp.float32(x)), LOW, HIGH, BINS), expected, atol=1e-5)


def test_two_hot_is_decoded_by_the_expected_bin() -> None:
    x = np.random.default_rng(1).uniform(LOW, HIGH, 500).astype(np.float32)
    code = np.asarray(ops.two_hot(jnp.asarray(x), LOW, HIGH, BINS))
    assert ((code > 0).sum(-1) <= 2).all()
    np.testing.assert_allclose(code.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(code @ np.linspace(LOW, HIGH, BINS), x, atol=1e-5)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(ops.two_hot_expectation(np.log(code), LOW, HIGH), x, atol=1e-5)


def test_equal_logits_decode_to_zero() -> None:
    np.testing.assert_allclose(ops.two_hot_expectation(jnp.zeros((3, BINS)), LOW, HIGH), 0.0, atol=1e-6)


def test_two_hot_cross_entropy() -> None:
    rng = np.random.default_rng(2)
    logits, x = rng.normal(size=(4, BINS)) * 3, np.array([0.3, -7.77, 9.99, 42.0])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    position = (np.clip(x, LOW, HIGH) - LOW) / 0.2
    below = np.minimum(np.floor(position).astype(int), BINS - 2)
    upper = position - below
    expected = -(1 - upper) * log_p[range(4), below] - upper * log_p[range(4), below + 1]
    actual = ops.two_hot_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(x, jnp.float32), LOW, HIGH)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_lambda_returns_by_hand() -> None:
    reward, discount, value = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.9, 0.0, 0.5]), jnp.array([10.0, 20.0, 40.0])
    # G_2 = 3 + 0.5 * 40; G_1 = 2 since the step terminates; G_0 = 1 + 0.9 (0.25 * 10 + 0.75 * 2)
    np.testing.assert_allclose(ops.lambda_returns(reward, discount, value, 0.75), [4.6, 2.0, 23.0], rtol=1e-6)


def lambda_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(5, 4)), rng.uniform(0.5, 1.0, (5, 4)), rng.normal(size=(5, 4)) * 5


def test_lambda_zero_is_one_step_and_lambda_one_is_monte_carlo() -> None:
    reward, discount, value = lambda_inputs()
    np.testing.assert_allclose(ops.lambda_returns(reward, discount, value, 0.0), reward + discount * value, rtol=1e-5, atol=1e-6)
    monte_carlo = value[-1]
    for t in reversed(range(5)):
        monte_carlo = reward[t] + discount[t] * monte_carlo
        actual = ops.lambda_returns(reward[t:], discount[t:], value[t:], 1.0)
        np.testing.assert_allclose(actual[0], monte_carlo, rtol=1e-5, atol=1e-6)


def test_a_cut_separates_trajectories_laid_end_to_end() -> None:
    inputs = [jnp.asarray(x, jnp.float32) for x in lambda_inputs()]
    cut = jnp.zeros((5, 4)).at[1].set(1.0)
    joined = ops.lambda_returns(*inputs, 0.8, cut)
    np.testing.assert_allclose(joined[:2], ops.lambda_returns(*(x[:2] for x in inputs), 0.8), rtol=1e-6)
    np.testing.assert_allclose(joined[2:], ops.lambda_returns(*(x[2:] for x in inputs), 0.8), rtol=1e-6)


def test_lambda_returns_refuse_different_shapes() -> None:
    with pytest.raises(AssertionError, match="shape"):
        ops.lambda_returns(jnp.zeros((3, 2)), jnp.zeros((3, 1)), jnp.zeros((3, 2)), 0.9)


def test_projection_to_the_unit_ball() -> None:
    x = jnp.array([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0], [0.0, -1.0]])
    np.testing.assert_allclose(ops.project_to_unit_ball(x), [[0.3, 0.4], [0.6, 0.8], [0.0, 0.0], [0.0, -1.0]], rtol=1e-6)
    # The factor is outside the gradient, as in PyTorch: 1 within the ball, 1/5 everywhere outside, not the projector's Jacobian.
    jacobian = jax.vmap(jax.jacobian(ops.project_to_unit_ball))(x)
    np.testing.assert_allclose(jacobian, np.eye(2) * np.array([1.0, 0.2, 1.0, 1.0])[:, None, None], atol=1e-6)


def test_moments_are_those_of_all_values_seen() -> None:
    rng, moments, seen = np.random.default_rng(4), ops.init_moments(), []
    for size in (3, 50, 1000):
        seen.append(rng.normal(5.0, 3.0, size).astype(np.float32))
        moments = ops.update_moments(moments, jnp.asarray(seen[-1]).reshape(-1, 1))
    values = np.concatenate(seen).astype(np.float64)
    # The start counts as 1e-4 values of mean 0 and variance 1.
    count = 1e-4 + values.size
    mean = values.sum() / count
    var = (1e-4 * (1 + mean**2) + np.square(values - mean).sum()) / count
    np.testing.assert_allclose([moments.mean, moments.var, moments.count], [mean, var, count], rtol=1e-5)
    np.testing.assert_allclose([moments.mean, moments.var], [values.mean(), values.var()], rtol=1e-5)


def test_moments_leave_out_what_has_no_weight() -> None:
    rng = np.random.default_rng(5)
    x, weight = jnp.asarray(rng.normal(5.0, 3.0, (4, 7))), jnp.asarray(rng.integers(0, 2, (4, 7)), jnp.float32)
    weighted, kept = ops.update_moments(ops.init_moments(), x, weight), ops.update_moments(ops.init_moments(), x[weight > 0])
    for one, other in zip(jax.tree.leaves(weighted), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    nothing = ops.update_moments(weighted, x, 0.0)
    np.testing.assert_allclose([nothing.mean, nothing.var, nothing.count], [weighted.mean, weighted.var, weighted.count], rtol=1e-6)


def test_normalise_centres_scales_and_clips() -> None:
    moments = ops.init_moments().replace(mean=jnp.float32(2.0), var=jnp.float32(4.0))
    np.testing.assert_allclose(ops.normalise(jnp.array([2.0, 5.0, -100.0, 100.0]), moments, 5.0), [0, 1.5, -5, 5], rtol=1e-5)


def test_linear_decay_ends_and_stays() -> None:
    rate = ops.linear_decay(1e-3, 1e-5, 100)
    np.testing.assert_allclose([rate(0), rate(50), rate(100), rate(10_000)], [1e-3, 5.05e-4, 1e-5, 1e-5], rtol=1e-5)


def test_operations_under_jit_and_vmap_are_the_same() -> None:
    reward, discount, value = (jnp.asarray(x, jnp.float32) for x in lambda_inputs())
    expected = ops.lambda_returns(reward, discount, value, 0.9)
    columns = jax.jit(jax.vmap(lambda *x: ops.lambda_returns(*x, 0.9), in_axes=1, out_axes=1))(reward, discount, value)
    np.testing.assert_allclose(columns, expected, rtol=1e-6)
    target = ops.two_hot(reward, LOW, HIGH, BINS)
    np.testing.assert_allclose(jax.vmap(jax.vmap(lambda x: ops.two_hot(x, LOW, HIGH, BINS)))(reward), target, atol=1e-6)
