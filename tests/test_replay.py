import collections
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from recorded_episodes import TASKS

from pwm_jax.data import replay as replay_module
from pwm_jax.data.replay import Replay
from pwm_jax.data.store import Dataset, DatasetWriter
from pwm_jax.types import Batch, Transition

# Environments 0 and 1 run task 0, environment 2 task 1. Each step's observation is (environment, step of the run, step of the episode).
ENV_TASKS = [0, 0, 1]
CAPACITY = 3 * 12
add = jax.jit(replay_module.add, donate_argnums=0)
sample = jax.jit(replay_module.sample, static_argnames=("batch_size", "horizon"))


class Recorder:
    """Feeds a replay with environments whose episode lengths are drawn at random, and keeps all of it in plain lists."""

    def __init__(self, seed: int, longest: int) -> None:
        self.rng, self.longest = np.random.default_rng(seed), longest
        self.replay = replay_module.create(CAPACITY, ENV_TASKS, TASKS.obs_dim, TASKS.action_dim)
        self.time = np.zeros(3, int)
        self.length = self.rng.integers(1, longest + 1, 3)
        self.count = 0
        self.history: list[list[tuple[int, bool]]] = [[], [], []]

    def obs(self, run_step: int, time: np.ndarray) -> np.ndarray:
        obs = np.zeros((3, TASKS.obs_dim), np.float32)
        obs[:, 0], obs[:, 1], obs[:, 2] = np.arange(3), run_step, time
        return obs * np.array([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            last = self.time + 1 == self.length
            # Environment 0's episodes end by termination, the others' by truncation.
            terminated = last & (np.arange(3) == 0)
            action = np.full((3, TASKS.action_dim), self.count / 1000) * TASKS.action_mask[ENV_TASKS]
            transition = Transition(
                obs=self.obs(self.count, self.time),
                action=action,
                reward=self.count + np.arange(3) / 4,
                next_obs=self.obs(self.count + 1, self.time + 1),
                terminated=terminated.astype(np.float32),
                truncated=last & ~terminated,
            )
            self.replay = add(self.replay, transition, last.astype(np.float32))
            for env in range(3):
                self.history[env].append((int(self.time[env]), bool(last[env])))
            self.time = np.where(last, 0, self.time + 1)
            self.length = np.where(last, self.rng.integers(1, self.longest + 1, 3), self.length)
            self.count += 1

    def valid_windows(self, horizon: int) -> set[tuple[int, int]]:
        """(environment, first step of the run) of each window, by enumeration of what the ring still has."""
        oldest = max(0, self.count - CAPACITY // 3)

        def is_window(env: int, first: int) -> bool:
            ended = [last for _, last in self.history[env][first : first + horizon]]
            terminates = env == 0 and any(ended)
            return terminates or (len(ended) == horizon and not any(ended[:-1]))

        return {(env, first) for env in range(3) for first in range(oldest, self.count) if is_window(env, first)}


def alive_steps(terminated: np.ndarray) -> np.ndarray:
    """[H, B] bool: the steps of windows up to a termination and with it."""
    return np.cumsum(terminated, axis=0) - terminated == 0


def windows_of(batch: Batch) -> list[tuple[int, int]]:
    """(environment, first step of the run) of each window, after checking that it stays within one episode of one environment.

    What follows a termination must be its repetition.
    """
    horizon, size = batch.reward.shape
    env, first, time = batch.obs[0, :, :3].astype(int).T
    terminated = batch.terminated > 0
    length = alive_steps(batch.terminated).sum(0)
    np.testing.assert_array_equal(terminated, terminated.any(0) & (np.arange(horizon)[:, None] >= length - 1))
    steps = np.minimum(np.arange(horizon + 1)[:, None], length)
    np.testing.assert_array_equal(batch.obs[..., 0], np.broadcast_to(env, (horizon + 1, size)))
    np.testing.assert_array_equal(batch.obs[..., 1], first + steps)
    np.testing.assert_array_equal(batch.obs[..., 2], time + steps)
    steps = np.minimum(steps[:-1], length - 1)
    np.testing.assert_array_equal(batch.reward, first + steps + env / 4)
    np.testing.assert_allclose(batch.action[..., 0], (first + steps) / 1000, rtol=1e-6)
    np.testing.assert_array_equal(batch.task_id, np.array(ENV_TASKS)[env])
    return list(zip(env.tolist(), first.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_windows_are_exactly_those_within_an_episode_and_behind_the_write_head(seed: int, horizon: int) -> None:
    recorder = Recorder(seed, longest=3 + 4 * seed)
    # Part full, just full, and written over by any number of steps.
    for steps in (3, 4, 5, 1, 5, 12, 7):
        recorder.step(steps)
        expected = recorder.valid_windows(horizon)
        assert int(replay_module.num_windows(recorder.replay, horizon)) == len(expected)
        assert int(replay_module.num_windows(recorder.replay, horizon, task_id=1)) == sum(env == 2 for env, _ in expected)
        if expected:
            drawn = windows_of(jax.device_get(sample(recorder.replay, jax.random.key(seed), 600, horizon)))
            assert set(drawn) == expected
        if any(env == 2 for env, _ in expected):
            drawn = windows_of(jax.device_get(sample(recorder.replay, jax.random.key(seed), 600, horizon, 1)))
            assert set(drawn) == {window for window in expected if window[0] == 2}


def test_every_window_is_equally_likely() -> None:
    recorder = Recorder(seed=1, longest=9)
    recorder.step(31)
    expected = recorder.valid_windows(3)
    draws = collections.Counter(windows_of(jax.device_get(sample(recorder.replay, jax.random.key(0), 20_000, 3))))
    assert draws.keys() == expected
    assert scipy.stats.chisquare(list(draws.values())).pvalue > 0.001


def test_the_last_step_of_a_terminated_episode_is_marked() -> None:
    recorder = Recorder(seed=2, longest=5)
    recorder.step(12)
    batch = jax.device_get(sample(recorder.replay, jax.random.key(0), 500, 2))
    for (env, first), terminated in zip(windows_of(batch), batch.terminated.T, strict=True):
        ended = [last for _, last in recorder.history[env][first : first + 2]]
        assert terminated.any() == (env == 0 and any(ended))
    assert batch.terminated[0].any()


def test_a_terminating_step_is_in_as_many_windows_as_any_other() -> None:
    recorder, horizon = Recorder(seed=2, longest=6), 4
    recorder.step(12)
    batch = jax.device_get(sample(recorder.replay, jax.random.key(0), 5_000, horizon))
    windows = {(env, first): alive for (env, first), alive in zip(windows_of(batch), alive_steps(batch.terminated).T, strict=True)}
    times = collections.Counter(first + t for (env, first), alive in windows.items() if env == 0 for t in np.flatnonzero(alive))
    # Steps so late in their episode and so far from the write head that a window of any phase could hold them.
    inside = [t for t in range(horizon - 1, 12 - horizon + 1) if recorder.history[0][t][0] >= horizon - 1]
    assert any(recorder.history[0][t][1] for t in inside)
    assert [times[t] for t in inside] == [horizon] * len(inside)


def test_an_episode_longer_than_the_ring_and_an_empty_ring() -> None:
    recorder = Recorder(seed=0, longest=1)
    assert int(replay_module.num_windows(recorder.replay, 1)) == 0
    recorder.length[:] = 1000
    recorder.step(40)
    assert int(replay_module.num_windows(recorder.replay, 12)) == 3
    assert int(replay_module.num_windows(recorder.replay, 13)) == 0
    assert set(windows_of(jax.device_get(sample(recorder.replay, jax.random.key(0), 50, 12)))) == {(0, 28), (1, 28), (2, 28)}
    with pytest.raises(ValueError, match="capacity 2 holds no step of 3 environments"):
        replay_module.create(2, ENV_TASKS, 5, 3)


def starts_of(recorder: Recorder, task_id: int, **options: float) -> collections.Counter[tuple[int, int]]:
    obs, action = jax.device_get(replay_module.sample_starts(recorder.replay, jax.random.key(3), 20_000, task_id, **options))  # type: ignore[arg-type]
    np.testing.assert_allclose(action[:, 0], obs[:, 1] / 1000, rtol=1e-6)
    return collections.Counter(zip(obs[:, 0].astype(int).tolist(), obs[:, 1].astype(int).tolist(), strict=True))


def test_start_states_are_uniform_over_the_stored_steps_of_the_task() -> None:
    recorder = Recorder(seed=1, longest=6)
    recorder.step(29)
    for task_id, envs in ((0, (0, 1)), (1, (2,))):
        draws = starts_of(recorder, task_id)
        assert draws.keys() == {(env, step) for env in envs for step in range(17, 29)}
        assert scipy.stats.chisquare(list(draws.values())).pvalue > 0.001


def test_start_states_can_be_early_or_recent() -> None:
    recorder = Recorder(seed=1, longest=6)
    recorder.step(29)
    early = {(env, step) for env in (0, 1) for step in range(17, 29) if recorder.history[env][step][0] < 2}
    draws = starts_of(recorder, 0, early_fraction=1.0, early_steps=2)
    assert draws.keys() == early
    assert scipy.stats.chisquare(list(draws.values())).pvalue > 0.001
    # A quarter early, the rest over all 24 stored steps, some of them early too.
    share = 0.25 + 0.75 * len(early) / 24
    draws = starts_of(recorder, 0, early_fraction=0.25, early_steps=2)
    assert scipy.stats.binomtest(sum(draws[start] for start in early), 20_000, share).pvalue > 0.001
    assert starts_of(recorder, 0, newest=4).keys() == {(env, step) for env in (0, 1) for step in range(25, 29)}


def test_start_states_vmapped_over_tasks_equal_one_task_at_a_time() -> None:
    recorder = Recorder(seed=1, longest=6)
    recorder.step(20)
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(lambda key, task: replay_module.sample_starts(recorder.replay, key, 16, task))(keys, np.arange(2))
    for task in range(2):
        alone = replay_module.sample_starts(recorder.replay, keys[task], 16, task)
        jax.tree.map(lambda many, one, row=task: np.testing.assert_array_equal(many[row], one), together, alone)


def whole_episodes(recorder: Recorder, oldest: int) -> list[tuple[int, int, int]]:
    """(environment, first step of the run, length) of the complete episodes that begin at `oldest` or later."""
    found = []
    for env, history in enumerate(recorder.history):
        first = 0
        for step, (time, last) in enumerate(history):
            first = step if time == 0 else first
            if last and first >= oldest:
                found.append((env, first, step - first + 1))
    return found


def test_the_replay_saves_as_a_dataset_of_its_complete_episodes(tmp_path: Path) -> None:
    recorder = Recorder(seed=4, longest=5)
    recorder.step(30)
    with DatasetWriter(tmp_path / "data", TASKS, {"command": "online"}) as writer:
        for episode in replay_module.to_episodes(recorder.replay, source="online", seed=9):
            writer.add_episode(episode)
    dataset = Dataset.open(tmp_path / "data")
    expected = whole_episodes(recorder, oldest=18)
    assert len(dataset) == len(expected) > 3
    for episode, (env, first, length) in zip(dataset.iter_episodes(), expected, strict=True):
        assert (episode.task_id, episode.length, episode.source, episode.seed) == (ENV_TASKS[env], length, "online", 9)
        np.testing.assert_array_equal(episode.obs[:, 1], first + np.arange(length + 1))
        np.testing.assert_array_equal(episode.reward, first + np.arange(length) + env / 4)
        assert episode.terminated[-1] == (env == 0)
        assert episode.success == 1.0
    assert list(replay_module.to_episodes(replay_module.create(CAPACITY, ENV_TASKS, 5, 3), source="online")) == []


def test_a_replay_begins_with_recorded_episodes_and_goes_on() -> None:
    recorder = Recorder(seed=3, longest=5)
    recorder.step(11)
    recorded = list(replay_module.to_episodes(recorder.replay, "replay"))
    stranger = dataclasses.replace(recorded[0], task_id=7)  # a task that no environment runs
    replay = replay_module.from_episodes([*recorded, stranger], 3 * 4, ENV_TASKS, TASKS.obs_dim, TASKS.action_dim)
    offline = int(replay.count)
    assert replay.slots == offline + 4
    by_task = {task: [e for e in recorded if e.task_id == task] for task in (0, 1)}
    filled = np.asarray(replay.time[:offline] >= 0).sum(0)
    # Task 0's episodes are shared out over two environments, task 1's all lie in one.
    assert [filled[:2].sum(), filled[2]] == [sum(e.length for e in by_task[task]) for task in (0, 1)]
    assert abs(filled[0] - filled[1]) <= 5
    assert offline == filled.max()
    again = list(replay_module.to_episodes(replay, "replay"))
    assert sorted(e.reward.tolist() for e in again) == sorted(e.reward.tolist() for e in recorded)
    matching = {tuple(e.reward): e for e in recorded}
    for episode in again:
        original = matching[tuple(episode.reward)]
        for name in ("obs", "action", "terminated", "success", "task_id"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(original, name), err_msg=name)
    for task, episodes in by_task.items():
        lengths = [e.length if e.terminated[-1] else max(e.length - 2, 0) for e in episodes]
        assert int(replay_module.num_windows(replay, 3, task)) == sum(lengths)
    # What follows is new, begins new episodes and can be told apart.
    run_step = np.array([100, 200, 300])
    for t in range(3):
        transition = Transition(
            obs=np.full((3, 5), t), action=np.zeros((3, 3)), reward=run_step + t, next_obs=np.full((3, 5), t + 1), terminated=np.zeros(3),
            truncated=np.full(3, t == 2),
        )  # fmt: skip
        replay = add(replay, transition)
    new = list(replay_module.to_episodes(replay, "replay", skip=offline))
    assert [e.reward.tolist() for e in new] == [[100 + 100 * e, 101 + 100 * e, 102 + 100 * e] for e in range(3)]
    assert len(list(replay_module.to_episodes(replay, "replay"))) == len(recorded) + 3


def test_recorded_episodes_of_other_tasks_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="no episode of the tasks that act"):
        replay_module.from_episodes([], 12, ENV_TASKS, TASKS.obs_dim, TASKS.action_dim)


def test_adding_is_a_pure_function_that_scans() -> None:
    empty: Replay = replay_module.create(CAPACITY, ENV_TASKS, TASKS.obs_dim, TASKS.action_dim)
    rng = np.random.default_rng(0)
    steps = Transition(
        obs=rng.normal(size=(15, 3, 5)).astype(np.float32),
        action=rng.normal(size=(15, 3, 3)).astype(np.float32),
        reward=rng.normal(size=(15, 3)).astype(np.float32),
        next_obs=rng.normal(size=(15, 3, 5)).astype(np.float32),
        terminated=(rng.random((15, 3)) < 0.1).astype(np.float32),
        truncated=rng.random((15, 3)) < 0.1,
    )
    scanned, _ = jax.jit(lambda replay, xs: jax.lax.scan(lambda r, x: (replay_module.add(r, x), None), replay, xs))(empty, steps)
    looped = empty
    for index in range(15):
        looped = replay_module.add(looped, jax.tree.map(lambda x, i=index: x[i], steps))
    jax.tree.map(np.testing.assert_array_equal, scanned, looped)
    assert int(empty.count) == 0
