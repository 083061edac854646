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

    Curve = tuple[list[tuple[float, float]], Mapping[str, Value]]  # seconds of training with the score then; what else is known


@dataclasses.dataclass(frozen=True)
class CostConfig:
    """What is read: `offline` is a workdir of experiments.run, `online` holds those of experiments.online as <task>/<seed>.

    `simulated` is one of experiments.compare, in which the tasks are called mjx-<task>.
    """

    offline: str
    online: str
    simulated: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]


def main(config: ConfigDict, workdir: Path) -> None:
    """Read the curves of both runs; then show and draw the times."""
    from pwm_jax.report import cost

    settings = launch.to_dataclass(CostConfig, config.cost, where="config.cost")
    sweep_settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    for task in settings.tasks:
        for method in settings.methods:
            if not _files(settings, task, method):
                raise launch.ConfigError(f"there is no run of {method} on {task}: the docstring of configs/cost.py says how it is made")
    rows = sweep.run(sweep_settings, sweep.grid(task=settings.tasks, method=settings.methods), measure, config, workdir)
    cost.save_figures(rows, workdir / "figures")
    print(cost.summary(rows))


def measure(config: ConfigDict, point: Setting, seeds: tuple[int, ...], directory: Path) -> list[list[sweep.Row]]:
    """A row for each of the run's own seeds, numbered from 0."""
    from pwm_jax.report import cost

    settings = launch.to_dataclass(CostConfig, config.cost, where="config.cost")
    task, method = str(point["task"]), str(point["method"])
    files = _files(settings, task, method)
    if method == cost.EXTRACTED:
        found = _extracted(files[0].parents[1], task)
    elif method == "pwm":
        found = (_learnt_online(file.parents[1], task) for file in files)
    else:
        found = _learnt_in_simulator(files[0], task)
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


def _files(settings: CostConfig, task: str, method: str) -> list[Path]:
    """The curves of a method on a task that there are: one file of all seeds, or one for each."""
    from pwm_jax.report import cost

    if method == cost.EXTRACTED:
        found = [Path(settings.offline) / "metrics" / "extract.jsonl"]
    elif method == "pwm":
        found = sorted(Path(settings.online).glob(f"{task}/*/metrics/online.jsonl"))
    else:
        found = [Path(settings.simulated) / f"mjx-{task}" / method / "curves.jsonl"]
    return [file for file in found if file.exists()]


def _extracted(run: Path, task: str) -> Iterator[Curve]:
    """For each seed of a run of extraction: a policy's share of its time, which all policies took in turn, and what pre-training took."""
    from pwm_jax.report.records import read_json

    evaluated, rows = _evaluated(run, "extract")
    seconds, tasks = read_json(run / "timing.json"), {name.split("/")[2] for name in evaluated}
    each = seconds["extract"] / len(evaluated) / rows[-1]["step"]
    about = {"pretrain_s": seconds["pretrain"], "sharers": len(tasks)}
    for name in evaluated:
        if name.split("/")[2] == task:
            yield _scores(task, [(row["step"] * each, row[name]) for row in rows if name in row]), about


def _learnt_online(run: Path, task: str) -> Curve:
    """A run of the online loop, its evaluations counted."""
    from pwm_jax.report.records import read_json

    (name,), rows = _evaluated(run, "online")
    each = read_json(run / "timing.json")["online"] / rows[-1]["step"]
    return _scores(task, [(row["step"] * each, row[name]) for row in rows if name in row]), {"env_steps": rows[-1]["step"]}


def _learnt_in_simulator(file: Path, task: str) -> Iterator[Curve]:
    """For each seed of one of Brax's agents: seconds of training, less compiling and evaluation."""
    from pwm_jax.report.curves import read_curves

    rows = read_curves(file)
    for seed in dict.fromkeys(row.seed for row in rows):
        mine = [row for row in rows if row.seed == seed]
        yield _scores(task, [(row.wall_s, row.episode_return) for row in mine]), {"env_steps": mine[-1].env_steps}


def _evaluated(run: Path, stage: str) -> tuple[list[str], list[dict[str, float]]]:
    """The names of a stage's evaluations, and its metrics."""
    from pwm_jax.report.metrics import read_metrics

    rows = read_metrics(run / "metrics" / f"{stage}.jsonl")
    return sorted({name for row in rows for name in row if name.startswith("eval/return/")}), rows


def _scores(task: str, returns: list[tuple[float, float]]) -> list[tuple[float, float]]:
    from pwm_jax.envs.tasks import task_spec

    return [(seconds, value / task_spec(task).max_return) for seconds, value in returns]


if __name__ == "__main__":
    launch.run(main, stage="cost", config="configs/cost.py")
