import dataclasses
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from recorded_episodes import TASKS, write

from pwm_jax.data.compact import export_compact, import_compact, pack, unpack
from pwm_jax.data.store import Dataset, DatasetError, DatasetWriter, Episode
from pwm_jax.envs.tasks import TaskSet

LENGTHS = [(0, 7), (1, 3), (0, 5), (2, 1), (1, 4)]


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
@hypothesis.given(hnp.arrays(np.uint32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_packing_keeps_every_bit(bits: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(pack(bits.view(np.float32))).view(np.uint32), bits)


def test_packed_planes_of_a_known_column() -> None:
    # 1.0 = 0x3F800000, 1.5 = 0x3FC00000, 1.5: changes 0x3F800000, 0x00400000, 0; lowest byte first.
    planes = pack(np.array([[1.0], [1.5], [1.5]], np.float32))
    np.testing.assert_array_equal(planes[:, 0], [[0, 0, 0], [0, 0, 0], [0x80, 0x40, 0], [0x3F, 0, 0]])


def test_a_dataset_comes_back_file_by_file(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", LENGTHS)
    size = export_compact(dataset, tmp_path / "small.npz")
    assert size == (tmp_path / "small.npz").stat().st_size
    restored = import_compact(tmp_path / "small.npz", tmp_path / "restored")
    assert isinstance(restored, Dataset)
    assert contents(tmp_path / "restored") == contents(tmp_path / "data")


def test_a_view_ships_only_its_episodes(tmp_path: Path) -> None:
    view = write(tmp_path / "data", LENGTHS).select(tasks=["wide"])
    export_compact(view, tmp_path / "small.npz")
    assert import_compact(tmp_path / "small.npz", tmp_path / "restored").episodes.seed.tolist() == [1, 4]


def smooth_dataset(path: Path) -> Dataset:
    time = np.arange(501)[:, None] / 50
    rng = np.random.default_rng(0)
    tasks = TaskSet(tuple(dataclasses.replace(spec, episode_length=500) for spec in TASKS.specs), TASKS.obs_dim, TASKS.action_dim)
    with DatasetWriter(path, tasks, {}) as writer:
        for seed in range(20):
            obs = np.sin(time * rng.uniform(0.5, 2, 4) + rng.uniform(0, 6, 4))
            action = np.tanh(np.cos(time[:-1] * rng.uniform(0.5, 2, 2)) * 3)
            writer.add_episode(Episode(1, obs, action, obs[1:, 0] ** 2, np.zeros(500, bool), 1.0, "smooth", seed))
    return Dataset.open(path)


def test_rounding_is_within_its_bound_and_leaves_rewards_alone(tmp_path: Path) -> None:
    dataset = smooth_dataset(tmp_path / "data")
    export_compact(dataset, tmp_path / "small.npz", mantissa_bits=10)
    restored = import_compact(tmp_path / "small.npz", tmp_path / "restored")
    for before, after in zip(dataset.iter_episodes(), restored.iter_episodes(), strict=True):
        np.testing.assert_allclose(after.obs, before.obs, rtol=2.0**-11)
        np.testing.assert_allclose(after.action, before.action, rtol=2.0**-11)
        assert (after.obs != before.obs).any()
        assert np.abs(after.action).max() <= 1.0
        np.testing.assert_array_equal(after.reward, before.reward)
    np.testing.assert_array_equal(restored.episodes.episode_return, dataset.episodes.episode_return)
    with pytest.raises(ValueError, match="mantissa_bits"):
        export_compact(dataset, tmp_path / "small.npz", mantissa_bits=0)


def test_the_file_is_smaller_than_deflate_alone_makes_it(tmp_path: Path) -> None:
    dataset = smooth_dataset(tmp_path / "data")
    exact = export_compact(dataset, tmp_path / "exact.npz")
    rounded = export_compact(dataset, tmp_path / "rounded.npz", mantissa_bits=12)
    frames = np.load(dataset.shards[0].path / "frames.npy")
    np.savez_compressed(tmp_path / "plain.npz", frames=frames)
    plain = (tmp_path / "plain.npz").stat().st_size
    assert exact < 0.8 * plain
    assert rounded < 0.6 * exact


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    export_compact(write(tmp_path / "data", LENGTHS), good)
    whole = good.read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("not a zip file")
    np.savez(tmp_path / "foreign.npz", obs=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", meta=np.array([{"a": 1}], object))
    with np.load(good) as file:
        arrays = dict(file)
    np.savez(tmp_path / "part.npz", **{name: array for name, array in arrays.items() if name != "obs_1"})
    np.savez(tmp_path / "newer.npz", **arrays | {"meta": np.array(str(arrays["meta"]).replace('"version": 1', '"version": 2'))})
    for name in ("cut", "text", "foreign", "pickled", "part", "newer", "missing"):
        with pytest.raises(DatasetError, match=f"{name}.npz"):
            import_compact(tmp_path / f"{name}.npz", tmp_path / "restored")
        assert not (tmp_path / "restored").exists()
    with pytest.raises(DatasetError, match="already holds"):
        import_compact(good, tmp_path / "data")
