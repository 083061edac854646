import numpy as np
import pytest

from pwm_jax.report.verdict import judge

HIGH, MIDDLE, LOW = (np.array([base, base + 10.0]) for base in (900.0, 500.0, 100.0))


def scores(*versus_bc, data=LOW):
    """Tasks on which the policy is better ('+'), equal ('=') or worse ('-') than cloning; '?' leaves cloning out."""
    cloning = {"+": LOW, "=": MIDDLE, "-": HIGH}
    return {
        f"task{i}": {"extracted": [MIDDLE], "data": [data]} | ({"bc": [cloning[sign]]} if sign != "?" else {})
        for i, sign in enumerate(versus_bc)
    }


@pytest.mark.parametrize(
    ("versus_bc", "three_in_five", "none_worse", "overall"),
    [
        ("+++==", "met", "met", "met"),
        ("++===", "not met", "met", "not met"),
        ("++++-", "met", "not met", "not met"),
        ("+++?=", "not measured", "not measured", "not measured"),
        ("?====", "not met", "not measured", "not met"),
        ("?++-=", "not measured", "not met", "not met"),
        ("+", "met", "met", "met"),
        ("+++++=", "met", "met", "met"),
        ("+++===", "not met", "met", "not met"),
    ],
)
def test_criteria_against_cloning(versus_bc, three_in_five, none_worse, overall):
    judgement = judge(scores(*versus_bc))
    assert [criterion.outcome for criterion in judgement.criteria] == ["met", three_in_five, none_worse]
    assert judgement.outcome == overall


def test_one_task_not_above_the_data_fails_and_is_named():
    table = scores("+", "+", "+")
    table["task1"]["data"] = [MIDDLE]
    judgement = judge(table)
    assert (judgement.criteria[0].outcome, judgement.criteria[0].detail) == ("not met", "not shown on task1")
    assert judgement.outcome == "not met"
    assert [task.versus_data.verdict for task in judgement.tasks] == ["better", "equal", "better"]


def test_nothing_evaluated_is_not_measured():
    assert judge({}).outcome == "not measured"
    assert judge({"task": {"extracted": [HIGH]}}).outcome == "not measured"
    assert judge({"task": {"extracted": [HIGH]}}).criteria[0].detail == "not evaluated on task"


def test_online_policies_are_not_compared_with_cloning():
    judgement = judge({"task": {"pwm": [HIGH], "data": [LOW]}}, "pwm")
    assert judgement.compared == ("data",)
    assert [(criterion.text, criterion.outcome) for criterion in judgement.criteria] == [
        ("beat the mean behaviour in the data on every task", "met")
    ]
    assert judgement.outcome == "met"
    assert judge(scores("+")).compared == ("data", "bc")
