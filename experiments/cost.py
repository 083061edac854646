"""Wall-clock time to a score: a run of extraction beside runs that learn the same tasks online -> <workdir>/cost.jsonl, figure.

python -m experiments.cost --config=configs/cost.py --workdir=runs/cost
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch

if TYPE_CHECKING:
    from pwm_jax.report.measurements import Measurement, Setting, Value

    Curve = list[tuple[float, float]]  # seconds of training, and the return then


@dataclasses.dataclass(frozen=True)
class CostConfig:
    """What is read: `offline` is a workdir of experiments.run, `online` holds those of experiments.online as <task>/<seed>.

    `simulated` is one of experiments.compare, in which the tasks are called mjx-<task>. `publish` is a directory of measured rows to add
    those of the study to.
    """

    offline: str
    online: str
    simulated: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    publish: str = ""


def main(config: ConfigDict, workdir: Path) -> None:
    """Read the runs; then show and draw the times."""
    from pwm_jax.report import cost, measurements

    settings = launch.to_dataclass(CostConfig, config.cost, where="config.cost")
    rows = [row for task in settings.tasks for method in settings.methods for row in _read(settings, task, method)]
    measurements.write_measurements(workdir, rows)
    if settings.publish:
        measurements.write_measurements(settings.publish, rows)
    cost.save_figures(rows, workdir / "figures")
    print(cost.summary(rows))


def _read(settings: CostConfig, task: str, method: str) -> list[Measurement]:
    """A row for each seed, which says how its run was made. Raises ConfigError where there is no run."""
    from pwm_jax.envs.tasks import task_spec
    from pwm_jax.report import cost
    from pwm_jax.report.measurements import Measurement
    from pwm_jax.report.records import read_json

    if method == cost.EXTRACTED:
        runs, stage, read = [Path(settings.offline)], "extract", _extracted
    elif method == "pwm":
        runs, stage, read = sorted(Path(settings.online).glob(f"{task}/*")), "online", _learnt_online
    else:
        runs, stage, read = [Path(settings.simulated) / f"mjx-{task}" / method], "brax_agents", _learnt_in_simulator
    runs = [run for run in runs if (run / "timing.json").exists()]
    if not runs:
        raise launch.ConfigError(f"there is no finished run of {method} on {task}: the docstring of configs/cost.py says how it is made")
    rows = []
    for run in runs:
        origin, best = read_json(run / "provenance.json")[stage], task_spec(task).max_return
        origin = {name: origin[name] for name in ("command", "commit", "hardware")}
        for seed, curve, about in read(run, task):
            times = {cost.time_to(score): next((s for s, value in curve if value >= score * best), None) for score in cost.SCORES}
            setting: Setting = {"task": task, "method": method, "seed": seed}
            rows.append(Measurement(cost.STUDY, setting, {**times, "last_score": curve[-1][1] / best, **about}, **origin))
    return rows


def _extracted(run: Path, task: str) -> Iterator[tuple[int, Curve, Mapping[str, Value]]]:
    """For each seed of a run of extraction: a policy's share of its time, which all policies took in turn, and what pre-training took."""
    from pwm_jax.report.records import read_json

    curves = _evaluated(run, "extract")
    about = {"pretrain_s": read_json(run / "timing.json")["pretrain"], "sharers": len({name for name, _ in curves})}
    for (name, seed), curve in curves.items():
        if name == task:
            yield seed, [(seconds / len(curves), value) for seconds, value in curve], about


def _learnt_online(run: Path, task: str) -> Iterator[tuple[int, Curve, Mapping[str, Value]]]:
    """A run of the online loop."""
    for (_, seed), curve in _evaluated(run, "online").items():
        yield seed, curve, {}


def _learnt_in_simulator(run: Path, task: str) -> Iterator[tuple[int, Curve, Mapping[str, Value]]]:
    """For each seed of one of Brax's agents: seconds of training, less compiling and evaluation."""
    from pwm_jax.report.curves import read_curves

    rows = read_curves(run / "curves.jsonl")
    for seed in dict.fromkeys(row.seed for row in rows):
        mine = [row for row in rows if row.seed == seed]
        yield seed, [(row.wall_s, row.episode_return) for row in mine], {"env_steps": mine[-1].env_steps}


def _evaluated(run: Path, stage: str) -> dict[tuple[str, int], Curve]:
    """The evaluations of a stage by task and seed, each after so many seconds of the stage. Raises ConfigError for an interrupted one."""
    from pwm_jax.report.metrics import read_metrics
    from pwm_jax.report.records import read_json

    rows, whole = read_metrics(run / "metrics" / f"{stage}.jsonl"), read_json(run / "timing.json")[stage]
    if rows[-1]["time"] - rows[0]["time"] > whole:
        raise launch.ConfigError(f"{stage} of {run} was interrupted, and its times say nothing: make it anew in another workdir")
    curves: dict[tuple[str, int], Curve] = {}
    for row in rows:
        for name in row:
            if name.startswith("eval/return/"):
                _, _, task, seed = name.split("/")
                seconds = whole - (rows[-1]["time"] - row["time"])
                curves.setdefault((task, int(seed.removeprefix("seed"))), []).append((seconds, row[name]))
    return curves


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/cost.py")
