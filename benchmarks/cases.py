"""What is timed: each case gives a callable that does the work once, on arrays that are there already, and how much work that is."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops
from configs import base
from experiments import stages
from pwm_jax import pwm
from pwm_jax.config import Config
from pwm_jax.types import Batch, Starts


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a case: a preset of configs/base.py, the number of windows, start states or environments, and the steps of a rollout."""

    preset: str = "5M-mt30"
    batch_size: int = 64
    horizon: int = 16


@dataclasses.dataclass
class Work:
    """One case, ready to run. `step` does it once and waits for it; the rest is None where it has no meaning."""

    step: Callable[[], object]
    flop: float | None = None
    compile_seconds: float | None = None
    xla_flop: float | None = None
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    close: Callable[[], object] = lambda: None


def config_of(preset: str, batch_size: int, horizon: int, dtype: str = "float32", **model: Any) -> Config:
    """The algorithm at a published size, batches, horizons and dtype of both halves alike; `model` fields changed."""
    config = base.get_config(preset)
    config.world_model.update(batch_size=batch_size, horizon=horizon)
    config.policy.update(batch_size=batch_size, horizon=horizon, matmul_dtype=dtype)
    config.model.update(model, matmul_dtype=dtype)
    return stages.algorithm_of(config, stages.task_set_of(config))


def batch_of(config: Config) -> Batch:
    """A batch of random windows."""
    m, c = config.model, config.world_model
    rng, leading = np.random.default_rng(0), (c.horizon, c.batch_size)
    task_id = rng.integers(0, m.num_tasks, c.batch_size)
    mask = m.action_mask[task_id]
    return jax.device_put(
        Batch(
            rng.standard_normal((c.horizon + 1, c.batch_size, m.obs_dim), np.float32),
            (rng.uniform(-1, 1, (*leading, m.action_dim)) * mask).astype(np.float32),
            rng.standard_normal(leading, np.float32),
            np.zeros(leading, np.float32),
            task_id.astype(np.int32),
        )
    )


def starts_of(config: Config) -> Starts:
    """Start states of a policy, all of task 0."""
    m, size = config.model, config.policy.batch_size
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (size, m.action_dim)) * m.action_mask[0]
    return jax.device_put(Starts(rng.standard_normal((size, m.obs_dim), np.float32), action.astype(np.float32), np.zeros(size, np.int32)))


def compiled(function: Callable[..., Any], *arguments: Any, donate: bool) -> tuple[Any, Work]:
    """The compiled program, and its time to compile, size and XLA's count of operations (bodies of loops once)."""
    lowered = jax.jit(function, donate_argnums=0 if donate else ()).lower(*arguments)
    started = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - started
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    return program, Work(
        step=lambda: None,
        compile_seconds=seconds,
        xla_flop=cost.get("flops"),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
    )


def _updating(function: Callable[..., Any], state: Any, *arguments: Any, flop: float) -> Work:
    """A case that carries its state from call to call in donated buffers."""
    program, work = compiled(function, state, *arguments, donate=True)

    def step() -> None:
        nonlocal state
        state, metrics = program(state, *arguments)
        jax.block_until_ready((state, metrics))

    work.step, work.flop = step, flop
    return work


def _reading(function: Callable[..., Any], *arguments: Any, flop: float | None = None) -> Work:
    """A case that leaves its arguments as they are."""
    program, work = compiled(function, *arguments, donate=False)
    work.step, work.flop = lambda: jax.block_until_ready(program(*arguments)), flop
    return work


def model_update(shape: Shape, reward_head: str = "two_hot", dtype: str = "float32") -> Work:
    """One gradient step of pre-training."""
    config = config_of(**dataclasses.asdict(shape), dtype=dtype, reward_head=reward_head)
    state = jax.jit(functools.partial(pwm.init_world_model, config))(jax.random.key(0))
    update = functools.partial(pwm.update_world_model, config=config)
    return _updating(update, state, batch_of(config), jax.random.key(1), flop=sum(flops.model_update(config).values()))


def policy_update(shape: Shape, dtype: str = "float32") -> Work:
    """One iteration of extraction."""
    config = config_of(**dataclasses.asdict(shape), dtype=dtype)
    params, state = fresh(config)
    update = functools.partial(pwm.update_policy, config=config)
    return _updating(update, state, params, starts_of(config), jax.random.key(1), flop=sum(flops.policy_update(config).values()))


def imagination(shape: Shape, backward: bool) -> Work:
    """Rollouts of a policy through the model; with `backward` the actor's gradient through them."""
    config = config_of(**dataclasses.asdict(shape))
    p = config.policy
    noise = jax.random.normal(jax.random.key(2), (p.horizon, p.batch_size, config.model.action_dim))
    params, state = fresh(config)

    def forward(actor_params: Any, *rest: Any) -> Any:
        return pwm.actor_loss(actor_params, *rest, config)[0]

    function = jax.grad(forward) if backward else forward
    arguments = (state.actor_params, state, params, starts_of(config), noise, jnp.zeros(p.batch_size, jnp.int32))
    return _reading(function, *arguments, flop=sum(flops.imagination(config, backward).values()))


def fresh(config: Config) -> tuple[Any, Any]:
    """World-model parameters and the state of a policy."""
    params = jax.jit(functools.partial(pwm.init_world_model, config))(jax.random.key(0)).params
    return params, jax.jit(functools.partial(pwm.init_policy, config))(jax.random.key(0))


def planner(shape: Shape) -> Work:
    """A decision of MPPI for one environment, guided by a policy; the number of plans is MPPI's own, not the batch size."""
    from pwm_jax.baselines.mppi import MPPIConfig, Planner
    from pwm_jax.training.policies import init_policies

    config = config_of(**dataclasses.asdict(shape))
    params, _ = fresh(config)
    policies = init_policies(config, np.zeros(1, np.int32), np.zeros(1, np.uint32))
    plan, obs, task_id = Planner(params, config, MPPIConfig(), policies), np.zeros((1, config.model.obs_dim)), np.zeros(1, np.int32)
    key = jax.random.key(0)
    return Work(lambda: jax.block_until_ready(plan(obs, task_id, key)))


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

    return _reading(jax.grad(rewards) if backward else rewards, actions, state)


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


def torch_reference(shape: Shape, update: str) -> Work:
    """An update in plain PyTorch."""
    try:
        from benchmarks import torch_reference as reference
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}: this case needs PyTorch, which nothing else does: pip install torch") from error
    return getattr(reference, update)(shape)


CASES: dict[str, Callable[[Shape], Work]] = {
    "policy_update": policy_update,
    "model_update": model_update,
    "model_update_scalar": functools.partial(model_update, reward_head="scalar"),
    **{
        f"{name}_bfloat16": functools.partial(case, dtype="bfloat16")
        for name, case in (("policy_update", policy_update), ("model_update", model_update))
    },
    "imagine": functools.partial(imagination, backward=False),
    "imagine_backward": functools.partial(imagination, backward=True),
    "mppi_decision": planner,
    "windows_on_device": device_windows,
    "windows_on_disk": disk_windows,
    "step_walker_walk": functools.partial(environments, task="walker-walk"),
    "step_mw_reach": functools.partial(environments, task="mw-reach"),
    "unroll_hopper": functools.partial(simulator, task="brax-hopper-spring"),
    "unroll_hopper_backward": functools.partial(simulator, task="brax-hopper-spring", backward=True),
    "cold_start": functools.partial(first_update, warm=False),
    "warm_start": functools.partial(first_update, warm=True),
}
# Run only where they are named.
EXTRAS: dict[str, Callable[[Shape], Work]] = {
    f"{update}_torch": functools.partial(torch_reference, update=update) for update in ("policy_update", "model_update")
}
