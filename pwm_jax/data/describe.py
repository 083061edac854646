"""What a dataset holds, by task and source: `python -m pwm_jax.data.describe DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from pwm_jax.data.format import DatasetError
from pwm_jax.data.store import Dataset

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


def describe(dataset: Dataset) -> list[DataRow]:
    """One row for each task and source, preceded by the task's row over all sources when it has several."""
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


def format_table(rows: Sequence[DataRow]) -> str:
    """The rows as aligned text."""
    header = ["task", "source", "episodes", "steps", "return mean", "min", "max", "success"]
    cells = [
        [r.task, r.source, str(r.episodes), str(r.steps)]
        + [f"{value:.1f}" for value in (r.return_mean, r.return_min, r.return_max)]
        + [f"{r.success_rate:.2f}"]
        for r in rows
    ]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *cells]
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a dataset's table; exit status 1 with one line on standard error when it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m pwm_jax.data.describe", description="Print what a dataset holds, by task and source.")
    parser.add_argument("directory", help="the dataset's directory")
    directory = parser.parse_args(arguments).directory
    try:
        dataset = Dataset.open(directory, allow_incomplete=True)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    print(format_table(describe(dataset)))
    print(f"{len(dataset)} episodes, {dataset.num_steps} steps, {dataset.nbytes / 2**20:.1f} MiB; recipe: {dataset.recipe}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
