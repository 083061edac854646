"""The grid of a study: every point is measured once, and what is on disk already is never measured again.

A study's `measure` runs the seeds of a point in one program, and with them the points that differ from it in vectorisable fields alone.
Such groups follow one another, or run side by side in processes of their own. Rows are written as they come, so that a stopped sweep goes
on with the next group; what a group keeps in its own directory decides how much of an unfinished one is done again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import math
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ml_collections import ConfigDict

from pwm_jax.memory import keep_freed_memory

if TYPE_CHECKING:
    from pwm_jax.report.measurements import Measurement, Setting, Value

    Row = tuple[Setting, Mapping[str, Value]]


T = TypeVar("T")


class WorkerKilledError(RuntimeError):
    """A process that measured side by side with others was killed."""


_KILLED = (
    "a process that worked side by side with others was killed, as where memory ran out. The same command resumes; one at a time takes "
    "less: --config.sweep.processes=1 (of comparisons --config.compare.processes=1)"
)
_MAX_NAME = 120  # file systems allow 255 bytes, some of which temporary names need


class Measure(Protocol):
    """A module's function, so that other processes find it by its name."""

    def __call__(self, config: ConfigDict, points: Sequence[Setting], seeds: tuple[int, ...], directory: Path) -> Iterable[Row]:
        """The rows of points that share a program, each measured with every seed.

        A row is (what was varied, the point and the `seed` among it; values). `directory` is the group's own, for files of its own.
        """


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What every study has. Of the seeds and points that share a program `per_batch` are vectorised at a time, see `ops.map_rows`.

    With `processes` above 1, so many groups of them are measured side by side, each on its share of the cores. Without `measure`, what the
    workdir holds is shown. `publish` is a directory of measured rows to add those of the sweep to.
    """

    study: str
    seeds: tuple[int, ...] = (0, 1, 2)
    per_batch: int = 1
    processes: int = 1
    measure: bool = True
    publish: str = ""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"sweep.seeds must be one or more different seeds, not {self.seeds}")
        if self.processes < 1 or self.per_batch < 0:
            raise ValueError(f"sweep.processes must be at least 1 and per_batch 0 or more, not {self.processes} and {self.per_batch}")


def grid(**axes: Sequence[str | int | float]) -> list[Setting]:
    """Every combination of the axes' values, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def run(
    sweep: SweepConfig,
    points: Sequence[Setting],
    measure: Measure,
    config: ConfigDict,
    workdir: Path,
    together: Callable[[Setting], Hashable] | None = None,
) -> list[Measurement]:
    """Measure what `<workdir>/<study>.jsonl` lacks of points x seeds, write and, where asked, publish it; returns all rows of the points.

    Points of which `together` says the same share a program; without it every point has its own.

    Raises RecordError when that file is damaged, and whatever `measure` raises: what was written before stays.
    """
    from pwm_jax.report import measurements
    from pwm_jax.report.progress import Progress
    from pwm_jax.report.results import provenance

    path, origin = workdir / f"{sweep.study}.jsonl", provenance()
    rows = measurements.read_measurements(path)
    if any(type(row.setting.get("seed")) is not int for row in rows):
        raise measurements.RecordError(f"{path}: a row's setting has no seed, which a sweep's rows have; correct or delete the row")
    if sweep.measure:
        groups: dict[Hashable, Group] = {}
        for index, point in enumerate(points):
            if seeds := _missing(rows, point, sweep.seeds):
                groups.setdefault((together(point) if together else index, seeds), Group([], seeds)).points.append(point)
        total, left = len(points) * len(sweep.seeds), sum(len(group.points) * len(group.seeds) for group in groups.values())
        with Progress(total, sweep.study, unit="model", initial=total - left) as progress:
            for group, found in _measured(sweep, list(groups.values()), measure, config, workdir, progress.note):
                new = [measurements.Measurement(sweep.study, setting, values, **origin) for setting, values in found]
                measurements.write_measurements(workdir, new)
                earned = [value for _, values in found if isinstance(value := values.get("return"), float)]
                progress.update(len(group.points) * len(group.seeds), episode_return=sum(earned) / len(earned) if earned else None)
        rows = measurements.read_measurements(path)
    kept = [row for row in rows if any(_is_of(row, point) for point in points)]
    if sweep.publish:
        measurements.write_measurements(sweep.publish, kept)
    return kept


class Group(NamedTuple):
    """Points that are measured by one call, each with all of the seeds."""

    points: list[Setting]
    seeds: tuple[int, ...]

    def directory(self, workdir: Path) -> Path:
        """Where its own files are, named by what is measured."""
        name = ",".join(f"{key}={value}" for point in self.points for key, value in point.items())
        name = _as_name(f"{name},seed={'+'.join(map(str, self.seeds))}")
        if len(name) > _MAX_NAME:
            name = f"{name[:_MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return workdir / "groups" / name


def directory_of(workdir: Path, kind: str, point: Setting) -> Path:
    """The directory of files of a `kind` that belong to a setting."""
    return workdir / kind / _as_name(",".join(f"{key}={value}" for key, value in point.items()))


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.,=+-]", "_", text)


def _missing(rows: Sequence[Measurement], point: Setting, seeds: tuple[int, ...]) -> tuple[int, ...]:
    done = {row.setting["seed"] for row in rows if _is_of(row, point)}
    return tuple(seed for seed in seeds if seed not in done)


def _is_of(row: Measurement, point: Setting) -> bool:
    return all(name in row.setting and row.setting[name] == value for name, value in point.items())


def _measured(
    sweep: SweepConfig, groups: Sequence[Group], measure: Measure, config: ConfigDict, workdir: Path, show: Callable[[str], None]
) -> Iterator[tuple[Group, Sequence[Row]]]:
    """Groups and their rows, in the order in which they end."""
    if sweep.processes == 1 or len(groups) < 2:
        for group in groups:
            yield group, _all_of(measure, config, group.points, group.seeds, group.directory(workdir))
        return
    jobs = {group.directory(workdir).name: (measure, config, group.points, group.seeds, group.directory(workdir)) for group in groups}
    named = {group.directory(workdir).name: group for group in groups}
    for name, rows in side_by_side(_all_of, jobs, sweep.processes, show):
        yield named[name], rows


def side_by_side(
    function: Callable[..., T], jobs: Mapping[str, tuple[Any, ...]], processes: int, show: Callable[[str], object] = lambda text: None
) -> Iterator[tuple[str, T]]:
    """`function` of each job's arguments, in so many processes with a share of the cores each; (name, result) as they end.

    `function` is a module's, so that other processes find it by its name. Once one raises no more are begun; what it raised follows the
    results of those that were running. `show` is told each second where they are: 'pretrain 34% | extract 80%'.
    """
    # Where a run is stopped at once, Python's tracker frees these queues' semaphores, and need not warn of it.
    if "resource_tracker" not in (warnings := os.environ.get("PYTHONWARNINGS", "")):
        os.environ["PYTHONWARNINGS"] = f"{warnings},ignore:resource_tracker".lstrip(",")
    context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads may hang
    workers = min(processes, len(jobs))
    numbers, told = context.Queue(), context.Queue()
    for number in range(workers):
        numbers.put(number)
    doing: dict[int, str] = {}
    with concurrent.futures.ProcessPoolExecutor(workers, context, _begin_worker, (numbers, workers, told)) as pool:
        waiting = {pool.submit(function, *arguments): name for name, arguments in jobs.items()}
        failed: BaseException | None = None
        pending = set(waiting)
        try:
            while pending:
                ended, pending = concurrent.futures.wait(pending, timeout=1.0, return_when=concurrent.futures.FIRST_COMPLETED)
                while not told.empty():
                    doing.update([told.get()])
                show(" | ".join(text for text in doing.values() if text))
                for job in ended:
                    if error := job.exception():
                        failed = failed or (WorkerKilledError(_KILLED) if isinstance(error, BrokenProcessPool) else error)
                    else:
                        yield waiting[job], job.result()
                if failed:
                    pending = {job for job in pending if not job.cancel()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise failed


def _all_of(measure: Measure, *arguments: Any) -> list[Row]:
    """The rows of a group."""
    with programs_dropped():
        return list(measure(*arguments))


@contextlib.contextmanager
def programs_dropped() -> Iterator[None]:
    """Drop what was compiled within, which nothing after it uses: some dozens of large programs are all that a process may map."""
    try:
        yield
    finally:
        if jax := sys.modules.get("jax"):
            jax.clear_caches()


def _begin_worker(numbers: multiprocessing.Queue[int], workers: int, told: multiprocessing.Queue[tuple[int, str]]) -> None:
    """Bind this worker to its share of the cores, before JAX counts them; memory is kept as in the launcher, which alone shows a bar.

    It ends when the launcher does, however that ends: what it would go on to write belongs to the run that resumes.
    """
    from pwm_jax.report.progress import tell_instead

    threading.Thread(target=_end_with_launcher, daemon=True).start()
    keep_freed_memory()
    told.cancel_join_thread()  # it may end with something untold
    tell_instead(lambda text: told.put((os.getpid(), text)))
    if not hasattr(os, "sched_setaffinity"):
        return
    cores, number = sorted(os.sched_getaffinity(0)), numbers.get()
    share = math.ceil(len(cores) / workers)
    os.sched_setaffinity(0, cores[number * share : (number + 1) * share] or cores)
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"


def _end_with_launcher() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
