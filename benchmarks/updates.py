"""What the algorithm does: both updates, imagination and planning, on random arrays at a published size."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops
from benchmarks.work import Shape, Work, reading, updating
from configs import base
from experiments import stages
from pwm_jax import pwm
from pwm_jax.config import Config
from pwm_jax.types import Batch, Starts, as_leaves


def config_of(preset: str, batch_size: int, horizon: int, dtype: str = "float32", **model: Any) -> Config:
    """The algorithm at a published size, batches, horizons and dtype of both halves alike; `model` fields changed."""
    config = base.get_config(preset)
    config.world_model.update(batch_size=batch_size, horizon=horizon)
    config.policy.update(batch_size=batch_size, horizon=horizon, matmul_dtype=dtype)
    config.model.update(model, matmul_dtype=dtype)
    return stages.algorithm_of(config, stages.task_set_of(config))


def batch_of(config: Config) -> Batch:
    """A batch of random windows."""
    m, c = config.model, config.world_model
    rng, leading = np.random.default_rng(0), (c.horizon, c.batch_size)
    task_id = rng.integers(0, m.num_tasks, c.batch_size)
    mask = m.action_mask[task_id]
    leaves = as_leaves(
        rng.standard_normal((c.horizon + 1, c.batch_size, m.obs_dim), np.float32),
        (rng.uniform(-1, 1, (*leading, m.action_dim)) * mask).astype(np.float32),
        rng.standard_normal(leading, np.float32),
        np.zeros(leading, np.float32),
        task_id.astype(np.int32),
    )
    return jax.device_put(Batch(*leaves))


def starts_of(config: Config) -> Starts:
    """Start states of a policy, all of task 0."""
    m, size = config.model, config.policy.batch_size
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (size, m.action_dim)) * m.action_mask[0]
    leaves = as_leaves(rng.standard_normal((size, m.obs_dim), np.float32), action.astype(np.float32), np.zeros(size, np.int32))
    return jax.device_put(Starts(*leaves))


def model_update(shape: Shape, reward_head: str = "two_hot", dtype: str = "float32") -> Work:
    """One gradient step of pre-training."""
    config = config_of(**dataclasses.asdict(shape), dtype=dtype, reward_head=reward_head)
    state = jax.jit(functools.partial(pwm.init_world_model, config))(jax.random.key(0))
    update = functools.partial(pwm.update_world_model, config=config)
    return updating(update, state, batch_of(config), jax.random.key(1), flop=sum(flops.model_update(config).values()))


def policy_update(shape: Shape, dtype: str = "float32") -> Work:
    """One iteration of extraction."""
    config = config_of(**dataclasses.asdict(shape), dtype=dtype)
    params, state = fresh(config)
    update = functools.partial(pwm.update_policy, config=config)
    return updating(update, state, params, starts_of(config), jax.random.key(1), flop=sum(flops.policy_update(config).values()))


def imagination(shape: Shape, backward: bool) -> Work:
    """Rollouts of a policy through the model; with `backward` the actor's gradient through them."""
    config = config_of(**dataclasses.asdict(shape))
    p = config.policy
    noise = jax.random.normal(jax.random.key(2), (p.horizon, p.batch_size, config.model.action_dim))
    params, state = fresh(config)

    loss: Callable[..., Any] = functools.partial(pwm.actor_loss, config=config)

    def forward(*arguments: Any) -> Any:
        return loss(*arguments)[0]

    function = jax.grad(forward) if backward else forward
    arguments = (state.actor_params, state, params, starts_of(config), noise, jnp.zeros(p.batch_size, jnp.int32))
    return reading(function, *arguments, flop=sum(flops.imagination(config, backward).values()))


def fresh(config: Config) -> tuple[Any, Any]:
    """World-model parameters and the state of a policy."""
    params = jax.jit(functools.partial(pwm.init_world_model, config))(jax.random.key(0)).params
    return params, jax.jit(functools.partial(pwm.init_policy, config))(jax.random.key(0))


def planner(shape: Shape) -> Work:
    """A decision of MPPI for one environment, guided by a policy; the number of plans is MPPI's own, not the batch size."""
    from pwm_jax.baselines.mppi import MPPIConfig, Planner
    from pwm_jax.training.policies import init_policies

    config = config_of(**dataclasses.asdict(shape))
    params, _ = fresh(config)
    policies = init_policies(config, np.zeros(1, np.int32), np.zeros(1, np.uint32))
    plan, obs, task_id = Planner(params, config, MPPIConfig(), policies), np.zeros((1, config.model.obs_dim)), np.zeros(1, np.int32)
    key = jax.random.key(0)
    return Work(lambda: jax.block_until_ready(plan(obs, task_id, key)))
