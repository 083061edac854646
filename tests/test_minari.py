"""Datasets of Minari: what is exported is what its own reader gives, and comes back as it was; one that its collector recorded."""

import gymnasium
import minari
import numpy as np
import pytest
from tiny_data import TASKS, write_dataset

from pwm_jax.data import minari as converter
from pwm_jax.data.format import DatasetError
from pwm_jax.data.store import Dataset
from pwm_jax.envs import own

PENDULUM = "from pwm_jax.envs import OwnTask\nTASK = OwnTask(3, 1, 200, 1.0)\ndef make(seed): ...\n"


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv(own.VARIABLE, str(tmp_path))
    (tmp_path / "pendulum.py").write_text(PENDULUM)
    yield tmp_path
    own._module.cache_clear()


def test_episodes_go_out_and_come_back(directory, capsys):
    dataset = write_dataset(directory / "dataset", episodes=3)
    assert converter.main(["export", str(directory / "dataset"), "reacher-easy", "tests/reacher-v0"]) == 0
    spec, there = TASKS.specs[1], minari.load_dataset("tests/reacher-v0")
    assert there.total_episodes == 3
    mine = list(dataset.select(tasks=["reacher-easy"]).iter_episodes())
    for episode, recorded in zip(mine, there.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(recorded.observations, episode.obs[:, : spec.obs_dim])
        np.testing.assert_array_equal(recorded.actions, episode.action[:, : spec.action_dim])
        np.testing.assert_allclose(recorded.rewards, episode.reward, rtol=1e-6)
        assert not recorded.terminations.any()
        np.testing.assert_array_equal(np.flatnonzero(recorded.truncations), [episode.length - 1])
    assert converter.main(["import", "tests/reacher-v0", "reacher-easy", str(directory / "back")]) == 0
    back = list(Dataset.open(directory / "back").iter_episodes())
    for episode, returned in zip(mine, back, strict=True):
        for name in ("obs", "action", "reward", "terminated"):
            np.testing.assert_allclose(getattr(returned, name), getattr(episode, name)[..., : getattr(returned, name).shape[-1]], atol=1e-6)
    assert "3 episodes of reacher-easy: tests/reacher-v0" in capsys.readouterr().out


def test_what_minari_s_collector_recorded(directory):
    env = minari.DataCollector(gymnasium.make("Pendulum-v1"))
    rng, obs, action, reward = np.random.default_rng(0), [], [], []
    for seed in range(2):
        obs.append([env.reset(seed=seed)[0]])
        over = False
        while not over:
            action.append(rng.uniform(-2, 2, 1).astype(np.float32))
            next_obs, gained, _, over, _ = env.step(action[-1])
            obs[-1].append(next_obs)
            reward.append(gained)
    env.create_dataset("tests/pendulum-v0", description="two episodes of random torques")
    assert converter.read("tests/pendulum-v0", "own-pendulum", str(directory / "dataset")) == 2
    dataset = Dataset.open(directory / "dataset")
    episodes = list(dataset.iter_episodes())
    np.testing.assert_allclose([e.obs for e in episodes], obs, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([e.action for e in episodes]), np.array(action) / 2, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([e.reward for e in episodes]), reward, rtol=1e-5)
    assert not any(e.terminated.any() for e in episodes)
    assert set(dataset.episodes.source) == {"minari:tests/pendulum-v0"}


def test_what_cannot_be_done_is_one_line(directory, capsys):
    write_dataset(directory / "dataset", episodes=1)
    assert converter.main(["import", "tests/none-v0", "own-pendulum", str(directory / "new")]) == 1
    assert "minari download tests/none-v0" in capsys.readouterr().err
    assert converter.main(["export", str(directory / "dataset"), "mw-reach", "tests/x-v0"]) == 1
    assert "task 'mw-reach' is not in this task set" in capsys.readouterr().err
    assert converter.main(["export", str(directory / "dataset"), "reacher-easy", "no name"]) == 1
    assert "Minari does not take 'no name'" in capsys.readouterr().err
    converter.write(str(directory / "dataset"), "reacher-easy", "tests/reacher-v0")
    with pytest.raises(DatasetError, match=r"obs has shape \(13, 6\), expected \(13, 3\)"):
        converter.read("tests/reacher-v0", "own-pendulum", str(directory / "new"))
