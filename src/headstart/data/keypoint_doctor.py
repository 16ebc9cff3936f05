"""What is wrong with keypoint labels, sample by sample: what ``headstart check`` says about them.

Six kinds of findings, each with a sentence: points outside the picture, all points in one spot, left and right swapped,
turned against the others, a single point that strays, a shape unlike the others. The doctor finds; it changes and
excludes nothing.

Coordinates are continuous, (x, y), in pixels of the original picture: 0 ≤ x ≤ width and 0 ≤ y ≤ height is inside, its
edges included. The size of a shape is the root mean square distance of its points from their centroid.

References:
    Gower: "Generalized Procrustes analysis", Psychometrika 40, 1975.
    Iglewicz and Hoaglin: "How to detect and handle outliers", 1993, for the robust z-score and its limit of 3.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from headstart.data.flip_pairs import LEAST_SAMPLES, FlipPairs, Pairs, infer_flip_pairs, judge_flip_pairs
from headstart.data.shape_model import STRAY_DISTANCE, ShapeModel
from headstart.data.shapes import (
    Alignment,
    Consensus,
    Flags,
    NoShapeError,
    Points,
    align,
    consensus,
    name_points,
    to_complex,
)
from headstart.errors import HeadstartError, must_be

FindingKind = Literal["outside", "collapsed", "mirrored", "turned", "outlier", "stray point"]

COLLAPSED_SHARE: Final = 0.01
"""Size of a shape, as a share of the picture's shorter side, below which it is a spot, provided that it is also below a
tenth of the usual share: small faces in large photos are no spots."""

COLLAPSED_PIXELS: Final = 1.0
"""Size of a shape in pixels below which it is a spot in any picture."""

MIRRORED_GAIN: Final = 0.5
"""Left and right are swapped if swapping them back leaves less than half of the residual. Measured: at most 0.45
for 3,461 of 3,462 faces with sides exchanged, profiles included; at least 1.6 for all as they are."""

TURNED_DEGREES: Final = 75.0
"""A turn against the median sample that no tilted head has; where 80 % of the samples are within 45 degrees."""

OUTLIER_Z: Final = 3.5
"""Robust z-score of the logarithm of a sample's residual. Measured: 0.6 % of 3,462 video frames are beyond it."""

OUTLIER_GAIN: Final = 1.5
"""How many times the median residual it must be besides: where all samples are alike, small differences are no news."""

_AT_ONCE: Final = 8_192  # samples; bounds memory to some 100 MB at 70 points
_UPRIGHT_SHARE: Final = 0.8  # of the samples within 45 degrees of the median, for turned ones to be odd
_LEAST_POINTS: Final = 4  # visible points without which a shape says nothing: a similarity fits any two

_SCHEMA: Final = {"row": pl.Int64, "kind": pl.String, "severity": pl.Float64, "detail": pl.String}
_Finding = tuple[int, FindingKind, float, str]


@dataclass(frozen=True)
class Examination:
    """What the doctor found.

    Attributes:
        findings: One row per finding, the most severe first: ``row`` of the sample, ``kind`` (a ``FindingKind``),
            ``severity`` within (0, 1], and ``detail``, a sentence. A sample may have several.
        mean_shape: (x, y) of each point, centroid 0, size 1, upright; shape (K, 2). NaN for what no sample shows.
        deviations: Usual distance of each point from its mean after alignment (root mean square over the samples that
            agree), as a share of the shape's size; shape (K,).
        pairs: Left and right.
        notes: What could not be examined, a sentence each.
    """

    findings: pl.DataFrame
    mean_shape: Points
    deviations: Points
    pairs: FlipPairs
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that occurs, the most frequent first."""
        counted = self.findings["kind"].value_counts().sort(["count", "kind"], descending=[True, False])
        return dict(counted.iter_rows())


def examine(
    points: ArrayLike, visible: ArrayLike, sizes: ArrayLike, pairs: Pairs | None = None, *, seed: int = 0
) -> Examination:
    """Look for wrong keypoints in every sample.

    *Mirrored*: two mistakes look alike. Either the points are in place but left and right carry each other's labels, or
    the picture's points were mirrored (x → width − x) and the labels not swapped. For a shape that is its own mirror
    image both give the same set of labelled points up to a similarity, so one test finds both: with the indices of each
    pair exchanged, the sample fits the mean shape (without reflection) much better than as it is. Which of the two it
    was only the picture tells.

    *Outlier* and *stray point* are measured from a model of the mean and its main variations (``shape_model``), not
    from the mean alone, so that turned heads and open mouths do not fill the list.

    Args:
        points: Shape (n, K, 2), (x, y) in original pixels.
        visible: Shape (n, K); coordinates of what is not visible may be NaN.
        sizes: (height, width) of each picture, shape (n, 2).
        pairs: Left/right pairs, if the user gave some; found in the shapes otherwise.
        seed: Draws the subsample that mean and model are made from.

    Returns:
        The findings, and what they were measured by.

    Raises:
        HeadstartError: The shapes of the arrays do not go together.

    Examples:
        >>> face = np.array([[30.0, 40.0], [70.0, 40.0], [50.0, 60.0], [35.0, 80.0], [65.0, 80.0]])
        >>> points = face + np.random.default_rng(0).normal(size=(100, 5, 2))
        >>> points[7] = face[[1, 0, 2, 4, 3]]
        >>> points[9, 2] = [104.0, 60.0]
        >>> found = examine(points, np.ones((100, 5), bool), np.full((100, 2), 100))
        >>> found.findings["row", "kind"].rows()
        [(7, 'mirrored'), (9, 'stray point'), (9, 'outside')]
        >>> found.findings["detail"][2]
        'point 2 lies outside the picture (x 104.0 of 100)'
    """
    points, visible = np.asarray(points, np.float64), np.asarray(visible, bool)
    sizes = np.asarray(sizes, np.float64)
    if sizes.shape != (len(points), 2):
        raise HeadstartError(must_be("sizes", f"an array of shape {(len(points), 2)}", sizes.shape))
    with threadpool_limits(1, user_api="blas"):  # many small products: measured 10 times slower on busy cores without
        return _examined(points, visible, sizes, pairs, seed)


def _examined(points: Points, visible: Flags, sizes: Points, pairs: Pairs | None, seed: int) -> Examination:
    found = _consensus(points, visible, seed)
    flip_pairs = _flip_pairs(points, visible, pairs, found, seed)
    yardstick = _Yardstick.of(found, flip_pairs, points, sizes)
    rows: list[_Finding] = []
    for start in range(0, len(points), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        rows += _Block.of(start, points[part], visible[part], sizes[part], yardstick).findings()
    findings = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    findings = findings.sort(["severity", "row"], descending=[True, False], maintain_order=True)
    return Examination(findings, yardstick.mean, _deviations(found, yardstick.mean), flip_pairs, yardstick.notes)


# --- what samples are measured by


@dataclass(frozen=True)
class _Yardstick:
    """What the samples agree on.

    Attributes:
        mean: Mean shape, (K, 2); NaN where there is none.
        model: None where too few samples agree.
        swapped: Index of each point's mirror image; None where left and right are not sure.
        usual_share: Median size of a shape as a share of its picture's shorter side.
        is_upright: Whether the samples share a direction.
        notes: What is missing.
    """

    mean: Points
    model: ShapeModel | None
    swapped: NDArray[np.int64] | None
    usual_share: float
    is_upright: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, found: Consensus | None, pairs: FlipPairs, points: Points, sizes: Points) -> _Yardstick:
        num_points = points.shape[1]
        num_trusted = int(found.trusted.sum()) if found else 0
        if found is None or num_trusted < LEAST_SAMPLES or num_points < _LEAST_POINTS:
            needed = f"{LEAST_SAMPLES} samples that agree, of {_LEAST_POINTS} points at least"
            note = f"Shapes are not examined: they need {needed}; got {num_trusted} of {num_points}."
            mean = found.mean if found else np.full((num_points, 2), np.nan)
            return cls(mean, None, None, 0.0, is_upright=False, notes=(note,))
        shorter = sizes[found.rows].min(axis=1)
        seen = ~np.isnan(found.aligned[..., 0])
        shares = _shape_sizes(points[found.rows], seen, found.mean) / shorter
        is_upright = float(np.mean(np.abs(found.angles[found.trusted]) < 45)) >= _UPRIGHT_SHARE
        notes = [] if pairs.is_sure else ["Swapped left and right are not looked for: the pairs are not sure."]
        if not is_upright:
            notes.append("Turned samples are not looked for: the samples have no direction in common.")
        swapped = pairs.permutation(num_points) if pairs.is_sure else None
        return cls(
            found.mean, ShapeModel.learn(found), swapped, float(np.median(shares)), is_upright, notes=tuple(notes)
        )


def _consensus(points: Points, visible: Flags, seed: int) -> Consensus | None:
    """Give what the samples agree on; None where no sample has a shape."""
    try:
        return consensus(points, visible, seed=seed)
    except NoShapeError:
        return None


def _flip_pairs(points: Points, visible: Flags, given: Pairs | None, found: Consensus | None, seed: int) -> FlipPairs:
    if found is None:
        return FlipPairs(given or (), (), float("nan"), is_sure=False, reason="No sample has two different points.")
    if given is not None:
        return judge_flip_pairs(points, visible, given, found=found)
    return infer_flip_pairs(points, visible, seed=seed, found=found)


def _deviations(found: Consensus | None, mean: Points) -> Points:
    if found is None:
        return np.full(len(mean), np.nan)
    squares = ((found.aligned[found.trusted] - mean) ** 2).sum(axis=2)
    counts = np.isfinite(squares).sum(axis=0)
    return np.where(counts > 0, np.sqrt(np.nansum(squares, axis=0) / np.maximum(counts, 1)), np.nan)


def _shape_sizes(points: Points, seen: Flags, mean: Points) -> Points:
    """Give the size of each whole shape in pixels, judged by the points that are visible; 0 where none is."""
    z, seen = to_complex(points, seen & np.isfinite(mean).all(axis=1))
    reference = to_complex(mean[None], np.ones((1, len(mean)), bool))[0]
    expected = _radius(np.broadcast_to(reference, z.shape), seen)
    return _radius(z, seen) / np.where(expected > 1e-9, expected, 1)


def _radius(z: NDArray[np.complex128], seen: Flags) -> Points:
    """Root mean square distance from the centroid, shape (n,)."""
    counts = np.maximum(seen.sum(axis=1), 1)
    middle = np.where(seen, z, 0).sum(axis=1) / counts
    return np.sqrt((np.abs(z - middle[:, None]) ** 2 * seen).sum(axis=1) / counts)


# --- the samples


@dataclass(frozen=True)
class _Block:
    """Some samples in a row, and what they are measured by.

    Attributes:
        start: Row of the first.
        points: Shape (b, K, 2), finite where ``seen``.
        seen: Shape (b, K).
        sizes: (height, width), shape (b, 2).
        yardstick: Of all samples.
        collapsed: Whether a sample is one spot, shape (b,).
    """

    start: int
    points: Points
    seen: Flags
    sizes: Points
    yardstick: _Yardstick
    collapsed: Flags

    @classmethod
    def of(cls, start: int, points: Points, visible: Flags, sizes: Points, yardstick: _Yardstick) -> _Block:
        seen = visible & np.isfinite(points).all(axis=2)
        known = np.isfinite(yardstick.mean).all(axis=1)
        mean = yardstick.mean if known.any() else np.zeros_like(yardstick.mean)
        in_pixels = _shape_sizes(points, seen, mean)
        shares = in_pixels / np.maximum(sizes.min(axis=1), 1)
        small = shares < min(COLLAPSED_SHARE, yardstick.usual_share / 10)
        judged = seen & (known if known.any() else True)
        enough = judged.sum(axis=1) >= min(3, max(2, seen.shape[1]))
        return cls(start, points, seen, sizes, yardstick, enough & (small | (in_pixels < COLLAPSED_PIXELS)))

    def findings(self) -> Iterator[_Finding]:
        """Give all findings of these samples, in no order."""
        yield from self._outside()
        yield from self._collapsed()
        if self.yardstick.model is None:
            return
        shaped = np.flatnonzero(~self.collapsed & (self.seen.sum(axis=1) >= _LEAST_POINTS))
        fit = align(self.points[shaped], self.seen[shaped], self.yardstick.mean)
        gains, residuals = self._swapped_fit(shaped, fit)
        mirrored = gains < MIRRORED_GAIN
        for row, gain, after in zip(shaped[mirrored], gains[mirrored], residuals[mirrored], strict=True):
            yield self._row(row), "mirrored", float(1 - gain), _mirrored_detail(gain, after)
        if self.yardstick.is_upright:
            yield from self._turned(shaped, fit, ~mirrored)
        yield from self._unlike(shaped[~mirrored], self.yardstick.model)

    def _row(self, row: np.integer) -> int:
        return self.start + int(row)

    def _outside(self) -> Iterator[_Finding]:
        beyond = np.maximum(-self.points, self.points - self.sizes[:, None, ::-1])  # by axis, pixels
        beyond = np.where(self.seen[..., None], beyond, -1)
        flags = beyond.max(axis=2) > 0
        for row in np.flatnonzero(flags.any(axis=1)):
            indices = np.flatnonzero(flags[row])
            point, axis = np.unravel_index(int(np.argmax(beyond[row])), beyond[row].shape)
            farthest, extent = float(beyond[row].max()), self.sizes[row, 1 - axis]
            place = f"{'xy'[axis]} {self.points[row, point, axis]:.1f} of {extent:.0f}"
            if len(indices) > 1:
                place = f"farthest point {point}: {place}"
            verb = "lies" if len(indices) == 1 else "lie"
            detail = f"{name_points(indices)} {verb} outside the picture ({place})"
            yield self._row(row), "outside", farthest / (farthest + float(self.sizes[row].min())), detail

    def _collapsed(self) -> Iterator[_Finding]:
        for row in np.flatnonzero(self.collapsed):
            used = self.points[row][self.seen[row]]
            extent = float(np.ptp(used, axis=0).max())
            where = f"within {extent:.1f} pixels" if extent else "in one place"
            height, width = self.sizes[row].astype(int).tolist()
            detail = f"all {len(used)} visible points lie {where} in a picture of {height} × {width}"
            yield self._row(row), "collapsed", 1.0, detail

    def _swapped_fit(self, rows: NDArray[np.int64], fit: Alignment) -> tuple[Points, Points]:
        """Give how the residual changes (as a factor) when left and right are exchanged, and what it becomes."""
        swapped = self.yardstick.swapped
        if swapped is None:
            return np.full(len(rows), np.inf), fit.residuals
        after = align(self.points[rows][:, swapped], self.seen[rows][:, swapped], self.yardstick.mean).residuals
        moved = swapped != np.arange(len(swapped))
        telling = self.seen[rows][:, moved].sum(axis=1) >= _LEAST_POINTS
        return np.where(telling, after / np.maximum(fit.residuals, 1e-9), np.inf), after

    def _turned(self, rows: NDArray[np.int64], fit: Alignment, counted: Flags) -> Iterator[_Finding]:
        turned = counted & (np.abs(fit.angles) > TURNED_DEGREES) & (fit.residuals < 0.5)
        for row, angle in zip(rows[turned], fit.angles[turned].tolist(), strict=True):
            words = " (upside down)" if abs(angle) > 135 else ""
            way = "clockwise" if angle > 0 else "anticlockwise"
            detail = f"turned {abs(angle):.0f} degrees {way} against the other samples{words}"
            yield self._row(row), "turned", abs(angle) / 180, detail

    def _unlike(self, rows: NDArray[np.int64], model: ShapeModel) -> Iterator[_Finding]:
        """Find stray points and outliers."""
        z, seen = to_complex(self.points[rows], self.seen[rows])
        known = np.isfinite(self.yardstick.mean).all(axis=1)
        scores = model.score(z, seen & known)
        usual = float(np.exp(model.middle))
        for place in np.flatnonzero(scores.stray.any(axis=1)):
            strays = np.flatnonzero(scores.stray[place])
            farthest = float(scores.distances[place, strays].max())
            in_pixels = farthest / max(abs(scores.factors[place]), 1e-12)
            severity = 1 - STRAY_DISTANCE / farthest
            yield self._row(rows[place]), "stray point", severity, _stray_detail(strays, farthest, in_pixels)
        for place in np.flatnonzero((scores.z > OUTLIER_Z) & (scores.residuals > OUTLIER_GAIN * usual)):
            z_score, gain = float(scores.z[place]), float(scores.residuals[place]) / usual
            worst = int(np.nanargmax(np.where(scores.stray[place], np.nan, scores.deviations[place])))
            detail = (
                f"the points lie {gain:.1f} times as far as usual from where such shapes have them, "
                f"farthest point {worst} (robust z {z_score:.1f})"
            )
            yield self._row(rows[place]), "outlier", 1 - OUTLIER_Z / z_score, detail


def _mirrored_detail(gain: float, after: float) -> str:
    before = after / max(gain, 1e-3)
    times = f"with the pairs exchanged the points fit the mean shape {1 / max(gain, 1e-3):.1f} times better"
    return f"left and right look swapped: {times} ({after:.2f} of its size away, not {before:.2f})"


def _stray_detail(strays: NDArray[np.int64], farthest: float, in_pixels: float) -> str:
    verb, bound, them = ("lies", "", "it") if len(strays) == 1 else ("lie", "up to ", "them")
    distance = f"{bound}{in_pixels:.0f} pixels ({farthest:.2f} of the shape's size)"
    return f"{name_points(strays)} {verb} {distance} from where the other points put {them}"
