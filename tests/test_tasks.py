"""Task names, indices, padding and masks."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from pwm_jax.envs.tasks import MT30, MT80, TaskSet, TaskSetError, UnknownTaskError, task_spec


def test_sets_and_their_order() -> None:
    assert (len(MT30), len(MT80), len(set(MT80))) == (30, 80, 80)
    assert MT80[:30] == MT30
    assert (MT80[0], MT80[12], MT80[29], MT80[30], MT80[65], MT80[79]) == (
        "walker-stand",
        "cup-catch",
        "pendulum-spin",
        "mw-assembly",
        "mw-reach",
        "mw-hand-insert",
    )


def test_specs() -> None:
    spec = task_spec("reacher-three-hard")
    assert (spec.task_id, spec.suite, spec.obs_dim, spec.action_dim, spec.episode_length, spec.max_return) == (
        27,
        "dm_control",
        8,
        3,
        500,
        1000,
    )
    spec = task_spec(65)
    assert (spec.name, spec.suite, spec.obs_dim, spec.action_dim, spec.episode_length, spec.max_return) == (
        "mw-reach",
        "metaworld",
        39,
        4,
        100,
        2000,
    )


@pytest.mark.parametrize(("names", "num_tasks", "obs_dim"), [("mt30", 30, 24), ("mt80", 80, 39)])
def test_published_sets_have_published_sizes(names: str, num_tasks: int, obs_dim: int) -> None:
    task_set = TaskSet.from_names(names)
    assert (task_set.num_tasks, task_set.obs_dim, task_set.action_dim) == (num_tasks, obs_dim, 6)
    assert [spec.task_id for spec in task_set.specs] == list(range(num_tasks))


def test_task_id_is_the_position_in_the_set() -> None:
    task_set = TaskSet.from_names([65, "pendulum-swingup", "cheetah-run"])
    assert task_set.names == ("mw-reach", "pendulum-swingup", "cheetah-run")
    assert task_set.index("cheetah-run") == 2
    assert TaskSet.from_names("mw-reach, pendulum-swingup,cheetah-run") == task_set
    np.testing.assert_array_equal(task_set.action_mask, [[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert task_set.action_mask.dtype == np.float32


def test_padding() -> None:
    task_set = TaskSet.from_names(["pendulum-swingup", "reacher-easy"], obs_dim=8)
    padded = task_set.pad_obs(np.array([[1.0, 2.0, 3.0]]), task_id=0)
    np.testing.assert_array_equal(padded, [[1, 2, 3, 0, 0, 0, 0, 0]])
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(task_set.pad_action(np.array([0.5]), task_id=0), [0.5, 0.0])
    with pytest.raises(TaskSetError, match="observation of task 'pendulum-swingup' has 4 entries, not 3"):
        task_set.pad_obs(np.zeros(4), task_id=0)


def test_round_trip_through_json() -> None:
    task_set = TaskSet.from_names(["mw-reach", "walker-walk"], action_dim=7)
    assert TaskSet.from_dict(json.loads(json.dumps(task_set.to_dict()))) == task_set


@pytest.mark.parametrize("description", [{}, {"obs_dim": 3, "action_dim": 1, "tasks": [{"name": "pendulum-swingup"}]}])
def test_foreign_descriptions_are_refused(description: dict) -> None:
    with pytest.raises(TaskSetError, match="not a description of a task set"):
        TaskSet.from_dict(description)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["walker-wlak"], "unknown task 'walker-wlak': did you mean 'walker-walk'"),
        (["reach"], "mw-reach"),
        (["§§§"], "see pwm_jax.envs.tasks.MT80"),
        ([80], "unknown task index 80: MT80 has indices 0 to 79"),
        ([-1], "unknown task index -1"),
    ],
)
def test_unknown_tasks_name_the_nearest(names: list, message: str) -> None:
    with pytest.raises(UnknownTaskError, match=message):
        TaskSet.from_names(names)


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        ([], {}, "at least one task"),
        ("", {}, "at least one task"),
        (["mw-reach", "mw-reach"], {}, "more than once in a task set: mw-reach"),
        (["mw-reach"], {"obs_dim": 38}, "'mw-reach' has 39 observations and 4 actions, more than the padded sizes 38 and 4"),
        (["mw-reach"], {"action_dim": 3}, "more than the padded sizes 39 and 3"),
    ],
)
def test_impossible_sets_are_refused(names: list, sizes: dict, message: str) -> None:
    with pytest.raises(TaskSetError, match=message):
        TaskSet.from_names(names, **sizes)


def test_task_outside_the_set() -> None:
    with pytest.raises(UnknownTaskError, match=r"'walker-walk' is not in this task set, which has: mw-reach"):
        TaskSet.from_names(["mw-reach"]).index("walker-walk")


def test_no_simulator_is_imported() -> None:
    script = (
        "import sys, pwm_jax.envs, pwm_jax.envs.tasks, pwm_jax.envs.pool; print({'mujoco', 'dm_control', 'metaworld'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_what_is_different_is_told() -> None:
    ours, turned = TaskSet.from_names("walker-walk,walker-run"), TaskSet.from_names("walker-run,walker-walk")
    assert ours.difference(turned) == "their order is walker-walk, walker-run, not walker-run, walker-walk"
    shorter = TaskSet(tuple(dataclasses.replace(spec, episode_length=9) for spec in ours.specs), ours.obs_dim, ours.action_dim)
    assert ours.difference(shorter) == "their sizes, lengths or largest returns are others"
