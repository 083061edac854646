"""What TD-MPC2 (arXiv 2310.16828) learns beside the world model: an ensemble of Q heads and a policy prior.

PWM's published multi-task models were pre-trained with both. The Q loss shapes encoder and dynamics; the prior is what its targets act
with. PWM's policies use neither, planning (`baselines.mppi`) uses both. Their parameters are the entries `q` (every leaf with a leading
axis num_q) and `prior` beside the world model's own; the equations are those of TD-MPC2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pwm_jax import ops
from pwm_jax.config import Config, ModelConfig
from pwm_jax.layers import MLP
from pwm_jax.networks import WorldModel
from pwm_jax.optimisers import prior_tx
from pwm_jax.types import Batch, Metrics, Params, QState

HALF_LOG_TWO_PI = 0.918939  # TD-MPC2's rounding
SCALE_RATE = 0.01


class PriorSample(NamedTuple):
    """Actions [..., A] of the policy prior and TD-MPC2's scaled log-probability of them [...]."""

    action: Array
    log_prob: Array


def _q_head(m: ModelConfig) -> MLP:
    return MLP(m.mlp_hidden, m.num_bins, zero_last=True, dropout=m.q_dropout, dtype=m.matmul_dtype)


def _prior(m: ModelConfig) -> MLP:
    return MLP(m.mlp_hidden, 2 * m.action_dim, dtype=m.matmul_dtype)


def init_params(m: ModelConfig, key: Array) -> dict[str, Params]:
    """Fresh parameters `q` and `prior`."""
    q_key, prior_key = jax.random.split(key)
    x = jnp.zeros((1, m.latent_dim + m.task_dim + m.action_dim))
    q = jax.vmap(lambda k: _q_head(m).init(k, x)["params"])(jax.random.split(q_key, m.num_q))
    return {"q": q, "prior": _prior(m).init(prior_key, x[:, : m.latent_dim + m.task_dim])["params"]}


def init_state(params: Params, config: Config) -> QState:
    """What learning `params` carries, before the first step."""
    prior_opt_state = prior_tx(config.world_model).init(params["prior"])
    return QState(target_params=jax.tree.map(jnp.copy, params["q"]), prior_opt_state=prior_opt_state, scale=jnp.ones(()))


def without_prior(params: Params) -> Params:
    """The entries that the world model's own optimiser trains."""
    return {name: value for name, value in params.items() if name != "prior"}


def without_q(params: Params) -> Params:
    """The world model's own entries, which are all that policies use: less than half of such a model."""
    return {name: value for name, value in params.items() if name not in ("q", "prior")}


def q_logits(q_params: Params, x: Array, config: ModelConfig, dropout_key: Array | None = None) -> Array:
    """Two-hot logits [K, ..., num_bins] of K stacked heads at step inputs x [...]; dropout, where keyed, differs from head to head.

    Separate matrix products, as in `networks.CriticEnsemble`.
    """
    count = jax.tree.leaves(q_params)[0].shape[0]
    keys = [None] * count if dropout_key is None else list(jax.random.split(dropout_key, count))
    members = [jax.tree.map(lambda leaf, k=k: leaf[k], q_params) for k in range(count)]
    return jnp.stack([_q_head(config).apply({"params": p}, x, k) for p, k in zip(members, keys, strict=True)])


def two_of(q_params: Params, key: Array) -> Params:
    """Two distinct heads, drawn at random."""
    heads = jax.random.permutation(key, jax.tree.leaves(q_params)[0].shape[0])[:2]
    return jax.tree.map(lambda leaf: leaf[heads], q_params)


def q_values(
    params: Params, q_params: Params, z: Array, action: Array, task_id: Array, config: ModelConfig, dropout_key: Array | None = None
) -> Array:
    """Q_k(z, a) [K, ...] in the units of the environment's rewards, from z [..., D] and action [..., A]."""
    x = WorldModel(config).apply({"params": params}, z, action, task_id, method="step_input")
    return ops.symexp(ops.two_hot_expectation(q_logits(q_params, x, config, dropout_key), config.bin_low, config.bin_high))


def prior_distribution(params: Params, z: Array, task_id: Array, config: ModelConfig) -> tuple[Array, Array]:
    """Mean and log standard deviation [..., A] of the prior before the tanh, zero on components that the task lacks."""
    x = WorldModel(config).apply({"params": params}, z, task_id, method="with_task")
    mean, raw = jnp.split(_prior(config).apply({"params": params["prior"]}, x), 2, axis=-1)
    low, high = config.prior_log_std_low, config.prior_log_std_high
    mask = jnp.asarray(config.action_mask)[task_id]
    return mean * mask, (low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0)) * mask


def sample_prior(params: Params, z: Array, task_id: Array, key: Array, config: ModelConfig) -> PriorSample:
    """a = tanh(mean + std eps) and log pi = n (g - c) - J (section 5.3, the form of the code that PWM's models were trained with).

    g = sum_i (-eps_i^2 / 2 - log std_i), J = sum_i ln(max(1 - a_i^2, 0) + 1e-6), n the task's number of actions, c = ln(2 pi) / 2.
    """
    mean, log_std = prior_distribution(params, z, task_id, config)
    mask = jnp.asarray(config.action_mask)[task_id]
    eps = jax.random.normal(key, mean.shape) * mask
    action = jnp.tanh(mean + eps * jnp.exp(log_std))
    gaussian = (-0.5 * jnp.square(eps) - log_std).sum(-1)
    jacobian = jnp.log(jnp.maximum(1.0 - jnp.square(action), 0.0) + 1e-6).sum(-1)
    return PriorSample(action, mask.sum(-1) * (gaussian - HALF_LOG_TWO_PI) - jacobian)


def td_target(params: Params, target_params: Params, batch: Batch, next_z: Array, key: Array, config: Config) -> Array:
    """y_t = r_t + gamma_i d_t min_{two random target heads} Q(zbar_{t+1}, a'), a' from the prior: [H, B] from encoded next_z [H, B, D]."""
    m, (action_key, head_key) = config.model, jax.random.split(key)
    sample = sample_prior(params, next_z, batch.task_id, action_key, m)
    value = q_values(params, two_of(target_params, head_key), next_z, sample.action, batch.task_id, m).min(0)
    discount = jnp.asarray(m.discounts)[batch.task_id] * (1.0 - batch.terminated)
    return jax.lax.stop_gradient(batch.reward + discount * value)


def value_errors(
    params: Params, q: QState | None, batch: Batch, next_z: Array, z: Array, action: Array, key: Array | None, config: Config
) -> Array:
    """mean_k CE(Q_k(z_t, a_t), twohot(symlog y_t)) [H, B], also averaged over the latents of K dynamics networks.

    Args:
        next_z: [H, B, D], the encoded next observations; z [H, K, B, D] and action [H, K, B, A], the rollout's.

    Raises:
        ValueError: q or key is missing.
    """
    if q is None or key is None:
        raise ValueError(f"a model with num_q {config.model.num_q} needs q and key for its value loss")
    m, (target_key, dropout_key) = config.model, jax.random.split(key)
    target = td_target(params, q.target_params, batch, next_z, target_key, config)
    x = WorldModel(m).apply({"params": params}, z, action, batch.task_id, method="step_input")
    logits = q_logits(params["q"], x, m, dropout_key)
    wanted = jnp.broadcast_to(ops.symlog(target)[:, None], logits.shape[:-1])
    return ops.two_hot_cross_entropy(logits, wanted, m.bin_low, m.bin_high).mean((0, 2))


def update_prior(params: Params, q: QState, latents: Array, task_id: Array, key: Array, config: Config) -> tuple[Params, QState, Metrics]:
    """One step of the prior on the rollout's latents [H+1, K, B, D], and of the averages that follow a model update.

    L_pi = mean_t rho^t mean_b [ -q / S + entropy_coef log pi ], q the mean of two random heads, S the running 5 % to 95 % range of q.
    """
    c, m = config.world_model, config.model
    z = latents.reshape(latents.shape[0], -1, m.latent_dim)
    task_id = jnp.tile(task_id, latents.shape[1])
    action_key, head_key, dropout_key = jax.random.split(key, 3)
    heads = two_of(params["q"], head_key)

    def loss_fn(prior: Params) -> tuple[Array, Array]:
        sample = sample_prior(params | {"prior": prior}, z, task_id, action_key, m)
        value = q_values(params, heads, z, sample.action, task_id, m, dropout_key).mean(0)
        low, high = jnp.percentile(jax.lax.stop_gradient(value[0]), jnp.array([5.0, 95.0]))
        scale = (1.0 - SCALE_RATE) * q.scale + SCALE_RATE * jnp.maximum(high - low, 1.0)
        objective = value / scale - c.prior_entropy_coef * sample.log_prob
        return -jnp.mean(c.rho ** jnp.arange(z.shape[0]) * objective.mean(1)), scale

    (loss, scale), grads = jax.value_and_grad(loss_fn, has_aux=True)(params["prior"])
    updates, opt_state = prior_tx(c).update(grads, q.prior_opt_state, params["prior"])
    prior = optax.apply_updates(params["prior"], updates)
    averaged = optax.incremental_update(params["q"], q.target_params, c.target_q_rate)
    metrics = {"prior_loss": loss, "q_scale": scale, "prior_grad_norm": optax.tree.norm(grads)}
    return params | {"prior": prior}, QState(averaged, opt_state, scale), metrics
