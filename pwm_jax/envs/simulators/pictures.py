"""Pictures of simulated episodes: frames for every task, and Brax's interactive page for Brax's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pwm_jax.envs import rendering


def render_episode(
    env: Any, trajectory: np.ndarray | Sequence[Any], height: int = 240, width: int = 320, camera: str | int | None = None
) -> list[np.ndarray]:
    """Pictures [height, width, 3] uint8, one of each state, by OpenGL or as schematics where no OpenGL works.

    Args:
      env: what `make_env` gives, or a wrapper of it.
      trajectory: generalised positions [time, nq], or a sequence of single states or pipeline states.
      height: rows.
      width: columns.
      camera: name or id of one of the model's cameras, or -1 for a view of the whole scene, which follows nothing; if None, a view
        from the side that follows the body.

    Raises:
      ValueError: positions of another length than the model's, or no camera of this name.
    """
    import mujoco

    base = env.unwrapped
    # Renderers adapt a model's buffers to their size.
    model = (base.mj_model if hasattr(base, "mj_model") else base.sys.mj_model).__copy__()
    positions = _positions(trajectory)
    if positions.shape[1:] != (model.nq,):
        raise ValueError(f"a trajectory of this model has shape [time, {model.nq}], not {positions.shape}")
    if isinstance(camera, str):
        camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if camera_id < 0:
            raise ValueError(f"no camera {camera!r}: there are {', '.join(model.camera(index).name for index in range(model.ncam))}")
        camera = camera_id
    data = mujoco.MjData(model)
    renderer = rendering.make_renderer(model, height, width)
    frames = []
    try:
        for qpos in positions:
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            frames.append(renderer.render(model, data, _following(data) if camera is None else camera))
    finally:
        renderer.close()
    return frames


def episode_page(env: Any, pipeline_states: Sequence[Any]) -> str:
    """One HTML page on which an episode of one of Brax's own tasks plays; it loads its viewer from the network.

    Raises:
      ValueError: not one of Brax's own tasks.
    """
    from brax.io import html

    base = env.unwrapped
    if not hasattr(base, "sys"):
        raise ValueError("only Brax's own tasks have a page: use render_episode")
    return str(html.render(base.sys, list(pipeline_states)))


def _positions(trajectory: np.ndarray | Sequence[Any]) -> np.ndarray:
    if isinstance(trajectory, np.ndarray):
        return trajectory
    states = [getattr(state, "pipeline_state", state) for state in trajectory]
    # Brax's pipelines call positions q, MuJoCo qpos; of those that know both, both are the same.
    return np.stack([np.asarray(state.q if hasattr(state, "q") else state.qpos) for state in states])


def _following(data: Any) -> Any:
    """A camera that looks at the first body's centre of mass from the side, 4 m away."""
    import mujoco

    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = data.subtree_com[1]
    camera.distance, camera.azimuth, camera.elevation = 4.0, 90.0, -10.0
    return camera
