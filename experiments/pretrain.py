"""Pre-train a world model: <workdir>/dataset -> <workdir>/pretrain.

python -m experiments.pretrain --config=configs/quickstart.py --workdir=runs/quickstart

All accelerators of the machine share each batch; with --distributed=auto those of all machines of a SLURM job or a TPU pod, which start
the same command on a directory that all of them see. With --config.pretrain.shard_parameters=True they share the parameters too.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch


def main(config: ConfigDict, workdir: Path) -> None:
    """Train on the dataset's windows, resuming from the newest checkpoint."""
    import contextlib
    import dataclasses

    import jax

    from experiments import preemption, stages
    from pwm_jax import checkpoint, pwm
    from pwm_jax.report.metrics import MetricsWriter
    from pwm_jax.report.progress import Progress
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
    first = jax.process_index() == 0  # of several processes the first tells and keeps the metrics
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(MetricsWriter(workdir, "pretrain", start)) if first else None
        progress = stack.enter_context(Progress(settings.steps, "pretrain", initial=start)) if first else None
        stop = stack.enter_context(preemption.at_checkpoints())
        last = start

        def log(state: WorldModelState, report: pretrain.Report) -> None:
            nonlocal last
            step, stopping = int(state.step), stop.asked()
            if writer and progress:
                writer.write(step, report.scalars)
                if report.open_loop is not None:
                    write_json(workdir / "metrics" / "open_loop.json", report.open_loop)
                progress.update(step - last, loss=report.scalars["loss/loss"])
            if report.checkpoint or stopping:
                checkpoint.save(directory, step, state, metadata)
            if stopping:
                raise preemption.TerminatedError
            last = step

        with stages.traced(data, directory):
            pretrain.run(state, data, algorithm, settings, config.seed, log)


if __name__ == "__main__":
    launch.run(main, stage="pretrain", config="configs/base.py", distributed=True)
