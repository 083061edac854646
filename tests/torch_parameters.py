"""Maps the parity fixtures' parameters (PyTorch names and (out, in) weights) onto this project's modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"


def load(name: str) -> dict[str, np.ndarray]:
    """All arrays of one fixture."""
    with np.load(FIXTURES / f"{name}.npz") as data:
        return {key: data[key] for key in data.files}


def _layer(arrays: dict[str, np.ndarray], source: str, index: int, norm: str | None) -> dict[str, Any]:
    layer = {f"linear_{index}": {"kernel": arrays[f"{source}.weight"].T, "bias": arrays[f"{source}.bias"]}}
    if norm and f"{norm}.weight" in arrays:
        layer[f"norm_{index}"] = {"scale": arrays[f"{norm}.weight"], "bias": arrays[f"{norm}.bias"]}
    return layer


def world_model(arrays: dict[str, np.ndarray], prefix: str = "param/") -> dict[str, Any]:
    """`param/_encoder.0.weight` and so on -> the parameter tree of `networks.WorldModel`."""
    params: dict[str, Any] = {}
    for source, name in (("_encoder", "encoder"), ("_dynamics", "dynamics_0"), ("_reward", "reward_head")):
        params[name] = {}
        for i in range(3):
            params[name] |= _layer(arrays, f"{prefix}{source}.{i}", i, f"{prefix}{source}.{i}.ln")
    if f"{prefix}_task_emb.weight" in arrays:
        params["task_embedding"] = arrays[f"{prefix}_task_emb.weight"]
    return params


def actor(arrays: dict[str, np.ndarray], prefix: str = "actor/") -> dict[str, Any]:
    """`actor/mu_net.0.weight` and so on -> the parameter tree of `networks.Actor`."""
    params: dict[str, Any] = {"log_std": arrays[f"{prefix}logstd"]}
    for i in range(4):
        params |= _layer(arrays, f"{prefix}mu_net.{3 * i}", i, f"{prefix}mu_net.{3 * i + 2}")
    return params


def critics(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """`critic0/critic.0.weight` and so on -> the parameter tree of `networks.CriticEnsemble`."""
    params: dict[str, Any] = {}
    for k in range(3):
        params[f"critic_{k}"] = {}
        for i in range(3):
            params[f"critic_{k}"] |= _layer(arrays, f"critic{k}/critic.{3 * i}", i, f"critic{k}/critic.{3 * i + 2}")
    return params
