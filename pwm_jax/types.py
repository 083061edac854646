"""The data types that cross module borders: frozen, time-major, padded to the task set's dimensions.

Sizes: B batch, H horizon, O padded observation, A padded action, D latent, N environments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import flax.struct
import numpy as np
from jax import Array

AnyArray = Array | np.ndarray  # where host and device code meet
Params = Any
Metrics = Mapping[str, Array]


def as_leaves(*values: np.ndarray) -> tuple[Array, ...]:
    """The NumPy arrays unchanged, typed as the device arrays that a jitted function sees: how host code fills a `Batch` or `Transition`."""
    return cast(tuple[Array, ...], values)


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What is static about a task; `task_id` is its row in the task embedding, its position in the task set.

    `obs_dim` and `action_dim` are native sizes (before padding), `episode_length` counts agent steps
    (after action repeat), `max_return` is the largest return of one episode.
    """

    name: str
    task_id: int
    suite: str
    obs_dim: int
    action_dim: int
    episode_length: int
    max_return: float

    @property
    def discount(self) -> float:
        """TD-MPC2's discount for episodes of this length: (f - 1) / f with f = length / 5, at least 0.95 and at most 0.995."""
        fifth = self.episode_length / 5
        return min(max((fifth - 1) / fifth, 0.95), 0.995)


class Transition(flax.struct.PyTreeNode):
    """One agent step of N environments: obs [N, O], action [N, A], reward, terminated, truncated [N]."""

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: Array
    truncated: Array


class Batch(flax.struct.PyTreeNode):
    """Windows of recorded episodes: obs [H+1, B, O], action [H, B, A], reward, terminated [H, B], task_id [B].

    `obs[t]` is seen before `action[t]`; `reward[t]` and `terminated[t]` (0 or 1, float32) are what it led to.
    """

    obs: Array
    action: Array
    reward: Array
    terminated: Array
    task_id: Array


class Starts(NamedTuple):
    """Where imagination starts: obs [B, O], the recorded action [B, A], task_id [B]."""

    obs: Array
    action: Array
    task_id: Array


class Rollout(flax.struct.PyTreeNode):
    """An imagined (or simulated) trajectory: z [H+1, B, D], action [H, B, A], reward and discount [H, B].

    `z` is what actor and critics read, with the task's embedding appended where the policy is `task_conditioned`.
    `discount[t]` is d_t, the probability that step t does not terminate; 1 without a termination head.
    """

    z: Array
    action: Array
    reward: Array
    discount: Array


class Moments(flax.struct.PyTreeNode):
    """Running mean, variance and count of a stream of values (Chan's parallel update)."""

    mean: Array
    var: Array
    count: Array


class QState(flax.struct.PyTreeNode):
    """What Q-learning beside a world model carries (TD-MPC2): averaged Q heads, the prior's optimiser, the running scale of Q."""

    target_params: Params
    prior_opt_state: Any
    scale: Array


class WorldModelState(flax.struct.PyTreeNode):
    """Everything that pre-training carries from one gradient step to the next; `q` is None for a model without Q heads."""

    step: Array
    params: Params
    opt_state: Any
    reward_moments: Moments
    q: QState | None = None


class PolicyState(flax.struct.PyTreeNode):
    """Everything that extraction carries from one iteration to the next, for one task and seed.

    `target_critic_params` equals `critic_params` unless an averaging rate is configured.
    """

    step: Array
    actor_params: Params
    critic_params: Params
    target_critic_params: Params
    actor_opt_state: Any
    critic_opt_state: Any
    return_moments: Moments


@dataclasses.dataclass(frozen=True)
class EpisodeStats:
    """Real-environment results, one entry an episode: all arrays [N].

    `score` is return / 1000 on dm_control and success at the last step on Meta-World.
    """

    task_id: np.ndarray
    episode_return: np.ndarray
    success: np.ndarray
    score: np.ndarray
    length: np.ndarray


class Policy(Protocol):
    """How everything that steps a real environment knows a policy."""

    def __call__(self, obs: AnyArray, task_id: AnyArray, key: Array) -> AnyArray:
        """Map obs [N, O] and task_id [N] to actions [N, A] in [-1, 1]."""
        ...
