from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.stats

from pwm_jax.data import collect as collect_module
from pwm_jax.data.collect import NotEnoughDiskSpaceError, Source, collect, correlated_normal
from pwm_jax.data.store import Dataset, DatasetError, Episode
from pwm_jax.envs import make
from pwm_jax.envs.pool import EnvPool, PoolStep
from pwm_jax.envs.tasks import TaskSet, UnknownTaskError

TASKS = TaskSet.from_names(["mw-reach", "cartpole-swingup", "mw-drawer-close"])
EXPERT_TASKS = ("mw-reach", "mw-drawer-close")


def lean_right(obs: np.ndarray, task_id: np.ndarray, key: jax.Array) -> np.ndarray:
    """A policy whose actions have noise of its own, from the key."""
    return np.asarray(0.25 + 0.5 * jax.random.uniform(key, (len(obs), TASKS.action_dim)))


PLAN = (
    Source("random", 2, correlation=0.8),
    Source("expert", 5, tasks=EXPERT_TASKS, noise_max=0.4, random_prob=0.2),
    Source("policy", 3, tasks=("mw-reach",), policy=lean_right, noise_min=0.1, noise_max=0.1, name="lean-right"),
)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    with EnvPool(TASKS, [0, 1, 2, 0, 2]) as envs:
        yield envs


@pytest.fixture(scope="module")
def collected(pool: EnvPool, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return collect(pool, TASKS, PLAN, tmp_path_factory.mktemp("collected") / "data", seed=3, episodes_per_shard=2)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def episodes_of(dataset: Dataset, source: str, task: str) -> list[Episode]:
    return list(dataset.select(tasks=[task], sources=[source]).iter_episodes())


def test_the_plan_is_what_is_collected(collected: Dataset) -> None:
    counts = {
        (s, t): len(episodes_of(collected, s, t)) for s, t in [("random", t) for t in TASKS.names] + [("expert", t) for t in EXPERT_TASKS]
    }
    assert counts == {("random", task): 2 for task in TASKS.names} | {("expert", task): 5 for task in EXPERT_TASKS}
    assert len(collected) == 6 + 10 + 3
    assert len(episodes_of(collected, "lean-right", "mw-reach")) == 3
    assert [len(np.load(shard.path / "length.npy")) for shard in collected.shards] == [2, 2, 2] + [2, 2, 2, 2, 1, 1] + [2, 1]
    assert set(collected.episodes.length[collected.episodes.task_id == 1]) == {500}
    assert set(collected.episodes.length[collected.episodes.task_id != 1]) == {100}
    assert len(np.unique(collected.episodes.seed)) == len(collected)
    assert collected.recipe["seed"] == 3
    assert collected.recipe["sources"][2] == {
        "kind": "policy",
        "episodes": 3,
        "tasks": ["mw-reach"],
        "noise_min": 0.1,
        "noise_max": 0.1,
        "random_prob": 0.0,
        "correlation": 0.0,
        "name": "lean-right",
    }


@pytest.mark.parametrize(("source", "task"), [("random", "cartpole-swingup"), ("expert", "mw-drawer-close"), ("lean-right", "mw-reach")])
def test_the_recorded_actions_played_again_give_the_recorded_episode(collected: Dataset, source: str, task: str) -> None:
    episode = episodes_of(collected, source, task)[-1]
    env = make(task)
    spec = TASKS.specs[episode.task_id]
    obs, _ = env.reset(seed=episode.seed)
    np.testing.assert_array_equal(episode.obs[0, : spec.obs_dim], obs)
    for step in range(episode.length):
        obs, reward, terminated, truncated, info = env.step(episode.action[step, : spec.action_dim])
        np.testing.assert_array_equal(episode.obs[step + 1, : spec.obs_dim], obs)
        assert episode.reward[step] == np.float32(reward)
        assert episode.terminated[step] == terminated
        assert truncated == (step == episode.length - 1)
    assert episode.success == info["success"]
    env.close()


def test_actions_are_bounded_and_zero_on_the_padding(collected: Dataset) -> None:
    for episode in collected.iter_episodes():
        assert np.abs(episode.action).max() <= 1.0
        assert not episode.action[:, TASKS.specs[episode.task_id].action_dim :].any()
        assert episode.action.std() > 0


def test_noise_grows_over_the_episodes_of_a_task(collected: Dataset) -> None:
    assert [Source("expert", 5, noise_min=0.1, noise_max=0.5).noise_of(e) for e in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert Source("expert", 1, noise_min=0.1, noise_max=0.5).noise_of(0) == 0.1
    roughness = [np.abs(np.diff(e.action[:, :3], axis=0)).mean() for e in episodes_of(collected, "expert", "mw-reach")]
    assert roughness[0] < roughness[-1]


def test_experts_earn_more_than_random_actions(collected: Dataset) -> None:
    for task in EXPERT_TASKS:
        expert, random = (np.mean([e.reward.sum() for e in episodes_of(collected, source, task)]) for source in ("expert", "random"))
        assert expert > random + 300


def test_a_killed_collection_resumes_to_the_same_files(collected: Dataset, pool: EnvPool, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill_after(limit: int) -> object:
        def progress(done: int, total: int) -> None:
            assert total == 19
            if done == limit:
                raise Killed

        return progress

    path = tmp_path / "data"
    for limit in (3, 9, 17):
        with pytest.raises(Killed):
            collect(pool, TASKS, PLAN, path, seed=3, episodes_per_shard=2, progress=kill_after(limit))  # type: ignore[arg-type]
        with pytest.raises(DatasetError, match="interrupted"):
            Dataset.open(path)
    seen: list[int] = []
    collect(pool, TASKS, PLAN, path, seed=3, episodes_per_shard=2, progress=lambda done, total: seen.append(done))
    assert seen[-1] == 19
    assert 1 <= len(seen) < 5
    assert contents(path) == contents(collected.path)


def test_random_and_expert_data_do_not_depend_on_the_pool(collected: Dataset, tmp_path: Path) -> None:
    dataset = collect(lambda: EnvPool(TASKS, [2, 1, 0], num_workers=1), TASKS, PLAN[:2], tmp_path / "data", seed=3, episodes_per_shard=2)
    for mine, other in zip(dataset.iter_episodes(), collected.iter_episodes(), strict=False):
        assert (mine.task_id, mine.source, mine.seed) == (other.task_id, other.source, other.seed)
        np.testing.assert_array_equal(mine.obs, other.obs)
        np.testing.assert_array_equal(mine.action, other.action)
    assert len(dataset) == 16


def test_a_finished_collection_starts_no_environment(collected: Dataset) -> None:
    def no_pool() -> EnvPool:
        raise AssertionError("a pool was started")

    assert len(collect(no_pool, TASKS, PLAN, collected.path, seed=3, episodes_per_shard=2)) == 19
    with pytest.raises(DatasetError, match="another recipe"):
        collect(no_pool, TASKS, PLAN, collected.path, seed=4, episodes_per_shard=2)


def test_a_full_disk_and_a_bad_plan_are_refused_before_an_environment_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pool() -> EnvPool:
        raise AssertionError("a pool was started")

    with pytest.raises(UnknownTaskError, match="mw-reech"):
        collect(no_pool, TASKS, [Source("random", 1, tasks=("mw-reech",))], tmp_path / "a", seed=0)
    with pytest.raises(ValueError, match="no behaviour source"):
        collect(no_pool, TASKS, [], tmp_path / "b", seed=0)
    # 1000 episodes of 101 or 501 frames of 39 + 4 + 2 numbers of 4 bytes, and a reserve of 64 MiB: 184.7 MiB.
    monkeypatch.setattr(collect_module, "shutil", SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=184 << 20)))
    with pytest.raises(NotEnoughDiskSpaceError, match=r"185 MiB more .* 184 MiB are free"):
        collect(no_pool, TASKS, [Source("random", 1000)], tmp_path / "c", seed=0)


def test_a_pool_that_does_not_fit_is_refused(pool: EnvPool, tmp_path: Path) -> None:
    other = TaskSet.from_names(["mw-reach", "cartpole-swingup"])
    with pytest.raises(ValueError, match="same task set"):
        collect(pool, other, [Source("random", 1)], tmp_path / "a", seed=0)
    with EnvPool(other, [1]) as partial, pytest.raises(ValueError, match="no environment of \\['mw-reach'\\]"):
        collect(partial, other, [Source("random", 1)], tmp_path / "b", seed=0)


class BrokenPool(EnvPool):
    """A pool whose simulator goes wrong in environment 0 at its fourth step."""

    steps = 0

    def step(self, action: np.ndarray, active: np.ndarray | None = None) -> PoolStep:
        result = super().step(action, active)
        self.steps += 1
        if self.steps == 4:
            result.reward[0] = np.nan
        return result


def test_non_finite_numbers_of_a_simulator_are_named(tmp_path: Path) -> None:
    with (
        BrokenPool(TASKS, [1, 0]) as broken,
        pytest.raises(FloatingPointError, match=r"cartpole-swingup, source 'random', episode 0 \(environment seed \d+\), step 3"),
    ):
        collect(broken, TASKS, [Source("random", 1, tasks=("mw-reach", "cartpole-swingup"))], tmp_path / "data", seed=0)
    with pytest.raises(DatasetError, match="no episodes"):
        Dataset.open(tmp_path / "data", allow_incomplete=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "replay", "episodes": 1}, "unknown kind"),
        ({"kind": "policy", "episodes": 1}, "needs a policy"),
        ({"kind": "random", "episodes": 1, "policy": lean_right}, "take none"),
        ({"kind": "random", "episodes": 0}, "at least 1"),
        ({"kind": "expert", "episodes": 1, "noise_min": 0.5}, "noise_min <= noise_max"),
        ({"kind": "expert", "episodes": 1, "random_prob": 1.5}, "random_prob"),
        ({"kind": "random", "episodes": 1, "correlation": 1.0}, "correlation"),
    ],
)
def test_an_impossible_source_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_correlated_noise_is_standard_normal_with_the_correlation_asked(correlation: float) -> None:
    noise = correlated_normal(np.random.default_rng(0), (400, 500), correlation)
    assert np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1] == pytest.approx(correlation, abs=0.01)
    # Columns are independent, so single rows are independent samples: the first, and one long after.
    for row in (0, 399):
        assert scipy.stats.kstest(noise[row], "norm").pvalue > 0.001


def test_random_actions_are_uniform(collected: Dataset, pool: EnvPool, tmp_path: Path) -> None:
    dataset = collect(pool, TASKS, [Source("random", 2, tasks=("mw-reach",))], tmp_path / "data", seed=1)
    actions = np.concatenate([e.action for e in dataset.iter_episodes()])
    assert scipy.stats.kstest(actions.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.001
    held = np.concatenate([np.stack([e.action[:-1], e.action[1:]], axis=-1) for e in episodes_of(collected, "random", "mw-reach")])
    assert np.corrcoef(held.reshape(-1, 2).T)[0, 1] > 0.6
