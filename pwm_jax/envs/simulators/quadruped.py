"""A quadruped that runs: dm_control's, on a flat floor."""

from __future__ import annotations

from pwm_jax.envs.simulators.locomotion import LocomotionEnv, Runner
from pwm_jax.envs.simulators.models import collide_with_floor_only, suite_spec

_LEGS = ("front_left", "front_right", "back_right", "back_left")
_TOES = tuple(f"toe_{leg}" for leg in _LEGS)
# Belly on the floor is 0.2 m, the standing pose 0.57 m.
_RUNNER = Runner(trunk="torso", height_of="torso", extremities=_TOES, n_frames=4, min_height=0.25, min_upright=0.5)


def make(name: str, backend: str) -> LocomotionEnv:
    """The run task of dm_control's quadruped: 12 actuators (yaw, lift and extend of each leg), a step of 0.02 s.

    The suite's model less height field, walls, ball, target and sensors; toes, feet, shins and torso collide with the floor, with
    nothing else. Actuators are filters of first order, whose states are observed. Conventions as `LocomotionEnv`.
    """
    spec = suite_spec("quadruped")
    scenery = [geom for geom in spec.geoms if geom.name == "terrain" or geom.name.startswith("wall_")]
    for element in [*scenery, *spec.hfields, spec.body("ball"), spec.site("target")]:
        spec.delete(element)
    legs = {f"{part}_{leg}" for part in ("toe", "foot", "shin") for leg in _LEGS}
    collide_with_floor_only(spec, legs | {"torso"})
    return LocomotionEnv(spec.compile(), _RUNNER, backend)
