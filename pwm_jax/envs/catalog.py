"""The 80 tasks of MT80, in order, as data: what is known about a task before any simulator is imported.

Source: TD-MPC2 (arXiv 2310.16828), the task lists MT30 and MT80; sizes checked against dm_control 1.0.49 and metaworld 3.0.0.
This module imports nothing but the standard library, so that environment workers start without JAX.
"""

from __future__ import annotations

import dataclasses
import difflib

DM_CONTROL = "dm_control"
META_WORLD = "metaworld"
ACTION_REPEAT = 2


class UnknownTaskError(ValueError):
    """A task name or index that is not in MT80; the message names the nearest names."""


@dataclasses.dataclass(frozen=True)
class TaskFacts:
    """Native facts of one task: sizes before padding, `episode_length` in agent steps, `max_return` of one episode.

    An agent step is `control_steps` of the environment with one action.
    """

    index: int
    name: str
    suite: str
    obs_dim: int
    action_dim: int
    episode_length: int
    max_return: float
    control_steps: int = ACTION_REPEAT


# (name, obs, action) in MT30 order.
_DM_CONTROL_TASKS = (
    ("walker-stand", 24, 6),
    ("walker-walk", 24, 6),
    ("walker-run", 24, 6),
    ("cheetah-run", 17, 6),
    ("reacher-easy", 6, 2),
    ("reacher-hard", 6, 2),
    ("acrobot-swingup", 6, 1),
    ("pendulum-swingup", 3, 1),
    ("cartpole-balance", 5, 1),
    ("cartpole-balance-sparse", 5, 1),
    ("cartpole-swingup", 5, 1),
    ("cartpole-swingup-sparse", 5, 1),
    ("cup-catch", 8, 2),
    ("finger-spin", 9, 2),
    ("finger-turn-easy", 12, 2),
    ("finger-turn-hard", 12, 2),
    ("fish-swim", 24, 5),
    ("hopper-stand", 15, 4),
    ("hopper-hop", 15, 4),
    ("walker-walk-backwards", 24, 6),
    ("walker-run-backwards", 24, 6),
    ("cheetah-run-backwards", 17, 6),
    ("cheetah-run-front", 17, 6),
    ("cheetah-run-back", 17, 6),
    ("cheetah-jump", 17, 6),
    ("hopper-hop-backwards", 15, 4),
    ("reacher-three-easy", 8, 3),
    ("reacher-three-hard", 8, 3),
    ("cup-spin", 8, 2),
    ("pendulum-spin", 3, 1),
)

# Every Meta-World task has 39 observations and 4 actions.
_META_WORLD_TASKS = (
    "mw-assembly",
    "mw-basketball",
    "mw-button-press-topdown",
    "mw-button-press-topdown-wall",
    "mw-button-press",
    "mw-button-press-wall",
    "mw-coffee-button",
    "mw-coffee-pull",
    "mw-coffee-push",
    "mw-dial-turn",
    "mw-disassemble",
    "mw-door-open",
    "mw-door-close",
    "mw-drawer-close",
    "mw-drawer-open",
    "mw-faucet-open",
    "mw-faucet-close",
    "mw-hammer",
    "mw-handle-press-side",
    "mw-handle-press",
    "mw-handle-pull-side",
    "mw-handle-pull",
    "mw-lever-pull",
    "mw-peg-insert-side",
    "mw-peg-unplug-side",
    "mw-pick-out-of-hole",
    "mw-pick-place",
    "mw-pick-place-wall",
    "mw-plate-slide",
    "mw-plate-slide-side",
    "mw-plate-slide-back",
    "mw-plate-slide-back-side",
    "mw-push-back",
    "mw-push",
    "mw-push-wall",
    "mw-reach",
    "mw-reach-wall",
    "mw-shelf-place",
    "mw-soccer",
    "mw-stick-push",
    "mw-stick-pull",
    "mw-sweep-into",
    "mw-sweep",
    "mw-window-open",
    "mw-window-close",
    "mw-bin-picking",
    "mw-box-close",
    "mw-door-lock",
    "mw-door-unlock",
    "mw-hand-insert",
)

_FACTS = tuple(
    TaskFacts(index, name, DM_CONTROL, obs_dim, action_dim, episode_length=500, max_return=1000.0)
    for index, (name, obs_dim, action_dim) in enumerate(_DM_CONTROL_TASKS)
) + tuple(
    TaskFacts(len(_DM_CONTROL_TASKS) + offset, name, META_WORLD, obs_dim=39, action_dim=4, episode_length=100, max_return=2000.0)
    for offset, name in enumerate(_META_WORLD_TASKS)
)
_BY_NAME = {facts.name: facts for facts in _FACTS}

MT80: tuple[str, ...] = tuple(facts.name for facts in _FACTS)
MT30: tuple[str, ...] = MT80[: len(_DM_CONTROL_TASKS)]


def task_facts(task: str | int) -> TaskFacts:
    """Facts of a task given by its MT80 name or index.

    Raises:
      UnknownTaskError: no such task; names the nearest.
    """
    if isinstance(task, str):
        if task in _BY_NAME:
            return _BY_NAME[task]
        nearest = difflib.get_close_matches(task, MT80, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(repr(name) for name in nearest)}?" if nearest else "see pwm_jax.envs.tasks.MT80"
        raise UnknownTaskError(f"unknown task {task!r}: {hint}")
    if not 0 <= task < len(_FACTS):
        raise UnknownTaskError(f"unknown task index {task}: MT80 has indices 0 to {len(_FACTS) - 1}")
    return _FACTS[task]
