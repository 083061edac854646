"""The two updates in plain PyTorch, beside those of JAX in one run: `pip install torch`, then `--cases=policy_update,policy_update_torch`.

The same losses, optimisers and shapes on the same parameters, written as a PyTorch user would: a loop over time, autograd, one Adam. Of the
published settings alone: SimNorm, one dynamics network, two-hot rewards. Before it is timed its losses must be those of `pwm_jax.pwm`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks import flops, updates
from benchmarks.work import Shape, Work
from pwm_jax import ops, pwm
from pwm_jax.config import Config
from pwm_jax.layers import LAYER_NORM_EPSILON

Layers = list[tuple[torch.Tensor, ...]]  # of a network: weight, bias, and LayerNorm's where it has one


def model_update(shape: Shape) -> Work:
    """One gradient step of pre-training."""
    config = updates.config_of(**dataclasses.asdict(shape))
    params = _perturbed(updates.fresh(config)[0])
    batch = updates.batch_of(config)
    model, (obs, action, reward) = Model(params, config), map(_tensor, (batch.obs, batch.action, batch.reward))
    task_id = torch.tensor(np.asarray(batch.task_id))
    rate, encoder = config.world_model.lr, _flat([model.encoder])
    others = [*_flat([model.dynamics, model.reward]), model.embedding]
    groups: list[dict[str, Any]] = [dict(params=encoder, lr=rate * config.world_model.encoder_lr_scale), dict(params=others)]
    adam = torch.optim.Adam(groups, lr=rate)

    _agree(model.loss(obs, action, reward, task_id), pwm.world_model_loss(params, batch, batch.reward, config)[0])

    def step() -> None:
        adam.zero_grad()
        model.loss(obs, action, reward, task_id).backward()
        torch.nn.utils.clip_grad_norm_(encoder + others, config.world_model.clip_norm)
        adam.step()
        with torch.no_grad():
            model.embedding.renorm_(2, 0, 1.0)

    return Work(step, flop=sum(flops.model_update(config).values()))


def policy_update(shape: Shape) -> Work:
    """One iteration of extraction."""
    config = updates.config_of(**dataclasses.asdict(shape))
    params, state = updates.fresh(config)
    params, actor_params, critic_params = map(_perturbed, (params, state.actor_params, state.critic_params))
    state = state.replace(actor_params=actor_params, critic_params=critic_params)
    p, m, starts = config.policy, config.model, updates.starts_of(config)
    model = Model(params, config)
    for parameter in [*_flat([model.encoder, model.dynamics, model.reward]), model.embedding]:
        parameter.requires_grad_(False)
    actor, log_std = _layers(state.actor_params), _tensor(state.actor_params["log_std"]).requires_grad_()
    critics = [_layers(state.critic_params[f"critic_{k}"]) for k in range(p.num_critics)]
    actor_weights, critic_weights = [*_flat([actor]), log_std], _flat(critics)
    betas = (p.adam_b1, p.adam_b2)
    actor_adam, critic_adam = (torch.optim.Adam(x, lr, betas) for x, lr in ((actor_weights, p.actor_lr), (critic_weights, p.critic_lr)))
    obs, task_id = _tensor(starts.obs), torch.tensor(np.asarray(starts.task_id))
    mask = _tensor(m.action_mask)[task_id]
    moments = ops.init_moments()
    mean, var, count = float(moments.mean), float(moments.var), float(moments.count)

    def value(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([_policy_network(critic, z)[..., 0] for critic in critics])

    def imagine(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z, std = model.encode(obs, task_id), log_std.clamp_min(p.log_std_floor).exp()
        latents, rewards = [z], []
        for eps in noise:
            action = torch.tanh(_policy_network(actor, z.detach()) + std * eps) * mask
            x = model.joined(z, action, task_id)
            rewards.append(model.expected_reward(x))
            z = _network(model.dynamics, x, m.simnorm_dim)
            latents.append(z)
        z, r = torch.stack(latents), torch.stack(rewards)
        discount = p.gamma ** torch.arange(p.horizon)
        return z, r, (discount[:, None] * r).sum(0) + p.gamma**p.horizon * value(z[-1]).min(0).values

    def actor_loss(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nonlocal mean, var, count
        z, r, returns = imagine(noise)
        seen = returns.detach()
        delta, total = seen.mean().item() - mean, count + len(seen)
        spread = var * count + seen.var(unbiased=False).item() * len(seen) + delta**2 * count * len(seen) / total
        mean, var, count = mean + delta * len(seen) / total, spread / total, total
        return -returns.mean() / (var + 1e-5) ** 0.5, z.detach(), r.detach()

    def targets(z: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            next_value = value(z[1:]).min(0).values
        target, found = next_value[-1], []
        for t in reversed(range(p.horizon)):
            target = r[t] + p.gamma * ((1 - p.lam) * next_value[t] + p.lam * target)
            found.append(target)
        return torch.stack(found[::-1])

    def fit_critics(z: torch.Tensor, target: torch.Tensor) -> None:
        z, target = z.reshape(-1, z.shape[-1]), target.reshape(-1)
        for _ in range(p.critic_passes):
            for rows in torch.randperm(len(z)).chunk(p.critic_minibatches):
                critic_adam.zero_grad()
                (value(z[rows]) - target[rows]).square().mean(1).sum().backward()
                torch.nn.utils.clip_grad_norm_(critic_weights, p.critic_clip_norm)
                critic_adam.step()

    def step() -> None:
        actor_adam.zero_grad()
        loss, z, r = actor_loss(torch.randn(p.horizon, p.batch_size, m.action_dim))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(actor_weights, p.actor_clip_norm)
        target = targets(z, r)
        actor_adam.step()
        critic_adam.zero_grad()
        fit_critics(z[:-1], target)

    noise = jax.random.normal(jax.random.key(2), (p.horizon, p.batch_size, m.action_dim))
    loss, (rollout, _, _, _) = pwm.actor_loss(state.actor_params, state, params, starts, noise, jnp.zeros(p.batch_size, jnp.int32), config)
    mine, z, r = actor_loss(_tensor(noise))
    _agree(mine, loss)
    _agree(targets(z, r).mean(), pwm.critic_targets(state.critic_params, rollout, jnp.asarray(p.gamma), config).mean())
    return Work(step, flop=sum(flops.policy_update(config).values()))


class Model:
    """The world model on the parameters of one in JAX."""

    def __init__(self, params: Any, config: Config) -> None:
        self.config = config
        self.embedding = _tensor(params["task_embedding"]).requires_grad_()
        self.encoder, self.dynamics, self.reward = (_layers(params[name]) for name in ("encoder", "dynamics_0", "reward_head"))
        m = config.model
        self.bins = torch.linspace(m.bin_low, m.bin_high, m.num_bins)

    def with_task(self, x: torch.Tensor, task_id: torch.Tensor) -> torch.Tensor:
        """x [..., B, D] and the embedding of each row's task side by side."""
        embedding = functional.embedding(task_id, self.embedding, max_norm=1.0)
        return torch.cat([x, embedding.expand(*x.shape[:-1], -1)], dim=-1)

    def encode(self, obs: torch.Tensor, task_id: torch.Tensor) -> torch.Tensor:
        """Latents."""
        return _network(self.encoder, self.with_task(obs, task_id), self.config.model.simnorm_dim)

    def joined(self, z: torch.Tensor, action: torch.Tensor, task_id: torch.Tensor) -> torch.Tensor:
        """What dynamics and reward read."""
        return torch.cat([self.with_task(z, task_id), action], dim=-1)

    def expected_reward(self, x: torch.Tensor) -> torch.Tensor:
        """In symlog space."""
        return (functional.softmax(_network(self.reward, x), dim=-1) * self.bins).sum(-1)

    def loss(self, obs: torch.Tensor, action: torch.Tensor, reward: torch.Tensor, task_id: torch.Tensor) -> torch.Tensor:
        """`pwm.world_model_loss` of windows without terminations."""
        c, m = self.config.world_model, self.config.model
        with torch.no_grad():
            target = self.encode(obs[1:], task_id)
        z, inputs, consistency = self.encode(obs[0], task_id), [], torch.zeros(())
        for t in range(c.horizon):
            inputs.append(self.joined(z, action[t], task_id))
            z = _network(self.dynamics, inputs[-1], m.simnorm_dim)
            consistency = consistency + c.rho**t * functional.mse_loss(z, target[t])
        logits = _network(self.reward, torch.stack(inputs))
        symlog = torch.sign(reward) * torch.log1p(reward.abs())
        position = (symlog.clamp(m.bin_low, m.bin_high) - m.bin_low) * ((m.num_bins - 1) / (m.bin_high - m.bin_low))
        two_hot = (1 - (position[..., None] - torch.arange(m.num_bins)).abs()).clamp_min(0)
        error = -(two_hot * functional.log_softmax(logits, dim=-1)).sum(-1).mean(1)
        weight = c.rho ** torch.arange(c.horizon)
        return c.consistency_coef * consistency / c.horizon + c.reward_coef * (weight * error).mean()


def _network(layers: Layers, x: torch.Tensor, simnorm_dim: int = 0) -> torch.Tensor:
    """Linear, LayerNorm, Mish; then a linear layer, with LayerNorm and SimNorm where `simnorm_dim` says."""
    for weight, bias, scale, shift in layers[:-1]:
        x = functional.mish(functional.layer_norm(functional.linear(x, weight, bias), bias.shape, scale, shift, LAYER_NORM_EPSILON))
    weight, bias, *norm = layers[-1]
    x = functional.linear(x, weight, bias)
    if not simnorm_dim:
        return x
    scale, shift = norm
    x = functional.layer_norm(x, bias.shape, scale, shift, LAYER_NORM_EPSILON)
    return functional.softmax(x.unflatten(-1, (-1, simnorm_dim)), dim=-1).flatten(-2)


def _policy_network(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """Linear, Mish, LayerNorm; then a linear layer."""
    for weight, bias, scale, shift in layers[:-1]:
        x = functional.layer_norm(functional.mish(functional.linear(x, weight, bias)), bias.shape, scale, shift, LAYER_NORM_EPSILON)
    return functional.linear(x, *layers[-1])


def _layers(params: Any) -> Layers:
    """The layers of a network of `pwm_jax.layers` or `.networks`, to be trained; PyTorch's weights are the kernels transposed."""
    layers = []
    for i in range(sum(name.startswith("linear_") for name in params)):
        linear, norm = params[f"linear_{i}"], params.get(f"norm_{i}", {})
        found = [_tensor(linear["kernel"]).T.contiguous(), _tensor(linear["bias"])]
        found += [_tensor(norm[name]) for name in ("scale", "bias") if norm]
        layers.append(tuple(tensor.requires_grad_() for tensor in found))
    return layers


def _perturbed(tree: Any) -> Any:
    """`tree` with noise on its float leaves, since zeros, of which the last layers are made at first, agree with anything."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + 0.01 * rng.standard_normal(x.shape, np.float32) if x.dtype == np.float32 else x, tree)


def _flat(networks: list[Layers]) -> list[torch.Tensor]:
    return [tensor for network in networks for layer in network for tensor in layer]


def _tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


def _agree(mine: torch.Tensor, theirs: Any) -> None:
    np.testing.assert_allclose(mine.item(), float(theirs), rtol=1e-4, err_msg="the PyTorch reference computes something else")
