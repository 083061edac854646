"""Launchers as a user meets them: a toy one in a process of its own, its messages, exit status and files."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from experiments import launch

PROJECT = Path(__file__).resolve().parents[1]

CONFIG = """
from ml_collections import config_dict

def get_config(preset="full"):
    steps = {"full": 1000, "debug": 1}[preset]
    return config_dict.ConfigDict({"steps": steps, "action": "print", "model": {"width": 8}, "tasks": ("walker-run",)})
"""

LAUNCHER = '''
"""A toy launcher."""
import os, sys, time
from experiments import launch

def main(config, workdir):
    from pwm_jax.checkpoint import CheckpointError
    if config.action == "print":
        print(config.steps, config.model.width, config.tasks, workdir.is_dir(), os.environ["JAX_COMPILATION_CACHE_DIR"])
    elif config.action == "wait":
        print("waiting", flush=True)
        time.sleep(60)
    elif config.action == "worker":
        import multiprocessing
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        child.start()
        print(child.pid, flush=True)
        time.sleep(60)
    elif config.action == "named":
        raise CheckpointError("no checkpoint there")
    elif config.action == "nan":
        raise FloatingPointError("loss is nan at step 3")
    elif config.action == "bug":
        raise ValueError("a bug")

if __name__ == "__main__":
    launch.run(main, stage="toy", config="configs/toy.py")
'''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.py").write_text(CONFIG)
    (tmp_path / "toy.py").write_text(LAUNCHER)
    return tmp_path


def start(project, *arguments) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": str(project / "cache"), "PYTHONUNBUFFERED": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "toy.py", *arguments]
    # Tests that are started in the background ignore Ctrl-C, and what they start would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def finish(project, *arguments) -> tuple[int, str, str]:
    process = start(project, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_run_gets_its_config_and_leaves_it_in_the_workdir(project):
    changes = ("--config.model.width=16", "--config.tasks=mw-reach")
    status, out, err = finish(project, "--config=configs/toy.py:debug", *changes, "--workdir=run")
    assert (status, err) == (0, "")
    assert out.startswith("1 16 ('mw-reach',) True " + str(project / "cache" / "pwm_jax" / "xla-"))
    assert json.loads((project / "run" / "config.json").read_text())["toy"]["model"] == {"width": 16}


def test_a_missing_wandb_is_told_before_any_work(project):
    (project / "toy.py").write_text("import sys\nsys.modules['wandb'] = None\n" + LAUNCHER.strip())
    status, out, err = finish(project, "--config=configs/toy.py", "--workdir=run", "--wandb=demo")
    assert (status, out, err) == (2, "", "error: --wandb needs the package wandb: pip install 'pwm_jax[wandb]'\n")
    assert not (project / "run").exists()


@pytest.mark.parametrize("arguments", [["--config=configs/quickstart.py"], ["--config", "configs/base.py:48M"], []])
def test_the_package_s_configs_are_found_from_anywhere(project, arguments):
    """As where it is installed, and `configs` is not in the current directory."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "experiments.collect", *arguments, "--config.taks=mw-reach"]
    done = subprocess.run(command, cwd=project / "configs", env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: unknown field config.taks; did you mean config.tasks?\n")


def test_a_config_of_the_user_goes_before_the_package_s(project):
    (project / "configs" / "base.py").write_text(CONFIG)
    assert finish(project, "--config=configs/base.py:debug", "--workdir=run")[1].startswith("1 8 ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=run", "--config.stpes=3"], "unknown field config.stpes; did you mean config.steps?"),
        (["--workdir=run", "--config.model.widht=3"], "unknown field config.model.widht; did you mean config.model.width?"),
        (["--workdir=run", "--config.width=3"], "unknown field config.width; did you mean config.model.width?"),
        (["--workdir=run", "--config.steps=many"], "flag --config.steps=many: invalid literal for int() with base 10: 'many'"),
        (["--workdir=run", "--config=configs/tyo.py"], "no config file 'configs/tyo.py'; did you mean configs/toy.py?"),
        (["--workdir=run", "--config=configs/toy.py:huge"], "configs/toy.py:huge: KeyError: 'huge'"),
        (["--workdri=run"], "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
        (["--workdir=run", "debug"], "unexpected argument 'debug'; every argument is a flag: --config.field=value, --workdir=DIR"),
        ([], "no working directory; say where the run writes: --workdir=DIR"),
        (["--workdir=toy.py"], "cannot write in"),
        (["--workdir=run", "--config.action=named"], "no checkpoint there"),
        (["--workdir=run", "--config.action=nan"], "loss is nan at step 3"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(project, arguments, message):
    status, out, err = finish(project, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_a_bug_and_debug_show_the_traceback(project):
    for arguments in (["--config.action=bug"], ["--config.action=named", "--debug"]):
        status, _, err = finish(project, f"--workdir=run{len(arguments)}", *arguments)
        assert status == 1
        assert "Traceback" in err


def test_another_config_may_not_resume_a_workdir(project):
    assert finish(project, "--workdir=run")[0] == 0
    assert finish(project, "--workdir=run")[0] == 0
    status, _, err = finish(project, "--workdir=run", "--config.model.width=9")
    assert status == 2
    assert "toy ran in run with another config: config.model.width was 8, is 9" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_resume_and_frees_the_workdir(project, number, status):
    command = ("--workdir=run", "--config.action=wait")
    first = start(project, *command)
    assert first.stdout.readline() == "waiting\n"
    refused, _, err = finish(project, *command)
    assert refused == 2
    assert f"run is in use by another run (process {first.pid} on " in err
    first.send_signal(number)
    _, err = first.communicate(timeout=60)
    assert first.returncode == status
    assert err == "\nStopped. The same command resumes from the last checkpoint:\n  python toy.py --workdir=run --config.action=wait\n"
    assert json.loads((project / "run" / "timing.json").read_text())["toy"] > 0


def test_a_stopped_run_takes_its_workers_with_it(project):
    process = start(project, "--workdir=run", "--config.action=worker")
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    for _ in range(100):
        if not Path(f"/proc/{worker}/stat").exists() or Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker runs on")


def test_help_is_quick_and_imports_neither_jax_nor_a_simulator(project):
    begin = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "toy.py", "--help"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert time.perf_counter() - begin < 5
    assert "A toy launcher." in process.stdout
    assert "--config" in process.stdout
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in process.stderr.splitlines() if "|" in line}
    assert "absl" in imported
    assert not imported & {"jax", "flax", "mujoco", "dm_control", "metaworld", "brax", "orbax"}


def test_a_stage_is_recorded_and_its_resumed_parts_add_up(tmp_path):
    (tmp_path / "timing.json").write_text('{"pretrain": 100.0, "collect": 5.0}')
    config = ConfigDict({"lr": 0.5})
    with launch.stage(tmp_path, "pretrain", config):
        time.sleep(0.02)
    with pytest.raises(KeyError), launch.stage(tmp_path, "pretrain", config):
        raise KeyError
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert timing["collect"] == 5.0
    assert 100.02 <= timing["pretrain"] < 101
    assert json.loads((tmp_path / "config.json").read_text()) == {"pretrain": {"lr": 0.5}}
    assert json.loads((tmp_path / "provenance.json").read_text())["pretrain"].keys() == {"command", "commit", "hardware"}
    with pytest.raises(launch.ConfigError, match=r"config\.lr was 0\.5, is 0\.25"):
        launch.stage(tmp_path, "pretrain", ConfigDict({"lr": 0.25})).__enter__()


def test_a_stage_that_fails_before_it_began_may_be_corrected_in_place(tmp_path):
    (tmp_path / "earlier.txt").write_text("")
    with pytest.raises(KeyError), launch.stage(tmp_path, "extract", ConfigDict({"task": "wlaker-run"})):
        raise KeyError
    assert json.loads((tmp_path / "config.json").read_text()) == {}
    with pytest.raises(KeyError), launch.stage(tmp_path, "extract", ConfigDict({"task": "walker-run"})):
        (tmp_path / "checkpoint").write_text("")
        raise KeyError
    with pytest.raises(launch.ConfigError, match=r"config\.task was 'walker-run', is 'fish-swim'"):
        launch.stage(tmp_path, "extract", ConfigDict({"task": "fish-swim"})).__enter__()


def test_a_second_run_compiles_nothing_not_even_small_programs(tmp_path):
    """What is above a threshold alone would be compiled anew in every run: hundreds of programs of milliseconds."""
    script = tmp_path / "start.py"
    script.write_text(
        textwrap.dedent(
            """
            from collections import Counter

            from experiments import launch

            launch.enable_compilation_cache()

            import jax

            events = Counter()
            jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rsplit("/")[-1]]))
            jax.jit(lambda x: x + 1)(2.0)
            print(events["compile_requests_use_cache"], events["cache_hits"])
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)
    first, second = (
        subprocess.run([sys.executable, script], env=environment, text=True, capture_output=True, check=True) for _ in range(2)
    )
    wanted, found = second.stdout.split()
    assert first.stdout == f"{wanted} 0\n"
    assert int(wanted) > 0
    assert found == wanted


def test_the_compilation_cache_respects_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    launch.enable_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/mine"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    launch.enable_compilation_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("processes", ["all", "localhost,2,0,1", "localhost:1,two,0"])
def test_processes_that_are_none_are_named_with_the_remedy(processes):
    with pytest.raises(launch.ConfigError, match=f"--distributed={processes}: .* Give 'auto' on a cluster that JAX knows, or ADDRESS"):
        launch._join(processes)
