"""A study of settings: every variant of a configuration is pre-trained, its policies learnt, evaluated and measured, for every seed.

python -m experiments.ablation --config=configs/regularisers.py --workdir=runs/regularisers

Rows of <workdir>/<study>.jsonl are of a variant, seed, task and one of `config.methods`: extracted, generalist, or pwm, which is the online
loop from the pre-trained model. Policies are in <workdir>/points/, world models in <workdir>/models/: variants that change the same of the
model, or nothing, share one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch, sweep
from experiments.settings import check_path, flatten

if TYPE_CHECKING:
    from pwm_jax.config import Config
    from pwm_jax.data.store import Dataset
    from pwm_jax.report.measurements import Setting, Value
    from pwm_jax.types import Params

OWN = ("sweep", "variants", "measure", "methods")  # sections of the study, which its stages do not have
MODEL = ("model", "world_model", "pretrain", "subset", "tasks", "dataset", "pretrained")  # what a world model depends on, the seed apart


@dataclasses.dataclass(frozen=True)
class MeasureConfig:
    """Of each world model: `windows` for its Jacobians, `samples` gradients of `horizon` steps, return slopes over `directions`.

    `length` is how far a policy's parameters are moved along each direction, either way.
    """

    windows: int = 32
    samples: int = 256
    chunk: int = 32
    horizon: int = 16
    directions: int = 32
    length: float = 0.1


def variant_of(config: ConfigDict, name: str, seed: int) -> ConfigDict:
    """The stages' configuration of a variant and seed.

    Raises ConfigError where `config.variants` changes a field that there is not.
    """
    own = ConfigDict({section: value for section, value in config.to_dict().items() if section not in OWN})
    changes = {path[1:]: value for path, value in flatten(config.variants[name], "").items()}
    for path in changes:
        check_path(own, path, f"config of config.variants.{name}")
    own.update_from_flattened_dict(changes)
    own.seed, own.extract.seeds = seed, (seed,)
    own.generalist.seeds = (seed,)
    own.evaluate.update(methods=config.methods, videos=0)
    return own


def main(config: ConfigDict, workdir: Path) -> None:
    """Check every variant, make the data, then measure what is missing; show and draw all."""
    from experiments import collect, run
    from pwm_jax.report import ablation

    settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    launch.to_dataclass(MeasureConfig, config.measure, where="config.measure")
    if not config.methods or set(config.methods) - {"extracted", "generalist", "pwm"}:
        raise launch.ConfigError(f"config.methods must be some of extracted, generalist and pwm, not {tuple(config.methods)}")
    for name in config.variants:
        run.check(variant_of(config, name, settings.seeds[0]))
    data = variant_of(config, next(iter(config.variants)), config.seed)  # the same, however many seeds are measured
    if settings.measure and not config.dataset:
        with launch.stage(workdir, "collect", data):
            collect.main(data, workdir)
    rows = sweep.run(settings, sweep.grid(variant=tuple(config.variants)), measure, config, workdir)
    ablation.save_figures(rows, workdir / "figures")
    print(ablation.summary(rows))


def measure(config: ConfigDict, point: Setting, seeds: tuple[int, ...], directory: Path) -> Iterator[list[sweep.Row]]:
    """A row for each task and method, seed by seed."""
    from experiments import evaluate, extract, generalist, online, pretrain, stages
    from pwm_jax.report.episodes import read_episodes
    from pwm_jax.workdir import WorkdirLock

    settings = launch.to_dataclass(MeasureConfig, config.measure, where="config.measure")
    name, workdir = str(point["variant"]), directory.parents[1]
    for seed in seeds:
        own, run = variant_of(config, name, seed), directory / f"seed_{seed}"
        own.dataset = own.dataset or str(workdir / "dataset")
        if not own.pretrained:
            own.pretrained = str(_model_of(config, name, workdir) / f"seed_{seed}")
            # Points that share a model may be measured side by side: one trains it, the others wait.
            model, record = Path(own.pretrained), _without(own, "pretrained", "policy", "extract", "generalist", "online")
            with WorkdirLock(model, wait=True), launch.stage(model, "pretrain", record):
                pretrain.main(own, model)
        policies = {"extracted": ("extract", extract), "generalist": ("generalist", generalist), "pwm": ("online", online)}
        for stage_name, stage in (*(policies[method] for method in config.methods), ("evaluate", evaluate)):
            with launch.stage(run, stage_name, own):
                stage.main(own, run)
        world_model, algorithm, _ = stages.load_world_model(own, run)
        episodes_of = {method: read_episodes(run / "evaluation" / f"{method}.jsonl") for method in config.methods}
        tasks = list(dict.fromkeys(episode.task for episodes in episodes_of.values() for episode in episodes))
        about = _measure_model(world_model.params, algorithm, stages.heldout_of(own, run).select(tasks=tasks), settings, seed)
        rows: list[sweep.Row] = []
        for method, episodes in episodes_of.items():
            for task in dict.fromkeys(episode.task for episode in episodes):
                mine = [episode for episode in episodes if episode.task == task]
                mean = lambda name, mine=mine: sum(getattr(e, name) for e in mine) / len(mine)  # noqa: E731
                outcome = {"return": mean("episode_return"), "score": mean("score")}
                rows.append(({"task": task, "method": method, "seed": seed}, {**outcome, **about[task]}))
        yield rows


def _model_of(config: ConfigDict, name: str, workdir: Path) -> Path:
    """Where a variant's world models are: one directory for all variants that change the same of the model."""
    changes = {path[1:]: value for path, value in flatten(config.variants[name], "").items() if path[1:].split(".")[0] in MODEL}
    return sweep.directory_of(workdir, changes or {"model": "unchanged"}, "models")


def _without(config: ConfigDict, *sections: str) -> ConfigDict:
    """What a world model's record says, the same for all variants that share it."""
    return ConfigDict({name: value for name, value in config.to_dict().items() if name not in sections})


def _measure_model(
    params: Params, algorithm: Config, heldout: Dataset, settings: MeasureConfig, seed: int
) -> Mapping[str, dict[str, Value]]:
    """Accuracy, smoothness and gradients of a world model on windows of each task of a dataset, by its name.

    The policy whose gradients and return slopes are taken is one before learning, the same for every variant of a seed.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from pwm_jax import pwm
    from pwm_jax.analysis import smoothness
    from pwm_jax.analysis.gradients import gradient_stats
    from pwm_jax.data.sample import WindowSampler
    from pwm_jax.training.pretrain import open_loop_error
    from pwm_jax.types import Starts

    algorithm = dataclasses.replace(algorithm, policy=dataclasses.replace(algorithm.policy, detach_actor_input=False))
    rng = np.random.default_rng(seed)
    actor, noise_key, direction_key = (jax.random.fold_in(jax.random.key(seed), n) for n in range(3))
    actor_params = pwm.init_policy(algorithm, actor).actor_params
    noise = jax.random.normal(noise_key, (settings.horizon, settings.samples, algorithm.model.action_dim))
    measured: dict[str, dict[str, Value]] = {}
    for task in np.unique(heldout.episodes.task_id).tolist():
        windows = WindowSampler(heldout.select(tasks=[task]), settings.samples, settings.horizon, terminations=False)(rng)
        latent, reward = jax.device_get(open_loop_error(params, windows, algorithm))
        few = jax.tree.map(lambda leaf: leaf[..., : settings.windows, :] if leaf.ndim == 3 else leaf[..., : settings.windows], windows)
        norms = jax.device_get(smoothness.jacobian_norms(params, few, algorithm))
        starts = Starts(jnp.asarray(windows.obs[0]), jnp.asarray(windows.action[0]), jnp.asarray(windows.task_id))
        stats = gradient_stats(actor_params, params, starts, noise, algorithm, (settings.horizon,), "model", settings.chunk)
        slopes = smoothness.return_lipschitz(
            actor_params, params, starts, noise, direction_key, algorithm, settings.length, settings.directions
        )
        measured[heldout.task_set.names[task]] = {
            "open_loop": float(latent.mean()),
            "reward_error": float(reward.mean()),
            "state_norm": float(np.median(norms.state)),
            "action_norm": float(np.median(norms.action)),
            "product_norm": float(np.median(norms.product[-1])),
            "return_slope": float(np.mean(slopes)),
            "variance": float(stats.variance[0]),
            "esnr": float(stats.esnr[0]),
        }
    return measured


if __name__ == "__main__":
    launch.run(main, stage="ablation", config="configs/regularisers.py")
