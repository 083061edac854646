"""Tasks of a user's own, as docs/own_tasks.md says: its file and its data, environments of both libraries, what is wrong with a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pwm_jax import envs
from pwm_jax.data.store import Dataset
from pwm_jax.envs import OwnTaskError, UnknownTaskError, own
from pwm_jax.envs.pool import EnvPool
from pwm_jax.envs.tasks import TaskSet, control_steps

PROJECT = Path(__file__).resolve().parents[1]
FILE, DATA = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "own_tasks.md").read_text(), re.DOTALL)
TASK = "from pwm_jax.envs import OwnTask\nTASK = OwnTask(obs_dim=2, action_dim=1, episode_length=6, max_return=6.0)\n"
# A point on a line that ends beyond 1; its bounds are -0.5 and 1.
POINT = """
import gymnasium, numpy as np

class Point(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict(x=gymnasium.spaces.Box(-9, 9, (1,)), one=gymnasium.spaces.Discrete(1))
    action_space = gymnasium.spaces.Box(-0.5, 1.0, (1,))
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.1 * self.np_random.random()
        return self.observe(), {}
    def step(self, action):
        self.x += float(action[0])
        return self.observe(), 1.0, self.x > 1.0, False, {"is_success": self.x > 0.5}
    def observe(self):
        return {"x": np.array([self.x], np.float32), "one": 0}

def make(seed):
    return Point()
"""
DM_ENV = """
from pwm_jax.envs import OwnTask
TASK = OwnTask(obs_dim=4, action_dim=2, episode_length=20, max_return=20.0, action_repeat=5)

def make(seed):
    from dm_control import suite
    return suite.load("point_mass", "easy", task_kwargs={"random": seed, "time_limit": 2.0})
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The directory of own tasks."""
    directory = tmp_path / "tasks"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(own.VARIABLE, raising=False)
    yield directory
    own._module.cache_clear()


def test_the_page_s_environment_is_one_of_the_project_s(tasks):
    (tasks / "pendulum.py").write_text(FILE)
    task_set = TaskSet.from_names("own-pendulum,reacher-easy")
    spec = task_set.specs[0]
    assert (spec.name, spec.suite, spec.obs_dim, spec.action_dim, spec.episode_length) == ("own-pendulum", "own", 3, 1, 100)
    assert (task_set.obs_dim, control_steps(spec), control_steps(task_set.specs[1])) == (6, 2, 2)
    env = envs.make("own-pendulum", seed=3)
    check_env(env, skip_render_check=True)
    # By hand: the same episode of gymnasium's environment, two steps an action, torque up to 2.
    real = gymnasium.make("Pendulum-v1")
    obs, _ = env.reset(seed=3)
    np.testing.assert_array_equal(obs, real.reset(seed=3)[0])
    for step in range(100):
        action = np.array([np.sin(step)], np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        twice = [real.step(2 * action)[:2] for _ in range(2)]
        np.testing.assert_allclose(obs, twice[1][0], atol=1e-5)
        assert reward == pytest.approx(2 + sum(r for _, r in twice) / 16.3, abs=1e-5)
        assert (terminated, truncated) == (False, step == 99)
    env.close()


def test_an_environment_that_terminates(tasks):
    (tasks / "point.py").write_text(TASK + POINT)
    with EnvPool(TaskSet.from_names("own-point"), [0, 0], num_workers=2) as pool:
        obs = pool.reset(np.array([0, 0]))
        np.testing.assert_array_equal(obs[0], obs[1])  # the same seed, in two processes
        assert not pool.step(np.zeros((2, 1))).terminated.any()  # a quarter forward: the middle of the bounds
        ended = pool.step(np.array([[1.0], [-1.0]]))
        np.testing.assert_array_equal(ended.terminated, [True, False])
        np.testing.assert_array_equal(ended.success, [1.0, 0.0])
        for _ in range(4):
            ended = pool.step(np.zeros((2, 1)), np.array([False, True]))
        np.testing.assert_array_equal(ended.truncated, [False, True])
        (picture,) = pool.render([1], 40, 200)  # a note: there is nothing that draws it
        assert picture.shape == (40, 200, 3)
        assert len(np.unique(picture)) > 1


def test_an_environment_of_dm_env(tasks):
    from dm_control import suite

    (tasks / "mass.py").write_text(DM_ENV)
    env = envs.make("own-mass")
    real = suite.load("point_mass", "easy", task_kwargs={"random": 7})
    obs, _ = env.reset(seed=7)
    np.testing.assert_allclose(obs, np.concatenate(list(real.reset().observation.values())), atol=1e-6)
    for _ in range(20):
        obs, reward, terminated, truncated, _ = env.step(np.array([0.3, -0.2]))
        steps = [real.step([0.3, -0.2]) for _ in range(5)]
        assert reward == pytest.approx(sum(step.reward for step in steps))
    np.testing.assert_allclose(obs, np.concatenate(list(steps[-1].observation.values())), atol=1e-6)
    assert (terminated, truncated) == (False, True)
    with pytest.raises(RuntimeError, match="end of an episode"):
        env.step(np.zeros(2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", r"bad\.py: ModuleNotFoundError"),
        ("TASK = 1\ndef make(seed): ...", r"bad\.py needs TASK, a pwm_jax\.envs\.OwnTask, and a function make"),
        (TASK.replace("length=6", "length=0") + POINT, r"TASK\.episode_length is 0, it must be above 0"),
        (TASK.replace("obs_dim=2", "obs_dim=3") + POINT, r"TASK\.obs_dim is 3, the environment has 2"),
        (TASK.replace("action_dim=1", "action_dim=2") + POINT, r"TASK\.action_dim is 2, the environment has 1"),
        (TASK + POINT.replace("Box(-0.5, 1.0, (1,))", "Discrete(3)"), "its actions are Discrete"),
        (TASK + POINT.replace("-0.5, 1.0, (1,)", "-np.inf, np.inf, (1,)"), "actions are not bounded"),
        (TASK + "def make(seed): raise OSError('no robot')", "OSError: no robot"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tasks, text, message):
    (tasks / "bad.py").write_text(text)
    with pytest.raises(OwnTaskError, match=message):
        envs.make("own-bad")


def test_an_own_time_limit_may_not_be_shorter(tasks):
    (tasks / "short.py").write_text(TASK + POINT.replace("self.x > 1.0, False", "False, True"))
    env = envs.make("own-short", seed=0)
    env.reset()
    with pytest.raises(OwnTaskError, match=r"own-short ended 5 agent steps before TASK\.episode_length"):
        env.step(np.zeros(1))


def test_files_are_looked_for_where_the_variable_says(tasks, tmp_path, monkeypatch):
    (tasks / "point.py").write_text(TASK + POINT)
    with pytest.raises(UnknownTaskError, match=r"unknown task 'own-pont': tasks has no pont\.py \(own-point\); PWM_JAX_TASKS names"):
        TaskSet.from_names("own-pont")
    monkeypatch.setenv(own.VARIABLE, f"{tmp_path}/none:{tmp_path}/tasks")
    monkeypatch.chdir("/")
    assert TaskSet.from_names("own-point").names == ("own-point",)


def test_the_page_s_data_and_commands(tasks, tmp_path):
    """From outside the package: the file, data recorded elsewhere, and the offline job on random actions, at a small size."""
    (tasks / "pendulum.py").write_text(FILE)
    exec(compile(DATA, "docs/own_tasks.md", "exec"), {})
    dataset = Dataset.open("runs/mine/dataset")
    assert (len(dataset), dataset.task_set.names) == (20, ("own-pendulum",))
    changes = ["collect.sources.random.episodes=4", "pretrain.steps=20", "pretrain.log_every=10", "pretrain.eval_every=20"]
    changes += ["pretrain.checkpoint_every=20", "extract.steps=4", "extract.log_every=2", "extract.eval_every=4", "num_workers=1"]
    changes += ["extract.checkpoint_every=4", "evaluate.episodes=1", "evaluate.methods=('extracted','data','random')"]
    changes += ["model.enc_hidden=(8,)", "model.mlp_hidden=(8,)", "model.latent_dim=8", "world_model.batch_size=8", "policy.batch_size=8"]
    changes += ["policy.actor_hidden=(8,)", "policy.critic_hidden=(8,)", "policy.num_critics=1", "extract.seeds=(0,)"]
    command = [sys.executable, "-m", "experiments.run", f"--config={PROJECT}/configs/quickstart.py", "--workdir=runs/pendulum"]
    command += ["--config.tasks=own-pendulum", "--config.collect.shipped="]
    done = subprocess.run(
        [*command, *(f"--config.{change}" for change in changes)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "own-pendulum" in done.stdout
    assert (tmp_path / "runs" / "pendulum" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "runs" / "pendulum" / "videos").glob("own-pendulum-*.gif"))
