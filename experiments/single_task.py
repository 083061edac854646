"""The online loop of one task in a pure-JAX simulator, several seeds in one program: -> <workdir>/single_task/seed_<seed>, curves.jsonl.

python -m experiments.single_task --config=configs/single_task.py:brax-hopper-spring,pwm --workdir=runs/hopper
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from configs.single_task import DYNAMICS
from experiments import launch

if TYPE_CHECKING:
    from pwm_jax.config import Config
    from pwm_jax.data.format import Episode
    from pwm_jax.envs.tasks import TaskSet
    from pwm_jax.report.curves import CurveRow
    from pwm_jax.training.single_task import SingleTaskState

METHODS = {dynamics: method for method, dynamics in DYNAMICS.items()}  # what `policy.dynamics` is called in results


def main(config: ConfigDict, workdir: Path) -> None:
    """Run every seed to `config.single_task.env_steps`, resuming from the newest checkpoint; each evaluation is a row of curves.jsonl."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import preemption, stages
    from pwm_jax import checkpoint, ops
    from pwm_jax.envs.simulators.make import make_simulator
    from pwm_jax.report import curves
    from pwm_jax.report.metrics import MetricsWriter
    from pwm_jax.report.progress import Progress
    from pwm_jax.training import single_task

    loop = launch.to_dataclass(single_task.SingleTaskConfig, config.single_task, where="config.single_task")
    states_dir = workdir / "single_task_state"
    if all(checkpoint.latest_step(workdir / "single_task" / f"seed_{seed}") is not None for seed in loop.seeds):
        return
    if loop.save_replay:
        stages.refuse_foreign_dataset(workdir / "dataset", "single_task")
    if config.pretrained:
        pretrained, algorithm, task_set = stages.load_world_model(config, workdir)
    else:
        pretrained, task_set = None, stages.task_set_of(config)
        algorithm = stages.algorithm_of(config, task_set)
    if task_set.num_tasks != 1:
        raise launch.ConfigError(f"config.tasks must be one task of a simulator, not {', '.join(task_set.names)}")
    try:
        algorithm = single_task.scheduled(algorithm, loop)
    except ValueError as error:
        raise launch.ConfigError(f"config: {error}") from error
    simulator = make_simulator(task_set.names[0])
    num_chunks, epochs = single_task.chunks(algorithm, loop)
    begin = time.perf_counter()
    make = lambda: single_task.init(algorithm, loop, simulator, jnp.array(loop.seeds, jnp.uint32), pretrained)  # noqa: E731
    if checkpoint.latest_step(states_dir) is None:
        states, done, wall, compile_s = make(), 0, 0.0, 0.0
    else:
        states, metadata = checkpoint.restore(states_dir, jax.eval_shape(make))
        done, wall, compile_s = (metadata[name] for name in ("chunks", "wall_s", "compile_s"))
    learn = single_task.run_epochs.lower(states, epochs, algorithm, loop, simulator).compile()
    compile_s += time.perf_counter() - begin
    task, method, path = task_set.names[0], METHODS[algorithm.policy.dynamics], workdir / "curves.jsonl"
    curves.write_curves(path, curves.read_curves(path)[: done * len(loop.seeds)])  # none after the checkpoint that the run resumes from
    step = int(states.step[0]) * loop.num_envs
    total = single_task.seed_steps_per_env(loop) * loop.num_envs
    total += num_chunks * epochs * single_task.steps_per_epoch(algorithm, loop) * loop.num_envs
    saved = step
    with (
        MetricsWriter(workdir, "single_task", step) as writer,
        Progress(total, "single_task", unit="step", initial=step) as progress,
        preemption.at_checkpoints() as stop,
    ):
        while done < num_chunks:
            begin = time.perf_counter()
            states, device_metrics = learn(states)
            metrics = jax.device_get(device_metrics)
            wall += time.perf_counter() - begin
            before, step = step, int(states.step[0]) * loop.num_envs
            with stages.traced("its own replay", states_dir):
                seeds = [f"seed {seed}" for seed in loop.seeds]
                ops.require_finite(metrics, "single_task", f"after {step:,} environment steps", seeds)
            returns, lengths = jax.device_get(
                single_task.evaluate(
                    states.policy.actor_params, states.world_model.params, jax.random.key(config.evaluate.seed), algorithm, loop, simulator
                )
            )
            done += 1
            # Seeds that share a program share its time.
            for row in _rows(task, method, loop.seeds, (step, wall / len(loop.seeds), compile_s), returns, lengths):
                curves.append_curve(path, row)
            writer.write(step, _scalars(metrics, returns, task, loop.seeds))
            stopping = stop.asked()
            if step - saved >= loop.checkpoint_every or done == num_chunks or stopping:
                saved = step
                checkpoint.save(states_dir, step, states, {"chunks": done, "wall_s": wall, "compile_s": compile_s}, keep=1)
            if stopping:
                raise preemption.TerminatedError
            progress.update(step - before, loss=metrics["actor_loss"].mean(), episode_return=float(np.mean(returns)))

    if loop.save_replay:
        made_by = f"single-task runs, seeds {', '.join(map(str, loop.seeds))}"
        stages.save_replay(workdir / "dataset", task_set, made_by, _episodes(states, loop.seeds))
    _save_policies(states, loop.seeds, workdir, algorithm, task_set)  # last, since they mark the run as finished


def _rows(task: str, method: str, seeds: tuple[int, ...], clock: tuple[int, float, float], returns: Any, lengths: Any) -> list[CurveRow]:
    """A curve's rows of an evaluation, returns and lengths [S, E] of every seed; `clock` is (env_steps, wall_s, compile_s)."""
    from pwm_jax.report.curves import CurveRow

    pairs = zip(seeds, returns, lengths, strict=True)
    return [CurveRow(task, method, seed, *clock, float(total.mean()), float(length.mean()), len(total)) for seed, total, length in pairs]


def _scalars(metrics: Mapping[str, Any], returns: Any, task: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    """A row of metrics: means over seeds, losses in a group of their own, and every seed's evaluation return."""
    scalars = {f"loss/{name}" if name.endswith("loss") else name: value.mean() for name, value in metrics.items()}
    return scalars | {f"eval/return/{task}/seed{seed}": values.mean() for seed, values in zip(seeds, returns, strict=True)}


def _save_policies(states: SingleTaskState, seeds: tuple[int, ...], workdir: Path, config: Config, task_set: TaskSet) -> None:
    """Every seed's policy with the world model that it acts on, and its model as one that other stages start from."""
    import jax
    import jax.numpy as jnp

    from experiments import stages
    from pwm_jax import checkpoint
    from pwm_jax.training.policies import PolicySet

    for index, seed in enumerate(seeds):
        state = jax.tree.map(lambda leaf, index=index: leaf[index], states)
        policies = PolicySet(jnp.zeros(1, jnp.int32), jnp.array([seed], jnp.uint32), jax.tree.map(lambda leaf: leaf[None], state.policy))
        saved = {"policies": policies, "wm_params": state.world_model.params}
        directory = workdir / "single_task" / f"seed_{seed}"
        checkpoint.save(directory, int(state.step), saved, stages.policy_metadata(policies, config, task_set))


def _episodes(states: SingleTaskState, seeds: tuple[int, ...]) -> Iterator[Episode]:
    """The whole episodes of every seed's replay."""
    import jax

    from pwm_jax.data import replay as replays

    for index, seed in enumerate(seeds):
        replay = jax.tree.map(lambda leaf, index=index: leaf[index], states.replay)
        yield from replays.to_episodes(replay, source="replay", seed=int(seed))


if __name__ == "__main__":
    launch.run(main, stage="single_task", config="configs/single_task.py")
