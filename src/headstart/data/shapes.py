"""Shapes of keypoints: what is left of K points when their place, size and turn in the picture are taken away.

On the path of a sample this stands beside the table's checks: ``flip_pairs`` finds left and right in the mean shape,
``keypoint_doctor`` measures each sample against it. Nothing here knows faces: any K points will do.

Points are float64 of shape (n, K, 2), (x, y) in pixels of the original picture; ``visible`` says which of them are
marked, shape (n, K); what is not visible, or not finite, never counts. The *size* of a shape is the root mean square
distance of its points from their centroid. Inside, a point is one complex number x + iy, so that a similarity without
reflection is one product and one sum, z → a z + b.

References:
    Gower: "Generalized Procrustes analysis", Psychometrika 40, 1975.
    Umeyama: "Least-squares estimation of transformation parameters between two point patterns", PAMI 13, 1991; in the
    plane its solution is the complex regression that ``fit_similarity`` computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be
from headstart.randomness import generator

Points = NDArray[np.float64]
Flags = NDArray[np.bool_]
Complex = NDArray[np.complex128]

MAX_SAMPLES: Final = 5_000
"""Samples that a mean shape is made from; more move it by less than 1/70 of one sample's own deviation."""

MAD_TO_STD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

_NUM_CANDIDATES: Final = 32  # samples tried as the first reference
_NUM_JUDGES: Final = 256  # samples that each of them is measured by
_MAX_ROUNDS: Final = 50
_TRIM: Final = 3.0  # a sample counts up to the median residual plus so many robust standard deviations
_STILL: Final = 1e-6  # of the shape's size: the mean has settled


class NoShapeError(HeadstartError):
    """No sample has two different points, so that there is no shape to speak of."""


@dataclass(frozen=True)
class Alignment:
    """Samples laid over a reference shape; n samples, K points.

    Attributes:
        points: Aligned points in the frame of the reference, shape (n, K, 2); NaN where not visible.
        residuals: Root mean square distance of the visible points from the reference's, as a share of the reference's
            size, shape (n,): 0 is a perfect fit, 1 is no better than a single spot. NaN where the sample shares fewer
            than two points with the reference.
        angles: How far each sample is turned against the reference, in degrees within (-180, 180], clockwise in the
            picture (whose y axis points down), shape (n,). Of a mirrored sample: after mirroring left to right.
        scales: Size of the sample over that of the reference as the fit sees it, shape (n,); infinite where all points
            coincide.
        mirrored: Whether the sample was reflected to fit, shape (n,); only with ``allow_mirror``.
    """

    points: Points
    residuals: Points
    angles: Points
    scales: Points
    mirrored: Flags


@dataclass(frozen=True)
class Consensus:
    """What many samples agree on.

    Attributes:
        mean: The mean shape (x, y), centroid 0, size 1, upright as in the pictures, shape (K, 2); NaN for points that
            no sample shows.
        rows: Rows of the samples it was made from, ascending, shape (m,); all of them, or a subsample.
        aligned: These samples aligned to the mean, shape (m, K, 2); NaN where not visible.
        trusted: Which of them counted: those that fit, shape (m,).
        angles: How far each of them is turned against the mean, in degrees, shape (m,).
    """

    mean: Points
    rows: NDArray[np.int64]
    aligned: Points
    trusted: Flags
    angles: Points


def align(points: ArrayLike, visible: ArrayLike, reference: ArrayLike, *, allow_mirror: bool = False) -> Alignment:
    """Lay each sample over a reference shape by the scale, turn and shift that fit best.

    Args:
        points: Shape (n, K, 2), (x, y), any unit.
        visible: Shape (n, K).
        reference: Shape (K, 2); points that are NaN do not count.
        allow_mirror: Reflect a sample first where that fits better.

    Returns:
        The aligned samples and how well they fit; least squares over the visible points, in closed form.

    Raises:
        HeadstartError: The shapes of the arrays do not go together.

    Examples:
        >>> triangle = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
        >>> larger_and_on_its_side = (10 + 2 * triangle @ [[0.0, 1.0], [-1.0, 0.0]])[None]
        >>> found = align(larger_and_on_its_side, np.ones((1, 3), bool), triangle)
        >>> bool(np.allclose(found.points[0], triangle)), round(float(found.angles[0])), float(found.scales[0].round(6))
        (True, 90, 2.0)

    References:
        Umeyama 1991, equations 40 to 42.
    """
    z, seen = to_complex(points, visible)
    w = _reference(reference, z.shape[1])
    weights = (seen & np.isfinite(w)).astype(np.float64)
    size = _size(w)
    fits = [_Fit.of(z, weights, w)]
    if allow_mirror:
        fits.append(_Fit.of(z.conj(), weights, w))
    residuals = np.stack([fit.residuals for fit in fits])
    best = np.where(np.isnan(residuals[0]), 0, np.argmin(np.nan_to_num(residuals, nan=np.inf), axis=0)).astype(bool)
    aligned = np.where(best[:, None], fits[-1].aligned, fits[0].aligned)
    factors = np.where(best, fits[-1].factors, fits[0].factors)
    with np.errstate(divide="ignore"):
        scales = 1 / np.abs(factors)
    return Alignment(
        points=to_points(np.where(seen, aligned, np.nan)),
        residuals=np.where(best, residuals[-1], residuals[0]) / size,
        angles=turn_angles(factors),
        scales=scales,
        mirrored=best,
    )


def mean_shape(points: ArrayLike, visible: ArrayLike, *, seed: int = 0, max_samples: int = MAX_SAMPLES) -> Points:
    """Give the mean shape of many samples: generalised Procrustes analysis that a few bad samples do not spoil.

    Args:
        points: Shape (n, K, 2), (x, y), any unit.
        visible: Shape (n, K).
        seed: Draws the subsample.
        max_samples: Samples to make the mean from, where there are more.

    Returns:
        Shape (K, 2): centroid 0, size 1, turned as the median sample is turned in its picture; NaN for points that no
        trusted sample shows.

    Raises:
        HeadstartError: The shapes of the arrays do not go together.
        NoShapeError: No sample has two different points.

    Examples:
        >>> square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
        >>> mean = mean_shape([square, 3 * square + 5, square + [0, 9]], np.ones((3, 4), bool))
        >>> mean.round(3).tolist()
        [[-0.707, -0.707], [0.707, -0.707], [0.707, 0.707], [-0.707, 0.707]]

    References:
        Gower 1975. The first reference is the sample nearest to most others; then alignment and mean take turns, and
        samples whose residual is far above the median (3 robust standard deviations) do not count.
    """
    return consensus(points, visible, seed=seed, max_samples=max_samples).mean


def consensus(points: ArrayLike, visible: ArrayLike, *, seed: int = 0, max_samples: int = MAX_SAMPLES) -> Consensus:
    """Give the mean shape together with the samples it was made from; see ``mean_shape`` for the arguments.

    Examples:
        >>> triangle = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> found = consensus([triangle, triangle + 1, triangle[::-1]], np.ones((3, 3), bool))
        >>> found.trusted.tolist()
        [True, True, False]
    """
    points, visible = np.asarray(points, np.float64), np.asarray(visible, bool)
    check_shapes(points, visible)
    rows = _usable_rows(points, visible, seed, max_samples)
    z, seen = to_complex(points[rows], visible[rows])
    weights = seen.astype(np.float64)
    mean = _first_reference(z, weights)
    fit, trusted = _Fit.of(z, weights, mean), np.ones(len(z), bool)
    for _ in range(_MAX_ROUNDS):
        before, trusted = mean, _fits_well(fit.residuals, weights)
        mean = _normalised(_point_means(fit.aligned, weights * trusted[:, None]))
        fit = _Fit.of(z, weights, mean)
        if np.nan_to_num(np.abs(mean - before)).max() < _STILL:
            break
    upright = np.exp(1j * np.radians(_median_angle(turn_angles(fit.factors)[trusted])))
    aligned = np.where(seen, fit.aligned * upright, np.nan)
    angles = turn_angles(fit.factors * upright)
    return Consensus(to_points(mean * upright), rows, to_points(aligned), trusted, angles)


# --- complex numbers


def check_shapes(points: Points, visible: Flags) -> None:
    """Refuse arrays that do not go together.

    Raises:
        HeadstartError: ``points`` is not (n, K, 2) or ``visible`` not (n, K).
    """
    if points.ndim != 3 or points.shape[2] != 2:
        raise HeadstartError(must_be("points", "an array of shape (samples, keypoints, 2)", points.shape))
    if visible.shape != points.shape[:2]:
        raise HeadstartError(must_be("visible", f"an array of shape {points.shape[:2]}", visible.shape))


def to_complex(points: ArrayLike, visible: ArrayLike) -> tuple[Complex, Flags]:
    """Write points as x + iy, shape (n, K), 0 where they do not count, and say where they count.

    Examples:
        >>> z, seen = to_complex([[[1.0, 2.0], [np.nan, 0.0]]], [[True, True]])
        >>> z.tolist(), seen.tolist()
        ([[(1+2j), 0j]], [[True, False]])
    """
    points, visible = np.asarray(points, np.float64), np.asarray(visible, bool)
    check_shapes(points, visible)
    seen = visible & np.isfinite(points).all(axis=2)
    return np.where(seen, from_points(points), 0), seen


def to_points(z: Complex) -> Points:
    """Write complex numbers of shape (…) as points (x, y) of shape (…, 2)."""
    points = np.stack([z.real, z.imag], axis=-1)
    points[np.isnan(points).any(axis=-1)] = np.nan
    return points


def from_points(points: Points) -> Complex:
    """Write points (x, y) of shape (…, 2) as complex numbers of shape (…)."""
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[..., 0]


def fit_similarity(z: Complex, weights: Points, w: Complex) -> tuple[Complex, Complex]:
    """Find the similarities that lead samples to a reference: a z + b ≈ w, least squares.

    Args:
        z: Samples, finite, shape (n, K).
        weights: Of their points, at least 0, shape (n, K).
        w: The reference, shape (K,), or one for each sample, shape (n, K); its NaN must have weight 0.

    Returns:
        a and b, shape (n,) each; a is 0 where the weighted points coincide.
    """
    w = np.nan_to_num(w)
    total = np.maximum(weights.sum(axis=1), 1e-300)
    z_middle, w_middle = (weights * z).sum(axis=1) / total, (weights * w).sum(axis=1) / total
    centred = z - z_middle[:, None]
    spread = (weights * (centred.real**2 + centred.imag**2)).sum(axis=1)
    product = (weights * centred.conj() * w).sum(
        axis=1
    )  # the middle of w drops out: the weighted sum of ``centred`` is 0
    magnitude = 1e-24 * np.maximum((weights * (z.real**2 + z.imag**2)).sum(axis=1), 1e-300)  # rounding of coordinates
    a = np.where(spread > magnitude, product / np.maximum(spread, magnitude), 0)
    return a, w_middle - a * z_middle


def turn_angles(factors: Complex) -> Points:
    """Give the turn of samples against the reference from the factors that lead to it, in degrees, clockwise."""
    return np.degrees(np.angle(factors.conj()))


def name_points(indices: NDArray[np.int64], *, most: int = 8) -> str:
    """Name points for a message.

    Examples:
        >>> name_points(np.array([3]))
        'point 3'
        >>> name_points(np.array([3, 4, 5, 6]), most=2)
        'points 3, 4 and 2 more'
    """
    names = ", ".join(str(index) for index in indices[:most].tolist())
    more = f" and {len(indices) - most} more" if len(indices) > most else ""
    return f"point{'' if len(indices) == 1 else 's'} {names}{more}"


@dataclass(frozen=True)
class _Fit:
    """Samples fitted to a reference: ``aligned`` = factors z + shift; residuals in the reference's unit."""

    factors: Complex
    aligned: Complex
    residuals: Points

    @classmethod
    def of(cls, z: Complex, weights: Points, w: Complex) -> _Fit:
        weights = weights * np.isfinite(w)
        a, b = fit_similarity(z, weights, w)
        aligned = a[:, None] * z + b[:, None]
        squares = np.abs(aligned - np.nan_to_num(w)) ** 2
        num_points = weights.sum(axis=1)
        mean_square = (weights * squares).sum(axis=1) / np.maximum(num_points, 1)
        return cls(a, aligned, np.where(num_points >= 2, np.sqrt(mean_square), np.nan))


def _reference(reference: ArrayLike, num_points: int) -> Complex:
    array = np.asarray(reference, np.float64)
    if array.shape != (num_points, 2):
        raise HeadstartError(must_be("reference", f"an array of shape {(num_points, 2)}", array.shape))
    return from_points(array)


def _size(w: Complex) -> float:
    known = w[np.isfinite(w)]
    return float(np.sqrt(np.mean(np.abs(known - known.mean()) ** 2))) if len(known) else float("nan")


def _normalised(w: Complex) -> Complex:
    return (w - np.nanmean(w)) / _size(w)


# --- the robust mean


def _usable_rows(points: Points, visible: Flags, seed: int, max_samples: int) -> NDArray[np.int64]:
    """Draw samples that have two different points."""
    rows = np.arange(len(points))
    if len(rows) > 2 * max_samples:  # look at a few more than needed, not at all two million
        rows = generator(seed, stream="shapes").choice(len(rows), 2 * max_samples, replace=False)
    z, seen = to_complex(points[rows], visible[rows])
    middle = z.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    extent = (np.abs(z - middle[:, None]) * seen).max(axis=1, initial=0)
    usable = rows[extent > 1e-9 * np.maximum(np.abs(middle), 1e-9)]
    if not len(usable):
        raise NoShapeError(must_be("points", "samples with two different visible points at least", len(usable)))
    if len(usable) > max_samples:
        usable = generator(seed, stream="shapes", epoch=1).choice(usable, max_samples, replace=False)
    return np.sort(usable)


def _first_reference(z: Complex, weights: Points) -> Complex:
    """Choose, among the most complete of evenly spread samples, the one nearest to most others."""
    judges = np.unique(np.linspace(0, len(z) - 1, _NUM_JUDGES).astype(int))
    complete = judges[np.argsort(-weights[judges].sum(axis=1), kind="stable")]
    best, reference = np.inf, z[complete[0]]
    for row in complete[:_NUM_CANDIDATES]:
        candidate = _normalised(np.where(weights[row] > 0, z[row], np.nan))
        residuals = _Fit.of(z[judges], weights[judges], candidate).residuals
        middle = np.median(np.nan_to_num(residuals, nan=1.0))
        if middle < best:
            best, reference = middle, candidate
    return reference


def _fits_well(residuals: Points, weights: Points) -> Flags:
    """Say which samples count; those with fewer points than most fit too easily, but have less to say."""
    known = residuals[~np.isnan(residuals)]
    middle = np.median(known)
    limit = middle + _TRIM * MAD_TO_STD * np.median(np.abs(known - middle))
    return (residuals <= max(limit, 1e-9)) & (weights.sum(axis=1) >= 2)


def _point_means(aligned: Complex, weights: Points) -> Complex:
    total = weights.sum(axis=0)
    return np.where(total > 0, (weights * aligned).sum(axis=0) / np.maximum(total, 1), np.nan)


def _median_angle(angles: Points) -> float:
    """Give the median of angles in degrees, around their mean direction."""
    middle = np.angle(np.exp(1j * np.radians(angles)).mean(), deg=True)
    return float(middle + np.median((angles - middle + 180) % 360 - 180))
