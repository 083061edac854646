"""The eleven dm_control tasks of MT30 that the suite lacks, after TD-MPC2 (arXiv 2310.16828, appendix on tasks).

Rewards are written from their formulas with two shapes of tolerance, both 1 inside an interval and falling with the distance
d outside of it, for a margin m:  G = 0.1^((d / m)^2)  and  L = max(0, 1 - (1 - v) d / m).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from dm_control.rl import control
from dm_control.suite import ball_in_cup, base, cheetah, common, hopper, pendulum, reacher, walker
from dm_control.utils import rewards

_STAND_HEIGHT = 1.2
_CHEETAH_RUN_SPEED = 10.0


def _gaussian(value: float, low: float, high: float, margin: float) -> float:
    return float(rewards.tolerance(value, bounds=(low, high), margin=margin, sigmoid="gaussian", value_at_margin=0.1))


def _linear(value: float, low: float, high: float, margin: float, value_at_margin: float) -> float:
    return float(rewards.tolerance(value, bounds=(low, high), margin=margin, sigmoid="linear", value_at_margin=value_at_margin))


def _high(height: float) -> float:
    return _gaussian(height, _STAND_HEIGHT, np.inf, _STAND_HEIGHT / 2)


class BackwardsWalker(walker.PlanarWalker):
    """Walk or run backwards: S (5 M + 1) / 6, S the suite's stand reward, M = L(v; -inf, -V, V/2, 0.5)."""

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        upright = (1 + physics.torso_upright()) / 2
        stand = (3 * _high(physics.torso_height()) + upright) / 4
        move = _linear(physics.horizontal_velocity(), -np.inf, -self._move_speed, self._move_speed / 2, 0.5)
        return stand * (5 * move + 1) / 6


class BackwardsCheetah(cheetah.Cheetah):
    """Run backwards: L(v; -inf, -V, V, 0) with V = 0.8 of the suite's running speed."""

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        speed = 0.8 * _CHEETAH_RUN_SPEED
        return _linear(physics.speed(), -np.inf, -speed, speed, 0.0)


class RearingCheetah(cheetah.Cheetah):
    """Run on one foot with the other up: U (5 H + 1) / 6, U = (3 G(foot) + 2 G(torso)) / 5, H = L(v; V, inf, V, 0)."""

    def __init__(self, raised_foot: str, random: Any = None) -> None:
        self._raised_foot = raised_foot
        super().__init__(random=random)

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        speed = 0.6 * _CHEETAH_RUN_SPEED
        heights = physics.named.data.xpos[[self._raised_foot, "torso"], "z"]
        upright = (3 * _high(heights[0]) + 2 * _high(heights[1])) / 5
        return upright * (5 * _linear(physics.speed(), speed, np.inf, speed, 0.0) + 1) / 6


class JumpingCheetah(cheetah.Cheetah):
    """Jump on the spot: mean over both feet of (5 G((torso + foot) / 2) + L(v; -0.5, 0.5, 0.5, 0)) / 6."""

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        torso, *feet = physics.named.data.xpos[["torso", "ffoot", "bfoot"], "z"]
        still = _linear(physics.speed(), -0.5, 0.5, 0.5, 0.0)
        return sum((5 * _high((torso + foot) / 2) + still) / 6 for foot in feet) / 2


class BackwardsHopper(hopper.Hopper):
    """Hop backwards: 1[0.6 <= h <= 2] L(v; -inf, -1, 0.5, 0.5)."""

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        standing = float(0.6 <= physics.height() <= 2.0)
        return standing * _linear(physics.speed(), -np.inf, -1.0, 0.5, 0.5)


class SpinningPendulum(pendulum.SwingUp):
    """Spin fast, either way: L(|rate|; 9, inf, 4.5, 0.5)."""

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        return _linear(abs(float(physics.named.data.qvel["hinge"][0])), 9.0, np.inf, 4.5, 0.5)


class SpinningBall(ball_in_cup.BallInCup):
    """Swing the ball around the cup: (1 - in_cup) (L(d; 0.5, inf, 0.25, 0.5) + 2 L(s; 6, inf, 3, 0.5)) / 3."""

    def initialize_episode(self, physics: Any) -> None:
        """Start with the ball in the cup, in one of ten episodes anywhere free of contact."""
        anywhere = self.random.uniform() < 0.1
        placed = False
        while not placed:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            placed = physics.data.ncon == 0 and (anywhere or bool(physics.in_target()))
        base.Task.initialize_episode(self, physics)

    def get_reward(self, physics: Any) -> float:
        """Reward of one control step in [0, 1]."""
        distance = float(np.linalg.norm(physics.ball_to_target()))
        speed = float(np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]]))
        spinning = (_linear(distance, 0.5, np.inf, 0.25, 0.5) + 2 * _linear(speed, 6.0, np.inf, 3.0, 0.5)) / 3
        return (1 - physics.in_target()) * spinning


_THREE_LINK_REACHER = """
<mujoco model="three-link planar reacher">
  <include file="./common/skybox.xml"/>
  <include file="./common/visual.xml"/>
  <include file="./common/materials.xml"/>
  <option timestep="0.02"><flag contact="disable"/></option>
  <default>
    <joint type="hinge" axis="0 0 1" damping="0.01"/>
    <motor gear=".05" ctrlrange="-1 1" ctrllimited="true"/>
  </default>
  <worldbody>
    <light name="light" pos="0 0 1"/>
    <camera name="fixed" pos="0 0 .75" quat="1 0 0 0"/>
    <geom name="ground" type="plane" pos="0 0 0" size=".3 .3 10" material="grid"/>
    <geom name="wall_x" type="plane" pos="-.3 0 .02" zaxis="1 0 0" size=".02 .3 .02" material="decoration"/>
    <geom name="wall_y" type="plane" pos="0 -.3 .02" zaxis="0 1 0" size=".3 .02 .02" material="decoration"/>
    <geom name="wall_neg_x" type="plane" pos=".3 0 .02" zaxis="-1 0 0" size=".02 .3 .02" material="decoration"/>
    <geom name="wall_neg_y" type="plane" pos="0 .3 .02" zaxis="0 -1 0" size=".3 .02 .02" material="decoration"/>
    <geom name="root" type="cylinder" fromto="0 0 0 0 0 0.02" size=".011" material="decoration"/>
    <body name="arm0" pos="0 0 .01">
      <geom name="arm0" type="capsule" fromto="0 0 0 0.09 0 0" size=".01" material="self"/>
      <joint name="shoulder0"/>
      <body name="arm1" pos=".09 0 0">
        <geom name="arm1" type="capsule" fromto="0 0 0 0.09 0 0" size=".01" material="self"/>
        <joint name="shoulder1" limited="true" range="-80 80"/>
        <body name="hand" pos=".09 0 0">
          <geom name="hand" type="capsule" fromto="0 0 0 0.1 0 0" size=".01" material="self"/>
          <joint name="wrist" limited="true" range="-80 80"/>
          <body name="finger" pos=".09 0 0">
            <geom name="finger" type="sphere" size=".01" material="effector"/>
          </body>
        </body>
      </body>
    </body>
    <geom name="target" pos="0 0 .01" material="target" type="sphere" size=".05"/>
  </worldbody>
  <actuator>
    <motor name="shoulder0" joint="shoulder0"/>
    <motor name="shoulder1" joint="shoulder1"/>
    <motor name="wrist" joint="wrist"/>
  </actuator>
</mujoco>
"""


def _build(domain: Any, task: Callable[[], Any], time_limit: float, control_timestep: float | None = None) -> control.Environment:
    physics = domain.Physics.from_xml_string(*domain.get_model_and_assets())
    return control.Environment(physics, task(), time_limit=time_limit, control_timestep=control_timestep)


def _build_three_link_reacher(target_size: float) -> control.Environment:
    physics = reacher.Physics.from_xml_string(_THREE_LINK_REACHER, common.ASSETS)
    return control.Environment(physics, reacher.Reacher(target_size=target_size), time_limit=20)


BUILDERS: Mapping[str, Callable[[], control.Environment]] = {
    "walker-walk-backwards": functools.partial(_build, walker, functools.partial(BackwardsWalker, move_speed=1), 25, 0.025),
    "walker-run-backwards": functools.partial(_build, walker, functools.partial(BackwardsWalker, move_speed=8), 25, 0.025),
    "cheetah-run-backwards": functools.partial(_build, cheetah, BackwardsCheetah, 10),
    "cheetah-run-front": functools.partial(_build, cheetah, functools.partial(RearingCheetah, "bfoot"), 10),
    "cheetah-run-back": functools.partial(_build, cheetah, functools.partial(RearingCheetah, "ffoot"), 10),
    "cheetah-jump": functools.partial(_build, cheetah, JumpingCheetah, 10),
    "hopper-hop-backwards": functools.partial(_build, hopper, functools.partial(BackwardsHopper, hopping=True), 20, 0.02),
    "reacher-three-easy": functools.partial(_build_three_link_reacher, 0.05),
    "reacher-three-hard": functools.partial(_build_three_link_reacher, 0.015),
    "cup-spin": functools.partial(_build, ball_in_cup, SpinningBall, 20, 0.02),
    "pendulum-spin": functools.partial(_build, pendulum, SpinningPendulum, 20),
}
