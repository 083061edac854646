"""Where episodes start: a standing pose, joint noise within limits, and joints that are coupled to others kept consistent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

_CLEARANCE = 0.005


def standing_pose(model: mujoco.MjModel, yaw: float, floor: str = "floor") -> np.ndarray:
    """Positions [nq] of the model's reference pose, turned about the vertical, its lowest colliding geometry just above the floor.

    Args:
      model: with a free joint first.
      yaw: turn in radians, counter-clockwise seen from above.
      floor: name of the plane.
    """
    data = mujoco.MjData(model)
    turn = np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
    mujoco.mju_mulQuat(data.qpos[3:7], turn, model.qpos0[3:7])
    data.qpos[:2] = 0.0
    mujoco.mj_kinematics(model, data)
    plane = model.geom(floor).id
    feet = [geom for geom in range(model.ngeom) if model.geom_conaffinity[geom] and geom != plane]
    height = min(mujoco.mj_geomDistance(model, data, plane, geom, 10.0, None) for geom in feet)
    data.qpos[2] += _CLEARANCE - height
    return data.qpos.copy()


class JointNoise:
    """Uniform noise on the hinge joints of a pose, clipped to their limits, then coupled joints set from those they follow."""

    def __init__(self, model: mujoco.MjModel, pose: np.ndarray, scale: float) -> None:
        is_hinge = model.jnt_type == mujoco.mjtJoint.mjJNT_HINGE
        address = model.jnt_qposadr[is_hinge]
        limited = model.jnt_limited[is_hinge].astype(bool)
        self._pose = jnp.asarray(pose, jnp.float32)
        self._address = jnp.asarray(address)
        self._low = jnp.asarray(np.where(limited, model.jnt_range[is_hinge, 0], -np.inf), jnp.float32)
        self._high = jnp.asarray(np.where(limited, model.jnt_range[is_hinge, 1], np.inf), jnp.float32)
        self._scale = scale
        coupled = model.eq_type == mujoco.mjtEq.mjEQ_JOINT
        follower, leader = model.eq_obj1id[coupled], model.eq_obj2id[coupled]
        self._follower, self._leader = jnp.asarray(model.jnt_qposadr[follower]), jnp.asarray(model.jnt_qposadr[leader])
        self._has_leader = jnp.asarray(leader >= 0)
        self._coefficients = jnp.asarray(model.eq_data[coupled, :5], jnp.float32)
        self._reference = jnp.asarray(model.qpos0, jnp.float32)

    def sample(self, key: jax.Array) -> jax.Array:
        """Positions [nq]: q_i = q0_i + sum_k c_k (q_j - q0_j)^k for a joint i that is coupled to joint j."""
        noise = jax.random.uniform(key, self._address.shape, minval=-self._scale, maxval=self._scale)
        joints = jnp.clip(self._pose[self._address] + noise, self._low, self._high)
        qpos = self._pose.at[self._address].set(joints)
        turn = jnp.where(self._has_leader, qpos[self._leader] - self._reference[self._leader], 0.0)
        powers = jnp.power(turn[:, None], jnp.arange(5))
        return qpos.at[self._follower].set(self._reference[self._follower] + jnp.sum(self._coefficients * powers, axis=-1))
