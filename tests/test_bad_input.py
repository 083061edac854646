"""What a user gets wrong, in every launcher: one line that names the thing and the remedy, status 2, before any work starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_data import make_episode, write_dataset

from configs import debug
from experiments import bc, collect, evaluate, extract, launch, online, pretrain, run, stages
from pwm_jax import checkpoint, pwm
from pwm_jax.data.format import crc32_of
from pwm_jax.data.store import DatasetWriter
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.workdir import WorkdirLock

PROJECT = Path(__file__).resolve().parents[1]
TASKS = TaskSet.from_names("pendulum-swingup,mw-reach")


def make_config(**changes) -> ConfigDict:
    config = debug.get_config()
    config.update_from_flattened_dict({"num_workers": 1, **{name.replace("__", "."): value for name, value in changes.items()}})
    return config.lock()


def refusal(launcher: ModuleType, config: ConfigDict, workdir: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line that `launch.run` would show; nothing else is printed, nothing learnt, and the directory takes another config."""
    workdir.mkdir(exist_ok=True)
    name = launcher.__name__.rpartition(".")[2]
    before = {path for path in workdir.rglob("*") if path.name != "config.json"}
    with pytest.raises(Exception) as caught, launch.stage(workdir, name, config):  # noqa: PT011 - which kind is asked below
        launcher.main(config, workdir)
    assert launch._is_named(caught.value), repr(caught.value)
    assert capfd.readouterr() == ("", "")
    assert {path for path in workdir.rglob("*") if path.name != "config.json"} == before
    assert json.loads((workdir / "config.json").read_text()) == {}
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def workdir(tmp_path) -> Path:
    """A run with a dataset of TASKS."""
    write_dataset(tmp_path / "run" / "dataset", episodes=3, task_set=TASKS)
    return tmp_path / "run"


def add_world_model(workdir: Path, config: ConfigDict, tasks: str = "pendulum-swingup,mw-reach") -> None:
    task_set = TaskSet.from_names(tasks)
    algorithm = stages.algorithm_of(config, task_set)
    metadata = stages.model_metadata(algorithm, task_set) | {"world_model": config.world_model.to_dict()}
    checkpoint.save(workdir / "pretrain", 1, jax.jit(lambda: pwm.init_world_model(algorithm, jax.random.key(0)))(), metadata)


@pytest.mark.parametrize("launcher", [collect, pretrain, online, run], ids=lambda module: module.__name__)
def test_an_unknown_task(launcher, tmp_path, capfd):
    message = refusal(launcher, make_config(tasks="pendulum-swingup,mw-raech"), tmp_path / "run", capfd)
    assert "mw-raech" in message
    assert "mw-reach" in message.replace("mw-raech", "")


def test_a_task_that_the_model_does_not_know(workdir, capfd):
    config = make_config(extract__tasks=("walker-run",))
    add_world_model(workdir, config)
    for launcher in (extract, bc):
        message = refusal(launcher, config, workdir, capfd)
        assert message == "task 'walker-run' is not in this task set, which has: pendulum-swingup, mw-reach"


@pytest.mark.parametrize("launcher", [pretrain, bc, run], ids=lambda module: module.__name__)
def test_a_wrong_value_in_the_config(launcher, workdir, capfd):
    section = {pretrain: "pretrain", bc: "bc", run: "online"}[launcher]
    config = debug.get_config()
    with config[section].ignore_type():
        config[section]["steps" if section != "online" else "env_steps"] = "many"
    assert f"config.{section}." in refusal(launcher, config, workdir, capfd)


@pytest.mark.parametrize("launcher", [pretrain, extract], ids=lambda module: module.__name__)
def test_a_dataset_of_other_tasks(launcher, workdir, tmp_path, capfd):
    write_dataset(tmp_path / "other", episodes=2, task_set=TaskSet.from_names("reacher-easy"))
    config = make_config(dataset=str(tmp_path / "other"))
    add_world_model(workdir, config)
    message = refusal(launcher, config, workdir, capfd)
    expected = "it lacks pendulum-swingup, mw-reach; it has reacher-easy besides; they are padded to obs 6, action 2, not obs 39, action 4"
    assert f"{tmp_path / 'other'} is not of the tasks needed: {expected}. Use the model's own dataset" in message


def test_a_dataset_with_other_padding(workdir, tmp_path, capfd):
    write_dataset(tmp_path / "wide", episodes=2, task_set=TaskSet.from_names("pendulum-swingup,mw-reach", obs_dim=50))
    message = refusal(pretrain, make_config(dataset=str(tmp_path / "wide")), workdir, capfd)
    assert "is not of the tasks needed: they are padded to obs 50, action 4, not obs 39, action 4. Use" in message


def spoil_nan(dataset: Path) -> None:
    shard = dataset / "shard-00000"
    frames = np.load(shard / "frames.npy")
    frames[5, 1] = np.nan
    np.save(shard / "frames.npy", frames)
    record = json.loads((shard / "shard.json").read_text())
    record["crc32"]["frames.npy"] = crc32_of(shard / "frames.npy")
    (shard / "shard.json").write_text(json.dumps(record))


def spoil_empty(dataset: Path) -> None:
    shutil.rmtree(dataset)
    with DatasetWriter(dataset, TASKS, {}):
        pass


def spoil_truncated(dataset: Path) -> None:
    frames = dataset / "shard-00000" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-100])


def spoil_bits(dataset: Path) -> None:
    frames = dataset / "shard-00000" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-1] + b"\x01")


def spoil_interrupted(dataset: Path) -> None:
    shutil.rmtree(dataset)
    writer = DatasetWriter(dataset, TASKS, {})
    writer.add_episode(make_episode(0, 0, task_set=TASKS))
    writer.flush()
    writer.abort()


def spoil_torch(dataset: Path) -> None:
    shutil.rmtree(dataset)
    shutil.copytree(Path(__file__).parent / "fixtures" / "tdmpc2", dataset)
    (dataset / "chunk_1.pt").write_bytes((dataset / "chunk_1.pt").read_bytes()[:9_000])


SPOILT = {
    "nan": (spoil_nan, r"obs is not finite at frame 5 (task pendulum-swingup, episode 0 of the shard, step 5)"),
    "empty": (spoil_empty, "holds no episodes; collect some first"),
    "truncated": (spoil_truncated, "frames.npy"),
    "changed": (spoil_bits, "frames.npy fails its checksum"),
    "torch": (spoil_torch, "chunk_1.pt is cut short or damaged"),
    "interrupted": (spoil_interrupted, "is incomplete: its collection was interrupted"),
    "missing": (shutil.rmtree, "does not exist or is not a directory; make a dataset with experiments/collect.py"),
    "foreign": (lambda dataset: (dataset / "dataset.json").write_text('{"format": "other"}'), "is not a pwm_jax dataset"),
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("launcher", [pretrain, bc], ids=lambda module: module.__name__)
def test_a_dataset_that_cannot_be_used(launcher, kind, workdir, capfd):
    spoil, message = SPOILT[kind]
    spoil(workdir / "dataset")
    refused = refusal(launcher, make_config(), workdir, capfd)
    assert message in refused
    assert str(workdir / "dataset") in refused


def test_a_dataset_to_merge_that_is_missing(tmp_path, capfd):
    config = debug.get_config()
    config.collect.sources = ConfigDict({"old": {"kind": "dataset", "episodes": 2, "path": str(tmp_path / "gone")}})
    assert f"{tmp_path / 'gone'} does not exist" in refusal(collect, config, tmp_path / "run", capfd)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "random", "episodes": 0}, "config.collect.sources.mine: episodes must be at least 1, not 0"),
        ({"kind": "rnadom", "episodes": 1}, "config.collect.sources.mine.kind must be one of"),
        ({"kind": "policy", "episodes": 1}, "config.collect.sources.mine: a source of kind 'policy' needs 'workdir'"),
        ({"kind": "random", "episodes": 1, "correlation": 1.5}, "config.collect.sources.mine: "),
        ({"kind": "policy", "episodes": 1, "workdir": "/nowhere"}, "no checkpoint of pwm_jax: /nowhere/online does not exist"),
    ],
)
def test_a_source_that_cannot_act(fields, message, tmp_path, capfd):
    config = debug.get_config()
    config.collect.sources = ConfigDict({"mine": fields})
    assert message in refusal(collect, config, tmp_path / "run", capfd)


def test_a_missing_checkpoint(workdir, capfd):
    assert f"no checkpoint of pwm_jax: {workdir / 'pretrain'} does not exist" in refusal(extract, make_config(), workdir, capfd)
    config = make_config(pretrained=str(workdir / "elsewhere"), online__save_replay=False)
    assert f"{workdir / 'elsewhere' / 'pretrain'} does not exist" in refusal(online, config, workdir, capfd)


@pytest.mark.parametrize(("method", "stage"), [("extracted", "extract"), ("pwm", "online"), ("bc", "bc")])
def test_nothing_is_evaluated_before_all_is_there(method, stage, workdir, capfd):
    message = refusal(evaluate, make_config(evaluate__methods=("random", method)), workdir, capfd)
    assert f"no checkpoint of pwm_jax: {workdir / stage} does not exist. Check the path, or run the stage that writes it." in message


def test_a_foreign_checkpoint(workdir, capfd):
    config = make_config()
    checkpoint.save(workdir / "pretrain", 1, {"weights": np.zeros(3)}, {"tasks": [0]})
    message = refusal(extract, config, workdir, capfd)
    assert f"{workdir / 'pretrain'} holds a checkpoint of something else: its metadata lacks model, task_set, world_model" in message
    # A directory of numbered folders that some other program wrote.
    shutil.rmtree(workdir / "pretrain" / "0000000001")
    (workdir / "pretrain" / "0000000001").mkdir()
    (workdir / "pretrain" / "0000000001" / "model.pt").write_bytes(b"\x80\x02weights")
    assert "no whole checkpoint" in refusal(extract, config, workdir, capfd)


def test_a_checkpoint_of_another_architecture(workdir, capfd):
    add_world_model(workdir, make_config())
    message = refusal(pretrain, make_config(model__latent_dim=64), workdir, capfd)
    assert "does not fit: leaf" in message
    assert "Use the configuration that the checkpoint was made with." in message


# -------------------------------------------------------------------------------------------------- as processes of their own


def start(launcher: str, workdir: Path | str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", f"experiments.{launcher}", "--config=configs/debug.py", f"--workdir={workdir}", *arguments]
    process = subprocess.run(command, cwd=PROJECT, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    return process.returncode, process.stdout, process.stderr


def assert_refused(result: tuple[int, str, str], *messages: str) -> None:
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for message in messages:
        assert message in err


@pytest.mark.parametrize("launcher", ["collect", "pretrain", "bc", "extract", "evaluate", "online", "report", "run"])
def test_an_unknown_field(launcher, tmp_path):
    result = start(launcher, tmp_path / "run", "--config.pretrain.stesp=3")
    assert_refused(result, "unknown field config.pretrain.stesp; did you mean config.pretrain.steps?")
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_as_a_user_meets_it(tmp_path):
    assert_refused(start("run", tmp_path / "run", "--config.tasks=walker-wlak"), "walker-wlak", "walker-walk")


@pytest.mark.parametrize(("package", "remedy"), [("dm_control", "pip install dm_control"), ("metaworld", "pip install metaworld")])
@pytest.mark.parametrize("launcher", ["collect", "online", "run"])
def test_a_simulator_that_is_not_installed(launcher, package, remedy, tmp_path):
    (tmp_path / "shim" / package).mkdir(parents=True)
    (tmp_path / "shim" / package / "__init__.py").write_text(f"raise ImportError('no module named {package}, says the test')")
    result = start(launcher, tmp_path / "run", PYTHONPATH=str(tmp_path / "shim"))
    assert_refused(result, f"no module named {package}, says the test", remedy)
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left <= {".lock", "config.json"}


def test_a_workdir_in_use(tmp_path):
    with WorkdirLock(tmp_path):
        assert_refused(start("pretrain", tmp_path), f"{tmp_path} is in use by another run (process {os.getpid()} on ")


def test_a_report_while_a_stage_runs(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with WorkdirLock(tmp_path / "run"):
        status, out, err = start("report", tmp_path / "run")
    assert (status, err) == (0, "")
    assert out.endswith(f"The page with curves and videos: {tmp_path / 'run' / 'report.html'}\n")
    assert_refused(start("report", tmp_path / "rnu"), f"no directory {tmp_path / 'rnu'}: give the --workdir of a run")
    assert not (tmp_path / "rnu").exists()


def test_a_disk_that_cannot_be_written():
    # Not even root can make a directory there.
    assert_refused(start("pretrain", "/sys/pwm_jax"), "cannot write in /sys/pwm_jax: ", "Choose another --workdir.")
