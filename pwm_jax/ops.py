"""Numerical building blocks: activations, symlog and two-hot coding, lambda returns, unit-ball projection, running moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pwm_jax.types import Moments

T = TypeVar("T")


def mish(x: Array) -> Array:
    """Mish(x) = x tanh(log(1 + e^x)) (arXiv 1908.08681), elementwise.

    With n = e^x (e^x + 2) this is x n / (n + 2): one exponential in place of three transcendental functions, and exact to
    float32 rounding. Above 20 the factor is 1 in float32, so the exponent is cut there and cannot overflow.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def simnorm(x: Array, group_size: int = 8, temperature: float = 1.0) -> Array:
    """Simplicial normalisation (TD-MPC2, arXiv 2310.16828, eq. 5): softmax over groups of `group_size` features of x [..., D].

    Raises:
        ValueError: D is no multiple of the group size.
    """
    if x.shape[-1] % group_size:
        raise ValueError(f"simnorm: feature size {x.shape[-1]} is not a multiple of group_size {group_size}; choose a latent_dim that is")
    groups = x.reshape(*x.shape[:-1], x.shape[-1] // group_size, group_size)
    return jax.nn.softmax(groups / temperature, axis=-1).reshape(x.shape)


def symlog(x: Array) -> Array:
    """sign(x) ln(1 + |x|), elementwise (DreamerV3, arXiv 2301.04104, eq. 1)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """sign(x) (e^|x| - 1), the inverse of symlog, elementwise."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def two_hot(x: Array, low: float, high: float, num_bins: int) -> Array:
    """Spread x [...] (already in the bins' space) over its two neighbouring bins: weights [..., num_bins] that sum to 1.

    p = (clip(x) - low) / spacing, i = floor(p): weight 1 - (p - i) on bin i and p - i on bin i + 1. Written as a hat function of
    the distance to each bin, which has no gather or scatter.
    """
    position = (jnp.clip(x, low, high) - low) * ((num_bins - 1) / (high - low))
    return jnp.maximum(1.0 - jnp.abs(position[..., None] - jnp.arange(num_bins, dtype=position.dtype)), 0.0)


def two_hot_expectation(logits: Array, low: float, high: float) -> Array:
    """sum_i softmax(logits)_i b_i over the last axis: the expected bin value [...], still in the bins' space."""
    bins = jnp.asarray(np.linspace(low, high, logits.shape[-1]), logits.dtype)  # NumPy's are symmetric to the last bit, XLA's are not
    return (jax.nn.softmax(logits, axis=-1) * bins).sum(-1)


def two_hot_cross_entropy(logits: Array, x: Array, low: float, high: float) -> Array:
    """Cross-entropy [...] between the two-hot code of x [...] (in the bins' space) and softmax(logits [..., num_bins])."""
    return optax.softmax_cross_entropy(logits, two_hot(x, low, high, logits.shape[-1]))


def lambda_returns(reward: Array, discount: Array, next_value: Array, lam: float, cut: Array | None = None) -> Array:
    """TD(lambda) targets G [H, ...].

    G_t = r_t + d_t ((1 - lam) v_{t+1} + lam G_{t+1}),  G_{H-1} = r_{H-1} + d_{H-1} v_H   (Sutton & Barto, eq. 12.18)

    Args:
        reward: r_t, [H, ...].
        discount: d_t, [H, ...], the RL discount times the probability of not terminating.
        next_value: v_{t+1}, [H, ...].
        lam: lambda in [0, 1]; 0 gives one-step targets, 1 the Monte-Carlo return bootstrapped at the end.
        cut: [H, ...], 1 where one trajectory ends and the next begins, for several laid end to end: there G_t = r_t + d_t v_{t+1}.
    """
    chex.assert_equal_shape([reward, discount, next_value])
    lam_t = jnp.full_like(reward, lam) if cut is None else lam * (1.0 - cut)

    def backward(target: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        r, d, v, mix = step
        target = r + d * ((1.0 - mix) * v + mix * target)
        return target, target

    _, targets = jax.lax.scan(backward, next_value[-1], (reward, discount, next_value, lam_t), reverse=True)
    return targets


def discounted_return(
    reward: Array, survival: Array, next_value: Array, gamma: Array, cut: Array | None = None, bootstrap_power: int = 0
) -> Array:
    """sum_{t<H} gamma^t c_t r_t + gamma^(H + bootstrap_power) c_H v_H with c_t = prod_{s<t} d_s, [B].

    Args:
        reward: r_t, [H, B].
        survival: d_t, [H, B], the probability that step t does not terminate.
        next_value: v_{t+1}, [H, B]; read at the end, and where `cut` is set.
        gamma: scalar or [B].
        cut: [H, B], 1 where one trajectory ends and the next begins: the sum is then over all of them, each with its own t and end.
    """
    final = jnp.zeros_like(reward).at[-1].set(1.0)
    ends = final if cut is None else jnp.maximum(cut, final)

    def forward(weight: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        r, d, v, end = step
        after = weight * gamma * d
        return jnp.where(end > 0, 1.0, after), weight * r + jnp.where(end > 0, after * gamma**bootstrap_power * v, 0.0)

    _, gained = jax.lax.scan(forward, jnp.ones_like(reward[0]), (reward, survival, next_value, ends))
    return gained.sum(0)


def project_to_unit_ball(x: Array) -> Array:
    """Scale every vector of x [..., D] that is longer than 1 by 1 / (norm + 1e-7), outside the gradient (PyTorch's `max_norm=1`)."""
    norm = jnp.linalg.norm(jax.lax.stop_gradient(x), axis=-1, keepdims=True)
    return x * jnp.where(norm > 1.0, 1.0 / (norm + 1e-7), 1.0)


def steps_lived(terminated: Array) -> Array:
    """[H, ...] of 1 up to a termination and with it, 0 after: c_t = prod_{s<t} (1 - terminated_s) of terminated [H, ...]."""
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(terminated[:1]), 1.0 - terminated[:-1]]), axis=0)


def init_moments() -> Moments:
    """Moments of an empty stream: mean 0, variance 1, count 1e-4."""
    return Moments(mean=jnp.zeros(()), var=jnp.ones(()), count=jnp.asarray(1e-4, jnp.float32))


def update_moments(moments: Moments, x: Array, weight: Array | float = 1.0) -> Moments:
    """Merge the moments of the entries of x into the running ones (Chan et al. 1979, the parallel update); weight of the shape of x."""
    weight = jnp.broadcast_to(weight, x.shape)
    batch_count = weight.sum()
    average = lambda values: (weight * values).sum() / jnp.maximum(batch_count, 1.0)  # noqa: E731
    batch_mean = average(x)
    delta = batch_mean - moments.mean
    count = moments.count + batch_count
    mean = moments.mean + delta * batch_count / count
    squares = moments.var * moments.count + average(jnp.square(x - batch_mean)) * batch_count
    squares += delta**2 * moments.count * batch_count / count
    return Moments(mean=mean, var=squares / count, count=count)


def update_moments_by_task(moments: Moments, x: Array, task_id: Array, weight: Array | float = 1.0) -> Moments:
    """Merge rows x [N, O] into running moments [T, O] of each row's own task, as `update_moments`; task_id and weight [N]."""
    member = jax.nn.one_hot(task_id, moments.mean.shape[0]) * jnp.broadcast_to(weight, task_id.shape)[:, None]
    batch_count = member.sum(0)[:, None]
    average = lambda values: member.T @ values / jnp.maximum(batch_count, 1.0)  # noqa: E731
    mean = average(x)
    var = average(jnp.square(x - mean[task_id]))
    delta = jnp.where(batch_count > 0, mean - moments.mean, 0.0)
    count = moments.count + batch_count
    merged = moments.var * moments.count + var * batch_count + delta**2 * moments.count * batch_count / count
    return Moments(mean=moments.mean + delta * batch_count / count, var=merged / count, count=count)


def normalise(x: Array, moments: Moments, clip: float = 5.0) -> Array:
    """clip((x - mean) / sqrt(var + 1e-5), -clip, clip)."""
    return jnp.clip((x - moments.mean) * jax.lax.rsqrt(moments.var + 1e-5), -clip, clip)


def linear_decay(start: float, end: float, steps: int) -> Callable[[Array], Array]:
    """Learning rate that falls linearly from `start` to `end` over `steps` gradient steps and stays there."""
    return optax.linear_schedule(start, end, max(steps, 1))


def map_rows(function: Callable[..., T], rows: object, per_batch: int) -> T:
    """`function` of every row, a row being what `rows` holds at one index of its leaves' leading axis; results are stacked alike.

    `per_batch` rows are vectorised at a time (0: all, which suits an accelerator), and the others follow in the same program. On a CPU
    1 is faster, because batched matrix products are slow there.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if per_batch == 0 or 1 < count == per_batch:
        return jax.vmap(function)(rows)
    return jax.lax.map(function, rows, batch_size=per_batch if per_batch > 1 else None)


def require_finite(metrics: Mapping[str, np.ndarray], stage: str, where: str, rows: Sequence[str] = ()) -> None:
    """Raise FloatingPointError naming the stage, the metrics on the host that are not finite, and where in the run they appeared.

    `rows` names the entries of metrics [P]: those that are not finite are named too, the first three of them.
    """
    wrong = [name for name, value in metrics.items() if not np.isfinite(value).all()]
    if wrong:
        bad = {i for name in wrong if np.shape(metrics[name]) == (len(rows),) for i in np.flatnonzero(~np.isfinite(metrics[name])).tolist()}
        named = ", ".join(rows[i] for i in sorted(bad)[:3]) + (f" and {len(bad) - 3} others" if len(bad) > 3 else "")
        raise FloatingPointError(f"{stage}: {', '.join(wrong)} not finite {where}{f', of {named}' if bad else ''}")
