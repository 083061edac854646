"""A study of settings: every variant of a configuration is pre-trained, its policies learnt, evaluated and measured, for every seed.

python -m experiments.ablation --config=configs/regularisers.py --workdir=runs/regularisers

Rows of <workdir>/<study>.jsonl are of a variant, seed, task and one of `config.methods`: extracted, generalist, or pwm, which is the online
loop from the pre-trained model. Policies are in <workdir>/points/, world models in <workdir>/models/: variants that change the same of the
model, or nothing, share one. What is learnt differs by seed; the data, its split and the start states of evaluation do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch, sweep
from experiments.settings import check_path, flatten

if TYPE_CHECKING:
    from experiments.members import Learnt, Member
    from pwm_jax.report.episodes import Episode
    from pwm_jax.report.measurements import Setting
    from pwm_jax.types import TaskSpec

    Outcomes = list[Mapping[str, Mapping[str, float]]]  # of every member, what its policies earn by task

OWN = ("sweep", "variants", "measure", "methods")  # sections of the study, which its stages do not have


def variant_of(config: ConfigDict, name: str) -> ConfigDict:
    """The stages' configuration of a variant, its methods those of the study unless `methods` of the variant says others.

    Raises ConfigError where `config.variants` changes a field that there is not.
    """
    own = unvaried(config)
    changes = {path[1:]: value for path, value in flatten(config.variants[name], "").items()}
    methods = changes.pop("methods", config.methods)
    for path in changes:
        check_path(own, path, f"config.variants.{name}")
    own.update_from_flattened_dict(changes)
    own.evaluate.update(methods=methods, videos=0)
    return own


def unvaried(config: ConfigDict) -> ConfigDict:
    """The stages' configuration of the study, without a variant's changes."""
    return ConfigDict({section: value for section, value in config.to_dict().items() if section not in OWN})


def main(config: ConfigDict, workdir: Path) -> None:
    """Check every variant, make the data, then measure what is missing; show and draw all."""
    from experiments import collect, members, run
    from pwm_jax.analysis.world_model import MeasureConfig
    from pwm_jax.report import ablation

    settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    launch.to_dataclass(MeasureConfig, config.measure, where="config.measure")
    variants = {name: variant_of(config, name) for name in config.variants}
    for name, own in variants.items():
        methods = tuple(own.evaluate.methods)
        if not methods or set(methods) - {"extracted", "generalist", "pwm"}:
            raise launch.ConfigError(f"config.methods must be some of extracted, generalist and pwm, not {methods}")
        try:
            run.check(own)
        except launch.ConfigError as error:
            raise launch.ConfigError(f"config.variants.{name}: {error}") from error
    if settings.measure and not config.dataset:
        data = unvaried(config)
        with launch.stage(workdir, "collect", data):
            collect.main(data, workdir)
    together = lambda point: members.shared(variants[str(point["variant"])])  # noqa: E731
    rows = sweep.run(settings, sweep.grid(variant=tuple(variants)), measure, config, workdir, together)
    ablation.save_figures(rows, workdir / "figures")
    print(ablation.summary(rows))


def measure(config: ConfigDict, points: Sequence[Setting], seeds: tuple[int, ...], directory: Path) -> list[sweep.Row]:
    """A row for each variant, seed, task and method."""
    from experiments import members, stages
    from pwm_jax.analysis import world_model
    from pwm_jax.analysis.world_model import MeasureConfig

    settings, per_batch = launch.to_dataclass(MeasureConfig, config.measure, where="config.measure"), config.sweep.per_batch
    names, workdir = [str(point["variant"]) for point in points], directory.parents[1]
    group = [members.member_of(config, name, seed, variant_of(config, name), workdir) for name in names for seed in seeds]
    if not config.pretrained:
        members.pretrain_missing(group, directory, per_batch)
    outcomes: dict[str, Outcomes] = {}
    for method in group[0].config.evaluate.methods:
        if method == "pwm":
            outcomes[method] = [_online(member) for member in group]
        else:
            outcomes[method] = _evaluated(members.learn(group, method, directory, per_batch), group[0].config)
    tasks = list(dict.fromkeys(task for found in outcomes.values() for task in found[0]))
    rows: list[sweep.Row] = []
    for index, member in enumerate(group):
        state, algorithm, _ = stages.load_world_model(member.config, member.run)
        heldout = stages.heldout_of(member.config, member.run).select(tasks=tasks)
        about = world_model.measure(state.params, algorithm, heldout, settings, member.seed)
        for method, found in outcomes.items():
            for task, earned in found[index].items():
                setting: Setting = {"variant": member.variant, "task": task, "method": method, "seed": member.seed}
                rows.append((setting, {**earned, **about[task]}))
    return rows


def _evaluated(learnt: Learnt, config: ConfigDict) -> Outcomes:
    """What every member's policies earn on each task."""
    import jax
    import numpy as np

    from experiments import stages
    from pwm_jax.evaluation import evaluate

    episodes, specs = config.evaluate.episodes, [learnt.task_set.specs[task] for task in learnt.task_ids]
    found: Outcomes = []
    with stages.make_pool(config, learnt.task_set, np.repeat(learnt.task_ids, episodes)) as pool:
        for policy in learnt.policies:  # one after the other, so that all meet the same start states
            result = evaluate(policy, pool, jax.random.key(config.evaluate.seed), config.evaluate.seed)
            returns, scores = (values.reshape(-1, episodes).mean(1) for values in (result.episode_return, result.score))
            found.append({spec.name: _outcome(returns[t], scores[t], spec) for t, spec in enumerate(specs)})
    return found


def _outcome(episode_return: float, score: float, spec: TaskSpec) -> dict[str, float]:
    """`share` is the return over the task's largest: on Meta-World it tells policies apart that all succeed, or all fail."""
    return {"return": float(episode_return), "score": float(score), "share": float(episode_return / spec.max_return)}


def _online(member: Member) -> Mapping[str, dict[str, float]]:
    """The same of one member's online run, from its world model in real environments."""
    from experiments import evaluate, online
    from pwm_jax.envs.tasks import task_spec
    from pwm_jax.report.episodes import read_episodes

    config = member.config.copy_and_resolve_references()
    config.seed, config.evaluate.methods = member.seed, ("pwm",)
    for name, stage in (("online", online), ("evaluate", evaluate)):
        with launch.stage(member.run, name, config):
            stage.main(config, member.run)
    by_task: dict[str, list[Episode]] = {}
    for episode in read_episodes(member.run / "evaluation" / "pwm.jsonl"):
        by_task.setdefault(episode.task, []).append(episode)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        task: _outcome(mean([e.episode_return for e in mine]), mean([e.score for e in mine]), task_spec(task))
        for task, mine in by_task.items()
    }


if __name__ == "__main__":
    launch.run(main, stage="ablation", config="configs/regularisers.py")
