"""Runs of a launcher that are killed at random moments, and what of a finished run must not depend on it. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax import checkpoint
from pwm_jax.report.records import read_lines

PROJECT = Path(__file__).resolve().parents[1]
WORKDIR = "run"  # of every run, in a directory of its own, so that all have the same command line
STARTED = "started at"  # what progress says when the stage begins to work
_TIMED = ("timing.json", "provenance.json", ".lock")
_TEMPORARY = re.compile(r".+\.orbax-checkpoint-tmp.*|\.partial-.+|\..+-partial|\..+\.jsonl?\..+")


def begin(launcher: str, config: str, parent: Path, *flags: str) -> subprocess.Popen[bytes]:
    """A run in `<parent>/run`, in a session of its own, which says what it does in `<parent>/stderr`."""
    parent.mkdir(exist_ok=True)
    config = f"--config={PROJECT}/tests/kill_configs.py:{config}"
    command = [sys.executable, "-m", f"experiments.{launcher}", config, f"--workdir={WORKDIR}", *flags]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with (parent / "stderr").open("w") as errors:
        return subprocess.Popen(
            command, cwd=parent, env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )  # fmt: skip


def finish(launcher: str, config: str, parent: Path) -> float:
    """Run to the end; returns the seconds of work that random moments are drawn from."""
    process = begin(launcher, config, parent)
    started = wait_for_start(process, parent)
    status = process.wait(timeout=600)
    assert status == 0, (parent / "stderr").read_text()
    return time.monotonic() - started


def wait_for_start(process: subprocess.Popen[bytes], parent: Path) -> float:
    """When the run began to work, or ended because there was nothing left to do."""
    deadline = time.monotonic() + 300
    while STARTED not in (parent / "stderr").read_text() and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not begin"
        time.sleep(0.01)
    return time.monotonic()


def kill(launcher: str, config: str, parent: Path, after: float, in_write: bool) -> tuple[bool, bool]:
    """SIGKILL a run `after` seconds of work, or in the write that comes next; whether it was still running then, and whether writing.

    What it had started must be gone soon after.
    """
    before = unfinished(parent / WORKDIR)
    process = begin(launcher, config, parent)
    started = wait_for_start(process, parent)
    while time.monotonic() < started + after and process.poll() is None:
        time.sleep(0.001)
    while in_write and process.poll() is None and unfinished(parent / WORKDIR) <= before:
        pass
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while left := processes(process.pid):
        assert time.monotonic() < deadline, f"processes {left} outlive the run that started them"
        time.sleep(0.05)
    return running, running and not unfinished(parent / WORKDIR) <= before


def unfinished(workdir: Path) -> set[tuple[Path, int]]:
    """Temporary files and directories, with their inodes: what is being written, or was when its writer was killed."""
    found = set()
    for folder, directories, files in os.walk(workdir):
        for name in (*directories, *files):
            with contextlib.suppress(OSError):  # renamed meanwhile
                if _TEMPORARY.fullmatch(name):
                    found.add((Path(folder) / name, (Path(folder) / name).stat().st_ino))
        directories[:] = [name for name in directories if not name.isdecimal()]  # a checkpoint that is whole
    return found


def end_state(workdir: Path) -> dict[str, Any]:
    """Every file that a run leaves, by path, less times of the clock: of checkpoints what they hold, of lines of JSON their values."""
    state: dict[str, Any] = {}
    for folder, directories, files in os.walk(workdir):
        here = Path(folder)
        for name in [name for name in directories if len(name) == 10 and name.isdecimal()]:
            state[str((here / name).relative_to(workdir))] = _checkpoint(here / name)
            directories.remove(name)
        for name in directories[:]:
            if name in ("tensorboard", "figures"):
                directories.remove(name)
        for name in files:
            if name not in _TIMED:
                state[str((here / name).relative_to(workdir))] = _content(here / name)
    return state


def _checkpoint(path: Path) -> dict[str, Any]:
    manifest = checkpoint._read_manifest(path)
    arrays = checkpoint._read_arrays(path, manifest["leaves"])  # which finds bytes that are not those that were saved
    assert all(np.size(array) == np.prod(manifest["leaves"][name]["shape"]) for name, array in arrays.items())
    return manifest


def _content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        rows = [{name: value for name, value in row.items() if name not in ("time", "commit", "hardware")} for _, row in read_lines(path)]
        return sorted(rows, key=json.dumps) if path.parent.name == WORKDIR else rows  # rows of a sweep come as its processes end
    return path.read_bytes()


def processes(session: int) -> list[int]:
    """Processes of a session that are not just waiting for their parent to look at how they ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue  # it has ended meanwhile
        if int(own) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
