"""Whether probabilities mean what they say: calibration error, reliability bins, and the temperature that mends them.

A model is calibrated where, of all answers given with 80 %, 80 % are right. One number, the temperature, divides the
logits; it is fitted on validation, ships in the bundle, and never changes which class comes first.

References:
    Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", ICML 2017 (arXiv 1706.04599):
    expected calibration error, equation 5; temperature scaling, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be

NUM_BINS: Final = 15
"""Bins of equal width, as in Guo et al.: values compare with published ones, and edges do not move in a resample."""

TEMPERATURE_BOUNDS: Final = (0.05, 20.0)
"""Where the temperature is sought. A best value on the edge means that validation does not determine it."""

MIN_SAMPLES: Final = 10
"""Fewer validation samples than this fit noise."""


@dataclass(frozen=True)
class TemperatureFit:
    """What the search for a temperature found.

    Attributes:
        temperature: Divide logits by it. 1 where none could be fitted.
        note: Why none was fitted, a sentence for the user; None where one was.
    """

    temperature: float
    note: str | None = None


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> TemperatureFit:
    """Find the temperature that minimises log loss on validation samples.

    Args:
        logits: Shape (n, classes).
        labels: Class numbers, shape (n,).

    Returns:
        The fit. The temperature is 1, with a note, where the samples do not determine one: too few, all answered
        rightly (any sharper is better), or as good as at random (any flatter is better).

    Raises:
        HeadstartError: Shapes do not fit or a logit is not a number.

    Examples:
        >>> sure = np.array([[3.0, 0.0]] * 8 + [[0.0, 3.0]] * 8)
        >>> truth = np.array([0] * 6 + [1] * 8 + [0] * 2)  # right 12 times in 16
        >>> round(fit_temperature(sure, truth).temperature, 2)
        2.73
    """
    logits, labels = _checked_logits(logits, labels)
    if len(labels) < MIN_SAMPLES:
        return TemperatureFit(1.0, f"No temperature fitted: {len(labels)} validation samples are too few.")
    if (logits.argmax(axis=1) == labels).all():
        return TemperatureFit(1.0, "No temperature fitted: every validation sample is answered rightly.")
    best = _minimise(logits, labels)
    low, high = TEMPERATURE_BOUNDS
    if not 1.02 * low < best < high / 1.02:
        return TemperatureFit(1.0, f"No temperature fitted: the best one lies outside {low} to {high:g}.")
    return TemperatureFit(best)


def fit_presence_temperature(logits: ArrayLike, labels: ArrayLike) -> TemperatureFit:
    """Find the one temperature that minimises the binary cross-entropy of several classes at once.

    Args:
        logits: Shape (n, classes).
        labels: 0 or 1, shape (n, classes).

    Examples:
        >>> sure = np.array([[3.0, -3.0]] * 8 + [[-3.0, 3.0]] * 8)
        >>> truth = np.array([[1, 0]] * 6 + [[0, 1]] * 2 + [[0, 1]] * 6 + [[1, 0]] * 2)  # right 12 times in 16
        >>> round(fit_presence_temperature(sure, truth).temperature, 2)
        2.73
    """
    table, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    pairs = np.stack([np.zeros(table.size), table.ravel()], axis=1)  # each cell is a choice of two
    if len(table) < MIN_SAMPLES:
        return TemperatureFit(1.0, f"No temperature fitted: {len(table)} validation samples are too few.")
    return fit_temperature(pairs, truth.ravel())


def apply_temperature(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn logits into probabilities: softmax of logits divided by the temperature.

    Args:
        logits: Shape (n, classes). Log-probabilities are logits too.
        temperature: Above 0; 1 changes nothing, more makes answers less sure.

    Examples:
        >>> apply_temperature([[2.0, 0.0]], 2.0).round(3).tolist()
        [[0.731, 0.269]]
    """
    if not temperature > 0:
        raise HeadstartError(must_be("temperature", "greater than 0", temperature, "1 changes nothing."))
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Give the expected calibration error: the mean distance between confidence and accuracy over 15 bins.

    Args:
        probabilities: Shape (n, classes).
        labels: Class numbers, shape (n,).

    Returns:
        Between 0 (calibrated) and 1.

    Examples:
        Four answers given with 0.75, of which three are right:

        >>> calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
        0.0
    """
    bins, gaps = confidence_gaps(probabilities, labels)
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=NUM_BINS)).sum() / len(labels))


def confidence_gaps(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give each sample's bin and its gap (confidence minus 1 where right, minus 0 where wrong).

    The calibration error is the sum over bins of the absolute sum of gaps, divided by the number of samples. So a
    resample needs sums of gaps only.
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * NUM_BINS).astype(np.int64) - 1  # bins are open below, closed above
    return bins.clip(0, NUM_BINS - 1), confidence - is_right


def calibration_bins(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> pl.DataFrame:
    """Give the reliability diagram as a table: one row per bin, the empty ones too.

    Returns:
        ``low, high`` (edges of the bin), ``count``, ``confidence`` and ``accuracy`` (means; null where empty).

    Examples:
        >>> table = calibration_bins(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
        >>> table.filter(pl.col("count") > 0).select("count", "confidence", "accuracy").row(0)
        (4, 0.75, 0.75)
    """
    bins, gaps = confidence_gaps(probabilities, labels)
    confidence = probabilities.max(axis=1)
    count = np.bincount(bins, minlength=NUM_BINS)
    edges = np.linspace(0, 1, NUM_BINS + 1)
    sums = {"confidence": confidence, "accuracy": confidence - gaps}
    with np.errstate(invalid="ignore"):
        means = {name: np.bincount(bins, weights=one, minlength=NUM_BINS) / count for name, one in sums.items()}
    frame = pl.DataFrame({"low": edges[:-1], "high": edges[1:], "count": count} | means)
    return frame.with_columns(pl.col("confidence", "accuracy").fill_nan(None))


def _minimise(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    # Only distances to the true class's logit count; classes ruled out altogether (-inf) stay so.
    with np.errstate(invalid="ignore"):
        relative = logits - logits[np.arange(len(labels)), labels][:, None]
    relative = np.nan_to_num(relative, nan=0.0, posinf=_FAR, neginf=-_FAR)

    def log_loss(log_temperature: float) -> float:
        return float(np.mean(logsumexp(relative / np.exp(log_temperature), axis=1)))

    bounds = tuple(np.log(TEMPERATURE_BOUNDS))
    found = minimize_scalar(log_loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


_FAR: Final = 700.0  # exp(-700) is the smallest probability a float64 holds, about


def _checked_logits(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    table, numbers = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if table.ndim != 2 or numbers.shape != table.shape[:1]:
        raise HeadstartError(must_be("logits", f"of shape ({numbers.size}, classes), one row per label", table.shape))
    if np.isnan(table).any() or np.isposinf(table).any():
        row = int(np.flatnonzero(np.isnan(table).any(axis=1) | np.isposinf(table).any(axis=1))[0])
        remedy = "Training has diverged: lower the learning rate."
        raise HeadstartError(must_be(f"logits row {row}", "numbers", table[row].tolist()[:8], remedy))
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < table.shape[1]:
        value = int(numbers.min() if numbers.min() < 0 else numbers.max())
        raise HeadstartError(must_be("labels", f"from 0 to {table.shape[1] - 1}", value))
    return table, numbers
