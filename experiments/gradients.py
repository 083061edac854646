"""Variance and signal-to-noise of policy gradients, through simulators and world models -> <workdir>/<study>.jsonl, figures.

python -m experiments.gradients --config=configs/gradients.py --workdir=runs/gradients

For every task: random actions fill a replay, a world model of each kind and seed is trained on it, and gradients of a policy as it is
before learning are taken from the states that the random actions led to, each at several horizons.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from experiments import launch, sweep
from experiments.settings import check_path, flatten

if TYPE_CHECKING:
    from pwm_jax.analysis.gradients import GradientStats, Through
    from pwm_jax.config import Config
    from pwm_jax.envs.simulators.episodes import Episodes
    from pwm_jax.report.measurements import Setting
    from pwm_jax.training.single_task import SingleTaskConfig, SingleTaskState
    from pwm_jax.types import Metrics, Params, WorldModelState

SIMULATOR = "simulator"


@dataclasses.dataclass(frozen=True)
class GradientsConfig:
    """What is measured. `updates` gradient steps train each model; `samples` gradients are taken, `chunk` at a time.

    The simulators of `undifferentiated` tasks only make the data.
    """

    tasks: tuple[str, ...]
    undifferentiated: tuple[str, ...]
    horizons: tuple[int, ...]
    samples: int
    chunk: int
    updates: int

    def __post_init__(self) -> None:
        for name in ("tasks", "horizons"):
            if len(set(getattr(self, name))) != len(getattr(self, name)) or not getattr(self, name):
                raise ValueError(f"{name} must be one or more different ones, not {getattr(self, name)}")
        if min(self.horizons) < 1 or min(self.samples, self.chunk, self.updates) < 1 or self.samples % self.chunk:
            raise ValueError("horizons, samples, chunk and updates must be at least 1, and chunk divide samples")


def algorithms_of(config: ConfigDict, task: str) -> dict[str, Config]:
    """The algorithm with each of `config.models`, by name. Raises ConfigError or UnknownTaskError."""
    from experiments import stages

    changed = {}
    for name, changes in config.models.items():
        own = ConfigDict(config.to_dict())
        own.tasks = task
        paths = {path[1:]: value for path, value in flatten(changes, "").items()}
        for path in paths:
            check_path(own, path, f"config of config.models.{name}")
        own.update_from_flattened_dict(paths)
        changed[name] = stages.algorithm_of(own, stages.task_set_of(own))
    return changed


def main(config: ConfigDict, workdir: Path) -> None:
    """Measure every task and seed that the workdir has no rows of; then show, draw and publish all."""
    from pwm_jax.envs.simulators.make import make_simulator
    from pwm_jax.report import gradients

    sweep_settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    settings, loop = _settings(config)
    if loop.num_envs != settings.samples:
        raise launch.ConfigError(f"config.single_task.num_envs must be the {settings.samples} of config.gradients.samples")
    for task in settings.tasks:
        algorithms_of(config, task)
        make_simulator(task)
    rows = sweep.run(sweep_settings, sweep.grid(task=settings.tasks), measure, config, workdir)
    gradients.save_figures(rows, workdir / "figures")
    print(gradients.summary(rows))


def measure(config: ConfigDict, point: Setting, seeds: tuple[int, ...], directory: Path) -> Iterator[list[sweep.Row]]:
    """The rows of a task, seed by seed."""
    from pwm_jax.envs.simulators.make import make_simulator

    settings, loop = _settings(config)
    task = str(point["task"])
    algorithms, simulator = algorithms_of(config, task), make_simulator(task)
    for seed in seeds:
        yield list(_measure(task, seed, algorithms, simulator, settings, loop))


def _settings(config: ConfigDict) -> tuple[GradientsConfig, SingleTaskConfig]:
    from pwm_jax.training.single_task import SingleTaskConfig

    return (
        launch.to_dataclass(GradientsConfig, config.gradients, where="config.gradients"),
        launch.to_dataclass(SingleTaskConfig, config.single_task, where="config.single_task"),
    )


def _measure(
    task: str, seed: int, algorithms: dict[str, Config], simulator: Episodes, settings: GradientsConfig, loop: SingleTaskConfig
) -> Iterator[sweep.Row]:
    """The rows of one task and seed: every model's gradients, and the simulator's with the first model's policy."""
    import jax
    import jax.numpy as jnp

    from pwm_jax import pwm
    from pwm_jax.analysis.gradients import gradient_stats
    from pwm_jax.training import single_task
    from pwm_jax.types import SimStarts, Starts

    states = single_task.init(next(iter(algorithms.values())), loop, simulator, jnp.array([seed], jnp.uint32))
    state = jax.tree.map(lambda leaf: leaf[0], states)
    policy_key, noise_key, restart_key, model_key = jax.random.split(jax.random.fold_in(state.key, 1), 4)
    for index, (name, algorithm) in enumerate(algorithms.items()):
        params = _train(state.replace(world_model=pwm.init_world_model(algorithm, model_key)), algorithm, settings, task)
        actor = pwm.init_policy(algorithm, policy_key).actor_params
        task_id = jnp.zeros(settings.samples, jnp.int32)
        noise = jax.random.normal(noise_key, (max(settings.horizons), settings.samples, algorithm.model.action_dim))
        from_obs = Starts(state.sim.obs, noise[0], task_id)
        from_states = SimStarts(simulator=simulator, state=state.sim, task_id=task_id, key=restart_key)
        through: dict[Through, Any] = {"model": from_obs}
        if index == 0 and task not in settings.undifferentiated:
            through["simulator"] = from_states
        for kind, starts in through.items():
            stats = gradient_stats(actor, params, starts, noise, algorithm, settings.horizons, kind, settings.chunk)
            shown = SIMULATOR if kind == "simulator" else name
            fixed: Setting = dict(action_dim=algorithm.model.action_dim, through=shown, samples=settings.samples, seed=seed)
            yield from _rows(jax.device_get(stats), settings.horizons, fixed)


def _train(state: SingleTaskState, algorithm: Config, settings: GradientsConfig, task: str) -> Params:
    """The parameters of a model fitted to the replay. Raises FloatingPointError where a loss is not finite."""
    import jax

    from pwm_jax import ops

    world_model, metrics = _fit()(state.world_model, state.replay, state.key, algorithm, settings.updates)
    ops.require_finite({"loss": jax.device_get(metrics["loss"])}, "gradients", f"in the model of {task}")
    return world_model.params


@functools.cache
def _fit() -> Callable[..., tuple[WorldModelState, Metrics]]:
    """`fit_replay`, compiled once for all seeds."""
    import jax

    from pwm_jax.training.pretrain import fit_replay

    return jax.jit(fit_replay, static_argnums=(3, 4))


def _rows(stats: GradientStats, horizons: tuple[int, ...], fixed: Setting) -> Iterator[sweep.Row]:
    """A row for each horizon, with what is `fixed` over them."""
    import numpy as np

    finite = lambda value: float(value) if np.isfinite(value) else None  # noqa: E731
    for index, horizon in enumerate(horizons):
        norm = stats.norm[:, index]
        values = {
            "variance": stats.variance[index],
            "esnr": stats.esnr[index],
            "norm_median": np.median(norm),
            "norm_max": norm.max(),
            "return": stats.episode_return[:, index].mean(),
        }
        yield {**fixed, "horizon": horizon}, {name: finite(value) for name, value in values.items()}


if __name__ == "__main__":
    launch.run(main, stage="gradients", config="configs/gradients.py")
