"""Floating-point operations of the updates by formula: matrix products alone, two operations a multiply-add.

A layer's gradient with respect to its input is counted where something upstream needs it: not that of a first layer which reads data or
a latent behind a `stop_gradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pwm_jax.config import Config


def products(widths: Sequence[int], *, forward: bool = True, weights: bool = False, inputs: bool = False, first_input: bool = True) -> int:
    """FLOP a row of an MLP with these widths: of its forward pass, of its weights' gradients, of those of its layers' inputs."""
    layers = [a * b for a, b in pairwise(widths)]
    return 2 * ((forward + weights + inputs) * sum(layers) - (inputs and not first_input) * layers[0])


def networks(config: Config) -> dict[str, list[int]]:
    """Widths of every network, its input first."""
    m, p = config.model, config.policy
    step = m.latent_dim + m.task_dim + m.action_dim
    return {
        "encoder": [m.obs_dim + m.task_dim, *m.enc_hidden, m.latent_dim],
        "dynamics": [step, *m.mlp_hidden, m.latent_dim],
        "reward": [step, *m.mlp_hidden, m.num_bins if m.reward_head == "two_hot" else 1],
        "actor": [config.policy_input_dim, *p.actor_hidden, m.action_dim],
        "critic": [config.policy_input_dim, *p.critic_hidden, 1],
    }


def model_update(config: Config) -> dict[str, int]:
    """FLOP of one pre-training step, by part: every window's rollout and rewards, the encoder at z_0, and its targets without gradient."""
    net, c = networks(config), config.world_model
    rows, learnt = c.batch_size * c.horizon, dict(weights=True, inputs=True)
    return {
        "encoder": c.batch_size * products(net["encoder"], **learnt, first_input=False) + rows * products(net["encoder"]),
        "dynamics": config.model.model_ensemble * rows * products(net["dynamics"], **learnt),
        "reward": config.model.model_ensemble * rows * products(net["reward"], **learnt),
    }


def imagination(config: Config, backward: bool) -> dict[str, int]:
    """FLOP of a policy's rollouts through the model and of their returns; with `backward` of the actor's gradient too."""
    net, p = networks(config), config.policy
    rows = p.batch_size * p.horizon
    through = dict(inputs=backward)
    actor = products(net["actor"], weights=backward, inputs=backward, first_input=not p.detach_actor_input)
    return {
        "encoder": p.batch_size * products(net["encoder"]),
        "dynamics": config.model.model_ensemble * rows * products(net["dynamics"], **through),
        "reward": rows * products(net["reward"], **through),
        "actor": rows * actor,
        "bootstrap": p.batch_size * p.num_critics * products(net["critic"], **through),
    }


def policy_update(config: Config) -> dict[str, int]:
    """FLOP of one iteration of extraction by part, the terms beyond the paper's loss left out."""
    net, p = networks(config), config.policy
    rows = p.batch_size * p.horizon * p.num_critics
    return imagination(config, backward=True) | {
        "targets": rows * products(net["critic"]),
        "critics": p.critic_passes * rows * products(net["critic"], weights=True, inputs=True, first_input=False),
    }
