import json
from types import SimpleNamespace

import numpy as np
import pytest

from pwm_jax.report import workdir
from pwm_jax.report.metrics import MetricsWriter

SPECS = [
    SimpleNamespace(name="walker-walk", suite="dm_control", max_return=1000.0),
    SimpleNamespace(name="mw-reach", suite="metaworld", max_return=2000.0),
    SimpleNamespace(name="mw-push", suite="metaworld", max_return=2000.0),
]


def describe(directory):
    return workdir.write_data_description(
        directory,
        SPECS,
        task_id=np.array([0, 0, 0, 1, 1]),
        length=np.array([500, 500, 500, 100, 100]),
        episode_return=np.array([0.0, 100.0, 200.0, 1500.0, 500.0]),
        success=np.array([0.0, 0.0, 0.0, 1.0, 0.0]),
        source=np.array(["random", "replay", "replay", "expert", "expert"]),
        recipe={"seed": 0, "noise": (0.0, 1.0)},
    )


def test_data_description_by_hand(tmp_path):
    written = json.loads(describe(tmp_path).read_text())
    assert written["recipe"] == {"seed": 0, "noise": [0.0, 1.0]}
    walker, reach, push = written["tasks"]
    assert walker == {
        "task": "walker-walk",
        "suite": "dm_control",
        "episodes": 3,
        "steps": 1500,
        "return_mean": 100.0,
        "return_quantiles": [0.0, 50.0, 100.0, 150.0, 200.0],
        "success_rate": None,
        "max_return": 1000.0,
        "sources": {"random": 1, "replay": 2},
    }
    assert (reach["success_rate"], reach["steps"]) == (0.5, 200)
    assert (push["episodes"], push["return_mean"], push["sources"]) == (0, None, {})


def test_stages_are_noted_beside_each_other_with_portable_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"workdir": tmp_path / "runs" / "a", "model": {"hidden": (128, 128)}, "lr": 3e-4}
    workdir.record_stage(tmp_path, "pretrain", seconds=1.0, config=config)
    workdir.record_stage(tmp_path, "extract", seconds=2.5, config={"seeds": [0, 1]}, accelerators=["one GPU"])
    workdir.record_stage(tmp_path, "pretrain", seconds=3.0, config=config)
    data = workdir.load_workdir(tmp_path)
    assert data.config["pretrain"] == {"workdir": "runs/a", "model": {"hidden": [128, 128]}, "lr": 3e-4}
    assert data.timing == {"pretrain": 3.0, "extract": 2.5}
    assert data.provenance["extract"]["hardware"].endswith("one GPU")
    assert data.problems == ()


def test_an_empty_workdir_has_no_problems_and_an_absent_one_is_an_error(tmp_path):
    data = workdir.load_workdir(tmp_path)
    assert data.workdir == str(tmp_path)
    assert (data.tasks, data.problems, data.videos, data.episodes, data.decisions) == ([], (), (), (), {})
    with pytest.raises(FileNotFoundError, match="absent is not a directory"):
        workdir.load_workdir(tmp_path / "absent")


def test_videos_are_known_by_their_names(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("mw-drawer-close-extracted-seed12.gif", "holiday.gif"):
        (tmp_path / "videos" / name).write_bytes(b"GIF89a")
    data = workdir.load_workdir(tmp_path)
    ((video),) = data.videos
    assert (video.task, video.method, video.seed) == ("mw-drawer-close", "extracted", 12)
    assert data.problems == ("videos/holiday.gif: not named <task>-<method>-seed<k>.gif",)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("config.json", "[]", "config.json: expected a JSON object"),
        ("timing.json", '{"pretrain": "long"}', "timing.json: pretrain should be a number of seconds"),
        (
            "provenance.json",
            '{"pretrain": {"command": "x"}}',
            "provenance.json: pretrain should be an object of command, commit and hardware",
        ),
        ("dataset/data.json", '{"recipe": {}, "tasks": [{"task": "a"}]}', "dataset/data.json: a task lacks ['suite'"),
        ("dataset/data.json", '{"tasks": []}', "dataset/data.json: needs a `recipe` and a list `tasks`"),
        ("metrics/pretrain.jsonl", '{"loss": 1}\n', "metrics/pretrain.jsonl, line 1: a row of metrics needs a step"),
        ("metrics/open_loop.json", '{"a": [1, "x"]}', "metrics/open_loop.json: a should be a list of numbers"),
        ("evaluation/decisions.json", '{"bc": 3}', "evaluation/decisions.json: bc: a time per decision has seconds_per_call"),
        ("evaluation/bc.jsonl", "{}\n", "evaluation/bc.jsonl, line 1: missing or unknown keys"),
    ],
)
def test_a_damaged_part_is_left_out_and_named(tmp_path, name, text, problem):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with MetricsWriter(tmp_path, "extract", tensorboard=False) as writer:
        writer.write(1, {"loss/actor": 1.0})
    data = workdir.load_workdir(tmp_path)
    assert len(data.problems) == 1
    assert data.problems[0].startswith(problem)
    assert list(data.metrics) == ["extract"]
