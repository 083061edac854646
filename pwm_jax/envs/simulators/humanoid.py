"""Humanoids that run: dm_control's two."""

from __future__ import annotations

import math

from pwm_jax.envs.simulators.locomotion import LocomotionEnv, Runner
from pwm_jax.envs.simulators.models import collide_with_floor_only, suite_spec

_SIDES = ("left", "right")
_HUMANOID = Runner(
    trunk="torso",
    height_of="head",
    extremities=tuple(f"{side}_{limb}" for side in _SIDES for limb in ("hand", "foot")),
    n_frames=5,
    min_height=1.0,
    min_upright=0.2,
)
_CMU = Runner(
    trunk="thorax",
    height_of="head",
    extremities=tuple(f"{side}{limb}" for side in "lr" for limb in ("hand", "foot")),
    n_frames=5,
    min_height=0.9,
    min_upright=0.2,
    yaw=math.pi / 2,
)
_CMU_TIMESTEP = 0.004


def make(name: str, backend: str) -> LocomotionEnv:
    """The run task of dm_control's humanoid (21 motors, a step of 0.025 s) or humanoid_CMU (56 motors, 0.02 s).

    The suite's models less sensors; feet and shins (CMU: feet and toes) collide with the floor, with nothing else. The CMU model
    takes time steps of 0.004 s, twice the suite's. Conventions as `LocomotionEnv`.
    """
    if name == "mjx-humanoid":
        spec = suite_spec("humanoid")
        feet = {f"{edge}_{side}_foot" for edge in _SIDES for side in _SIDES}
        collide_with_floor_only(spec, feet | {f"{side}_shin" for side in _SIDES})
        return LocomotionEnv(spec.compile(), _HUMANOID, backend)
    spec = suite_spec("humanoid_CMU")
    spec.option.timestep = _CMU_TIMESTEP
    collide_with_floor_only(spec, {f"{side}{part}{index}" for side in "lr" for part in ("foot", "toes") for index in range(3)})
    return LocomotionEnv(spec.compile(), _CMU, backend)
