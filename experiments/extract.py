"""Extract policies from a pre-trained world model: <workdir>/pretrain + dataset -> <workdir>/extract.

python -m experiments.extract --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from experiments import launch


def main(config: ConfigDict, workdir: Path) -> None:
    """All tasks x seeds in one program, evaluated in the real environments at intervals, resuming from the newest checkpoint."""
    import jax
    import numpy as np

    from experiments import stages
    from pwm_jax import checkpoint
    from pwm_jax.evaluation import evaluate
    from pwm_jax.report.metrics import MetricsWriter, Progress
    from pwm_jax.training import extract
    from pwm_jax.training.policies import PolicySet

    settings = launch.to_dataclass(extract.ExtractConfig, config.extract, where="config.extract")
    world_model, algorithm, task_set = stages.load_world_model(config, workdir)
    algorithm = extract.scheduled(algorithm, settings)
    tasks = stages.chosen_tasks(settings.tasks, task_set)
    data = stages.dataset_of(config, workdir)
    data.require(task_set)
    starts = extract.Starts.of(data, tasks, algorithm, settings.max_episodes, config.seed)
    directory = workdir / "extract"

    policies = extract.init(algorithm, tasks, settings.seeds)
    metadata = stages.policy_metadata(policies, algorithm, task_set)
    if checkpoint.latest_step(directory) is not None:
        restored, _ = checkpoint.restore(directory, {"policies": policies, "wm_params": world_model.params})
        policies = restored["policies"]
    start = int(policies.state.step[0])
    if start >= settings.steps:
        return
    labels = [f"{task_set.names[task]}/seed{seed}" for task in tasks for seed in settings.seeds]
    envs = np.repeat(np.asarray(policies.task_id), settings.eval_episodes)
    pool = stages.make_pool(config, task_set, envs)
    with pool, MetricsWriter(workdir, "extract", start) as writer, Progress(settings.steps, "extract", initial=start) as progress:
        last, score = start, float("nan")

        def log(policies: PolicySet, step: int, metrics: Mapping[str, np.ndarray]) -> None:
            nonlocal last, score
            scalars = {f"loss/{name}": value.mean() for name, value in metrics.items() if name.endswith("loss")}
            scalars |= {f"{name}/{label}": value[i] for name, value in metrics.items() for i, label in enumerate(labels)}
            if step % settings.eval_every == 0 or step == settings.steps:
                policy = extract.as_policy(policies, world_model.params, algorithm)
                result = evaluate(policy, pool, jax.random.key(config.seed), seed=config.seed)
                returns = result.episode_return.reshape(len(labels), -1).mean(1)
                scalars |= {f"eval/return/{label}": value for label, value in zip(labels, returns, strict=True)}
                score = float(result.score.mean())
            writer.write(step, scalars)
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                checkpoint.save(directory, step, {"policies": policies, "wm_params": world_model.params}, metadata)
            progress.update(step - last, imagined=metrics["imagined_return"].mean(), score=score)
            last = step

        extract.run(policies, world_model.params, starts, algorithm, settings, log)


if __name__ == "__main__":
    launch.run(main, stage="extract", config="configs/base.py")
