"""A linear model of shapes: the mean, its main ways to vary, and how far from them points usually lie.

Distance from the mean alone would call every profile view an outlier; a face that turns, nods or opens its mouth moves
along a few directions that the samples share, and what is left over tells wrong points from rare poses. Measured on
3,462 faces: the twelve farthest from the mean are nearly all profiles marked well, the twelve farthest from the model
are mostly hidden faces and misplaced points. ``keypoint_doctor`` asks this model about every sample.

References:
    Cootes, Taylor, Cooper, Graham: "Active shape models", CVIU 61, 1995.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headstart.data.shapes import MAD_TO_STD, Complex, Consensus, Flags, Points, fit_similarity, from_points, to_complex

MOST_COMPONENTS: Final = 8
"""Ways to vary; on faces they hold 92 % of the variance: turning, nodding, mouth, brows, build."""

STRAY_DEVIATIONS: Final = 8.0
STRAY_DISTANCE: Final = 0.2
"""A point is stray if it lies farther from where the others put it than 8 of its usual deviations, and than a fifth of
the shape's size. Measured: 2 of 1,000 faces have one, the worst with parts of the jaw drawn in the air."""

MOST_STRAY: Final = 0.2
"""Share of a sample's points that may be stray; with more it is the whole sample that does not fit."""

_NEAR_WORST: Final = 0.7  # points this near the farthest one are left out with it
_NUM_ROUNDS: Final = 8
_NUM_JUDGES: Final = 300  # samples that tell how well a point can be foretold from the others
_FEW_POINTS: Final = 16  # up to so many, one wrong point can hide in the fit: each is left out in turn
_RAYLEIGH_MEDIAN: Final = 1.1774  # median length of a two-dimensional normal deviation, in its standard deviations


@dataclass(frozen=True)
class ShapeScores:
    """How samples look to the model; n samples, K points, lengths as shares of the mean shape's size.

    Attributes:
        distances: Of each point from where the model puts it, given the others, shape (n, K); NaN where not visible.
        deviations: The same in the point's usual deviations, shape (n, K).
        stray: Single points that lie elsewhere, shape (n, K).
        residuals: Root mean square distance of the points that are not stray, shape (n,).
        z: Robust z-score of the residual's logarithm, shape (n,); NaN with fewer than four visible points.
        factors: What scales and turns each sample onto the mean, as a complex number, shape (n,).
    """

    distances: Points
    deviations: Points
    stray: Flags
    residuals: Points
    z: Points
    factors: Complex


@dataclass(frozen=True)
class ShapeModel:
    """What shapes look like, learned from samples that agree.

    Attributes:
        mean: Shape (K,), x + iy, size 1.
        components: Directions of variation, orthonormal over (x, y) of all points, shape (q, 2K).
        variances: Along each of them, shape (q,).
        noise: Usual deviation of each point from the fit, per axis, shape (K,).
        reach: Usual deviation of each point from where the others put it, per axis, shape (K,).
        middle: Median of the logarithm of samples' residuals.
        width: Its robust standard deviation.
    """

    mean: Complex
    components: Points
    variances: Points
    noise: Points
    reach: Points
    middle: float
    width: float

    @classmethod
    def learn(cls, found: Consensus) -> ShapeModel:
        """Learn from the trusted samples of a consensus.

        Args:
            found: At least a handful of trusted samples; points that are not visible count as their mean.

        Returns:
            The model.
        """
        used = found.aligned[found.trusted]
        away = np.nan_to_num(used - found.mean).reshape(len(used), -1)
        components, variances = _principal(away)
        z, seen = to_complex(used, np.broadcast_to(np.isfinite(found.mean).all(axis=1), used.shape[:2]))
        flat = np.full(len(found.mean), 0.05)  # every point weighs alike until the model is made
        model = cls(np.nan_to_num(from_points(found.mean)), components, variances, flat, flat, 0.0, 1.0)
        lengths = np.where(seen, np.abs(model.misfits(z, seen.astype(np.float64))[0]), np.nan)
        logarithms = np.log(np.maximum(_rms(lengths, seen), 1e-9))
        middle = float(np.median(logarithms))
        width = MAD_TO_STD * float(np.median(np.abs(logarithms - middle)))
        model = replace(model, noise=_usual(lengths), middle=middle, width=max(width, 1e-3))
        judges = slice(None, None, max(1, len(z) // _NUM_JUDGES))
        return replace(model, reach=np.maximum(model.noise, _usual(model._foretold(z[judges], seen[judges]))))

    def misfits(self, z: Complex, weights: Points) -> tuple[Complex, Complex]:
        """Fit samples by scale, turn, shift and the components; weighted least squares, two rounds in turns.

        Args:
            z: Finite samples, shape (n, K).
            weights: Of their points, shape (n, K).

        Returns:
            What is left over of each point in the mean's frame, shape (n, K), and the factors, shape (n,).
        """
        a, b = fit_similarity(z, weights, self.mean)
        varied = self.mean + self._variation(a[:, None] * z + b[:, None] - self.mean, weights)
        a, b = fit_similarity(z, weights, varied)
        aligned = a[:, None] * z + b[:, None]
        return aligned - self.mean - self._variation(aligned - self.mean, weights), a

    def _variation(self, away: Complex, weights: Points) -> Complex:
        """Give the part of deviations that the components explain; each is held near 0 by its variance."""
        q, num_points = len(self.components), len(self.mean)
        if not q:
            return np.zeros_like(away)
        basis = from_points(self.components.reshape(q, num_points, 2))
        precision = weights / self.noise**2
        products = (basis[:, None].conj() * basis[None]).real.reshape(q * q, num_points)
        matrices = (precision @ products.T).reshape(-1, q, q) + np.diag(1 / np.maximum(self.variances, 1e-12))
        sides = ((precision * away) @ basis.conj().T).real
        return np.linalg.solve(matrices, sides[..., None])[..., 0] @ basis

    def score(self, z: Complex, seen: Flags) -> ShapeScores:
        """Measure samples against the model.

        Args:
            z: Samples, finite, any unit, shape (n, K); ``to_complex`` gives them.
            seen: Which points count, shape (n, K).

        Returns:
            The scores. Where points lie far off, the fit is repeated without the farthest, so that one wrong point does
            not drag the others along. (Weights that fall with the distance run away here: they settle on half a face.)
        """
        left, factors = self.misfits(z, seen.astype(np.float64))
        plain, lengths = np.where(seen, np.abs(left), np.nan), np.abs(left)
        counts = seen.sum(axis=1)
        allowance = np.sqrt(len(self.mean) / np.maximum(counts, 1))  # fewer points say less
        reach = self.reach * allowance[:, None]
        odd = np.flatnonzero((seen & _is_far(lengths, reach, share=0.5)).any(axis=1))
        lengths[odd], factors[odd] = self._robust(z[odd], seen[odd], lengths[odd], reach[odd])
        stray = seen & _is_far(lengths, reach)
        stray &= ((stray.sum(axis=1) <= MOST_STRAY * counts) & (counts - stray.sum(axis=1) >= 4))[:, None]
        distances = np.where(stray.any(axis=1)[:, None], np.where(seen, lengths, np.nan), plain)
        residuals = _rms(distances, seen & ~stray)
        z_scores = (np.log(np.maximum(residuals, 1e-9)) - self.middle) / (self.width * allowance)
        z_scores[counts < 4] = np.nan
        return ShapeScores(distances, distances / reach, stray, residuals, z_scores, factors)

    def _robust(self, z: Complex, seen: Flags, lengths: Points, reach: Points) -> tuple[Points, Complex]:
        """Fit again without the worst points, and again, until no other lies far or too many do."""
        if len(self.mean) <= _FEW_POINTS:
            lengths = self._without_worst(z, seen)
        kept, factors = seen, np.ones(len(z), np.complex128)
        most = np.maximum(MOST_STRAY * seen.sum(axis=1), 1)
        for _ in range(_NUM_ROUNDS):
            worst = np.where(kept, lengths, 0).max(axis=1, keepdims=True, initial=0)
            dropped = kept & _is_far(lengths, reach, share=0.5) & (lengths >= _NEAR_WORST * worst)
            dropped &= ((seen & ~kept | dropped).sum(axis=1) <= most)[:, None]
            kept = kept & ~dropped
            left, factors = self.misfits(z, kept.astype(np.float64))
            lengths = np.abs(left)
            if not dropped.any():
                break
        return lengths, factors

    def _without_worst(self, z: Complex, seen: Flags) -> Points:
        """Leave out the point without which the others fit best; give all points' distances from that fit."""
        best, least = np.zeros(z.shape), np.full(len(z), np.inf)
        for point in range(z.shape[1]):
            others = seen & (np.arange(z.shape[1]) != point)
            lengths = np.abs(self.misfits(z, others.astype(np.float64))[0])
            better = seen[:, point] & (_rms(lengths, others) < least)
            best[better], least[better] = lengths[better], _rms(lengths, others)[better]
        return best

    def _foretold(self, z: Complex, seen: Flags) -> Points:
        """Give the distance of each point from where the others put it, shape (n, K); NaN where not visible."""
        distances = np.full(z.shape, np.nan)
        for point in range(z.shape[1]):
            others = seen & (np.arange(z.shape[1]) != point)
            distances[:, point] = np.abs(self.misfits(z, others.astype(np.float64))[0][:, point])
        return np.where(seen, distances, np.nan)


def _principal(away: Points) -> tuple[Points, Points]:
    """Give the main directions of deviations, shape (m, 2K), and their variances.

    At most half of the freedom that a similarity leaves, and one for every ten samples, so that noise is not learned.
    """
    num_samples, num_values = away.shape
    most = max(0, min(MOST_COMPONENTS, (num_values - 4) // 4, num_samples // 10))
    values, vectors = np.linalg.eigh(away.T @ away / max(num_samples, 1))
    return vectors[:, ::-1][:, :most].T.copy(), values[::-1][:most].copy()


def _is_far(lengths: Points, reach: Points, *, share: float = 1.0) -> Flags:
    """Say which points lie beyond the thresholds, or a share of them: one wrong point pulls the fit to itself."""
    return (lengths > share * STRAY_DEVIATIONS * reach) & (lengths > share * STRAY_DISTANCE)


def _rms(lengths: Points, counted: Flags) -> NDArray[np.float64]:
    squares = np.where(counted, lengths, 0) ** 2
    return np.sqrt(squares.sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


def _usual(lengths: Points) -> Points:
    """Give each point's deviation per axis from distances of many samples, at least half of the points' median."""
    columns = (column[~np.isnan(column)] for column in lengths.T)
    usual = np.array([np.median(column) if len(column) else 0.0 for column in columns]) / _RAYLEIGH_MEDIAN
    return np.maximum(usual, max(float(np.median(usual)) / 2, 1e-6))
