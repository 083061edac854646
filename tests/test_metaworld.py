"""Meta-World tasks against published check numbers.

The table was made with metaworld 3.0.0 and mujoco 3.16.0 by an implementation other than this one: class built with seed 1,
reset, one zero step, then the bundled scripted policy, action held for two control steps.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pwm_jax import envs
from pwm_jax.envs.catalog import MT80

pytestmark = pytest.mark.filterwarnings("ignore:Constant.s. may be too high")

# index, name, sum of the first observation, return, success at the last control step, success ever
CHECK_NUMBERS = [
    (30, "mw-assembly", 8.76226, 1274.40, 1, 1),
    (31, "mw-basketball", 8.03559, 1221.52, 1, 1),
    (32, "mw-button-press-topdown", 6.79719, 1309.34, 1, 1),
    (33, "mw-button-press-topdown-wall", 6.79719, 0.00, 1, 1),
    (34, "mw-button-press", 7.92644, 195.17, 1, 1),
    (35, "mw-button-press-wall", 7.79180, 1186.37, 1, 1),
    (36, "mw-coffee-button", 8.23376, 188.67, 0, 1),
    (37, "mw-coffee-pull", 7.23937, 1362.44, 1, 1),
    (38, "mw-coffee-push", 6.93988, 1456.73, 1, 1),
    (39, "mw-dial-turn", 7.97843, 1112.56, 1, 1),
    (40, "mw-disassemble", 8.74786, 728.51, 1, 1),
    (41, "mw-door-open", 8.96224, 1445.70, 0, 1),
    (42, "mw-door-close", 5.97438, 1405.00, 1, 1),
    (43, "mw-drawer-close", 6.14167, 1268.44, 1, 1),
    (44, "mw-drawer-open", 7.96715, 1354.95, 1, 1),
    (45, "mw-faucet-open", 7.90745, 1538.96, 0, 1),
    (46, "mw-faucet-close", 7.77544, 1625.67, 1, 1),
    (47, "mw-hammer", 11.25290, 1251.13, 1, 1),
    (48, "mw-handle-press-side", 5.94465, 404.79, 0, 1),
    (49, "mw-handle-press", 6.13294, 577.03, 0, 1),
    (50, "mw-handle-pull-side", 5.70818, 849.53, 1, 1),
    (51, "mw-handle-pull", 6.11594, 905.62, 1, 1),
    (52, "mw-lever-pull", 9.17584, 703.55, 0, 1),
    (53, "mw-peg-insert-side", 7.65613, 1176.17, 1, 1),
    (54, "mw-peg-unplug-side", 7.87872, 388.17, 1, 1),
    (55, "mw-pick-out-of-hole", 7.85407, 926.00, 1, 1),
    (56, "mw-pick-place", 8.02087, 1517.95, 1, 1),
    (57, "mw-pick-place-wall", 7.96398, 1396.52, 1, 1),
    (58, "mw-plate-slide", 7.62567, 1598.30, 1, 1),
    (59, "mw-plate-slide-side", 7.16428, 1635.90, 1, 1),
    (60, "mw-plate-slide-back", 7.65300, 625.50, 0, 1),
    (61, "mw-plate-slide-back-side", 7.10300, 437.92, 0, 1),
    (62, "mw-push-back", 8.01525, 40.95, 0, 0),
    (63, "mw-push", 7.85624, 1527.75, 1, 1),
    (64, "mw-push-wall", 7.80935, 1482.97, 1, 1),
    (65, "mw-reach", 8.02087, 1825.94, 1, 1),
    (66, "mw-reach-wall", 7.96395, 1824.29, 1, 1),
    (67, "mw-shelf-place", 7.93628, 61.86, 0, 0),
    (68, "mw-soccer", 7.85627, 618.72, 1, 1),
    (69, "mw-stick-push", 9.74055, 764.71, 1, 1),
    (70, "mw-stick-pull", 9.55180, 550.99, 1, 1),
    (71, "mw-sweep-into", 7.89200, 503.91, 0, 1),
    (72, "mw-sweep", 8.22549, 1409.72, 1, 1),
    (73, "mw-window-open", 6.24859, 809.89, 1, 1),
    (74, "mw-window-close", 6.21349, 1178.08, 1, 1),
    (75, "mw-bin-picking", 7.74229, 1050.80, 1, 1),
    (76, "mw-box-close", 8.58368, 1150.69, 1, 1),
    (77, "mw-door-lock", 8.57654, 1012.90, 1, 1),
    (78, "mw-door-unlock", 8.37745, 1481.21, 1, 1),
    (79, "mw-hand-insert", 7.63767, 1585.93, 1, 1),
]


@pytest.mark.parametrize(
    ("index", "name", "first_sum", "episode_return", "success", "ever"), CHECK_NUMBERS, ids=[row[1] for row in CHECK_NUMBERS]
)
def test_check_numbers(index: int, name: str, first_sum: float, episode_return: float, success: float, ever: float) -> None:
    assert MT80[index] == name
    env = envs.make(name, seed=1)
    fresh, _ = env.reset()
    assert fresh.dtype == np.float32
    assert fresh.astype(np.float64).sum() == pytest.approx(first_sum, abs=2e-5)
    # The block of the previous frame is a copy of the present one.
    np.testing.assert_array_equal(fresh[18:36], fresh[:18])
    # A used environment that is seeded again must start the very same episode.
    for _ in range(3):
        env.step(np.ones(4))
    again, _ = env.reset(seed=1)
    np.testing.assert_array_equal(again, fresh)
    total, successes, ends = 0.0, [], []
    for _ in range(100):
        _, reward, terminated, truncated, info = env.step(env.expert_action())
        assert not terminated
        assert 0.0 <= reward <= 20.0
        total += reward
        successes.append(info["success"])
        ends.append(truncated)
    assert ends == [False] * 99 + [True]
    assert total == pytest.approx(episode_return, abs=0.006)
    assert (successes[-1], max(successes)) == (success, ever)


def test_goal_and_object_are_drawn_anew_and_seeded() -> None:
    env = envs.make("mw-push", seed=5)
    first, second = env.reset()[0], env.reset()[0]
    assert not np.array_equal(first[36:39], second[36:39])
    assert not np.array_equal(first[4:7], second[4:7])
    np.testing.assert_allclose(second[36:39], env._env._target_pos, atol=1e-6)
    np.testing.assert_array_equal(env.reset(seed=5)[0], first)
    np.testing.assert_array_equal(env.reset()[0], second)


def test_numpy_global_generator_is_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002 - the generator under test
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    env = envs.make("mw-reach")
    env.reset()
    env.step(np.zeros(4))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:.*Box observation space")
def test_gymnasium_contract() -> None:
    check_env(envs.make("mw-reach", seed=0), skip_render_check=True)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(envs.EnvUnavailableError, match=r"Meta-World cannot be imported .* pip install metaworld==3"):
        envs.make("mw-reach")


def test_incompatible_mujoco_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from metaworld.sawyer_xyz_env import SawyerMocapBase

    def weld_of_another_size(self: SawyerMocapBase) -> None:
        self.model.eq_data[0] = np.zeros(self.model.eq_data.shape[1] + 1)

    monkeypatch.setattr(SawyerMocapBase, "reset_mocap_welds", weld_of_another_size)
    with pytest.raises(envs.EnvUnavailableError, match=r"does not work with mujoco 3\..* mujoco==3\.16\.0"):
        envs.make("mw-reach")
