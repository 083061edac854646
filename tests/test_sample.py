import collections
import itertools
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.stats
from recorded_episodes import TASKS, write

from pwm_jax.data.sample import Balance, DeviceDataset, WindowSampler, prefetch
from pwm_jax.data.store import Dataset, DatasetError
from pwm_jax.types import Batch

LENGTHS = [(0, 7), (1, 3), (0, 5), (1, 1), (0, 2), (1, 4), (0, 6)]
Draw = Callable[[int, int, int, Balance], Batch]


def host_draw(dataset: Dataset) -> Draw:
    return lambda seed, size, horizon, balance: WindowSampler(dataset, size, horizon, balance)(np.random.default_rng(seed))


def device_draw(dataset: Dataset) -> Draw:
    resident = DeviceDataset.from_dataset(dataset)
    return lambda seed, size, horizon, balance: jax.device_get(resident.sample(jax.random.key(seed), size, horizon, balance))


BOTH = pytest.mark.parametrize("draw_from", [host_draw, device_draw], ids=["host", "device"])


def valid_windows(lengths: list[tuple[int, int]], horizon: int) -> set[tuple[int, int]]:
    """(episode, first step) of all windows, by enumeration: odd episodes terminate."""
    return {(seed, start) for seed, (_, length) in enumerate(lengths) for start in range(length) if seed % 2 or start + horizon <= length}


def windows_of(batch: Batch, lengths: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(episode, first step) of each window of the batch, after checking every number of it against the recorded episodes."""
    horizon, size = batch.reward.shape
    seeds, starts = batch.obs[0, :, 0].astype(int), batch.obs[0, :, 1].astype(int)
    task_id, length = np.array(lengths)[seeds].T
    steps = np.minimum(starts + np.arange(horizon + 1)[:, None], length)
    alive = steps[:-1] < length
    assert batch.obs.shape == (horizon + 1, size, TASKS.obs_dim)
    np.testing.assert_array_equal(batch.obs[..., 0], np.broadcast_to(seeds, (horizon + 1, size)))
    np.testing.assert_array_equal(batch.obs[..., 1], steps)
    np.testing.assert_array_equal(batch.reward, steps[:-1] * alive)
    np.testing.assert_array_equal(batch.task_id, task_id)
    np.testing.assert_array_equal(batch.terminated, (steps[:-1] == length - 1) & (seeds % 2 == 1))
    mask = TASKS.action_mask[task_id]
    np.testing.assert_allclose(batch.action, ((steps[:-1] + 0.5) / 1000 * alive)[..., None] * mask, rtol=1e-6)
    return list(zip(seeds.tolist(), starts.tolist(), strict=True))


def uniform_p_value(draws: list[tuple[int, int]], categories: set[tuple[int, int]]) -> float:
    counts = collections.Counter(draws)
    assert counts.keys() <= categories
    return float(scipy.stats.chisquare([counts[c] for c in sorted(categories)]).pvalue)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    lengths=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8)), min_size=1, max_size=8),
    horizon=st.integers(1, 9),
    shard_frames=st.sampled_from([1, 12, 1000]),
    balance=st.sampled_from(["frames", "tasks"]),
)
def test_host_windows_are_exactly_those_within_an_episode(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, int]], horizon: int, shard_frames: int, balance: Balance
) -> None:
    dataset = write(tmp_path_factory.mktemp("data"), lengths, shard_frames)
    expected = valid_windows(lengths, horizon)
    if max(length for _, length in lengths) < horizon:
        with pytest.raises(DatasetError, match=f"no episode has {horizon} steps"):
            WindowSampler(dataset, 4, horizon, balance)
        return
    assert WindowSampler(dataset, 4, horizon).num_windows == len(expected)
    assert set(windows_of(WindowSampler(dataset, 1500, horizon, balance)(np.random.default_rng(0)), lengths)) == expected


@BOTH
@pytest.mark.parametrize("horizon", [1, 3, 5, 7])
def test_every_window_is_equally_likely(tmp_path: Path, draw_from: Callable[[Dataset], Draw], horizon: int) -> None:
    draw = draw_from(write(tmp_path / "data", LENGTHS, shard_frames=12))
    draws = windows_of(draw(5, 20_000, horizon, "frames"), LENGTHS)
    expected = valid_windows(LENGTHS, horizon)
    assert set(draws) == expected
    if len(expected) > 1:
        assert uniform_p_value(draws, expected) > 0.001


@BOTH
def test_balance_by_tasks_draws_every_task_and_then_every_window_of_it_equally(
    tmp_path: Path, draw_from: Callable[[Dataset], Draw]
) -> None:
    draws = windows_of(draw_from(write(tmp_path / "data", LENGTHS))(6, 20_000, 3, "tasks"), LENGTHS)
    of_task = {task: [draw for draw in draws if LENGTHS[draw[0]][0] == task] for task in (0, 1)}
    # Windows of 3 steps: 5 + 3 + 4 of task 0, 3 + 1 + 4 of task 1, all of whose episodes terminate; none of task 2.
    assert scipy.stats.binomtest(len(of_task[0]), 20_000, 0.5).pvalue > 0.001
    for task, count in ((0, 12), (1, 8)):
        expected = {window for window in valid_windows(LENGTHS, 3) if LENGTHS[window[0]][0] == task}
        assert len(expected) == count
        assert uniform_p_value(of_task[task], expected) > 0.001


@BOTH
def test_a_task_without_windows_of_the_horizon_is_left_out(tmp_path: Path, draw_from: Callable[[Dataset], Draw]) -> None:
    # At horizon 6 only episodes of task 0 remain, the one too short because it terminates.
    lengths = [(0, 7), (0, 2), (1, 3)]
    draws = windows_of(draw_from(write(tmp_path / "data", lengths))(7, 300, 6, "tasks"), lengths)
    assert set(draws) == {(0, 0), (0, 1), (1, 0), (1, 1)}


@BOTH
def test_a_view_gives_windows_of_its_episodes_only(tmp_path: Path, draw_from: Callable[[Dataset], Draw]) -> None:
    dataset = write(tmp_path / "data", LENGTHS, shard_frames=12).select(tasks=["wide"])
    expected = {(1, 0), (1, 1), (1, 2), (3, 0), (5, 0), (5, 1), (5, 2), (5, 3)}
    assert set(windows_of(draw_from(dataset)(8, 500, 2, "frames"), LENGTHS)) == expected


def test_a_horizon_longer_than_every_episode_or_an_unknown_balance_is_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", LENGTHS)
    resident = DeviceDataset.from_dataset(dataset)
    with pytest.raises(DatasetError, match="no episode has 8 steps"):
        resident.sample(jax.random.key(0), 4, 8)
    with pytest.raises(ValueError, match="balance"):
        resident.sample(jax.random.key(0), 4, 2, "episodes")
    with pytest.raises(ValueError, match="balance"):
        WindowSampler(dataset, 4, 2, "episodes")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="GiB allowed on the device"):
        DeviceDataset.from_dataset(dataset, max_bytes=100)


def test_prefetched_batches_depend_on_seed_and_step_only(tmp_path: Path) -> None:
    sampler = WindowSampler(write(tmp_path / "data", LENGTHS), 16, 3)
    whole = list(prefetch(sampler, seed=1, first_step=0, last_step=12, num_threads=3))
    resumed = list(prefetch(sampler, seed=1, first_step=5, last_step=12, depth=1, num_threads=1))
    assert len(whole) == 12
    assert isinstance(whole[0].obs, jax.Array)
    jax.tree.map(np.testing.assert_array_equal, whole[5:], resumed)
    jax.tree.map(np.testing.assert_array_equal, whole[4], sampler(np.random.default_rng((1, 4))))
    other = next(prefetch(sampler, seed=2, first_step=0, last_step=1))
    assert not np.array_equal(other.obs, whole[0].obs)
    assert not np.array_equal(whole[1].obs, whole[0].obs)


def test_prefetch_stays_a_few_steps_ahead_and_can_be_left(tmp_path: Path) -> None:
    sampler = WindowSampler(write(tmp_path / "data", LENGTHS), 4, 2)
    drawn = []

    def draw(rng: np.random.Generator) -> Batch:
        drawn.append(rng)
        return sampler(rng)

    stream = prefetch(draw, seed=0, first_step=0, last_step=10**9, depth=3)
    for _ in range(5):
        next(stream)
    stream.close()
    assert 5 <= len(drawn) <= 5 + 3 + 1


def test_an_error_while_prefetching_is_raised_at_its_step(tmp_path: Path) -> None:
    sampler = WindowSampler(write(tmp_path / "data", LENGTHS), 4, 2)
    calls = itertools.count()

    def fails_at_two(rng: np.random.Generator) -> Batch:
        if next(calls) == 2:
            raise OSError("disk is gone")
        return sampler(rng)

    stream = prefetch(fails_at_two, seed=0, first_step=0, last_step=10, num_threads=1)
    next(stream)
    next(stream)
    with pytest.raises(OSError, match="disk is gone"):
        next(stream)


def test_start_states_are_uniform_over_the_steps_of_the_task(tmp_path: Path) -> None:
    resident = DeviceDataset.from_dataset(write(tmp_path / "data", LENGTHS, shard_frames=12))
    for task in (0, 1):
        obs, action = jax.device_get(resident.sample_starts(jax.random.key(task), 20_000, task))
        draws = list(zip(obs[:, 0].astype(int).tolist(), obs[:, 1].astype(int).tolist(), strict=True))
        expected = {window for window in valid_windows(LENGTHS, 1) if LENGTHS[window[0]][0] == task}
        assert uniform_p_value(draws, expected) > 0.001
        np.testing.assert_allclose(action, (obs[:, 1:2] + 0.5) / 1000 * TASKS.action_mask[task], rtol=1e-6)


def test_early_start_states_are_the_asked_share(tmp_path: Path) -> None:
    resident = DeviceDataset.from_dataset(write(tmp_path / "data", LENGTHS))
    early, _ = jax.device_get(resident.sample_starts(jax.random.key(0), 20_000, 0, early_fraction=1.0, early_steps=3))
    draws = collections.Counter(zip(early[:, 0].astype(int).tolist(), early[:, 1].astype(int).tolist(), strict=True))
    # Episodes 0, 2, 4, 6 of task 0 with 7, 5, 2, 6 steps: each a quarter, then the first three steps alike (both steps of episode 4).
    expected = {(seed, t): 20_000 / 4 / min(3, length) for seed, length in ((0, 7), (2, 5), (4, 2), (6, 6)) for t in range(min(3, length))}
    assert draws.keys() == expected.keys()
    assert scipy.stats.chisquare([draws[key] for key in expected], list(expected.values())).pvalue > 0.001
    mixed, _ = jax.device_get(resident.sample_starts(jax.random.key(1), 20_000, 0, early_fraction=0.5, early_steps=1))
    # Uniform draws hit step 0 in 4 of 20 cases, early ones always.
    assert scipy.stats.binomtest(int((mixed[:, 1] == 0).sum()), 20_000, 0.5 + 0.5 * 4 / 20).pvalue > 0.001


def test_start_states_vmapped_over_tasks_equal_one_task_at_a_time(tmp_path: Path) -> None:
    resident = DeviceDataset.from_dataset(write(tmp_path / "data", LENGTHS))
    keys, tasks = jax.random.split(jax.random.key(0), 2), np.arange(2)
    together = jax.vmap(lambda key, task: resident.sample_starts(key, 32, task, 0.5))(keys, tasks)
    for task in tasks:
        alone = resident.sample_starts(keys[task], 32, int(task), 0.5)
        jax.tree.map(lambda many, one, row=task: np.testing.assert_array_equal(many[row], one), together, alone)


def test_tasks_without_episodes_are_named_before_sampling(tmp_path: Path) -> None:
    resident = DeviceDataset.from_dataset(write(tmp_path / "data", LENGTHS))
    assert resident.longest == (7, 4, 0)
    resident.require((0, 1), horizon=4)
    with pytest.raises(DatasetError, match=r"5 steps for task ids \[1, 2\]"):
        resident.require((0, 1, 2), horizon=5)


def test_non_finite_frames_are_refused_on_the_device_even_if_opened_unverified(tmp_path: Path) -> None:
    path = write(tmp_path / "data", LENGTHS).path
    frames = np.load(path / "shard-00000/frames.npy")
    frames[3, 0] = np.inf
    np.save(path / "shard-00000/frames.npy", frames)
    with pytest.raises(DatasetError, match="numbers that are not finite in an episode of long"):
        DeviceDataset.from_dataset(Dataset.open(path, verify=False))
