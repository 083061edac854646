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


def test_probability_is_the_mann_whitney_statistic_averaged_over_tasks():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(7)
    first = {task: [rng.integers(0, 6, 9).astype(float) for _ in range(2)] for task in "abc"}
    second = {task: [rng.integers(1, 7, 11).astype(float)] for task in "abc"}
    shares = [mannwhitneyu(np.concatenate(first[task]), second[task][0]).statistic / (18 * 11) for task in "abc"]
    assert stats.probability_of_improvement(first, second).value == pytest.approx(np.mean(shares))
    there, back = stats.probability_of_improvement(first, second), stats.probability_of_improvement(second, first)
    assert there.value + back.value == pytest.approx(1.0)


def test_the_chance_interval_of_one_task_is_that_of_mann_whitney():
    rng = np.random.default_rng(8)
    estimate = stats.probability_of_improvement({"a": rng.normal(0.5, 1, 300)}, {"a": rng.normal(0, 1, 300)}, resamples=2000)
    p = estimate.value
    # Variance of U / (m n) for continuous scores by Hanley and McNeil (1982), close to normal ones.
    error = math.sqrt((p * (1 - p) + 299 * (p / (2 - p) - p**2) + 299 * (2 * p**2 / (1 + p) - p**2)) / 300**2)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def profile_at(profile, threshold):
    return int(np.argmin(np.abs(profile.thresholds - threshold)))


def test_a_profile_by_hand():
    profile = stats.performance_profile({"a": [[0.2, 0.4], [0.8, 0.8]], "b": [[0.5]]})
    found = {tau: profile.value[profile_at(profile, tau)] for tau in (0.0, 0.25, 0.35, 0.5, 0.75, 0.8, 1.0)}
    assert found == pytest.approx({0.0: 1.0, 0.25: 1.0, 0.35: 0.75, 0.5: 0.25, 0.75: 0.25, 0.8: 0.0, 1.0: 0.0})
    assert profile.unit == "episodes"
    # The resampled mean of (0.2, 0.4) is 0.2, 0.3 or 0.4 with chances 1/4, 1/2, 1/4; the other two runs are constant.
    at = profile_at(profile, 0.35)
    assert (profile.low[at], profile.high[at]) == (0.75, 1.0)
    at = profile_at(profile, 0.45)
    assert (profile.low[at], profile.high[at]) == (0.75, 0.75)


def test_the_area_under_a_profile_is_the_mean_score():
    profile = stats.performance_profile(by_task(FIRST))
    assert profile.value[:-1].mean() == pytest.approx(stats.aggregate(by_task(FIRST), "mean", resamples=10).value, abs=0.006)


def test_the_band_of_a_profile_is_that_of_resampled_seeds():
    rng = np.random.default_rng(9)
    seeds = {"a": [[score] for score in rng.uniform(0, 1, 200)]}
    profile = stats.performance_profile(seeds)
    at = profile_at(profile, 0.5)
    share = profile.value[at]
    assert profile.unit == "seeds"
    assert profile.high[at] - profile.low[at] == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 200), rel=0.1)
    assert stats.performance_profile(seeds).low.tolist() == profile.low.tolist()


def test_resampling_in_batches_is_a_bootstrap(monkeypatch):
    monkeypatch.setattr(stats, "_BATCH_ELEMENTS", 1000)
    episodes = np.random.default_rng(10).normal(0.5, 0.1, 300)
    means = stats._resampled_means(episodes, 2000, np.random.default_rng(0))
    assert means.shape == (2000,)
    assert means.mean() == pytest.approx(episodes.mean(), abs=0.001)
    assert means.std() == pytest.approx(episodes.std() / math.sqrt(300), rel=0.06)


def test_a_profile_of_single_episodes_has_no_band():
    profile = stats.performance_profile({"a": [[0.5]], "b": [[0.25]]})
    assert np.isnan(profile.low).all()
    assert profile.value[profile_at(profile, 0.3)] == 0.5
    with pytest.raises(ValueError, match="no tasks"):
        stats.performance_profile({})


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
    assert stats.compare([9.0], [1.0, 2.0]).verdict == "too few"
    assert math.isnan(stats.mean_interval([9.0]).low)


def test_intervals_repeat():
    scores = np.random.default_rng(4).normal(size=30)
    assert stats.mean_interval(scores) == stats.mean_interval(scores)


@pytest.mark.parametrize(("scores", "message"), [([], "no scores"), ([[1.0], []], "no scores"), ([1.0, math.nan], "non-finite")])
def test_unusable_scores_are_named(scores, message):
    with pytest.raises(ValueError, match=message):
        stats.mean_interval(scores)
