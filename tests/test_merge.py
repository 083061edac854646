"""Merging datasets: tasks by name, padding anew, episodes spread over each part's order, nothing written where a part does not fit."""

import numpy as np
import pytest
from tiny_data import TASKS, make_episode, write_dataset

from configs import debug
from experiments import collect
from pwm_jax.data.compact import export_compact
from pwm_jax.data.merge import Part, merge
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter
from pwm_jax.envs.tasks import TaskSet

WIDE = TaskSet.from_names("mw-reach,reacher-easy,pendulum-swingup")


@pytest.fixture
def parts(tmp_path) -> tuple[Dataset, Dataset]:
    """Ten episodes each of pendulum-swingup and reacher-easy; four of pendulum-swingup alone, longer."""
    pendulum = TaskSet.from_names("pendulum-swingup")
    return write_dataset(tmp_path / "two"), write_dataset(tmp_path / "one", episodes=4, task_set=pendulum, steps=20)


def test_tasks_are_matched_by_name_and_padded_anew(parts, tmp_path):
    two, one = parts
    merged = merge([Part(two, 100), Part(one, 100, ("pendulum-swingup",))], WIDE, tmp_path / "merged", {"how": "test"})
    assert merged.task_set == WIDE
    assert merged.recipe == {"how": "test"}
    assert merged.episodes.task_id.tolist() == [2] * 10 + [1] * 10 + [2] * 4
    assert merged.episodes.length.tolist() == [12] * 20 + [20] * 4
    originals = [make_episode(0, s) for s in range(10)] + [make_episode(1, s) for s in range(10)]
    originals += [make_episode(0, s, 20, one.task_set) for s in range(4)]
    for episode, original in zip(merged.iter_episodes(), originals, strict=True):
        spec = WIDE.specs[episode.task_id]
        np.testing.assert_array_equal(episode.obs[:, : spec.obs_dim], original.obs)
        np.testing.assert_array_equal(episode.action[:, : spec.action_dim], original.action)
        np.testing.assert_array_equal(episode.reward, original.reward)
        assert episode.obs.shape[1] == 39
        assert not episode.obs[:, spec.obs_dim :].any()
        assert not episode.action[:, spec.action_dim :].any()
        assert (episode.source, episode.seed) == (original.source, original.seed)


@pytest.mark.parametrize(("count", "seeds"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10))), (50, list(range(10)))])
def test_episodes_are_spread_over_the_order_of_the_part(parts, tmp_path, count, seeds):
    merged = merge([Part(parts[0], count)], TASKS, tmp_path / "merged", {})
    for task_id in range(2):
        assert merged.episodes.seed[merged.episodes.task_id == task_id].tolist() == seeds


def test_only_the_named_tasks_of_a_part_are_taken(parts, tmp_path):
    merged = merge([Part(parts[0], 3, ("reacher-easy",)), Part(parts[1], 2)], TASKS, tmp_path / "merged", {})
    assert merged.episodes.task_id.tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("tasks", "task_set", "message"),
    [
        (("reacher-esay",), TASKS, "has no episode of reacher-esay to merge; .*: pendulum-swingup, reacher-easy"),
        (("reacher-easy",), TaskSet.from_names("pendulum-swingup"), "has no episode of reacher-easy to merge; .*: pendulum-swingup"),
        (None, TaskSet.from_names("mw-reach"), "has no episode of mw-reach to merge; .*: none"),
    ],
)
def test_a_part_without_the_tasks_is_an_error_before_anything_is_written(parts, tmp_path, tasks, task_set, message):
    with pytest.raises(DatasetError, match=message):
        merge([Part(parts[0], 1, tasks)], task_set, tmp_path / "merged", {})
    assert not (tmp_path / "merged").exists()


def test_taking_no_episode_is_an_error(parts):
    with pytest.raises(DatasetError, match="at least 1 episode of each task is taken, not 0"):
        Part(parts[0], 0)


def test_a_dataset_in_the_way_is_kept(parts, tmp_path):
    with DatasetWriter(tmp_path / "merged", TASKS, {"mine": 1}) as writer:
        writer.add_episode(make_episode(0, 42))
    with pytest.raises(DatasetError, match="holds a dataset"):
        merge([Part(parts[0], 1)], TASKS, tmp_path / "merged", {})
    assert Dataset.open(tmp_path / "merged").episodes.seed.tolist() == [42]


def test_a_shipped_dataset_gives_its_episodes_of_the_tasks_asked_for(parts, tmp_path):
    two, _ = parts
    export_compact(two, tmp_path / "shipped.npz")
    config = debug.get_config()
    config.tasks, config.collect.shipped = "reacher-easy", str(tmp_path / "shipped.npz")
    collect.main(config, tmp_path / "part")
    part = Dataset.open(tmp_path / "part" / "dataset")
    assert part.task_set.names == ("reacher-easy",)
    assert part.episodes.seed.tolist() == list(range(10))
    assert part.task_set.action_dim == 2
    own = two.select(tasks=["reacher-easy"])
    np.testing.assert_array_equal(part.episode(3).reward, own.episode(3).reward)
    assert part.recipe == two.recipe
    assert [path.name for path in (tmp_path / "part").iterdir() if path.name.startswith(".")] == []
    config.tasks = "reacher-easy,mw-reach"
    with pytest.raises(DatasetError, match="has no episode of mw-reach"):
        collect.main(config, tmp_path / "other")
