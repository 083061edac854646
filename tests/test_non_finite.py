"""What is not finite: refused as it is read, or the end of the run in a line that tells step, data and the last checkpoint."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_data import TASKS, fresh_model, make_config, make_episode, write_dataset

from configs import debug
from experiments import bc, launch, stages
from pwm_jax import checkpoint, ops
from pwm_jax.baselines import bc as cloning
from pwm_jax.data.sample import DeviceDataset, WindowSampler
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter
from pwm_jax.training import pretrain

SETTINGS = pretrain.PretrainConfig(
    steps=40, log_every=10, eval_every=20, checkpoint_every=20, heldout_fraction=0.2, eval_windows=32, balance="tasks", device_bytes=0
)


def test_the_entries_that_are_not_finite_are_named() -> None:
    metrics = {"a": np.array([0.0, np.nan, 1.0]), "b": np.array([np.inf, np.nan, 1.0]), "c": np.zeros(3), "d": np.float32(1)}
    with pytest.raises(FloatingPointError) as caught:
        ops.require_finite(metrics, "extract", "before 2", ["x/seed0", "y/seed0", "z/seed0"])
    assert str(caught.value) == "extract: a, b not finite before 2, of x/seed0, y/seed0"
    with pytest.raises(FloatingPointError, match=r"^online: d not finite after 3$"):
        ops.require_finite({**metrics, "a": np.zeros(3), "b": np.zeros(3), "d": np.float32(np.nan)}, "online", "after 3", ["x"])
    with pytest.raises(FloatingPointError, match=r"of 0, 1, 2 and 7 others$"):
        ops.require_finite({"a": np.full(10, np.nan)}, "bc", "at 1", [str(n) for n in range(10)])
    ops.require_finite({"a": np.zeros(2)}, "bc", "at 1", ["x", "y"])


def with_a_huge_number(path) -> Dataset:
    """Ten episodes of each task, the fourth of the second with one observation of 3e38."""
    with DatasetWriter(path, TASKS, {}) as writer:
        for task_id in range(2):
            for seed in range(10):
                episode = make_episode(task_id, seed)
                episode.obs[5, 1] = 3e38 if (task_id, seed) == (1, 3) else episode.obs[5, 1]
                writer.add_episode(episode)
    return Dataset.open(path)


def test_a_launcher_names_step_data_and_the_last_checkpoint(tmp_path) -> None:
    config: ConfigDict = debug.get_config()
    config.tasks, config.extract.seeds = ",".join(TASKS.names), (0,)
    config.bc.update(steps=40, log_every=20, batch_size=8, hidden=(8,))
    config.dataset = str(tmp_path / "huge")
    settings = launch.to_dataclass(cloning.BCConfig, config.bc)
    state = cloning.init(settings, DeviceDataset.from_dataset(with_a_huge_number(tmp_path / "huge")), (0, 1), (0,))
    checkpoint.save(tmp_path / "bc", 20, state.replace(step=state.step + 20, obs_std=state.obs_std * np.nan))
    with pytest.raises(FloatingPointError) as caught:
        bc.main(config, tmp_path)
    assert str(caught.value) == (
        "bc: loss not finite within 20 steps before step 40, of pendulum-swingup/seed0, reacher-easy/seed0. It learnt from "
        f"{tmp_path / 'huge'} (20 episodes of pendulum-swingup, reacher-easy; its largest number, 3e+38, is in episode 13, of reacher-easy "
        f"by invented); the last checkpoint is that of step 20 in {tmp_path / 'bc'}"
    )


def test_without_a_checkpoint_it_says_so(tmp_path) -> None:
    with pytest.raises(FloatingPointError, match=rf"^gone\. It learnt from its own replay; no checkpoint in {tmp_path} yet$"):  # noqa: SIM117
        with stages.traced("its own replay", tmp_path):
            raise FloatingPointError("gone")


def test_numbers_that_opening_does_not_look_at_are_refused_as_they_are_read(tmp_path) -> None:
    write_dataset(tmp_path / "data")
    frames = np.load(tmp_path / "data" / "shard-00000" / "frames.npy", mmap_mode="r+")
    frames[13 * 4 + 7, 2] = np.nan
    frames.flush()
    dataset = Dataset.open(tmp_path / "data", verify=False)
    message = r"data: numbers that are not finite in an episode of pendulum-swingup \(by invented, seed 4, from frame 52 on\)"
    for read in (
        lambda: dataset.episode(4),
        lambda: DeviceDataset.from_dataset(dataset),
        lambda: [WindowSampler(dataset, 64, 3)(np.random.default_rng(seed)) for seed in range(20)],
        lambda: pretrain.run(fresh_model(make_config()), dataset, make_config(), SETTINGS, 0, lambda *_: None),
    ):
        with pytest.raises(DatasetError, match=message):
            read()
    assert np.isfinite(dataset.episode(3).obs).all()
