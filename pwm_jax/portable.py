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
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

FORMAT, VERSION = "pwm_jax policy", 1
LAYER_NORM_EPSILON, VARIANCE_FLOOR, OBS_CLIP = 1e-5, 1e-5, 10.0

After = Literal["", "relu", "norm, mish", "norm, simnorm", "mish, norm"]


# What NumPy raises where a .npy file or its header is damaged.
NPY_FAULTS: tuple[type[Exception], ...] = (
    OSError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError, RecursionError, SyntaxError, tokenize.TokenError
)  # fmt: skip
_ZIP_FAULTS: tuple[type[Exception], ...] = (*NPY_FAULTS, zipfile.BadZipFile, zlib.error, RuntimeError, struct.error)


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


def read_arrays(path: str | os.PathLike[str], most_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, read-only, each compared with its checksum before its header is believed.

    Raises:
        ValueError: the file is damaged, no .npz, or has more than `most_bytes` of content.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if (size := sum(entry.file_size for entry in entries)) > most_bytes:
                    raise ValueError(f"it claims to hold {size} bytes")
                if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                    raise ValueError("it is compressed otherwise than by deflate")
                if len({entry.filename for entry in entries}) < len(entries):
                    raise ValueError("two arrays have one name")
                return {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}
        except _ZIP_FAULTS as error:
            raise ValueError(_brief(error)) from error


def _array(content: bytes) -> np.ndarray:
    """The array of a .npy file's content, which has to be as long as the header says."""
    stream = io.BytesIO(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = readers[np.lib.format.read_magic(stream)](stream)
    elements = math.prod(shape)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would have to be unpickled")
    if elements * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"an array of {dtype} {shape} does not fit its {len(content)} bytes")
    if not elements:
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


def _brief(error: Exception) -> str:
    """An error that quotes a file, in one line that is safe to print."""
    return ascii(str(error)[:200])[1:-1]


def load_policy(path: str | os.PathLike[str]) -> PortablePolicy:
    """The policy of a file that `experiments.export` wrote. Nothing in it is run.

    Raises:
        PolicyFileError: the file is none of a policy, damaged, or of a newer version.
        OSError: it cannot be read.
    """
    try:
        arrays = read_arrays(path, os.path.getsize(path))
        about = json.loads(str(arrays.pop("about")))
        if about.pop("format") != FORMAT:
            raise PolicyFileError(f"{path} is no file of a policy")
        if (version := about.pop("version")) != VERSION:
            raise PolicyFileError(f"{path} is a policy of version {ascii(version)[:20]}, this code reads {VERSION}: export it again")
        layers = tuple(
            Layer(arrays.pop(f"kernel_{i}"), arrays.pop(f"bias_{i}"), after, arrays.pop(f"scale_{i}", None), arrays.pop(f"shift_{i}", None))
            for i, after in enumerate(about.pop("after"))
        )
        policy = PortablePolicy(layers=layers, obs_mean=arrays.pop("obs_mean", None), obs_var=arrays.pop("obs_var", None), **about)
        if arrays:
            raise ValueError(f"{', '.join(arrays)} belong to no layer")
        _check(policy)
        return policy
    except PolicyFileError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise PolicyFileError(f"{path} is no file of a policy, or damaged ({_brief(error)}): export it again") from error


def _check(policy: PortablePolicy) -> None:
    """Raise ValueError where a number cannot be, or the arrays do not fit each other or are not finite."""
    if not (isinstance(policy.task, str) and policy.task.isprintable() and policy.task):
        raise ValueError("its task has no name")
    for name, least in (("seed", 0), ("control_steps", 1), ("simnorm_dim", 1)):
        if type(value := getattr(policy, name)) is not int or value < least:
            raise ValueError(f"{name} is {value!r}")
    temperature = policy.simnorm_temperature
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise ValueError(f"simnorm_temperature is {temperature!r}")
    width = policy.obs_dim
    for i, layer in enumerate(policy.layers):
        needed = {"kernel": (width, layer.bias.shape[-1]), "bias": layer.bias.shape[-1:]}
        if "norm" in layer.after:
            needed |= {"scale": layer.bias.shape, "shift": layer.bias.shape}
        for name, shape in needed.items():
            array = getattr(layer, name)
            if array is None or array.shape != shape or not array.size or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} of layer {i} is not {shape} finite numbers in float32")
        if layer.after not in After.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"layer {i} is followed by {layer.after!r}")
        width = layer.bias.shape[-1]
        if "simnorm" in layer.after and width % policy.simnorm_dim:
            raise ValueError(f"layer {i} cannot be normalised in groups of {policy.simnorm_dim}")
    for array in (policy.obs_mean, policy.obs_var):
        if array is not None and (array.shape != (policy.obs_dim,) or array.dtype.kind != "f" or not np.isfinite(array).all()):
            raise ValueError("the observations' moments do not fit")
    if (policy.obs_mean is None) != (policy.obs_var is None) or (policy.obs_var is not None and policy.obs_var.min() < 0):
        raise ValueError("the observations' moments are not a mean and a variance")
