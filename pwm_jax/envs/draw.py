"""Schematic pictures of MuJoCo scenes without OpenGL: flat-shaded triangles, painted from far to near with Pillow.

MuJoCo lists what is visible and from where (that part of it needs no OpenGL); meshes are thinned out and textures and
shadows left out, so that the motion shows, not the looks. Every picture is labelled "schematic".
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pwm_jax.envs import rendering

_SUPERSAMPLE = 2
_SKY = np.array([0.93, 0.95, 0.98])
_FLOOR = np.array([[0.80, 0.84, 0.89], [0.74, 0.79, 0.85]])
_LIGHT = np.array([0.3, -0.5, 0.81])
_AMBIENT = 0.45
_GAIN = 1.1
_TILES = 16
_MESH_CELLS = 10
_BOX_CUTS = 5
_MAX_GEOMS = 2000


class SchematicRenderer:
    """Draws one model at one size; meshes are thinned out once."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = (height, width)
        self._scene: Any = None
        self._meshes: dict[int, np.ndarray] = {}

    def render(self, model: Any, data: Any, camera: Any) -> np.ndarray:
        """A labelled picture [height, width, 3] uint8 of the state in `data`."""
        import mujoco

        if self._scene is None:
            self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        view = rendering.mujoco_camera(model, camera)
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        projection = _Projection(self._scene.camera, *self.shape)
        floors, solids = [], []
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.rgba[3] < 0.1:
                continue
            if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
                floors.append(_floor(geom, projection))
            elif (faces := self._faces(model, geom)) is not None:
                solids.append(_shaded(faces, geom, projection))
        return _paint(floors, solids, projection)

    def _faces(self, model: Any, geom: Any) -> np.ndarray | None:
        import mujoco

        kinds = mujoco.mjtGeom
        if geom.type in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_ELLIPSOID):
            return _sphere() * geom.size
        if geom.type == kinds.mjGEOM_CAPSULE:
            radius, half_length = geom.size[0], geom.size[2]
            ball, side = _capsule()
            return ball * radius + side * [0.0, 0.0, half_length]
        if geom.type == kinds.mjGEOM_CYLINDER:
            return _cylinder() * geom.size
        if geom.type == kinds.mjGEOM_BOX:
            return _box() * geom.size
        if geom.type == kinds.mjGEOM_MESH:
            mesh = geom.dataid // 2
            if mesh not in self._meshes:
                self._meshes[mesh] = _thinned_mesh(model, mesh)
            return self._meshes[mesh]
        return None

    def close(self) -> None:
        """Nothing to free."""


class _Projection:
    """Perspective from world to pixels of the supersampled picture."""

    def __init__(self, cameras: Any, height: int, width: int) -> None:
        left, right = cameras
        self.origin = (np.array(left.pos) + np.array(right.pos)) / 2
        self.forward, self.up = np.array(left.forward), np.array(left.up)
        self.right = np.cross(self.forward, self.up)
        self.near = left.frustum_near
        self.rows, self.columns = height * _SUPERSAMPLE, width * _SUPERSAMPLE
        self._scale = self.rows / 2 * left.frustum_near / left.frustum_top

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [..., 3] to pixels [..., 2] (x, y) and depths [...]."""
        offset = points - self.origin
        depth = offset @ self.forward
        safe = np.maximum(depth, self.near)
        x = self.columns / 2 + self._scale * (offset @ self.right) / safe
        y = self.rows / 2 - self._scale * (offset @ self.up) / safe
        return np.stack([x, y], axis=-1), depth


def _grid_faces(points: np.ndarray) -> np.ndarray:
    """Two triangles for each cell of a grid of points [m, n, 3]: [2 (m-1) (n-1), 3, 3]."""
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    return np.concatenate([np.stack([a, b, c], axis=2).reshape(-1, 3, 3), np.stack([a, c, d], axis=2).reshape(-1, 3, 3)])


def _ball(latitudes: np.ndarray) -> np.ndarray:
    latitude, longitude = np.meshgrid(latitudes, np.linspace(0, 2 * np.pi, 17), indexing="ij")
    ring = np.sin(latitude)
    return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), np.cos(latitude)], axis=-1)


@functools.cache
def _sphere() -> np.ndarray:
    return _grid_faces(_ball(np.linspace(0, np.pi, 11)))


@functools.cache
def _capsule() -> tuple[np.ndarray, np.ndarray]:
    """A unit ball with its equator twice, and for each corner the end, +1 or -1, that it moves with."""
    half = np.linspace(0, np.pi / 2, 6)
    points = _ball(np.concatenate([half, np.pi - half[::-1]]))
    side = np.repeat([1.0, -1.0], len(half))[:, None, None]
    return _grid_faces(points), _grid_faces(np.broadcast_to(side, points.shape))


@functools.cache
def _cylinder() -> np.ndarray:
    radius, height = np.array([0.0, 1.0, 1.0, 0.0]), np.array([1.0, 1.0, -1.0, -1.0])
    angle = np.linspace(0, 2 * np.pi, 17)
    x, y = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
    return _grid_faces(np.stack([x, y, np.broadcast_to(height[:, None], x.shape)], axis=-1))


@functools.cache
def _box() -> np.ndarray:
    u, v = np.meshgrid(np.linspace(-1, 1, _BOX_CUTS), np.linspace(-1, 1, _BOX_CUTS), indexing="ij")
    top = _grid_faces(np.stack([u, v, np.ones_like(u)], axis=-1))
    upper = np.concatenate([np.roll(top, shift, axis=-1) for shift in range(3)])
    return np.concatenate([upper, -upper[:, ::-1]])


def _thinned_mesh(model: Any, mesh: int) -> np.ndarray:
    """A mesh's triangles after its vertices are merged within the cells of a coarse grid."""
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = model.mesh_vert[first : first + count]
    faces = model.mesh_face[model.mesh_faceadr[mesh] : model.mesh_faceadr[mesh] + model.mesh_facenum[mesh]]
    cell = max(float(np.ptp(vertices, axis=0).max()) / _MESH_CELLS, 1e-9)
    _, cluster = np.unique(np.floor((vertices - vertices.min(axis=0)) / cell), axis=0, return_inverse=True)
    cluster = cluster.reshape(-1)
    centres = np.stack([np.bincount(cluster, vertices[:, axis]) for axis in range(3)], axis=1) / np.bincount(cluster)[:, None]
    merged = cluster[faces]
    distinct = (merged[:, 0] != merged[:, 1]) & (merged[:, 1] != merged[:, 2]) & (merged[:, 2] != merged[:, 0])
    _, kept = np.unique(np.sort(merged[distinct], axis=1), axis=0, return_index=True)
    return centres[merged[distinct][kept]]


def _shaded(faces: np.ndarray, geom: Any, projection: _Projection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels [f, 3, 2], depths [f] and colours [f, 3] of one geom's triangles before the camera."""
    world = faces @ np.array(geom.mat).T + np.array(geom.pos)
    normal = np.cross(world[:, 1] - world[:, 0], world[:, 2] - world[:, 0])
    area = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(area, 1e-12)[:, None]
    towards_camera = np.sign(np.einsum("fi,fi->f", normal, projection.origin - world.mean(axis=1)))
    brightness = _AMBIENT + (1 - _AMBIENT) * np.clip((normal * towards_camera[:, None]) @ _LIGHT, 0.0, 1.0)
    pixels, depth = projection(world)
    visible = (depth.min(axis=1) > projection.near) & (area > 1e-12)
    colour = _GAIN * brightness[:, None] * np.array(geom.rgba[:3], np.float64)
    return pixels[visible], depth.mean(axis=1)[visible], colour[visible]


def _floor(geom: Any, projection: _Projection) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [t, 4, 2] and colours [t, 3] of a plane's tiles, a chequerboard that stays where it is as the camera moves."""
    frame, origin = np.array(geom.mat), np.array(geom.pos)
    half = np.array([size if size > 0 else np.inf for size in geom.size[:2]])
    eye = frame.T @ (projection.origin - origin)
    gaze = frame.T @ projection.forward
    reach = eye[2] / -gaze[2] if gaze[2] < -1e-3 else 4 * abs(eye[2])
    centre = eye[:2] + gaze[:2] * min(reach, 10 * abs(eye[2]))
    tile = 2.0 ** np.round(np.log2(max(reach, 1e-3) / 5))
    edges = [
        np.clip((np.floor(middle / tile) + np.arange(-_TILES, _TILES + 1)) * tile, -limit, limit)
        for middle, limit in zip(centre, half, strict=True)
    ]
    u, v = np.meshgrid(*edges, indexing="ij")
    local = np.stack([u, v, np.zeros_like(u)], axis=-1)
    corners = np.stack([local[:-1, :-1], local[1:, :-1], local[1:, 1:], local[:-1, 1:]], axis=2).reshape(-1, 4, 3)
    middle = corners.mean(axis=1)
    parity = np.floor(middle[:, :2] / tile).sum(axis=1).astype(int) % 2
    pixels, depth = projection(corners @ frame.T + origin)
    fade = np.clip(np.linalg.norm(middle[:, :2] - centre, axis=1) / (_TILES * tile), 0, 1)[:, None] ** 2
    colour = (1 - fade) * _FLOOR[parity] + fade * _SKY
    visible = (depth.min(axis=1) > projection.near) & (np.abs(np.ptp(corners, axis=1)[:, :2]).min(axis=1) > 0)
    return pixels[visible], colour[visible]


def _paint(floors: list[Any], solids: list[Any], projection: _Projection) -> np.ndarray:
    picture = Image.new("RGB", (projection.columns, projection.rows), tuple(int(255 * value) for value in _SKY))
    canvas = ImageDraw.Draw(picture)

    def fill(polygon: np.ndarray, colour: np.ndarray) -> None:
        red, green, blue = (int(255 * min(value, 1.0)) for value in colour)
        canvas.polygon([tuple(point) for point in polygon.tolist()], fill=(red, green, blue))

    for pixels, colours in floors:
        for polygon, colour in zip(pixels, colours, strict=True):
            fill(polygon, colour)
    if solids:
        pixels, depth, colours = (np.concatenate(parts) for parts in zip(*solids, strict=True))
        size = [projection.columns, projection.rows]
        inside = (pixels.max(axis=1) >= 0).all(axis=1) & (pixels.min(axis=1) < size).all(axis=1)
        for index in np.argsort(-depth):
            if inside[index]:
                fill(pixels[index], colours[index])
    small = picture.resize((projection.columns // _SUPERSAMPLE, projection.rows // _SUPERSAMPLE), Image.Resampling.BOX)
    ImageDraw.Draw(small).text((4, small.height - 14), "schematic", fill=(110, 116, 126))
    return np.asarray(small)
