"""The online loop on real environments, one task or a set: -> <workdir>/online, and its replay as <workdir>/dataset.

python -m experiments.online --config=configs/online.py:cartpole-swingup --workdir=runs/cartpole
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch

if TYPE_CHECKING:
    from pwm_jax.training.online import OnlineState


def main(config: ConfigDict, workdir: Path) -> None:
    """Run to `config.online.env_steps`, resuming from the newest checkpoint; start from `config.pretrained` where it is set.

    With `config.online.adaptation_rounds` start from the model, the extracted policies and the dataset of `config.pretrained` or this
    workdir, and run so many epochs.
    """
    import jax
    import numpy as np

    from experiments import preemption, stages
    from pwm_jax import checkpoint
    from pwm_jax.data import replay as replays
    from pwm_jax.evaluation import evaluate
    from pwm_jax.report.metrics import MetricsWriter
    from pwm_jax.report.progress import Progress
    from pwm_jax.training import extract, online

    settings = launch.to_dataclass(online.OnlineConfig, config.online, where="config.online")
    directory, final = workdir / "online_state", workdir / "online"
    finished = checkpoint.latest_step(final)  # written last
    if finished is not None and (settings.adaptation_rounds or finished >= settings.env_steps):
        return
    if settings.save_replay:
        stages.refuse_foreign_dataset(workdir / "dataset", "online")
    pretrained = None
    if config.pretrained or settings.adaptation_rounds:
        pretrained, algorithm, task_set = stages.load_world_model(config, workdir)
    else:
        task_set = stages.task_set_of(config)
        algorithm = stages.algorithm_of(config, task_set)
    task_ids = stages.chosen_tasks(settings.tasks, task_set)
    specs = [task_set.specs[task] for task in task_ids]
    settings = online.adapting(settings, len(task_ids))
    algorithm = online.scheduled(algorithm, settings, len(task_ids))
    try:
        online.check(algorithm, settings, specs)
    except ValueError as error:
        raise launch.ConfigError(f"config.online: {error}") from error

    extracted, episodes = None, None
    if settings.adaptation_rounds and pretrained is not None:
        source = Path(config.pretrained or workdir)
        extracted = stages.policies_for(source / "extract", task_ids, algorithm, pretrained)
        dataset = stages.dataset_of(config, source)
        dataset.require(task_set)
        episodes = dataset.select(tasks=task_ids).iter_episodes()
    state = online.init(algorithm, settings, task_ids, config.seed, pretrained, extracted, episodes)
    recorded_slots = int(state.replay.count)
    if checkpoint.latest_step(directory) is not None:
        state, _ = checkpoint.restore(directory, state)
    num_envs = settings.envs_per_task * len(task_ids)
    eval_tasks = np.repeat(task_ids, settings.eval_episodes)
    start = int(state.step) * num_envs
    with (
        stages.make_pool(config, task_set, np.asarray(state.replay.task_id)) as pool,
        stages.make_pool(config, task_set, eval_tasks) as eval_pool,
        MetricsWriter(workdir, "online", start) as writer,
        Progress(settings.env_steps, "online", unit="step", initial=start) as progress,
        preemption.at_checkpoints() as stop,
    ):
        per_epoch, done, latest = settings.steps_per_epoch * num_envs, start, float("nan")

        def due(every: int) -> bool:
            return done // every > (done - per_epoch) // every or done >= settings.env_steps

        def log(state: OnlineState, metrics: Mapping[str, np.ndarray], finished: list[tuple[int, float, float]]) -> None:
            nonlocal done, latest
            done += per_epoch
            scalars = {f"loss/{name}": value.mean() for name, value in metrics.items() if name.endswith("loss")}
            scalars |= {name: value.mean() for name, value in metrics.items() if not name.endswith("loss")}
            for task in {task for task, _, _ in finished}:
                scalars[f"train/return/{task_set.names[task]}"] = np.mean([value for t, value, _ in finished if t == task])
            if metrics and due(settings.eval_every):
                policy = extract.as_policy(state.policies, state.world_model.params, algorithm)
                result = evaluate(policy, eval_pool, jax.random.key(config.seed), seed=config.seed)
                for task in task_ids:
                    scalars[f"eval/return/{task_set.names[task]}/seed{config.seed}"] = result.episode_return[eval_tasks == task].mean()
                latest = float(result.episode_return.mean())
            if scalars:
                writer.write(done, scalars)
            if online.at_boundary(int(state.step), specs):
                stopping = stop.asked()
                if due_checkpoint(done) or stopping:
                    checkpoint.save(directory, done, state, keep=1)
                if stopping:
                    raise preemption.TerminatedError
            progress.update(per_epoch, loss=metrics["loss"].mean() if "loss" in metrics else None, episode_return=latest)

        saved = start

        def due_checkpoint(done: int) -> bool:
            nonlocal saved
            if done - saved < settings.checkpoint_every:
                return False
            saved = done
            return True

        with stages.traced("its own replay", directory):
            state = online.run(state, algorithm, settings, pool, config.seed, log)

    if settings.save_replay:
        steps = (int(state.replay.count) - recorded_slots) * num_envs
        episodes = replays.to_episodes(state.replay, source="replay", seed=config.seed, skip=recorded_slots)
        stages.save_replay(workdir / "dataset", task_set, f"online run, seed {config.seed}, {steps} steps", episodes)
    # Last, since it marks the run as finished.
    metadata = stages.policy_metadata(state.policies, algorithm, task_set)
    checkpoint.save(final, int(state.step) * num_envs, {"policies": state.policies, "wm_params": state.world_model.params}, metadata)


if __name__ == "__main__":
    launch.run(main, stage="online", config="configs/online.py")
