"""The optimisers against Adam written out: clipping, betas, the schedules and the encoder's smaller rate."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import make_config

from pwm_jax.config import WorldModelConfig
from pwm_jax.optimisers import actor_tx, critic_tx, world_model_tx

GRADS = [np.array(g) for g in ([0.6, 0.8], [30.0, 40.0], [-1.0, 0.1], [0.0, 3.0])]
LINEAR = [1e-2, 5.5e-3, 1e-3, 1e-3]  # 1e-2 to 1e-3 in two steps


def adam(rates: list[float], clip: float, b1: float, b2: float) -> np.ndarray:
    """Updates of Adam on the globally clipped GRADS (Kingma & Ba, algorithm 1)."""
    m, v, updates = np.zeros(2), np.zeros(2), []
    for k, (raw, rate) in enumerate(zip(GRADS, rates, strict=True), start=1):
        grad = raw * min(1.0, clip / np.linalg.norm(raw))
        m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
        updates.append(-rate * (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + 1e-8))
    return np.array(updates)


def updates_of(tx: optax.GradientTransformation, first: str, second: str) -> np.ndarray:
    """What tx makes of GRADS as the gradients of two networks."""
    state, updates = tx.init({first: jnp.zeros(()), second: jnp.zeros(())}), []
    for grad in GRADS:
        update, state = tx.update({first: jnp.float32(grad[0]), second: jnp.float32(grad[1])}, state)
        updates.append([update[first], update[second]])
    return np.array(updates)


@pytest.mark.parametrize(("decay_steps", "rates"), [(0, [1e-2] * 4), (2, LINEAR)])
def test_world_model(decay_steps: int, rates: list[float]) -> None:
    config = WorldModelConfig(lr=1e-2, final_lr=1e-3, decay_steps=decay_steps, encoder_lr_scale=0.3, clip_norm=2.0)
    expected = adam(rates, 2.0, 0.9, 0.999) * [0.3, 1.0]
    np.testing.assert_allclose(updates_of(world_model_tx(config), "encoder", "dynamics_0"), expected, rtol=1e-4)


def test_actor() -> None:
    config = make_config(actor_lr=1e-2, final_lr=1e-3, decay_steps=2, adam_b1=0.7, adam_b2=0.95, actor_clip_norm=2.0).policy
    np.testing.assert_allclose(updates_of(actor_tx(config), "linear_0", "linear_1"), adam(LINEAR, 2.0, 0.7, 0.95), rtol=1e-4)


def test_the_critics_schedule_counts_iterations_not_gradient_steps() -> None:
    changes = dict(critic_lr=1e-2, final_lr=1e-3, decay_steps=1, adam_b1=0.7, adam_b2=0.95, critic_clip_norm=2.0)
    config = make_config(**changes, critic_passes=1, critic_minibatches=2).policy
    np.testing.assert_allclose(updates_of(critic_tx(config), "critic_0", "critic_1"), adam(LINEAR, 2.0, 0.7, 0.95), rtol=1e-4)
