"""Clone the behaviour of the dataset, the floor of offline methods: <workdir>/dataset -> <workdir>/bc.

python -m experiments.bc --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch


def main(config: ConfigDict, workdir: Path) -> None:
    """One policy for each task and seed of `config.extract`, resuming from the newest checkpoint."""
    import numpy as np

    from experiments import preemption, stages
    from pwm_jax import checkpoint
    from pwm_jax.baselines import bc
    from pwm_jax.data.sample import DeviceDataset
    from pwm_jax.report.metrics import MetricsWriter
    from pwm_jax.report.progress import Progress

    settings = launch.to_dataclass(bc.BCConfig, config.bc, where="config.bc")
    data = stages.dataset_of(config, workdir)
    task_set, directory = data.task_set, workdir / "bc"
    tasks = stages.chosen_tasks(config.extract.tasks, task_set)
    data = data.select(tasks=tasks)
    on_device = DeviceDataset.from_dataset(data)
    state = bc.init(settings, on_device, tasks, config.extract.seeds)
    labels = [f"{task_set.names[task]}/seed{seed}" for task in tasks for seed in config.extract.seeds]
    metadata = {"task_set": task_set.to_dict(), "tasks": tasks, "seeds": list(config.extract.seeds)}
    if checkpoint.latest_step(directory) is not None:
        state, _ = checkpoint.restore(directory, state)
    start = int(state.step)
    with (
        MetricsWriter(workdir, "bc", start) as writer,
        Progress(settings.steps, "bc", initial=start) as progress,
        preemption.at_checkpoints() as stop,
    ):
        last = start

        def log(state: bc.BCState, step: int, metrics: Mapping[str, np.ndarray]) -> None:
            nonlocal last
            writer.write(step, {"loss/bc": metrics["loss"].mean()})
            checkpoint.save(directory, step, state, metadata)
            progress.update(step - last, loss=metrics["loss"].mean())
            if stop.asked():
                raise preemption.TerminatedError
            last = step

        with stages.traced(data, directory):
            bc.run(state, on_device, task_set.action_mask, settings, log, labels)


if __name__ == "__main__":
    launch.run(main, stage="bc", config="configs/base.py")
