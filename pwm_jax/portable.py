"""A trained policy as one small file, and all that is needed to act with it: NumPy.

    from pwm_jax.portable import load_policy
    policy = load_policy("runs/quickstart/export/cartpole-swingup-seed7.npz")
    action = policy(observation)

`experiments.export` writes the files. The same policy acts on JAX's arrays too, inside a jitted function as well.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

FORMAT, VERSION = "pwm_jax policy", 1
LAYER_NORM_EPSILON, VARIANCE_FLOOR, OBS_CLIP = 1e-5, 1e-5, 10.0

After = Literal["", "relu", "norm, mish", "norm, simnorm", "mish, norm"]


class PolicyFileError(ValueError):
    """What is no file of a policy, or not one of this version."""


class Layer(NamedTuple):
    """x @ kernel [in, out] + bias [out], then what `after` names in this order; LayerNorm's scale and shift [out] where it names one."""

    kernel: np.ndarray
    bias: np.ndarray
    after: After = ""
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class PortablePolicy:
    """The deterministic policy of one task, on the task's own observations and actions, without padding and embedding.

    Encoder and actor are one chain of layers with a tanh at its end; actions lie in [-1, 1] and are for `control_steps` of the environment,
    whose rewards add up. `obs_mean` and `obs_var` [O] normalise observations where the model was trained so.
    """

    task: str
    seed: int
    control_steps: int
    layers: tuple[Layer, ...]
    simnorm_dim: int = 8
    simnorm_temperature: float = 1.0
    obs_mean: np.ndarray | None = None
    obs_var: np.ndarray | None = None

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return self.layers[0].kernel.shape[0]

    @property
    def action_dim(self) -> int:
        """Length of an action."""
        return self.layers[-1].kernel.shape[1]

    def __call__(self, obs: Any) -> Any:
        """Actions [..., A] for observations [..., O]: an array of NumPy or JAX, or dm_control's dictionary of one observation.

        Raises:
            ValueError: an observation of another length.
        """
        if isinstance(obs, Mapping):
            obs = np.concatenate([np.ravel(value) for value in obs.values()])
        xp = obs.__array_namespace__() if hasattr(obs, "__array_namespace__") else np
        x = xp.asarray(obs, dtype=xp.float32)
        if x.shape[-1:] != (self.obs_dim,):
            raise ValueError(f"{self.task} has observations of {self.obs_dim} numbers, not of shape {x.shape}")
        if self.obs_mean is not None and self.obs_var is not None:
            x = xp.clip((x - self.obs_mean) / np.sqrt(self.obs_var + np.float32(VARIANCE_FLOOR)), -OBS_CLIP, OBS_CLIP)
        for layer in self.layers:
            x = self._after(layer, x @ layer.kernel + layer.bias, xp)
        return xp.tanh(x)

    def _after(self, layer: Layer, x: Any, xp: Any) -> Any:
        for name in filter(None, layer.after.split(", ")):
            if name == "relu":
                x = xp.maximum(x, 0.0)
            elif name == "mish":
                e = xp.exp(xp.minimum(x, 20.0))
                n = e * (e + 2.0)
                x = x * (n / (n + 2.0))
            elif name == "norm":
                centred = x - x.mean(-1, keepdims=True)
                x = centred / xp.sqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON) * layer.scale + layer.shift
            else:
                groups = x.reshape(*x.shape[:-1], -1, self.simnorm_dim) / self.simnorm_temperature
                e = xp.exp(groups - groups.max(-1, keepdims=True))
                x = (e / e.sum(-1, keepdims=True)).reshape(x.shape)
        return x


def encoded(policy: PortablePolicy) -> bytes:
    """The content of the policy's file."""
    arrays = {name: value for name in ("obs_mean", "obs_var") if (value := getattr(policy, name)) is not None}
    for i, layer in enumerate(policy.layers):
        arrays |= {f"{name}_{i}": value for name in ("kernel", "bias", "scale", "shift") if (value := getattr(layer, name)) is not None}
    described = {name: getattr(policy, name) for name in ("task", "seed", "control_steps", "simnorm_dim", "simnorm_temperature")}
    about = {"format": FORMAT, "version": VERSION, **described, "after": [layer.after for layer in policy.layers]}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    return buffer.getvalue()


def load_policy(path: str | os.PathLike[str]) -> PortablePolicy:
    """The policy of a file that `experiments.export` wrote. Nothing in it is run.

    Raises:
        PolicyFileError: the file is none of a policy, damaged, or of a newer version.
        OSError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            about = json.loads(str(data["about"]))
            if about.pop("format") != FORMAT:
                raise PolicyFileError(f"{path} is no file of a policy")
            if (version := about.pop("version")) != VERSION:
                raise PolicyFileError(f"{path} is a policy of version {version}, this code reads {VERSION}: export it again")
            arrays = {name: data[name] for name in data.files}
            layers = tuple(
                Layer(arrays[f"kernel_{i}"], arrays[f"bias_{i}"], after, arrays.get(f"scale_{i}"), arrays.get(f"shift_{i}"))
                for i, after in enumerate(about.pop("after"))
            )
            policy = PortablePolicy(layers=layers, obs_mean=arrays.get("obs_mean"), obs_var=arrays.get("obs_var"), **about)
            _check(policy)
            return policy
    except PolicyFileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, IndexError, zipfile.BadZipFile, NotImplementedError) as error:
        raise PolicyFileError(f"{path} is no file of a policy, or damaged ({error}): export it again") from error


def _check(policy: PortablePolicy) -> None:
    """Raise ValueError where the arrays do not fit each other, or are not finite."""
    width = policy.obs_dim
    for i, layer in enumerate(policy.layers):
        needed = {"kernel": (width, layer.bias.shape[-1]), "bias": layer.bias.shape[-1:]}
        if "norm" in layer.after:
            needed |= {"scale": layer.bias.shape, "shift": layer.bias.shape}
        for name, shape in needed.items():
            array = getattr(layer, name)
            if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} of layer {i} is not {shape} finite numbers in float32")
        if layer.after not in After.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"layer {i} is followed by {layer.after!r}")
        width = layer.bias.shape[-1]
        if "simnorm" in layer.after and width % policy.simnorm_dim:
            raise ValueError(f"layer {i} cannot be normalised in groups of {policy.simnorm_dim}")
    for array in (policy.obs_mean, policy.obs_var):
        if array is not None and (array.shape != (policy.obs_dim,) or not np.isfinite(array).all()):
            raise ValueError("the observations' moments do not fit")
