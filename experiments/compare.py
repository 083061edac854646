"""The single-task comparison: train what is missing of tasks x methods x seeds, then tables, figures and <workdir>/comparison.html.

python -m experiments.compare --config=configs/compare.py --workdir=runs/single_task

A run of one task and method has the directory <workdir>/<task>/<method>; each can be made or gone on with by its own launcher, too.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs.brax_agents import METHODS as AGENTS
from experiments import launch, sweep
from experiments.settings import check_path, flatten

METHODS = ("pwm", "shac", "decoupled", *AGENTS)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """What is compared, `processes` runs at a time. Without `train`, only what the workdir holds is shown.

    `publish` is a directory of results files, to which rows of `study` are written.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    study: str = "single_task"
    processes: int = 1
    train: bool = True
    publish: str = ""

    def __post_init__(self) -> None:
        unknown = [method for method in self.methods if method not in METHODS]
        if self.processes < 1:
            raise ValueError(f"processes must be at least 1, not {self.processes}")
        if unknown or not self.methods or not self.tasks:
            raise ValueError(f"needs tasks and some of the methods {', '.join(METHODS)}, not {self.tasks} and {self.methods}")


@dataclasses.dataclass(frozen=True)
class Run:
    """One task and method of the comparison: its launcher's name, configuration and directory."""

    task: str
    method: str
    launcher: str
    config: ConfigDict
    directory: Path

    @property
    def env_steps(self) -> int:
        """Environment steps that every seed takes."""
        return int(self.config[_section(self.method)].env_steps)


def runs_of(config: ConfigDict, workdir: Path) -> list[Run]:
    """The runs of a comparison, tasks one after the other, each configured as by its own launcher but for seeds and `config.changes`.

    Raises:
      ConfigError: a field of `config` is wrong; `config.changes` names a method or field that there is not.
    """
    settings = launch.to_dataclass(CompareConfig, config.compare, where="config.compare")
    for method in config.changes:
        check_path(ConfigDict(dict.fromkeys(METHODS, 0)), method, "config.changes")
    runs = []
    for task in settings.tasks:
        for method in settings.methods:
            launcher = "brax_agents" if method in AGENTS else "single_task"
            own = importlib.import_module(f"configs.{launcher}").get_config(f"{task},{method}")
            changes = flatten(config.changes.get(method, {}), "")
            for path in changes:
                check_path(own, path[1:], f"config of {method}")
            own.update_from_flattened_dict({path[1:]: value for path, value in changes.items()})
            own[_section(method)].seeds = settings.seeds
            runs.append(Run(task, method, launcher, own.lock(), workdir / task / method))
    return runs


def main(config: ConfigDict, workdir: Path) -> None:
    """Train the runs that lack a seed, in order; then show all, and publish their results where `config.compare.publish` says so."""
    from pwm_jax.report import curves, results, single_task

    settings = launch.to_dataclass(CompareConfig, config.compare, where="config.compare")
    runs = runs_of(config, workdir)
    if settings.train:
        _train_missing(runs, settings.processes)
    rows, origins = [], {}
    for run in runs:
        found = [row for row in curves.read_curves(run.directory / "curves.jsonl") if row.seed in settings.seeds]
        if found:
            rows += found
            origins[run.task, run.method] = _origin(run)
    if not rows:
        raise launch.ConfigError(f"{workdir} holds no runs of these tasks and methods: set config.compare.train")
    single_task.save_figures(rows, workdir / "figures")
    page = single_task.write_comparison(workdir / "comparison.html", rows, origins)
    print(single_task.summary(rows))
    print(f"The page with learning curves: {page}")
    if settings.publish:
        results.append_results(settings.publish, single_task.result_rows(rows, origins, settings.study), replace=True)


def _train_missing(runs: Sequence[Run], processes: int) -> None:
    """Train what is not there. A run that is keeps its provenance."""
    from experiments import stages
    from pwm_jax.report.progress import Progress

    def is_there(run: Run) -> bool:
        return set(run.config[_section(run.method)].seeds) <= stages.finished_seeds(run.directory, run.launcher, run.env_steps)

    missing = {f"{run.method} on {run.task}": run for run in runs if not is_there(run)}
    with Progress(len(runs), "compare", unit="run", initial=len(runs) - len(missing)) as progress:
        if processes == 1 or len(missing) < 2:
            for name, run in missing.items():
                print(name, flush=True)
                _train(run)
                progress.update()
        else:
            for name, _ in sweep.side_by_side(_train, {name: (run,) for name, run in missing.items()}, processes, progress.note):
                print(f"{name}: finished", flush=True)
                progress.update()


def _train(run: Run) -> None:
    """Bring a run to its end with its launcher."""
    from pwm_jax.workdir import WorkdirLock

    launcher = importlib.import_module(f"experiments.{run.launcher}")
    with sweep.programs_dropped(), WorkdirLock(run.directory), launch.stage(run.directory, run.launcher, run.config):
        launcher.main(run.config, run.directory)


def _origin(run: Run) -> dict[str, str]:
    """Command, commit and hardware of a run. Raises ConfigError where it has noted none."""
    from pwm_jax.report.records import read_json

    path = run.directory / "provenance.json"
    origin = read_json(path).get(run.launcher) if path.exists() else None
    if origin is None:
        raise launch.ConfigError(f"{path} says nothing of {run.launcher}: make {run.directory} with experiments.{run.launcher}")
    return {name: origin[name] for name in ("command", "commit", "hardware")}


def _section(method: str) -> str:
    return "agent" if method in AGENTS else "single_task"


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/compare.py")
