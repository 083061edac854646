"""Means, interquartile means, bootstrap 95 % intervals and comparisons of scores over tasks, seeds and episodes.

Scores of one method on one task are *runs*: one array of episode scores for each seed.

What an interval means. It is the 2.5th to 97.5th percentile of the statistic over bootstrap resamples of the *units*:

* three seeds or more: the units are the means of the seeds, so the interval says how the statistic would vary if
  training were repeated with other seeds. With fewer than about ten seeds it is too narrow (a percentile bootstrap
  of n values underestimates the variance by the factor (n - 1) / n).
* one or two seeds: the units are the episodes of all seeds together, so the interval says how the statistic would vary
  with other episodes of *these* policies; it does not cover what other training seeds would give.

Over several tasks, resampling is stratified: each task keeps its number of units (Agarwal et al. 2021,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4). The statistics are rliable's;
the resampling is `scipy.stats.bootstrap`, because rliable 1.2.0 cannot be imported next to pandas 3 (through arch 7.2)
and draws from numpy's global generator whatever `random_state` it is given, so its intervals do not repeat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 5000
MIN_SEEDS = 3
_BATCH_ELEMENTS = 2_000_000

Runs = Sequence[np.ndarray] | Sequence[Sequence[float]] | np.ndarray | Sequence[float]
Verdict = Literal["better", "equal", "worse", "too few"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; `low` and `high` are NaN when a single unit gives no interval."""

    value: float
    low: float
    high: float
    units: int
    unit: Literal["seeds", "episodes"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """Performance profile: at each of `thresholds` [K] the fraction of runs above it, `value` [K], and its pointwise 95 % band.

    `low` and `high` [K] are NaN when single units give no band.
    """

    thresholds: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unit: Literal["seeds", "episodes"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Difference of two means (first minus second), its 95 % interval, and what follows from it.

    `verdict` is "better" when the whole interval lies above zero, "worse" when it lies below, "equal" when neither
    is shown, "too few" where one of them is of a single unit, which gives no interval.
    """

    difference: float
    low: float
    high: float
    verdict: Verdict


def as_runs(scores: Runs) -> list[np.ndarray]:
    """Scores as one float array for each seed; a flat sequence of numbers is the episodes of one seed.

    Raises ValueError when there is no score or one is not finite.
    """
    items = list(scores)
    if items and np.ndim(items[0]) == 0:
        items = [items]
    runs = [np.asarray(item, dtype=np.float64).ravel() for item in items]
    if not runs or any(run.size == 0 for run in runs):
        raise ValueError("no scores: every seed needs at least one episode")
    if not all(np.isfinite(run).all() for run in runs):
        raise ValueError("scores hold non-finite values; look for the episode that produced them")
    return runs


def units(scores: Runs) -> tuple[np.ndarray, Literal["seeds", "episodes"]]:
    """The values [n] that are resampled, and what they are: seed means from three seeds on, else pooled episodes."""
    runs = as_runs(scores)
    if len(runs) >= MIN_SEEDS:
        return np.array([run.mean() for run in runs]), "seeds"
    return np.concatenate(runs), "episodes"


def iqm(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Interquartile mean: the mean of what is left after cutting 25 % of the values at each end."""
    from scipy import stats

    return stats.trim_mean(values, proportiontocut=0.25, axis=axis)


def _interval(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of `statistic(*samples, axis=-1)`, each sample resampled on its own; NaN without units."""
    from scipy import stats

    if max(len(sample) for sample in samples) < 2:
        return float("nan"), float("nan")
    # scipy refuses a sample of one value; doubled, it stays the constant that resampling one value gives.
    samples = [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples]
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, _BATCH_ELEMENTS // sum(len(sample) for sample in samples)),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _difference_of_means(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(first, axis=axis) - np.mean(second, axis=axis)


def rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation of two lists of as many numbers."""
    from scipy import stats

    return float(stats.spearmanr(first, second).statistic)


def mean_interval(scores: Runs, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of one method on one task with its interval; see the module docstring for what the interval covers."""
    values, unit = units(scores)
    low, high = _interval([values], np.mean, resamples, seed)
    return Estimate(float(values.mean()), low, high, len(values), unit)


def compare(first: Runs, second: Runs, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Whether `first` has the larger mean: bootstrap interval of the difference of the two means, resampled independently."""
    values_a, values_b = units(first)[0], units(second)[0]
    difference = float(values_a.mean() - values_b.mean())
    if min(len(values_a), len(values_b)) < 2:
        return Comparison(difference, float("nan"), float("nan"), "too few")
    low, high = _interval([values_a, values_b], _difference_of_means, resamples, seed)
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "equal"
    return Comparison(difference, low, high, verdict)


def aggregate(by_task: Mapping[str, Runs], statistic: Literal["mean", "iqm"], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of the task means, or interquartile mean of all runs (task and seed), of one method over several tasks.

    Scores must be comparable between tasks (normalised). The units are seed means where every task has three seeds
    or more, else the episodes within each task and seed; the value itself is that of the seed means either way.
    """
    runs = [as_runs(scores) for scores in by_task.values()]
    if not runs:
        raise ValueError("no tasks to aggregate over")
    by_seed = min(len(task_runs) for task_runs in runs) >= MIN_SEEDS
    if by_seed:
        samples = [np.array([run.mean() for run in task_runs]) for task_runs in runs]
        task_of_sample = list(range(len(runs)))
    else:
        samples = [run for task_runs in runs for run in task_runs]
        task_of_sample = [task for task, task_runs in enumerate(runs) for _ in task_runs]

    def over_tasks(*resampled: np.ndarray, axis: int = -1) -> np.ndarray:
        scores = resampled if by_seed else [np.mean(episodes, axis=axis, keepdims=True) for episodes in resampled]
        if statistic == "iqm":
            return iqm(np.concatenate(scores, axis=axis), axis=axis)
        grouped = [[score for score, owner in zip(scores, task_of_sample, strict=True) if owner == task] for task in range(len(runs))]
        return np.mean([np.concatenate(group, axis=axis).mean(axis) for group in grouped], axis=0)

    low, high = _interval(samples, over_tasks, resamples, seed)
    return Estimate(float(over_tasks(*samples)), low, high, sum(len(sample) for sample in samples), "seeds" if by_seed else "episodes")


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means [resamples] of bootstrap resamples of values [n], drawn in batches, since recorded data may have many thousand episodes."""
    batch = max(1, _BATCH_ELEMENTS // len(values))
    counts = [min(batch, resamples - start) for start in range(0, resamples, batch)]
    return np.concatenate([rng.choice(values, (count, len(values))).mean(axis=1) for count in counts])


def performance_profile(by_task: Mapping[str, Runs], resamples: int = 2000, seed: int = 0) -> Profile:
    """F(tau) = 1/M sum_m 1/N_m sum_n [x_mn > tau] of scores in [0, 1] over M tasks and their N_m runs (Agarwal et al. 2021, section 4.2).

    A run is the mean of a seed's episodes. As in `aggregate`, the units that are resampled for the band are the runs of each task where
    every task has three or more, else the episodes of each run.
    """
    runs = [as_runs(scores) for scores in by_task.values()]
    if not runs:
        raise ValueError("no tasks to aggregate over")
    thresholds = np.linspace(0.0, 1.0, 101)
    by_seed = min(len(task_runs) for task_runs in runs) >= MIN_SEEDS
    rng = np.random.default_rng(seed)
    value, resampled = np.zeros(len(thresholds)), np.zeros((resamples, len(thresholds)))
    for task_runs in runs:
        means = np.array([run.mean() for run in task_runs])
        draws = (
            rng.choice(means, (resamples, len(means)))
            if by_seed
            else np.stack([_resampled_means(run, resamples, rng) for run in task_runs], axis=1)
        )
        value += (means[:, None] > thresholds).mean(axis=0) / len(runs)
        resampled += (draws[:, :, None] > thresholds).mean(axis=1) / len(runs)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    if not by_seed and max(len(run) for task_runs in runs for run in task_runs) < 2:
        low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    return Profile(thresholds, value, low, high, "seeds" if by_seed else "episodes")


def _chance_of_larger(first: np.ndarray, second: np.ndarray) -> float:
    """P(X > Y) + P(X = Y) / 2, the Mann-Whitney U statistic over its largest value."""
    ordered = np.sort(second)
    below_or_tied = np.searchsorted(ordered, first, "left") + np.searchsorted(ordered, first, "right")
    return float(below_or_tied.mean() / (2 * len(ordered)))


def probability_of_improvement(first: Mapping[str, Runs], second: Mapping[str, Runs], resamples: int = 1000, seed: int = 0) -> Estimate:
    """Chance that a unit of `first` scores above one of `second`, averaged over tasks (Agarwal et al. 2021, section 4.3).

    Both mappings must hold the same tasks. Raises ValueError naming tasks that only one of them has.
    """
    if set(first) != set(second):
        raise ValueError(f"the two methods were not scored on the same tasks; only one has {sorted(set(first) ^ set(second))}")
    pairs = [(units(first[task]), units(second[task])) for task in first]
    samples = [values for (values, _), _ in pairs] + [values for _, (values, _) in pairs]
    half = len(pairs)

    def mean_chance(values: Sequence[np.ndarray]) -> float:
        return float(np.mean([_chance_of_larger(a, b) for a, b in zip(values[:half], values[half:], strict=True)]))

    rng = np.random.default_rng(seed)
    low = high = float("nan")
    if max(len(sample) for sample in samples) > 1:
        chances = [mean_chance([rng.choice(sample, len(sample)) for sample in samples]) for _ in range(resamples)]
        low, high = (float(bound) for bound in np.quantile(chances, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    unit: Literal["seeds", "episodes"] = "seeds" if all(kind == "seeds" for (_, kind), _ in pairs) else "episodes"
    return Estimate(mean_chance(samples), low, high, sum(len(sample) for sample in samples[:half]), unit)
