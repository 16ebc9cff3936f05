"""A 95 % interval for every score, resampled over what is independent: persons, bursts, copies, not photos.

Twenty photos of one person are not twenty witnesses. Units (joined groups) are drawn with replacement, 2,000 times,
and each score is computed anew from sums: every score here follows from per-unit sums of hits, supports, predictions,
losses and calibration gaps, so a resample is one row of a matrix product and 100,000 samples take seconds. Means of
errors are resampled in the same way by ``error_intervals.py``.

Four refinements keep the promise of 95 % where the plain bootstrap breaks it:

* Accuracy without groups has Wilson's interval.
* Few units: percentiles are widened as a t interval is (Hesterberg's expanded percentile).
* Fewer than ``MIN_UNITS`` units, or right in fewer, or wrong in fewer: resamples cannot show what was not seen, and
  where all is right they collapse to a point. The interval is then at least Wilson's, with the effective number of
  units as n.
* The calibration error grows with noise, so resamples lie above the value: they are shifted back onto it.

References:
    Wilson: "Probable inference, the law of succession, and statistical inference", JASA 1927.
    Field and Welsh: "Bootstrapping clustered data", JRSS B 2007.
    Hesterberg: "What Teachers Should Know About the Bootstrap", 2014 (arXiv 1411.5279), section 5.3.
    Kish: "Survey Sampling", 1965: effective number of units of unequal size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be
from headstart.evaluation.calibration import NUM_BINS, confidence_gaps
from headstart.evaluation.metrics import SCORES, checked_predictions, classification_scores, sample_losses
from headstart.randomness import generator
from headstart.wording import counted

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CONFIDENCE: Final = 0.95
"""Share of repetitions of the whole experiment whose interval should hold the true score."""

MIN_UNITS: Final = 10
"""Below this many units, or units with an error, or units with a right answer, Wilson's interval joins in."""

MAX_WEIGHTS: Final = 2**22
"""Numbers held at once while resampling: 32 MB."""


_PARTS: Final = ("value", "low", "high")


@dataclass(frozen=True)
class Score:
    """A value and its 95 % interval: ``low <= value <= high``.

    Where one unit alone speaks for the value, there may be no interval: both ends are then not a number.
    """

    value: float
    low: float
    high: float

    @classmethod
    def alone(cls, value: float) -> Score:
        """Give a value without an interval.

        Examples:
            >>> Score.alone(3.0).has_interval, Score.alone(3.0).as_json()
            (False, {'value': 3.0, 'low': None, 'high': None})
        """
        return cls(value, math.nan, math.nan)

    @classmethod
    def from_json(cls, content: Mapping[str, float | None]) -> Score:
        """Take back what ``as_json`` gave.

        Examples:
            >>> Score.from_json(Score.alone(3.0).as_json()).has_interval
            False
        """
        value, low, high = (math.nan if content[name] is None else float(content[name]) for name in _PARTS)  # pyright: ignore[reportArgumentType]
        return cls(value, low, high)

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def as_json(self) -> dict[str, float | None]:
        """Give it as in ``metrics.json``."""
        low, high = (self.low, self.high) if self.has_interval else (None, None)
        return {"value": self.value, "low": low, "high": high}


def describe_basis(num_samples: int, num_units: int, *, noun: str) -> str:
    """Word what intervals are over, to stand after "over".

    Args:
        num_samples: Samples scored.
        num_units: Independent units among them.
        noun: What a sample is called.

    Examples:
        >>> describe_basis(120, 12, noun="image"), describe_basis(120, 120, noun="sample")
        ('120 images in 12 groups', '120 samples')
        >>> describe_basis(9, 1, noun="sample")
        '9 samples in 1 group'
    """
    samples = counted(num_samples, noun)
    return samples if num_units == num_samples else f"{samples} in {counted(num_units, 'group')}"


def wilson(share: float, num_units: float, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Give Wilson's interval for a share (or any mean of values between 0 and 1: those vary less).

    Args:
        share: Between 0 and 1.
        num_units: Independent observations; need not be whole.
        confidence: Nominal coverage.

    Examples:
        >>> [round(end, 3) for end in wilson(1.0, 10)]
        [0.722, 1.0]
    """
    from scipy.stats import norm

    z_squared = float(norm.ppf(0.5 + confidence / 2)) ** 2
    centre = (share + z_squared / (2 * num_units)) / (1 + z_squared / num_units)
    spread = share * (1 - share) / num_units + z_squared / (4 * num_units**2)
    half = (z_squared * spread) ** 0.5 / (1 + z_squared / num_units)
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def score_with_intervals(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    units: ArrayLike | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Score]:
    """Give the headline scores, each with its 95 % interval.

    Args:
        probabilities: Shape (n, classes); rows sum to 1.
        labels: Class numbers, shape (n,).
        units: What belongs together, shape (n,): same number, same person or burst. None: every sample for itself.
        seed: Of the resampling; the same seed gives the same intervals.
        num_resamples: More make the ends steadier; 2,000 leave an error of about 3 % of the interval's width.

    Returns:
        Score names (``metrics.SCORES``) to value and interval.

    Raises:
        HeadstartError: As ``classification_scores``, or ``units`` does not fit.

    Examples:
        >>> scores = score_with_intervals([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], [0, 1, 1])
        >>> round(scores["accuracy"].low, 2), round(scores["accuracy"].high, 2)
        (0.21, 0.94)
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    values = classification_scores(probabilities, labels)
    sums = _sum_by_unit(probabilities, labels, number_units(units, len(labels)))
    resampled = _resampled_scores(sums, seed=seed, num_resamples=num_resamples)
    scores = {name: _interval(name, values[name], resampled[name], sums.num_units) for name in SCORES}
    losses = sample_losses(probabilities, labels)
    floors = _floors(values, sums, losses)
    for name in _untrusted(sums, losses):
        low, high = floors[name]
        scores[name] = Score(values[name], min(low, scores[name].low), max(high, scores[name].high))
    if sums.num_units == len(labels):
        scores["accuracy"] = Score(values["accuracy"], *wilson(values["accuracy"], len(labels)))
    return scores


def number_units(units: ArrayLike | None, num_samples: int) -> NDArray[np.int64]:
    """Number units 0 … n − 1 in place of whatever names them; without units every sample is its own.

    Examples:
        >>> number_units(["kim", "lee", "kim"], 3).tolist()
        [0, 1, 0]
    """
    if units is None:
        return np.arange(num_samples)
    names = np.asarray(units)
    if names.shape != (num_samples,):
        raise HeadstartError(must_be("units", f"of shape ({num_samples},), one per sample", names.shape))
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def draw_units(num_units: int, *, seed: int, num_resamples: int, at_once: int) -> Iterator[NDArray[np.float64]]:
    """Draw units with replacement: how often each is drawn, in chunks of shape (units, resamples of the chunk).

    Args:
        num_units: Independent units.
        seed: The same seed gives the same draws, whatever the size of chunks.
        num_resamples: Of all chunks together.
        at_once: Resamples of a chunk: bounds the memory.

    Examples:
        >>> [counts.sum(axis=0).tolist() for counts in draw_units(4, seed=0, num_resamples=3, at_once=2)]
        [[4.0, 4.0], [4.0]]
    """
    random = generator(seed, stream="bootstrap")
    for start in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - start)
        drawn = random.integers(num_units, size=(count, num_units), dtype=np.int64)
        drawn += np.arange(count)[:, None] * num_units
        counts = np.bincount(drawn.ravel(), minlength=count * num_units)
        yield np.ascontiguousarray(counts.reshape(count, num_units).T, dtype=np.float64)


def interval_around(value: float, resampled: NDArray[np.float64], num_units: int) -> Score:
    """Give the percentile interval of resampled scores, widened for few units and to hold the value.

    Args:
        value: The score of the samples themselves.
        resampled: The score of each resample.
        num_units: Independent units that were resampled.
    """
    low, high = np.quantile(resampled, _expanded_tails(num_units))
    return Score(value, min(float(low), value), max(float(high), value))


def effective_number(sizes: NDArray[np.float64]) -> float:
    """Give how many units of one size are worth as much as units of these sizes (Kish).

    Examples:
        >>> effective_number(np.array([3.0, 3.0])), effective_number(np.array([8.0, 1.0, 1.0]))
        (2.0, 1.5151515151515151)
    """
    return float(sizes.sum() ** 2 / (sizes**2).sum())


@dataclass(frozen=True)
class _UnitSums:
    """What the scores need, summed within each unit.

    The matrix has a column per unit, and as rows: hits, support and predictions of each class; calibration gaps of
    each bin; log loss.
    """

    matrix: csr_array
    num_classes: int
    num_units: int


def _sum_by_unit(probabilities: NDArray[np.float64], labels: NDArray[np.int64], units: NDArray[np.int64]) -> _UnitSums:
    from scipy.sparse import coo_array

    num_classes, everyone = probabilities.shape[1], np.ones(len(labels))
    predicted = probabilities.argmax(axis=1)
    bins, gaps = confidence_gaps(probabilities, labels)
    hits = (predicted == labels).astype(np.float64)
    parts = [
        (labels, hits),
        (num_classes + labels, everyone),
        (2 * num_classes + predicted, everyone),
        (3 * num_classes + bins, gaps),
        (np.full(len(labels), 3 * num_classes + NUM_BINS), sample_losses(probabilities, labels)),
    ]
    rows = np.concatenate([row for row, _ in parts])
    values = np.concatenate([value for _, value in parts])
    num_rows, num_units = 3 * num_classes + NUM_BINS + 1, int(units.max()) + 1
    cells = coo_array((values, (rows, np.tile(units, len(parts)))), shape=(num_rows, num_units))
    return _UnitSums(cells.tocsr(), num_classes, num_units)


def _resampled_scores(sums: _UnitSums, *, seed: int, num_resamples: int) -> dict[str, NDArray[np.float64]]:
    num_rows = 3 * sums.num_classes + NUM_BINS + 1
    at_once = max(1, MAX_WEIGHTS // max(num_rows, sums.num_units))
    drawn = draw_units(sums.num_units, seed=seed, num_resamples=num_resamples, at_once=at_once)
    chunks = [_scores_of_sums(sums.matrix @ weights, sums.num_classes) for weights in drawn]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in SCORES}


def _scores_of_sums(sums: NDArray[np.float64], num_classes: int) -> dict[str, NDArray[np.float64]]:
    """Compute every score from summed statistics, shape (rows of ``_UnitSums``, resamples)."""
    hits, support, predicted = (sums[part * num_classes : (part + 1) * num_classes] for part in range(3))
    gaps, loss = sums[3 * num_classes : -1], sums[-1]
    is_present = support > 0
    num_samples, num_present = support.sum(axis=0), is_present.sum(axis=0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=is_present)
    f1 = np.divide(2 * hits, support + predicted, out=np.zeros_like(hits), where=is_present)
    return {
        "accuracy": hits.sum(axis=0) / num_samples,
        "balanced_accuracy": recall.sum(axis=0) / num_present,
        "macro_f1": f1.sum(axis=0) / num_present,
        "log_loss": loss / num_samples,
        "calibration_error": np.abs(gaps).sum(axis=0) / num_samples,
    }


def _interval(name: str, value: float, resampled: NDArray[np.float64], num_units: int) -> Score:
    """Turn resampled scores into an interval that holds the value."""
    if name == "calibration_error":
        resampled = (resampled - (resampled.mean() - value)).clip(0.0, 1.0)
    return interval_around(value, resampled, num_units)


def _expanded_tails(num_units: int) -> tuple[float, float]:
    """Give the two percentiles to read off: 2.5 and 97.5 %, moved outwards for few units."""
    from scipy.stats import norm, t

    if num_units < 2:
        return 0.0, 1.0
    quantile = t.ppf(0.5 + CONFIDENCE / 2, num_units - 1) * (num_units / (num_units - 1)) ** 0.5
    tail = float(norm.cdf(-quantile))
    return tail, 1 - tail


def _untrusted(sums: _UnitSums, losses: NDArray[np.float64]) -> set[str]:
    """Name the scores whose resamples cannot be trusted alone."""
    hits_of_unit, size = _hits_and_sizes(sums)
    num_witnesses = min(sums.num_units, int((hits_of_unit > 0).sum()), int((hits_of_unit < size).sum()))
    untrusted = {"accuracy", "balanced_accuracy", "macro_f1"} if num_witnesses < MIN_UNITS else set()
    if sums.num_units < MIN_UNITS or np.ptp(losses) == 0:
        untrusted.add("calibration_error")
    if sums.num_units < 2 or np.ptp(losses) == 0:
        untrusted.add("log_loss")
    return untrusted


def _floors(values: dict[str, float], sums: _UnitSums, losses: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Give each score the least interval that it has where resampling cannot be trusted."""
    size = _hits_and_sizes(sums)[1]
    of_samples = effective_number(size)
    of_classes = _effective_units_of_classes(sums.matrix[sums.num_classes : 2 * sums.num_classes])
    num_independent = {
        "accuracy": of_samples,
        "balanced_accuracy": of_classes,
        "macro_f1": of_classes,
        "calibration_error": of_samples,
    }
    floors = {name: wilson(values[name], number) for name, number in num_independent.items()}
    # Log loss has no upper bound. A share of units this large may be otherwise though none was seen; take those to be
    # answered at random.
    unseen = wilson(0.0, of_samples)[1]
    at_random = values["log_loss"] + unseen * float(np.log(max(sums.num_classes, 2)))
    floors["log_loss"] = (float(losses.min()), max(float(losses.max()), at_random))
    return floors


def _hits_and_sizes(sums: _UnitSums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give each unit's number of right answers and of samples."""
    hits, support = sums.matrix[: sums.num_classes], sums.matrix[sums.num_classes : 2 * sums.num_classes]
    return np.asarray(hits.sum(axis=0)).ravel(), np.asarray(support.sum(axis=0)).ravel()


def _effective_units_of_classes(support: csr_array) -> float:
    """Give the n that a mean of recalls stands on: the harmonic mean of the classes' units, times their number."""
    totals = np.asarray(support.sum(axis=1)).ravel()
    squares = np.asarray(support.power(2).sum(axis=1)).ravel()
    units_of_class = totals[totals > 0] ** 2 / squares[totals > 0]
    return float(len(units_of_class) ** 2 / (1 / units_of_class).sum())
