"""TD-MPC2's files in use: described, trained on, merged, evaluated; large ones without memory, damaged ones without surprise."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_tdmpc2_data import MT30, MT80, PUBLISHED, REWARD, arrays, save
from tiny_data import fresh_model, make_config
from torch_files import tensor, tensordict_current, torch_save

from configs import debug
from experiments import collect, evaluate, pretrain
from pwm_jax.data.describe import describe, main
from pwm_jax.data.merge import Part, merge
from pwm_jax.data.store import Dataset, DatasetError
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.training import pretrain as training
from pwm_jax.training.pretrain import PretrainConfig

GIB = 1 << 30


def test_the_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PUBLISHED)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert lines[:3] == [
        ["file", "rows", "frames", "MiB", "faulty", "rows"],
        ["chunk_0.pt", "6", "41", "0.0", "0"],
        ["chunk_1.pt", "4", "41", "0.0", "0"],
    ]
    assert "all numbers are finite, all padding is 0\n" in out
    returns = REWARD[[3, 4, 5], 1:].sum(1)
    expected = [f"{value:.1f}" for value in (returns.mean(), returns.min(), returns.max())]
    # Success is blank, not 0.
    assert ["walker-walk", "tdmpc2", "3", "120", *expected] in lines
    assert "rows of 3 tasks are parts of episodes, and their returns those of the parts: walker-stand, walker-walk, walker-run" in out
    assert "10 of the 690,000 published rows are here: files are missing; no rows of 27 of 30 tasks: cheetah-run, " in out
    assert all(np.isnan(row.success_rate) for row in describe(Dataset.open(PUBLISHED)))


@pytest.mark.parametrize("device_bytes", [GIB, 0])
def test_a_world_model_trains_on_it(device_bytes: int) -> None:
    config = make_config(MT30)
    settings = PretrainConfig(
        steps=20, log_every=10, eval_every=20, checkpoint_every=20, heldout_fraction=0.2, eval_windows=8, balance="tasks",
        device_bytes=device_bytes,
    )  # fmt: skip
    losses = []
    training.run(fresh_model(config), Dataset.open(PUBLISHED), config, settings, 0, lambda _, report: losses.append(report.scalars))
    assert losses[1]["loss/loss"] < losses[0]["loss/loss"]
    assert np.isfinite(losses[1]["open_loop/walker-run"])


def test_launchers_take_the_directory_and_refuse_other_tasks(tmp_path: Path) -> None:
    config = debug.get_config()
    config.update(tasks="mt30", dataset=str(PUBLISHED))
    collect.main(config, tmp_path)
    assert '"success_rate": null' in (tmp_path / "dataset" / "data.json").read_text()
    config.tasks = "walker-walk"
    for launcher in (collect, pretrain):
        with pytest.raises(DatasetError, match="it has walker-stand, walker-run, cheetah-run and 26 more besides"):
            launcher.main(config, tmp_path)


def test_rows_are_merged_into_a_dataset_of_some_tasks(tmp_path: Path) -> None:
    task_set = TaskSet.from_names("walker-run,walker-walk")
    dataset = merge([Part(Dataset.open(PUBLISHED), 2)], task_set, tmp_path / "merged", {})
    assert dataset.episodes.task_id.tolist() == [1, 1, 0, 0]
    assert np.isnan(dataset.episodes.success).all()
    assert set(dataset.episodes.source) == {"tdmpc2"}
    np.testing.assert_array_equal(dataset.episode(0).reward, REWARD[3, 1:])


def config_of(path: Path) -> ConfigDict:
    config = debug.get_config()
    config.dataset = str(path)
    return config


def test_rows_without_a_score_are_no_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 500 steps are an episode of walker-stand and pendulum-swingup, whose score is the return.
    entries = arrays([0, 7, 7], frames=501)
    recorded = evaluate._recorded(config_of(save(tmp_path / "mt30" / "chunk_0.pt", entries)), tmp_path)
    assert [(row.task, row.success) for row in recorded] == [("walker-stand", None)] + [("pendulum-swingup", None)] * 2
    np.testing.assert_allclose([row.score for row in recorded], entries["reward"][:, 1:].sum(1) / 1000, rtol=1e-5)
    assert capsys.readouterr().out == ""
    # 100 steps are part of an episode of dm_control, and a whole one of Meta-World, whose success is not in the file.
    path = save(tmp_path / "mt80" / "chunk_0.pt", arrays([0, 30], frames=101, task_set=MT80))
    assert evaluate._recorded(config_of(path), tmp_path) == []
    assert capsys.readouterr().out == "data: 2 of 2 recorded rows have no score and are left out: walker-stand, mw-assembly\n"


def large(path: Path, rows: int) -> Path:
    """A file of `rows` rows of MT30's length, all zeros, that takes no room on the disk."""
    frames = 501
    entries = {
        "obs": tensor("0", "Float", rows * frames * 24, (rows, frames, 24), (frames * 24, 24, 1)),
        "action": tensor("1", "Float", rows * frames * 6, (rows, frames, 6), (frames * 6, 6, 1)),
        "reward": tensor("2", "Float", rows * frames, (rows, frames), (frames, 1)),
        "task": tensor("3", "Int", rows * frames, (rows, frames), (frames, 1)),
    }
    holes = {str(key): rows * frames * 4 * width for key, width in enumerate((24, 6, 1, 1))}
    path.parent.mkdir()
    return torch_save(path, tensordict_current(entries, (rows, frames)), holes).parent


PROGRAM = """
import resource, sys
import numpy as np
from pwm_jax.data import describe, store
from pwm_jax.data.sample import WindowSampler

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{code}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def peak_mib(code: str, *arguments: str) -> tuple[float, str]:
    """The most memory that a fresh process held beyond what it held after its imports, and what `code` printed in it."""
    program = PROGRAM.format(code=code)
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    *printed, peak = done.stdout.splitlines()
    return float(peak), "\n".join(printed)


def test_opening_and_sampling_a_large_dataset_takes_little_memory(tmp_path: Path) -> None:
    path = large(tmp_path / "mt30" / "chunk_0.pt", 200_000)
    assert (path / "chunk_0.pt").stat().st_size > 11 * GIB
    code = (
        "data = store.Dataset.open(sys.argv[1], random_access=True)\nprint(len(data), data.episodes.episode_return.sum())\n"
        "print(WindowSampler(data, 256, 16, terminations=False)(np.random.default_rng(0)).obs.max())"
    )
    peak, printed = peak_mib(code, str(path))
    assert printed == "200000 0.0\n0.0"
    # Rewards and task ids are 800 MB; the columns of 200 000 episodes 20 MB.
    assert peak < 300


def test_reading_all_of_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    path = large(tmp_path / "mt30" / "chunk_0.pt", 12_000)
    assert (path / "chunk_0.pt").stat().st_size > 730 << 20
    peak, printed = peak_mib("describe.main([sys.argv[1]])", str(path))
    assert "walker-stand  tdmpc2     12000  6000000" in printed
    assert peak < 300
    peak, printed = peak_mib(
        "try: store.Dataset.open(sys.argv[1], verify=True)\nexcept store.DatasetError as error: print(error)", str(path)
    )
    assert "'data/0' fails its checksum" in printed  # the holes have none
    assert peak < 300


def test_mutated_files_open_or_are_refused_and_nothing_else(tmp_path: Path) -> None:
    path = shutil.copytree(PUBLISHED, tmp_path / "mt30") / "chunk_1.pt"
    good, rng, opened = path.read_bytes(), np.random.default_rng(3), {None: 0, False: 0}
    for _ in range(200):
        mutated = bytearray(good)
        mutated[rng.integers(len(good))] ^= 1 << rng.integers(8)
        path.write_bytes(mutated)
        for verify in opened:
            try:
                dataset = Dataset.open(path.parent, verify=verify)
            except DatasetError:
                continue
            opened[verify] += 1
            dataset.episode(len(dataset) - 1)
    # Checksums find what changes a number, but not what changes padding of the archive.
    assert 0 < opened[None] < 60
    assert 120 < opened[False] < 200


def test_nothing_is_written_beside_the_files(tmp_path: Path) -> None:
    shutil.copytree(PUBLISHED, tmp_path / "mt30")
    before = {file: file.stat() for file in (tmp_path / "mt30").iterdir()}
    dataset = Dataset.open(tmp_path / "mt30", random_access=True)
    assert main([str(tmp_path / "mt30")]) == 0
    assert {file: file.stat() for file in (tmp_path / "mt30").iterdir()}.keys() == before.keys()
    with pytest.raises(ValueError, match="read-only"):
        dataset.shards[0].obs[0, 0, 0] = 1  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.shards[0].obs = None  # type: ignore[attr-defined]
