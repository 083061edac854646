"""The grid of a study: every point is measured once, and what is on disk already is never measured again.

A study's `measure` runs the seeds of a point (and whatever else it can vectorise) in one program; points follow one another, or run side
by side in processes of their own. Rows are written as they come, so that a stopped sweep goes on with the next seed or point; what a point
keeps in its own directory decides how much of an unfinished one is done again.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import math
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ml_collections import ConfigDict

if TYPE_CHECKING:
    from pwm_jax.report.measurements import Measurement, Setting, Value

    Row = tuple[Setting, Mapping[str, Value]]


class Measure(Protocol):
    """A module's function, so that other processes find it by its name."""

    def __call__(self, config: ConfigDict, point: Setting, seeds: tuple[int, ...], directory: Path) -> Iterable[Sequence[Row]]:
        """What was measured at one point, in parts of all rows of one or more seeds.

        A row is (what else was varied, the `seed` among it; values). `directory` is the point's own, for files of its own.
        """


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What every study has. With `processes` above 1, so many points are measured side by side, each on its share of the cores.

    Without `measure`, what the workdir holds is shown. `publish` is a directory of measured rows to add those of the sweep to.
    """

    study: str
    seeds: tuple[int, ...] = (0, 1, 2)
    processes: int = 1
    measure: bool = True
    publish: str = ""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"sweep.seeds must be one or more different seeds, not {self.seeds}")
        if self.processes < 1:
            raise ValueError(f"sweep.processes must be at least 1, not {self.processes}")


def grid(**axes: Sequence[str | int | float]) -> list[Setting]:
    """Every combination of the axes' values, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def run(sweep: SweepConfig, points: Sequence[Setting], measure: Measure, config: ConfigDict, workdir: Path) -> list[Measurement]:
    """Measure what `<workdir>/<study>.jsonl` lacks of points x seeds, write and, where asked, publish it; returns all rows of the points.

    Raises RecordError when that file is damaged, and whatever `measure` raises: what was written before stays.
    """
    from pwm_jax.report import measurements
    from pwm_jax.report.metrics import Progress
    from pwm_jax.report.results import provenance

    path, origin = workdir / f"{sweep.study}.jsonl", provenance()
    rows = measurements.read_measurements(path)
    if sweep.measure:
        missing = [(point, seeds) for point in points if (seeds := _missing(rows, point, sweep.seeds))]
        total, left = len(points) * len(sweep.seeds), sum(len(seeds) for _, seeds in missing)
        with Progress(total, sweep.study, unit="model", initial=total - left) as progress:
            for point, found in _measured(sweep, missing, measure, config, workdir):
                new = [measurements.Measurement(sweep.study, {**point, **setting}, values, **origin) for setting, values in found]
                measurements.write_measurements(workdir, new)
                progress.update(len({row.setting["seed"] for row in new}))
        rows = measurements.read_measurements(path)
    kept = [row for row in rows if any(_is_of(row, point) for point in points)]
    if sweep.publish:
        measurements.write_measurements(sweep.publish, kept)
    return kept


def directory_of(workdir: Path, point: Setting, kind: str = "points") -> Path:
    """The directory of a point's own files, named by its setting; or of files of another `kind` that belong to a setting."""
    name = ",".join(f"{key}={value}" for key, value in point.items())
    return workdir / kind / re.sub(r"[^\w.,=+-]", "_", name)


def _missing(rows: Sequence[Measurement], point: Setting, seeds: tuple[int, ...]) -> tuple[int, ...]:
    done = {row.setting["seed"] for row in rows if _is_of(row, point)}
    return tuple(seed for seed in seeds if seed not in done)


def _is_of(row: Measurement, point: Setting) -> bool:
    return all(name in row.setting and row.setting[name] == value for name, value in point.items())


def _measured(
    sweep: SweepConfig, missing: Sequence[tuple[Setting, tuple[int, ...]]], measure: Measure, config: ConfigDict, workdir: Path
) -> Iterator[tuple[Setting, Sequence[Row]]]:
    """Points and parts of their rows, in the order in which they end."""
    if sweep.processes == 1 or len(missing) < 2:
        for point, seeds in missing:
            yield from ((point, part) for part in measure(config, point, seeds, directory_of(workdir, point)))
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads may hang
    workers = min(sweep.processes, len(missing))
    numbers = context.Queue()
    for number in range(workers):
        numbers.put(number)
    with concurrent.futures.ProcessPoolExecutor(workers, context, _take_cores, (numbers, workers)) as pool:
        waiting = {pool.submit(_all_of, measure, config, point, seeds, directory_of(workdir, point)): point for point, seeds in missing}
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield from ((waiting[done], part) for part in done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _all_of(measure: Measure, *arguments: Any) -> list[Sequence[Row]]:
    return list(measure(*arguments))


def _take_cores(numbers: multiprocessing.Queue[int], workers: int) -> None:
    """Bind this worker to its share of the cores, before JAX counts them."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores, number = sorted(os.sched_getaffinity(0)), numbers.get()
    share = math.ceil(len(cores) / workers)
    os.sched_setaffinity(0, cores[number * share : (number + 1) * share] or cores)
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"
