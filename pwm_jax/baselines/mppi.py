"""TD-MPC2's planner (MPPI, arXiv 2310.16828) through a world model: what PWM's policies are compared with, since they need no planning.

A guide proposes actions and values the end of a plan: TD-MPC2's own policy prior and Q heads where the model has them, or the actor and
critics of an extracted policy. Constants and steps are TD-MPC2's (arXiv 2310.16828).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, Protocol

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax import tdmpc2
from pwm_jax.config import Config, ModelConfig, check_fields
from pwm_jax.networks import WorldModel, actor_of, discount_of, state_value
from pwm_jax.training.policies import PolicySet
from pwm_jax.types import AnyArray, Params


@dataclasses.dataclass(frozen=True)
class MPPIConfig:
    """Planning over `horizon` steps: `iterations` rounds of `num_samples` action sequences, of which `num_prior` are the guide's own.

    The `num_elites` best, weighted by exp(temperature (V - max V)), make the next mean and standard deviation, kept in [min_std, max_std].
    `guide` `policy` plans with each extracted policy, `q` with TD-MPC2's prior and Q heads. `seeds` (empty: all) of the extracted
    policies are planned with. `envs_per_batch` bounds memory: so many of a guide's environments at once (0: all).
    """

    guide: Literal["policy", "q"] = "policy"
    seeds: tuple[int, ...] = ()
    envs_per_batch: int = 0
    horizon: int = 3
    iterations: int = 6
    num_samples: int = 512
    num_prior: int = 24
    num_elites: int = 64
    min_std: float = 0.05
    max_std: float = 2.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "mppi", zero=("seeds", "envs_per_batch", "num_prior"))
        if not self.num_prior < self.num_samples or self.num_elites > self.num_samples:
            raise ValueError(
                f"mppi.num_samples {self.num_samples} must be above num_prior {self.num_prior} and at least num_elites {self.num_elites}"
            )
        if not 0.0 < self.min_std <= self.max_std:
            raise ValueError(f"mppi.min_std {self.min_std} must be above 0 and at most mppi.max_std {self.max_std}")


Carry = tuple[Array, Array, Array, Array]  # mean and standard deviation [H, A], the elites' first actions [K, A], their weights [K]


class Guide(Protocol):
    """What a plan is made with, for latents z [n, D] of one task (a scalar id)."""

    def sample(self, z: Array, task_id: Array, key: Array) -> Array:
        """Actions [n, A]."""
        ...

    def step(self, z: Array, action: Array, task_id: Array) -> tuple[Array, Array, Array]:
        """Next latent [n, D], reward [n] and discount [n], in the units of `value`."""
        ...

    def value(self, z: Array, task_id: Array, key: Array) -> Array:
        """What is to be had from z on, [n]."""
        ...


class QGuide(flax.struct.PyTreeNode):
    """TD-MPC2's prior and Q heads: rewards as the environment's, the task's own discount."""

    params: Params
    config: Config = flax.struct.field(pytree_node=False)

    def sample(self, z: Array, task_id: Array, key: Array) -> Array:
        """Actions drawn from the prior."""
        return tdmpc2.sample_prior(self.params, z, task_id, key, self.config.model).action

    def step(self, z: Array, action: Array, task_id: Array) -> tuple[Array, Array, Array]:
        """One step of the model, the reward decoded with symexp."""
        m = dataclasses.replace(self.config.model, reward_space="raw")
        next_z, reward, survival = _advance(m, self.params, z, action, task_id)
        return next_z, reward, jnp.asarray(m.discounts)[task_id] * survival

    def value(self, z: Array, task_id: Array, key: Array) -> Array:
        """Mean of two random heads for an action of the prior."""
        m, (action_key, head_key) = self.config.model, jax.random.split(key)
        heads = tdmpc2.two_of(self.params["q"], head_key)
        return tdmpc2.q_values(self.params, heads, z, self.sample(z, task_id, action_key), task_id, m).mean(0)


class PolicyGuide(flax.struct.PyTreeNode):
    """Actor and critics of one extracted policy: rewards in the model's units, before `reward_scale`, and the policy's discount."""

    params: Params
    actor_params: Params
    critic_params: Params
    config: Config = flax.struct.field(pytree_node=False)

    def _input(self, z: Array, task_id: Array) -> Array:
        conditioned = self.config.policy.task_conditioned
        return WorldModel(self.config.model).apply({"params": self.params}, z, task_id, conditioned, method="policy_input")

    def sample(self, z: Array, task_id: Array, key: Array) -> Array:
        """tanh(mu(z) + sigma eps)."""
        mean, std = actor_of(self.config).apply({"params": self.actor_params}, self._input(z, task_id))
        return jnp.tanh(mean + std * jax.random.normal(key, mean.shape))

    def step(self, z: Array, action: Array, task_id: Array) -> tuple[Array, Array, Array]:
        """One step of the model."""
        next_z, reward, survival = _advance(self.config.model, self.params, z, action, task_id)
        return next_z, reward, discount_of(task_id, self.config) * survival

    def value(self, z: Array, task_id: Array, key: Array) -> Array:
        """The least of the critics, in the model's units, so that the planner's temperature means what it does for Q heads."""
        return state_value(self.critic_params, self._input(z, task_id), self.config) / self.config.policy.reward_scale


def _advance(config: ModelConfig, params: Params, z: Array, action: Array, task_id: Array) -> tuple[Array, Array, Array]:
    model, variables = WorldModel(config), {"params": params}
    next_z = model.apply(variables, z, action, task_id, method="next").mean(0)
    reward = model.apply(variables, z, action, task_id, method="reward")
    return next_z, reward, model.apply(variables, z, action, task_id, method="survival")


def plan_value(guide: Guide, z: Array, actions: Array, task_id: Array, key: Array) -> Array:
    """V = sum_{h<H} d_0 .. d_{h-1} r_h + d_0 .. d_{H-1} value(z_H) of n plans: z [D], actions [H, n, A] -> [n]."""

    def advance(carry: tuple[Array, Array, Array], action: Array) -> tuple[tuple[Array, Array, Array], None]:
        z, total, weight = carry
        next_z, reward, discount = guide.step(z, action, task_id)
        return (next_z, total + weight * reward, weight * discount), None

    n = actions.shape[1]
    (z, total, weight), _ = jax.lax.scan(advance, (jnp.broadcast_to(z, (n, *z.shape)), jnp.zeros(n), jnp.ones(n)), actions)
    return total + weight * guide.value(z, task_id, key)


def plan(
    guide: Guide, z: Array, task_id: Array, mean: Array, mask: Array, key: Array, value_key: Array, config: MPPIConfig
) -> tuple[Array, Array]:
    """Plan from one latent: z [D], the last plan's mean [H, A] moved on by a step (zeros at first), mask [A] -> action [A], mean [H, A].

    `value_key` is what the ends of plans are valued with. Shared by all environments, it keeps the choice of Q heads, and so their
    matrix products, common to them.
    """
    c = config
    prior_key, improve_key, choice_key = jax.random.split(key, 3)

    def propose(z: Array, key: Array) -> tuple[Array, Array]:
        action = guide.sample(z, task_id, key) * mask
        return guide.step(z, action, task_id)[0], action

    own = jnp.zeros((c.horizon, 0, mask.shape[0]))
    if c.num_prior:
        _, own = jax.lax.scan(propose, jnp.broadcast_to(z, (c.num_prior, *z.shape)), jax.random.split(prior_key, c.horizon))

    def improve(carry: Carry, keys: tuple[Array, Array]) -> tuple[Carry, None]:
        (mean, std, _, _), (noise_key, value_key) = carry, keys
        noise = jax.random.normal(noise_key, (c.horizon, c.num_samples - c.num_prior, mask.shape[0]))
        actions = jnp.concatenate([jnp.clip(mean[:, None] + std[:, None] * noise, -1.0, 1.0) * mask, own], axis=1)
        value, best = jax.lax.top_k(plan_value(guide, z, actions, task_id, value_key), c.num_elites)
        elite, weight = actions[:, best], jax.nn.softmax(c.temperature * value)
        mean = jnp.einsum("hka,k->ha", elite, weight)
        std = jnp.sqrt(jnp.einsum("hka,k->ha", jnp.square(elite - mean[:, None]), weight))
        return (mean * mask, jnp.clip(std, c.min_std, c.max_std) * mask, elite[0], weight), None

    start = (mean, c.max_std * jnp.broadcast_to(mask, mean.shape), jnp.zeros((c.num_elites, mask.shape[0])), jnp.zeros(c.num_elites))
    keys = jax.random.split(improve_key, c.iterations), jax.random.split(value_key, c.iterations)
    (mean, _, first_actions, weight), _ = jax.lax.scan(improve, start, keys)
    return first_actions[jax.random.categorical(choice_key, jnp.log(weight))], mean


@functools.partial(jax.jit, static_argnames=("config", "mppi"))
def _act(
    policies: PolicySet | None, params: Params, obs: Array, task_id: Array, mean: Array, key: Array, config: Config, mppi: MPPIConfig
) -> tuple[Array, Array]:
    """Actions [P, E, A] and means [P, E, H, A] of E environments with each of P guides; obs [P, E, O], task_id [P, E]."""
    masks = jnp.asarray(config.model.action_mask)

    def with_guide(guide: Guide, obs: Array, task_id: Array, mean: Array, keys: Array) -> tuple[Array, Array]:
        z = WorldModel(config.model).apply({"params": params}, obs, task_id, method="encode")
        one = lambda x: plan(guide, x[0], x[1], x[2], masks[x[1]], x[3], value_key, mppi)  # noqa: E731
        return jax.lax.map(one, (z, task_id, mean, keys), batch_size=mppi.envs_per_batch or len(z))

    value_key, key = jax.random.split(key)
    keys = jax.random.split(key, obs.shape[:2])
    if policies is None:
        action, mean = with_guide(QGuide(params, config), obs[0], task_id[0], mean[0], keys[0])
        return action[None], mean[None]

    def with_policy(actor_params: Params, critic_params: Params, *rest: Array) -> tuple[Array, Array]:
        return with_guide(PolicyGuide(params, actor_params, critic_params, config), *rest)

    return jax.vmap(with_policy)(policies.state.actor_params, policies.state.critic_params, obs, task_id, mean, keys)


class Planner:
    """A `policy(obs [N, O], task_id [N], key)` that plans, for one episode of N environments from its first step to its last.

    It keeps the plans of the last step, with which the next ones begin. With policies, N = P * E environments, E in a row for each.

    Raises:
        ValueError: neither policies nor Q heads to plan with.
    """

    def __init__(self, params: Params, config: Config, mppi: MPPIConfig, policies: PolicySet | None = None) -> None:
        if policies is None and not config.model.num_q:
            raise ValueError("the world model has no Q heads to plan with: set mppi.guide=policy, or train it with configs/tdmpc2.py")
        self.params, self.config, self.mppi, self.policies = params, config, mppi, policies
        self.mean: Array | None = None

    def __call__(self, obs: AnyArray, task_id: AnyArray, key: Array) -> Array:
        """Plan for every environment and give the first actions [N, A]."""
        count, m = 1 if self.policies is None else self.policies.task_id.shape[0], self.config.model
        grouped = jnp.asarray(obs).reshape(count, -1, m.obs_dim)
        if self.mean is None:
            self.mean = jnp.zeros((*grouped.shape[:2], self.mppi.horizon, m.action_dim))
        tasks = jnp.asarray(task_id, jnp.int32).reshape(count, -1)
        action, mean = _act(self.policies, self.params, grouped, tasks, self.mean, key, self.config, self.mppi)
        self.mean = jnp.concatenate([mean[:, :, 1:], jnp.zeros_like(mean[:, :, :1])], axis=2)
        return action.reshape(-1, m.action_dim)
