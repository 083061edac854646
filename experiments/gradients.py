"""Variance and signal-to-noise of policy gradients, through simulators and world models -> <workdir>/<study>.jsonl, figures.

python -m experiments.gradients --config=configs/gradients.py --workdir=runs/gradients

For every task: random actions fill a replay, a world model of each kind is trained on it, and gradients of a policy as it is before
learning are taken from the states that the random actions led to, each at several horizons; all seeds in one program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch, sweep
from experiments.settings import check_path, flatten

if TYPE_CHECKING:
    from pwm_jax.analysis.gradients import GradientStats, Through
    from pwm_jax.config import Config
    from pwm_jax.report.measurements import Setting
    from pwm_jax.training.single_task import SingleTaskConfig

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
            check_path(own, path, f"config.models.{name}")
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


def measure(config: ConfigDict, points: Sequence[Setting], seeds: tuple[int, ...], directory: Path) -> list[sweep.Row]:
    """The rows of a task: every model's gradients, and the simulator's with the first model's policy."""
    import jax
    import jax.numpy as jnp

    from pwm_jax import ops
    from pwm_jax.analysis.gradients import fit_models, stats_of_seeds
    from pwm_jax.envs.simulators.make import make_simulator
    from pwm_jax.training import single_task

    settings, loop = _settings(config)
    per_batch, task = config.sweep.per_batch, str(points[0]["task"])
    algorithms, simulator = algorithms_of(config, task), make_simulator(task)
    states = single_task.init(next(iter(algorithms.values())), loop, simulator, jnp.array(seeds, jnp.uint32))
    policy_keys, noise_keys, restart_keys, model_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, 1), 4), out_axes=1)(
        states.key
    )
    chosen = dict(horizons=settings.horizons, samples=settings.samples, chunk=settings.chunk, per_batch=per_batch)
    rows: list[sweep.Row] = []
    for index, (name, algorithm) in enumerate(algorithms.items()):
        params, metrics = fit_models(states.replay, model_keys, states.key, algorithm, settings.updates, per_batch)
        ops.require_finite({"loss": jax.device_get(metrics["loss"])}, "gradients", f"in the model of {task}")
        through: list[Through] = ["model"]
        if index == 0 and task not in settings.undifferentiated:
            through.append("simulator")
        for kind in through:
            keys = policy_keys, noise_keys, restart_keys
            stats = jax.device_get(stats_of_seeds(params, states.sim, keys, simulator, algorithm, kind, **chosen))
            for row, seed in enumerate(seeds):
                shown = SIMULATOR if kind == "simulator" else name
                fixed: Setting = dict(task=task, action_dim=algorithm.model.action_dim, through=shown, samples=settings.samples, seed=seed)
                rows += _rows(jax.tree.map(lambda leaf, row=row: leaf[row], stats), settings.horizons, fixed)
    return rows


def _settings(config: ConfigDict) -> tuple[GradientsConfig, SingleTaskConfig]:
    from pwm_jax.training.single_task import SingleTaskConfig

    return (
        launch.to_dataclass(GradientsConfig, config.gradients, where="config.gradients"),
        launch.to_dataclass(SingleTaskConfig, config.single_task, where="config.single_task"),
    )


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
