"""Evaluate policies in their real environments: <workdir>/{extract,bc,dataset} -> <workdir>/evaluation, <workdir>/videos.

python -m experiments.evaluate --config=configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ml_collections import ConfigDict

from configs.brax_agents import METHODS as AGENTS
from experiments import launch
from pwm_jax.config import check_fields

if TYPE_CHECKING:
    import jax
    import numpy as np

    from pwm_jax.envs.pool import Pool
    from pwm_jax.envs.tasks import TaskSet
    from pwm_jax.report.episodes import Episode
    from pwm_jax.types import AnyArray, Policy

Method = Literal["extracted", "generalist", "mppi", "pwm", "shac", "decoupled", "ppo", "sac", "bc", "data", "random", "expert"]
ONLINE = ("pwm", "shac", "decoupled")
PICTURES_PER_EPISODE = 60


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """`episodes` of each policy, deterministic, from start states drawn with `seed`, the same for every method.

    `videos` episodes of each extracted policy are recorded, `picture` pixels wide.
    """

    episodes: int = 10
    seed: int = 1_000
    methods: tuple[Method, ...] = ("extracted", "bc", "data", "random")
    videos: int = 1
    picture: int = 192

    def __post_init__(self) -> None:
        check_fields(self, "evaluate", zero=("seed", "videos"))


def main(config: ConfigDict, workdir: Path) -> None:
    """Write one row an episode for each method of `config.evaluate.methods`; a method already evaluated is not run again."""
    from experiments import stages
    from pwm_jax.report.episodes import write_episodes
    from pwm_jax.report.text import first_of

    settings = launch.to_dataclass(EvaluateConfig, config.evaluate, where="config.evaluate")
    pending = [method for method in settings.methods if not (workdir / "evaluation" / f"{method}.jsonl").exists()]
    # All are loaded before any is run, so that a missing one costs nothing.
    recorded = _recorded(config, workdir) if "data" in pending else []
    policies = {method: _policy(method, config, workdir) for method in pending if method != "data"}
    for method in pending:
        if method == "data":
            write_episodes(workdir, method, recorded)
            continue
        policy, task_set, task_id, seed = policies[method]
        with stages.make_pool(config, task_set, task_id) as pool:
            if method == "expert":
                policy = lambda obs, task_id, key: pool.expert_action()  # noqa: E731
            episodes = _run(method, policy, pool, seed, settings, workdir)
        write_episodes(workdir, method, episodes)
        played = first_of(list(dict.fromkeys(episode.task for episode in episodes)))
        mean = sum(episode.score for episode in episodes) / len(episodes)
        print(f"evaluated {method} on {played}: {len(episodes)} episode{'s' * (len(episodes) > 1)}, mean score {mean:.3f}")


def _policy(method: str, config: ConfigDict, workdir: Path) -> tuple[Policy, TaskSet, np.ndarray, np.ndarray]:
    """A method's policy, its task set, and the task id [N] and training seed [N] of each environment that it is evaluated in."""
    import jax.numpy as jnp
    import numpy as np

    from experiments import stages
    from pwm_jax import checkpoint
    from pwm_jax.baselines import bc, generalist
    from pwm_jax.data.sample import DeviceDataset
    from pwm_jax.envs.catalog import META_WORLD
    from pwm_jax.training import extract

    episodes = config.evaluate.episodes
    if method in ONLINE and (workdir / "single_task").is_dir():
        return _single_task(method, episodes, workdir)
    if method in AGENTS:
        return _agents(method, episodes, workdir)
    if method in ("shac", "decoupled"):
        raise launch.ConfigError(f"{workdir} holds no single-task run: make one with experiments.single_task, method {method}")
    if method in ("extracted", "pwm"):
        policies, wm_params, algorithm, task_set = stages.load_policies(workdir / ("extract" if method == "extracted" else "online"))
        learnt = {task_set.names[task] for task in np.asarray(policies.task_id).tolist()}
        if method == "extracted" and (missing := sorted(set(config.extract.tasks) - learnt)):
            raise launch.ConfigError(
                f"config.extract.tasks: {workdir / 'extract'} has no policy for {', '.join(missing)}, only for {', '.join(sorted(learnt))}"
            )
        ids = np.repeat(np.asarray(policies.task_id), episodes), np.repeat(np.asarray(policies.seed), episodes)
        return extract.as_policy(policies, wm_params, algorithm), task_set, *ids
    if method == "generalist":
        policies, wm_params, algorithm, task_set = stages.load_policies(workdir / "generalist")
        played = np.repeat(stages.chosen_tasks(config.generalist.tasks, task_set), episodes)
        ids = np.tile(played, len(policies.seed)), np.repeat(np.asarray(policies.seed), len(played))
        return generalist.as_policy(policies, wm_params, algorithm), task_set, *ids
    if method == "mppi":
        return _planner(config, workdir)
    if method == "bc":
        settings = launch.to_dataclass(bc.BCConfig, config.bc, where="config.bc")
        metadata, data = checkpoint.load_metadata(workdir / "bc"), stages.dataset_of(config, workdir)
        state = bc.init(settings, DeviceDataset.from_dataset(data.select(tasks=metadata["tasks"])), metadata["tasks"], metadata["seeds"])
        state, _ = checkpoint.restore(workdir / "bc", state)
        ids = np.repeat(np.asarray(state.task_id), episodes), np.repeat(np.asarray(state.seed), episodes)
        return bc.as_policy(state, data.task_set.action_mask, settings), data.task_set, *ids
    if "pwm" in config.evaluate.methods and not (workdir / "single_task").is_dir():
        policies, _, _, task_set = stages.load_policies(workdir / "online")
        tasks = np.unique(policies.task_id).tolist()
    else:
        task_set = stages.task_set_of(config)
        tasks = stages.chosen_tasks(config.extract.tasks, task_set)
    if method == "expert":
        tasks = [task for task in tasks if task_set.specs[task].suite == META_WORLD]
    task_id = np.repeat(tasks, episodes)
    rng = np.random.default_rng(config.evaluate.seed)

    def uniform(obs: AnyArray, task_id: AnyArray, key: jax.Array) -> jax.Array:
        return jnp.asarray(rng.uniform(-1.0, 1.0, (len(task_id), task_set.action_dim)) * task_set.action_mask[task_id], jnp.float32)

    return uniform, task_set, task_id, np.zeros_like(task_id)


def _single_task(method: str, episodes: int, workdir: Path) -> tuple[Policy, TaskSet, np.ndarray, np.ndarray]:
    """As `_policy`, for the policies of a single-task run, each of which acts on a world model of its own."""
    import numpy as np

    from experiments import stages
    from experiments.single_task import METHODS
    from pwm_jax.training import extract

    loaded = [stages.load_policies(path) for path in sorted((workdir / "single_task").iterdir())]
    _, _, algorithm, task_set = loaded[0]
    if METHODS[algorithm.policy.dynamics] != method:
        raise launch.ConfigError(f"{workdir} holds a single-task run of {METHODS[algorithm.policy.dynamics]}, not {method}")
    acts = [extract.as_policy(policies, wm_params, algorithm) for policies, wm_params, _, _ in loaded]
    seed = np.repeat([int(policies.seed[0]) for policies, *_ in loaded], episodes)
    return _in_rows(acts, episodes), task_set, np.zeros_like(seed), seed


def _agents(method: str, episodes: int, workdir: Path) -> tuple[Policy, TaskSet, np.ndarray, np.ndarray]:
    """As `_policy`, for Brax's agents."""
    import numpy as np

    from experiments import brax_agents
    from pwm_jax.envs.tasks import TaskSet

    made, task, seeds, policies = brax_agents.load_policies(workdir)
    if made != method:
        raise launch.ConfigError(f"{workdir} holds a run of {made}, not {method}")
    acts = [lambda obs, task_id, key, act=act: act(obs, key) for act in policies]
    seed = np.repeat(seeds, episodes)
    return _in_rows(acts, episodes), TaskSet.from_names(task), np.zeros_like(seed), seed


def _in_rows(acts: Sequence[Policy], episodes: int) -> Policy:
    """Each policy in turn for its own `episodes` environments."""
    import jax.numpy as jnp

    def policy(obs: AnyArray, task_id: AnyArray, key: jax.Array) -> jax.Array:
        rows = [slice(n * episodes, (n + 1) * episodes) for n in range(len(acts))]
        return jnp.concatenate([act(obs[row], task_id[row], key) for act, row in zip(acts, rows, strict=True)])

    return policy


def _planner(config: ConfigDict, workdir: Path) -> tuple[Policy, TaskSet, np.ndarray, np.ndarray]:
    """As `_policy`, for planning in the extracted policies' world model, with them or with its own Q heads."""
    import jax
    import numpy as np

    from experiments import stages
    from pwm_jax.baselines import mppi

    settings, episodes = launch.to_dataclass(mppi.MPPIConfig, config.mppi, where="config.mppi"), config.evaluate.episodes
    if settings.guide == "q":
        world_model, algorithm, task_set = stages.load_world_model(config, workdir)
        stages.require_for(["mppi"], config, algorithm)
        task_id = np.repeat(stages.chosen_tasks(config.extract.tasks, task_set), episodes)
        return mppi.Planner(world_model.params, algorithm, settings), task_set, task_id, np.zeros_like(task_id)
    policies, wm_params, algorithm, task_set = stages.load_policies(workdir / "extract")
    if settings.seeds:
        known = np.asarray(policies.seed)
        rows = np.flatnonzero(np.isin(known, settings.seeds))
        if not set(settings.seeds) <= set(known.tolist()):
            raise launch.ConfigError(f"config.mppi.seeds {settings.seeds}: the extracted policies have {sorted(set(known.tolist()))}")
        policies = jax.tree.map(lambda leaf: leaf[rows], policies)
    ids = np.repeat(np.asarray(policies.task_id), episodes), np.repeat(np.asarray(policies.seed), episodes)
    return mppi.Planner(wm_params, algorithm, settings, policies), task_set, *ids


def _run(method: str, policy: Policy, pool: Pool, seed: np.ndarray, settings: EvaluateConfig, workdir: Path) -> list[Episode]:
    """Evaluate, note the time per decision, and record the first episodes of every policy that was learnt in the model."""
    import jax
    import numpy as np

    from pwm_jax.evaluation import evaluate
    from pwm_jax.report.decisions import DecisionTime, write_decision_time
    from pwm_jax.report.episodes import episodes_from_stats
    from pwm_jax.report.progress import Progress
    from pwm_jax.report.video import save_videos

    specs, task_id = pool.task_set.specs, pool.env_task_ids
    first = np.arange(pool.num_envs) % settings.episodes < settings.videos
    record = np.flatnonzero(first).tolist() if method in ("extracted", "generalist", *ONLINE, *AGENTS) else []
    longest = max(specs[task].episode_length for task in np.unique(task_id))
    with Progress(longest, f"evaluate {method}", tenths=False) as progress:
        result = evaluate(
            policy, pool, jax.random.key(settings.seed), settings.seed, record,
            record_every={env: max(specs[task_id[env]].episode_length // PICTURES_PER_EPISODE, 1) for env in record},
            height=settings.picture, width=settings.picture, on_step=lambda mean_return: progress.update(episode_return=mean_return),
        )  # fmt: skip
    # A scripted expert acts inside the simulators' processes: the time of its call is that of their messages.
    if method != "expert" and np.isfinite(result.seconds_per_call):
        write_decision_time(workdir, method, DecisionTime(result.seconds_per_call, pool.num_envs, jax.default_backend()))
    videos = {(specs[task_id[env]].name, method, int(seed[env])): list(frames) for env, frames in result.frames.items()}
    save_videos(workdir, videos, fps=15.0)
    return episodes_from_stats(result, specs, method, seed)


def _recorded(config: ConfigDict, workdir: Path) -> list[Episode]:
    """The dataset's own episodes, as evaluation rows of the method `data`, but for those without a score.

    TD-MPC2's files do not tell success, which is the score on Meta-World, and MT80's rows of dm_control are parts of episodes.
    """
    import numpy as np

    from experiments import stages
    from pwm_jax.evaluation import score
    from pwm_jax.report.episodes import episodes_from_stats
    from pwm_jax.types import EpisodeStats

    data = stages.dataset_of(config, workdir)
    chosen = np.isin(data.episodes.task_id, stages.chosen_tasks(config.extract.tasks, data.task_set))
    rows = data.episodes.take(chosen)
    scores = score(data.task_set, rows.task_id, rows.episode_return, rows.success)
    whole = rows.length >= np.array([spec.episode_length for spec in data.task_set.specs])[rows.task_id]
    scored = np.isfinite(rows.success) | (np.isfinite(scores) & whole)
    if not scored.all():
        names = ", ".join(data.task_set.names[task] for task in np.unique(rows.task_id[~scored]))
        print(f"data: {np.count_nonzero(~scored)} of {len(rows)} recorded rows have no score and are left out: {names}")
    rows, scores = rows.take(scored), scores[scored]
    stats = EpisodeStats(rows.task_id, rows.episode_return, rows.success, scores, rows.length)
    return episodes_from_stats(stats, data.task_set.specs, "data")


if __name__ == "__main__":
    launch.run(main, stage="evaluate", config="configs/base.py")
