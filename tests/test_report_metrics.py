import io
import re

import numpy as np
import pytest

from pwm_jax.report import metrics
from pwm_jax.report.records import RecordError


def test_rows_and_series(tmp_path):
    with metrics.MetricsWriter(tmp_path, "pretrain", tensorboard=False) as writer:
        writer.write(10, {"loss": np.float32(0.5)})
        writer.write(20, {"loss": np.array([0.25]), "score": 1})
        assert len(metrics.read_metrics(writer.path)) == 2, "rows must be on disk before the writer closes"
    steps, values = metrics.series(metrics.read_metrics(tmp_path / "metrics" / "pretrain.jsonl"), "loss")
    assert (steps.tolist(), values.tolist()) == ([10, 20], [0.5, 0.25])
    assert metrics.series(metrics.read_metrics(writer.path), "score")[0].tolist() == [20]


def test_resuming_drops_later_rows_and_an_unfinished_line(tmp_path):
    with metrics.MetricsWriter(tmp_path, "extract", tensorboard=False) as writer:
        for step in (100, 200, 300):
            writer.write(step, {"loss": step})
    with writer.path.open("a") as file:
        file.write('{"step": 400, "lo')
    with metrics.MetricsWriter(tmp_path, "extract", start_step=200, tensorboard=False) as writer:
        writer.write(300, {"loss": -1.0})
    assert [(row["step"], row["loss"]) for row in metrics.read_metrics(writer.path)] == [(100, 100), (200, 200), (300, -1)]


def test_a_new_run_does_not_keep_an_old_runs_rows(tmp_path):
    for _ in range(2):
        with metrics.MetricsWriter(tmp_path, "bc", tensorboard=False) as writer:
            writer.write(1, {"loss": 1.0})
    assert len(metrics.read_metrics(writer.path)) == 1


def test_tensorboard_gets_the_scalars(tmp_path):
    with metrics.MetricsWriter(tmp_path, "pretrain") as writer:
        writer.write(7, {"loss/reward": 0.5})
    (events,) = (tmp_path / "tensorboard" / "pretrain").iterdir()
    assert b"loss/reward" in events.read_bytes()


def test_non_finite_metrics_stop_the_run(tmp_path):
    with metrics.MetricsWriter(tmp_path, "pretrain", tensorboard=False) as writer:
        with pytest.raises(FloatingPointError, match=r"pretrain, step 3: .*critic=nan"):
            writer.write(3, {"loss": 1.0, "critic": np.nan})
        assert metrics.read_metrics(writer.path) == []


def test_a_metric_of_several_numbers_is_refused(tmp_path):
    with metrics.MetricsWriter(tmp_path, "pretrain", tensorboard=False) as writer, pytest.raises(ValueError, match="reshape"):
        writer.write(3, {"loss": np.ones(2)})


@pytest.mark.parametrize("row", ['{"loss": 1}', '{"step": 1, "loss": "low"}'])
def test_rows_that_are_not_metrics_are_named(tmp_path, row):
    path = tmp_path / "pretrain.jsonl"
    path.write_text('{"step": 1}\n' + row + "\n")
    with pytest.raises(RecordError, match=r"pretrain\.jsonl, line 2"):
        metrics.read_metrics(path)


def test_progress_in_a_log_is_a_line_each_tenth_with_rate_eta_and_values():
    stream = io.StringIO()
    with metrics.Progress(1000, "pretrain", stream=stream) as progress:
        for step in range(1000):
            progress.update(1, loss=step / 1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert re.fullmatch(r"pretrain: 50% \(500 of 1,000 steps, \S+/s, .+ so far, ETA .+, loss 0\.499\)", lines[5])
    assert lines[-1].startswith("pretrain: 100% (1,000 of 1,000 steps")


def test_progress_of_a_resumed_run_counts_only_its_own_steps_in_the_rate(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = metrics.Progress(1000, "extract", initial=500, stream=stream)
    progress.update(100)
    assert "60% (600 of 1,000 steps, 10/s, 10 s so far, ETA 40 s)" in stream.getvalue()


def test_a_slow_run_is_heard_of_each_minute(monkeypatch):
    clock = iter([0.0, 30.0, 61.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = metrics.Progress(10_000, "online", stream=stream)
    progress.update(1)
    progress.update(1)
    short = io.StringIO()
    monkeypatch.setattr(metrics.time, "monotonic", lambda: 0.0)
    metrics.Progress(10, "evaluate", stream=short, tenths=False).update(5)
    assert short.getvalue() == "evaluate: started at 0 of 10 steps\n"
    assert stream.getvalue().splitlines()[1:] == ["online: 0% (2 of 10,000 steps, 0.0328/s, 1 min 1 s so far, ETA 84 h 42 min)"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (8.24, "8.2 s"), (59.4, "59 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert metrics.format_seconds(seconds) == text
