import json
import math

import pytest

from pwm_jax.report import decisions
from pwm_jax.report.decisions import DecisionTime
from pwm_jax.report.records import RecordError
from pwm_jax.report.results import ResultRow
from pwm_jax.report.workdir import load_workdir

TIME = DecisionTime(0.0006, 20, "cpu")


def row(method, seed, time):
    extra = {"decision": time} if time else {}
    return ResultRow("s", "walker-walk", method, seed, 1.0, 0.1, 0, 0.0, "c", "d", "e", extra=extra)


def test_times_survive_the_disk_beside_each_other(tmp_path):
    decisions.write_decision_time(tmp_path, "bc", DecisionTime(1.0, 1, "cpu"))
    decisions.write_decision_time(tmp_path, "extracted", TIME)
    path = decisions.write_decision_time(tmp_path, "bc", DecisionTime(0.25, 10, "gpu"))
    assert path == tmp_path / "evaluation" / "decisions.json"
    assert load_workdir(tmp_path).decisions == {"bc": DecisionTime(0.25, 10, "gpu"), "extracted": TIME}
    assert decisions.read_decision_times(path)["extracted"].seconds_per_decision == pytest.approx(3e-5)


def test_a_time_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        decisions.write_decision_time(tmp_path, "bc", DecisionTime(math.nan, 1, "cpu"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds_per_call": 0}, "bc: seconds_per_call is 0"),
        ({"environments": 2.5}, "bc: environments is 2.5"),
        ({"environments": True}, "bc: environments is True"),
        ({"device": 3}, "bc: device is 3"),
        ({"calls": 3}, "bc: a time per decision has seconds_per_call, environments, device"),
    ],
)
def test_damaged_times_are_named(tmp_path, change, message):
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"bc": {"seconds_per_call": 0.1, "environments": 2, "device": "cpu"} | change}))
    with pytest.raises(RecordError, match=rf"decisions\.json: {message}"):
        decisions.read_decision_times(path)


def test_times_of_published_rows_are_those_that_differ():
    same, other = vars(TIME), vars(DecisionTime(0.001, 10, "cpu"))
    rows = [row("bc", 0, same), row("bc", 1, same), row("bc", 2, other), row("data", 0, None)]
    assert decisions.times_of_rows(rows) == {"bc": [TIME, DecisionTime(**other)]}
    with pytest.raises(RecordError, match=r"s/walker-walk/bc/seed 4: extra\.decision: a time per decision has"):
        decisions.times_of_rows([row("bc", 4, {"seconds": 1})])


@pytest.mark.parametrize(("seconds", "text"), [(3.12e-5, "0.0312"), (0.0045, "4.50"), (0.09996, "100"), (1.2344, "1234")])
def test_milliseconds_have_three_digits(seconds, text):
    assert decisions.format_milliseconds(seconds) == text


def test_several_measurements_are_a_range():
    assert (decisions.format_decision([TIME]), decisions.format_call([TIME])) == ("0.0300", "0.600 for 20 (cpu)")
    times = [DecisionTime(0.004, 10, "gpu"), TIME, DecisionTime(0.0006, 20, "gpu")]
    assert decisions.format_decision(times) == "0.0300–0.400"
    assert decisions.format_call(times) == "0.600–4.00 for 10–20 (cpu, gpu)"
