"""What K folds say together: each one's scores and how far they lie apart, and answers out of fold as logits again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be
from headstart.evaluation.ensembles import vote_logits
from headstart.evaluation.intervals import Score


@dataclass(frozen=True)
class FoldScores:
    """What one fold's model is worth on what was held out from it.

    Attributes:
        fold: Counted from 1.
        num_held_out: Samples scored.
        stage: What training chose: ``probe``, ``fine-tune`` or ``start``.
        epoch: The chosen epoch of that stage.
        scores: Each with its interval.
    """

    fold: int
    num_held_out: int
    stage: str
    epoch: int
    scores: dict[str, Score]

    def as_dict(self) -> dict[str, Any]:
        """Give what ``metrics.json`` says of it."""
        scores = {name: one.as_json() for name, one in self.scores.items()}
        about = {"fold": self.fold, "held_out": self.num_held_out, "chosen": self.stage, "chosen_epoch": self.epoch}
        return about | {"scores": scores}


@dataclass(frozen=True)
class Spread:
    """How far a score lies apart over folds: mean, standard deviation (of a sample), lowest and highest.

    It mixes two things: models differ, and so do the parts that they are scored on. It is no interval of the score.
    """

    mean: float
    deviation: float
    lowest: float
    highest: float


def spread(folds: Sequence[FoldScores], name: str) -> Spread:
    """Give how far a score lies apart over folds.

    Args:
        folds: At least one.
        name: The score's.

    Examples:
        >>> scores = [{"accuracy": Score(value, 0, 1)} for value in (0.6, 0.8)]
        >>> folds = [FoldScores(number, 9, "probe", 1, one) for number, one in enumerate(scores, 1)]
        >>> found = spread(folds, "accuracy")
        >>> round(found.mean, 2), round(found.deviation, 3), found.lowest, found.highest
        (0.7, 0.141, 0.6, 0.8)
    """
    values = np.array([fold.scores[name].value for fold in folds])
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Spread(float(values.mean()), deviation, float(values.min()), float(values.max()))


def scores_from_json(scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, Score]:
    """Take back the scores of one split from ``metrics.json``.

    Examples:
        >>> scores_from_json({"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}})
        {'accuracy': Score(value=0.5, low=0.4, high=0.6)}
    """
    return {name: Score.from_json(one) for name, one in scores.items()}


def logits_from_probabilities(
    probabilities: ArrayLike, temperature: ArrayLike, *, is_presence: bool = False
) -> NDArray[np.float64]:
    """Give logits, up to a constant per row, from probabilities that a temperature was applied to.

    Each fold has its own temperature; out of fold, one is fitted for all.

    Args:
        probabilities: Shape (n, classes).
        temperature: What the logits were divided by: one number, or one for each column.
        is_presence: Whether each probability stands for itself: of several classes at once.

    Examples:
        >>> logits = logits_from_probabilities([[0.8, 0.2]], 2.0)
        >>> round(float(logits[0, 0] - logits[0, 1]), 3)  # 2 ln 4
        2.773
    """
    divisors = np.asarray(temperature, np.float64)
    if not (divisors > 0).all():
        raise HeadstartError(must_be("temperature", "greater than 0", temperature))
    if is_presence:
        return divisors * vote_logits(probabilities, is_presence=True)
    with np.errstate(divide="ignore"):
        return divisors * np.log(np.asarray(probabilities, np.float64))
