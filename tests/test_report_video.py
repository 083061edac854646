import base64

import numpy as np
import pytest
from PIL import Image

from pwm_jax.report import video


def moving_square(count=40, side=240):
    frames = np.full((count, side, side * 3 // 2, 3), (40, 60, 90), np.uint8)
    for i, frame in enumerate(frames):
        frame[100:130, 5 * i : 5 * i + 30] = (230, 160, 60)
    return list(frames)


def total_ms(image):
    time = 0
    for index in range(image.n_frames):
        image.seek(index)
        time += image.info["duration"]
    return time


def test_a_gif_keeps_time_shape_and_colours(tmp_path):
    path = video.save_gif(tmp_path / "deep" / "a.gif", moving_square(), fps=20)
    with Image.open(path) as image:
        assert (image.size, image.n_frames, image.info["loop"]) == ((180, 120), 40, 0)
        assert total_ms(image) == 2000
        image.seek(20)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    square = pixels[57, (5 * 20 + 15) // 2]
    assert np.abs(square - (230, 160, 60)).max() < 12
    assert np.abs(pixels[10, 10] - (40, 60, 90)).max() < 12


def test_a_long_noisy_episode_still_fits_and_keeps_its_playing_time(tmp_path):
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 255, (200, 120, 120, 3), dtype=np.uint8))
    path = video.save_gif(tmp_path / "a.gif", frames, fps=20, max_bytes=400_000)
    assert path.stat().st_size <= 400_000
    with Image.open(path) as image:
        assert total_ms(image) == pytest.approx(10_000, rel=0.05)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_what_cannot_fit_is_refused_without_leaving_a_file(tmp_path):
    with pytest.raises(ValueError, match="do not fit into 100 bytes"):
        video.save_gif(tmp_path / "a.gif", moving_square(10), max_bytes=100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames", [[], [np.zeros((8, 8, 3))], [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)]])
def test_frames_that_are_no_video_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match=r"a\.gif: a video needs frames of uint8"):
        video.save_gif(tmp_path / "a.gif", frames)


def test_one_gif_for_each_episode_and_its_data_uri(tmp_path):
    (path,) = video.save_videos(tmp_path, {("mw-reach", "extracted", 1): moving_square(3)})
    assert path == tmp_path / "videos" / "mw-reach-extracted-seed1.gif"
    head, body = video.data_uri(path).split(",")
    assert head == "data:image/gif;base64"
    assert base64.b64decode(body) == path.read_bytes()
