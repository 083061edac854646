import math

import numpy as np
import pytest

from pwm_jax.report import stats

# Runs x tasks, with rliable 1.2.0's numbers for them (50,000 resamples, pandas 2).
FIRST = np.array([[0.12, 0.55, 0.91], [0.20, 0.47, 0.88], [0.31, 0.62, 0.99], [0.08, 0.58, 0.93]])
SECOND = np.array([[0.10, 0.50, 0.70], [0.22, 0.41, 0.72], [0.15, 0.60, 0.79], [0.19, 0.39, 0.75]])


def by_task(matrix):
    return {f"task{i}": [np.array([run]) for run in matrix[:, i]] for i in range(matrix.shape[1])}


@pytest.mark.parametrize(("statistic", "value", "low", "high"), [("mean", 0.5533333, 0.5175, 0.59), ("iqm", 0.5683333, 0.5183333, 0.6)])
def test_aggregates_equal_rliable(statistic, value, low, high):
    estimate = stats.aggregate(by_task(FIRST), statistic, resamples=20_000)
    assert estimate.value == pytest.approx(value, abs=1e-6)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.002)
    assert (estimate.units, estimate.unit) == (12, "seeds")


def test_probability_of_improvement_equals_rliable():
    estimate = stats.probability_of_improvement(by_task(FIRST), by_task(SECOND), resamples=4000)
    assert estimate.value == pytest.approx(0.75)
    assert (estimate.low, estimate.high) == pytest.approx((0.5625, 0.91666), abs=0.03)


def test_ties_count_half():
    ties = {"task": [np.array([1.0, 2.0])]}
    assert stats.probability_of_improvement(ties, {"task": [np.array([1.0, 2.0, 2.0, 3.0])]}).value == pytest.approx(2.5 / 8)


def test_probability_needs_the_same_tasks():
    with pytest.raises(ValueError, match="only one has \\['b'\\]"):
        stats.probability_of_improvement({"a": [1.0]}, {"a": [1.0], "b": [1.0]})


def test_iqm_by_hand():
    assert stats.iqm(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])) == pytest.approx(3.5)


def test_two_seeds_pool_their_episodes_and_three_do_not():
    values, unit = stats.units([[1.0, 3.0], [5.0, 7.0, 9.0]])
    assert (values.tolist(), unit) == ([1.0, 3.0, 5.0, 7.0, 9.0], "episodes")
    values, unit = stats.units([[1.0, 3.0], [5.0], [4.0, 8.0]])
    assert (values.tolist(), unit) == ([2.0, 5.0, 6.0], "seeds")


def test_the_interval_of_the_mean_is_that_of_a_normal_for_many_episodes():
    episodes = np.random.default_rng(1).normal(700, 100, 400)
    estimate = stats.mean_interval([episodes[:200], episodes[200:]])
    error = 1.96 * episodes.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(episodes.mean())
    assert estimate.value - estimate.low == pytest.approx(error, rel=0.08)
    assert estimate.high - estimate.value == pytest.approx(error, rel=0.08)


def test_seeds_as_units_are_wider_than_their_episodes():
    rng = np.random.default_rng(2)
    seeds = [rng.normal(centre, 5, 50) for centre in (300, 500, 700)]
    by_seed, pooled = stats.mean_interval(seeds), stats.mean_interval(np.concatenate(seeds))
    assert (by_seed.low, by_seed.high) == pytest.approx((300, 700), abs=3)
    assert pooled.high - pooled.low < 0.3 * (by_seed.high - by_seed.low)


def test_with_few_seeds_the_aggregate_resamples_within_task_and_seed():
    tasks = {"a": [np.array([0.0, 0.0]), np.array([1.0, 1.0])], "b": [np.array([0.4, 0.6]), np.array([0.5, 0.5])]}
    estimate = stats.aggregate(tasks, "mean", resamples=4000)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.475, 0.525))
    assert (estimate.units, estimate.unit) == (8, "episodes")


def test_a_task_weighs_the_same_whatever_its_number_of_seeds():
    assert stats.aggregate({"a": [[0.0], [0.0], [0.0]], "b": [[1.0]]}, "mean").value == pytest.approx(0.5)


@pytest.mark.parametrize(("shift", "verdict"), [(60.0, "better"), (0.0, "equal"), (-60.0, "worse")])
def test_compare_gives_the_verdict_of_the_interval(shift, verdict):
    rng = np.random.default_rng(3)
    first, second = rng.normal(500 + shift, 50, 60), rng.normal(500, 50, 60)
    comparison = stats.compare(first, second)
    error = 1.96 * math.sqrt(first.var() / 60 + second.var() / 60)
    assert comparison.verdict == verdict
    assert comparison.difference == pytest.approx(first.mean() - second.mean())
    assert comparison.high - comparison.low == pytest.approx(2 * error, rel=0.08)


def test_constant_scores_that_differ_are_better():
    comparison = stats.compare([[1.0] * 5, [1.0] * 5], [[0.0] * 5])
    assert comparison == stats.Comparison(1.0, 1.0, 1.0, "better")


def test_one_episode_shows_nothing():
    assert stats.compare([9.0], [1.0, 2.0]).verdict == "equal"
    assert math.isnan(stats.mean_interval([9.0]).low)


def test_intervals_repeat():
    scores = np.random.default_rng(4).normal(size=30)
    assert stats.mean_interval(scores) == stats.mean_interval(scores)


@pytest.mark.parametrize(("scores", "message"), [([], "no scores"), ([[1.0], []], "no scores"), ([1.0, math.nan], "non-finite")])
def test_unusable_scores_are_named(scores, message):
    with pytest.raises(ValueError, match=message):
        stats.mean_interval(scores)
