"""Runs that differ in their seed, and in values of vectorisable fields, as one program: what a sweep's members share.

World models are pre-trained and policies learnt by the same updates as single runs, to the same numbers; every array has one more
leading axis M, the members. What else differs between runs needs programs of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from pwm_jax import ops, pwm
from pwm_jax.config import Config, with_values
from pwm_jax.data.sample import Balance, DeviceDataset
from pwm_jax.training import policies as policy_sets
from pwm_jax.training.extract import ExtractConfig, StartSampler
from pwm_jax.training.policies import PolicySet
from pwm_jax.training.pretrain import PretrainConfig, fit_dataset
from pwm_jax.types import Metrics, Params, WorldModelState


class Members(NamedTuple):
    """M members: their seeds [M] uint32, and the values [M] of the fields in which they differ, by dotted name."""

    seed: np.ndarray
    values: Mapping[str, np.ndarray]


def init_world_models(config: Config, members: Members) -> WorldModelState:
    """Fresh world models [M, ...], each that of its own seed."""

    def one(member: Members) -> WorldModelState:
        return pwm.init_world_model(with_values(config, member.values), jax.random.key(member.seed))

    return jax.jit(lambda: jax.lax.map(one, members))()


@functools.partial(jax.jit, static_argnames=("config", "num_steps", "balance", "per_batch"), donate_argnums=0)
def _pretrain_chunk(
    states: WorldModelState, members: Members, data: DeviceDataset, config: Config, num_steps: int, balance: Balance, per_batch: int
) -> tuple[WorldModelState, Metrics]:
    def one(row: tuple[WorldModelState, Members]) -> tuple[WorldModelState, Metrics]:
        state, member = row
        return fit_dataset(state, data, jax.random.key(member.seed), with_values(config, member.values), num_steps, balance)

    return ops.map_rows(one, (states, members), per_batch)


def pretrain(
    states: WorldModelState,
    members: Members,
    data: DeviceDataset,
    config: Config,
    settings: PretrainConfig,
    per_batch: int,
    log: Callable[[WorldModelState, int, Mapping[str, np.ndarray]], None],
) -> WorldModelState:
    """Continue `states` to `settings.steps` on the training episodes; `log(states, step, metrics [M])` follows every `log_every`.

    Raises:
        FloatingPointError: a loss of a member is not finite; names the step.
    """
    for step, num_steps in _chunks(int(states.step[0]), settings.steps, settings.log_every):
        states, metrics = _pretrain_chunk(states, members, data, config, num_steps, settings.balance, per_batch)
        log(states, step, _finite(metrics, members, "pretrain", step))
    return states


@functools.partial(jax.jit, static_argnames=("config", "num_updates", "per_batch", "policies_per_batch"), donate_argnums=0)
def _extract_chunk(
    policies: PolicySet, members: Members, wm_params: Params, starts: StartSampler, config: Config, num_updates: int, per_batch: int,
    policies_per_batch: int,
) -> tuple[PolicySet, Metrics]:  # fmt: skip
    def one(row: tuple[PolicySet, Members, Params]) -> tuple[PolicySet, Metrics]:
        own, member, params = row
        return policy_sets.update_policies(own, params, starts, num_updates, with_values(config, member.values), policies_per_batch)

    return ops.map_rows(one, (policies, members, wm_params), per_batch)


def extract(
    policies: PolicySet,
    members: Members,
    wm_params: Params,
    starts: StartSampler,
    config: Config,
    settings: ExtractConfig,
    per_batch: int,
    log: Callable[[PolicySet, int, Mapping[str, np.ndarray]], None],
) -> PolicySet:
    """Continue the policies [M, P] of each member, in its own model of `wm_params` [M, ...], to `settings.steps` iterations.

    `log(policies, step, metrics [M, P])` follows every `log_every`. `config` is a scheduled one.

    Raises:
        FloatingPointError: a loss is not finite; names the iteration.
    """
    for step, num_updates in _chunks(int(policies.state.step[0, 0]), settings.steps, settings.log_every):
        policies, metrics = _extract_chunk(
            policies, members, wm_params, starts, config, num_updates, per_batch, settings.policies_per_batch
        )
        log(policies, step, _finite(metrics, members, "extract", step))
    return policies


def _chunks(step: int, last: int, log_every: int) -> Iterator[tuple[int, int]]:
    """(the step at its end, number of steps) of every chunk from `step` to `last`."""
    while step < last:
        count = min(log_every - step % log_every, last - step)
        step += count
        yield step, count


def _finite(metrics: Metrics, members: Members, stage: str, step: int) -> dict[str, np.ndarray]:
    """The metrics on the host. Raises FloatingPointError for the first member in which one is not finite; names its seed and values."""
    found = jax.device_get(metrics)
    for row, seed in enumerate(members.seed.tolist()):
        values = "".join(f", {name} {value[row]:g}" for name, value in members.values.items())
        ops.require_finite({name: value[row] for name, value in found.items()}, stage, f"before step {step}, of seed {seed}{values}")
    return found
