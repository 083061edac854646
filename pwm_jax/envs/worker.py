"""One worker process of an EnvPool: builds environments once and steps them on command.

Started by the pool as `python -m pwm_jax.envs.worker` and not through multiprocessing, so that it never imports the main script
(nor JAX), whatever that is: a launcher, a notebook, standard input. Commands and replies are lines of JSON on the standard
streams; observations, actions and rewards are in a memory-mapped file that the pool and all workers share.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from pwm_jax.envs.base import AgentEnv


@dataclasses.dataclass(frozen=True)
class SharedArrays:
    """What the pool and its workers share, one row an environment."""

    obs: np.ndarray
    action: np.ndarray
    expert: np.ndarray
    reward: np.ndarray
    success: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    active: np.ndarray

    @classmethod
    def at(cls, path: str, num_envs: int, obs_dim: int, action_dim: int) -> SharedArrays:
        """Map the file, which grows to what the arrays need; float32 come first, so that every array is aligned."""
        widths = {"obs": (obs_dim,), "action": (action_dim,), "expert": (action_dim,)}
        offset, arrays = 0, {}
        for field in dataclasses.fields(cls):
            dtype = np.dtype(bool) if field.name in ("terminated", "truncated", "active") else np.dtype(np.float32)
            shape = (num_envs, *widths.get(field.name, ()))
            arrays[field.name] = np.memmap(path, dtype, "r+", offset, shape).view(np.ndarray)
            offset += arrays[field.name].nbytes
        return cls(**arrays)


class Worker:
    """Holds the environments of one worker process; every public method is a command."""

    def __init__(self, shared: SharedArrays, indices: Sequence[int], names: Sequence[str]) -> None:
        self._shared = shared
        self._names = dict(zip(indices, names, strict=True))
        self._envs: dict[int, AgentEnv] = {}
        self.current = -1

    def build(self) -> None:
        """Build every environment once."""
        from pwm_jax.envs import make

        for index, name in self._names.items():
            self.current = index
            self._envs[index] = make(name)

    def _write_obs(self, index: int, obs: np.ndarray) -> None:
        self._shared.obs[index, : obs.shape[0]] = obs

    def reset(self, seeds: dict[str, int]) -> None:
        """Reset the named environments, each with its seed."""
        for index, env in self._envs.items():
            if str(index) in seeds:
                self.current = index
                self._write_obs(index, env.reset(seed=seeds[str(index)])[0])

    def step(self) -> None:
        """Step the active environments with the shared actions."""
        shared = self._shared
        for index, env in self._envs.items():
            if not shared.active[index]:
                continue
            self.current = index
            obs, reward, terminated, truncated, info = env.step(shared.action[index, : env.facts.action_dim])
            self._write_obs(index, obs)
            shared.reward[index] = reward
            shared.success[index] = info["success"]
            shared.terminated[index] = terminated
            shared.truncated[index] = truncated

    def expert(self) -> None:
        """Write the scripted experts' actions of the active environments."""
        for index, env in self._envs.items():
            if self._shared.active[index]:
                self.current = index
                self._shared.expert[index, : env.facts.action_dim] = env.expert_action()

    def render(self, indices: Sequence[int], height: int, width: int, backend: str) -> bytes:
        """Pictures of some environments as the bytes of [len(indices), height, width, 3] uint8."""
        pictures = []
        for index in indices:
            self.current = index
            pictures.append(self._envs[index].render_frame(height, width, backend).tobytes())
        return b"".join(pictures)


def _serve(worker: Worker, commands: IO[bytes], replies: IO[bytes]) -> None:
    for line in commands:
        command: dict[str, Any] = json.loads(line)
        worker.current = -1
        payload = b""
        try:
            payload = getattr(worker, command.pop("do"))(**command) or b""
            reply: dict[str, Any] = {"bytes": len(payload)}
        except Exception as error:
            reply = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc(), "env": worker.current}
        replies.write(json.dumps(reply).encode() + b"\n" + payload)
        replies.flush()


def main() -> None:
    """Serve commands until the pool closes the standard input."""
    # Ctrl-C reaches the whole process group; the pool alone decides when its workers end.
    # A terminal and a cluster send them to all processes of a run; the pool tells its workers when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Libraries that print must not write between replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Scripted experts warn about every action that they leave to be clipped.
    warnings.simplefilter("ignore")
    commands = sys.stdin.buffer
    setup = json.loads(commands.readline())
    _serve(Worker(SharedArrays.at(**setup["shared"]), setup["indices"], setup["names"]), commands, replies)


if __name__ == "__main__":
    main()
