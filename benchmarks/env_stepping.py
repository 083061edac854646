"""Agent steps a second of an EnvPool against the number of workers.

Usage: python benchmarks/env_stepping.py [--seconds=3] [--json=stepping.json]
Random actions, all environments active; building and resetting are not timed. One core steps no faster with more workers.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from pwm_jax.envs.pool import EnvPool
from pwm_jax.envs.tasks import TaskSet

_TASKS = flags.DEFINE_list("tasks", ["walker-walk", "mw-reach"], "MT80 names, one pool each.")
_ENVS = flags.DEFINE_integer("envs", 32, "Environments in the pool.", lower_bound=1)
_WORKERS = flags.DEFINE_list("workers", [str(count) for count in (1, 2, 4) if count <= max(2, os.cpu_count() or 1)], "Numbers of workers.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "Time to step for, at least, in each case.", lower_bound=0.0)
_JSON = flags.DEFINE_string("json", None, "File for the results; none by default.")


def steps_per_second(name: str, num_envs: int, num_workers: int, seconds: float) -> float:
    """Agent steps a second, all environments together, over at least `seconds` and one step."""
    task_set = TaskSet.from_names([name])
    rng = np.random.default_rng(0)
    seeds = np.arange(num_envs)
    actions = rng.uniform(-1, 1, (16, num_envs, task_set.action_dim)).astype(np.float32)
    elapsed, steps = 0.0, 0
    with EnvPool(task_set, [0] * num_envs, num_workers) as pool:
        while elapsed <= seconds:
            pool.reset(seeds)
            started = time.perf_counter()
            for step in range(task_set.specs[0].episode_length):
                pool.step(actions[step % len(actions)])
                steps += num_envs
                if elapsed + time.perf_counter() - started > seconds:
                    break
            elapsed += time.perf_counter() - started
    return steps / elapsed


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    rows = []
    print(f"{'task':<24}{'workers':>8}{'envs':>6}{'agent steps/s':>15}")
    for name in _TASKS.value:
        for workers in map(int, _WORKERS.value):
            rate = steps_per_second(name, _ENVS.value, workers, _SECONDS.value)
            rows.append({"task": name, "workers": workers, "envs": _ENVS.value, "agent_steps_per_second": round(rate)})
            print(f"{name:<24}{workers:>8}{_ENVS.value:>6}{rate:>15.0f}")
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump({"machine": platform.platform(), "cpus": os.cpu_count(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    app.run(main)
