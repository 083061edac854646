"""What the launchers share about the stages: from a config to the algorithm's dataclasses, and where each stage finds the others' files."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.settings import ConfigError, to_dataclass
from pwm_jax import checkpoint, pwm, tdmpc2
from pwm_jax.config import Config, ModelConfig, PolicyConfig, WorldModelConfig
from pwm_jax.data.format import Episode
from pwm_jax.data.store import FULL_VERIFY_BYTES, Dataset, DatasetWriter, read_index
from pwm_jax.envs.simulators.catalog import SUITES
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.report import curves
from pwm_jax.report.results import command_line, commit
from pwm_jax.report.text import first_of
from pwm_jax.report.workdir import write_data_description
from pwm_jax.training import extract as extraction
from pwm_jax.training.policies import PolicySet
from pwm_jax.types import Params, WorldModelState

if TYPE_CHECKING:
    from pwm_jax.envs.pool import Pool


def task_set_of(config: ConfigDict) -> TaskSet:
    """The task set that `config.tasks` names; UnknownTaskError names the nearest where one is mistyped."""
    return TaskSet.from_names(config.tasks)


def algorithm_of(config: ConfigDict, task_set: TaskSet, model: ModelConfig | None = None) -> Config:
    """The algorithm's configuration for a task set; `model` is a stored architecture that takes the place of `config.model`."""
    if model is None:
        facts = dict(
            obs_dim=task_set.obs_dim,
            action_dim=task_set.action_dim,
            action_dims=tuple(spec.action_dim for spec in task_set.specs),
            discounts=tuple(spec.discount for spec in task_set.specs),
        )
        model = to_dataclass(ModelConfig, config.model, where="config.model", **facts)
    world_model = to_dataclass(WorldModelConfig, config.world_model, where="config.world_model")
    policy = to_dataclass(PolicyConfig, config.policy, where="config.policy")
    return to_dataclass(Config, {}, model=model, world_model=world_model, policy=policy)


@dataclasses.dataclass(frozen=True)
class SubsetConfig:
    """The part of the offline data that is used: where there is a `task`, only the share `kept` of its episodes (at least two).

    World models learn from `model_tasks`: all tasks, all `others` than `task`, or `own`, which is `task` alone.
    """

    task: str = ""
    kept: float = 1.0
    model_tasks: Literal["all", "others", "own"] = "all"

    def __post_init__(self) -> None:
        if not 0.0 < self.kept <= 1.0:
            raise ValueError(f"kept must lie in (0, 1], not {self.kept}")
        if not self.task and (self.kept, self.model_tasks) != (1.0, "all"):
            raise ValueError("kept and model_tasks are of a task: set task")


def subset_of(config: ConfigDict, task_set: TaskSet) -> SubsetConfig:
    """`config.subset`, checked. Raises ConfigError or UnknownTaskError."""
    subset = to_dataclass(SubsetConfig, config.subset, where="config.subset")
    if subset.task:
        task_set.index(subset.task)
    return subset


def dataset_of(config: ConfigDict, workdir: Path) -> Dataset:
    """The offline data less what `config.subset` leaves out; DatasetError says how to make it where it is missing."""
    dataset = Dataset.open(config.dataset or workdir / "dataset")
    subset = subset_of(config, dataset.task_set)
    return dataset.thin(subset.task, subset.kept, config.seed) if subset.task else dataset


def model_data_of(config: ConfigDict, workdir: Path) -> Dataset:
    """What of the offline data world models learn from. Raises DatasetError where nothing is left."""
    dataset = dataset_of(config, workdir)
    subset = subset_of(config, dataset.task_set)
    kept = {"all": dataset.task_set.names, "own": (subset.task,)}
    kept["others"] = tuple(name for name in dataset.task_set.names if name != subset.task)
    return dataset.select(tasks=kept[subset.model_tasks])


def heldout_of(config: ConfigDict, workdir: Path) -> Dataset:
    """Episodes of every task that pre-training with this `config` holds out, with a subset as without it, none of which it learns from."""
    fraction, seed = config.pretrain.heldout_fraction, config.seed
    _, heldout = Dataset.open(config.dataset or workdir / "dataset").split_heldout(fraction, seed)
    used, _ = model_data_of(config, workdir).split_heldout(fraction, seed)
    return heldout.select(episode_mask=~np.isin(heldout.episodes.frame, used.episodes.frame))


@contextlib.contextmanager
def traced(source: Dataset | str, directory: Path) -> Iterator[None]:
    """Let the error of a loss that is not finite also tell what was learnt from, and the last checkpoint in `directory`."""
    try:
        yield
    except FloatingPointError as error:
        step = checkpoint.latest_step(directory)
        last = f"no checkpoint in {directory} yet" if step is None else f"the last checkpoint is that of step {step} in {directory}"
        raise FloatingPointError(f"{error}. It learnt from {source if isinstance(source, str) else _described(source)}; {last}") from error


def _described(dataset: Dataset) -> str:
    """The dataset's path, episodes and tasks, and the episode with its largest number, if it is read in a moment."""
    tasks = [dataset.task_set.names[task] for task in np.unique(dataset.episodes.task_id)]
    text = f"{dataset.path} ({len(dataset)} episodes of {first_of(tasks)}"
    if dataset.nbytes <= FULL_VERIFY_BYTES:
        largest = [max(np.abs(episode.obs).max(), np.abs(episode.reward).max()) for episode in dataset.iter_episodes()]
        row = int(np.argmax(largest))
        episodes = dataset.episodes
        name = dataset.task_set.names[episodes.task_id[row]]
        text += f"; its largest number, {largest[row]:.3g}, is in episode {row}, of {name} by {episodes.source[row]}"
    return text + ")"


def finished_seeds(workdir: Path, stage: str, env_steps: int) -> set[int]:
    """The seeds of `single_task` or `brax_agents` whose curve has reached `env_steps` and whose policy is saved."""
    reached = curves.finished_seeds(curves.read_curves(workdir / "curves.jsonl"), env_steps)
    return {seed for seed in reached if checkpoint.latest_step(workdir / stage / f"seed_{seed}") is not None}


def model_metadata(config: Config, task_set: TaskSet) -> dict[str, Any]:
    """What a reader needs to rebuild a world model: its architecture and its task set."""
    return {"model": dataclasses.asdict(config.model), "task_set": task_set.to_dict()}


def _metadata(directory: Path, *needed: str) -> dict[str, Any]:
    """The newest checkpoint's metadata, with at least the entries that a reader needs to rebuild what it holds."""
    metadata = checkpoint.load_metadata(directory)
    missing = [name for name in needed if name not in metadata]
    if missing:
        raise checkpoint.CheckpointError(
            f"{directory} holds a checkpoint of something else: its metadata lacks {', '.join(missing)}. Check the path."
        )
    return metadata


def _model_from(metadata: dict[str, Any]) -> tuple[ModelConfig, TaskSet]:
    return to_dataclass(ModelConfig, metadata["model"], where="checkpoint.model"), TaskSet.from_dict(metadata["task_set"])


def load_world_model(config: ConfigDict, workdir: Path) -> tuple[WorldModelState, Config, TaskSet]:
    """The pre-trained world model of `config.pretrained` or this workdir, with the architecture and task set it was saved with.

    Its matrix products are of the dtype that `config` says, whatever it was trained with. Raises CheckpointError where there is none.
    """
    directory = Path(config.pretrained or workdir) / "pretrain"
    metadata = _metadata(directory, "model", "task_set", "world_model")
    model, task_set = _model_from(metadata)
    algorithm = algorithm_of(config, task_set, dataclasses.replace(model, matmul_dtype=config.model.matmul_dtype))
    # The optimiser's state follows the configuration that the model was trained with.
    trained = dataclasses.replace(algorithm, world_model=to_dataclass(WorldModelConfig, metadata["world_model"]))
    like = jax.eval_shape(lambda: pwm.init_world_model(trained, jax.random.key(0)))
    state, _ = checkpoint.restore(directory, like)
    return state, algorithm, task_set


def for_policies(world_model: WorldModelState, algorithm: Config) -> tuple[Params, Config]:
    """The parameters that policies use and their configuration: without TD-MPC2's Q heads and prior."""
    model = dataclasses.replace(algorithm.model, num_q=0)
    return tdmpc2.without_q(world_model.params), dataclasses.replace(algorithm, model=model)


def require_for(methods: Collection[str], config: ConfigDict, algorithm: Config) -> None:
    """Raise ConfigError where one of these methods needs what the world model of `algorithm` does not have."""
    if "mppi" in methods and config.mppi.guide == "q" and not algorithm.model.num_q:
        raise ConfigError("config.mppi.guide q needs a model with Q heads, as configs/tdmpc2.py trains: set it to policy")
    if "generalist" in methods and not algorithm.model.task_dim:
        raise ConfigError("the generalist needs a task embedding to tell the tasks apart: leave it out, or set config.model.task_dim")


def chosen_tasks(names: Sequence[str], task_set: TaskSet) -> list[int]:
    """Task ids of `names`, or of the whole set where there are none; UnknownTaskError for one that the model does not know."""
    return [task_set.index(name) for name in names] if names else list(range(task_set.num_tasks))


def policy_metadata(policies: PolicySet, config: Config, task_set: TaskSet) -> dict[str, Any]:
    """What a reader needs to rebuild a set of policies."""
    ids = {"task_id": np.asarray(policies.task_id).tolist(), "seed": np.asarray(policies.seed).tolist()}
    return {**model_metadata(config, task_set), **ids, "policy": dataclasses.asdict(config.policy)}


def load_policies(directory: Path) -> tuple[PolicySet, Any, Config, TaskSet]:
    """Policies saved in `<directory>` by extraction or an online run, with the world-model parameters they act on.

    Raises CheckpointError where there are none.
    """
    metadata = _metadata(directory, "model", "task_set", "policy", "task_id", "seed")
    model, task_set = _model_from(metadata)
    config = to_dataclass(Config, {}, model=model, policy=to_dataclass(PolicyConfig, metadata["policy"], where="checkpoint.policy"))

    def like() -> dict[str, Any]:
        policies = extraction.policy_sets.init_policies(config, np.array(metadata["task_id"]), np.array(metadata["seed"]))
        return {"policies": policies, "wm_params": pwm.init_world_model(config, jax.random.key(0)).params}

    state, _ = checkpoint.restore(directory, jax.eval_shape(like))
    return state["policies"], state["wm_params"], config, task_set


def one_seed(policies: PolicySet) -> PolicySet:
    """The policies of the first seed, one for each task in the order of task ids: what a data collection acts with."""
    task_id, seed = np.asarray(policies.task_id), np.asarray(policies.seed)
    rows = np.flatnonzero(seed == seed[0])
    return jax.tree.map(lambda leaf: leaf[rows[np.argsort(task_id[rows])]], policies)


def policies_for(directory: Path, task_ids: Sequence[int], config: Config, world_model: WorldModelState) -> PolicySet:
    """The saved policies of the first seed for `task_ids`, in this order, to train on with `config`.

    Raises:
        CheckpointError: there are none, none for one of the tasks, or they were extracted from another model than `world_model`.
        ConfigError: their networks are not those of `config`.
    """
    policies, params, saved, task_set = load_policies(directory)
    own_params, own = for_policies(world_model, config)
    if saved.model != own.model or not all(jax.tree.leaves(jax.tree.map(np.array_equal, params, own_params))):
        raise checkpoint.CheckpointError(f"the policies in {directory} were extracted from another world model than the one to adapt")
    for name in ("actor_hidden", "critic_hidden", "num_critics"):
        there, here = getattr(saved.policy, name), getattr(config.policy, name)
        if there != here:
            raise ConfigError(f"the policies in {directory} have policy.{name} {there}, the config has {here}: set it to theirs")
    policies = one_seed(policies)
    there_ids = np.asarray(policies.task_id).tolist()
    missing = [task_set.names[task] for task in task_ids if task not in there_ids]
    if missing:
        raise checkpoint.CheckpointError(f"{directory} holds no policy for {', '.join(missing)}: extract them first")
    return jax.tree.map(lambda leaf: leaf[np.array([there_ids.index(task) for task in task_ids])], policies)


def make_pool(config: ConfigDict, task_set: TaskSet, env_task_ids: Sequence[int] | np.ndarray) -> Pool:
    """One environment for each of `env_task_ids`: in worker processes, or of simulated tasks compiled into this one.

    Raises ConfigError where the task set mixes both.
    """
    from pwm_jax.envs.pool import EnvPool

    simulated = [spec.name for spec in task_set.specs if spec.suite in SUITES]
    if not simulated:
        return EnvPool(task_set, env_task_ids, num_workers=config.num_workers or None)
    if len(simulated) < task_set.num_tasks:
        raise ConfigError(f"simulated tasks ({', '.join(simulated)}) cannot share a task set with others: use two runs")
    from pwm_jax.envs.simulators.pool import SimulatorPool

    return SimulatorPool(task_set, env_task_ids)


def check_simulators(config: ConfigDict, task_set: TaskSet) -> None:
    """Build one environment of each suite of the task set, to learn before any work whether they can be.

    Raises EnvUnavailableError where a simulator is missing or does not work with the installed mujoco.
    """
    suites = [spec.suite for spec in task_set.specs]
    with make_pool(config, task_set, [suites.index(suite) for suite in dict.fromkeys(suites)]):
        pass


def refuse_foreign_dataset(path: Path, section: str) -> None:
    """Raise ConfigError where `path` holds a dataset that is no replay, which that of the stage `section` would replace."""
    if not (path / "dataset.json").exists():
        return
    recipe = read_index(path)["recipe"]
    if not (isinstance(recipe, dict) and "replay" in recipe):
        raise ConfigError(
            f"{path} holds a dataset that is not a replay, and the run would replace it: choose another --workdir or set "
            f"--config.{section}.save_replay=False"
        )


def save_replay(path: Path, task_set: TaskSet, made_by: str, episodes: Iterable[Episode]) -> None:
    """Write a run's episodes as the dataset `path`, in the place of an earlier replay; `made_by` says in its recipe which run it was."""
    shutil.rmtree(path, ignore_errors=True)
    with DatasetWriter(path, task_set, {"replay": made_by, "command": command_line(), "commit": commit()}) as writer:
        for episode in episodes:
            writer.add_episode(episode)
    describe_for_report(path.parent, Dataset.open(path, verify=False))


def describe_for_report(workdir: Path, dataset: Dataset) -> None:
    """Write what the page of a run says about its data, `<workdir>/dataset/data.json`."""
    columns = {name: getattr(dataset.episodes, name) for name in ("task_id", "length", "episode_return", "success", "source")}
    write_data_description(workdir, dataset.task_set.specs, **columns, recipe=dataset.recipe)
