"""Everything there is to say about a model that gives several classes at once, on one split.

A class is given where its probability reaches ``THRESHOLD``. Scores with an interval are resampled over units, as in
``intervals.py``; the mean average precision is computed anew from the weights of each resample.

References:
    Average precision as the sum of precisions at each positive, ties joined: scikit-learn, ``average_precision_score``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be
from headstart.evaluation.classification import listed
from headstart.evaluation.error_intervals import WeightedMean, means_with_intervals
from headstart.evaluation.intervals import (
    MAX_WEIGHTS,
    MIN_UNITS,
    Score,
    draw_units,
    effective_number,
    interval_around,
    number_units,
    wilson,
)
from headstart.evaluation.several_labels import share_with_interval
from headstart.models.label_outputs import THRESHOLD

MULTI_SCORES: Final = ("mean_average_precision", "macro_f1", "micro_f1", "exact", "log_loss")
"""The headline scores, in the order in which they are shown."""

_MAX_WORK: Final = 2e8  # sorted places looked at while resampling average precisions: seconds
_MIN_RESAMPLES: Final = 200
_AT_ONCE: Final = 2**19  # weights held at once: what a core's cache holds


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What a model of several classes at once is worth on one split.

    Attributes:
        class_names: One a logit.
        scores: ``MULTI_SCORES``, each with its interval.
        per_class: One row per class: ``class_name, support, predicted, precision, recall, f1, average_precision`` and
            ``recall_low, recall_high``; null where undefined.
        temperature: What logits were divided by.
        num_samples: Samples scored.
        num_units: Independent units among them.
        notes: What a reader must know to read the scores rightly, a sentence each.
    """

    class_names: tuple[str, ...]
    scores: dict[str, Score]
    per_class: pl.DataFrame
    temperature: float
    num_samples: int
    num_units: int
    notes: tuple[str, ...] = ()

    def to_metrics_json(self) -> dict[str, dict[str, float | None]]:
        """Give one split's part of ``metrics.json``: score name to value, low and high."""
        return {name: one.as_json() for name, one in self.scores.items()}


def multi_label_scores(logits: ArrayLike, labels: ArrayLike, *, temperature: float = 1.0) -> dict[str, float]:
    """Give the headline scores without intervals.

    Args:
        logits: Shape (n, classes).
        labels: 0 or 1, shape (n, classes).
        temperature: What logits are divided by.

    Examples:
        >>> scores = multi_label_scores([[2.0, -1.0], [-1.0, 3.0], [1.0, -2.0]], [[1, 0], [0, 1], [0, 0]])
        >>> scores["mean_average_precision"], round(scores["macro_f1"], 3), round(scores["exact"], 3)
        (1.0, 0.833, 0.667)
    """
    table, truth = _checked(logits, labels)
    scaled = table / temperature
    counts = _counts(scaled, truth)
    per_class = average_precisions(scaled, truth)
    has_any = truth.any(axis=0)
    exact = ((scaled >= _logit(THRESHOLD)) == (truth == 1)).all(axis=1)
    return {
        "mean_average_precision": float(per_class[has_any].mean()) if has_any.any() else 0.0,
        **{name: float(values[0]) for name, values in _f1_scores(counts[..., None]).items()},
        "exact": float(exact.mean()),
        "log_loss": float(_cell_losses(scaled, truth).mean()),
    }


def average_precisions(
    logits: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Give the average precision of each class; not a number for a class without any sample.

    Args:
        logits: Shape (n, classes); any scores that rank samples.
        labels: 0 or 1, likewise.
        weights: How often each sample counts in each resample, shape (resamples, n); None: once.

    Returns:
        Shape (classes,), or (classes, resamples) with weights.

    Examples:
        >>> average_precisions(np.array([[0.9], [0.8], [0.1]]), np.array([[1], [0], [1]])).round(4).tolist()
        [0.8333]
    """
    counts = np.ones((1, len(logits))) if weights is None else weights
    found = np.stack([_average_precision(logits[:, one], labels[:, one], counts) for one in range(logits.shape[1])])
    return found[:, 0] if weights is None else found


def evaluate_multi_label(
    logits: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    *,
    units: ArrayLike | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    num_resamples: int = 2000,
) -> MultiLabelEvaluation:
    """Score a model of several classes at once on one split, each score with its 95 % interval.

    Args:
        logits: Shape (n, classes), not yet divided by the temperature.
        labels: 0 or 1, shape (n, classes).
        class_names: One per class.
        units: What belongs together, shape (n,); None: every sample for itself.
        temperature: Fitted on validation by ``calibration.fit_presence_temperature``.
        seed: Of the resampling.
        num_resamples: Of each score; the mean average precision takes fewer of a large set.
    """
    table, truth = _checked(logits, labels)
    scaled, numbers = table / temperature, number_units(units, len(truth))
    values = multi_label_scores(scaled, truth)
    scores = _intervals(scaled, truth, numbers, values, seed=seed, num_resamples=num_resamples)
    absent = [name for name, count in zip(class_names, truth.sum(axis=0), strict=True) if not count]
    remark = "mean average precision and macro F1 are means over the others"
    notes = [f"No sample of this split has {listed(absent)}: {remark}."] if absent else []
    num_units = int(numbers.max()) + 1
    if num_units == 1:
        notes.append("All samples belong to one group: the intervals say little about other groups.")
    per_class = _per_class(scaled, truth, numbers, class_names)
    return MultiLabelEvaluation(tuple(class_names), scores, per_class, temperature, len(truth), num_units, tuple(notes))


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    table, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if table.ndim != 2 or truth.shape != table.shape or not table.size:
        raise HeadstartError(must_be("labels", f"0 or 1 for each logit, shape {table.shape}", truth.shape))
    if not np.isfinite(table).all():
        raise HeadstartError(must_be("logits", "numbers", "not a number", "Training has diverged: lower --lr."))
    return table, truth


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _cell_losses(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the binary cross-entropy of each cell, from logits: no probability rounds to 0."""
    return np.logaddexp(0.0, logits) - labels * logits


def _counts(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Count hits, predictions and samples of each class, shape (3, classes)."""
    given = logits >= _logit(THRESHOLD)
    return np.stack([(given & (labels == 1)).sum(axis=0), given.sum(axis=0), labels.sum(axis=0)]).astype(np.float64)


def _f1_scores(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Give macro F1 (over classes with samples) and micro F1 from counts, shape (3, classes, resamples)."""
    hits, predicted, support = counts
    both = predicted + support
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    is_present = support > 0
    whole = both.sum(axis=0)
    micro = np.divide(2 * hits.sum(axis=0), whole, out=np.zeros_like(whole), where=whole > 0)
    return {"macro_f1": (f1 * is_present).sum(axis=0) / is_present.sum(axis=0).clip(1), "micro_f1": micro}


def _average_precision(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Give one class's average precision in each resample; samples of equal score are taken together.

    Only the places where a sample of the class stands matter: what lies between them is summed in one pass.
    """
    if not labels.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    ordered, hits = -scores[order], np.flatnonzero(labels[order])
    ends, first = np.unique(np.searchsorted(ordered, ordered[hits], side="right"), return_index=True)
    starts = np.concatenate([[0], ends[:-1]])
    upto = np.add.reduceat(weights[:, order[: ends[-1]]], starts, axis=1, dtype=np.float64).cumsum(axis=1)
    gained = np.add.reduceat(weights[:, order[hits]], first, axis=1, dtype=np.float64)
    found = gained.cumsum(axis=1)
    precision = np.divide(found, upto, out=np.zeros_like(upto), where=upto > 0)
    total = found[:, -1]
    return np.divide((gained * precision).sum(axis=1), total, out=np.full_like(total, np.nan), where=total > 0)


def _intervals(
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    units: NDArray[np.int64],
    values: dict[str, float],
    *,
    seed: int,
    num_resamples: int,
) -> dict[str, Score]:
    num_units = int(units.max()) + 1
    drawn = _resampled_f1(logits, labels, units, seed=seed, num_resamples=num_resamples)
    drawn["mean_average_precision"] = _resampled_precision(
        logits, labels, units, seed=seed, num_resamples=num_resamples
    )
    scores = {name: interval_around(values[name], found, num_units) for name, found in drawn.items()}
    is_exact = ((logits >= _logit(THRESHOLD)) == (labels == 1)).all(axis=1)
    witnesses = min(num_units, len(np.unique(units[is_exact])), len(np.unique(units[~is_exact])))
    if witnesses < MIN_UNITS:  # resamples cannot show what was not seen
        number = effective_number(np.bincount(units).astype(np.float64))
        for name, score in scores.items():
            low, high = wilson(score.value, number)
            scores[name] = Score(score.value, min(low, score.low), max(high, score.high))
    scores["exact"] = share_with_interval(is_exact, units, seed=seed)
    losses = WeightedMean(_cell_losses(logits, labels).mean(axis=1), np.ones(len(labels)))
    scores |= means_with_intervals({"log_loss": losses}, units, seed=seed, num_resamples=num_resamples)
    return {name: scores[name] for name in MULTI_SCORES}


def _resampled_f1(
    logits: NDArray[np.float64], labels: NDArray[np.int64], units: NDArray[np.int64], *, seed: int, num_resamples: int
) -> dict[str, NDArray[np.float64]]:
    """Compute macro and micro F1 of resampled units, from sums within each unit."""
    num_units, num_classes = int(units.max()) + 1, labels.shape[1]
    given = logits >= _logit(THRESHOLD)
    parts = (given & (labels == 1), given, labels == 1)
    sums = np.zeros((3, num_classes, num_units))
    for place, part in enumerate(parts):
        rows, classes = np.nonzero(part)
        np.add.at(sums[place], (classes, units[rows]), 1.0)
    at_once = max(1, MAX_WEIGHTS // max(3 * num_classes, num_units))
    chunks = [
        _f1_scores(sums @ counts)
        for counts in draw_units(num_units, seed=seed, num_resamples=num_resamples, at_once=at_once)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in ("macro_f1", "micro_f1")}


def _resampled_precision(
    logits: NDArray[np.float64], labels: NDArray[np.int64], units: NDArray[np.int64], *, seed: int, num_resamples: int
) -> NDArray[np.float64]:
    """Compute the mean average precision of resampled units; of a large set fewer times."""
    num_samples, num_classes = labels.shape
    affordable = int(_MAX_WORK / (num_samples * num_classes))
    count = min(num_resamples, max(_MIN_RESAMPLES, affordable))
    at_once = max(1, _AT_ONCE // num_samples)
    chunks: list[NDArray[np.float64]] = []
    for counts in draw_units(int(units.max()) + 1, seed=seed, num_resamples=count, at_once=at_once):
        found = average_precisions(logits, labels, np.ascontiguousarray(counts[units].T, dtype=np.float32))
        is_there = np.isfinite(found)
        chunks.append(np.where(is_there, found, 0.0).sum(axis=0) / is_there.sum(axis=0).clip(1))
    return np.concatenate(chunks)


def _per_class(
    logits: NDArray[np.float64], labels: NDArray[np.int64], units: NDArray[np.int64], class_names: Sequence[str]
) -> pl.DataFrame:
    hits, predicted, support = _counts(logits, labels)
    with np.errstate(invalid="ignore"):
        ratios = {"precision": hits / predicted, "recall": hits / support, "f1": 2 * hits / (predicted + support)}
    ratios["average_precision"] = average_precisions(logits, labels)
    ends = [
        wilson(recall, effective_number(np.bincount(units[labels[:, place] == 1]).astype(np.float64)))
        if support[place]
        else (None, None)
        for place, recall in enumerate(ratios["recall"].tolist())
    ]
    low, high = (pl.Series(name, [end[side] for end in ends], pl.Float64) for side, name in enumerate(("low", "high")))
    columns = {
        "class_name": pl.Series(list(class_names), dtype=pl.String),
        "support": support.astype(np.int64),
        "predicted": predicted.astype(np.int64),
    }
    frame = pl.DataFrame(columns | ratios).with_columns(pl.col(*ratios).fill_nan(None))
    return frame.with_columns(recall_low=low, recall_high=high)
