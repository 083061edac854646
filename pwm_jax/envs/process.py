"""The pool's side of one worker process: starting it, talking to it, and saying what happened when it died."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pwm_jax
from pwm_jax.envs.base import EnvUnavailableError

_STDERR_LINES = 15
# One simulation needs one thread; a pool that multiplies threads by workers is slower than no pool.
_SINGLE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


class EnvWorkerError(RuntimeError):
    """A worker process of an EnvPool died, or an environment in it failed; the pool is closed."""


class WorkerProcess:
    """The pool's end of one worker: its process, its pipes and the file that takes its standard error."""

    def __init__(self, number: int, indices: Sequence[int], names: Sequence[str], shared: Mapping[str, Any]) -> None:
        self.number, self.indices, self.names = number, indices, names
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pwm_jax.envs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_worker_environ(),
        )
        self.send({"shared": shared, "indices": list(indices), "names": list(names)})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a command without waiting for it.

        Raises:
          EnvWorkerError: the worker is dead.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def receive(self) -> bytes:
        """Wait for a command's answer: its payload, mostly empty.

        Raises:
          EnvWorkerError: the worker died or the command failed in it.
          EnvUnavailableError: the command needed a simulator that is missing.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._death()
        reply = json.loads(line)
        if "traceback" in reply:
            raise self._failure(reply)
        payload = self.process.stdout.read(reply["bytes"])
        if len(payload) < reply["bytes"]:
            raise self._death()
        return payload

    def _death(self) -> EnvWorkerError:
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        self._stderr.seek(0)
        last_lines = "\n".join(self._stderr.read().decode(errors="replace").splitlines()[-_STDERR_LINES:])
        return EnvWorkerError(
            f"environment worker {self.number} {how}; it ran {listed(self.names)}. If it was killed for memory, use fewer environments or "
            f"workers; otherwise start the pool again, with one worker and only these tasks to find the one at fault."
            + (f" Its last words:\n{last_lines}" if last_lines else "")
        )

    def _failure(self, reply: Mapping[str, Any]) -> Exception:
        if reply["kind"] == EnvUnavailableError.__name__:
            return EnvUnavailableError(reply["message"])
        index = reply["env"]
        where = f"environment {index} ({self.names[self.indices.index(index)]})" if index in self.indices else "a command"
        return EnvWorkerError(
            f"{where} failed in environment worker {self.number}: {reply['kind']}: {reply['message']}; check the actions, and what "
            f"the environment imports, then start again. Traceback of the worker:\n{reply['traceback']}"
        )

    def hang_up(self) -> None:
        """Close the pipes, which tells the worker to end."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            # Closing flushes what a dead worker never read.
            with contextlib.suppress(OSError):
                pipe.close()

    def end(self, patience: float = 2.0) -> None:
        """Wait for the end of a worker that was told, and kill it after `patience` seconds."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stderr.close()


def _worker_environ() -> dict[str, str]:
    root = str(pathlib.Path(pwm_jax.__path__[0]).resolve().parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Stepping needs no OpenGL; the renderer picks its backend itself, and a broken one must not stop the simulator's import.
    inherited = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    return {**inherited, **_SINGLE_THREAD, "PYTHONPATH": path, "MUJOCO_GL": "disabled"}


def listed(names: Iterable[str]) -> str:
    """Names once each, in order, for an error message."""
    return ", ".join(sorted(set(names)))
