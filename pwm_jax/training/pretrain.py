"""Pre-training of a world model on a dataset: scanned chunks of `pwm.update_world_model`, held-out losses, open-loop error per task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import ops, pwm
from pwm_jax.config import Config, check_fields, check_rhythm
from pwm_jax.data import replay as replays
from pwm_jax.data.replay import Replay
from pwm_jax.data.sample import Balance, DeviceDataset, WindowSampler, prefetch
from pwm_jax.data.store import Dataset
from pwm_jax.networks import WorldModel
from pwm_jax.training.sharing import Sharing
from pwm_jax.types import Batch, Metrics, Params, WorldModelState


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Length and rhythm of pre-training, in gradient steps. `heldout_fraction` of each task's episodes are never trained on (of TD-MPC2's
    MT80 rows, five of which make one dm_control episode, siblings may be).

    The data is sampled on the device where it takes at most `device_bytes`, else streamed from disk. `balance` `tasks` draws
    every task equally often, `frames` every window. `devices` share every batch (0: all accelerators; on a CPU one), with
    `shard_parameters` parameters and optimiser states too.
    """

    steps: int = 1_000_000
    log_every: int = 100
    eval_every: int = 5_000
    checkpoint_every: int = 5_000
    heldout_fraction: float = 0.05
    eval_windows: int = 256
    balance: Balance = "frames"
    device_bytes: int = 8 << 30
    devices: int = 0
    shard_parameters: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "pretrain", zero=("device_bytes", "devices"))
        check_rhythm(self, "pretrain")
        if not 0.0 <= self.heldout_fraction < 1.0:
            raise ValueError(f"heldout_fraction must lie in [0, 1), not {self.heldout_fraction}")


def updates_key(key: jax.Array) -> jax.Array:
    """The key of the updates themselves, apart from `fold_in(key, step)`, which draws the batch of each step."""
    return jax.random.fold_in(key, np.uint32(2**32 - 1))


def fit_replay(
    world_model: WorldModelState, replay: Replay, key: jax.Array, config: Config, num_steps: int
) -> tuple[WorldModelState, Metrics]:
    """`num_steps` gradient steps on windows of a replay; jit the caller. Metrics are of every step, [num_steps]."""
    c = config.world_model

    def fit(world_model: WorldModelState, _: None) -> tuple[WorldModelState, Metrics]:
        batch = replays.sample(replay, jax.random.fold_in(key, world_model.step), c.batch_size, c.horizon)
        return pwm.update_world_model(world_model, batch, updates_key(key), config)

    return jax.lax.scan(fit, world_model, None, length=num_steps)


def fit_dataset(
    state: WorldModelState,
    data: DeviceDataset,
    key: jax.Array,
    config: Config,
    num_steps: int,
    balance: Balance,
    sharing: Sharing | None = None,
) -> tuple[WorldModelState, Metrics]:
    """`num_steps` updates on windows drawn on the device; jit the caller. Metrics are means over them."""
    c = config.world_model

    def fit(state: WorldModelState, _: None) -> tuple[WorldModelState, Metrics]:
        batch = data.sample(jax.random.fold_in(key, state.step), c.batch_size, c.horizon, balance)
        return _fit(state, batch, key, config, sharing)

    state, metrics = jax.lax.scan(fit, state, None, length=num_steps)
    return state, jax.tree.map(lambda x: x.mean(0), metrics)


def _fit(state: WorldModelState, batch: Batch, key: jax.Array, config: Config, sharing: Sharing | None) -> tuple[WorldModelState, Metrics]:
    """One update, on the devices of `sharing`."""
    if sharing is None:
        return pwm.update_world_model(state, batch, updates_key(key), config)
    state, metrics = pwm.update_world_model(state, sharing.split(batch), updates_key(key), config)
    return sharing.keep(state), metrics


_chunk_on_device = functools.partial(jax.jit, static_argnames=("config", "num_steps", "balance", "sharing"), donate_argnums=0)(fit_dataset)
_update = functools.partial(jax.jit, static_argnames=("config", "sharing"), donate_argnums=0)(_fit)


def _chunks(
    state: WorldModelState, data: Dataset, config: Config, pretrain: PretrainConfig, seed: int
) -> Iterator[tuple[WorldModelState, Mapping[str, np.ndarray]]]:
    """The state after every `log_every` updates up to the last, with the mean metrics of the chunk on the host."""
    step, c = int(state.step), config.world_model
    if step >= pretrain.steps:
        return
    ends = range(step - step % pretrain.log_every + pretrain.log_every, pretrain.steps + pretrain.log_every, pretrain.log_every)
    key = jax.random.key(seed)
    sharing = Sharing.of(pretrain.devices, pretrain.shard_parameters, c.batch_size)
    share, prepare = (sharing.own_share(), sharing.gather) if sharing else ((0, 1), jax.device_put)
    meshed = functools.partial(jax.set_mesh, sharing.mesh) if sharing else contextlib.nullcontext
    if sharing:
        state = sharing.place(state)
        # Typed keys cannot be put on other processes' devices, their words can.
        key = jax.random.wrap_key_data(sharing.replicate(jax.random.key_data(key)))
    if data.nbytes <= pretrain.device_bytes:
        on_device = DeviceDataset.from_dataset(data, max_bytes=pretrain.device_bytes)
        if sharing:
            on_device = sharing.replicate(on_device)
        for end in ends:
            num_steps = min(end, pretrain.steps) - step
            with meshed():
                state, metrics = _chunk_on_device(state, on_device, key, config, num_steps, pretrain.balance, sharing)
            step += num_steps
            yield state, jax.device_get(metrics)
        return
    sampler = WindowSampler(data, c.batch_size, c.horizon, pretrain.balance, config.model.termination_head, share)
    batches = prefetch(sampler, seed, step, pretrain.steps, prepare)
    collected: list[Metrics] = []
    for batch in batches:
        with meshed():
            state, step_metrics = _update(state, batch, key, config, sharing)
        collected.append(step_metrics)
        if int(len(collected) + step) in ends or len(collected) + step == pretrain.steps:
            step += len(collected)
            yield state, jax.tree.map(lambda *x: np.mean(x), *jax.device_get(collected))
            collected = []


@functools.partial(jax.jit, static_argnames="config")
def open_loop_error(params: Params, batch: Batch, config: Config) -> tuple[jax.Array, jax.Array]:
    """Prediction error without observing: latent mean squared error [H] after 1..H steps, absolute reward error [H] of step 0..H-1.

    The latent error is divided by the variance over the batch of the encoded observations, so that 1 is no better than their mean;
    rewards are compared in the units of the environment.
    """
    model, variables = WorldModel(dataclasses.replace(config.model, reward_space="raw")), {"params": params}
    encoded = model.apply(variables, batch.obs, batch.task_id, method="encode")

    def advance(z: jax.Array, action: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        reward = model.apply(variables, z, action, batch.task_id, method="reward")
        next_z = model.apply(variables, z, action, batch.task_id, method="next").mean(0)
        return next_z, (next_z, reward)

    _, (z, reward) = jax.lax.scan(advance, encoded[0], batch.action)
    spread = encoded[1:].var(axis=1).mean(-1) + 1e-8
    return jnp.square(z - encoded[1:]).mean((1, 2)) / spread, jnp.abs(reward - batch.reward).mean(1)


class Heldout:
    """Held-out windows, drawn once: one batch over all tasks for the losses, one for each task for the open-loop error."""

    def __init__(self, data: Dataset, config: Config, pretrain: PretrainConfig, seed: int) -> None:
        horizon, rng = config.world_model.horizon, np.random.default_rng((seed, 0))
        self.config, self.names = config, data.task_set.names
        self.windows = WindowSampler(data, pretrain.eval_windows, horizon, "tasks", config.model.termination_head)(rng)
        self.by_task = {
            data.task_set.names[task]: WindowSampler(data.select(tasks=[task]), pretrain.eval_windows, horizon, terminations=False)(rng)
            for task in np.unique(data.episodes.task_id).tolist()
        }

    def measure(self, state: WorldModelState) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Scalars `heldout/<loss>`, `open_loop/<task>`, `reward_error/<task>`, and the open-loop error [H] of each task."""
        losses = jax.device_get(_heldout_losses(state, self.windows, self.config))
        scalars = {f"heldout/{name}": float(value) for name, value in losses.items()}
        curves = {}
        for name, batch in self.by_task.items():
            latent, reward = jax.device_get(open_loop_error(state.params, batch, self.config))
            curves[name] = [float(value) for value in latent]
            scalars[f"open_loop/{name}"], scalars[f"reward_error/{name}"] = float(latent.mean()), float(reward.mean())
        return scalars, curves


@functools.partial(jax.jit, static_argnames="config")
def _heldout_losses(state: WorldModelState, batch: Batch, config: Config) -> Metrics:
    """The losses without dropout."""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, q_dropout=0.0))
    reward = pwm.reward_target(state.reward_moments, batch.reward, config)
    _, metrics = pwm.world_model_loss(state.params, batch, reward, config, state.q, jax.random.key(0))
    return {name: value for name, value in metrics.items() if value.ndim == 0}


@dataclasses.dataclass(frozen=True)
class Report:
    """What `run` tells after each chunk: scalars to log, open-loop curves [H] by task where measured, whether a checkpoint is due."""

    scalars: Mapping[str, float]
    open_loop: Mapping[str, list[float]] | None
    checkpoint: bool


def run(
    state: WorldModelState,
    data: Dataset,
    config: Config,
    pretrain: PretrainConfig,
    seed: int,
    log: Callable[[WorldModelState, Report], None],
) -> WorldModelState:
    """Continue `state` to `pretrain.steps` on the dataset less its held-out episodes; `log` is called every `log_every` steps.

    Raises:
        DatasetError: no episode is as long as the horizon.
        FloatingPointError: a loss is not finite; names the step.
    """
    heldout, training = None, data
    if pretrain.heldout_fraction:
        training, kept_back = data.split_heldout(pretrain.heldout_fraction, seed)
        heldout = Heldout(kept_back, config, pretrain, seed)
    chunks = _chunks(state, training, config, pretrain, seed)
    for state, metrics in chunks:
        step = int(state.step)
        ops.require_finite(metrics, "pretrain", f"within {pretrain.log_every} steps before step {step}")
        scalars, curves = {f"loss/{name}": float(value) for name, value in metrics.items()}, None
        last = step == pretrain.steps
        if heldout and (step % pretrain.eval_every == 0 or last):
            measured, curves = heldout.measure(state)
            scalars |= measured
        log(state, Report(scalars, curves, checkpoint=step % pretrain.checkpoint_every == 0 or last))
    return state
