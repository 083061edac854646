"""TD-MPC2's files as a dataset: against two files that torch wrote and their arrays, and against files written here."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from torch_files import Call, Name, tensor, tensordict_2023, tensordict_current, torch_save

from pwm_jax.data import store
from pwm_jax.data.describe import describe_files, main
from pwm_jax.data.sample import DeviceDataset, WindowSampler
from pwm_jax.data.store import Dataset, DatasetError
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.types import Batch

PUBLISHED = Path(__file__).parent / "fixtures" / "tdmpc2"
CONTENTS = np.load(PUBLISHED / "chunk_contents.npz")
OBS, ACTION, REWARD, TASK = (np.concatenate([CONTENTS[f"{key}{file}"] for file in (0, 1)]) for key in ("obs", "action", "reward", "task"))
ROWS, FRAMES = REWARD.shape
MT30, MT80 = TaskSet.from_names("mt30"), TaskSet.from_names("mt80")


def arrays(tasks: list[int], frames: int = 6, task_set: TaskSet = MT30, seed: int = 0) -> dict[str, np.ndarray]:
    """The four arrays of one file: row n of task tasks[n], padded with zeros, filler at index 0."""
    rng, shape = np.random.default_rng(seed), (len(tasks), frames)
    obs, action = rng.normal(size=(*shape, task_set.obs_dim)), rng.uniform(-1, 1, (*shape, task_set.action_dim))
    for row, task in enumerate(tasks):
        spec = task_set.specs[task]
        obs[row, :, spec.obs_dim :], action[row, :, spec.action_dim :] = 0, 0
    action[:, 0], reward = 1e30, rng.uniform(0, 2, shape)
    reward[:, 0] = np.nan
    task = np.repeat(np.array(tasks, np.int32)[:, None], frames, axis=1)
    return {"obs": obs.astype("f4"), "action": action.astype("f4"), "reward": reward.astype("f4"), "task": task}


def save(path: Path, entries: dict[str, Any], layout: Any = tensordict_current) -> Path:
    """Write one file; returns the directory."""
    path.parent.mkdir(exist_ok=True)
    torch_save(path, layout(entries, (len(entries["reward"]), 6)))
    return path.parent


def test_episodes_are_the_rows_shifted_by_one() -> None:
    dataset = Dataset.open(PUBLISHED)
    assert dataset.task_set == MT30
    dataset.require(MT30)
    assert (len(dataset), dataset.num_steps, dataset.nbytes) == (ROWS, ROWS * (FRAMES - 1), ROWS * FRAMES * 32 * 4)
    for row, episode in enumerate(dataset.iter_episodes()):
        np.testing.assert_array_equal(episode.obs, OBS[row])
        np.testing.assert_array_equal(episode.action, ACTION[row, 1:])
        np.testing.assert_array_equal(episode.reward, REWARD[row, 1:])
        assert not episode.terminated.any()
        assert (episode.task_id, episode.source, episode.seed) == (TASK[row, 0], "tdmpc2", -1)
        assert np.isnan(episode.success)
    np.testing.assert_allclose(dataset.episodes.episode_return, REWARD[:, 1:].sum(axis=1, dtype=np.float64), rtol=1e-12)
    np.testing.assert_array_equal(dataset.episodes.length, FRAMES - 1)


def test_the_last_frame_of_a_row_has_an_observation_only() -> None:
    dataset = Dataset.open(PUBLISHED)
    # In the middle of a file, at its end, and at the end of all; in one read of both files and in one of each.
    rows = np.array([2, 5, 9])
    for chosen in (rows, rows[:2], rows[2:]):
        frames = dataset.read_frames(dataset.episodes.frame[chosen] + FRAMES - 1, 1)
        np.testing.assert_array_equal(frames.obs[0], OBS[chosen, -1])
        assert not frames.action.any()
        assert not frames.reward.any()
        assert not frames.terminated.any()


def windows_of(batch: Batch, horizon: int) -> set[tuple[int, int]]:
    """(row, first step) of each window, after checking every number of it against the arrays of the files."""
    found = set()
    for b in range(batch.obs.shape[1]):
        ((row, start),) = np.argwhere((batch.obs[0, b] == OBS).all(-1))
        np.testing.assert_array_equal(batch.obs[:, b], OBS[row, start : start + horizon + 1])
        np.testing.assert_array_equal(batch.action[:, b], ACTION[row, start + 1 : start + horizon + 1])
        np.testing.assert_array_equal(batch.reward[:, b], REWARD[row, start + 1 : start + horizon + 1])
        assert batch.task_id[b] == TASK[row, 0]
        found.add((int(row), int(start)))
    assert batch.reward.shape[0] == horizon
    assert not np.asarray(batch.terminated).any()
    return found


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("horizon", [16, FRAMES - 1])
def test_windows_are_those_within_a_row(place: str, horizon: int) -> None:
    dataset = Dataset.open(PUBLISHED)
    if place == "host":
        sampler = WindowSampler(dataset, 2000, horizon)
        assert sampler.num_windows == ROWS * (FRAMES - horizon)
        batch = sampler(np.random.default_rng(0))
    else:
        batch = jax.device_get(DeviceDataset.from_dataset(dataset).sample(jax.random.key(0), 2000, horizon))
    assert windows_of(batch, horizon) == {(row, start) for row in range(ROWS) for start in range(FRAMES - horizon)}
    with pytest.raises(DatasetError, match=f"no episode has {FRAMES} steps"):
        WindowSampler(dataset, 4, FRAMES)


def test_tasks_are_selected_by_name_and_id() -> None:
    dataset = Dataset.open(PUBLISHED).select(tasks=["walker-walk", 2])
    assert dataset.episodes.task_id.tolist() == [2, 1, 1, 1, 2]
    rows = {row for row, _ in windows_of(WindowSampler(dataset, 300, 8)(np.random.default_rng(1)), 8)}
    assert rows == {2, 3, 4, 5, 7}
    states, actions = jax.device_get(DeviceDataset.from_dataset(dataset).sample_starts(jax.random.key(0), 64, 1))
    for state, action in zip(states, actions, strict=True):
        ((row, start),) = np.argwhere((state == OBS).all(-1))
        assert row in (3, 4, 5)
        np.testing.assert_array_equal(action, ACTION[row, start + 1])


@pytest.mark.parametrize("layout", [tensordict_2023, tensordict_current, lambda entries, _: entries], ids=["2023", "current", "dict"])
def test_mt80_in_every_layout(tmp_path: Path, layout: Any) -> None:
    written = arrays([79, 7, 30], task_set=MT80)
    written["task"] = written["task"].astype(np.int64)
    dataset = Dataset.open(save(tmp_path / "mt80" / "chunk_0.pt", written, layout))
    dataset.require(MT80)
    assert dataset.episodes.task_id.tolist() == [79, 7, 30]
    np.testing.assert_array_equal(dataset.episode(0).obs, written["obs"][0])
    with pytest.raises(
        DatasetError, match=r"it has mw-assembly, .* and 47 more besides; they are padded to obs 39, action 6, not obs 24, action 6"
    ):
        dataset.require(MT30)


def test_files_are_in_the_order_of_their_names_as_text(tmp_path: Path) -> None:
    for number in (2, 10, 0):
        save(tmp_path / "mt" / f"chunk_{number}.pt", arrays([number] * (number + 1)))
    dataset = Dataset.open(tmp_path / "mt")
    assert dataset.episodes.task_id.tolist() == [0] + [10] * 11 + [2] * 3
    assert dataset.recipe["rows"] == {"chunk_0.pt": 1, "chunk_10.pt": 11, "chunk_2.pt": 3}
    np.testing.assert_array_equal(dataset.episode(14).obs, arrays([2] * 3)["obs"][2])


def set_at(key: str, *index: Any, value: float) -> Any:
    def change(entries: dict[str, np.ndarray]) -> None:
        entries[key][index] = value

    return change


# Rows are of walker-stand (0: 24 observations, 6 actions) and pendulum-swingup (7: 3 and 1); row 1 is the second of pendulum-swingup.
FAULTS = {
    "nan obs": (set_at("obs", 1, 0, 2, value=np.nan), "numbers that are not finite in its obs", (1, 0, 0, 0)),
    "inf action": (set_at("action", 1, 1, 0, value=np.inf), "numbers that are not finite in its action", (0, 1, 0, 0)),
    "nan rewards": (set_at("reward", 1, slice(3, 5), value=np.nan), "numbers that are not finite in its reward", (0, 0, 2, 0)),
    "padded obs": (set_at("obs", 1, 5, slice(3, 6), value=0.1), "beyond the task's own sizes", (0, 0, 0, 3)),
    "padded action": (set_at("action", 1, 5, 5, value=0.1), "beyond the task's own sizes", (0, 0, 0, 1)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_refused_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    change, message, counts = FAULTS[name]
    entries = arrays([7, 7, 0])
    change(entries)
    path = save(tmp_path / "mt30" / "chunk_0.pt", entries)
    with pytest.raises(DatasetError, match=message) as caught:
        Dataset.open(path)
    assert f"{path / 'chunk_0.pt'}: row 1 (task pendulum-swingup) has" in str(caught.value)
    files, tasks = describe_files(Dataset.open(path, verify=False))
    assert [(file.rows, file.frames, file.faulty_rows) for file in files] == [(3, 6, 1)]
    assert [(row.task, row.obs, row.action, row.reward, row.padding) for row in tasks] == [
        ("walker-stand", 0, 0, 0, 0),
        ("pendulum-swingup", *counts),
    ]
    assert main([str(path)]) == 1
    shown = capsys.readouterr()
    assert f"{path} has faulty rows of 1 tasks, which pre-training refuses" in shown.err
    lines = shown.out.splitlines()
    assert lines[1].split() == ["chunk_0.pt", "3", "6", f"{(path / 'chunk_0.pt').stat().st_size / 2**20:.1f}", "1"]
    assert lines[4].split() == ["pendulum-swingup", *map(str, counts)]


def test_a_large_dataset_is_checked_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FULL_VERIFY_BYTES", 0)
    for row, key, refused in ((0, "obs", True), (19, "action", True), (1, "obs", False), (1, "reward", True)):
        entries = arrays([3] * 20)
        entries[key][row, 2] = np.nan
        path = save(tmp_path / "mt30" / "chunk_0.pt", entries)
        if refused:
            with pytest.raises(DatasetError, match=f"row {row} .* not finite in its {key}"):
                Dataset.open(path)
        else:
            assert len(Dataset.open(path)) == 20
        with pytest.raises(DatasetError, match=f"row {row} .* not finite in its {key}"):
            Dataset.open(path, verify=True)


def test_the_filler_is_no_fault(tmp_path: Path) -> None:
    entries = arrays([7, 0])
    entries["action"][:, 0] = np.nan
    entries["reward"][:, 0] = np.inf
    dataset = Dataset.open(save(tmp_path / "mt30" / "chunk_0.pt", entries))
    np.testing.assert_array_equal(dataset.episode(1).action, entries["action"][1, 1:])


def reshaped(key: str, change: Any) -> Any:
    def apply(entries: dict[str, np.ndarray]) -> dict[str, Any]:
        return {**entries, key: change(entries[key])}

    return apply


FOREIGN = {
    "an entry is missing": (lambda e: {k: v for k, v in e.items() if k != "task"}, "holds the arrays obs, action, reward, task"),
    "another entry": (lambda e: {**e, "terminated": e["reward"]}, "holds 'obs', 'action', 'reward', 'task', 'terminated'"),
    "an entry of text": (lambda e: {**e, "task": "walker"}, "it is foreign"),
    "obs of doubles": (reshaped("obs", lambda v: v.astype("f8")), r"obs is float64 \(2, 6, 24\), expected float32"),
    "obs of another width": (reshaped("obs", lambda v: v[..., :23]), r"obs is float32 \(2, 6, 23\)"),
    "flat obs": (reshaped("obs", lambda v: v.reshape(-1)), r"obs is float32 \(288,\)"),
    "action of another width": (reshaped("action", lambda v: v[..., :4]), r"action is float32 \(2, 6, 4\), .*\(2, 6, 6\)"),
    "reward with an axis more": (reshaped("reward", lambda v: v[..., None]), r"expected .* \('N', 'T', 24\)"),
    "time first": (lambda e: {k: v.swapaxes(0, 1) if k == "obs" else v for k, v in e.items()}, r"obs is float32 \(6, 2, 24\)"),
    "a task for each row": (reshaped("task", lambda v: v[:, 0].copy()), r"task is int32 \(2,\)"),
    "tasks as floats": (reshaped("task", lambda v: v.astype("f4")), "task is float32"),
    "no rows": (lambda e: {k: v[:0] for k, v in e.items()}, "reward|obs"),
    "rows of one frame": (lambda e: {k: v[:, :1] for k, v in e.items()}, "expected"),
    "an unknown task": (reshaped("task", lambda v: v + 29), r"the task id of row 0 is outside 0\.\.29: not a file of mt30"),
    "a negative task": (reshaped("task", lambda v: v - 8), r"the task id of row 1 is outside"),
    "a task beyond 32 bits": (reshaped("task", lambda v: v.astype(np.int64) + (1 << 32)), r"the task id of row 0 is outside"),
    "a task that changes": (reshaped("task", lambda v: np.where(np.arange(12).reshape(2, 6) == 10, 3, v)), "row 1 changes along the row"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("verify", [None, False])
def test_a_foreign_layout_is_refused(tmp_path: Path, name: str, verify: bool | None) -> None:
    change, message = FOREIGN[name]
    path = tmp_path / "mt30" / "chunk_0.pt"
    entries = change(arrays([8, 7]))
    path.parent.mkdir()
    torch_save(
        path, tensordict_current({k: np.ascontiguousarray(v) if isinstance(v, np.ndarray) else v for k, v in entries.items()}, (2, 6))
    )
    with pytest.raises(DatasetError, match=message) as caught:
        Dataset.open(path.parent, verify=verify)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_views_into_a_larger_storage_and_strided_ones(tmp_path: Path) -> None:
    entries = arrays([7, 7, 0])
    stored = {key: np.ascontiguousarray(entries[key]).tobytes() for key in entries}
    # td[:2] of three rows, saved with the storages of all three.
    part: dict[str, Any] = {}
    for key, values in entries.items():
        strides = [stride // 4 for stride in values.strides]
        part[key] = tensor(key, "Int" if key == "task" else "Float", values.size, (2, *values.shape[1:]), strides)
    path = tmp_path / "mt30" / "chunk_0.pt"
    path.parent.mkdir()
    torch_save(path, tensordict_current(part, (2, 6)), stored)
    np.testing.assert_array_equal(Dataset.open(path.parent).episode(1).action, entries["action"][1, 1:])
    # Time first in memory, as a stack of frames that was transposed.
    for key, values in entries.items():
        strides = [stride // 4 for stride in values.swapaxes(0, 1).copy().swapaxes(0, 1).strides]
        part[key] = tensor(key, "Int" if key == "task" else "Float", values.size, values.shape, strides)
    torch_save(
        path, tensordict_current(part, (3, 6)), {key: np.ascontiguousarray(v.swapaxes(0, 1)).tobytes() for key, v in entries.items()}
    )
    dataset = Dataset.open(path.parent)
    for row, episode in enumerate(dataset.iter_episodes()):
        np.testing.assert_array_equal(episode.obs, entries["obs"][row])
        np.testing.assert_array_equal(episode.action, entries["action"][row, 1:])
        np.testing.assert_array_equal(episode.reward, entries["reward"][row, 1:])
        assert episode.task_id == entries["task"][row, 0]


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    save(tmp_path / "mt" / "chunk_0.pt", arrays([0]))
    save(tmp_path / "mt" / "chunk_1.pt", arrays([0], frames=7))
    with pytest.raises(DatasetError, match=r"chunk_1\.pt has rows of 7 frames and 24 observations, chunk_0\.pt rows of 6 frames and 24"):
        Dataset.open(tmp_path / "mt")
    save(tmp_path / "mt" / "chunk_1.pt", arrays([0], task_set=MT80))
    with pytest.raises(DatasetError, match="keep the files of one dataset in the directory"):
        Dataset.open(tmp_path / "mt")


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copytree(PUBLISHED, tmp_path / "mt30") / "chunk_1.pt"
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    with pytest.raises(DatasetError, match=r"chunk_1\.pt is cut short or damaged"):
        Dataset.open(path.parent)
    assert main([str(path.parent)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    at = good.index(OBS[8, 3].tobytes())
    path.write_bytes(good[:at] + b"\x00\x00\x80\x3f" + good[at + 4 :])
    with pytest.raises(DatasetError, match=r"chunk_1\.pt: 'data/0' fails its checksum"):
        Dataset.open(path.parent)
    assert Dataset.open(path.parent, verify=False).episode(8).obs[3, 0] == 1.0
    torch_save(path, Call(Name("os", "system"), (f"touch {tmp_path / 'hacked'}",)))
    with pytest.raises(DatasetError, match=r"chunk_1\.pt: data\.pkl refers to 'os\.system'"):
        Dataset.open(path.parent)
    assert not (tmp_path / "hacked").exists()
