"""Recorded frames as small animated GIFs, on disk and as data URIs."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# Tried in order until the file is small enough: longest side, colours, largest number of frames.
_LADDER = ((180, 96, 150), (180, 64, 120), (160, 48, 100), (160, 32, 80), (140, 24, 60), (120, 16, 48), (96, 16, 32))


def _encode(frames: Sequence[np.ndarray], side: int, colours: int, most: int, duration_s: float, path: Path) -> None:
    from PIL import Image

    kept = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    images = [Image.fromarray(frames[index]) for index in kept]
    scale = min(1.0, side / max(images[0].size))
    size = (max(1, round(images[0].width * scale)), max(1, round(images[0].height * scale)))
    images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    samples = [np.asarray(images[i]) for i in np.unique(np.linspace(0, len(images) - 1, min(8, len(images))).round().astype(int))]
    palette = Image.fromarray(np.concatenate(samples)).quantize(colours, method=Image.Quantize.MEDIANCUT)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    # GIF counts hundredths of a second, and browsers slow anything under 20 ms down.
    delay = max(20, round(1000 * duration_s / len(indexed) / 10) * 10)
    indexed[0].save(path, format="GIF", save_all=True, append_images=indexed[1:], duration=delay, loop=0, optimize=True)


def save_gif(path: str | os.PathLike[str], frames: Sequence[np.ndarray], fps: float = 20.0, max_bytes: int = 400_000) -> Path:
    """Save frames (uint8 [height, width, 3], all of one size) as a looping GIF of at most `max_bytes`; returns its path.

    `fps` is how many of the given frames play in a second. To fit, the picture shrinks to 180 pixels or less and frames
    are left out evenly, the playing time kept. Raises ValueError when there are no frames, they are not as described, or
    even the smallest version is too large.
    """
    path = Path(path)
    if (
        not len(frames)
        or any(frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != frames[0].shape for frame in frames)
        or frames[0].shape[2] != 3
    ):
        raise ValueError(f"{path.name}: a video needs frames of uint8 [height, width, 3], all of one size; found {len(frames)} frames")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        for side, colours, most in _LADDER:
            _encode(frames, side, colours, most, len(frames) / fps, temporary)
            if temporary.stat().st_size <= max_bytes:
                os.replace(temporary, path)
                return path
    finally:
        temporary.unlink(missing_ok=True)
    raise ValueError(f"{path.name}: {len(frames)} frames do not fit into {max_bytes:,} bytes; allow more or record fewer")


def video_name(task: str, method: str, seed: int) -> str:
    """The file name by which the page knows whose episode a GIF shows: `<task>-<method>-seed<k>.gif`."""
    return f"{task}-{method}-seed{seed}.gif"


def save_videos(
    workdir: str | os.PathLike[str], episodes: Mapping[tuple[str, str, int], Sequence[np.ndarray]], fps: float = 20.0
) -> list[Path]:
    """Save one GIF for each recorded episode, by (task, method, seed), into `<workdir>/videos/`; returns the paths."""
    return [save_gif(Path(workdir) / "videos" / video_name(*key), frames, fps) for key, frames in episodes.items()]


def data_uri(path: str | os.PathLike[str]) -> str:
    """A file as a `data:` URI for use inside one HTML file."""
    kind = mimetypes.guess_type(str(path))[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode('ascii')}"
