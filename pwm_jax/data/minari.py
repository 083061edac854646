"""Datasets of Minari, to and from those of this project; needs `pip install 'pwm_jax[minari]'`.

    python -m pwm_jax.data.minari import mujoco/pusher/expert-v0 own-pusher runs/pusher/dataset
    python -m pwm_jax.data.minari export runs/pusher/dataset own-pusher mine/pusher-v0

Minari keeps its datasets in ~/.minari, or where MINARI_DATASETS_PATH says; `minari download ID` fetches a published one.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pwm_jax.data.format import DatasetError, Episode
from pwm_jax.data.store import Dataset
from pwm_jax.data.writer import DatasetWriter
from pwm_jax.envs.own import OwnTaskError
from pwm_jax.envs.tasks import TaskSet, UnknownTaskError
from pwm_jax.untrusted import shown


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise DatasetError(f"Minari's datasets need its package ({error}): pip install 'pwm_jax[minari]'") from error
    return minari


def read(name: str, task: str, path: str) -> int:
    """Write the episodes of Minari's dataset `name` as the dataset `path` of one task; returns their number.

    Observations are flattened, actions scaled from the bounds of the dataset's action space to [-1, 1]. A recorded step is an agent step:
    of a dataset recorded in the environment itself, the task's `action_repeat` is 1.

    Raises:
        DatasetError: there is no such dataset, it is damaged, or its episodes are not the task's.
    """
    from gymnasium.spaces import Box

    task_set = TaskSet.from_names(task)
    minari, count = _minari(), 0
    with _readable(name):
        source = minari.load_dataset(name)
        space = source.action_space
    if not (isinstance(space, Box) and np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise DatasetError(f"actions of {name} are {shown(str(space))}, not a Box of bounded ones")
    with DatasetWriter(path, task_set, {"minari": name}) as writer:
        for episode in _episodes(source, space, name):
            writer.add_episode(episode)
            count += 1
    return count


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what Minari and HDF5 raise of damaged files, which may be anything, into a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"Minari has no dataset {name!r} here ({shown(str(error))}): minari download {name}") from error
    except Exception as error:
        raise DatasetError(
            f"Minari cannot read {name!r} ({type(error).__name__}: {shown(str(error))}): it is damaged, or of another version of Minari; "
            "get it again"
        ) from error


def _episodes(source: Any, space: Any, name: str) -> Iterator[Episode]:
    from gymnasium.spaces import flatten

    low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))
    with _readable(name):
        for number, recorded in enumerate(source.iterate_episodes()):
            steps = len(recorded.rewards)
            obs = np.stack([np.asarray(flatten(source.observation_space, _at(recorded.observations, t))) for t in range(steps + 1)])
            action = 2.0 * (np.asarray(recorded.actions, np.float64).reshape(steps, -1) - low) / (high - low) - 1.0
            success = (recorded.infos or {}).get("success", np.zeros(1))
            yield Episode(0, obs, action, recorded.rewards, recorded.terminations, float(np.ravel(success)[-1]), f"minari:{name}", number)


def _at(value: Any, step: int) -> Any:
    """The value of one step of what may be a tree of arrays over steps."""
    if isinstance(value, dict):
        return {key: _at(part, step) for key, part in value.items()}
    return tuple(_at(part, step) for part in value) if isinstance(value, tuple) else value[step]


def write(path: str, task: str, name: str) -> int:
    """Write a task's episodes of the dataset `path` as Minari's dataset `name`; returns their number.

    Observations and actions are the task's own, without padding; a window of a truncated episode ends with `truncations` set.

    Raises:
        DatasetError: there is no such dataset, none of the task in it, or Minari has one of this name.
    """
    from gymnasium.spaces import Box

    minari = _minari()
    dataset = Dataset.open(path)
    spec = dataset.task_set.specs[dataset.task_set.index(task)]
    buffers = []
    for number, episode in enumerate(dataset.select(tasks=[task]).iter_episodes()):
        truncations = np.zeros(episode.length, bool)
        truncations[-1] = not episode.terminated[-1]
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                id=number,
                seed=episode.seed,
                observations=np.asarray(episode.obs[:, : spec.obs_dim]),
                actions=np.asarray(episode.action[:, : spec.action_dim]),
                rewards=episode.reward.tolist(),
                terminations=episode.terminated.tolist(),
                truncations=truncations.tolist(),
            )
        )
    try:
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=Box(-np.inf, np.inf, (spec.obs_dim,), np.float32),
            action_space=Box(-1.0, 1.0, (spec.action_dim,), np.float32),
            description=f"Episodes of {task}, written by pwm_jax.",
            data_format="hdf5",
        )
    except ValueError as error:
        raise DatasetError(f"Minari does not take {name!r}: {error}") from error
    return len(buffers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Import or export; exit status 1 with one line on standard error where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m pwm_jax.data.minari", description="Datasets of Minari, to and from this project's.")
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="Minari's dataset as one of this project")
    exporting = commands.add_parser("export", help="a task's episodes as a dataset of Minari")
    for command, names in ((importing, ("name", "task", "path")), (exporting, ("path", "task", "name"))):
        for name in names:
            command.add_argument(name)
    flags = parser.parse_args(arguments)
    try:
        count = read(flags.name, flags.task, flags.path) if flags.command == "import" else write(flags.path, flags.task, flags.name)
    except (DatasetError, UnknownTaskError, OwnTaskError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} episodes of {flags.task}: {flags.path if flags.command == 'import' else flags.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
