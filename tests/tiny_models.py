"""A small model of three tasks with 3, 1 and 2 actions, for the tests of the algorithm; no parameter of it is zero."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import networks, ops, pwm
from pwm_jax.config import Config, ModelConfig, PolicyConfig, WorldModelConfig
from pwm_jax.networks import WorldModel
from pwm_jax.types import Batch, Params, PolicyState, WorldModelState

NETWORKS = dict(task_dim=4, enc_hidden=(8,), mlp_hidden=(8, 8), latent_dim=8, simnorm_dim=4, num_bins=21, bin_low=-5.0, bin_high=5.0)


# Without hidden layers: a program that compiles in a third of the time, for tests of what surrounds the networks.
AFFINE_MODEL = dict(enc_hidden=(), mlp_hidden=(), regulariser="relu", reward_head="scalar")
AFFINE_POLICY = dict(actor_hidden=(), critic_hidden=(), num_critics=1)
ENSEMBLE = dict(model_ensemble=2, termination_head=True)


def model_config(**changes: Any) -> ModelConfig:
    return ModelConfig(**{"obs_dim": 5, "action_dim": 3, "action_dims": (3, 1, 2), **NETWORKS, **changes})


def make_config(model: dict[str, Any] | None = None, world_model: dict[str, Any] | None = None, **policy: Any) -> Config:
    small = dict(horizon=4, batch_size=6, actor_hidden=(8,), critic_hidden=(8,), num_critics=2, critic_passes=2, critic_minibatches=2)
    return Config(model_config(**(model or {})), WorldModelConfig(**(world_model or {})), PolicyConfig(**{**small, **policy}))


def random_params(shapes: Params, seed: int) -> Params:
    """Parameters of these shapes, none of them zero, without compiling an initialiser: normal noise, around 1 for LayerNorm's scale."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        centre = {"scale": 1.0, "log_std": -1.0}.get(path[-1].key, 0.0)
        return jnp.asarray(centre + 0.4 * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def world_model_state(config: Config, seed: int = 0) -> WorldModelState:
    """Before the first step, but with parameters none of which is zero."""
    shapes = jax.eval_shape(lambda key: pwm.init_world_model(config, key), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros.replace(params=random_params(shapes.params, seed), reward_moments=ops.init_moments())


@functools.cache
def world_model_params(config: Config, seed: int = 0) -> Params:
    return world_model_state(config, seed).params


@functools.cache
def policy_state(config: Config, seed: int = 0) -> PolicyState:
    """Before the first step, but with parameters none of which is zero, and a critic and an averaged critic that differ."""
    shapes = jax.eval_shape(lambda key: pwm.init_policy(config, key), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros.replace(
        actor_params=random_params(shapes.actor_params, seed + 1),
        critic_params=random_params(shapes.critic_params, seed + 2),
        target_critic_params=random_params(shapes.critic_params, seed + 3),
        return_moments=ops.init_moments(),
    )


def make_batch(config: Config, horizon: int = 4, size: int = 6, seed: int = 0, termination: float = 0.0) -> Batch:
    """Recorded windows with padded actions zero, of which a step terminates with the given probability."""
    rng, m = np.random.default_rng(seed), config.model
    task_id = rng.integers(m.num_tasks, size=size)
    return Batch(
        obs=jnp.asarray(rng.normal(size=(horizon + 1, size, m.obs_dim)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, (horizon, size, m.action_dim)) * m.action_mask[task_id], jnp.float32),
        reward=jnp.asarray(rng.normal(size=(horizon, size)) * 2, jnp.float32),
        terminated=jnp.asarray(rng.uniform(size=(horizon, size)) < termination, jnp.float32),
        task_id=jnp.asarray(task_id, jnp.int32),
    )


def make_starts(config: Config, size: int = 6, seed: int = 0) -> pwm.Starts:
    batch = make_batch(config, 1, size, seed)
    return pwm.Starts(batch.obs[0], batch.action[0], batch.task_id)


@functools.cache
def network(config: Config, method: str) -> Callable[..., jax.Array]:
    """One method of the world model, jitted: (params, *arguments)."""
    return jax.jit(lambda params, *arguments: WorldModel(config.model).apply({"params": params}, *arguments, method=method))


def to_float64(tree: Any) -> Any:
    """The same numbers in double precision, floating-point leaves only; call it under `jax.enable_x64`."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def directional_derivatives(function: Callable[[Params], jax.Array], params: Params, grads: Params, step: float = 1e-5) -> np.ndarray:
    """[leaves, 2]: for each leaf, along a random direction in it, the central difference of `function` and what `grads` say."""
    leaves, tree = jax.tree.flatten(params)
    rng, pairs = np.random.default_rng(0), []
    for i, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
        direction = rng.standard_normal(leaf.shape)
        up, down = ([*leaves[:i], leaf + sign * step * direction, *leaves[i + 1 :]] for sign in (1, -1))
        difference = function(jax.tree.unflatten(tree, up)) - function(jax.tree.unflatten(tree, down))
        pairs.append((float(difference) / (2 * step), float(jnp.sum(grad * direction))))
    return np.array(pairs)


def encode_starts(config: Config, starts: pwm.Starts) -> jax.Array:
    return network(config, "encode")(world_model_params(config), starts.obs, starts.task_id)


def policy_mean(config: Config, state: PolicyState, z: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    mean, std = jax.jit(networks.actor_of(config).apply)({"params": state.actor_params}, z)
    return np.asarray(mean), np.asarray(std)


def critic_values(config: Config, critic_params: Params, z: jax.Array) -> jax.Array:
    """[K, ...] of every critic."""
    return jax.jit(networks.critics_of(config).apply)({"params": critic_params}, z)


def shift_values(critic_params: Params, amount: np.ndarray) -> Params:
    """Critics whose values are less by amount [K]."""
    shifted = jax.tree.map(jnp.copy, critic_params)
    for critic, by in zip(shifted.values(), amount, strict=True):
        critic["linear_1"]["bias"] -= by
    return shifted
