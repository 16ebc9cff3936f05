"""The search for a shape's mirror axis and for the points that are each other's mirror image.

``flip_pairs`` asks here for the best assignment, and judges whether it can be relied on. A reflection about an axis
through the centroid at angle t leads z to exp(2it) conj(z); the search lets assignment and axis take turns, from many
axes, as in iterated closest points.

References:
    Besl and McKay: "A method for registration of 3-D shapes", PAMI 14, 1992.
    Crouse: "On implementing 2D rectangular assignment algorithms", 2016, which SciPy's assignment follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from headstart.data.shapes import Complex, Consensus, Points, to_complex

Permutation = NDArray[np.int64]

_LEAST_SEEN: Final = 10  # samples that must show a point
_NUM_STARTS: Final = 36  # directions of the mirror axis that the search starts from, 5 degrees apart
_MAX_ROUNDS: Final = 20
_OTHER_AXIS: Final = 10.0  # degrees; axes nearer than this are the same
_CLIP: Final = 4.0  # robust deviations beyond which a single point's deviation does not count more


@dataclass(frozen=True)
class MirrorShape:
    """A mean shape and how it varies, over the points that are known.

    Attributes:
        known: Indices of these points among all K.
        mean: Shape (k,), x + iy, centroid 0, size 1.
        spread: Standard deviation of the difference between two points' deviations from the mean, shape (k, k).
        num_keypoints: K.
    """

    known: Permutation
    mean: Complex
    spread: Points
    num_keypoints: int

    @classmethod
    def of(cls, found: Consensus, used: NDArray[np.bool_]) -> MirrorShape:
        """Measure the samples ``used`` (shape (m,)) of a consensus."""
        z, seen = to_complex(found.aligned[used], np.ones(found.aligned[used].shape[:2], bool))
        known = np.flatnonzero(seen.sum(axis=0) >= min(_LEAST_SEEN, max(len(z), 1)))
        z, seen = z[:, known], seen[:, known].astype(np.float64)
        mean = z.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        away = _clipped((z - mean) * seen)
        mean = mean - mean.mean() if len(mean) else mean
        size = np.sqrt(np.mean(np.abs(mean) ** 2)) if len(mean) else 1.0
        return cls(known, mean / size, _spread(away, seen) / size, len(found.mean))

    def costs(self, direction: complex, places: Permutation | None) -> Points:
        """Give what it costs to take point i for the mirror image of point j, shape (k, k).

        Args:
            direction: exp(2i × angle of the axis).
            places: Assignment that variation is compared under; None leaves variation out.
        """
        costs = np.abs(direction * self.mean.conj()[:, None] - self.mean[None]) ** 2
        if places is None:
            return costs
        turned = self.spread[:, places]  # [j, k]: spread between j and the image of k
        squares = (self.spread**2).mean(axis=1)[:, None] + (turned**2).mean(axis=1)[None]
        return costs + np.maximum(squares - 2 * self.spread @ turned.T / len(places), 0)


@dataclass(frozen=True)
class Match:
    """An assignment: ``places[i]`` is the image of point i (among the known); the axis; the mean cost of a point."""

    places: Permutation
    direction: complex
    cost: float
    residual: float


def _clipped(away: Complex) -> Complex:
    """Shorten single deviations far beyond their point's usual ones."""
    length = np.abs(away)
    limit = _CLIP * np.median(length, axis=0, keepdims=True) if len(away) else length
    return away * np.minimum(1, limit / np.maximum(length, 1e-12))


def _spread(away: Complex, seen: Points) -> Points:
    together = np.maximum(seen.T @ seen, 1)
    parts = np.concatenate([away.real, away.imag])
    product = parts.T @ parts / together
    squares = (np.abs(away) ** 2).T @ seen / together
    return np.sqrt(np.maximum(squares + squares.T - 2 * product, 0))


def search(shape: MirrorShape) -> tuple[Match, Match | None]:
    """Find the best assignment, and the best about another axis."""
    angles = np.arange(_NUM_STARTS) * 2 * np.pi / _NUM_STARTS
    starts = {tuple(match.places): match for match in (settle(shape, np.exp(1j * angle)) for angle in angles)}
    ordered = sorted(starts.values(), key=lambda match: match.cost)
    refined = sorted((refine(shape, match) for match in ordered[:6]), key=lambda match: match.cost)
    best = refined[0]
    others = (match for match in (*refined[1:], *ordered[6:]) if axis_angle(match, best) > _OTHER_AXIS)
    return best, min(others, key=lambda match: match.residual, default=None)


def settle(shape: MirrorShape, direction: complex) -> Match:
    """Let assignment and axis take turns until nothing changes; places alone."""
    places = np.arange(0)
    for _ in range(_MAX_ROUNDS):
        before, places = places, assign(shape.costs(direction, None))
        direction = axis_of(shape.mean, shape.mean[places])
        if np.array_equal(before, places):
            break
    return match_of(shape, places)


def refine(shape: MirrorShape, match: Match) -> Match:
    """Go on from a match with variation counted too."""
    for _ in range(_MAX_ROUNDS):
        places = assign(shape.costs(match.direction, match.places))
        following = match_of(shape, places)
        if following.cost >= match.cost:
            break
        match = following
    return match


def match_of(shape: MirrorShape, places: Permutation) -> Match:
    """Give an assignment its best axis and its cost."""
    rows, direction = np.arange(len(places)), axis_of(shape.mean, shape.mean[places])
    squares = np.abs(direction * shape.mean.conj() - shape.mean[places]) ** 2
    cost = shape.costs(direction, places)[rows, places].mean()
    return Match(places, direction, float(cost), float(np.sqrt(squares.mean())))


def axis_of(w: Complex, image: Complex) -> complex:
    """Give the best reflection z → direction × conj(z) of ``w`` onto ``image``; both centred."""
    product = (w * image).sum()
    return complex(product / abs(product)) if abs(product) > 1e-12 else 1.0 + 0.0j


def axis_angle(first: Match, second: Match) -> float:
    """Angle between two axes, degrees within [0, 90]."""
    return float(abs(np.angle(first.direction / second.direction, deg=True)) / 2)


def assign(costs: Points) -> Permutation:
    """Give the cheapest assignment that is its own inverse.

    The costs are symmetric, so that the cheapest assignment nearly always is; a cycle that is longer is cut into the
    cheapest pairs of neighbours, with one point left alone where it is odd.
    """
    symmetric = (costs + costs.T) / 2
    places = linear_sum_assignment(symmetric)[1]
    for cycle in _long_cycles(places):
        options = list(_cuts(cycle))
        totals = [sum(symmetric[i, j] + symmetric[j, i] for i, j in option) / 2 for option in options]
        for i, j in options[int(np.argmin(totals))]:
            places[i], places[j] = j, i
    return places


def _long_cycles(places: Permutation) -> Iterator[list[int]]:
    left = set(np.flatnonzero(places[places] != np.arange(len(places))).tolist())
    while left:
        cycle = [left.pop()]
        while (following := int(places[cycle[-1]])) != cycle[0]:
            cycle.append(following)
            left.discard(following)
        yield cycle


def _cuts(cycle: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Cut a cycle into pairs of neighbours: two ways if even, with one point alone if odd. A pair counts both ways."""
    is_odd = len(cycle) % 2
    for start in range(len(cycle) if is_odd else 2):
        turned = cycle[start:] + cycle[:start]
        alone = [(turned[0], turned[0])] if is_odd else []
        rest = turned[is_odd:]
        neighbours = list(zip(rest[::2], rest[1::2], strict=True))
        yield [*alone, *neighbours, *((j, i) for i, j in neighbours)]
