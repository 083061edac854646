"""Make a dataset: unpack a shipped one, or collect from behaviour sources -> <workdir>/dataset.

python -m experiments.collect --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml_collections import ConfigDict

from experiments import launch

if TYPE_CHECKING:
    from pwm_jax.data.collect import Source
    from pwm_jax.data.store import Dataset
    from pwm_jax.envs.tasks import TaskSet


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One entry of `config.collect.sources`, whose key is its name.

    See `pwm_jax.data.collect.Source` for the fields that are not explained in configs/base.py.
    """

    name: str
    kind: Literal["random", "expert", "policy", "dataset"]
    episodes: int
    tasks: tuple[str, ...] | None = None
    noise_min: float = 0.0
    noise_max: float = 0.0
    random_prob: float = 0.0
    correlation: float = 0.0
    workdir: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, not {self.episodes}")
        wanted = {"policy": "workdir", "dataset": "path"}.get(self.kind)
        if wanted and not getattr(self, wanted):
            raise ValueError(f"a source of kind {self.kind!r} needs {wanted!r}")


def sources_of(config: ConfigDict) -> list[SourceConfig]:
    """The sources of `config.collect.sources`, in alphabetical order, as ConfigDict sorts. Raises ConfigError naming the wrong field."""
    for name, kind in (("shipped", str), ("episodes_per_shard", int), ("envs_per_task", int), ("sources", ConfigDict)):
        if not isinstance(config.collect.get(name), kind):
            raise launch.ConfigError(f"config.collect.{name} is missing, or not of type {kind.__name__}")
    return [
        launch.to_dataclass(SourceConfig, entry, where=f"config.collect.sources.{name}", name=name)
        for name, entry in config.collect.sources.items()
    ]


def main(config: ConfigDict, workdir: Path) -> None:
    """Make the dataset, or finish an interrupted one, and describe it for the report."""
    from experiments import stages

    task_set = stages.task_set_of(config)
    path = workdir / "dataset"
    if config.dataset:
        dataset = stages.dataset_of(config, workdir)
    elif config.collect.shipped:
        dataset = _unpack(config.collect.shipped, task_set, path)
    else:
        dataset = _collect(config, workdir, task_set, path)
    dataset.require(task_set)
    stages.describe_for_report(workdir, dataset)


def _unpack(shipped: str, task_set: TaskSet, path: Path) -> Dataset:
    """The shipped dataset, or its episodes of the tasks that are asked for, where these are a part of its own."""
    import shutil

    from pwm_jax.data.compact import import_compact
    from pwm_jax.data.merge import Part, merge
    from pwm_jax.data.store import Dataset

    file = shipped if Path(shipped).exists() else Path(__file__).resolve().parents[1] / shipped

    def make(partial: Path) -> Dataset:
        aside = partial.with_name(f".{path.name}-shipped")
        shutil.rmtree(aside, ignore_errors=True)
        whole = import_compact(file, aside)
        if whole.task_set.names == task_set.names:
            aside.rename(partial)
            return Dataset.open(partial)
        try:
            return merge([Part(whole, len(whole), task_set.names)], task_set, partial, whole.recipe)
        finally:
            shutil.rmtree(aside)

    return _whole(path, make)


def _whole(path: Path, make: Callable[[Path], Dataset]) -> Dataset:
    """Open the dataset `path`, or make it beside its place and move it there whole, since a making killed half-way cannot go on."""
    import shutil

    from pwm_jax.data.store import Dataset

    if not (path / "dataset.json").exists():
        partial = path.with_name(f".{path.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(path)
    return Dataset.open(path)


def _collect(config: ConfigDict, workdir: Path, task_set: TaskSet, path: Path) -> Dataset:
    import numpy as np

    from experiments import stages
    from pwm_jax.data.collect import collect
    from pwm_jax.data.merge import Part, merge
    from pwm_jax.data.store import Dataset, read_index
    from pwm_jax.report.progress import Progress
    from pwm_jax.report.results import command_line, commit

    sources = sources_of(config)
    # Datasets to merge are opened before anything is collected, so that a wrong path costs nothing.
    existing = [Part(Dataset.open(s.path), s.episodes, s.tasks) for s in sources if s.kind == "dataset"]
    plan = [_source(s, task_set) for s in sources if s.kind != "dataset"]
    fresh = workdir / "collected" if existing else path
    origin = {"command": command_line(), "commit": commit()}
    if (fresh / "dataset.json").exists():
        # A collection goes on under the command that began it, whatever launcher or commit resumes it.
        began = read_index(fresh)["recipe"]
        origin = {name: began[name] for name in origin if isinstance(began, dict) and name in began}
    if plan and not _is_complete(fresh):
        stages.check_simulators(config, task_set)
    parts = []
    if plan:
        envs = np.repeat(np.arange(task_set.num_tasks), config.collect.envs_per_task)
        total = sum(source.episodes * len(source.tasks or task_set.names) for source in plan)
        shown = _recorded(fresh)
        with Progress(total, "collect", unit="episode", initial=shown) as progress:

            def show(done: int, total: int) -> None:
                nonlocal shown
                progress.update(done - shown)
                shown = done

            collected = collect(
                lambda: stages.make_pool(config, task_set, envs), task_set, plan, fresh, config.seed,
                episodes_per_shard=config.collect.episodes_per_shard, recipe=origin, progress=show,
            )  # fmt: skip
        parts = [Part(collected, len(collected))]
    if not existing:
        return collected
    recipe: dict[str, Any] = {"merged": [dataclasses.asdict(source) for source in sources], **origin}
    recipe["parts"] = [part.dataset.recipe for part in [*parts, *existing]]
    return _whole(path, lambda partial: merge([*parts, *existing], task_set, partial, recipe))


def _recorded(path: Path) -> int:
    """Episodes that an interrupted or finished collection holds."""
    from pwm_jax.data.store import Dataset, DatasetError

    try:
        return len(Dataset.open(path, verify=False, allow_incomplete=True))
    except DatasetError:
        return 0


def _is_complete(path: Path) -> bool:
    from pwm_jax.data.store import Dataset, DatasetError

    try:
        Dataset.open(path, verify=False)
    except DatasetError:
        return False
    return True


def _source(source: SourceConfig, task_set: TaskSet) -> Source:
    """The behaviour source, its policy loaded where it has one."""
    import numpy as np

    from experiments import stages
    from pwm_jax.data.collect import Source
    from pwm_jax.training import extract

    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source) if field.name not in ("workdir", "path")}
    if source.kind == "policy":
        directory = Path(source.workdir)
        saved = directory / ("extract" if (directory / "extract").exists() else "online")
        policies, wm_params, algorithm, known = stages.load_policies(saved)
        if known.names != task_set.names:
            raise launch.ConfigError(
                f"config.collect.sources.{source.name}: policies in {saved} know {', '.join(known.names)}: set config.tasks to these"
            )
        one_each = stages.one_seed(policies)
        learnt = [task_set.names[task] for task in np.asarray(one_each.task_id)]
        missing = sorted(set(source.tasks or task_set.names) - set(learnt))
        if missing:
            raise launch.ConfigError(
                f"config.collect.sources.{source.name}: {saved} has no policy for {', '.join(missing)}: set the source's tasks to "
                f"{', '.join(learnt)}"
            )
        fields["policy"] = extract.among_others(one_each, wm_params, algorithm)
    try:
        return Source(**fields)
    except ValueError as error:
        raise launch.ConfigError(f"config.collect.sources.{source.name}: {error}") from error


if __name__ == "__main__":
    launch.run(main, stage="collect", config="configs/base.py")
