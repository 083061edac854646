"""Pictures: by OpenGL where it works, schematic ones everywhere."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pwm_jax import envs
from pwm_jax.envs import rendering


@pytest.fixture(autouse=True)
def _probe_again() -> None:
    rendering.rendering_available.cache_clear()


def _coloured(picture: np.ndarray, channel: int) -> np.ndarray:
    """Pixels (row, column) where one colour channel stands out."""
    others = np.delete(picture.astype(int), channel, axis=2).max(axis=2)
    return np.argwhere(picture[..., channel].astype(int) - others > 40)


def test_disabled_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    assert rendering.rendering_available() is None


def test_a_backend_that_cannot_work_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("DISPLAY", raising=False)
    if rendering.platform.system() != "Linux":
        pytest.skip("glfw needs no DISPLAY here")
    assert rendering.rendering_available() is None
    assert os.environ["MUJOCO_GL"] == "glfw"


def _red_ball(x: float, z: float, backend: str) -> np.ndarray:
    """A picture, looking along +y, of a red ball of radius 0.2 at (x, 0, z), 2 away from the camera at the origin's height."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><worldbody><light pos='0 -3 3' dir='0 1 -1'/><geom type='sphere' size='0.2' pos='{x} 0 {z}' rgba='1 0 0 1'/>"
        "<camera name='front' pos='0 -2 0' xyaxes='1 0 0 0 0 1' fovy='60'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = rendering.make_renderer(model, 120, 160, backend)
    picture = renderer.render(model, data, 0)
    renderer.close()
    return picture


def _check_ball(backend: str) -> None:
    # 60 pixels above the axis are tan(30 degrees) of the distance: one unit at distance 2 is 51.96 pixels.
    pixels = _coloured(_red_ball(0.6, 0.4, backend), channel=0)
    np.testing.assert_allclose(pixels.mean(axis=0), [60 - 0.4 * 51.96, 80 + 0.6 * 51.96], atol=2.5)
    assert len(pixels) == pytest.approx(np.pi * (0.2 * 51.96) ** 2, rel=0.15)


def test_schematic_puts_things_where_perspective_says() -> None:
    _check_ball(rendering.SCHEMATIC)


def test_opengl_puts_things_where_perspective_says() -> None:
    backend = rendering.rendering_available()
    if backend is None:
        pytest.skip("no OpenGL on this machine")
    _check_ball(backend)


def test_unknown_backend_is_an_error() -> None:
    with pytest.raises(rendering.RenderingError, match="OpenGL backend 'nonsense' failed"):
        _red_ball(0.0, 0.0, "nonsense")


@pytest.mark.parametrize("name", ["walker-walk", "cup-catch", "fish-swim", "mw-hammer"])
def test_schematic_shows_motion(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    env = envs.make(name, seed=0)
    env.reset()
    before = env.render_frame(100, 120)
    assert before.shape == (100, 120, 3)
    assert before.dtype == np.uint8
    for _ in range(10):
        env.step(np.ones(env.facts.action_dim))
    changed = (env.render_frame(100, 120) != before).any(axis=2).mean()
    assert 0.001 < changed < 0.9
    env.close()


def test_render_needs_no_mode_and_wrong_modes_are_refused() -> None:
    assert envs.make("pendulum-swingup", seed=0, render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(ValueError, match="'human' is not offered"):
        envs.make("pendulum-swingup", seed=0, render_mode="human")
