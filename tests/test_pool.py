"""Worker processes: the same results for any number of them, and a clear end when one dies."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pwm_jax import envs
from pwm_jax.envs.pool import EnvPool, EnvWorkerError
from pwm_jax.envs.tasks import TaskSet

TASKS = TaskSet.from_names(["pendulum-swingup", "walker-walk", "mw-reach"])
ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def pool() -> Iterator[EnvPool]:
    with EnvPool(TASKS, [0, 1, 2], num_workers=2) as result:
        yield result


def _play(num_workers: int) -> list[np.ndarray]:
    record = []
    rng = np.random.default_rng(0)
    with EnvPool(TASKS, [0, 1, 2, 0, 1], num_workers) as pool:
        assert len(set(pool.worker_pids)) == num_workers
        record.append(pool.reset(np.arange(5)))
        for step in range(12):
            record.extend(pool.step(rng.uniform(-1, 1, (5, 6)), active=np.arange(5) != step % 6))
            if step == 6:
                record.append(pool.reset(np.array([70, 80]), indices=np.array([4, 1])))
        record.append(pool.expert_action(active=np.arange(5) == 2))
    return record


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    for expected, found in zip(_play(1), _play(2), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_rows_are_the_padded_single_environments(pool: EnvPool) -> None:
    singles = [envs.make(name) for name in TASKS.names]
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 3, 6)).astype(np.float32)
    obs = pool.reset(np.array([4, 5, 6]))
    for task_id, env in enumerate(singles):
        np.testing.assert_array_equal(obs[task_id], TASKS.pad_obs(env.reset(seed=4 + task_id)[0], task_id))
    for action in actions:
        outcome = pool.step(action)
        for task_id, env in enumerate(singles):
            single_obs, reward, terminated, truncated, info = env.step(action[task_id, : env.facts.action_dim])
            np.testing.assert_array_equal(outcome.obs[task_id], TASKS.pad_obs(single_obs, task_id))
            assert outcome.reward[task_id] == np.float32(reward)
            assert (outcome.terminated[task_id], outcome.truncated[task_id]) == (terminated, truncated)
            assert outcome.success[task_id] == info["success"]


def test_inactive_environments_stand_still(pool: EnvPool) -> None:
    before = pool.reset(np.arange(3))
    outcome = pool.step(np.ones((3, 6)), active=np.array([False, True, False]))
    np.testing.assert_array_equal(outcome.obs[[0, 2]], before[[0, 2]])
    assert not np.array_equal(outcome.obs[1], before[1])
    np.testing.assert_array_equal(outcome.reward[[0, 2]], 0.0)
    assert outcome.reward[1] > 0
    partly = pool.reset(np.array([9]), indices=np.array([2]))
    np.testing.assert_array_equal(partly[:2], outcome.obs[:2])
    assert not np.array_equal(partly[2], before[2])


def test_never_more_workers_than_environments() -> None:
    with EnvPool(TASKS, [0], num_workers=4) as pool:
        assert (pool.num_workers, len(pool.worker_pids)) == (1, 1)


def test_episode_ends_are_reported_once_and_nothing_resets_by_itself() -> None:
    with EnvPool(TASKS, [2, 2], num_workers=1) as pool:
        pool.reset(np.arange(2))
        ends = [pool.step(np.zeros((2, 6)), active=np.array([True, False])).truncated.tolist() for _ in range(100)]
        assert ends == [[False, False]] * 99 + [[True, False]]
        with pytest.raises(EnvWorkerError, match=r"environment 0 \(mw-reach\) failed .* call reset\(\)"):
            pool.step(np.zeros((2, 6)))


def test_a_killed_worker_is_reported(pool: EnvPool) -> None:
    pool.reset(np.arange(3))
    os.kill(pool.worker_pids[1], signal.SIGKILL)
    with pytest.raises(EnvWorkerError, match=r"worker 1 was killed by SIGKILL; it ran walker-walk\. If .* use fewer environments"):
        pool.step(np.zeros((3, 6)))
    with pytest.raises(EnvWorkerError, match="closed"):
        pool.step(np.zeros((3, 6)))


def test_an_exception_brings_its_traceback(pool: EnvPool) -> None:
    pids = pool.worker_pids
    pool.reset(np.arange(3))
    with pytest.raises(EnvWorkerError, match=r"(?s)\((pendulum-swingup|walker-walk)\).*only Meta-World.*Traceback.*expert_action"):
        pool.expert_action()
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that ended may wait, as a zombie, for a parent that collects it.
    status = pathlib.Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _run_script(text: str, tmp_path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(script)], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )


def test_any_main_script_can_start_a_pool(tmp_path: pathlib.Path) -> None:
    # No __main__ guard, JAX's threads running: the script must still run exactly once and its workers must not import it.
    done = _run_script(
        "import jax, numpy as np\n"
        "print('start', float(jax.numpy.ones(3).sum()), flush=True)\n"
        "from pwm_jax.envs.pool import EnvPool\n"
        "from pwm_jax.envs.tasks import TaskSet\n"
        "with EnvPool(TaskSet.from_names(['pendulum-swingup']), [0, 0], 2) as pool:\n"
        "    print(pool.reset(np.arange(2)).shape)\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "start 3.0\n(2, 3)\n", "")


def test_workers_end_with_a_killed_parent(tmp_path: pathlib.Path) -> None:
    done = _run_script(
        "import os, signal\n"
        "from pwm_jax.envs.pool import EnvPool\n"
        "from pwm_jax.envs.tasks import TaskSet\n"
        "pool = EnvPool(TaskSet.from_names(['pendulum-swingup']), [0, 0], 2)\n"
        "print(*pool.worker_pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.05)


def test_workers_do_not_import_jax(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shared").touch()
    done = _run_script(
        "import sys\n"
        "from pwm_jax.envs.worker import SharedArrays, Worker\n"
        "worker = Worker(SharedArrays.at('shared', 2, 39, 4), [0, 1], ['cup-spin', 'mw-reach'])\n"
        "worker.build()\n"
        "worker.reset({'0': 1, '1': 2})\n"
        "print({'jax', 'flax'} & set(sys.modules))\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "set()\n")


def test_missing_simulator_keeps_its_own_error(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "metaworld").mkdir()
    (tmp_path / "metaworld" / "__init__.py").write_text("raise ImportError('No module named metaworld')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(envs.EnvUnavailableError, match=r"pip install metaworld"):
        EnvPool(TASKS, [0, 2], num_workers=2)


@pytest.mark.parametrize(
    ("env_task_ids", "num_workers", "message"),
    [([], None, "at least one task id"), ([0, 3], None, r"task ids \[0, 3\] are not all in 0 to 2"), ([0], 0, "use at least 1")],
)
def test_impossible_pools_are_refused(env_task_ids: list[int], num_workers: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvPool(TASKS, env_task_ids, num_workers)


def test_bad_calls_are_refused_and_leave_the_pool_usable(pool: EnvPool) -> None:
    with pytest.raises(ValueError, match="one seed for each environment"):
        pool.reset(np.arange(2))
    with pytest.raises(ValueError, match="not all in 0 to 2"):
        pool.reset(np.arange(1), indices=np.array([3]))
    with pytest.raises(ValueError, match=r"from 0 to 2\^32 - 1"):
        pool.reset(np.array([0, 1, -1]))
    pool.reset(np.arange(3))
    with pytest.raises(ValueError, match=r"shape \(3, 4\), not \(3, 6\)"):
        pool.step(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"active has shape \(2,\)"):
        pool.step(np.zeros((3, 6)), active=np.ones(2, bool))
    broken = np.zeros((3, 6))
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"not finite for environments \[1\] \(walker-walk\)"):
        pool.step(broken)
    with pytest.raises(ValueError, match=r"\[3\] are not all in 0 to 2"):
        pool.render([3])
    assert pool.step(np.zeros((3, 6))).obs.shape == (3, 39)


def test_pictures_come_in_the_order_asked_for(pool: EnvPool) -> None:
    pool.reset(np.arange(3))
    first, second, again = pool.render([2, 0, 2], height=48, width=64)
    assert first.shape == second.shape == (48, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_a_signal_to_all_processes_of_a_run_leaves_the_workers_to_the_pool(pool: EnvPool) -> None:
    pool.reset(np.arange(3))
    for pid in pool.worker_pids:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
    pool.step(np.zeros((3, TASKS.action_dim), np.float32))
