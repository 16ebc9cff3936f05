"""The standard scores of a classifier, from probabilities and labels.

Standard metrics are scikit-learn's. A class that has no sample in the split has no recall: macro scores (balanced
accuracy, macro F1) are means over the classes that are present, and ``Evaluation.notes`` names the others.
``intervals.py`` adds the intervals, ``calibration.py`` holds what concerns the probabilities themselves.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, all_at_once, must_be
from headstart.evaluation.calibration import calibration_error

SCORES: Final = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
"""The headline scores, in the order in which they are shown. The first three are better high, the others low."""

MIN_PROBABILITY: Final = float(np.finfo(np.float64).eps)
"""Probabilities are raised to this before the logarithm (as scikit-learn does), so that no log loss is infinite."""

_SUM_TOLERANCE: Final = 1e-3  # half-precision networks miss 1 by up to about 5e-4


def classification_scores(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Give the headline scores of one split.

    Args:
        probabilities: Shape (n, classes); rows sum to 1.
        labels: Class numbers, shape (n,).

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``log_loss`` (nats a sample) and ``calibration_error``.

    Raises:
        HeadstartError: There is no sample, shapes do not fit, or a value is not a probability or a class number.

    Examples:
        >>> scores = classification_scores([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], [0, 1, 1])
        >>> round(scores["accuracy"], 3), scores["balanced_accuracy"]
        (0.667, 0.75)
    """
    from sklearn.metrics import accuracy_score

    probabilities, labels = checked_predictions(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    by_class = _precision_recall_f1(predicted, labels, probabilities.shape[1])
    is_present = np.bincount(labels, minlength=probabilities.shape[1]) > 0
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(by_class["recall"][is_present].mean()),
        "macro_f1": float(by_class["f1"][is_present].mean()),
        "log_loss": float(sample_losses(probabilities, labels).mean()),
        "calibration_error": calibration_error(probabilities, labels),
    }


def sample_losses(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give each sample's log loss: the negative logarithm of the probability of its true class.

    Examples:
        >>> sample_losses(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1])).round(3).tolist()
        [0.0, 0.693]
    """
    of_true_class = probabilities[np.arange(len(labels)), labels]
    return -np.log(of_true_class.clip(MIN_PROBABILITY, 1.0)) + 0.0  # + 0.0 turns -0.0 into 0.0


def confusion_counts(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Count samples by true class (row) and predicted class (column).

    Examples:
        >>> confusion_counts([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], [0, 1, 1]).tolist()
        [[1, 0], [1, 1]]
    """
    from sklearn.metrics import confusion_matrix

    probabilities, labels = checked_predictions(probabilities, labels)
    classes = np.arange(probabilities.shape[1])
    return confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes).astype(np.int64)


def per_class_scores(probabilities: ArrayLike, labels: ArrayLike, class_names: tuple[str, ...]) -> pl.DataFrame:
    """Give precision, recall and F1 of every class.

    Args:
        probabilities: Shape (n, classes).
        labels: Class numbers, shape (n,).
        class_names: One name per column of ``probabilities``.

    Returns:
        One row per class: ``class_name, support`` (samples of the class), ``predicted`` (samples said to be of it),
        ``precision, recall, f1``. Null where there is nothing to divide by: recall of a class without samples,
        precision of a class that is never predicted.

    Examples:
        >>> per_class_scores([[0.8, 0.2], [0.6, 0.4]], [0, 1], ("cat", "dog"))["precision"].to_list()
        [0.5, None]
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    if len(class_names) != probabilities.shape[1]:
        expected = f"{probabilities.shape[1]} names, one per column of the probabilities"
        raise HeadstartError(must_be("class_names", expected, len(class_names), "Pass the bundle's class names."))
    predicted = probabilities.argmax(axis=1)
    ratios = _precision_recall_f1(predicted, labels, len(class_names))
    columns = {
        "class_name": pl.Series(class_names, dtype=pl.String),
        "support": np.bincount(labels, minlength=len(class_names)),
        "predicted": np.bincount(predicted, minlength=len(class_names)),
    }
    return pl.DataFrame(columns | ratios).with_columns(pl.col(*ratios).fill_nan(None))


def _precision_recall_f1(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> dict[str, NDArray[np.float64]]:
    """Give the three ratios of every class; not a number where there is nothing to divide by."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(
        labels,
        predicted,
        labels=np.arange(num_classes),
        zero_division=np.nan,  # pyright: ignore[reportArgumentType] - its stubs know the text "warn" only
    )
    return {name: np.asarray(one, np.float64) for name, one in zip(("precision", "recall", "f1"), found, strict=False)}


def checked_predictions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check probabilities and labels at the boundary and give them as float64 and int64.

    Raises:
        HeadstartError: With every problem found.

    Examples:
        >>> checked_predictions([[0.5, 0.6]], [0])
        Traceback (most recent call last):
        headstart.errors.HeadstartError: probabilities row 0 must be a row that sums to 1; got 1.1. Apply softmax first.
    """
    table, numbers = np.asarray(probabilities, np.float64), np.asarray(labels)
    problems = _shape_problems(table, numbers) or _value_problems(table, numbers)
    if problems:
        raise HeadstartError(all_at_once(problems))
    return table, numbers.astype(np.int64)


def _shape_problems(probabilities: NDArray[np.float64], labels: NDArray[np.generic]) -> list[str]:
    if probabilities.ndim != 2 or probabilities.shape[1] == 0:
        return [must_be("probabilities", "of shape (samples, classes)", probabilities.shape)]
    if labels.shape != probabilities.shape[:1]:
        expected = f"of shape ({len(probabilities)},), one per row of the probabilities"
        return [must_be("labels", expected, labels.shape)]
    if len(labels) == 0:
        return [must_be("labels", "of at least one sample", 0, "A split without samples has no score.")]
    if not np.issubdtype(labels.dtype, np.integer):
        return [must_be("labels", "whole numbers", str(labels.dtype), "Samples without a label cannot be scored.")]
    return []


def _value_problems(probabilities: NDArray[np.float64], labels: NDArray[np.generic]) -> list[str]:
    problems: list[str] = []
    num_classes = probabilities.shape[1]
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))  # type: ignore[operator]
    if len(outside):
        value = labels[outside[0]].item()
        problems.append(must_be(f"labels[{outside[0]}]", f"from 0 to {num_classes - 1}", value))
    bad = np.flatnonzero(~np.isfinite(probabilities).all(axis=1) | (probabilities < 0).any(axis=1))
    if len(bad):
        row = probabilities[bad[0]].tolist()
        problems.append(must_be(f"probabilities row {bad[0]}", "finite and not negative", row[:8]))
        return problems
    sums = probabilities.sum(axis=1)
    off = np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE)
    if len(off):
        total = round(float(sums[off[0]]), 4)
        problems.append(must_be(f"probabilities row {off[0]}", "a row that sums to 1", total, "Apply softmax first."))
    return problems
