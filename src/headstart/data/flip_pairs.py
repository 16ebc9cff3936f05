"""Left and right: which keypoints change places when a picture is mirrored.

Augmentation mirrors pictures; then the left eye must become the right one, or half of the labels are wrong. Nobody
should have to type 68 numbers for that: ``infer_flip_pairs`` finds them where the shape is its own mirror image, and
says so where it is not or where it could be wrong. ``headstart check`` shows what it found, ``--flip-pairs FILE``
overrules it (``flip_pairs_file.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from headstart.data.mirror_search import (
    Match,
    MirrorShape,
    Permutation,
    assign,
    axis_angle,
    axis_of,
    match_of,
    refine,
    search,
    settle,
)
from headstart.data.shapes import Complex, Consensus, consensus, from_points, name_points
from headstart.randomness import generator

Pairs = tuple[tuple[int, int], ...]

LEAST_SAMPLES: Final = 20
"""Samples that agree with the mean shape, below which pairs are never sure."""

MOST_RESIDUAL: Final = 0.1
"""Distance of the mirrored mean shape from itself, as a share of its size, beyond which a shape counts as lopsided;
twice the standard error of the mean is granted on top. Measured: 0.02 for 3,462 faces, up to 0.05 for 200 of them, up
to 0.13 for 50, whose poses need not balance."""

MOST_OF_WIDTH: Final = 0.3
"""The same distance as a share of what it would be if every point stayed where it is: a thin shape is near its own
mirror image whatever its points do."""

LEAST_SECOND: Final = 1.5
"""How many times farther (in squared distance, over the points that change) the next best assignment must be."""

_NUM_HALVES: Final = 16  # random halves of the samples that must give the same pairs


@dataclass(frozen=True)
class FlipPairs:
    """Which points change places when the picture is mirrored.

    Attributes:
        pairs: (index, index) of points that are each other's mirror image, the lower index first, ascending.
        axis_points: Points that are their own mirror image, ascending.
        residual: Root mean square distance of the mirrored mean shape from itself, as a share of its size.
        is_sure: Whether training may rely on it.
        reason: Why not, in a sentence; empty where sure.
    """

    pairs: Pairs
    axis_points: tuple[int, ...]
    residual: float
    is_sure: bool
    reason: str

    def permutation(self, num_keypoints: int) -> Permutation:
        """Give for each point the index of its mirror image, shape (num_keypoints,).

        Examples:
            >>> FlipPairs(((0, 2),), (1,), 0.0, is_sure=True, reason="").permutation(4).tolist()
            [2, 1, 0, 3]
        """
        return pairs_to_permutation(self.pairs, num_keypoints)


def pairs_to_permutation(pairs: Pairs, num_keypoints: int) -> Permutation:
    """Give for each point the index of its mirror image; points in no pair keep their place."""
    order = np.arange(num_keypoints)
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def infer_flip_pairs(
    points: ArrayLike, visible: ArrayLike, *, seed: int = 0, found: Consensus | None = None
) -> FlipPairs:
    """Find left/right pairs: the assignment that best lays the mirrored mean shape over itself.

    The axis may have any direction; samples may be turned, some may be mirrored or wrong. Where points nearly coincide
    in the mean shape, how they move against the others decides as well (the deviation of each distance vector over the
    samples, which mirroring must leave as it is).

    Args:
        points: Shape (n, K, 2), (x, y), any unit.
        visible: Shape (n, K).
        seed: Draws the subsample and the halves.
        found: The samples' consensus, if it is known already.

    Returns:
        The pairs. They are sure only where all of this holds: at least 20 samples agree with the mean shape, every
        point is seen, the shape is its own mirror image (``MOST_RESIDUAL``, ``MOST_OF_WIDTH``), no other axis and no
        other assignment is nearly as good, and random halves of the samples give the same pairs.

    Raises:
        HeadstartError: The shapes of the arrays do not go together.
        NoShapeError: No sample has two different points.

    Examples:
        >>> face = np.array([[-30.0, 0.0], [30.0, 0.0], [0.0, 35.0], [-20.0, 60.0], [20.0, 60.0]])
        >>> samples = face + np.random.default_rng(0).normal(size=(200, 5, 2))
        >>> found = infer_flip_pairs(samples, np.ones((200, 5), bool))
        >>> found.pairs, found.axis_points, found.is_sure
        (((0, 1), (3, 4)), (2,), True)

    References:
        Gower 1975 for the mean; the search alternates assignment and alignment as in Besl and McKay: "A method for
        registration of 3-D shapes", PAMI 14, 1992.
    """
    with threadpool_limits(1, user_api="blas"):  # many small products: measured 10 times slower on busy cores without
        return _inferred(found or consensus(points, visible, seed=seed), seed)


def _inferred(found: Consensus, seed: int) -> FlipPairs:
    shape = MirrorShape.of(found, found.trusted)
    if len(shape.known) < 2:
        return FlipPairs((), (), float("nan"), is_sure=False, reason="Fewer than two points are seen.")
    best, other = search(shape)
    reasons = (
        _too_few(found),
        _never_seen(shape),
        _lopsided(shape, best, found),
        _second_axis(best, other),
        _second_assignment(shape, best),
    )
    reason = next((reason for reason in reasons if reason), "") or _unstable(found, best, seed)
    return _worded(shape, best, reason)


def judge_flip_pairs(
    points: ArrayLike, visible: ArrayLike, pairs: Pairs, *, seed: int = 0, found: Consensus | None = None
) -> FlipPairs:
    """Measure pairs that the user gave against the samples.

    Args:
        points: Shape (n, K, 2).
        visible: Shape (n, K).
        pairs: As ``read_flip_pairs`` gives them.
        seed: Draws the subsample.
        found: The samples' consensus, if it is known already.

    Returns:
        The same pairs with their residual; sure unless the mean shape contradicts them, or surely has others.

    Examples:
        >>> face = np.array([[-30.0, 0.0], [30.0, 0.0], [0.0, 35.0], [-20.0, 60.0], [20.0, 60.0]])
        >>> given = judge_flip_pairs(np.stack([face] * 3), np.ones((3, 5), bool), ((0, 3), (1, 4)))
        >>> given.is_sure, given.reason
        (False, 'The mean shape, mirrored with these pairs, is 0.28 of its size away from itself (at most 0.1).')
    """
    found = found or consensus(points, visible, seed=seed)
    shape = MirrorShape.of(found, found.trusted)
    places = pairs_to_permutation(tuple(sorted(pairs)), len(found.mean))
    is_known = np.isin(np.arange(len(places)), shape.known)
    usable = np.flatnonzero(is_known & is_known[places])
    w = from_points(found.mean)
    residual = _mirror_residual(w[usable], w[places[usable]])
    reason = ""
    if not residual <= MOST_RESIDUAL:
        reason = (
            f"The mean shape, mirrored with these pairs, is {residual:.2f} of its size away from itself "
            f"(at most {MOST_RESIDUAL})."
        )
    with threadpool_limits(1, user_api="blas"):
        reason = " ".join(part for part in (reason, _other_partners(places, _inferred(found, seed))) if part)
    ordered = tuple(sorted((min(pair), max(pair)) for pair in pairs))
    paired = {point for pair in ordered for point in pair}
    axis = tuple(point for point in range(len(places)) if point not in paired)
    return FlipPairs(ordered, axis, residual, is_sure=not reason, reason=reason)


def _other_partners(places: Permutation, inferred: FlipPairs) -> str:
    """Say of which points the shapes themselves surely have other mirror images."""
    differ = np.flatnonzero(places != inferred.permutation(len(places)))
    if not inferred.is_sure or not len(differ):
        return ""
    return f"The shapes themselves give other partners to {name_points(differ)}."


def _mirror_residual(w: Complex, image: Complex) -> float:
    """Give the distance of the mirrored shape from its image, over the best axis, as a share of the shape's size."""
    w, image = w - w.mean(), image - image.mean()
    direction = axis_of(w, image)
    return float(np.sqrt(np.mean(np.abs(direction * w.conj() - image) ** 2) / np.mean(np.abs(w) ** 2)))


# --- doubts


def _too_few(found: Consensus) -> str:
    num = int(found.trusted.sum())
    if num >= LEAST_SAMPLES:
        return ""
    return f"Only {num} samples agree with the mean shape; at least {LEAST_SAMPLES} are needed."


def _never_seen(shape: MirrorShape) -> str:
    missing = np.setdiff1d(np.arange(shape.num_keypoints), shape.known)
    return f"Too few samples show {name_points(missing)}." if len(missing) else ""


def _lopsided(shape: MirrorShape, best: Match, found: Consensus) -> str:
    if np.array_equal(best.places, np.arange(len(best.places))):
        return "No two points are each other's mirror image."
    staying = np.sqrt(np.mean(np.abs(best.direction * shape.mean.conj() - shape.mean) ** 2))
    away = found.aligned[found.trusted] - found.mean
    chance = 2 * np.sqrt(np.nanmean((away**2).sum(axis=2)) / found.trusted.sum())  # both the mean and its image err
    limit = min(MOST_RESIDUAL + float(chance), MOST_OF_WIDTH * float(staying))
    if best.residual <= limit:
        return ""
    return (
        f"The shape is asymmetrical: its best mirror image is {best.residual:.2f} of its size away from itself "
        f"(at most {limit:.2f})."
    )


def _second_axis(best: Match, other: Match | None) -> str:
    if other is None or other.residual > max(2 * best.residual, MOST_RESIDUAL):
        return ""
    return (
        f"The shape is symmetrical about two axes, {axis_angle(best, other):.0f} degrees apart "
        f"(residuals {best.residual:.3f} and {other.residual:.3f})."
    )


def _second_assignment(shape: MirrorShape, best: Match) -> str:
    """Look for the pair that can be given up at least cost."""
    costs = shape.costs(best.direction, best.places)
    rows, worst, doubted = np.arange(len(costs)), np.inf, np.arange(0)
    for i in np.flatnonzero(best.places >= rows):
        barred = costs.copy()
        barred[i, best.places[i]] = barred[best.places[i], i] = 1e6
        places = assign(barred)
        changed = np.flatnonzero(places != best.places)
        now, then = costs[changed, best.places[changed]].sum(), costs[changed, places[changed]].sum()
        ratio = then / max(now, 1e-12)
        if ratio < worst:
            worst, doubted = ratio, changed
    if worst >= LEAST_SECOND:
        return ""
    return f"Ambiguous: another assignment of {name_points(shape.known[doubted])} fits nearly as well."


def _unstable(found: Consensus, best: Match, seed: int) -> str:
    """Find the pairs again in random halves of the samples."""
    random = generator(seed, stream="shapes", epoch=2)
    trusted, doubted, num_other = np.flatnonzero(found.trusted), set(), 0
    for _ in range(_NUM_HALVES):
        used = np.zeros(len(found.trusted), bool)
        used[random.permutation(trusted)[: (len(trusted) + 1) // 2]] = True
        shape = MirrorShape.of(found, used)
        if len(shape.known) < len(best.places):
            continue
        starts = (settle(shape, best.direction), match_of(shape, best.places))
        places = min((refine(shape, start) for start in starts), key=lambda match: match.cost).places
        changed = np.flatnonzero(places != best.places)
        doubted.update(shape.known[changed].tolist())
        num_other += bool(len(changed))
    if not num_other:
        return ""
    names = name_points(np.array(sorted(doubted)))
    return f"Ambiguous: in {num_other} of {_NUM_HALVES} random halves of the samples {names} are paired otherwise."


def _worded(shape: MirrorShape, best: Match, reason: str) -> FlipPairs:
    known, images = shape.known.tolist(), shape.known[best.places].tolist()
    pairs = tuple((i, j) for i, j in zip(known, images, strict=True) if i < j)
    axis = tuple(i for i, j in zip(known, images, strict=True) if i == j)
    return FlipPairs(pairs, axis, best.residual, is_sure=not reason, reason=reason)
