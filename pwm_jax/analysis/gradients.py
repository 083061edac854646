"""How noisy a policy's gradient is: variance and expected signal-to-noise ratio over horizons, of simulators and of models.

docs/gradients.md explains them; they are those of the paper's figure 3 and of Parmas et al. (arXiv 2306.14178).
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax import ops, pwm, simulated
from pwm_jax.config import Config
from pwm_jax.data.replay import Replay
from pwm_jax.networks import WorldModel, discount_of
from pwm_jax.training.pretrain import fit_replay
from pwm_jax.types import Metrics, Params, Rollout, SimStarts, SimState, Simulator, Starts

Through = Literal["model", "simulator", "decoupled"]


class GradientStats(flax.struct.PyTreeNode):
    """Of N per-sample gradients g_n at each of K horizons: `variance`, `esnr` [K], `norm` and `episode_return` [N, K].

    variance = mean_p Var_n(g_n),  esnr = mean_p (E_n g_n)^2 / (Var_n(g_n) + 1e-9), p over the actor's parameters.
    Of pure noise, esnr is about 1 / N.
    """

    variance: Array
    esnr: Array
    norm: Array
    episode_return: Array


def returns_to(rollout: Rollout, gamma: Array, horizons: tuple[int, ...]) -> Array:
    """sum_{t<h} gamma^t c_t r_t of the episode that each trajectory starts in, for every h of `horizons`: [K, B]."""
    goes_on = gamma * rollout.discount
    if rollout.cut is not None:
        goes_on *= 1.0 - rollout.cut
    weight = jnp.cumprod(jnp.concatenate([jnp.ones_like(goes_on[:1]), goes_on[:-1]]), axis=0)
    return jnp.cumsum(weight * rollout.reward, axis=0)[jnp.asarray(horizons) - 1]


def rollout_of(
    actor_params: Params, wm_params: Params, starts: Starts | SimStarts, noise: Array, config: Config, through: Through
) -> Rollout:
    """The same policy, on latents, whatever it is rolled through; one dynamics-ensemble member."""
    member = jnp.zeros(noise.shape[1], jnp.int32)
    if isinstance(starts, Starts):
        z0 = WorldModel(config.model).apply({"params": wm_params}, starts.obs, starts.task_id, method="encode")
        return pwm.imagine(actor_params, wm_params, z0, starts.task_id, noise, member, config)
    if through == "simulator":
        return simulated.unroll(actor_params, wm_params, starts, noise, config)[0]
    _, real = simulated.unroll(jax.lax.stop_gradient(actor_params), wm_params, starts, noise, config)
    return simulated.follow(actor_params, wm_params, real.transition, starts.task_id, noise, member, config)


@functools.partial(jax.jit, static_argnames=("config", "horizons", "through", "chunk"))
def gradient_stats(
    actor_params: Params,
    wm_params: Params,
    starts: Starts | SimStarts,
    noise: Array,
    config: Config,
    horizons: tuple[int, ...],
    through: Through,
    chunk: int,
) -> GradientStats:
    """Statistics of d returns_to / d actor_params over N start states, each with its own noise.

    Args:
        starts: N observations for `through` model, N simulator states otherwise.
        noise: [H, N, A], standard normal; H at least the largest of `horizons`.
        config: of a policy on latents (`policy.dynamics` not simulator). For the true gradient set `detach_actor_input` False.
        chunk: samples differentiated at once; memory grows with it. It divides N.

    Raises:
        ValueError: `chunk` does not divide N; `config` is of a policy on observations; `starts` do not fit `through`.
    """
    samples = noise.shape[1]
    if samples % chunk:
        raise ValueError(f"chunk {chunk} does not divide the {samples} samples")
    if config.policy.dynamics == "simulator":
        raise ValueError("policy.dynamics simulator is a policy on observations: measure one that reads the model's latents")
    if isinstance(starts, Starts) != (through == "model"):
        raise ValueError(f"gradients through the {through} start from {'observations' if through == 'model' else 'simulator states'}")
    gamma = discount_of(jnp.zeros(1, jnp.int32), config)
    rows = starts if isinstance(starts, Starts) else (starts.state, starts.task_id)

    def one(row: Any, eps: Array) -> tuple[Array, Array]:
        row = jax.tree.map(lambda leaf: leaf[None], row)
        begin = row if isinstance(starts, Starts) else starts.replace(state=row[0], task_id=row[1])

        def returns(params: Params) -> tuple[Array, Array]:
            value = returns_to(rollout_of(params, wm_params, begin, eps[:, None], config, through), gamma, horizons)[:, 0]
            return value, value

        jacobian, value = jax.jacrev(returns, has_aux=True)(actor_params)
        return jnp.concatenate([leaf.reshape(len(horizons), -1) for leaf in jax.tree.leaves(jacobian)], axis=1), value

    in_chunks = lambda x: x.reshape(samples // chunk, chunk, *x.shape[1:])  # noqa: E731

    def merge(carry: tuple[Array, Array, Array], part: tuple[Any, Array]) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        count, mean, squares = carry
        gradient, value = jax.vmap(one)(*part)
        delta = gradient.mean(0) - mean
        total = count + chunk
        squares += jnp.square(gradient - gradient.mean(0)).sum(0) + jnp.square(delta) * count * chunk / total
        return (total, mean + delta * chunk / total, squares), (jnp.linalg.norm(gradient, axis=-1), value)

    size = sum(leaf.size for leaf in jax.tree.leaves(actor_params))
    zeros = jnp.zeros((len(horizons), size))
    parts = jax.tree.map(in_chunks, (rows, noise.swapaxes(0, 1)))
    (_, mean, squares), (norm, value) = jax.lax.scan(merge, (jnp.zeros(()), zeros, zeros), parts)
    variance = squares / samples
    esnr = jnp.square(mean) / (variance + 1e-9)
    flat = lambda x: x.reshape(samples, len(horizons))  # noqa: E731
    return GradientStats(variance=variance.mean(1), esnr=esnr.mean(1), norm=flat(norm), episode_return=flat(value))


@functools.partial(jax.jit, static_argnames=("config", "updates", "per_batch"))
def fit_models(
    replays: Replay, model_keys: Array, update_keys: Array, config: Config, updates: int, per_batch: int
) -> tuple[Params, Metrics]:
    """A model of each of S replays after so many gradient steps: parameters [S, ...], metrics [S, updates]. `per_batch`: `ops.map_rows`."""

    def one(row: tuple[Replay, Array, Array]) -> tuple[Params, Metrics]:
        replay, model_key, update_key = row
        state, metrics = fit_replay(pwm.init_world_model(config, model_key), replay, update_key, config, updates)
        return state.params, metrics

    return ops.map_rows(one, (replays, model_keys, update_keys), per_batch)


@functools.partial(jax.jit, static_argnames=("simulator", "config", "through", "horizons", "samples", "chunk", "per_batch"))
def stats_of_seeds(
    wm_params: Params,
    sim: SimState,
    keys: tuple[Array, Array, Array],
    simulator: Simulator,
    config: Config,
    through: Through,
    horizons: tuple[int, ...],
    samples: int,
    chunk: int,
    per_batch: int,
) -> GradientStats:
    """`gradient_stats` of S seeds in one program, of fresh policies from the states `sim` [S, samples, ...]; leaves begin with S.

    `keys` [S] are those of the policies, of their noise and of what restarts the simulator.
    """
    task_id = jnp.zeros(samples, jnp.int32)

    def one(row: tuple[Params, SimState, tuple[Array, Array, Array]]) -> GradientStats:
        params, state, (policy_key, noise_key, restart_key) = row
        noise = jax.random.normal(noise_key, (max(horizons), samples, config.model.action_dim))
        starts: Starts | SimStarts = SimStarts(simulator=simulator, state=state, task_id=task_id, key=restart_key)
        if through == "model":
            starts = Starts(state.obs, noise[0], task_id)
        actor = pwm.init_policy(config, policy_key).actor_params
        return gradient_stats(actor, params, starts, noise, config, horizons, through, chunk)

    return ops.map_rows(one, (wm_params, sim, keys), per_batch)
