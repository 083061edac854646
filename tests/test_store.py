import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recorded_episodes import TASKS, episode, write

from pwm_jax.data import writer as writer_module
from pwm_jax.data.format import crc32_of, sealed
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter, Episode
from pwm_jax.envs.tasks import TaskSet, UnknownTaskError

LENGTHS = [(0, 7), (1, 3), (0, 5), (1, 1), (0, 2), (1, 4)]


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock"}


def assert_same_episode(actual: Episode, expected: Episode) -> None:
    spec = TASKS.specs[expected.task_id]
    np.testing.assert_array_equal(actual.obs[:, : spec.obs_dim], expected.obs)
    np.testing.assert_array_equal(actual.action[:, : spec.action_dim], expected.action)
    assert actual.obs.shape[1] == TASKS.obs_dim
    assert not actual.obs[:, spec.obs_dim :].any()
    assert actual.action.shape[1] == TASKS.action_dim
    assert not actual.action[:, spec.action_dim :].any()
    np.testing.assert_array_equal(actual.reward, expected.reward)
    np.testing.assert_array_equal(actual.terminated, expected.terminated)
    assert (actual.success, actual.source, actual.seed) == (expected.success, expected.source, expected.seed)


@pytest.mark.parametrize(("shard_frames", "shards"), [(1_000_000, 1), (10, 3), (1, 6)])
def test_episodes_come_back_as_written_however_they_are_sharded(tmp_path: Path, shard_frames: int, shards: int) -> None:
    dataset = write(tmp_path / "data", LENGTHS, shard_frames)
    assert len(dataset.shards) == shards
    assert len(dataset) == 6
    assert dataset.num_steps == 22
    assert dataset.nbytes == (22 + 6) * (5 + 3 + 2) * 4
    assert dataset.recipe == {"made": "for tests"}
    assert dataset.task_set == TASKS
    for seed, (task_id, length) in enumerate(LENGTHS):
        assert_same_episode(dataset.episode(seed), episode(task_id, length, seed, terminated=seed % 2 == 1))
    # Rewards are 0, 1, .., T-1: the return is T (T - 1) / 2.
    np.testing.assert_array_equal(dataset.episodes.episode_return, [21, 3, 10, 0, 1, 6])
    np.testing.assert_array_equal(dataset.episodes.success, [0, 1, 0, 1, 0, 1])


def test_the_last_frame_of_an_episode_has_an_observation_only(tmp_path: Path) -> None:
    frames = np.load(write(tmp_path / "data", [(1, 2)]).shards[0].path / "frames.npy")
    np.testing.assert_allclose(frames[:, :2], [[0, 0], [0, 1], [0, 2]])
    np.testing.assert_allclose(frames[:, 5:], [[0.0005, 0.0005, 0, 0, 0], [0.0015, 0.0015, 0, 1, 0], [0, 0, 0, 0, 0]], rtol=1e-6)


def test_opening_maps_the_frames_and_reads_none(tmp_path: Path) -> None:
    write(tmp_path / "data", LENGTHS)
    frames_file = tmp_path / "data/shard-00000/frames.npy"
    # A hole of 64 GiB at the end of the frames: only a mapping can open it.
    huge = (1 << 34) // 10
    header = json.loads((tmp_path / "data/dataset.json").read_text())
    header["shards"][0]["frames"] = huge
    (tmp_path / "data/dataset.json").write_text(json.dumps(sealed(header)))
    with frames_file.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (huge, 10)})
        file.truncate(file.tell() + huge * 40)
    length = np.load(tmp_path / "data/shard-00000/length.npy")
    length[-1] = huge - np.load(tmp_path / "data/shard-00000/start.npy")[-1] - 1
    np.save(tmp_path / "data/shard-00000/length.npy", length)
    dataset = Dataset.open(tmp_path / "data")
    assert isinstance(dataset.shards[0].frames, np.memmap)
    assert dataset.nbytes > 60 << 30
    assert not dataset.read_frames(np.array([huge - 5]), 5).obs.any()


def test_select_keeps_task_ids_and_shares_the_frames(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", LENGTHS, shard_frames=10)
    wide = dataset.select(tasks=["wide"])
    assert wide.shards is dataset.shards
    assert wide.episodes.seed.tolist() == [1, 3, 5]
    assert_same_episode(wide.episode(2), episode(1, 4, 5, terminated=True))
    assert dataset.select(tasks=[0], episode_mask=dataset.episodes.length > 4).episodes.seed.tolist() == [0, 2]
    with pytest.raises(DatasetError, match="expert"):
        dataset.select(sources=["expert"])
    with pytest.raises(UnknownTaskError, match="wid"):
        dataset.select(tasks=["wid"])
    with pytest.raises(DatasetError, match="episode_mask"):
        dataset.select(episode_mask=np.ones(5, bool))


def test_heldout_episodes_are_a_share_of_every_task(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", [(seed % 2, 2) for seed in range(40)])
    train, heldout = dataset.split_heldout(0.1, seed=3)
    assert sorted([*train.episodes.seed, *heldout.episodes.seed]) == list(range(40))
    assert np.bincount(heldout.episodes.task_id).tolist() == [2, 2]
    assert dataset.split_heldout(0.1, seed=3)[1].episodes.seed.tolist() == heldout.episodes.seed.tolist()
    assert any(dataset.split_heldout(0.1, seed=s)[1].episodes.seed.tolist() != heldout.episodes.seed.tolist() for s in range(4, 8))
    # However small or large the fraction, both parts have every task.
    for fraction in (0.001, 0.999):
        parts = dataset.split_heldout(fraction, seed=0)
        assert sorted(np.bincount(parts[0].episodes.task_id)) in ([1, 1], [19, 19])
    with pytest.raises(DatasetError, match="rare"):
        write(tmp_path / "single", [(0, 2), (0, 2), (2, 2)]).split_heldout(0.5, seed=0)
    with pytest.raises(ValueError, match="fraction"):
        dataset.split_heldout(1.0, seed=0)


def test_a_share_of_one_task_is_kept_and_what_is_held_out_comes_last(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", [(n % 2, 2) for n in range(40)])
    first = TASKS.names[0]
    _, heldout = dataset.split_heldout(0.2, seed=3)
    smaller: set[int] = set()
    for share, count in ((0.01, 2), (0.1, 2), (0.5, 10), (0.8, 16), (1.0, 20)):
        thin = dataset.thin(first, share, seed=3)
        kept = set(thin.episodes.frame[thin.episodes.task_id == 0].tolist())
        assert len(kept) == count
        assert smaller <= kept
        assert bool(kept & set(heldout.episodes.frame.tolist())) == (share == 1.0)
        assert np.count_nonzero(thin.episodes.task_id == 1) == 20
        smaller = kept
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got 0"):
        dataset.thin(first, 0.0, seed=3)
    with pytest.raises(UnknownTaskError):
        dataset.thin("pendulum-swingip", 0.5, seed=3)


def test_a_model_of_other_tasks_or_padding_is_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", LENGTHS)
    dataset.require(TASKS)
    with pytest.raises(DatasetError, match="obs 9"):
        dataset.require(TaskSet(TASKS.specs, 9, TASKS.action_dim))
    with pytest.raises(DatasetError, match="cartpole-swingup"):
        dataset.require(TaskSet.from_names(["cartpole-swingup"]))


def flip_a_byte(path: Path) -> None:
    content = bytearray((path / "shard-00000/frames.npy").read_bytes())
    content[-30] ^= 1
    (path / "shard-00000/frames.npy").write_bytes(content)


def put_nan(path: Path) -> None:
    file = path / "shard-00000/frames.npy"
    frames = np.load(file)
    # Frame 9 is step 1 of the second episode (frames 8..11), column 8 the reward.
    frames[9, 8] = np.nan
    np.save(file, frames)
    (path / "shard-00000/shard.json").write_text(json.dumps({"crc32": {f.name: crc32_of(f) for f in (path / "shard-00000").glob("*.npy")}}))


def edit_index(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        index = json.loads((path / "dataset.json").read_text())
        (path / "dataset.json").write_text(json.dumps(sealed(index | changes)))

    return edit


def pickle_in(path: Path) -> None:
    np.save(path / "shard-00000/seed.npy", np.array([{"a": 1}] * 6, object), allow_pickle=True)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: os.truncate(path / "shard-00000/frames.npy", 500), r"frames\.npy.*truncated"),
    (lambda path: os.truncate(path / "shard-00000/frames.npy", 3), r"frames\.npy.*truncated"),
    (lambda path: os.truncate(path / "shard-00000/seed.npy", 140), r"seed\.npy.*truncated"),
    (lambda path: (path / "shard-00000/frames.npy").unlink(), r"frames\.npy is missing"),
    (lambda path: (path / "shard-00000").rename(path / "elsewhere"), r"shard-00000/frames\.npy is missing"),
    (flip_a_byte, r"frames\.npy fails its checksum"),
    (put_nan, r"frames\.npy: reward is not finite at frame 9 \(task wide, episode 1 of the shard, step 1\)"),
    (pickle_in, r"seed\.npy"),
    (lambda path: np.save(path / "shard-00000/frames.npy", np.zeros((28, 10))), r"frames\.npy holds float64"),
    (lambda path: np.save(path / "shard-00000/frames.npy", np.zeros((27, 10), np.float32)), r"frames\.npy holds float32 \(27, 10\)"),
    (lambda path: np.save(path / "shard-00000/task_id.npy", np.full(6, 3, np.int32)), r"task_id\.npy has task ids outside 0\.\.2"),
    (lambda path: np.save(path / "shard-00000/length.npy", np.full(6, 4, np.int32)), r"do not tile"),
    (lambda path: (path / "dataset.json").unlink(), r"dataset\.json does not exist"),
    (lambda path: (path / "dataset.json").write_text('{"format": '), r"dataset\.json is not readable"),
    (lambda path: (path / "dataset.json").write_text("[1]"), r"dataset\.json holds a list"),
    (edit_index(format="minari"), r"dataset\.json is not a pwm_jax dataset"),
    (edit_index(version=99), "format version 99"),
    (edit_index(task_set={"tasks": []}), r"dataset\.json"),
    (edit_index(shards=[]), "no episodes"),
    (edit_index(complete=False), "interrupted"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_a_damaged_or_foreign_dataset_is_one_error_that_names_the_file(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / "data", LENGTHS)
    damage(tmp_path / "data")
    with pytest.raises(DatasetError, match=message):
        Dataset.open(tmp_path / "data")


def test_a_missing_or_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        Dataset.open(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        Dataset.open(tmp_path)


def bad_episodes() -> list[tuple[Episode, str]]:
    good = episode(1, 3, 7)
    not_finite, padded, early = good.obs.copy(), np.ones((4, TASKS.obs_dim), np.float32), np.array([True, False, False])
    not_finite[2, 3] = np.inf
    replace = {field: getattr(good, field) for field in good.__dataclass_fields__}
    return [
        (Episode(**replace | {"obs": not_finite}), "wide.*seed 7.*obs is not finite at step 2"),
        (Episode(**replace | {"reward": np.array([0, np.nan, 0])}), "reward is not finite at step 1"),
        (Episode(**replace | {"action": np.full((3, 2), np.nan)}), "action is not finite at step 0"),
        (Episode(**replace | {"obs": padded}), "not zero in its padding"),
        (Episode(**replace | {"obs": good.obs[:-1]}), "obs has shape"),
        (Episode(**replace | {"action": good.action[:, :1]}), "action has shape"),
        (Episode(**replace | {"terminated": early}), "terminated"),
        (Episode(**replace | {"reward": np.zeros(0)}), "no steps"),
        (episode(1, TASKS.specs[1].episode_length + 1, 7), "has [0-9]+ steps, and episodes of the task end after"),
        (Episode(**replace | {"task_id": 3}), "task id 3"),
    ]


@pytest.mark.parametrize("index", range(10))
def test_a_bad_episode_is_refused_before_it_is_stored(tmp_path: Path, index: int) -> None:
    bad, message = bad_episodes()[index]
    writer = DatasetWriter(tmp_path / "data", TASKS, {})
    with pytest.raises(DatasetError, match=message):
        writer.add_episode(bad)
    assert writer.num_episodes == 0
    writer.abort()


def test_a_writer_killed_at_any_moment_leaves_whole_shards_and_resumes_to_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(write(tmp_path / "whole", LENGTHS, shard_frames=10).path)
    for function in ("crc32_of", "fsync", "write_json"):
        for calls_before in range(12):
            path = tmp_path / f"{function}-{calls_before}"
            calls = iter(range(1000))
            original = getattr(writer_module, function)

            def dies(*args: object, limit: int = calls_before, count: object = calls, call: Callable[..., object] = original) -> object:
                if next(count) == limit:  # type: ignore[call-overload]
                    raise KeyboardInterrupt
                return call(*args)

            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(writer_module, function, dies)
                write(path, LENGTHS, shard_frames=10)
            index = path / "dataset.json"
            written = json.loads(index.read_text())["episodes"] if index.exists() else 0
            with DatasetWriter(path, TASKS, {"made": "for tests"}, shard_frames=10, append=True) as writer:
                assert writer.num_episodes == written
                for seed in range(written, len(LENGTHS)):
                    writer.add_episode(episode(*LENGTHS[seed], seed, terminated=seed % 2 == 1))
            assert contents(path) == whole


def _write_and_wait(path: str, ready: object, stop: object) -> None:
    with DatasetWriter(path, TASKS, {"made": "for tests"}):
        ready.set()  # type: ignore[attr-defined]
        stop.wait()  # type: ignore[attr-defined]


def test_two_processes_cannot_write_one_dataset(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_write_and_wait, args=(str(tmp_path / "data"), ready, stop))
    process.start()
    assert ready.wait(60)
    with pytest.raises(DatasetError, match="another process"):
        DatasetWriter(tmp_path / "data", TASKS, {"made": "for tests"}, append=True)
    stop.set()
    process.join(60)
    DatasetWriter(tmp_path / "data", TASKS, {"made": "for tests"}, append=True).abort()


def test_another_dataset_is_never_overwritten(tmp_path: Path) -> None:
    before = contents(write(tmp_path / "data", LENGTHS).path)
    with pytest.raises(DatasetError, match="already holds"):
        DatasetWriter(tmp_path / "data", TASKS, {"made": "for tests"})
    with pytest.raises(DatasetError, match="another recipe"):
        DatasetWriter(tmp_path / "data", TASKS, {"made": "otherwise"}, append=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/dataset.json").write_text("{}")
    with pytest.raises(DatasetError, match="is not a pwm_jax dataset"):
        DatasetWriter(tmp_path / "foreign", TASKS, {}, append=True)
    assert contents(tmp_path / "data") == before
