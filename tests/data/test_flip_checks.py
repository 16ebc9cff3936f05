"""Pairs and flips that cannot be are refused from the annotations alone, before any photo is opened."""

from pathlib import Path

import numpy as np
import pytest

from annotated_photos import photos, read, write
from face_points import FACE_PAIRS, FIVE, noisy, read_faces
from headstart.data.flip_checks import check_sides, word_contradictions
from headstart.data.flip_pairs import infer_flip_pairs
from headstart.data.shapes import consensus
from headstart.errors import RecipeError, SourceError
from headstart.recipe import Recipe

RECIPE = Recipe(task="keypoints")
FLIPPED = Recipe(task="keypoints", horizontal_flip=0.5)


def contradictions(shape, pairs, **noise) -> str:
    points, visible = noisy(shape, **noise)
    return word_contradictions(pairs, infer_flip_pairs(points, visible), consensus(points, visible))


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (((0, 1), (3, 4)), ""),
        (((1, 0), (4, 3)), ""),
        (((0, 3), (1, 4)), "the pair 0, 3 (the mirror image of point 0 is point 1, of point 3 point 4); the pair 1, 4"),
        (((0, 2), (3, 4)), "the pair 0, 2 (the mirror image of point 0 is point 1, of point 2 itself)"),
        (((0, 1),), "points 3 and 4 in no pair (they are each other's mirror image)"),
    ],
)
def test_a_pair_that_is_no_mirror_image_is_named_with_what_is(pairs, words) -> None:
    assert contradictions(FIVE, pairs).startswith(words)
    assert bool(contradictions(FIVE, pairs)) is bool(words)


def test_neighbours_that_change_partners_are_no_plain_contradiction() -> None:
    shape = np.array([*FIVE, [33.0, 41.0], [67.0, 41.0]])
    assert contradictions(shape, ((0, 6), (1, 5), (3, 4)), noise=0.3) == ""


def test_shapes_that_are_not_sure_contradict_nothing() -> None:
    assert contradictions(FIVE, ((0, 3), (1, 4)), num_samples=10) == ""


def test_contradictions_are_counted_after_four() -> None:
    shape = np.array([[side * (10 + 9 * row), 12.0 * row] for row in range(7) for side in (-1, 1)])
    wrong = tuple((point, point + 2) for point in (0, 1, 4, 5, 8, 9))
    assert contradictions(shape, wrong, noise=0.3).endswith(
        "; and 3 more"
    )  # two pairs, and the last that no line names


def test_pairs_that_the_shapes_contradict_are_refused() -> None:
    with pytest.raises(SourceError, match=r"--flip-pairs must be points that are .*got the pair 0, 3 .*leave --flip-p"):
        check_sides(*noisy(FIVE), RECIPE, ((0, 3), (1, 4)))
    check_sides(*noisy(FIVE), RECIPE, ((0, 1), (3, 4)))


@pytest.mark.parametrize("name", ["horizontal_flip", "vertical_flip"])
def test_flips_are_refused_where_the_shapes_do_not_tell_left_from_right(name: str) -> None:
    recipe = Recipe(task="keypoints", **{name: 0.5})
    with pytest.raises(
        RecipeError, match=rf"{name} must be 0 where .* got 0\.5\. Left and right could not be told apart:"
    ):
        check_sides(*noisy(FIVE, 10), recipe, None)
    check_sides(*noisy(FIVE), recipe, None)
    check_sides(*noisy(FIVE, 10), RECIPE, None)


def test_flips_of_a_single_point_are_refused_too() -> None:
    points, visible = noisy(FIVE[:1])
    with pytest.raises(RecipeError, match="Left and right could not be told apart: "):
        check_sides(points, visible, FLIPPED, None)
    check_sides(points, visible, FLIPPED, ())


def test_both_are_said_before_any_photo_is_opened(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(30)]
    photos(tmp_path, *names)  # of one byte: opening one would fail
    rows = [
        f"{name},{','.join(map(str, points.ravel()))}" for name, points in zip(names, noisy(FIVE, 30)[0], strict=True)
    ]
    header = ",".join(f"x{number},y{number}" for number in range(1, 6))
    table = write(tmp_path / "p.csv", "\n".join([f"path,{header}", *rows]))
    pairs = write(tmp_path / "pairs.csv", "0,3\n1,4\n")
    with pytest.raises(SourceError, match="got the pair 0, 3"):
        read(table, flip_pairs=pairs)
    few = write(tmp_path / "few.csv", "\n".join([f"path,{header}", *rows[:9]]))
    with pytest.raises(RecipeError, match=r"horizontal_flip must be 0 .* Only 9 samples agree with the mean shape"):
        read(few, horizontal_flip=0.5)


@pytest.mark.real_data
def test_the_68_point_table_passes_and_a_slip_in_it_does_not(real_data: Path) -> None:
    points = read_faces(real_data)[0]
    visible = np.ones(points.shape[:2], bool)
    check_sides(points, visible, RECIPE, FACE_PAIRS)
    slipped = (*(pair for pair in FACE_PAIRS if pair not in ((36, 45), (39, 42))), (36, 39), (42, 45))
    with pytest.raises(
        SourceError, match=r"the pair 36, 39 \(the mirror image of point 36 is point 45, of point 39 point 42"
    ):
        check_sides(points, visible, RECIPE, slipped)
