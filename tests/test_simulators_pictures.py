"""Frames of simulated episodes: of Brax's tasks, of a robot and of muscles, by OpenGL and as schematics."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from pwm_jax.envs import rendering
from pwm_jax.envs.simulators import episode_page, make_env, render_episode


@pytest.fixture(autouse=True)
def _probe_again() -> None:
    rendering.rendering_available.cache_clear()


def _two_poses(qpos: np.ndarray) -> np.ndarray:
    poses = np.stack([qpos, qpos]).astype(np.float32)
    poses[1, 7:] += 0.3
    return poses


@pytest.mark.parametrize("name", ["mjx-quadruped", "mjx-humanoid-cmu", "muscle-legs", "muscle-arms"])
@pytest.mark.parametrize("drawing", ["opengl", "schematic"])
def test_frames_show_a_body_that_moves(name: str, drawing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if drawing == "schematic":
        monkeypatch.setenv("MUJOCO_GL", "disabled")
    elif rendering.rendering_available() is None:
        pytest.skip("no OpenGL on this machine")
    env = make_env(name, "mujoco")
    state = env.reset(jax.random.key(0))
    frames = render_episode(env, _two_poses(np.asarray(state.pipeline_state.qpos)), height=96, width=128)
    assert [(frame.shape, frame.dtype) for frame in frames] == [((96, 128, 3), np.uint8)] * 2
    assert frames[0].std() > 5
    assert 0.001 < (frames[0] != frames[1]).any(axis=2).mean() < 0.9
    # States are as good as positions.
    np.testing.assert_array_equal(render_episode(env, [state, state.pipeline_state], 96, 128)[1], frames[0])


def test_frames_and_page_of_a_brax_task() -> None:
    env = make_env("brax-hopper", "spring")
    state = jax.jit(env.reset)(jax.random.key(0)).pipeline_state
    frames = render_episode(env, [state, state.replace(q=state.q + 0.4)], height=96, width=128)
    assert frames[0].std() > 5
    assert (frames[0] != frames[1]).any(axis=2).mean() > 0.001
    assert "brax" in episode_page(env, [state])


def test_cameras_by_name_and_what_is_refused() -> None:
    env = make_env("mjx-quadruped", "mujoco")
    qpos = np.asarray(env.mj_model.qpos0)[None]
    beside, before = (render_episode(env, qpos, 64, 64, camera)[0] for camera in ("y", "x"))
    assert (beside != before).any()
    assert env.mj_model.vis.global_.offwidth != 64
    with pytest.raises(ValueError, match="no camera 'z': there are global, x, y, egocentric"):
        render_episode(env, qpos, 64, 64, "z")
    with pytest.raises(ValueError, match=r"have shape \(23,\), not \(22,\)"):
        render_episode(env, qpos[:, 1:])
    with pytest.raises(ValueError, match="only Brax's own tasks have a page"):
        episode_page(env, [])
