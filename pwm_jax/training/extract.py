"""Extraction: policies for a set of tasks and seeds from one frozen world model, all in one jitted program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pwm_jax import checkpoint, ops
from pwm_jax.config import Config, check_fields, check_rhythm
from pwm_jax.data.sample import DeviceDataset
from pwm_jax.data.store import Dataset
from pwm_jax.training import policies as policy_sets
from pwm_jax.training.policies import PolicySet
from pwm_jax.training.sharing import SharingError
from pwm_jax.types import AnyArray, Metrics, Params, Policy, Starts


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """Length and rhythm of extraction, in iterations (one actor step and its critic regression each).

    Policies are made for every one of `seeds` on every one of `tasks` (names; empty: all of the model's). `max_episodes` caps how
    many episodes of a task give start states. `policies_per_batch`: see `policies.update_policies`.
    """

    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    steps: int = 10_000
    log_every: int = 100
    eval_every: int = 1_000
    eval_episodes: int = 10
    checkpoint_every: int = 1_000
    max_episodes: int = 2_000
    policies_per_batch: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "extract", zero=("seeds", "policies_per_batch"))
        check_rhythm(self, "extract")


def scheduled(config: Config, extract: ExtractConfig) -> Config:
    """The configuration with the policies' learning-rate schedules stretched over this extraction."""
    return dataclasses.replace(config, policy=dataclasses.replace(config.policy, decay_steps=extract.steps))


def init(config: Config, task_ids: Sequence[int], seeds: Sequence[int]) -> PolicySet:
    """Fresh policies for every task and seed, ordered by task, then seed."""
    return policy_sets.init_policies(config, np.repeat(task_ids, len(seeds)), np.tile(seeds, len(task_ids)))


class StartSampler(flax.struct.PyTreeNode):
    """Device-resident start states: the episodes of the tasks to extract, at most so many of each.

    `mixture` names the tasks, drawn equally often, from which every batch of a policy of several tasks starts; empty: its own alone.
    """

    data: DeviceDataset
    balance: float = flax.struct.field(pytree_node=False)
    early_steps: int = flax.struct.field(pytree_node=False)
    batch_size: int = flax.struct.field(pytree_node=False)
    mixture: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def of(cls, dataset: Dataset, task_ids: Sequence[int], config: Config, max_episodes: int, seed: int) -> StartSampler:
        """Choose up to `max_episodes` of each task, without replacement. Raises DatasetError where a task has none."""
        rng = np.random.default_rng((seed, 1))
        chosen = []
        for task in task_ids:
            mine = np.flatnonzero(dataset.episodes.task_id == task)
            chosen.append(np.sort(rng.permutation(mine)[:max_episodes]))
        data = DeviceDataset.from_dataset(dataset.select(episode_mask=np.isin(np.arange(len(dataset)), np.concatenate(chosen))))
        data.require(tuple(task_ids))
        return cls(data, config.policy.start_balance, config.policy.horizon, config.policy.batch_size)

    def __call__(self, key: jax.Array, task_id: jax.Array) -> Starts:
        """Draw one batch for the policy of `task_id`."""
        if not self.mixture:
            obs, action = self.data.sample_starts(key, self.batch_size, task_id, self.balance, self.early_steps)
            return Starts(obs, action, jnp.full(self.batch_size, task_id))
        task_key, key = jax.random.split(key)
        task_ids = jax.random.choice(task_key, jnp.asarray(self.mixture, jnp.int32), (self.batch_size,))
        draw = jax.vmap(lambda key, task: self.data.sample_starts(key, 1, task, self.balance, self.early_steps))
        obs, action = draw(jax.random.split(key, self.batch_size), task_ids)
        return Starts(obs[:, 0], action[:, 0], task_ids)


@functools.partial(jax.jit, static_argnames=("num_updates", "config", "policies_per_batch"), donate_argnums=0)
def _chunk(
    policies: PolicySet, wm_params: Params, starts: StartSampler, num_updates: int, config: Config, policies_per_batch: int
) -> tuple[PolicySet, Metrics]:
    """`num_updates` iterations of every policy, the policies shared out evenly over the devices, the model and data copied to each."""

    def on_one_device(policies: PolicySet, wm_params: Params, starts: StartSampler) -> tuple[PolicySet, Metrics]:
        return policy_sets.update_policies(policies, wm_params, starts, num_updates, config, policies_per_batch)

    shared, split = PartitionSpec(), PartitionSpec("policy")
    mesh = _mesh(policies.task_id.shape[0])
    return jax.shard_map(on_one_device, mesh=mesh, in_specs=(split, shared, shared), out_specs=split, check_vma=False)(
        policies, wm_params, starts
    )


def _mesh(num_policies: int) -> Mesh:
    """The largest number of devices that divides the policies evenly; all of them where they belong to several processes.

    Raises SharingError where these do not divide the policies.
    """
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if num_policies % n == 0)
    if jax.process_count() > 1 and count < len(devices):
        raise SharingError(
            f"{num_policies} policies cannot be shared out evenly to the {len(devices)} devices of all processes: change tasks or seeds"
        )
    return Mesh(np.array(devices[:count]), ("policy",))


def _place(policies: PolicySet, wm_params: Params, starts: StartSampler) -> tuple[PolicySet, Params, StartSampler]:
    """What every process holds whole, on the devices of all: policies shared out, the model and data copied to each."""
    mesh = _mesh(policies.task_id.shape[0])
    shared, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("policy"))
    return jax.device_put(policies, split), jax.device_put(wm_params, shared), jax.device_put(starts, shared)


@functools.partial(jax.jit, static_argnames="config")
def _act(policies: PolicySet, wm_params: Params, obs: jax.Array, config: Config) -> jax.Array:
    return policy_sets.act(policies, wm_params, obs, config)


def as_policy(policies: PolicySet, wm_params: Params, config: Config) -> Policy:
    """The deterministic policies as one `policy(obs [N, O], task_id [N], key)` for N = P * E environments, E in a row for each of P.

    It raises ValueError where the environments' tasks are not the policies' in this order.
    """
    own = np.asarray(policies.task_id)

    def policy(obs: AnyArray, task_id: AnyArray, key: jax.Array) -> jax.Array:
        if len(obs) % len(own) or not np.array_equal(task_id, np.repeat(own, len(obs) // len(own))):
            raise ValueError(f"environments of tasks {np.asarray(task_id).tolist()} are not those of policies for {own.tolist()} in a row")
        grouped = jnp.asarray(obs).reshape(len(own), -1, obs.shape[-1])
        return _act(policies, wm_params, grouped, config).reshape(obs.shape[0], -1)

    return policy


def among_others(policies: PolicySet, wm_params: Params, config: Config) -> Policy:
    """As `as_policy`, with zero actions in environments of tasks that none of the policies is for."""
    own, act = np.asarray(policies.task_id), as_policy(policies, wm_params, config)

    def policy(obs: AnyArray, task_id: AnyArray, key: jax.Array) -> AnyArray:
        mine = np.isin(task_id, own)
        action = np.zeros((len(mine), config.model.action_dim), np.float32)
        action[mine] = act(np.asarray(obs)[mine], np.asarray(task_id)[mine], key)
        return action

    return policy


def run(
    policies: PolicySet,
    wm_params: Params,
    starts: StartSampler,
    config: Config,
    extract: ExtractConfig,
    log: Callable[[PolicySet, int, Mapping[str, np.ndarray]], None],
    labels: Sequence[str] = (),
) -> PolicySet:
    """Continue `policies` to `extract.steps` iterations; `log(policies, step, metrics)` follows every `log_every`, metrics [P].

    `config` is a `scheduled` one. `labels` [P] name the policies in errors.
    Of several processes (`jax.distributed`) each holds some of the policies that it is told.

    Raises:
        FloatingPointError: a loss is not finite; names the iteration and the policies.
    """
    step = int(policies.state.step[0])
    if jax.process_count() > 1:
        policies, wm_params, starts = _place(policies, wm_params, starts)
    while step < extract.steps:
        num_updates = min(extract.log_every - step % extract.log_every, extract.steps - step)
        policies, device_metrics = _chunk(policies, wm_params, starts, num_updates, config, extract.policies_per_batch)
        step += num_updates
        metrics = checkpoint.on_host(device_metrics)
        ops.require_finite(metrics, "extract", f"within {num_updates} iterations before {step}", labels)
        log(policies, step, metrics)
    return policies
