"""What a world model is like on held-out episodes, in the numbers that the paper's mechanism is about: accuracy, smoothness, gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import pwm
from pwm_jax.analysis import smoothness
from pwm_jax.analysis.gradients import gradient_stats
from pwm_jax.config import Config
from pwm_jax.data.sample import WindowSampler
from pwm_jax.data.store import Dataset
from pwm_jax.training.pretrain import open_loop_error
from pwm_jax.types import Params, Starts


@dataclasses.dataclass(frozen=True)
class MeasureConfig:
    """Of each world model: `windows` for its Jacobians, `samples` gradients of `horizon` steps, return slopes over `directions`.

    `length` is how far a policy's parameters are moved along each direction, either way.
    """

    windows: int = 32
    samples: int = 256
    chunk: int = 32
    horizon: int = 16
    directions: int = 32
    length: float = 0.1


def measure(params: Params, algorithm: Config, heldout: Dataset, settings: MeasureConfig, seed: int) -> Mapping[str, dict[str, float]]:
    """Measures of a world model on windows of each task of a dataset, by its name.

    The policy whose gradients and return slopes are taken is one before learning, the same for every model of a seed.
    """
    algorithm = dataclasses.replace(algorithm, policy=dataclasses.replace(algorithm.policy, detach_actor_input=False))
    rng = np.random.default_rng(seed)
    actor, noise_key, direction_key = (jax.random.fold_in(jax.random.key(seed), n) for n in range(3))
    actor_params = pwm.init_policy(algorithm, actor).actor_params
    noise = jax.random.normal(noise_key, (settings.horizon, settings.samples, algorithm.model.action_dim))
    measured: dict[str, dict[str, float]] = {}
    for task in np.unique(heldout.episodes.task_id).tolist():
        windows = WindowSampler(heldout.select(tasks=[task]), settings.samples, settings.horizon, terminations=False)(rng)
        latent, reward = jax.device_get(open_loop_error(params, windows, algorithm))
        few = jax.tree.map(lambda leaf: leaf[..., : settings.windows, :] if leaf.ndim == 3 else leaf[..., : settings.windows], windows)
        norms = jax.device_get(smoothness.jacobian_norms(params, few, algorithm))
        starts = Starts(jnp.asarray(windows.obs[0]), jnp.asarray(windows.action[0]), jnp.asarray(windows.task_id))
        stats = gradient_stats(actor_params, params, starts, noise, algorithm, (settings.horizon,), "model", settings.chunk)
        slopes = smoothness.return_lipschitz(
            actor_params, params, starts, noise, direction_key, algorithm, settings.length, settings.directions
        )
        measured[heldout.task_set.names[task]] = {
            "open_loop": float(latent.mean()),
            "reward_error": float(reward.mean()),
            "state_norm": float(np.median(norms.state)),
            "action_norm": float(np.median(norms.action)),
            "product_norm": float(np.median(norms.product[-1])),
            "return_slope": float(np.mean(slopes)),
            "variance": float(stats.variance[0]),
            "esnr": float(stats.esnr[0]),
        }
    return measured
