"""How smooth a world model is, and the returns that it predicts: norms of its Jacobians, and how fast a return changes with the policy.

What they are for: docs/gradients.md. Accuracy is `training.pretrain.open_loop_error`.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pwm_jax.analysis.gradients import Through, returns_to, rollout_of
from pwm_jax.config import Config
from pwm_jax.networks import WorldModel, discount_of
from pwm_jax.types import Batch, Params, SimStarts, Starts


class JacobianNorms(flax.struct.PyTreeNode):
    """Largest singular values along B recorded windows of H steps, rolled out by the model from their first observations.

    `state` and `action` [H, B] of dF/dz and dF/da at each step, `product` [H, B] of dz_t/dz_0 after t = 1..H steps.
    """

    state: Array
    action: Array
    product: Array


@functools.partial(jax.jit, static_argnames="config")
def jacobian_norms(params: Params, batch: Batch, config: Config) -> JacobianNorms:
    """Norms of the dynamics' Jacobians; of an ensemble, its first member's."""
    model, variables = WorldModel(config.model), {"params": params}
    first = model.apply(variables, batch.obs[0], batch.task_id, method="encode")

    def follow(z0: Array, actions: Array, task: Array) -> tuple[Array, Array, Array]:
        next_of = lambda z, action: model.apply(variables, z, action, task, method="next")[0]  # noqa: E731

        def advance(carry: tuple[Array, Array], action: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
            z, chain = carry
            by_state, by_action = jax.jacrev(next_of, argnums=(0, 1))(z, action)
            chain = by_state @ chain
            return (next_of(z, action), chain), tuple(map(_largest, (by_state, by_action, chain)))  # type: ignore[return-value]

        return jax.lax.scan(advance, (z0, jnp.eye(z0.shape[-1])), actions)[1]

    # One trajectory after the other: a batch of Jacobians of wide latents does not fit.
    norms = jax.lax.map(lambda row: follow(*row), (first, batch.action.swapaxes(0, 1), batch.task_id))
    return JacobianNorms(*(norm.T for norm in norms))


def _largest(matrix: Array) -> Array:
    return jnp.linalg.svd(matrix, compute_uv=False)[0]


def random_directions(actor_params: Params, key: Array, count: int) -> Params:
    """`count` random directions in the space of the actor's parameters, each of length 1; leaves begin with `count`."""
    leaves, structure = jax.tree.flatten(actor_params)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, (count, *leaf.shape)) for k, leaf in zip(keys, leaves, strict=True)]
    length = jnp.sqrt(sum(jnp.square(leaf).reshape(count, -1).sum(1) for leaf in drawn))
    return jax.tree.unflatten(structure, [leaf / length.reshape(count, *[1] * (leaf.ndim - 1)) for leaf in drawn])


def shifted(params: Params, directions: Params, lengths: Array) -> Params:
    """params + lengths[k] * directions[k]: leaves begin with the number of directions."""
    return jax.tree.map(lambda leaf, d: leaf + lengths.reshape(-1, *[1] * leaf.ndim) * d, params, directions)


@functools.partial(jax.jit, static_argnames="config")
def returns_of(policies: Params, wm_params: Params, starts: Starts | SimStarts, noise: Array, config: Config) -> Array:
    """Mean discounted return [K] of K policies over `starts`, through the model, or the simulator where they are its states.

    Of noise.shape[0] steps, with the same noise [H, N, A] for each, and without a value behind them.
    """
    gamma = discount_of(starts.task_id, config)
    through: Through = "model" if isinstance(starts, Starts) else "simulator"

    def one(actor_params: Params) -> Array:
        rollout = rollout_of(actor_params, wm_params, starts, noise, config, through)
        return returns_to(rollout, gamma, (noise.shape[0],)).mean()

    return jax.lax.map(one, policies)


def return_lipschitz(
    actor_params: Params, wm_params: Params, starts: Starts | SimStarts, noise: Array, key: Array, config: Config, length: float, count: int
) -> Array:
    """|J(theta + length d) - J(theta - length d)| / (2 length) for `count` random unit directions d: [count], J as in `returns_of`."""
    directions = random_directions(actor_params, key, count)
    ahead, behind = (
        returns_of(shifted(actor_params, directions, jnp.full(count, sign * length)), wm_params, starts, noise, config)
        for sign in (1.0, -1.0)
    )
    return jnp.abs(ahead - behind) / (2.0 * length)


def landscape(
    actor_params: Params, wm_params: Params, starts: Starts | SimStarts, noise: Array, directions: Params, axis: Array, config: Config
) -> Array:
    """J(theta + x d_0 + y d_1) [G, G] over the slice that two `directions` span, x and y from `axis` [G]; x is the first index."""
    first, second = (jax.tree.map(lambda leaf, k=k: leaf[k][None], directions) for k in (0, 1))
    count = axis.shape[0]
    along = jax.tree.map(
        lambda a, b: axis.repeat(count).reshape(-1, *[1] * (a.ndim - 1)) * a + jnp.tile(axis, count).reshape(-1, *[1] * (a.ndim - 1)) * b,
        first,
        second,
    )
    policies = shifted(actor_params, along, jnp.ones(count * count))
    return returns_of(policies, wm_params, starts, noise, config).reshape(count, count)


def roughness(values: np.ndarray) -> float:
    """Root mean square of the second differences along both axes of a landscape [G, G], over its standard deviation; 0 of a plane."""
    bends = np.concatenate([np.diff(values, 2, axis=axis).ravel() for axis in (0, 1)])
    return float(np.sqrt(np.mean(np.square(bends))) / (values.std() + 1e-12))
