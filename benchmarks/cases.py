"""The cases by name: each gives a unit of work that is ready to run, on arrays that are there already."""

from __future__ import annotations

import functools
from collections.abc import Callable

from benchmarks.surroundings import device_windows, disk_windows, environments, evaluation, first_update, simulator
from benchmarks.updates import imagination, model_update, planner, policy_update
from benchmarks.work import Shape, Work


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
    "evaluate_cartpole": functools.partial(evaluation, task="cartpole-swingup"),
    "unroll_hopper": functools.partial(simulator, task="brax-hopper-spring"),
    "unroll_hopper_backward": functools.partial(simulator, task="brax-hopper-spring", backward=True),
    "cold_start": functools.partial(first_update, warm=False),
    "warm_start": functools.partial(first_update, warm=True),
}
# Run only where they are named.
EXTRAS: dict[str, Callable[[Shape], Work]] = {
    f"{update}_torch": functools.partial(torch_reference, update=update) for update in ("policy_update", "model_update")
}
