"""Errors of predicted points: what they are divided by, what each sample and each point contributes, cheap scores.

The normalised mean error (NME) of a sample is the mean distance of its visible points from the truth, divided by a
length of the face, in percent. Points that are not visible never count. ``keypoints.py`` adds intervals and tables.

References:
    Sagonas et al.: "300 Faces in-the-Wild Challenge", ICCV workshops 2013: NME by the distance of the eyes.
    Yang et al.: "An Empirical Study of Recent Face Alignment Methods", 2015 (arXiv 1511.05049): AUC, failure rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, all_at_once, must_be


@dataclass(frozen=True)
class KeypointAnswers:
    """True and predicted points of n samples, as plain arrays.

    Attributes:
        predicted: (x, y) in pixels of the original, shape (n, num_keypoints, 2); finite everywhere.
        points: The truth, likewise; anything where a point is not visible.
        visible: Whether a point is marked, shape (n, num_keypoints).
        normaliser: What distances are divided by, in pixels of the original, shape (n,); see ``normalisers``.
        predicted_model: (x, y) as shares of the model's frame (0 to 1), shape (n, num_keypoints, 2).
        points_model: The truth, likewise.
    """

    predicted: ArrayLike
    points: ArrayLike
    visible: ArrayLike
    normaliser: ArrayLike
    predicted_model: ArrayLike
    points_model: ArrayLike


@dataclass(frozen=True)
class PointErrors:
    """What each point of each sample contributes; zero where a point does not count.

    Attributes:
        counts: Whether a point counts: visible, in a sample that is scored; shape (n, num_keypoints).
        pixels: Distance from the truth in pixels of the original, shape (n, num_keypoints).
        normalised: The same divided by the normaliser, in percent.
        absolute: |Δx| + |Δy| in shares of the model's frame.
        squared: Δx² + Δy² likewise.
        has_visible: Whether a sample has a visible point, shape (n,).
        has_normaliser: Whether a sample's normaliser is a positive number, shape (n,).
    """

    counts: NDArray[np.bool_]
    pixels: NDArray[np.float64]
    normalised: NDArray[np.float64]
    absolute: NDArray[np.float64]
    squared: NDArray[np.float64]
    has_visible: NDArray[np.bool_]
    has_normaliser: NDArray[np.bool_]

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """Whether a sample takes part in the scores, shape (n,)."""
        return self.has_visible & self.has_normaliser


def normalisers(
    points: ArrayLike,
    visible: ArrayLike,
    sizes: ArrayLike,
    *,
    by: Literal["points", "box", "image"],
    pair: tuple[int, int] | None = None,
) -> NDArray[np.float64]:
    """Give the length that each sample's errors are divided by, in pixels of the original.

    Args:
        points: True (x, y) in pixels of the original, shape (n, num_keypoints, 2).
        visible: Shape (n, num_keypoints).
        sizes: (height, width) of the originals, shape (n, 2).
        by: ``points``: the distance of two points (the outer corners of the eyes, as most papers do); ``box``: the
            diagonal of the box around the visible points; ``image``: the diagonal of the image.
        pair: Numbers of the two points, from 0, for ``by="points"``.

    Returns:
        Shape (n,); not a number where it is undefined: one of the two points is not visible, or the length is 0.

    Raises:
        HeadstartError: Shapes do not fit, or the pair is missing or names no point.

    Examples:
        >>> square = [[[0, 0], [3, 0], [0, 4]]]
        >>> normalisers(square, [[True] * 3], [(30, 40)], by="points", pair=(1, 2)).tolist()
        [5.0]
        >>> normalisers(square, [[True, True, False]], [(30, 40)], by="box").tolist()
        [3.0]
        >>> normalisers(square, [[True] * 3], [(30, 40)], by="image").tolist()
        [50.0]
    """
    places, shown, frames = np.asarray(points, np.float64), np.asarray(visible, bool), np.asarray(sizes, np.float64)
    _check_normalisers(places, shown, frames, by=by, pair=pair)
    if by == "points" and pair is not None:
        first, second = pair
        lengths = np.linalg.norm(places[:, first] - places[:, second], axis=1)
        lengths = np.where(shown[:, first] & shown[:, second], lengths, np.nan)
    elif by == "box":
        low = np.where(shown[..., None], places, np.inf).min(axis=1)
        high = np.where(shown[..., None], places, -np.inf).max(axis=1)
        is_any = shown.any(axis=1, keepdims=True)
        lengths = np.linalg.norm(np.where(is_any, high, 0) - np.where(is_any, low, 0), axis=1)
    else:
        lengths = np.linalg.norm(frames, axis=1)
    return np.where(lengths > 0, lengths, np.nan)


def describe_normaliser(
    by: Literal["points", "box", "image"], *, pair: tuple[int, int] | None = None, names: Sequence[str] = ()
) -> str:
    """Word what errors are divided by, to stand after "divided by".

    Examples:
        >>> describe_normaliser("box")
        "the diagonal of the box around the face's points"
        >>> describe_normaliser("points", pair=(0, 1), names=("left eye", "right eye"))
        'the distance between the points left eye and right eye'
    """
    if by == "points" and pair is not None:
        first, second = (names[number] if number < len(names) else str(number) for number in pair)
        return f"the distance between the points {first} and {second}"
    return "the diagonal of the image" if by == "image" else "the diagonal of the box around the face's points"


def measure_errors(answers: KeypointAnswers) -> PointErrors:
    """Check answers and measure how far every visible point is off.

    Raises:
        HeadstartError: Shapes do not fit, a prediction or a visible point is not a number, or no sample can be scored.

    Examples:
        >>> one = KeypointAnswers([[[3, 4]]], [[[0, 0]]], [[True]], [50], [[[0.3, 0.4]]], [[[0, 0]]])
        >>> measure_errors(one).normalised.tolist()
        [[10.0]]
    """
    arrays = _checked(answers)
    predicted, points, predicted_model, points_model = arrays
    shown, lengths = np.asarray(answers.visible, bool), np.asarray(answers.normaliser, np.float64)
    has_visible, has_normaliser = np.asarray(shown.any(axis=1)), np.isfinite(lengths) & (lengths > 0)
    counts = shown & has_normaliser[:, None]
    if not counts.any():
        expected = "of at least one sample with a visible point and a positive normaliser"
        raise HeadstartError(must_be("visible", expected, f"{len(shown)} samples, none of them with both"))
    pixels = np.linalg.norm(np.where(counts[..., None], predicted - np.where(counts[..., None], points, 0), 0), axis=2)
    moved = np.where(counts[..., None], predicted_model - np.where(counts[..., None], points_model, 0), 0)
    return PointErrors(
        counts=counts,
        pixels=pixels,
        normalised=100 * pixels / np.where(has_normaliser, lengths, 1.0)[:, None],
        absolute=np.abs(moved).sum(axis=2),
        squared=(moved**2).sum(axis=2),
        has_visible=has_visible,
        has_normaliser=has_normaliser,
    )


def mean_over_points(values: NDArray[np.float64], counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give each sample's mean over the points that count, shape (n,); not a number where none does.

    Examples:
        >>> mean_over_points(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[True, True], [True, False]])).tolist()
        [2.0, 5.0]
    """
    numbers = counts.sum(axis=1)
    sums = np.where(counts, values, 0).sum(axis=1)
    return np.divide(sums, numbers, out=np.full(len(values), np.nan), where=numbers > 0)


def keypoint_scores(answers: KeypointAnswers) -> dict[str, float]:
    """Give the scores of an epoch, without intervals: cheap enough for every epoch.

    Returns:
        ``nme`` in percent, and ``mae`` and ``mse``: means over all visible coordinates, in shares of the model's frame,
        as Keras reports them.

    Raises:
        HeadstartError: As ``measure_errors``.

    Examples:
        >>> one = KeypointAnswers([[[3, 4]]], [[[0, 0]]], [[True]], [50], [[[0.3, 0.4]]], [[[0, 0]]])
        >>> {name: round(value, 3) for name, value in keypoint_scores(one).items()}
        {'nme': 10.0, 'mae': 0.35, 'mse': 0.125}
    """
    errors = measure_errors(answers)
    num_coordinates = 2 * errors.counts.sum()
    return {
        "nme": float(np.nanmean(mean_over_points(errors.normalised, errors.counts))),
        "mae": float(errors.absolute.sum() / num_coordinates),
        "mse": float(errors.squared.sum() / num_coordinates),
    }


def choose_examples(
    sample_errors: ArrayLike, *, groups: ArrayLike | None = None, num_each: int = 4
) -> dict[str, list[int]]:
    """Choose samples to look at: the worst, those in the middle, the best.

    Args:
        sample_errors: NME of each sample, shape (n,); not a number where a sample is not scored.
        groups: Persons, shape (n,): no kind shows one twice, so that frames of one video do not fill the page.
        num_each: Samples of each kind.

    Returns:
        ``worst`` (worst first), ``median`` and ``best`` (best first) → positions; no sample stands twice.

    Examples:
        >>> choose_examples([3.0, 1.0, 2.0, 9.0, 8.0], groups=["a", "b", "c", "d", "d"], num_each=1)
        {'worst': [3], 'median': [0], 'best': [1]}
    """
    errors = np.asarray(sample_errors, np.float64)
    names = list(range(len(errors))) if groups is None else np.asarray(groups).tolist()
    scored = np.flatnonzero(np.isfinite(errors))
    middle = np.median(errors[scored]) if len(scored) else 0.0
    keys = {"worst": -errors, "best": errors, "median": np.abs(errors - middle)}
    chosen: dict[str, list[int]] = {}
    for kind, key in keys.items():
        taken = {position for positions in chosen.values() for position in positions}
        in_order = [int(position) for position in scored[np.argsort(key[scored], kind="stable")]]
        chosen[kind] = _one_per_group([one for one in in_order if one not in taken], names)[:num_each]
    return {kind: chosen[kind] for kind in ("worst", "median", "best")}


def _one_per_group(positions: list[int], names: list[Any]) -> list[int]:
    first: dict[Any, int] = {}
    for position in positions:
        first.setdefault(names[position], position)
    return list(first.values())


def _check_normalisers(
    points: NDArray[np.float64],
    visible: NDArray[np.bool_],
    sizes: NDArray[np.float64],
    *,
    by: str,
    pair: tuple[int, int] | None,
) -> None:
    if points.ndim != 3 or points.shape[2:] != (2,):
        raise HeadstartError(must_be("points", "of shape (samples, keypoints, 2)", points.shape))
    problems = _misfits({"visible": (visible, points.shape[:2])})
    if by not in ("points", "box", "image"):
        problems.append(must_be("by", "one of 'points', 'box', 'image'", by))
    if by == "image":
        problems += _misfits({"sizes": (sizes, (len(points), 2))})
    if by == "points" and (pair is None or any(not 0 <= number < points.shape[1] for number in pair)):
        expected = f"two point numbers from 0 to {points.shape[1] - 1}"
        problems.append(must_be("pair", expected, pair, "Pass --nme-points, e.g. 36,45."))
    if problems:
        raise HeadstartError(all_at_once(problems))


def _checked(answers: KeypointAnswers) -> list[NDArray[np.float64]]:
    """Check answers and give predicted, points, predicted_model and points_model as float64."""
    names = ("predicted", "points", "predicted_model", "points_model")
    arrays = [np.asarray(getattr(answers, name), np.float64) for name in names]
    visible, normaliser = np.asarray(answers.visible), np.asarray(answers.normaliser)
    shape = arrays[0].shape
    if len(shape) != 3 or shape[2] != 2 or 0 in shape:
        raise HeadstartError(must_be("predicted", "of shape (samples, keypoints, 2), none of them 0", shape))
    wanted = {name: (array, shape) for name, array in zip(names, arrays, strict=True)}
    wanted |= {"visible": (visible, shape[:2]), "normaliser": (normaliser, shape[:1])}
    problems = _misfits(wanted) or _not_numbers(dict(zip(names, arrays, strict=True)), visible.astype(bool))
    if problems:
        raise HeadstartError(all_at_once(problems))
    return arrays


def _misfits(arrays: Mapping[str, tuple[NDArray[Any], tuple[int, ...]]]) -> list[str]:
    return [
        must_be(name, f"of shape {shape}", array.shape)
        for name, (array, shape) in arrays.items()
        if array.shape != shape
    ]


def _not_numbers(arrays: dict[str, NDArray[np.float64]], visible: NDArray[np.bool_]) -> list[str]:
    problems: list[str] = []
    for name, array in arrays.items():
        is_bad = ~np.isfinite(array).all(axis=2)
        is_bad = is_bad if name.startswith("predicted") else is_bad & visible
        if is_bad.any():
            sample, point = (int(number) for number in np.argwhere(is_bad)[0])
            remedy = "The network diverged: lower --lr." if name.startswith("predicted") else "Mark it not visible."
            problems.append(must_be(f"{name}[{sample}, {point}]", "finite", array[sample, point].tolist(), remedy))
    return problems
