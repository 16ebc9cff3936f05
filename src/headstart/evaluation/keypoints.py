"""Everything there is to say about predicted points on one split: from answers to one ``KeypointEvaluation``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be
from headstart.evaluation.classification import listed
from headstart.evaluation.error_intervals import (
    WeightedMean,
    difference_with_interval,
    means_with_intervals,
    median_with_interval,
)
from headstart.evaluation.intervals import Score, describe_basis, number_units
from headstart.evaluation.keypoint_metrics import KeypointAnswers, PointErrors, mean_over_points, measure_errors
from headstart.wording import counted

KEYPOINT_SCORES: Final = (
    "nme", "nme_median", "auc_8", "auc_10", "failure_8", "failure_10", "mae", "mse", "error_pixels",
)  # fmt: skip
"""The scores, in the order in which they are shown. The areas (``auc``) are better high, the others low."""

LIMITS: Final = (8, 10)
"""NME in percent at which a face counts as failed, and up to which the area under the curve is taken."""

CURVE_END: Final = 20.0
"""Percent NME to which the cumulative error curve reaches."""


@dataclass(frozen=True)
class KeypointEvaluation:
    """What predicted points are worth on one split.

    Attributes:
        scores: ``KEYPOINT_SCORES``, each with its 95 % interval (with none where there is one unit alone): ``nme``
            (percent: mean over samples of the mean over visible points of distance / normaliser), ``nme_median``,
            ``auc_8`` and ``auc_10`` (0 to 1), ``failure_8`` and ``failure_10`` (share of samples above), ``mae`` and
            ``mse`` (shares of the model's frame, over all visible coordinates), ``error_pixels`` (as ``nme``, in pixels
            of the original).
        per_point: One row per point: ``number, name, nme`` (null where it is visible in no sample), ``nme_low,
            nme_high`` (null where there is no interval) and ``visible`` (share of scored samples).
        per_group: One row per group, the worst first: ``group, num_samples, nme, worst_sample`` (position in the
            arrays) and ``worst_nme``. Empty without groups.
        sample_errors: NME of each sample in percent, shape (n,); not a number where it is left out.
        curve: Cumulative error curve: ``threshold`` (percent NME) and ``share`` of samples at or below it.
        divided_by: Words for what errors are divided by.
        num_samples: Samples scored.
        num_units: Independent units among them.
        notes: What a reader must know to read the scores rightly, a sentence each.
    """

    scores: dict[str, Score]
    per_point: pl.DataFrame
    per_group: pl.DataFrame
    sample_errors: NDArray[np.float64]
    curve: pl.DataFrame
    divided_by: str
    num_samples: int
    num_units: int
    notes: tuple[str, ...] = ()

    @property
    def basis(self) -> str:
        """Words for what intervals are over."""
        return describe_basis(self.num_samples, self.num_units, noun="sample")

    def to_metrics_json(self) -> dict[str, dict[str, float | None]]:
        """Give one split's part of ``metrics.json``: score name to value, low and high."""
        return {name: score.as_json() for name, score in self.scores.items()}


@dataclass(frozen=True)
class SeenAgainstUnseen:
    """The NME of groups that training has seen beside that of new ones.

    Attributes:
        seen: NME in percent of samples whose group has samples in training; None where there is none.
        unseen: The same of samples whose group has none there; None where there is none.
        gap: ``unseen - seen``, with the interval of the difference; None where one of them is.
        num_seen: Samples behind ``seen``.
        num_unseen: Samples behind ``unseen``.
        num_seen_groups: Groups behind ``seen``.
        num_unseen_groups: Groups behind ``unseen``.
    """

    seen: Score | None
    unseen: Score | None
    gap: Score | None
    num_seen: int
    num_unseen: int
    num_seen_groups: int
    num_unseen_groups: int


def evaluate_keypoints(
    answers: KeypointAnswers,
    *,
    names: Sequence[str],
    units: ArrayLike | None = None,
    groups: Sequence[str | None] | None = None,
    divided_by: str = "the normaliser",
    seed: int = 0,
    num_resamples: int = 2000,
) -> KeypointEvaluation:
    """Score predicted points on one split, each score with its 95 % interval.

    Args:
        answers: True and predicted points. Samples without a visible point or a positive normaliser are left out and
            counted in a note.
        names: One per point.
        units: What belongs together (persons, bursts, copies), shape (n,); None: every sample for itself.
        groups: Whose picture it is, shape (n,), for the table of groups; None where not known.
        divided_by: What the normaliser is: ``keypoint_metrics.describe_normaliser``.
        seed: Of the resampling.
        num_resamples: Of each score.

    Raises:
        HeadstartError: As ``measure_errors``, or names, units or groups do not fit.

    Examples:
        >>> answers = KeypointAnswers([[[3, 4]]], [[[0, 0]]], [[True]], [50], [[[0.3, 0.4]]], [[[0, 0]]])
        >>> result = evaluate_keypoints(answers, names=["nose"], groups=["Kim"])
        >>> result.scores["nme"].value, result.scores["failure_8"].value, result.per_group["group"].to_list()
        (10.0, 1.0, ['Kim'])
    """
    errors = measure_errors(answers)
    num_samples, num_keypoints = errors.counts.shape
    if len(names) != num_keypoints:
        raise HeadstartError(must_be("names", f"{num_keypoints} names, one per point", len(names)))
    if groups is not None and len(groups) != num_samples:
        raise HeadstartError(must_be("groups", f"{num_samples} names, one per sample", len(groups)))
    scored = errors.is_scored
    unit_numbers = number_units(number_units(units, num_samples)[scored], int(scored.sum()))
    sample_errors = mean_over_points(errors.normalised, errors.counts)
    num_units = int(unit_numbers.max()) + 1
    resampling = {"seed": seed, "num_resamples": num_resamples}
    scores = means_with_intervals(_means(errors, sample_errors), unit_numbers, **resampling)
    scores["nme_median"] = median_with_interval(sample_errors[scored], unit_numbers, **resampling)
    return KeypointEvaluation(
        scores={name: scores[name] for name in KEYPOINT_SCORES},
        per_point=_per_point(errors, names, unit_numbers, **resampling),
        per_group=_per_group(sample_errors, groups),
        sample_errors=sample_errors,
        curve=cumulative_curve(sample_errors),
        divided_by=divided_by,
        num_samples=int(scored.sum()),
        num_units=num_units,
        notes=_notes(errors, names, num_units),
    )


def cumulative_curve(sample_errors: ArrayLike, *, end: float = CURVE_END) -> pl.DataFrame:
    """Give the share of samples whose NME is at most a threshold: ``threshold, share``, in 200 steps from 0.

    Examples:
        >>> cumulative_curve([1.0, 3.0])["share"].to_list()[::50]
        [0.0, 1.0, 1.0, 1.0, 1.0]
    """
    errors = np.asarray(sample_errors, np.float64)
    ordered = np.sort(errors[np.isfinite(errors)])
    thresholds = np.linspace(0, end, 201).round(10)
    shares = np.searchsorted(ordered, thresholds, side="right") / max(len(ordered), 1)
    return pl.DataFrame({"threshold": thresholds, "share": shares})


def seen_against_unseen(
    sample_errors: ArrayLike,
    groups: Sequence[str | None],
    training_groups: set[str],
    *,
    units: ArrayLike | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> SeenAgainstUnseen:
    """Compare the NME of groups that training has seen with that of new ones.

    Args:
        sample_errors: NME in percent, shape (n,); those that are not numbers are left out.
        groups: Whose picture it is, shape (n,); samples without a group are left out.
        training_groups: Groups that have samples in training.
        units: What is resampled, shape (n,), as in ``evaluate_keypoints``: the same samples then have the same
            interval. None: the groups.
        seed: Of the resampling.
        num_resamples: Of each interval.

    Examples:
        >>> found = seen_against_unseen([1.0, 1.0, 4.0, 2.0], ["a", "b", "c", "d"], {"a", "b"})
        >>> found.seen.value, found.unseen.value, found.gap.value
        (1.0, 3.0, 2.0)
        >>> seen_against_unseen([1.0], ["a"], {"a"}).unseen is None
        True
    """
    errors = np.asarray(sample_errors, np.float64)
    if errors.shape != (len(groups),):
        raise HeadstartError(must_be("groups", f"of {errors.size} names, one per sample", len(groups)))
    is_known = np.array([group is not None for group in groups], bool) & np.isfinite(errors)
    is_seen = np.array([group in training_groups for group in groups], bool)
    names = np.array([group or "" for group in groups], dtype=str)
    numbers = number_units(names if units is None else units, len(groups))
    chosen = [is_known & is_seen, is_known & ~is_seen]
    sides = [_side(errors[side], numbers[side]) for side in chosen]
    resampling = {"seed": seed, "num_resamples": num_resamples}
    scores = [side and means_with_intervals({"nme": side[0]}, side[1], **resampling)["nme"] for side in sides]
    seen, unseen = sides
    num_samples = [int(side.sum()) for side in chosen]
    num_groups = [len(np.unique(names[side])) for side in chosen]
    gap = difference_with_interval(unseen, seen, **resampling) if seen and unseen else None
    return SeenAgainstUnseen(scores[0], scores[1], gap, *num_samples, *num_groups)


def _side(errors: NDArray[np.float64], units: NDArray[np.int64]) -> tuple[WeightedMean, NDArray[np.int64]] | None:
    if not len(errors):
        return None
    return WeightedMean(errors, np.ones(len(errors))), number_units(units, len(units))


def _means(errors: PointErrors, sample_errors: NDArray[np.float64]) -> dict[str, WeightedMean]:
    """Put every score that is a mean as one, over the samples that are scored."""
    scored = errors.is_scored
    nme, counts = sample_errors[scored], errors.counts[scored]
    ones, num_coordinates = np.ones(len(nme)), 2.0 * counts.sum(axis=1)
    means = {
        "nme": WeightedMean(nme, ones),
        "mae": WeightedMean(errors.absolute[scored].sum(axis=1), num_coordinates),
        "mse": WeightedMean(errors.squared[scored].sum(axis=1), num_coordinates),
        "error_pixels": WeightedMean(mean_over_points(errors.pixels[scored], counts), ones),
    }
    for limit in LIMITS:
        # A sample with error e adds to the curve from e on: the area up to the limit is the mean of what is left of it.
        means[f"auc_{limit}"] = WeightedMean((1 - nme / limit).clip(0, 1), ones, is_share=True)
        means[f"failure_{limit}"] = WeightedMean((nme > limit).astype(np.float64), ones, is_share=True)
    return means


def _per_point(
    errors: PointErrors, names: Sequence[str], units: NDArray[np.int64], *, seed: int, num_resamples: int
) -> pl.DataFrame:
    scored = errors.is_scored
    counts, normalised = errors.counts[scored], errors.normalised[scored]
    means = {
        str(number): WeightedMean(normalised[:, number], counts[:, number].astype(np.float64))
        for number in np.flatnonzero(counts.any(axis=0)).tolist()
    }
    scores = means_with_intervals(means, units, seed=seed, num_resamples=num_resamples)
    columns: dict[str, Any] = {"number": range(len(names)), "name": pl.Series(list(names), dtype=pl.String)}
    for column, end in (("nme", "value"), ("nme_low", "low"), ("nme_high", "high")):
        found = [getattr(scores.get(str(number)), end, None) for number in range(len(names))]
        columns[column] = pl.Series(found, dtype=pl.Float64).fill_nan(None)
    return pl.DataFrame(columns | {"visible": counts.mean(axis=0)})


def _per_group(sample_errors: NDArray[np.float64], groups: Sequence[str | None] | None) -> pl.DataFrame:
    names = pl.Series("group", [None] * len(sample_errors) if groups is None else list(groups), dtype=pl.String)
    samples = pl.DataFrame([names, pl.Series("nme", sample_errors)]).with_row_index("position")
    scored = samples.filter(pl.col("group").is_not_null() & pl.col("nme").is_finite())
    worst = pl.col("nme").arg_max()
    table = scored.group_by("group", maintain_order=True).agg(
        num_samples=pl.len(),
        mean=pl.col("nme").mean(),
        worst_sample=pl.col("position").get(worst),
        worst_nme=pl.col("nme").max(),
    )
    return table.rename({"mean": "nme"}).sort(["nme", "group"], descending=[True, False])


def _notes(errors: PointErrors, names: Sequence[str], num_units: int) -> tuple[str, ...]:
    notes: list[str] = []
    num_hidden = int((~errors.has_visible).sum())
    num_undefined = int((errors.has_visible & ~errors.has_normaliser).sum())
    if num_hidden or num_undefined:
        reasons = [f"{num_hidden:,} without a visible point"] if num_hidden else []
        reasons += [f"{num_undefined:,} without a length to divide errors by"] if num_undefined else []
        total = counted(num_hidden + num_undefined, "sample is", "samples are")
        notes.append(f"{total} left out of the scores: {', '.join(reasons)}.")
    unseen = [names[number] for number in np.flatnonzero(~errors.counts.any(axis=0)).tolist()]
    if unseen:
        are = f"{len(unseen)} of {len(names)} points are visible in no sample of this split"
        notes.append(f"{are}: {listed(unseen)}. Nothing says how well they are found.")
    if num_units == 1:
        notes.append("All samples scored belong to one group: nothing says how others score, so there is no interval.")
    return tuple(notes)
