"""Pre-train a world model: <workdir>/dataset -> <workdir>/pretrain.

python -m experiments.pretrain --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch


def main(config: ConfigDict, workdir: Path) -> None:
    """Train on the dataset's windows, resuming from the newest checkpoint."""
    import dataclasses

    import jax

    from experiments import stages
    from pwm_jax import checkpoint, pwm
    from pwm_jax.report.metrics import MetricsWriter, Progress
    from pwm_jax.report.records import write_json
    from pwm_jax.training import pretrain
    from pwm_jax.types import WorldModelState

    settings = launch.to_dataclass(pretrain.PretrainConfig, config.pretrain, where="config.pretrain")
    task_set = stages.task_set_of(config)
    algorithm = stages.algorithm_of(config, task_set)
    data = stages.model_data_of(config, workdir)
    data.require(task_set)
    directory = workdir / "pretrain"
    metadata = stages.model_metadata(algorithm, task_set) | {"world_model": dataclasses.asdict(algorithm.world_model)}

    state = pwm.init_world_model(algorithm, jax.random.key(config.seed))
    if checkpoint.latest_step(directory) is not None:
        state, _ = checkpoint.restore(directory, state)
    start = int(state.step)
    with MetricsWriter(workdir, "pretrain", start) as writer, Progress(settings.steps, "pretrain", initial=start) as progress:
        last = start

        def log(state: WorldModelState, report: pretrain.Report) -> None:
            nonlocal last
            step = int(state.step)
            writer.write(step, report.scalars)
            if report.open_loop is not None:
                write_json(workdir / "metrics" / "open_loop.json", report.open_loop)
            if report.checkpoint:
                checkpoint.save(directory, step, state, metadata)
            progress.update(step - last, loss=report.scalars["loss/loss"])
            last = step

        pretrain.run(state, data, algorithm, settings, config.seed, log)


if __name__ == "__main__":
    launch.run(main, stage="pretrain", config="configs/base.py")
