"""Wall-clock time to a score: a run of extraction beside runs that learn the same tasks online -> <workdir>/cost.jsonl, figure.

python -m experiments.cost --config=configs/cost.py --workdir=runs/cost
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch, sweep

if TYPE_CHECKING:
    from pwm_jax.report.measurements import Setting, Value


@dataclasses.dataclass(frozen=True)
class CostConfig:
    """What is read: `offline` is a workdir of experiments.run, `online` one of experiments.compare, which has a task as mjx-<task>."""

    offline: str
    online: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]


def main(config: ConfigDict, workdir: Path) -> None:
    """Read the curves of both runs; then show and draw the times."""
    from pwm_jax.report import cost

    settings = launch.to_dataclass(CostConfig, config.cost, where="config.cost")
    sweep_settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    for task in settings.tasks:
        for method in settings.methods:
            needed = _offline(settings) if method == cost.EXTRACTED else _curves(settings, task, method)
            if not needed.exists():
                raise launch.ConfigError(f"{needed} is missing: the docstring of configs/cost.py says how the runs are made")
    rows = sweep.run(sweep_settings, sweep.grid(task=settings.tasks, method=settings.methods), measure, config, workdir)
    cost.save_figures(rows, workdir / "figures")
    print(cost.summary(rows))


def measure(config: ConfigDict, point: Setting, seeds: tuple[int, ...], directory: Path) -> list[list[sweep.Row]]:
    """A row for each of the run's own seeds, numbered from 0."""
    from pwm_jax.report import cost

    settings = launch.to_dataclass(CostConfig, config.cost, where="config.cost")
    task, method = str(point["task"]), str(point["method"])
    found = _extracted(settings, task) if method == cost.EXTRACTED else _learnt_online(settings, task, method)
    rows: list[sweep.Row] = []
    for number, (progress, about) in enumerate(found):
        if number not in seeds:
            continue
        times: dict[str, Value] = {
            cost.time_to(score): next((seconds for seconds, reached in progress if reached >= score), None) for score in cost.SCORES
        }
        rows.append(({"seed": number}, {**times, "last_score": progress[-1][1], **about}))
    if len(rows) < len(seeds):
        raise launch.ConfigError(f"{method} of {task} has {len(rows)} of the {len(seeds)} seeds of config.sweep.seeds")
    return [rows]


Progress = list[tuple[float, float]]  # seconds of training and the score then


def _extracted(settings: CostConfig, task: str) -> Iterator[tuple[Progress, Mapping[str, Value]]]:
    """For each seed of a run of extraction: a policy's share of its time, which all policies took in turn, and what pre-training took."""
    from pwm_jax.envs.tasks import task_spec
    from pwm_jax.report.metrics import read_metrics
    from pwm_jax.report.records import read_json

    seconds = read_json(Path(settings.offline) / "timing.json")
    rows = read_metrics(_offline(settings))
    evaluated = [name for name in rows[-1] if name.startswith("eval/return/")]
    tasks = {name.split("/")[2] for name in evaluated}
    each = seconds["extract"] / len(evaluated) / rows[-1]["step"]
    about = {"pretrain_s": seconds["pretrain"], "sharers": len(tasks)}
    for name in sorted(name for name in evaluated if name.split("/")[2] == task):
        best = task_spec(task).max_return
        yield [(row["step"] * each, row[name] / best) for row in rows if name in row], about


def _learnt_online(settings: CostConfig, task: str, method: str) -> Iterator[tuple[Progress, Mapping[str, Value]]]:
    """For each seed of a run in the simulator: seconds of training, less compiling and evaluation."""
    from pwm_jax.envs.tasks import task_spec
    from pwm_jax.report.curves import read_curves

    rows = read_curves(_curves(settings, task, method))
    best = task_spec(f"mjx-{task}").max_return
    for seed in dict.fromkeys(row.seed for row in rows):
        mine = [row for row in rows if row.seed == seed]
        yield [(row.wall_s, row.episode_return / best) for row in mine], {"env_steps": mine[-1].env_steps}


def _offline(settings: CostConfig) -> Path:
    return Path(settings.offline) / "metrics" / "extract.jsonl"


def _curves(settings: CostConfig, task: str, method: str) -> Path:
    return Path(settings.online) / f"mjx-{task}" / method / "curves.jsonl"


if __name__ == "__main__":
    launch.run(main, stage="cost", config="configs/cost.py")
