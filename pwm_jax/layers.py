"""The layers that the networks are made of: TD-MPC2's blocks (arXiv 2310.16828) and what their ensembles and batches need.

LayerNorm epsilon and initialisation are the published ones, so that published parameters map onto these modules one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pwm_jax import ops

LAYER_NORM_EPSILON = 1e-5  # PyTorch's default; Flax's is 1e-6
SPECTRAL_ITERATIONS = 32  # 8 leave the norm of a fresh 512 x 512 kernel up to 8 % too small


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's default initialiser of a linear layer, weight and bias alike: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def linear(features: int, dtype: str, **fields: Any) -> nn.Dense:
    """Linear layer; with `dtype` bfloat16 its product has such operands and such a result (an accelerator adds up in float32)."""
    return nn.Dense(features, dtype=jnp.bfloat16 if dtype == "bfloat16" else None, **fields)


def widened(x: Array) -> Array:
    """The last layer's result: float32 where it is bfloat16."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm with the published epsilon; its result is of its parameters' float32, whatever it reads."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, name=name)


def recomputed(function: Callable[[nn.LayerNorm, Array], Array], norm: nn.LayerNorm, x: Array) -> Array:
    """function(norm, x), whose intermediates the backward pass computes anew from x: to store and read them takes longer, and memory."""
    return nn.remat(function)(norm, x)


def stack(members: list[Array]) -> Array:
    """Stack ensemble members on a new first axis; one member is reshaped, which copies nothing."""
    return jnp.stack(members) if len(members) > 1 else members[0][None]


def flattened(network: Callable[[Array], Array], x: Array) -> Array:
    """Apply a network of rows to x [..., in], leading dimensions merged: XLA's CPU backend multiplies plain matrices faster.

    Not where a mesh shares out the batch (`jax.set_mesh`): shares of one dimension would be lost in a merged one, and be gathered.
    """
    if jax.sharding.AxisType.Auto in jax.sharding.get_abstract_mesh().axis_types:
        return network(x)
    y = network(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], *y.shape[1:])


class SpectralLinear(nn.Module):
    """Linear layer whose kernel is divided by its largest singular value (Miyato et al., arXiv 1802.05957), found by power iteration.

    The iteration starts anew from a fixed vector at every call, so that the layer stays a pure function of its parameters.
    """

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., in] -> [..., features]."""
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        fixed = jax.lax.stop_gradient(kernel)
        v = jnp.ones((self.features,)) * self.features**-0.5

        def iterate(_: int, v: Array) -> Array:
            v = fixed.T @ (fixed @ v)
            return v / (jnp.linalg.norm(v) + 1e-12)

        v = jax.lax.fori_loop(0, SPECTRAL_ITERATIONS, iterate, v)
        u = fixed @ v
        u = u / (jnp.linalg.norm(u) + 1e-12)
        normalised = kernel / (u @ kernel @ v + 1e-12)
        if self.dtype == "bfloat16":
            x, normalised = x.astype(self.dtype), normalised.astype(self.dtype)
        return widened(x @ normalised) + bias


def _norm_mish(norm: nn.LayerNorm, x: Array) -> Array:
    return ops.mish(norm(x))


def mish_norm(norm: nn.LayerNorm, x: Array) -> Array:
    """The order of actor and critics."""
    return norm(ops.mish(x))


class MLP(nn.Module):
    """Hidden layers of linear, LayerNorm, Mish (or linear, ReLU), then a last layer of `out` features.

    `output` names the last layer: `linear`, or a latent regulariser: `simnorm` (linear, LayerNorm, SimNorm), `none` (linear, LayerNorm,
    Mish), `relu` (linear; the hidden layers are then plain ReLU), `spectral` (spectrally normalised linear).
    """

    hidden: Sequence[int]
    out: int
    output: str = "linear"
    plain_relu: bool = False
    zero_last: bool = False
    simnorm_dim: int = 8
    simnorm_temperature: float = 1.0
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array, dropout_key: Array | None = None) -> Array:
        """[..., in] -> [..., out]. With a key, `dropout` acts between the first linear layer and its LayerNorm; without, nowhere."""
        return flattened(lambda rows: self._apply_rows(rows, dropout_key), x)

    def _apply_rows(self, x: Array, dropout_key: Array | None) -> Array:
        init = nn.initializers.normal(0.02)
        if self.plain_relu:
            init = nn.initializers.he_normal()  # 0.02 needs LayerNorm behind it to carry a signal
        for i, width in enumerate(self.hidden):
            x = linear(width, self.dtype, kernel_init=init, name=f"linear_{i}")(x)
            if i == 0 and dropout_key is not None:
                x = nn.Dropout(self.dropout, deterministic=False)(x, rng=dropout_key)
            x = nn.relu(x) if self.plain_relu else recomputed(_norm_mish, layer_norm(f"norm_{i}"), x)
        last = len(self.hidden)
        if self.output == "spectral":
            return SpectralLinear(self.out, self.dtype, name=f"linear_{last}")(x)
        last_init = nn.initializers.zeros if self.zero_last else init
        x = linear(self.out, self.dtype, kernel_init=last_init, name=f"linear_{last}")(x)
        if self.output == "simnorm":
            simnorm = lambda norm, x: ops.simnorm(norm(x), self.simnorm_dim, self.simnorm_temperature)  # noqa: E731
            return recomputed(simnorm, layer_norm(f"norm_{last}"), x)
        if self.output == "none":
            return recomputed(_norm_mish, layer_norm(f"norm_{last}"), x)
        if self.output not in ("linear", "relu"):
            raise ValueError(f"a network's output cannot be {self.output!r}")
        return widened(x)
