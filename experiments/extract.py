"""Extract policies from a pre-trained world model: <workdir>/pretrain + dataset -> <workdir>/extract.

python -m experiments.extract --config=configs/quickstart.py --workdir=runs/quickstart

The policies are shared out to all devices; with --distributed=auto to those of all machines of a SLURM job or a TPU pod, which start the
same command on a directory that all of them see.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch

if TYPE_CHECKING:
    import numpy as np

    from pwm_jax.config import Config
    from pwm_jax.data.store import Dataset
    from pwm_jax.envs.tasks import TaskSet
    from pwm_jax.training.extract import ExtractConfig, StartSampler
    from pwm_jax.training.policies import PolicySet
    from pwm_jax.types import Params, Policy


def main(config: ConfigDict, workdir: Path) -> None:
    """All tasks x seeds in one program, evaluated in the real environments at intervals, resuming from the newest checkpoint."""
    import numpy as np

    from experiments import stages
    from pwm_jax.training import extract

    settings = launch.to_dataclass(extract.ExtractConfig, config.extract, where="config.extract")
    world_model, algorithm, task_set = stages.load_world_model(config, workdir)
    wm_params, algorithm = stages.for_policies(world_model, extract.scheduled(algorithm, settings))
    tasks = stages.chosen_tasks(settings.tasks, task_set)
    data = stages.dataset_of(config, workdir)
    data.require(task_set)
    policies = extract.init(algorithm, tasks, settings.seeds)
    learn(
        Extraction(
            stage="extract",
            settings=settings,
            algorithm=algorithm,
            task_set=task_set,
            wm_params=wm_params,
            policies=policies,
            data=data,
            starts=extract.StartSampler.of(data, tasks, algorithm, settings.max_episodes, config.seed),
            task_ids=np.asarray(policies.task_id),
            seeds=np.asarray(policies.seed),
            labels=[f"{task_set.names[task]}/seed{seed}" for task in tasks for seed in settings.seeds],
            as_policy=extract.as_policy,
        ),
        config,
        workdir,
    )


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What policies learn from, and how they are followed: one entry of `task_ids`, `seeds` and evaluation label for each pair to report.

    `labels` name the policies, whose metrics are [P]; evaluation runs `settings.eval_episodes` environments of each of `task_ids`.
    """

    stage: str
    settings: ExtractConfig
    algorithm: Config
    task_set: TaskSet
    wm_params: Params
    policies: PolicySet
    data: Dataset
    starts: StartSampler
    task_ids: np.ndarray
    seeds: np.ndarray
    labels: Sequence[str]
    as_policy: Callable[[PolicySet, Params, Config], Policy]


def learn(run: Extraction, config: ConfigDict, workdir: Path) -> None:
    """Bring `run.policies` to their last iteration: <workdir>/<stage>, metrics and TensorBoard of that name."""
    import jax
    import numpy as np

    from experiments import preemption, stages
    from pwm_jax import checkpoint
    from pwm_jax.evaluation import evaluate
    from pwm_jax.report.metrics import MetricsWriter
    from pwm_jax.report.progress import Progress
    from pwm_jax.training import extract

    settings, directory, policies = run.settings, workdir / run.stage, run.policies
    metadata = stages.policy_metadata(policies, run.algorithm, run.task_set)
    if checkpoint.latest_step(directory) is not None:
        restored, _ = checkpoint.restore(directory, {"policies": policies, "wm_params": run.wm_params})
        policies = restored["policies"]
    start = int(policies.state.step[0])
    if start >= settings.steps:
        return
    played = [f"{run.task_set.names[task]}/seed{seed}" for task, seed in zip(run.task_ids, run.seeds, strict=True)]
    first = jax.process_index() == 0  # of several processes the first evaluates and keeps the metrics
    with contextlib.ExitStack() as stack:
        if first:
            pool = stack.enter_context(stages.make_pool(config, run.task_set, np.repeat(run.task_ids, settings.eval_episodes)))
            writer = stack.enter_context(MetricsWriter(workdir, run.stage, start))
            progress = stack.enter_context(Progress(settings.steps, run.stage, initial=start))
        stop = stack.enter_context(preemption.at_checkpoints())
        last, earned = start, float("nan")

        def tell(policies: PolicySet, step: int, metrics: Mapping[str, np.ndarray]) -> None:
            nonlocal last, earned
            scalars = {f"loss/{name}": value.mean() for name, value in metrics.items() if name.endswith("loss")}
            scalars |= {f"{name}/{label}": value[i] for name, value in metrics.items() for i, label in enumerate(run.labels)}
            if is_evaluated(step):
                policy = run.as_policy(policies, run.wm_params, run.algorithm)
                result = evaluate(policy, pool, jax.random.key(config.seed), seed=config.seed)
                returns = result.episode_return.reshape(len(played), -1).mean(1)
                scalars |= {f"eval/return/{label}": value for label, value in zip(played, returns, strict=True)}
                earned = float(returns.mean())
            writer.write(step, scalars)
            progress.update(step - last, loss=metrics["actor_loss"].mean(), episode_return=earned)
            last = step

        def is_evaluated(step: int) -> bool:
            return step % settings.eval_every == 0 or step == settings.steps

        def log(policies: PolicySet, step: int, metrics: Mapping[str, np.ndarray]) -> None:
            stopping = stop.asked()
            if jax.process_count() > 1 and is_evaluated(step):
                policies = checkpoint.on_host(policies)
            if first:
                tell(policies, step, metrics)
            if step % settings.checkpoint_every == 0 or step == settings.steps or stopping:
                checkpoint.save(directory, step, {"policies": policies, "wm_params": run.wm_params}, metadata)
            if stopping:
                raise preemption.TerminatedError

        with stages.traced(run.data, directory):
            extract.run(policies, run.wm_params, run.starts, run.algorithm, settings, log, run.labels)


if __name__ == "__main__":
    launch.run(main, stage="extract", config="configs/base.py", distributed=True)
