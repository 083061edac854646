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

    `obs[t]` is seen before `action[t]`; `reward[t]` and `terminated[t]` (0 or 1, float32) are what it led to. What follows a termination
    fills the window up and must not count: `ops.steps_lived` tells it.
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


class SimState(flax.struct.PyTreeNode):
    """N environments of a pure-JAX simulator between two steps: its own state, obs [N, O], steps of the running episode [N] int32."""

    physics: Any
    obs: Array
    steps: Array


class Simulator(Protocol):
    """N environments stepped inside jitted programs; hashable, hence static there. Ended episodes begin anew by themselves."""

    def reset(self, key: Array, num_envs: int) -> SimState:
        """Begin an episode in each of `num_envs` environments, from a start state of its own."""
        ...

    def step(self, state: SimState, action: Array, key: Array) -> tuple[SimState, Transition]:
        """One agent step with actions [N, A] in [-1, 1]; `next_obs` of the transition is what the step led to, before any reset."""
        ...


class SimStarts(flax.struct.PyTreeNode):
    """Where simulated trajectories start: a simulator, its state, the task [N], and the key that its resets are drawn with."""

    simulator: Simulator = flax.struct.field(pytree_node=False)
    state: SimState
    task_id: Array
    key: Array


class Simulated(NamedTuple):
    """What a simulator gives beside a trajectory: its state afterwards, and the transitions [H, N, ...]."""

    state: SimState
    transition: Transition


class Rollout(flax.struct.PyTreeNode):
    """An imagined (or simulated) trajectory: z [H+1, B, D], action [H, B, A], reward and discount [H, B].

    `z` is what actor and critics read, with the task's embedding appended where the policy is `task_conditioned`.
    `discount[t]` is d_t, the probability that step t does not terminate; 1 without a termination head.
    Of a simulated trajectory, `cut[t]` [H, B] is 1 where step t ended an episode, and `next_z` [H, B, D] is where step t led, while
    `z[t + 1]` begins the next episode there; the last `z` is where the last step led.
    """

    z: Array
    action: Array
    reward: Array
    discount: Array
    next_z: Array | None = None
    cut: Array | None = None


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
