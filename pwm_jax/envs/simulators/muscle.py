"""Muscle-driven bodies: those of musclemimic-models (MyoFullBody and its two arms), whole or in part."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from brax.envs.base import State

from pwm_jax.envs.simulators.locomotion import LocomotionEnv, Runner
from pwm_jax.envs.simulators.mjx_env import MjxEnv
from pwm_jax.envs.simulators.models import collide_with_floor_only, package_folder
from pwm_jax.envs.simulators.reset import JointNoise

# Steps of 0.01 s; the models are stable at twice MyoFullBody's own time step of 0.001 s.
_TIMESTEP = 0.002
_N_FRAMES = 5
_PARTS = {"muscle-legs": {"legs"}, "muscle-legs-torso": {"legs", "torso"}, "muscle-body": {"legs", "torso", "arms"}}
_RUNNER = Runner(
    trunk="torso",
    height_of="head",
    extremities=("calcn_l", "calcn_r", "lunate_l", "lunate_r"),
    n_frames=_N_FRAMES,
    min_height=1.2,
    min_upright=0.5,
    yaw=math.pi / 2,
)
_SOLES = {f"{side}_{geom}" for side in "lr" for geom in ("foot_col1", "foot_col3", "foot_col4", "bofoot_col1", "bofoot_col2")}
_HANDS = ("lunate_r", "lunate_l")
_REACH_SCALE = 0.2
_REACH_NOISE = 0.1
_REACH_TARGETS = 256
_CONTROL_COST = 0.1


def make(name: str, backend: str) -> MjxEnv:
    """A run task on legs, legs and torso or the full body, or a reaching task with both arms."""
    if name == "muscle-arms":
        return ReachEnv(_spec("arm/myoarm_bimanual.xml").compile(), backend)
    return LocomotionEnv(body_model(_PARTS[name]), _RUNNER, backend)


def _spec(path: str) -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(package_folder("musclemimic_models") / "model" / path))
    spec.option.timestep = _TIMESTEP
    for element in [*spec.sensors, *spec.keys, *spec.pairs]:
        spec.delete(element)
    return spec


def body_model(parts: set[str]) -> mujoco.MjModel:
    """MyoFullBody with the muscles and joints of some of its parts: "legs" (80 muscles), "torso" (210) and "arms" (126).

    Joints of other parts are welded in the reference pose, where geometry and masses stay. A muscle belongs to the arms if it
    touches an arm, else to the legs if it touches a leg, else to the torso. Only the soles collide, with the floor.
    """
    spec = _spec("body/myofullbody.xml")
    full = spec.compile()
    part_of_body = _part_of_body(full)
    part_of_tendon = {full.tendon(index).name: _part_of_tendon(full, part_of_body, index) for index in range(full.ntendon)}
    # The free joint is of no part.
    part_of_joint = {full.joint(joint).name: part_of_body[full.jnt_bodyid[joint]] for joint in range(1, full.njnt)}
    others = [
        *(actuator for actuator in spec.actuators if part_of_tendon[actuator.target] not in parts),
        *(tendon for tendon in spec.tendons if part_of_tendon[tendon.name] not in parts),
        *(equality for equality in spec.equalities if part_of_joint[equality.name1] not in parts),
        *(joint for joint in spec.joints if joint.name in part_of_joint and part_of_joint[joint.name] not in parts),
    ]
    for element in others:
        spec.delete(element)
    collide_with_floor_only(spec, _SOLES)
    return spec.compile()


def _part_of_body(model: mujoco.MjModel) -> list[str]:
    """Of each body: "arms" below the shoulder girdle's attachment, "legs" below the pelvis, else "torso"."""
    parts = ["torso"] * model.nbody
    roots = {model.body("bimanual_attachment").id: "arms", model.body("pelvis").id: "legs"}
    for body in range(1, model.nbody):
        # Parents come before their children.
        parts[body] = roots.get(model.body_parentid[body], parts[model.body_parentid[body]])
    return parts


def _part_of_tendon(model: mujoco.MjModel, part_of_body: list[str], tendon: int) -> str:
    path = range(model.tendon_adr[tendon], model.tendon_adr[tendon] + model.tendon_num[tendon])
    sites = [model.wrap_objid[index] for index in path if model.wrap_type[index] == mujoco.mjtWrap.mjWRAP_SITE]
    touched = {part_of_body[model.site_bodyid[site]] for site in sites}
    return next(part for part in ("arms", "legs", "torso") if part in touched)


class ReachEnv(MjxEnv):
    """Bring both hands to their targets and hold them there: MyoBimanualArm, 126 muscles, its thorax fixed in the air.

    Targets (`info["target"]` [2, 3], right and left) are drawn at reset, each hand's from 256 places where that hand is in a random
    pose of the joints. Observation [o], in order: joint positions [nq] and velocities [nv], the hands' positions [6], target minus
    hand [6], activations [na]. Nothing collides.

    Reward: the mean over hands of exp(-d / 0.2), with d the distance in metres, less 0.1 times the effort (`MjxEnv.effort`).
    No episode terminates.

    Reset: the reference pose with joint noise uniform in +-0.1 rad, at rest; joints coupled to others follow them.
    """

    def __init__(self, model: mujoco.MjModel, backend: str) -> None:
        model.geom_contype[:], model.geom_conaffinity[:] = 0, 0
        super().__init__(model, _N_FRAMES, backend)
        self._hands = np.array([model.body(name).id for name in _HANDS])
        self._joint_noise = JointNoise(model, model.qpos0, _REACH_NOISE)
        self._targets = jnp.asarray(self._reachable_places(model), jnp.float32)

    def _reachable_places(self, model: mujoco.MjModel) -> np.ndarray:
        """Places [256, 2, 3] of the hands in poses drawn anew, by one fixed seed, from the limits of the joints."""
        everywhere = JointNoise(model, model.qpos0, 2 * math.pi)
        poses = jax.vmap(everywhere.sample)(jax.random.split(jax.random.key(0), _REACH_TARGETS))
        data = mujoco.MjData(model)
        places = []
        for pose in np.asarray(poses):
            data.qpos[:] = pose
            mujoco.mj_kinematics(model, data)
            places.append(data.xpos[self._hands].copy())
        return np.stack(places)

    def reset(self, rng: jax.Array) -> State:
        """Start an episode."""
        joint_key, target_key = jax.random.split(rng)
        physics = self.pipeline_init(self._joint_noise.sample(joint_key), jnp.zeros(self.mj_model.nv))
        target = self._targets[jax.random.randint(target_key, (2,), 0, _REACH_TARGETS), jnp.arange(2)]
        zero = jnp.zeros(())
        return State(physics, self._observe(physics, target), zero, zero, {"distance": zero, "effort": zero}, {"target": target})

    def step(self, state: State, action: jax.Array) -> State:
        """Take one step."""
        physics = self.pipeline_step(state.pipeline_state, action)
        target, effort = state.info["target"], self.effort(action)
        # The offset keeps the gradient finite where a hand is on its target.
        distance = jnp.sqrt(jnp.sum(jnp.square(target - physics.xpos[self._hands]), axis=-1) + 1e-8)
        reward = jnp.mean(jnp.exp(-distance / _REACH_SCALE)) - _CONTROL_COST * effort
        return state.replace(
            pipeline_state=physics,
            obs=self._observe(physics, target),
            reward=reward,
            metrics={"distance": jnp.mean(distance), "effort": effort},
        )

    def _observe(self, physics: Any, target: jax.Array) -> jax.Array:
        hands = physics.xpos[self._hands]
        return jnp.concatenate([physics.qpos, physics.qvel, hands.ravel(), (target - hands).ravel(), physics.act])
