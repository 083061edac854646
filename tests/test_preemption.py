"""SIGTERM: a run saves where it is and ends; a second one ends it at once; all processes of a run end together."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import killing
import pytest
from tiny_data import write_dataset

from experiments import preemption
from pwm_jax import checkpoint
from pwm_jax.envs.tasks import TaskSet

RARELY = "--config.pretrain.checkpoint_every=400"  # the last step alone
TASKS = TaskSet.from_names("pendulum-swingup,mw-reach")


@pytest.fixture
def _listening():
    before = signal.getsignal(signal.SIGTERM)
    preemption.listen()
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_listening")
def test_a_signal_waits_for_a_checkpoint_and_a_second_one_does_not(capfd):
    with pytest.raises(preemption.TerminatedError):
        signal.raise_signal(signal.SIGTERM)
    with preemption.at_checkpoints() as stop:
        assert not stop.asked()
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked()
        with pytest.raises(preemption.TerminatedError):
            signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == "\nStopping at the next checkpoint. A second SIGTERM stops at once.\n"
    with preemption.at_checkpoints() as stop:
        assert not stop.asked()
    with pytest.raises(preemption.TerminatedError):
        signal.raise_signal(signal.SIGTERM)


def test_a_worker_of_a_sweep_keeps_its_own_handler():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.at_checkpoints() as stop:
        assert signal.getsignal(signal.SIGTERM) == before
        assert not stop.asked()


def terminate_when_learning(parent: Path, *processes: subprocess.Popen[bytes]) -> str:
    """SIGTERM the last process after two rows of metrics; returns what the first said."""
    metrics, deadline = parent / killing.WORKDIR / "metrics" / "pretrain.jsonl", time.monotonic() + 200
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        assert all(process.poll() is None for process in processes), (parent / "stderr").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    processes[-1].send_signal(signal.SIGTERM)
    assert [process.wait(timeout=100) for process in processes] == [143] * len(processes), (parent / "stderr").read_text()
    return (parent / "stderr").read_text()


def test_a_terminated_run_saves_where_it_is_and_goes_on_to_the_same_numbers(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for parent in (whole, stopped):
        write_dataset(parent / killing.WORKDIR / "dataset", task_set=TASKS)
    assert killing.begin("pretrain", "pretrain", whole, RARELY).wait(timeout=300) == 0
    said = terminate_when_learning(stopped, killing.begin("pretrain", "pretrain", stopped, RARELY))
    assert said.count("Stopping at the next checkpoint.") == 1
    assert "Stopped. The same command resumes from the last checkpoint" in said
    saved = checkpoint.latest_step(stopped / killing.WORKDIR / "pretrain")
    assert saved is not None
    assert 10 <= saved < 400
    assert saved % 5 == 0
    assert killing.begin("pretrain", "pretrain", stopped, RARELY).wait(timeout=300) == 0
    found, expected = (killing.end_state(parent / killing.WORKDIR) for parent in (stopped, whole))
    del found[f"pretrain/{saved:010d}"]
    assert found == expected


def test_processes_that_share_a_run_end_at_the_same_step(tmp_path):
    write_dataset(tmp_path / killing.WORKDIR / "dataset", task_set=TASKS)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [killing.begin("pretrain", "pretrain", tmp_path, RARELY, f"--distributed=localhost:{port},2,{index}") for index in (0, 1)]
    terminate_when_learning(tmp_path, *both)
    saved = checkpoint.latest_step(tmp_path / killing.WORKDIR / "pretrain")
    assert saved is not None
    assert 10 <= saved < 400
