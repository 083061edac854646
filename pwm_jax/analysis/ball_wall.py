"""A ball thrown over a wall: an objective with a cliff and a plateau, fits of it, and what gradient ascent finds through each.

The toy problem of the paper (arXiv 2407.02466, figure 2). The true gradient is zero where the ball stops at the wall and
knows nothing of the cliff; a fitted network is smooth there.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from pwm_jax import ops
from pwm_jax.layers import SpectralLinear, layer_norm, torch_uniform
from pwm_jax.types import Params

SPEED, PUSH, GRAVITY, WALL, TIME = 10.0, 1.0, -9.81, 5.0, 2.0  # m/s, m/s^2 along x, m/s^2, m, s
Regulariser = Literal["relu", "none", "spectral", "simnorm"]


def distance(angle: Array) -> Array:
    """How far the ball is after 2 s, in metres, for launch angles in radians: at the wall where it comes down before it, else beyond.

    t_y = (sqrt(v^2 cos^2 + 2 a w) - v cos) / a is when it reaches the wall, y its height there; x = w where y < 0 and t_y < t,
    else v cos t + a t^2 / 2.
    """
    along, up = SPEED * jnp.cos(angle), SPEED * jnp.sin(angle)
    reach = (jnp.sqrt(along**2 + 2.0 * PUSH * WALL) - along) / PUSH
    height = up * reach + GRAVITY * reach**2 / 2.0
    return jnp.where((height < 0.0) & (reach < TIME), WALL, along * TIME + PUSH * TIME**2 / 2.0)


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How a network is fitted: `updates` of Adam on squared errors at `samples` angles on a grid over [-pi, pi]."""

    updates: int
    hidden: int = 32
    simnorm_dim: int = 8
    samples: int = 1000
    batch_size: int = 56
    lr: float = 2e-3


@dataclasses.dataclass(frozen=True)
class AscentConfig:
    """Adam's ascent from `starts` angles on a grid, on the mean over a Gaussian policy of `policy_std` rad, by `noises` draws a step."""

    starts: int = 64
    steps: int = 1_000
    lr: float = 0.01
    policy_std: float = 0.1
    noises: int = 64


class Fit(nn.Module):
    """Two hidden layers and a linear one: angles [N] -> metres [N], the second hidden layer regularised as a world model's latent is.

    PyTorch's default initialisation, as in the published script: LayerNorm behind a layer without biases sees the sign of one input only.
    """

    regulariser: Regulariser
    config: FitConfig

    @nn.compact
    def __call__(self, angle: Array) -> Array:
        """[N] -> [N]."""
        plain = self.regulariser == "relu"
        x = angle[:, None]
        x = self._dense(x, self.config.hidden, "linear_0")
        x = nn.relu(x) if plain else ops.mish(layer_norm("norm_0")(x))
        if self.regulariser == "spectral":
            x = SpectralLinear(self.config.hidden, name="linear_1")(x)
        else:
            x = self._dense(x, self.config.hidden, "linear_1")
        if plain:
            x = nn.relu(x)
        elif self.regulariser == "none":
            x = ops.mish(layer_norm("norm_1")(x))
        elif self.regulariser == "simnorm":
            x = ops.simnorm(layer_norm("norm_1")(x), self.config.simnorm_dim)
        return self._dense(x, 1, "linear_2")[:, 0]

    def _dense(self, x: Array, features: int, name: str) -> Array:
        initial = torch_uniform(x.shape[-1])
        return nn.Dense(features, kernel_init=initial, bias_init=initial, name=name)(x)


class BallWall(flax.struct.PyTreeNode):
    """What one seed's fit and ascent gave, over the grid of `samples` angles G and of `starts` S.

    `fitted` and its `slope` [G], the `found` angles [S], and for them the true `objective` [S] and its mean over the policy's noise [S].
    """

    fitted: Array
    slope: Array
    found: Array
    objective: Array
    noisy_objective: Array


def grid(count: int) -> Array:
    """`count` angles over [-pi, pi], both ends included."""
    return jnp.linspace(-jnp.pi, jnp.pi, count)


def noisy(angle: Array, std: float) -> Array:
    """E over e ~ N(0, std^2) of distance(angle + e) for angles [N], by the trapezoidal rule over +-5 std."""
    e = jnp.linspace(-5.0, 5.0, 2_001)
    weight = jnp.exp(-0.5 * e**2)
    return distance(angle[:, None] + std * e) @ (weight / weight.sum())


def fit(regulariser: Regulariser, key: Array, config: FitConfig) -> Params:
    """Parameters of a `Fit` of `distance`."""
    network, tx, angles = Fit(regulariser, config), optax.adam(config.lr), grid(config.samples)
    init_key, draw_key = jax.random.split(key)
    params = network.init(init_key, angles[:1])

    def loss(params: Params, x: Array) -> Array:
        return jnp.mean(jnp.square(network.apply(params, x) - distance(x)))

    def update(carry: tuple[Params, optax.OptState], key: Array) -> tuple[tuple[Params, optax.OptState], None]:
        params, opt_state = carry
        x = angles[jax.random.randint(key, (config.batch_size,), 0, config.samples)]
        updates, opt_state = tx.update(jax.grad(loss)(params, x), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(update, (params, tx.init(params)), jax.random.split(draw_key, config.updates))
    return params


@functools.partial(jax.jit, static_argnames=("regulariser", "fit_config", "ascent", "per_batch"))
def measure(regulariser: Regulariser | None, seeds: Array, fit_config: FitConfig, ascent: AscentConfig, per_batch: int = 0) -> BallWall:
    """Fit, then climb, for every seed [R] in one program; a `regulariser` of None climbs the true objective. Leaves begin with R.

    Of the seeds `per_batch` are vectorised at a time, see `ops.map_rows`.
    """
    tx, angles, starts = optax.adam(ascent.lr), grid(fit_config.samples), grid(ascent.starts)

    def one(seed: Array) -> BallWall:
        fit_key, noise_key = jax.random.split(jax.random.key(seed))
        value = distance
        if regulariser is not None:
            params = fit(regulariser, fit_key, fit_config)
            value = functools.partial(Fit(regulariser, fit_config).apply, params)
        slope = jax.grad(lambda x: value(x).sum())

        def climb(carry: tuple[Array, optax.OptState], key: Array) -> tuple[tuple[Array, optax.OptState], None]:
            angle, opt_state = carry
            noise = ascent.policy_std * jax.random.normal(key, (ascent.noises, 1))
            gradient = slope((angle + noise).reshape(-1)).reshape(ascent.noises, -1).mean(0)
            updates, opt_state = tx.update(-gradient, opt_state, angle)
            return (optax.apply_updates(angle, updates), opt_state), None

        keys = jax.random.split(noise_key, ascent.steps)
        (found, _), _ = jax.lax.scan(climb, (starts, tx.init(starts)), keys)
        return BallWall(value(angles), slope(angles), found, distance(found), noisy(found, ascent.policy_std))

    return ops.map_rows(one, seeds, per_batch)
