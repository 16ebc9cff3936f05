"""Left and right before the pass over the files: what cannot be is refused in seconds, and not after minutes.

Pairs that contradict the shapes are a mistake in the file; flips are asked for where left and right are not known. Both
can be told from the annotations alone. ``keypoint_check.py`` looks again after the pass, and tells what it found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from headstart.data.flip_pairs import FlipPairs, Pairs, infer_flip_pairs, pairs_to_permutation
from headstart.data.mirror_search import axis_of
from headstart.data.shapes import Consensus, NoShapeError, consensus, from_points
from headstart.errors import RecipeError, SourceError, must_be

if TYPE_CHECKING:
    from headstart.data.shapes import Flags, Points
    from headstart.recipe import Recipe

FAR: Final = 0.3
"""Distance of a point's mirror image from the partner that it was given, as a share of the shape's size, that no chance
explains. Measured with the 68-point table: right partners lie 0.04 away at most for 3,462 faces, 0.27 for 30 of them;
neighbours on an eyelid or a brow that are mixed up lie 0.16 to 0.19 away, the corners of one eye 0.43."""

_FLIPS: Final = ("horizontal_flip", "vertical_flip")
_NUM_NAMED: Final = 4


def check_sides(points: Points, visible: Flags, recipe: Recipe, given: Pairs | None) -> None:
    """Refuse pairs that the shapes plainly contradict, and flips where left and right cannot be told apart.

    Args:
        points: Of the samples as annotated, shape (n, K, 2).
        visible: Shape (n, K).
        recipe: Names the file of the pairs, and the flips that are asked for.
        given: The pairs of that file; None where there is none.

    Raises:
        SourceError: The pairs contradict shapes in which left and right are sure.
        RecipeError: A flip is asked for, and left and right are not known.
    """
    if given is None and not any(getattr(recipe, name) for name in _FLIPS):
        return
    try:
        found = consensus(points, visible, seed=recipe.seed)
        inferred = infer_flip_pairs(points, visible, seed=recipe.seed, found=found)
    except NoShapeError as error:
        if given is None:
            refuse_flips(recipe, word_unsure(str(error)))
        return
    if given is None and not inferred.is_sure:
        refuse_flips(recipe, word_unsure(inferred.reason))
    wrong = word_contradictions(given, inferred, found) if given is not None else ""
    if wrong:
        remedy = "Mend the file, or leave --flip-pairs out: the pairs are found in the shapes."
        raise SourceError(f"--flip-pairs must be points that are each other's mirror image; got {wrong}. {remedy}")


def word_contradictions(given: Pairs, inferred: FlipPairs, found: Consensus) -> str:
    """Name given pairs whose points lie far from each other's mirror image, where the mirror image is sure.

    Args:
        given: Pairs of point numbers.
        inferred: What the shapes say.
        found: The shapes.

    Returns:
        Words for the first of them; empty where nothing is plainly wrong.

    Examples:
        >>> face = np.array([[-30.0, 0.0], [30.0, 0.0], [0.0, 35.0], [-20.0, 60.0], [20.0, 60.0]])
        >>> samples, seen = face + np.random.default_rng(0).normal(size=(200, 5, 2)), np.ones((200, 5), bool)
        >>> word_contradictions(((0, 3),), infer_flip_pairs(samples, seen), consensus(samples, seen))
        'the pair 0, 3 (the mirror image of point 0 is point 1, of point 3 point 4)'
        >>> word_contradictions(((0, 1),), infer_flip_pairs(samples, seen), consensus(samples, seen))
        "points 3 and 4 in no pair (they are each other's mirror image)"
    """
    if not inferred.is_sure:
        return ""
    w = from_points(found.mean)
    w = w - w.mean()
    ours, theirs = pairs_to_permutation(given, len(w)), inferred.permutation(len(w))
    image = axis_of(w, w[theirs]) * w.conj()
    is_wrong = (ours != theirs) & (np.abs(image - w[ours]) > FAR * np.sqrt(np.mean(np.abs(w) ** 2)))
    faults = [
        f"the pair {left}, {right} ({_partners(theirs, left, right)})"
        for left, right in sorted(given)
        if is_wrong[left] or is_wrong[right]
    ]
    alone = ours == np.arange(len(ours))
    faults += [
        f"points {left} and {right} in no pair (they are each other's mirror image)"
        for left, right in inferred.pairs
        if alone[left] and alone[right] and is_wrong[left]
    ]
    more = f"; and {len(faults) - _NUM_NAMED:,} more" if len(faults) > _NUM_NAMED else ""
    return "; ".join(faults[:_NUM_NAMED]) + more


def word_unsure(reason: str) -> str:
    """Say that left and right are not known, and why, in a sentence.

    Examples:
        >>> word_unsure("Only 3 samples agree.")
        'Left and right could not be told apart: Only 3 samples agree.'
    """
    return f"Left and right could not be told apart: {reason.rstrip('.')}."


def refuse_flips(recipe: Recipe, why: str) -> None:
    """Refuse flips that are asked for by name where left and right are not known.

    Args:
        recipe: May ask for them.
        why: Why they are not known, a sentence.

    Raises:
        RecipeError: It does.
    """
    for name in _FLIPS:
        if getattr(recipe, name):
            expected = "0 where left and right points are not known"
            remedy = f"{why} Give --flip-pairs FILE, or leave flips out."
            raise RecipeError(must_be(name, expected, getattr(recipe, name), remedy))


def _partners(theirs: np.ndarray, left: int, right: int) -> str:
    """Say what the mirror images of two points are."""
    one, other = (f"{'itself' if theirs[point] == point else f'point {theirs[point]}'}" for point in (left, right))
    return f"the mirror image of point {left} is {one}, of point {right} {other}"
