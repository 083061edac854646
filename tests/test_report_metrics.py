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
