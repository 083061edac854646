"""Pictures of MuJoCo scenes without a display: OpenGL where a backend works, else a schematic drawing.

A backend that does not work can end the process, so each is tried in a process of its own before it is used.
"""

from __future__ import annotations

import functools
import importlib
import os
import platform
import subprocess
import sys
from typing import Any, Protocol

import numpy as np

SCHEMATIC = "schematic"
_PROBE_SECONDS = 60
_PROBE_XML = "<mujoco><worldbody><light pos='0 0 2'/><geom type='sphere' size='1' rgba='1 0 0 1'/></worldbody></mujoco>"
_MAX_GEOMS = 10_000
_SHADOW_SIZE = 1024


class RenderingError(RuntimeError):
    """An OpenGL backend that was asked for does not work."""


class Renderer(Protocol):
    """Draws one model at one size."""

    shape: tuple[int, int]

    def render(self, model: Any, data: Any, camera: Any) -> np.ndarray:
        """A picture [height, width, 3] uint8 of the state in `data`, from a camera's id or a mujoco.MjvCamera."""
        ...

    def close(self) -> None:
        """Free what the renderer holds."""
        ...


class OpenGLRenderer:
    """Off-screen OpenGL by MuJoCo, with a backend chosen when it is built (mujoco.Renderer fixes it at import)."""

    def __init__(self, model: Any, height: int, width: int, backend: str) -> None:
        import mujoco

        self.shape = (height, width)
        # The buffers are as large as the picture and no larger: on a CPU they cost most of the time and memory of a context.
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, _SHADOW_SIZE)
        self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)

    def render(self, model: Any, data: Any, camera: Any) -> np.ndarray:
        """A picture [height, width, 3] uint8 of the state in `data`."""
        import mujoco

        self._gl.make_current()
        mujoco.mjv_updateScene(model, data, self._option, None, mujoco_camera(model, camera), mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        pixels = np.empty((*self.shape, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._context)
        return np.flipud(pixels).copy()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def mujoco_camera(model: Any, camera: Any) -> Any:
    """A mujoco.MjvCamera for a fixed camera's id, -1 for the free camera; a mujoco.MjvCamera is passed through."""
    import mujoco

    if isinstance(camera, mujoco.MjvCamera):
        return camera
    result = mujoco.MjvCamera()
    if camera < 0:
        mujoco.mjv_defaultFreeCamera(model, result)
    else:
        result.type, result.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
    return result


def _candidates() -> tuple[str, ...]:
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen in ("egl", "osmesa", "glfw", "cgl"):
        return (chosen,)
    if chosen in ("disable", "disabled", "off", "false", "0"):
        return ()
    if platform.system() == "Linux":
        return ("egl", "osmesa", "glfw") if os.environ.get("DISPLAY") else ("egl", "osmesa")
    return ("cgl", "glfw") if platform.system() == "Darwin" else ("glfw",)


@functools.cache
def rendering_available() -> str | None:
    """The first OpenGL backend that draws a picture in a process of its own, or None if none does.

    MUJOCO_GL restricts the choice to one backend, or to none ("disabled").
    """
    for backend in _candidates():
        environ = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"} | {"MUJOCO_GL": "disabled"}
        try:
            probe = subprocess.run(
                [sys.executable, "-P", os.path.abspath(__file__), backend],
                env=environ,
                capture_output=True,
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        if probe.returncode == 0:
            return backend
    return None


def make_renderer(model: Any, height: int, width: int, backend: str | None = None) -> Renderer:
    """A renderer by OpenGL, or the labelled schematic where no OpenGL works.

    Args:
      model: mujoco.MjModel.
      height: rows of the pictures.
      width: columns of the pictures.
      backend: an OpenGL backend, or "schematic"; `rendering_available` decides if None.

    Raises:
      RenderingError: the backend asked for fails.
    """
    backend = backend or rendering_available() or SCHEMATIC
    if backend == SCHEMATIC:
        from pwm_jax.envs.draw import SchematicRenderer

        return SchematicRenderer(height, width)
    # PyOpenGL, which the egl and osmesa backends use, must be told its platform before its first import.
    if backend in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", backend)
    try:
        return OpenGLRenderer(model, height, width, backend)
    except Exception as error:
        raise RenderingError(
            f"OpenGL backend {backend!r} failed ({error}); set MUJOCO_GL to another (egl, osmesa, glfw), or to 'disabled' for "
            "schematic pictures"
        ) from error


def _probe(backend: str) -> int:
    import mujoco

    model = mujoco.MjModel.from_xml_string(_PROBE_XML)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    picture = OpenGLRenderer(model, 64, 64, backend).render(model, data, -1)
    return 0 if picture.std() > 1.0 else 1


if __name__ == "__main__":
    sys.exit(_probe(sys.argv[1]))
