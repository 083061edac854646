"""The sweep: what is measured, what a second start measures again, processes side by side, and a point that fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import killing
import pytest
from ml_collections import ConfigDict

from experiments import sweep
from pwm_jax.report import measurements, progress

POINTS = sweep.grid(regulariser=("relu", "simnorm"), horizon=(1, 4))
CALLS: list[tuple[Any, ...]] = []


def measure(config: ConfigDict, points: Any, seeds: tuple[int, ...], directory: Path) -> list[Any]:
    """The horizon times `config.factor`, and the process that says so."""
    CALLS.append((*((point["regulariser"], point["horizon"]) for point in points), seeds))
    if any(point["horizon"] == config.get("fails_at") for point in points):
        raise FloatingPointError("not finite")
    directory.mkdir(parents=True, exist_ok=True)
    values = lambda point: {"error": float(point["horizon"] * config.factor), "process": os.getpid()}  # noqa: E731
    return [({**point, "seed": seed}, values(point)) for point in points for seed in seeds]


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def test_a_grid_has_every_combination() -> None:
    assert POINTS[:2] == [{"regulariser": "relu", "horizon": 1}, {"regulariser": "relu", "horizon": 4}]
    assert len(POINTS) == 4


def test_only_what_is_missing_is_measured(tmp_path: Path) -> None:
    config = ConfigDict(dict(factor=2))
    rows = sweep.run(sweep.SweepConfig("study", seeds=(0, 1)), POINTS, measure, config, tmp_path)
    assert CALLS == [(("relu", 1), (0, 1)), (("relu", 4), (0, 1)), (("simnorm", 1), (0, 1)), (("simnorm", 4), (0, 1))]
    assert {(row.setting["horizon"], row.values["error"]) for row in rows} == {(1, 2.0), (4, 8.0)}
    assert (tmp_path / "groups" / "regulariser=relu,horizon=4,seed=0+1").is_dir()
    CALLS.clear()
    more = sweep.run(
        sweep.SweepConfig("study", seeds=(1, 2)), [*POINTS[:1], {"regulariser": "relu", "horizon": 8}], measure, config, tmp_path
    )
    assert CALLS == [(("relu", 1), (2,)), (("relu", 8), (1, 2))]
    assert [row.setting["seed"] for row in more] == [0, 1, 2, 1, 2]
    assert len(measurements.read_measurements(tmp_path / "study.jsonl")) == 8 + 3


def test_points_that_share_a_program_are_measured_by_one_call_with_the_seeds_that_they_lack(tmp_path: Path) -> None:
    config, by_horizon = ConfigDict(dict(factor=2)), lambda point: point["horizon"]
    sweep.run(sweep.SweepConfig("study", seeds=(0,)), POINTS[:1], measure, config, tmp_path)
    CALLS.clear()
    rows = sweep.run(sweep.SweepConfig("study", seeds=(0, 1)), POINTS, measure, config, tmp_path, by_horizon)
    assert CALLS == [(("relu", 1), (1,)), (("relu", 4), ("simnorm", 4), (0, 1)), (("simnorm", 1), (0, 1))]
    assert len(rows) == 8
    both = sweep.SweepConfig("study", seeds=(0, 1), processes=2)
    again = sweep.run(both, POINTS, measure, config, tmp_path / "other", by_horizon)
    assert sorted(row.key for row in again) == sorted(row.key for row in rows)


def test_a_point_that_fails_loses_nothing_before_it(tmp_path: Path) -> None:
    config = ConfigDict(dict(factor=2, fails_at=4))
    with pytest.raises(FloatingPointError):
        sweep.run(sweep.SweepConfig("study", seeds=(0,)), POINTS, measure, config, tmp_path)
    assert [row.setting["horizon"] for row in measurements.read_measurements(tmp_path / "study.jsonl")] == [1]
    config.fails_at = -1
    sweep.run(sweep.SweepConfig("study", seeds=(0,)), POINTS, measure, config, tmp_path)
    assert CALLS[2:] == [(("relu", 4), (0,)), (("simnorm", 1), (0,)), (("simnorm", 4), (0,))]


@jax.jit
def doubled(x: jax.Array) -> jax.Array:
    return 2 * x


def measure_by_a_program(config: ConfigDict, points: Any, seeds: tuple[int, ...], directory: Path) -> list[Any]:
    assert doubled._cache_size() == 0
    return [({**point, "seed": seed}, {"error": float(doubled(point["horizon"]))}) for point in points for seed in seeds]


def test_programs_of_a_group_are_dropped_when_it_ends(tmp_path: Path) -> None:
    doubled(3)
    jax.clear_caches()
    rows = sweep.run(sweep.SweepConfig("study", seeds=(0,)), POINTS, measure_by_a_program, ConfigDict(), tmp_path)
    assert [row.values["error"] for row in rows] == [2.0, 8.0, 2.0, 8.0]
    assert doubled._cache_size() == 0


def first_fails(seconds: float) -> float:
    """Fails at once without seconds to sleep, in a process of its own."""
    if not seconds:
        raise FloatingPointError("not finite")
    time.sleep(seconds)
    return seconds


def test_a_job_that_fails_begins_no_more_and_loses_nothing_of_those_that_run() -> None:
    jobs, ended = {"runs": (2.0,), "fails": (0.0,), **{f"later {i}": (0.5 + i,) for i in range(20)}}, []
    with pytest.raises(FloatingPointError, match="not finite"):
        for name, seconds in sweep.side_by_side(first_fails, jobs, processes=2):
            assert jobs[name] == (seconds,)
            ended.append(name)
    assert "runs" in ended
    assert len(ended) < 8  # the few that a pool hands out ahead


def stage(steps: int) -> int:
    """A stage with a bar, in a process of its own."""
    with progress.Progress(steps, "toy") as bar:
        for _ in range(steps):
            bar.update()
            time.sleep(1.0)
    return steps


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_what_processes_do_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY)
    environment = {**os.environ, "PYTHONPATH": f"{killing.PROJECT}:{killing.PROJECT / 'tests'}"}
    ours, theirs = os.openpty()
    done = subprocess.run([sys.executable, "study.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert re.search(r"^toy (25|33|50|67|75)%", done.stdout, re.MULTILINE)  # which, depends on when they are asked


def test_processes_give_the_same_rows_and_stopping_short_shows_what_there_is(tmp_path: Path) -> None:
    config, published = ConfigDict(dict(factor=3)), tmp_path / "published"
    settings = sweep.SweepConfig("study", seeds=(0, 1), processes=2, publish=str(published))
    rows = sweep.run(settings, POINTS, measure, config, tmp_path)
    found = [(*(row.setting[name] for name in ("regulariser", "horizon", "seed")), row.values["error"]) for row in rows]
    assert sorted(found) == sorted((*point.values(), seed, point["horizon"] * 3.0) for point in POINTS for seed in (0, 1))
    assert os.getpid() not in {row.values["process"] for row in rows}
    assert not CALLS
    assert len(measurements.read_measurements(published / "study.jsonl")) == 8
    shown = sweep.run(sweep.SweepConfig("study", seeds=(5,), measure=False), POINTS[:1], measure, config, tmp_path)
    assert [row.setting["seed"] for row in shown] == [0, 1]
    assert not CALLS


@pytest.mark.parametrize("wrong", [dict(seeds=()), dict(seeds=(1, 1)), dict(processes=0), dict(per_batch=-1)])
def test_settings_that_make_no_sweep_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sweep\.(seeds|processes) must be"):
        sweep.SweepConfig("study", **wrong)


STUDY = """
import test_sweep
from experiments import sweep

if __name__ == "__main__":
    list(sweep.side_by_side(test_sweep.stage, {"a": (2,), "b": (4,)}, 2, print))
"""
INTERRUPTED = """
import _thread, signal, threading, time
from experiments import launch, sweep

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell has put the tests in the background
    try:
        threading.Timer(3.0, _thread.interrupt_main).start()
        list(sweep.side_by_side(time.sleep, {"a": (60,), "b": (60,)}, 2))
    except KeyboardInterrupt:
        launch._leave(130)
"""


def test_an_interrupted_study_warns_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(killing.PROJECT)}
    done = subprocess.run([sys.executable, "study.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


SLEEPER = """
import time
from experiments import sweep

if __name__ == "__main__":
    list(sweep.side_by_side(time.sleep, {"a": (60,), "b": (60,)}, 2))
"""


def test_workers_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(killing.PROJECT)}
    launcher = subprocess.Popen([sys.executable, "sleeper.py"], cwd=tmp_path, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(killing.processes(launcher.pid)) < 4:  # launcher, its resource tracker and two workers
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    while left := killing.processes(launcher.pid):
        assert time.monotonic() < deadline, f"{left} go on"
        time.sleep(0.05)
