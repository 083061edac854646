"""Learn one policy for all tasks in a pre-trained world model: <workdir>/pretrain + dataset -> <workdir>/generalist.

python -m experiments.generalist --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch


def main(config: ConfigDict, workdir: Path) -> None:
    """One policy for each of `config.generalist.seeds`, evaluated on every task at intervals, resuming from the newest checkpoint."""
    import numpy as np

    from experiments import extract, stages
    from pwm_jax.baselines import generalist

    settings = launch.to_dataclass(generalist.GeneralistConfig, config.generalist, where="config.generalist")
    world_model, algorithm, task_set = stages.load_world_model(config, workdir)
    stages.require_for(["generalist"], config, algorithm)
    tasks = stages.chosen_tasks(settings.tasks, task_set)
    wm_params, algorithm = stages.for_policies(world_model, generalist.conditioned(algorithm, len(tasks), settings))
    data = stages.dataset_of(config, workdir)
    data.require(task_set)
    extract.learn(
        extract.Extraction(
            stage="generalist",
            settings=settings,
            algorithm=algorithm,
            task_set=task_set,
            wm_params=wm_params,
            policies=generalist.init(algorithm, settings.seeds),
            data=data,
            starts=generalist.starts_of(data, tasks, algorithm, settings.max_episodes, config.seed),
            task_ids=np.tile(tasks, len(settings.seeds)),
            seeds=np.repeat(settings.seeds, len(tasks)),
            labels=[f"seed{seed}" for seed in settings.seeds],
            as_policy=generalist.as_policy,
        ),
        config,
        workdir,
    )


if __name__ == "__main__":
    launch.run(main, stage="generalist", config="configs/base.py")
