"""The working directory's lock: one holder, named; released at exit and at a kill."""

import os
import subprocess
import sys
import threading

import pytest

from pwm_jax.workdir import WorkdirError, WorkdirLock


def test_the_workdir_lock_refuses_a_second_run_and_names_the_first(tmp_path):
    with WorkdirLock(tmp_path / "run"):
        with pytest.raises(WorkdirError, match=rf"in use by another run \(process {os.getpid()} on ") as caught:
            WorkdirLock(tmp_path / "run").__enter__()
        assert "--workdir" in str(caught.value)
        with WorkdirLock(tmp_path / "other"):
            pass
    with WorkdirLock(tmp_path / "run"):
        pass


def test_a_lock_that_waits_is_taken_when_the_holder_ends(tmp_path):
    order = []

    def second():
        with WorkdirLock(tmp_path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with WorkdirLock(tmp_path):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_workdir_lock_ends_with_a_killed_holder(tmp_path):
    code = """
import sys, time
from pwm_jax.workdir import WorkdirLock
with WorkdirLock(sys.argv[1]):
    print(1, flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "1\n"
    with pytest.raises(WorkdirError, match=f"process {holder.pid} on"):
        WorkdirLock(tmp_path).__enter__()
    holder.kill()
    holder.communicate()
    with WorkdirLock(tmp_path):
        pass


def test_an_unusable_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=r"cannot write in .*file"):
        WorkdirLock(tmp_path / "file").__enter__()
