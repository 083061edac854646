"""What surrounds the algorithm: data, environments, simulators, evaluation, and the start of a process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.updates import config_of, fresh
from benchmarks.work import Shape, Work, reading
from configs import base
from experiments import stages


def device_windows(shape: Shape) -> Work:
    """A batch of windows from device memory."""
    from pwm_jax.data.sample import DeviceDataset
    from pwm_jax.data.store import Dataset

    data, _ = _random_dataset(64 << 20)
    resident = DeviceDataset.from_dataset(Dataset.open(data, verify=False))
    key = jax.random.key(0)
    return Work(lambda: jax.block_until_ready(resident.sample(key, shape.batch_size, shape.horizon)))


def disk_windows(shape: Shape) -> Work:
    """A batch of windows from memory-mapped files that the system holds in memory; `benchmarks/sampler.py` drops them from it too."""
    from pwm_jax.data.sample import WindowSampler
    from pwm_jax.data.store import Dataset

    data, close = _random_dataset(256 << 20)
    sampler = WindowSampler(Dataset.open(data, verify=False), shape.batch_size, shape.horizon, terminations=False)
    rng = np.random.default_rng(1)
    return Work(lambda: sampler(rng), close=close)


def _random_dataset(nbytes: int) -> tuple[Any, Callable[[], object]]:
    from benchmarks.sampler import make_dataset

    directory = tempfile.TemporaryDirectory()
    make_dataset(Path(directory.name) / "dataset", nbytes / 2**30)
    return Path(directory.name) / "dataset", directory.cleanup


def environments(shape: Shape, task: str) -> Work:
    """A step of `batch_size` environments of the suites, in worker processes."""
    from pwm_jax.envs.pool import EnvPool
    from pwm_jax.envs.tasks import TaskSet

    task_set = TaskSet.from_names([task])
    pool = EnvPool(task_set, [0] * shape.batch_size)
    seeds, left = np.arange(shape.batch_size), 0
    action = np.random.default_rng(0).uniform(-1, 1, (shape.batch_size, task_set.action_dim)).astype(np.float32)

    def step() -> None:
        nonlocal left
        if not left:
            pool.reset(seeds)
            left = task_set.specs[0].episode_length
        pool.step(action)
        left -= 1

    return Work(step, close=pool.close)


def evaluation(shape: Shape, task: str) -> Work:
    """An episode of a policy in each of `batch_size` environments of the suites."""
    from pwm_jax.envs.pool import EnvPool
    from pwm_jax.evaluation import evaluate
    from pwm_jax.training.extract import as_policy
    from pwm_jax.training.policies import init_policies

    config = config_of(**dataclasses.asdict(shape))
    task_set = stages.task_set_of(base.get_config(shape.preset))
    task_id = task_set.index(task)
    policy = as_policy(init_policies(config, np.array([task_id]), np.zeros(1, np.uint32)), fresh(config)[0], config)
    pool = EnvPool(task_set, [task_id] * shape.batch_size)
    return Work(lambda: evaluate(policy, pool, jax.random.key(0), seed=0), close=pool.close)


def simulator(shape: Shape, task: str, backward: bool = False) -> Work:
    """`horizon` steps of `batch_size` simulated environments in one program; with `backward` their rewards' gradient by the actions."""
    from pwm_jax.envs.simulators.make import make_simulator

    env = make_simulator(task)
    state = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), shape.batch_size)
    actions = jax.random.uniform(jax.random.key(1), (shape.horizon, shape.batch_size, env.env.action_size), minval=-1)

    def rewards(actions: Any, state: Any) -> Any:
        def advance(state: Any, action: Any) -> Any:
            state, transition = env.step(state, action, jax.random.key(2))
            return state, transition.reward

        return jax.lax.scan(advance, state, actions)[1].sum()

    return reading(jax.grad(rewards) if backward else rewards, actions, state)


def first_update(shape: Shape, warm: bool) -> Work:
    """From the start of Python to the end of the quickstart's first model update, `warm` with compiled programs on disk."""
    directory = tempfile.TemporaryDirectory()

    def start(cache: str) -> None:
        command = [sys.executable, "-m", "benchmarks.first_update"]
        subprocess.run(command, check=True, env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}, stdout=subprocess.DEVNULL)

    def cold() -> None:
        with tempfile.TemporaryDirectory(dir=directory.name) as cache:
            start(cache)

    if warm:
        start(directory.name)
    return Work((lambda: start(directory.name)) if warm else cold, close=directory.cleanup)
