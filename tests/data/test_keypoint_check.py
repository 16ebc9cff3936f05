"""What check and train say of a table of keypoints: each thing once, and what to do about it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotated_photos import write
from face_points import FIVE, noisy
from headstart.data.keypoint_check import check_keypoints, word_crowding
from headstart.data.keypoints import KeypointLayout, keypoint_columns, numbered_layout
from headstart.data.table import SampleTable, table_from_keypoints
from headstart.recipe import Recipe

RECIPE = Recipe(task="keypoints")


def table_of(points: np.ndarray, *, paths: list[str] | None = None) -> SampleTable:
    rows = pl.DataFrame({"path": paths or [f"{row}.jpg" for row in range(len(points))]})
    table = table_from_keypoints(
        rows.with_columns(keypoint_columns(points)), root=Path("photos"), layout=numbered_layout(points.shape[1])
    )
    sizes = {"height": pl.lit(120, pl.UInt32), "width": pl.lit(100, pl.UInt32)}
    return replace(table, frame=table.frame.with_columns(**sizes))


def checked(table: SampleTable, recipe: Recipe = RECIPE, **layout: object):
    return check_keypoints(table, replace(numbered_layout(5), **layout), recipe)


def layout_of(table: SampleTable) -> KeypointLayout:
    assert table.keypoints is not None
    return table.keypoints


def test_sides_that_cannot_be_told_apart_are_said_once_with_the_way_out() -> None:
    table, found = checked(table_of(noisy(FIVE, 12)[0]))
    said = "\n".join(found.lines)
    assert said.count("could not be told apart") == 1
    assert "at least 20 are needed. No picture is mirrored; --flip-pairs FILE names the pairs." in found.lines[0]
    assert ".." not in said
    assert (layout_of(table).flip_pairs, layout_of(table).flip_doubt) == (None, "")


@pytest.mark.parametrize(
    ("pairs", "num_samples", "doubt"),
    [
        ("0,1\n3,4\n", 200, ""),
        (
            "0,3\n1,4\n",
            12,
            "of its size away from itself (at most 0.1).",
        ),
        ("0,1\n", 200, "The shapes themselves give other partners to points 3, 4."),
    ],
)
def test_pairs_that_were_given_are_kept_with_what_speaks_against_them(tmp_path, pairs, num_samples, doubt) -> None:
    file = write(tmp_path / "pairs.csv", pairs)
    table, found = checked(table_of(noisy(FIVE, num_samples)[0]), RECIPE.updated(flip_pairs=str(file)))
    layout = layout_of(table)
    assert layout.flip_note == f"{pairs.count(',')} left/right pairs from {file}."
    assert layout.flip_doubt.endswith(doubt)
    assert bool(layout.flip_doubt) is bool(doubt)
    assert ("Careful: " in found.lines[0]) is bool(doubt)
    assert ".." not in found.lines[0]


def crowded() -> SampleTable:
    return table_of(noisy(FIVE, 5)[0], paths=["a.jpg", "a.jpg", "b.jpg", "c.jpg", "c.jpg"])


@pytest.mark.parametrize(
    ("boxes", "way_out"),
    [
        (("bbox",), "--crop-to-box bbox cuts each face out by its box."),
        (("Leye", "Face"), "--crop-to-box Face cuts each face out by its box."),
        (("region",), "--crop-to-box region cuts each face out by its box."),
        ((), "--crop-to-points 0.2 cuts each face out by its points."),
    ],
)
def test_several_faces_in_a_photo_are_said_with_the_box_that_is_there(boxes: tuple[str, ...], way_out: str) -> None:
    _, found = checked(crowded(), box_names=boxes)
    assert found.crowding.startswith("2 photos hold several faces (4 samples), and the network sees each photo whole")
    assert found.crowding.endswith(way_out)
    assert f"Careful: {found.crowding}" in found.lines


@pytest.mark.parametrize("crop", [{"crop_to_box": "bbox"}, {"crop_to_points": 0.2}])
def test_faces_that_are_cut_out_are_no_crowd(crop: dict[str, object]) -> None:
    assert word_crowding(crowded(), numbered_layout(5), RECIPE.updated(**crop)) == ""
    assert word_crowding(table_of(noisy(FIVE, 5)[0]), numbered_layout(5), RECIPE) == ""


def test_faces_that_were_left_out_do_not_crowd_a_photo() -> None:
    table = crowded()
    gone = pl.Series("excluded", [None, "bad annotation", None, "bad annotation", None], dtype=pl.String)
    assert word_crowding(table.with_frame(table.frame.with_columns(gone)), numbered_layout(5), RECIPE) == ""


def test_a_layout_comes_back_from_its_values_also_from_an_older_file() -> None:
    layout = KeypointLayout(("a", "b"), ((0, 1),), "found", "doubted", ("Face",))
    assert KeypointLayout.from_dict(layout.as_dict()) == layout
    old = {"names": ["a", "b"], "flip_pairs": [[0, 1]], "flip_note": "found"}
    assert KeypointLayout.from_dict(old) == KeypointLayout(("a", "b"), ((0, 1),), "found")
