"""The optimisers of world model, actor and critics, as optax transformations of their configurations."""

from __future__ import annotations

import optax

from pwm_jax import ops
from pwm_jax.config import PolicyConfig, WorldModelConfig


def world_model_tx(config: WorldModelConfig) -> optax.GradientTransformation:
    """Adam, clipped by the global norm of all gradients, with a smaller rate for the encoder."""
    rate = ops.linear_decay(config.lr, config.final_lr, config.decay_steps) if config.decay_steps else (lambda _: config.lr)
    scaled = lambda step: config.encoder_lr_scale * rate(step)  # noqa: E731
    labels = lambda params: {name: "encoder" if name == "encoder" else "rest" for name in params}  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.partition({"encoder": optax.adam(scaled), "rest": optax.adam(rate)}, labels),
    )


def prior_tx(config: WorldModelConfig) -> optax.GradientTransformation:
    """TD-MPC2's policy prior: Adam with epsilon 1e-5, clipped on its own."""
    return optax.chain(optax.clip_by_global_norm(config.prior_clip_norm), optax.adam(config.prior_lr, eps=1e-5))


def _policy_tx(config: PolicyConfig, lr: float, clip_norm: float, decay_steps: int) -> optax.GradientTransformation:
    """Adam with the policy's betas, clipped by global norm, its rate falling linearly to `final_lr`."""
    rate = ops.linear_decay(lr, config.final_lr, decay_steps)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(rate, b1=config.adam_b1, b2=config.adam_b2))


def actor_tx(config: PolicyConfig) -> optax.GradientTransformation:
    """The actor's optimiser, one step an iteration."""
    return _policy_tx(config, config.actor_lr, config.actor_clip_norm, config.decay_steps)


def critic_tx(config: PolicyConfig) -> optax.GradientTransformation:
    """The critics' optimiser, whose schedule counts their several gradient steps in each iteration."""
    per_iteration = config.critic_passes * config.critic_minibatches
    return _policy_tx(config, config.critic_lr, config.critic_clip_norm, config.decay_steps * per_iteration)
