"""The main job end to end: collect, pretrain, bc, extract, generalist, evaluate, report, each resuming where it stopped.

python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch
from experiments.settings import flatten


def sections() -> dict[str, type]:
    """Section of configs/base.py -> the dataclass that its fields become; of `collect`, each of its sources'."""
    from experiments import collect, convert, evaluate, export, report, stages
    from pwm_jax.baselines.bc import BCConfig
    from pwm_jax.baselines.generalist import GeneralistConfig
    from pwm_jax.baselines.mppi import MPPIConfig
    from pwm_jax.config import ModelConfig, PolicyConfig, WorldModelConfig
    from pwm_jax.training import extract, online, pretrain, single_task

    return {
        "model": ModelConfig,
        "world_model": WorldModelConfig,
        "policy": PolicyConfig,
        "subset": stages.SubsetConfig,
        "collect": collect.SourceConfig,
        "pretrain": pretrain.PretrainConfig,
        "extract": extract.ExtractConfig,
        "generalist": GeneralistConfig,
        "mppi": MPPIConfig,
        "bc": BCConfig,
        "evaluate": evaluate.EvaluateConfig,
        "online": online.OnlineConfig,
        "single_task": single_task.SingleTaskConfig,
        "convert": convert.ConvertConfig,
        "export": export.ExportConfig,
        "report": report.ReportConfig,
    }


def check(config: ConfigDict) -> None:
    """Convert every section of the config as its stage will, so that a mistake in the last is found before the first.

    Raises:
      ConfigError: as `settings.to_dataclass`, or a method to evaluate needs what the model will not have.
      UnknownTaskError: `config.tasks` or `config.extract.tasks` names a task that there is not.
      PublishedError: `config.report.published` has no scores of these tasks.
    """
    from configs import base
    from experiments import collect, stages
    from pwm_jax.report.published import check_tasks

    fields, defaults = flatten(config), flatten(base.get_config())
    for name, default in base.get_config().items():
        if type(config.get(name)) is not type(default):
            raise launch.ConfigError(f"config.{name} is missing, or not of type {type(default).__name__}")
    for path in defaults:
        if path not in fields and not path.startswith("config.collect.sources."):
            raise launch.ConfigError(f"missing field {path}")
    for section, cls in sections().items():
        if section not in ("model", "world_model", "policy", "subset", "collect"):  # converted below, with what the tasks say
            launch.to_dataclass(cls, config[section], where=f"config.{section}")
    task_set = stages.task_set_of(config)
    algorithm = stages.algorithm_of(config, task_set)
    stages.subset_of(config, task_set)
    chosen = stages.chosen_tasks(config.extract.tasks, task_set)
    if config.pretrained:
        _, algorithm, known = stages.load_world_model(config, Path(config.pretrained))
        if known.names != task_set.names:
            raise launch.ConfigError(f"config.tasks must be those of the pretrained model: {', '.join(known.names)}")
    collect.sources_of(config)
    stages.require_for(config.evaluate.methods, config, algorithm)
    check_tasks(config.report.published, [task_set.names[task] for task in chosen])


def main(config: ConfigDict, workdir: Path) -> None:
    """Run the stages in order; finished ones only check that they are.

    With `config.pretrained` that model is used and none is trained. `bc` and `generalist` run where they are to be evaluated.
    """
    from experiments import bc, collect, evaluate, extract, generalist, pretrain, report, stages

    check(config)
    stages.check_simulators(config, stages.task_set_of(config))
    for name, stage in (
        ("collect", collect),
        ("pretrain", pretrain),
        ("bc", bc),
        ("extract", extract),
        ("generalist", generalist),
        ("evaluate", evaluate),
    ):
        if name == "pretrain" and config.pretrained:
            continue
        if name in ("bc", "generalist") and name not in config.evaluate.methods:
            continue
        with launch.stage(workdir, name, config):
            stage.main(config, workdir)
    report.main(config, workdir)


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/quickstart.py")
