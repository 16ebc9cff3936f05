"""Several models that answer as one: soft voting, the weights of the votes, and what is gained over a single member.

Calibrated probabilities are averaged (points are, too): what one member does not know for sure, the others outvote, and
what all share stays. Weights are equal, or fitted on samples that no member learned from.

References:
    Kuncheva: "Combining Pattern Classifiers", 2nd edition, Wiley 2014: soft voting, section 5.1.
    Krogh and Vedelsby: "Neural Network Ensembles, Cross Validation, and Active Learning", NIPS 1994: why a convex
    combination cannot be worse than the weighted mean of its members, and is better by how much they disagree.
    Zou and Donner: "Construction of confidence limits about effect measures: a general approach", Statistics in
    Medicine 27, 2008: limits of a difference from those of its parts.
    Tango: "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17, 1998.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, all_at_once, must_be
from headstart.evaluation.error_intervals import WeightedMean, means_with_intervals
from headstart.evaluation.intervals import MIN_UNITS, Score, effective_number, number_units, wilson
from headstart.evaluation.metrics import MIN_PROBABILITY, checked_predictions

Weighting = Literal["equal", "fitted"]

NEGLIGIBLE_WEIGHT: Final = 1e-3
"""A fitted weight below this is 0: that member answers for nothing and need not run."""


_TINY: Final = 1e-30
"""Votes are raised to this before the logarithm: no answer is infinitely unlikely."""


def check_same_names(members: Mapping[str, Sequence[str]], *, what: str = "classes") -> None:
    """Refuse members that answer in other classes (or points) than the first.

    Args:
        members: Each one's names, by what it is called.
        what: What is named.

    Raises:
        HeadstartError: Names differ; each member's missing and further ones are listed.

    Examples:
        >>> check_same_names({"a": ["cat", "dog"], "b": ["dog", "cat"]})
    """
    first, *others = members.items()
    problems: list[str] = []
    for member, names in others:
        lacking = [name for name in first[1] if name not in set(names)]
        further = [name for name in names if name not in set(first[1])]
        if lacking or further:
            parts = [("it lacks", lacking), ("it alone has", further)]
            got = "; ".join(f"{words} {', '.join(map(repr, some))}" for words, some in parts if some)
            problems.append(must_be(member, f"a model of the same {what} as {first[0]}", got, "Leave it out."))
    if problems:
        raise HeadstartError(all_at_once(problems))


def vote(answers: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Give the weighted mean of what members say.

    Args:
        answers: Calibrated probabilities, shape (members, n, classes), or points, shape (members, n, points, 2).
        weights: Shape (members,), not negative, summing to 1.

    Examples:
        >>> vote([[[0.8, 0.2]], [[0.4, 0.6]]], [0.5, 0.5]).round(2).tolist()
        [[0.6, 0.4]]
    """
    shares = np.asarray(weights, np.float64)
    if (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise HeadstartError(must_be("weights", "not negative, with the sum 1", shares.tolist()))
    return np.tensordot(shares, np.asarray(answers, np.float64), axes=1)


def vote_logits(voted: ArrayLike, *, is_presence: bool = False) -> NDArray[np.float64]:
    """Give logits whose softmax, or sigmoid, is what was voted.

    Args:
        voted: Probabilities.
        is_presence: Whether each stands for itself (a sigmoid): of several classes at once.

    Examples:
        >>> vote_logits([[1.0, 0.0]]).round().tolist(), vote_logits([0.5], is_presence=True).tolist()
        ([[0.0, -69.0]], [0.0])
    """
    probabilities = np.asarray(voted, np.float64)
    if not is_presence:
        return np.log(probabilities.clip(_TINY))
    probabilities = probabilities.clip(_TINY, 1 - MIN_PROBABILITY)
    return np.log(probabilities) - np.log1p(-probabilities)


def equal_weights(num_members: int) -> NDArray[np.float64]:
    """Give every member the same weight.

    Examples:
        >>> equal_weights(4).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return np.full(num_members, 1 / num_members)


def fit_weights(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Find the convex weights that minimise the log loss of the vote.

    The loss is convex in the weights, so the optimum found is the only one. Weights that come out negligible are 0.

    Args:
        probabilities: Calibrated, of samples that no member trained on, shape (members, n, classes).
        labels: Class numbers, shape (n,).

    Returns:
        Shape (members,), not negative, summing to 1.

    Examples:
        >>> knows = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]
        >>> guesses = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
        >>> fit_weights([knows, guesses], [0, 1, 0]).round(3).tolist()
        [1.0, 0.0]
    """
    tables = [checked_predictions(table, labels)[0] for table in np.asarray(probabilities, np.float64)]
    numbers = np.asarray(labels, np.int64)
    return fit_weights_to_truth(np.stack([table[np.arange(len(numbers)), numbers] for table in tables]))


def fit_weights_to_truth(of_truth: ArrayLike) -> NDArray[np.float64]:
    """Find the convex weights that minimise the log loss of the vote, from what members give to what is true.

    Args:
        of_truth: The probability that each member gives to the truth, shape (members, n); of several labels a photo, a
            value for each label.

    Examples:
        >>> fit_weights_to_truth([[0.9, 0.8, 0.7], [0.5, 0.5, 0.5]]).round(3).tolist()
        [1.0, 0.0]
    """
    from scipy.optimize import minimize

    said = np.asarray(of_truth, np.float64).clip(MIN_PROBABILITY)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = (weights @ said).clip(MIN_PROBABILITY)
        return float(-np.log(mixed).mean()), -(said / mixed).mean(axis=1)

    total = {"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like}
    start, bounds = equal_weights(len(said)), [(0.0, 1.0)] * len(said)
    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=bounds,
        constraints=[total],
        options={"maxiter": 500, "ftol": 1e-12},
    ).x
    found = np.where(found < NEGLIGIBLE_WEIGHT, 0.0, found)
    return found / found.sum()


def gain_in_accuracy(
    probabilities: ArrayLike,
    weights: ArrayLike,
    labels: ArrayLike,
    *,
    units: ArrayLike | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Score:
    """Give by how much the vote's accuracy exceeds the mean accuracy of its members, with a 95 % interval.

    Both are measured on the same samples, and units (persons) are resampled with both in them: what makes a person hard
    for all of them does not widen the interval. Members that say the same to the last bit gain nothing for sure.

    Args:
        probabilities: Of each member, shape (members, n, classes).
        weights: Of the vote, shape (members,).
        labels: Class numbers, shape (n,).
        units: What belongs together, shape (n,); None: every sample for itself.
        seed: Of the resampling.
        num_resamples: 2,000 leave an error of about 3 % of the interval's width.

    Examples:
        >>> gain_in_accuracy([[[0.9, 0.1]], [[0.4, 0.6]]], [0.5, 0.5], [0]).value
        0.5
    """
    tables, numbers = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if (tables == tables[0]).all():
        return Score(0.0, 0.0, 0.0)
    hits = vote(tables, weights).argmax(axis=-1) == numbers
    of_members = tables.argmax(axis=-1) == numbers
    return gain_in_hits(of_members, hits, units=units, seed=seed, num_resamples=num_resamples)


def gain_in_hits(
    of_members: ArrayLike,
    of_vote: ArrayLike,
    *,
    units: ArrayLike | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Score:
    """Give by how much the vote is right more often than its members are on average, with a 95 % interval; see above.

    Where fewer than ``MIN_UNITS`` units gain by the vote, or lose by it, resamples cannot show what was not seen: they
    collapse to a point where vote and members are right on the same samples. The interval is then at least the one
    that follows from Wilson's for the share gained and for the share lost (Zou and Donner's MOVER). Where neither was
    seen that is Tango's for paired shares, z² / (n + z²) to both sides. A member alone is its own vote and gains 0.

    Args:
        of_members: Whether each member's answer to each sample is right, shape (members, n).
        of_vote: Of the vote, shape (n,).
        units: What belongs together, shape (n,).
        seed: Of the resampling.
        num_resamples: As above.

    Examples:
        >>> gain_in_hits([[True, False], [False, False]], [True, False]).value
        0.25
        >>> same = gain_in_hits(np.ones((2, 12)), np.ones(12))
        >>> same.value, round(same.low, 2), round(same.high, 2)
        (0.0, -0.24, 0.24)
    """
    members, hits = np.asarray(of_members, np.float64), np.asarray(of_vote, np.float64)
    if len(members) == 1 and (members[0] == hits).all():
        return Score(0.0, 0.0, 0.0)
    difference = hits - members.mean(axis=0)
    score = _mean_with_interval(difference, units, seed=seed, num_resamples=num_resamples)
    return _widened(score, difference, number_units(units, len(difference)))


def gain_in_error(
    errors: ArrayLike, of_vote: ArrayLike, *, units: ArrayLike | None = None, seed: int = 0, num_resamples: int = 2000
) -> Score:
    """Give by how much the vote's mean error is below the mean of its members', with a 95 % interval; see above.

    Args:
        errors: Of each member's answer to each sample (NME, say), shape (members, n).
        of_vote: Of the vote, shape (n,). Samples that are not a number are left out.
        units: What belongs together, shape (n,).
        seed: Of the resampling.
        num_resamples: As above.

    Examples:
        >>> gain_in_error([[3.0, 2.0], [5.0, 2.0]], [3.0, 1.5]).value
        0.75
    """
    difference = np.asarray(errors, np.float64).mean(axis=0) - np.asarray(of_vote, np.float64)
    is_scored = np.isfinite(difference)
    chosen = None if units is None else np.asarray(units)[is_scored]
    return _mean_with_interval(difference[is_scored], chosen, seed=seed, num_resamples=num_resamples)


def _mean_with_interval(
    values: NDArray[np.float64], units: ArrayLike | None, *, seed: int, num_resamples: int
) -> Score:
    numbers = number_units(units, len(values))
    mean = WeightedMean(values, np.ones(len(values)))
    return means_with_intervals({"": mean}, numbers, seed=seed, num_resamples=num_resamples)[""]


def _widened(score: Score, difference: NDArray[np.float64], units: NDArray[np.int64]) -> Score:
    """Widen the interval of a mean difference of shares where few units speak for gains, or for losses."""
    sizes = np.bincount(units).astype(np.float64)
    gains, losses = (np.bincount(units, side) for side in (difference.clip(min=0), -difference.clip(max=0)))
    if not score.has_interval or min(np.count_nonzero(gains), np.count_nonzero(losses)) >= MIN_UNITS:
        return score
    gained, lost = (float(side.sum() / sizes.sum()) for side in (gains, losses))
    (gained_low, gained_high), (lost_low, lost_high) = (wilson(one, effective_number(sizes)) for one in (gained, lost))
    low = score.value - math.hypot(gained - gained_low, lost_high - lost)
    high = score.value + math.hypot(gained_high - gained, lost - lost_low)
    return Score(score.value, min(score.low, max(low, -1.0)), max(score.high, min(high, 1.0)))
