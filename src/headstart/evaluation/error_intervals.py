"""95 % intervals for means, shares and medians of errors: the same resampling of units as in ``intervals.py``.

A weighted mean follows from two sums per unit, so a resample is a row of a matrix product here too. Where resampling
cannot show what was not seen, the interval is widened: a share (a failure rate, an area under a curve) that few units
speak for has at least Wilson's interval. Where one unit alone speaks for a score, there is no interval: the samples of
one person say nothing about other persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.evaluation.intervals import (
    MAX_WEIGHTS,
    MIN_UNITS,
    Score,
    draw_units,
    effective_number,
    interval_around,
    wilson,
)


@dataclass(frozen=True)
class WeightedMean:
    """A score that is a mean: the sum of totals divided by the sum of weights.

    Attributes:
        totals: What each sample adds, shape (n,).
        weights: How much each sample counts, shape (n,), not negative: 1, or its number of visible points.
        is_share: Every total lies between 0 and its weight, so that the mean is between 0 and 1.

    Examples:
        >>> WeightedMean(np.array([2.0, 4.0]), np.array([1.0, 1.0])).value
        3.0
    """

    totals: NDArray[np.float64]
    weights: NDArray[np.float64]
    is_share: bool = False

    @property
    def value(self) -> float:
        """The mean; not a number where nothing counts."""
        weight = self.weights.sum()
        return float(self.totals.sum() / weight) if weight > 0 else float("nan")


def means_with_intervals(
    means: Mapping[str, WeightedMean], units: NDArray[np.int64], *, seed: int = 0, num_resamples: int = 2000
) -> dict[str, Score]:
    """Give each mean with its 95 % interval; without one where the samples that count are of one unit.

    Args:
        means: By name; each over the same n samples, of which at least one counts.
        units: What belongs together, numbered from 0 (``intervals.number_units``), shape (n,).
        seed: Of the resampling.
        num_resamples: 2,000 leave an error of about 3 % of the interval's width.

    Examples:
        >>> means = {"error": WeightedMean(np.array([1.0, 2.0, 3.0]), np.ones(3))}
        >>> score = means_with_intervals(means, np.arange(3))["error"]
        >>> score.value, 1.0 <= score.low < 2.0 < score.high <= 3.0
        (2.0, True)
    """
    sums = np.stack([_sums_by_unit(mean, units) for mean in means.values()])
    resampled = _resampled_means(sums, seed=seed, num_resamples=num_resamples)
    return {name: _widened(mean, resampled[number], sums[number]) for number, (name, mean) in enumerate(means.items())}


def median_with_interval(
    values: NDArray[np.float64], units: NDArray[np.int64], *, seed: int = 0, num_resamples: int = 2000
) -> Score:
    """Give the median of the samples' values with its 95 % interval; without one where they are of one unit.

    Args:
        values: Shape (n,), n > 0.
        units: As in ``means_with_intervals``.
        seed: Of the resampling.
        num_resamples: As there.

    Examples:
        >>> median_with_interval(np.array([1.0, 2.0, 9.0]), np.arange(3)).value
        2.0
    """
    num_units, median = int(units.max()) + 1, float(np.median(values))
    if num_units < 2:
        return Score.alone(median)
    order = np.argsort(values, kind="stable")
    ordered, unit_of = values[order], units[order]
    at_once = max(1, MAX_WEIGHTS // max(len(values), num_units))
    chunks: list[NDArray[np.float64]] = []
    for counts in draw_units(num_units, seed=seed, num_resamples=num_resamples, at_once=at_once):
        upto = np.cumsum(counts[unit_of], axis=0)
        middles = [(upto <= rank).sum(axis=0) for rank in ((upto[-1] - 1) // 2, upto[-1] // 2)]
        chunks.append((ordered[middles[0]] + ordered[middles[1]]) / 2)
    return interval_around(median, np.concatenate(chunks), num_units)


def difference_with_interval(
    first: tuple[WeightedMean, NDArray[np.int64]],
    second: tuple[WeightedMean, NDArray[np.int64]],
    *,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Score:
    """Give the first mean minus the second with its 95 % interval; the two have no unit in common.

    Without one where a side is one unit alone.

    Args:
        first: A mean and its units.
        second: Likewise.
        seed: Of the resampling.
        num_resamples: As in ``means_with_intervals``.

    Examples:
        >>> high = (WeightedMean(np.array([5.0, 6.0, 7.0]), np.ones(3)), np.arange(3))
        >>> low = (WeightedMean(np.array([1.0, 1.5, 2.0]), np.ones(3)), np.arange(3))
        >>> gap = difference_with_interval(high, low)
        >>> gap.value, gap.low > 0
        (4.5, True)
    """
    value, fewest = first[0].value - second[0].value, min(int(units.max()) + 1 for _, units in (first, second))
    if fewest < 2:
        return Score.alone(value)
    drawn = [
        _resampled_means(_sums_by_unit(*side)[None], seed=seed + number, num_resamples=num_resamples)[0]
        for number, side in enumerate((first, second))
    ]
    return interval_around(value, drawn[0] - drawn[1], fewest)


def _sums_by_unit(mean: WeightedMean, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum totals and weights within each unit, shape (2, units)."""
    return np.stack([np.bincount(units, values).astype(np.float64) for values in (mean.totals, mean.weights)])


def _resampled_means(sums: NDArray[np.float64], *, seed: int, num_resamples: int) -> NDArray[np.float64]:
    """Compute means of resampled units, shape (means, resamples); not a number where no unit drawn counts."""
    num_means, _, num_units = sums.shape
    at_once = max(1, MAX_WEIGHTS // max(2 * num_means, num_units))
    chunks: list[NDArray[np.float64]] = []
    for counts in draw_units(num_units, seed=seed, num_resamples=num_resamples, at_once=at_once):
        totals, weights = sums[:, 0] @ counts, sums[:, 1] @ counts
        chunks.append(np.divide(totals, weights, out=np.full_like(totals, np.nan), where=weights > 0))
    return np.concatenate(chunks, axis=1)


def _widened(mean: WeightedMean, resampled: NDArray[np.float64], sums: NDArray[np.float64]) -> Score:
    counts = sums[:, sums[1] > 0]
    if counts.shape[1] < 2:
        return Score.alone(mean.value)
    drawn = resampled[np.isfinite(resampled)]
    score = interval_around(mean.value, drawn if len(drawn) else np.array([mean.value]), counts.shape[1])
    low, high = _floor(mean, counts) or (score.value, score.value)
    return Score(score.value, min(score.low, low), max(score.high, high))


def _floor(mean: WeightedMean, counts: NDArray[np.float64]) -> tuple[float, float] | None:
    """Give the least interval where resampling cannot be trusted alone, else None."""
    if not mean.is_share:
        return None
    totals, weights = counts
    num_witnesses = min(len(weights), int((totals > 0).sum()), int((totals < weights).sum()))
    return wilson(mean.value, effective_number(weights)) if num_witnesses < MIN_UNITS else None
