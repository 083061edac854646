"""Damaged files of records: metrics, episodes, curves, results, measurements, and the other files of a working directory.

They are text without checksums, which people append to and correct by hand: a row that is still of the right form is data. A damaged one
is refused, or, the last one of a file that a killed writer may have left, dropped; the other rows are what they were.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guard import Reader
from ml_collections import ConfigDict
from mutation import STRANGE, counts, files_of, mutate_bytes, mutate_json, to_text
from test_report_workdir import describe

from experiments import sweep
from pwm_jax.report import curves, episodes, measurements, metrics, results
from pwm_jax.report.decisions import DecisionTime, write_decision_time
from pwm_jax.report.page import write_page
from pwm_jax.report.records import RecordError, to_line, write_json
from pwm_jax.report.workdir import load_workdir, record_stage
from pwm_jax.workdir import WorkdirError, WorkdirLock

ORIGIN = dict(command="python -m x", commit="abc", hardware="a machine, 2 cores")
ROWS: dict[str, tuple[Callable[[Path], list[Any]], list[dict[str, Any]]]] = {
    "metrics": (
        metrics.read_metrics,
        [{"step": step, "time": 1.5 + step, "loss/loss": 1 / step, "eval/return/walker-walk/seed0": 3} for step in range(1, 6)],
    ),
    "episodes": (
        episodes.read_episodes,
        [episodes.Episode("mw-reach", "bc", 1, number, 12.5, None if number % 2 else 1.0, 0.5, 100).to_record() for number in range(5)],
    ),
    "curves": (
        curves.read_curves,
        [curves.CurveRow("hopper", "pwm", seed, 100, 2.5, 0.5, 33.0, 500.0, 8).to_record() for seed in range(5)],
    ),
    "study": (
        results.read_results,
        [
            results.ResultRow(
                "study", "mw-reach", "bc", seed, 2.0, 0.5, 10, 1.5, **ORIGIN, success=0.5, episodes=2,
                extra={"returns": [1.0, 3.0], "scores": [0.25, 0.75], "decision": {"seconds_per_call": 0.1}},
            ).to_record()
            for seed in range(5)
        ],
    ),
    "measured": (
        measurements.read_measurements,
        [
            dataclasses.asdict(measurements.Measurement("measured", {"task": "a", "seed": k}, {"e": 0.5, "curve": [1.0, 2.0]}, **ORIGIN))
            for k in range(5)
        ],
    ),
}  # fmt: skip


def plain(value: Any) -> bool:
    """Whether all numbers in a row are finite floats, or integers that a float can hold, and all text can be written."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode() == value
    if isinstance(value, dict):
        return all(map(plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or math.isfinite(float(value))


def record(row: Any) -> dict[str, Any]:
    return row if isinstance(row, dict) else dataclasses.asdict(row)


@counts(50, 500)
@pytest.mark.parametrize("kind", ROWS)
def test_a_damaged_row(kind, tmp_path, count):
    read, rows = ROWS[kind]
    rng, reader, path = np.random.default_rng(count), Reader(RecordError, tmp_path), tmp_path / f"{kind}.jsonl"
    lines = [to_line(row) for row in rows]
    path.write_text("".join(lines))
    wanted = [record(row) for row in read(path)]
    for number in range(count):
        at = int(rng.integers(len(rows)))
        changed = list(lines)
        if rng.uniform() < 0.7:
            what, changed[at] = mutate_json(rng, rows[at])
            changed[at] += "\n"
            path.write_text("".join(changed))
        else:
            what, content = mutate_bytes(rng, lines[at].encode(), lines[at - 1].encode())
            path.write_bytes(b"".join(line.encode() if index != at else content for index, line in enumerate(lines)))

        def fits(found: list[Any], at: int = at) -> bool:
            found = [record(row) for row in found]
            others = all(row in found for index, row in enumerate(wanted) if index not in (at, at + 1))
            types = all(
                type(row[name]) is type(value)
                or ((name in row and {type(row[name]), type(value)} <= {int, float, type(None)}) or row[name] is None)
                for row in found
                for name, value in wanted[0].items()
                if name in row
            )
            return others and types and all(map(plain, found))

        reader.meet(lambda: read(path), f"{number}: {what}", fits)
    reader.done(kind)


@counts(40, len(STRANGE) * 14)
@pytest.mark.parametrize("kind", ROWS)
def test_strange_values_in_a_row(kind, tmp_path, count):
    """Fields with strange values, or every one with each: what is accepted is of the field's type."""
    read, rows = ROWS[kind]
    reader, path = Reader(RecordError, tmp_path), tmp_path / f"{kind}.jsonl"
    pairs = [(name, strange) for name in rows[0] for strange in STRANGE]
    for at in np.random.default_rng(0).permutation(len(pairs))[:count]:
        (name, strange), value = pairs[at], rows[0][pairs[at][0]]
        path.write_text(to_text({**rows[0], name: strange}) + "\n")
        number = isinstance(value, int | float) and isinstance(strange, int | float) and not isinstance(strange, bool)
        ok = number or strange is None or (isinstance(value, str) and isinstance(strange, str)) or isinstance(strange, dict)
        reader.meet(lambda: read(path), f"{name} {strange!r:.40}", lambda found, ok=ok: ok and plain(record(found[0])))
    reader.done(f"strange {kind}")


def make_workdir(path: Path) -> Path:
    describe(path)
    for stage, seconds in (("pretrain", 2.0), ("extract", 3.5)):
        record_stage(path, stage, seconds=seconds, config={"steps": 10, "model": {"hidden": [8, 8]}, "lr": 0.1})
        with metrics.MetricsWriter(path, stage, tensorboard=False) as writer:
            for step in (1, 2, 3):
                writer.write(step, {"loss/loss": 1 / step, "heldout/loss": 0.5, "eval/return/walker-walk/seed0": 10.0 * step})
    write_json(path / "metrics" / "open_loop.json", {"walker-walk": [0.1, 0.2]})
    for method in ("extracted", "bc"):
        rows = [episodes.Episode("walker-walk", method, seed, k, 10.0 * k, None, 0.01 * k, 500) for seed in (0, 1) for k in range(3)]
        episodes.write_episodes(path, method, rows)
        write_decision_time(path, method, DecisionTime(0.01, 4, "cpu"))
    return path


@pytest.mark.parametrize(
    ("count", "page"), [(60, False), *(pytest.param(*many, marks=pytest.mark.slow) for many in ((900, False), (60, True)))]
)
def test_a_damaged_working_directory_is_shown(tmp_path, count, page):
    """What cannot be read is told on the page, which is written all the same; drawing it takes seconds."""
    path = make_workdir(tmp_path / "run")
    rng, reader = np.random.default_rng(count), Reader(RecordError, tmp_path)
    files = [file for file in files_of(path) if file.suffix in (".json", ".jsonl")]
    others = [file.read_bytes() for file in files]
    problems = 0
    for number in range(count):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        if rng.uniform() < 0.75:
            lines = whole.decode().splitlines(keepends=True) if file.suffix == ".jsonl" else [whole.decode()]
            at = int(rng.integers(len(lines)))
            what, lines[at] = mutate_json(rng, json.loads(lines[at]))
            file.write_text("".join(line if line.endswith("\n") else line + "\n" for line in lines))
        else:
            what, changed = mutate_bytes(rng, whole, others[rng.integers(len(others))])
            file.write_bytes(changed)

        def read() -> Any:
            data = load_workdir(path)
            assert isinstance(data.tasks, list)
            if page:
                write_page(path / "report.html", data)
            return data

        def fits(data: Any) -> bool:
            return len(data.problems) < 2 and all(problem.isprintable() for problem in data.problems)

        if page and number == 0:
            read()  # imports Matplotlib
        found = reader.meet(read, f"{number}: {what} of {file.name}", fits)
        problems += bool(found and found.problems)
        file.write_bytes(whole)
    print(f"working directories: {count} mutants, {problems} with a problem told")
    assert not reader.faults, f"{len(reader.faults)} faults\n" + "\n".join(reader.faults[:30])
    assert page or count / 4 < problems < count


def never(config: ConfigDict, points: Any, seeds: tuple[int, ...], directory: Path) -> list[Any]:
    """Measures what a resumed sweep asks for again."""
    return [({**point, "seed": seed}, {"error": -1.0}) for point in points for seed in seeds]


@counts(40, 500)
def test_a_sweep_that_goes_on_from_a_damaged_file(tmp_path, monkeypatch, count):
    monkeypatch.setattr(results, "provenance", lambda: ORIGIN)
    points = sweep.grid(horizon=(1, 4), regulariser=("relu", "simnorm"))
    rows = [measurements.Measurement("grid", {**p, "seed": s}, {"error": p["horizon"] + s}, **ORIGIN) for p in points for s in (0, 1)]
    path, settings = tmp_path / "grid.jsonl", sweep.SweepConfig("grid", seeds=(0, 1))
    rng, reader = np.random.default_rng(count), Reader(RecordError, tmp_path)
    for number in range(count):
        records = [dataclasses.asdict(row) for row in rows]
        at = int(rng.integers(len(rows)))
        what, text = mutate_json(rng, records[at])
        path.write_text("".join(text + "\n" if index == at else to_line(row) for index, row in enumerate(records)))
        found = reader.meet(lambda: sweep.run(settings, points, never, ConfigDict(), tmp_path), f"{number}: {what}")
        if found is not None:
            settled = {row.key: row.values for row in found}
            kept = [row for index, row in enumerate(rows) if index != at]
            assert all(settled[row.key] == row.values for row in kept), what
            assert any(rows[at].setting.items() <= row.setting.items() for row in found), what
    reader.done("sweeps")


@counts(30, 200)
def test_the_note_of_who_holds_a_directory(tmp_path, count):
    """Whatever it says, the directory is refused while it is held."""
    rng, reader = np.random.default_rng(count), Reader(WorkdirError, tmp_path)
    with WorkdirLock(tmp_path):
        note = (tmp_path / ".lock").read_bytes()
        for number in range(count):
            what, changed = mutate_bytes(rng, note, b'{"pid": "a\\nb", "host": 5}')
            (tmp_path / ".lock").write_bytes(changed)
            reader.meet(lambda: WorkdirLock(tmp_path).__enter__(), f"{number}: {what}")
        (tmp_path / ".lock").write_text(to_text({"pid": "\x1b[2J\n", "host": STRANGE[-1]}))
        reader.meet(lambda: WorkdirLock(tmp_path).__enter__(), "hostile")
    assert reader.refused == count + 1, reader.faults[:10]
    shutil.rmtree(tmp_path)
