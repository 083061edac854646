import pytest

from pwm_jax.report import text
from pwm_jax.report.stats import Estimate


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1820.4, "1820"), (99.96, "100"), (12.34, "12.3"), (9.996, "10.0"), (0.314, "0.31"), (-0.001, "0.00"), (float("nan"), "—")],
)
def test_numbers_have_three_digits(value, expected):
    assert text.format_number(value) == expected


def test_estimates_show_their_interval_when_there_is_one():
    assert text.format_estimate(Estimate(853.0, 812.3, 890.2, 20, "episodes")) == "853 [812, 890]"
    assert text.format_estimate(Estimate(853.0, float("nan"), float("nan"), 1, "episodes")) == "853"


def test_text_and_markdown_layout():
    rows = [["task", "a"], ["x|y", "12"], ["z", "345"]]
    assert text.text_table(rows) == "task    a\n----  ---\nx|y    12\nz     345\n"
    assert text.markdown_table(rows) == "| task | a |\n| --- | ---: |\n| x\\|y | 12 |\n| z | 345 |\n"


def test_a_table_too_wide_goes_on_below():
    rows = [["task", "aaaa", "b", "cc"], ["x", "1", "2", "3"]]
    assert text.text_table(rows, 13) == "task  aaaa  b\n----  ----  -\nx        1  2\n\ntask  cc\n----  --\nx      3\n"
    assert text.text_table(rows, 17) == "task  aaaa  b  cc\n----  ----  -  --\nx        1  2   3\n"
    assert text.text_table(rows, 3).count("task") == 3  # as narrow as can be


def test_columns_are_in_order():
    methods = ["random", "zebra", "data", "mppi", "bc", "ape", "generalist", "extracted"]
    assert text.order_methods(methods) == ["extracted", "generalist", "mppi", "bc", "data", "random", "ape", "zebra"]
