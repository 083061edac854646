"""One policy for all tasks of a world model, learnt in imagination by the same update as the policies of single tasks.

Actor and critics read the task's embedding beside the latent, and every batch starts from states of all tasks, drawn equally often.
An iteration by default imagines as many trajectories as one iteration of a policy for each task does together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import pwm
from pwm_jax.config import Config, check_fields, check_rhythm
from pwm_jax.data.store import Dataset
from pwm_jax.training import policies as policy_sets
from pwm_jax.training.extract import ExtractConfig, StartSampler
from pwm_jax.training.policies import PolicySet
from pwm_jax.types import AnyArray, Params, Policy


@dataclasses.dataclass(frozen=True)
class GeneralistConfig(ExtractConfig):
    """As extraction's, for one policy of all of `tasks` and each of `seeds`; `batch_size` 0 is `policy.batch_size` times the tasks."""

    batch_size: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "generalist", zero=("seeds", "policies_per_batch", "batch_size"))
        check_rhythm(self, "generalist")


def conditioned(config: Config, num_tasks: int, generalist: GeneralistConfig) -> Config:
    """The algorithm's configuration for one policy of `num_tasks` tasks, its schedules stretched over this run.

    Raises:
        ValueError: the model has no task embedding to tell the tasks apart.
    """
    if not config.model.task_dim:
        raise ValueError("a world model without task embedding (model.task_dim 0) knows one task: there is nothing to generalise over")
    batch_size = generalist.batch_size or config.policy.batch_size * num_tasks
    policy = dataclasses.replace(config.policy, task_conditioned=True, batch_size=batch_size, decay_steps=generalist.steps)
    return dataclasses.replace(config, policy=policy)


def init(config: Config, seeds: Sequence[int]) -> PolicySet:
    """A fresh policy for every seed; their `task_id` 0 names no task, it keeps the keys of a set of policies what they are."""
    return policy_sets.init_policies(config, np.zeros(len(seeds)), np.asarray(seeds))


def starts_of(dataset: Dataset, task_ids: Sequence[int], config: Config, max_episodes: int, seed: int) -> StartSampler:
    """Start states of all tasks, drawn equally often. Raises DatasetError where a task has none."""
    return StartSampler.of(dataset, task_ids, config, max_episodes, seed).replace(mixture=tuple(task_ids))


@functools.partial(jax.jit, static_argnames="config")
def _act(policies: PolicySet, wm_params: Params, obs: jax.Array, task_id: jax.Array, config: Config) -> jax.Array:
    one = lambda actor_params, obs, task_id: pwm.act(actor_params, wm_params, obs, task_id, config)  # noqa: E731
    return jax.vmap(one)(policies.state.actor_params, obs, task_id)


def as_policy(policies: PolicySet, wm_params: Params, config: Config) -> Policy:
    """The deterministic policies as one `policy(obs [N, O], task_id [N], key)` for N = P * E environments of any tasks, E in a row each."""
    count = len(policies.seed)

    def policy(obs: AnyArray, task_id: AnyArray, key: jax.Array) -> jax.Array:
        grouped = jnp.asarray(obs).reshape(count, -1, obs.shape[-1]), jnp.asarray(task_id, jnp.int32).reshape(count, -1)
        return _act(policies, wm_params, *grouped, config).reshape(obs.shape[0], -1)

    return policy
