"""Everything there is to say about a classifier on one split: from logits and labels to one ``Evaluation``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.evaluation.calibration import apply_temperature, calibration_bins
from headstart.evaluation.intervals import Score, number_units, score_with_intervals, wilson
from headstart.evaluation.metrics import confusion_counts, per_class_scores

UNSCALED: Final = "_unscaled"
"""Ending of the two scores that are given before temperature scaling too."""


@dataclass(frozen=True)
class Evaluation:
    """What a classifier is worth on one split.

    Attributes:
        class_names: Label i is ``class_names[i]``.
        scores: The headline scores (``metrics.SCORES``) of the probabilities that the bundle gives, and
            ``log_loss_unscaled`` and ``calibration_error_unscaled``: the same before temperature scaling.
        per_class: One row per class: ``class_name, support, predicted, precision, recall, f1`` and ``recall_low,
            recall_high`` (Wilson's interval over the units that hold the class); null where undefined.
        confusion: Samples by true class (row) and predicted class (column).
        bins: Reliability bins: ``low, high, count, confidence, accuracy``.
        bins_unscaled: The same before temperature scaling.
        temperature: What logits were divided by.
        num_samples: Samples scored.
        num_units: Independent units among them: persons, bursts; equals ``num_samples`` without groups.
        notes: What a reader must know to read the scores rightly, a sentence each.
    """

    class_names: tuple[str, ...]
    scores: dict[str, Score]
    per_class: pl.DataFrame
    confusion: NDArray[np.int64]
    bins: pl.DataFrame
    bins_unscaled: pl.DataFrame
    temperature: float
    num_samples: int
    num_units: int
    notes: tuple[str, ...] = ()

    def to_metrics_json(self) -> dict[str, dict[str, float | None]]:
        """Give one split's part of ``metrics.json``: score name to value, low and high."""
        return {name: score.as_json() for name, score in self.scores.items()}


def evaluate(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_names: tuple[str, ...],
    units: ArrayLike | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Evaluation:
    """Score a classifier on one split, each score with its 95 % interval.

    Args:
        logits: Shape (n, classes), not yet divided by the temperature. Where only probabilities are at hand, their
            logarithms serve, with temperature 1.
        labels: Class numbers, shape (n,).
        class_names: One per column of ``logits``.
        units: What belongs together (persons, bursts, copies), shape (n,); None: every sample for itself.
        temperature: Fitted on validation by ``calibration.fit_temperature``.
        seed: Of the resampling.
        num_resamples: Of each score.

    Returns:
        The evaluation.

    Raises:
        HeadstartError: There is no sample, shapes do not fit, or a value is not a number.

    Examples:
        >>> result = evaluate([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]], [0, 1, 1], class_names=("cat", "dog"))
        >>> result.confusion.tolist(), round(result.to_metrics_json()["accuracy"]["value"], 3)
        ([[1, 0], [1, 1]], 0.667)
    """
    probabilities, unscaled = apply_temperature(logits, temperature), apply_temperature(logits)
    numbers = np.asarray(labels)
    per_class = per_class_scores(probabilities, numbers, class_names)
    unit_numbers = number_units(units, len(numbers))
    scores = score_with_intervals(probabilities, numbers, units=unit_numbers, seed=seed, num_resamples=num_resamples)
    before = scores
    if temperature != 1.0:
        before = score_with_intervals(unscaled, numbers, units=unit_numbers, seed=seed, num_resamples=num_resamples)
    scores |= {f"{name}{UNSCALED}": before[name] for name in ("log_loss", "calibration_error")}
    num_units = int(unit_numbers.max()) + 1
    return Evaluation(
        class_names=class_names,
        scores=scores,
        per_class=_with_recall_intervals(per_class, numbers, unit_numbers),
        confusion=confusion_counts(probabilities, numbers),
        bins=calibration_bins(probabilities, numbers),
        bins_unscaled=calibration_bins(unscaled, numbers),
        temperature=temperature,
        num_samples=len(numbers),
        num_units=num_units,
        notes=_notes(per_class, num_units),
    )


def most_confident_mistakes(probabilities: ArrayLike, labels: ArrayLike, *, limit: int = 12) -> NDArray[np.int64]:
    """Give the positions of wrong answers, the surest first: what to look at before anything else.

    Examples:
        >>> most_confident_mistakes([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], [1, 1, 1]).tolist()
        [1, 0]
    """
    table, numbers = np.asarray(probabilities), np.asarray(labels)
    wrong = np.flatnonzero(table.argmax(axis=1) != numbers)
    surest_first = np.argsort(-table[wrong].max(axis=1), kind="stable")
    return wrong[surest_first][:limit]


def most_confused_pairs(evaluation: Evaluation, *, limit: int = 20) -> pl.DataFrame:
    """Give the pairs of classes that are mixed up most often.

    Returns:
        ``true, predicted`` (class names), ``count``, ``share`` (of the true class's samples), the most frequent first.

    Examples:
        >>> result = evaluate([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]], [0, 1, 1], class_names=("cat", "dog"))
        >>> most_confused_pairs(result).row(0)
        ('dog', 'cat', 1, 0.5)
    """
    mistakes = evaluation.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    true, predicted = np.nonzero(mistakes)
    count = mistakes[true, predicted]
    order = np.argsort(-count, kind="stable")[:limit]
    names = pl.Series(evaluation.class_names, dtype=pl.String)
    columns = {"true": names[true[order]], "predicted": names[predicted[order]], "count": count[order]}
    return pl.DataFrame(columns | {"share": count[order] / evaluation.confusion.sum(axis=1)[true[order]]})


def _with_recall_intervals(
    per_class: pl.DataFrame, labels: NDArray[np.integer], units: NDArray[np.int64]
) -> pl.DataFrame:
    cells = pl.DataFrame({"label": labels, "unit": units}).group_by("label", "unit").len()
    size = pl.col("len").cast(pl.Float64)
    effective = cells.group_by("label").agg(num_units=size.sum() ** 2 / (size**2).sum())
    units_of_label = dict(effective.iter_rows())
    ends = [
        (None, None) if recall is None else wilson(recall, units_of_label[label])
        for label, recall in enumerate(per_class["recall"])
    ]
    low, high = (pl.Series(name, [end[side] for end in ends], pl.Float64) for side, name in enumerate(("low", "high")))
    return per_class.with_columns(recall_low=low, recall_high=high)


def _notes(per_class: pl.DataFrame, num_units: int) -> tuple[str, ...]:
    notes: list[str] = []
    absent = per_class.filter(pl.col("support") == 0)["class_name"].to_list()
    if absent:
        counted = f"{len(absent)} of {per_class.height} classes have no sample"
        remark = "Balanced accuracy and macro F1 are means over the others."
        notes.append(f"{counted} in this split: {listed(absent)}. {remark}")
    if num_units == 1:
        notes.append("All samples belong to one group: the intervals say little about other groups.")
    return tuple(notes)


def listed(names: Sequence[str], *, limit: int = 8) -> str:
    """Name the first few and count the rest.

    Examples:
        >>> listed(["cat", "dog"]), listed(["cat", "dog", "bird"], limit=2)
        ('cat, dog', 'cat, dog and 1 more')
    """
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
