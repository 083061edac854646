"""Pictures of simulated episodes: frames for every task, and Brax's interactive page for Brax's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pwm_jax.envs import rendering


class EpisodePictures:
    """Takes pictures of single states of a simulated task, by OpenGL or as schematics where no OpenGL works."""

    def __init__(self, env: Any, height: int, width: int, camera: str | int | None = None) -> None:
        """Start a renderer.

        Args:
          env: what `make_env` gives, or a wrapper of it.
          height: rows.
          width: columns.
          camera: name or id of one of the model's cameras, or -1 for a view of the whole scene, which follows nothing; if None, a
            view from the side that follows the body.

        Raises:
          ValueError: no camera of this name.
        """
        import mujoco

        base = env.unwrapped
        # Renderers adapt a model's buffers to their size.
        self.model = (base.mj_model if hasattr(base, "mj_model") else base.sys.mj_model).__copy__()
        if isinstance(camera, str):
            camera_id = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
            if camera_id < 0:
                names = ", ".join(self.model.camera(index).name for index in range(self.model.ncam))
                raise ValueError(f"no camera {camera!r}: there are {names}")
            camera = camera_id
        self._camera, self._data = camera, mujoco.MjData(self.model)
        self._renderer = rendering.make_renderer(self.model, height, width)

    def take(self, state: Any) -> np.ndarray:
        """The picture [height, width, 3] uint8 of a state, a pipeline state, or generalised positions [nq].

        Raises:
          ValueError: positions of another length than the model's.
        """
        import mujoco

        qpos = _positions(state)
        if qpos.shape != (self.model.nq,):
            raise ValueError(f"positions of this model have shape ({self.model.nq},), not {qpos.shape}")
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self.model, self._data)
        return self._renderer.render(self.model, self._data, _following(self._data) if self._camera is None else self._camera)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def render_episode(
    env: Any, trajectory: np.ndarray | Sequence[Any], height: int = 240, width: int = 320, camera: str | int | None = None
) -> list[np.ndarray]:
    """Pictures [height, width, 3] uint8, one of each state of a trajectory: what `EpisodePictures` takes, for each time step."""
    pictures = EpisodePictures(env, height, width, camera)
    try:
        return [pictures.take(state) for state in trajectory]
    finally:
        pictures.close()


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


def _positions(state: Any) -> np.ndarray:
    if isinstance(state, np.ndarray):
        return state
    state = getattr(state, "pipeline_state", state)
    # Brax's pipelines call positions q, MuJoCo qpos; of those that know both, both are the same.
    return np.asarray(state.q if hasattr(state, "q") else state.qpos)


def _following(data: Any) -> Any:
    """A camera that looks at the first body's centre of mass from the side, 4 m away."""
    import mujoco

    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = data.subtree_com[1]
    camera.distance, camera.azimuth, camera.elevation = 4.0, 90.0, -10.0
    return camera
