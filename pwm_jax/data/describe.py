"""What a dataset holds, by task and source: `python -m pwm_jax.data.describe DIR`.

Of TD-MPC2's files every number is read, block by block: what is not finite or not padded with zeros is counted by file and task.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pwm_jax.data import tdmpc2
from pwm_jax.data.format import DatasetError
from pwm_jax.data.store import Dataset
from pwm_jax.data.tdmpc2 import Faults, TorchShard
from pwm_jax.report.progress import Progress

ALL_SOURCES = "all"


@dataclasses.dataclass(frozen=True)
class DataRow:
    """Statistics of the episodes of one task from one source (or from all: "all")."""

    task: str
    source: str
    episodes: int
    steps: int
    return_mean: float
    return_min: float
    return_max: float
    success_rate: float


@dataclasses.dataclass(frozen=True)
class FileRow:
    """One of TD-MPC2's files: its rows, the frames in each, bytes, and how many of its rows hold a fault of any kind."""

    file: str
    rows: int
    frames: int
    size: int
    faulty_rows: int


@dataclasses.dataclass(frozen=True)
class FaultRow:
    """Numbers of one task in TD-MPC2's files that are not finite, by array, and numbers in the padding that are not 0."""

    task: str
    obs: int
    action: int
    reward: int
    padding: int


def describe(dataset: Dataset) -> list[DataRow]:
    """One row for each task and source, preceded by the task's row over all sources when it has several.

    Success is NaN where it is not known of all.
    """
    rows = []
    for task_id in np.unique(dataset.episodes.task_id):
        of_task = dataset.episodes.take(dataset.episodes.task_id == task_id)
        sources = sorted(set(of_task.source.tolist()))
        for source in [ALL_SOURCES, *sources] if len(sources) > 1 else sources:
            chosen = of_task if source == ALL_SOURCES else of_task.take(of_task.source == source)
            returns = chosen.episode_return
            rows.append(
                DataRow(
                    task=dataset.task_set.names[task_id],
                    source=source,
                    episodes=len(chosen),
                    steps=int(chosen.length.sum(dtype=np.int64)),
                    return_mean=float(returns.mean()),
                    return_min=float(returns.min()),
                    return_max=float(returns.max()),
                    success_rate=float(chosen.success.mean()),
                )
            )
    return rows


def describe_files(dataset: Dataset, show: Callable[[int], None] = lambda rows: None) -> tuple[list[FileRow], list[FaultRow]]:
    """Read all of TD-MPC2's files: one row for each file, and one for each task that has rows.

    `dataset` is whole, not a view, and `show` is told how many more rows have been read.
    """
    files = []
    counts = np.zeros((dataset.task_set.num_tasks, len(dataclasses.fields(Faults))), np.int64)
    for shard in dataset.shards:
        assert isinstance(shard, TorchShard)
        faulty = 0
        for rows, faults in shard.scan(dataset.task_set):
            table = np.stack([faults.obs, faults.action, faults.reward, faults.padding], axis=1)
            np.add.at(counts, shard.task_id[rows], table)
            faulty += int(table.any(axis=1).sum())
            show(len(table))
        files.append(FileRow(shard.path.name, len(shard.reward), shard.reward.shape[1], shard.path.stat().st_size, faulty))
    present = np.unique(dataset.episodes.task_id)
    return files, [FaultRow(dataset.task_set.names[task], *counts[task].tolist()) for task in present]


def _parts_of_episodes(dataset: Dataset) -> list[str]:
    """Tasks whose rows are shorter than an episode, which in TD-MPC2's files none of them ends early."""
    longest = dataset.episodes.length.max()
    specs = [dataset.task_set.specs[task] for task in np.unique(dataset.episodes.task_id)]
    return [spec.name for spec in specs if longest < spec.episode_length]


def _what_is_missing(dataset: Dataset) -> str:
    """How many of the published rows are here, and the tasks without any; '' where nothing is missing."""
    names = dataset.task_set.names
    published = tdmpc2.PUBLISHED_ROWS[tdmpc2.name_of(dataset.task_set)]
    absent = [name for task, name in enumerate(names) if task not in dataset.episodes.task_id]
    parts = [f"{len(dataset):,} of the {published:,} published rows are here: files are missing"] if len(dataset) < published else []
    return "; ".join([*parts, f"no rows of {len(absent)} of {len(names)} tasks: {', '.join(absent)}"] if absent else parts)


def format_table(rows: Sequence[DataRow]) -> str:
    """The rows as aligned text; success is blank where it is not known."""
    header = ["task", "source", "episodes", "steps", "return mean", "min", "max", "success"]
    cells = [
        [r.task, r.source, str(r.episodes), str(r.steps)]
        + [f"{value:.1f}" for value in (r.return_mean, r.return_min, r.return_max)]
        + ["" if np.isnan(r.success_rate) else f"{r.success_rate:.2f}"]
        for r in rows
    ]
    return _aligned([header, *cells], left=2)


def format_files(files: Sequence[FileRow], faults: Sequence[FaultRow]) -> str:
    """The files as aligned text, and a second table of the tasks with faults, if any."""
    cells = [[f.file, str(f.rows), str(f.frames), f"{f.size / 2**20:.1f}", str(f.faulty_rows)] for f in files]
    text = _aligned([["file", "rows", "frames", "MiB", "faulty rows"], *cells], left=1)
    wrong = [list(map(str, dataclasses.astuple(row))) for row in faults if any(dataclasses.astuple(row)[1:])]
    if not wrong:
        return text + "\nall numbers are finite, all padding is 0"
    return text + "\n\n" + _aligned([["task", "not finite: obs", "action", "reward", "padding not 0"], *wrong], left=1)


def _aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """Columns of equal width, the first `left` aligned to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a dataset's tables; exit status 1 with one line on standard error when it cannot be read, or has faulty rows."""
    parser = argparse.ArgumentParser(prog="python -m pwm_jax.data.describe", description="Print what a dataset holds, by task and source.")
    parser.add_argument("directory", help="the dataset's directory: one of pwm_jax, or one of TD-MPC2's chunk_*.pt files")
    path = Path(parser.parse_args(arguments).directory)
    try:
        dataset = Dataset.open(path, verify=False if tdmpc2.is_dataset(path) else None, allow_incomplete=True, random_access=False)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    faulty = 0
    if tdmpc2.is_dataset(path):
        with Progress(len(dataset), "describe", unit="row") as progress:
            files, faults = describe_files(dataset, progress.update)
            print(format_files(files, faults), end="\n\n")
            faulty = sum(any(dataclasses.astuple(row)[1:]) for row in faults)
    print(format_table(describe(dataset)))
    print(f"{len(dataset)} episodes, {dataset.num_steps} steps, {dataset.nbytes / 2**20:.1f} MiB; recipe: {dataset.recipe}")
    if tdmpc2.is_dataset(path) and (parts := _parts_of_episodes(dataset)):
        print(f"rows of {len(parts)} tasks are parts of episodes, and their returns those of the parts: {', '.join(parts)}")
    if tdmpc2.is_dataset(path) and (missing := _what_is_missing(dataset)):
        print(missing)
    if faulty:
        print(f"{path} has faulty rows of {faulty} tasks, which pre-training refuses: download the files again", file=sys.stderr)
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
