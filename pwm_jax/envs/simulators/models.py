"""MuJoCo models of installed packages, changed where they are loaded; no file is copied."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path

import mujoco


def package_folder(package: str) -> Path:
    """Where a package is installed, without importing it.

    Raises:
      ModuleNotFoundError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(found.origin).parent


def suite_spec(domain: str) -> mujoco.MjSpec:
    """The model of a dm_control suite domain, less its sensors."""
    spec = mujoco.MjSpec.from_file(str(package_folder("dm_control") / "suite" / f"{domain}.xml"))
    for sensor in list(spec.sensors):
        spec.delete(sensor)
    return spec


def collide_with_floor_only(spec: mujoco.MjSpec, names: Collection[str], floor: str = "floor") -> None:
    """Let the named geoms collide with the floor, and nothing else with anything.

    MJX computes every pair that may touch in every step; of a body that is up and running only the feet matter.
    """
    for pair in list(spec.pairs):
        spec.delete(pair)
    for geom in spec.geoms:
        geom.contype = 1 if geom.name == floor else 0
        geom.conaffinity = 1 if geom.name in names else 0
