"""The stages of a study's members: world models and policies of several seeds and variants, each stage one program for all of them.

What is made lies where runs of single members would have it: world models in <workdir>/models/<what differs of the model>/seed_<seed>,
policies in <workdir>/points/variant=<name>/seed_<seed>. A group's own directory holds what it resumes from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import launch, preemption, stages, sweep
from experiments.settings import flatten
from pwm_jax import checkpoint
from pwm_jax.baselines import generalist
from pwm_jax.config import VECTORISABLE, Config
from pwm_jax.data.sample import DeviceDataset
from pwm_jax.data.store import Dataset
from pwm_jax.report.progress import Progress
from pwm_jax.training import extract as extraction
from pwm_jax.training import members, pretrain
from pwm_jax.training.members import Members
from pwm_jax.workdir import WorkdirLock

if TYPE_CHECKING:
    from pwm_jax.envs.tasks import TaskSet
    from pwm_jax.types import Policy

MODEL = ("model", "world_model", "pretrain", "subset", "tasks", "dataset", "pretrained")  # what a world model depends on, the seed apart


@dataclasses.dataclass(frozen=True)
class Member:
    """A variant with a seed: the configuration of its stages, the directory of its world model and that of its policies."""

    variant: str
    seed: int
    config: ConfigDict
    model: Path
    run: Path


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What every member acts with, and the tasks [T] that it is evaluated on."""

    policies: list[Policy]
    task_set: TaskSet
    task_ids: list[int]


def member_of(config: ConfigDict, variant: str, seed: int, own: ConfigDict, workdir: Path) -> Member:
    """The member of a study's `config`, whose stages `own` configures."""
    changes = {path[1:]: value for path, value in flatten(config.variants[variant], "").items() if path[1:].split(".")[0] in MODEL}
    model = sweep.directory_of(workdir, "models", changes or {"model": "unchanged"}) / f"seed_{seed}"
    own = own.copy_and_resolve_references()
    own.extract.seeds = own.generalist.seeds = (seed,)
    own.dataset = own.dataset or str(workdir / "dataset")
    own.pretrained = own.pretrained or str(model)
    run = sweep.directory_of(workdir, "points", {"variant": variant}) / f"seed_{seed}"
    return Member(variant, seed, own, Path(own.pretrained), run)


def vectorised(group: list[Member], algorithms: list[Config]) -> Members:
    """Seeds of the members, and the fields in which their algorithms differ, as arrays."""
    fields = {name: [operator.attrgetter(name)(algorithm) for algorithm in algorithms] for name in VECTORISABLE}
    differing = {name: np.asarray(values, np.float32) for name, values in fields.items() if len(set(values)) > 1}
    return Members(np.array([member.seed for member in group], np.uint32), differing)


def shared(config: ConfigDict) -> str:
    """What a variant's stages must have in common with another's to share a program: all but the vectorisable fields."""
    fixed = {name: value for name, value in flatten(config, "").items() if name[1:] not in VECTORISABLE}
    return repr(sorted(fixed.items()))


def pretrain_missing(group: list[Member], directory: Path, per_batch: int) -> None:
    """Train the world models that members lack. Points that share one may be measured side by side: one trains it, the others wait."""
    by_model = {member.model: member for member in group}
    with contextlib.ExitStack() as stack:
        for model in sorted(by_model):
            stack.enter_context(WorkdirLock(model, wait=True))
        lacking = [member for model, member in by_model.items() if checkpoint.latest_step(model / "pretrain") is None]
        if not lacking:
            return
        for member in lacking:
            # What the model depends on, the same for all variants that share it.
            record = {name: value for name, value in member.config.to_dict().items() if name in MODEL and name != "pretrained"}
            stack.enter_context(
                launch.stage(member.model, "pretrain", ConfigDict(record | {"seed": member.seed, "data_seed": member.config.seed}))
            )
        _pretrain(lacking, directory, per_batch)


def _pretrain(group: list[Member], directory: Path, per_batch: int) -> None:
    config = group[0].config
    settings = launch.to_dataclass(pretrain.PretrainConfig, config.pretrain, where="config.pretrain")
    task_set = stages.task_set_of(config)
    algorithms = [stages.algorithm_of(member.config, task_set) for member in group]
    algorithm, taking_part = algorithms[0], vectorised(group, algorithms)
    data = stages.model_data_of(config, directory)
    data.require(task_set)
    if settings.heldout_fraction:
        data, _ = data.split_heldout(settings.heldout_fraction, config.seed)
    on_device = DeviceDataset.from_dataset(data, max_bytes=settings.device_bytes)
    states = members.init_world_models(algorithm, taking_part)
    names = [str(member.model) for member in group]
    with _resumed(directory / "pretrain_state", states, names, lambda states: int(states.step[0]), settings, "pretrain", data) as (
        states,
        log,
    ):
        states = members.pretrain(states, taking_part, on_device, algorithm, settings, per_batch, log)
    for row, (member, own) in enumerate(zip(group, algorithms, strict=True)):
        metadata = stages.model_metadata(own, task_set) | {"world_model": dataclasses.asdict(own.world_model)}
        state = jax.tree.map(lambda leaf, row=row: leaf[row], states)
        checkpoint.save(member.model / "pretrain", settings.steps, state, metadata)


def learn(group: list[Member], method: str, directory: Path, per_batch: int) -> Learnt:
    """The members' policies of a method, `extracted` or `generalist`, from their pre-trained models."""
    config = group[0].config
    models = [stages.load_world_model(member.config, member.run) for member in group]
    task_set = models[0][2]
    data = stages.dataset_of(config, directory)
    data.require(task_set)
    settings: extraction.ExtractConfig
    if method == "generalist":
        settings = launch.to_dataclass(generalist.GeneralistConfig, config.generalist, where="config.generalist")
        tasks = stages.chosen_tasks(settings.tasks, task_set)
        ready = [stages.for_policies(state, generalist.conditioned(own, len(tasks), settings)) for state, own, _ in models]
        as_policy = generalist.as_policy
    else:
        settings = launch.to_dataclass(extraction.ExtractConfig, config.extract, where="config.extract")
        tasks = stages.chosen_tasks(settings.tasks, task_set)
        ready = [stages.for_policies(state, extraction.scheduled(own, settings)) for state, own, _ in models]
        as_policy = extraction.as_policy
    wm_params, algorithms = _stacked([params for params, _ in ready]), [own for _, own in ready]
    algorithm, taking_part = algorithms[0], vectorised(group, algorithms)
    if method == "generalist":
        starts = generalist.starts_of(data, tasks, algorithm, settings.max_episodes, config.seed)
        policies = _stacked([generalist.init(algorithm, (member.seed,)) for member in group])
    else:
        starts = extraction.StartSampler.of(data, tasks, algorithm, settings.max_episodes, config.seed)
        policies = _stacked([extraction.init(algorithm, tasks, (member.seed,)) for member in group])
    names, stage = [str(member.run) for member in group], "extract" if method == "extracted" else method
    with contextlib.ExitStack() as stack:
        for member in group:
            stack.enter_context(launch.stage(member.run, stage, member.config))
        with _resumed(
            directory / f"{method}_state", policies, names, lambda found: int(found.state.step[0, 0]), settings, method, data
        ) as (
            policies,
            log,
        ):
            policies = members.extract(policies, taking_part, wm_params, starts, algorithm, settings, per_batch, log)
        learnt = []
        for row, (member, own) in enumerate(zip(group, algorithms, strict=True)):
            mine, params = jax.tree.map(lambda leaf, row=row: leaf[row], (policies, wm_params))
            saved = {"policies": mine, "wm_params": params}
            checkpoint.save(member.run / stage, settings.steps, saved, stages.policy_metadata(mine, own, task_set))
            learnt.append(as_policy(mine, params, own))
    return Learnt(learnt, task_set, tasks)


@contextlib.contextmanager
def _resumed(
    directory: Path, states: Any, names: list[str], step_of: Callable[[Any], int], settings: Any, stage: str, data: Dataset
) -> Iterator[tuple[Any, Callable[[Any, int, Mapping[str, np.ndarray]], None]]]:
    """The states to go on from, a row for each of `names`, and what logs progress and saves them: every `checkpoint_every` steps.

    A stored state may be of more members, some of which were finished since; of others than these it is left aside.
    """
    if checkpoint.latest_step(directory) is not None:
        stored = checkpoint.load_metadata(directory)["names"]
        if set(names) <= set(stored):
            whole = jax.tree.map(lambda leaf: jnp.zeros((len(stored), *leaf.shape[1:]), leaf.dtype), states)
            whole, _ = checkpoint.restore(directory, whole)
            rows = np.array([stored.index(name) for name in names])
            states = jax.tree.map(lambda leaf: leaf[rows], whole)
    last = step_of(states)

    def log(states: Any, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        nonlocal last
        stopping = stop.asked()
        if step % settings.checkpoint_every == 0 or step == settings.steps or stopping:
            checkpoint.save(directory, step, states, {"names": names}, keep=1)
        if stopping:
            raise preemption.TerminatedError
        loss = "loss" if "loss" in metrics else "actor_loss"
        progress.update(step - last, loss=metrics[loss].mean())
        last = step

    with Progress(settings.steps, stage, initial=last) as progress, preemption.at_checkpoints() as stop, stages.traced(data, directory):
        yield states, log


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
