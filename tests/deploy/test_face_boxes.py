"""The table of faces that ``predict --boxes`` reads: each photo has a box, or the reason why not."""

from pathlib import Path

import numpy as np
import pytest

from headstart.deploy.face_boxes import check_boxes, read_boxes, word_outside
from headstart.errors import RecipeError, SourceError

HEADER = "path,left,top,right,bottom"


def table(folder: Path, *rows: str) -> Path:
    (folder / "boxes.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    return folder / "boxes.csv"


def test_a_box_goes_to_its_own_photo_only(tmp_path: Path) -> None:
    found = read_boxes(table(tmp_path, "a/x.jpg,1,2,30,40"), ["a/x.jpg", "b/x.jpg"])
    assert found.sides[0].tolist() == [1, 2, 30, 40]
    assert found.problems == (None, "no box: boxes.csv has none for this photo")


@pytest.mark.parametrize("photo", ["a/x.jpg", "{folder}/a/x.jpg", "elsewhere/x.jpg"])
def test_a_photo_is_found_by_its_path_from_the_table_or_by_its_name(tmp_path: Path, photo: str) -> None:
    found = read_boxes(table(tmp_path, "a/x.jpg,1,2,30,40"), [photo.format(folder=tmp_path)])
    assert (found.sides.tolist(), found.num_unusable) == ([[1, 2, 30, 40]], 0)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("30,2,1,40", "bad box: boxes.csv row 3 must be left < right and top < bottom; got 30, 2, 1, 40"),
        ("1,2,,40", "bad box: boxes.csv row 3 must be four numbers; got 1, 2, nothing, 40"),
        ("1,2,wide,40", "bad box: boxes.csv row 3 must be four numbers; got 1, 2, wide, 40"),
        ("1,2,inf,40", "bad box: boxes.csv row 3 must be four numbers; got 1, 2, inf, 40"),
        ("0.1,0.2,0.5,1", "must be in pixels, not shares of width and height; got 0.1, 0.2, 0.5, 1"),
    ],
)
def test_a_bad_row_costs_its_own_photo_alone(tmp_path: Path, cells: str, words: str) -> None:
    found = read_boxes(table(tmp_path, "x.jpg,1,2,30,40", f"y.jpg,{cells}"), ["x.jpg", "y.jpg"])
    assert found.problems[0] is None
    assert words in str(found.problems[1])
    assert found.num_unusable == 1


def test_two_faces_in_one_photo_are_not_chosen_from(tmp_path: Path) -> None:
    file = table(tmp_path, "x.jpg,1,2,30,40", "y.jpg,1,2,30,40", "x.jpg,50,2,90,40", "y.jpg,1,2,30,40")
    found = read_boxes(file, ["x.jpg", "y.jpg"])
    assert found.problems == ("no single box: rows 2 and 4 of boxes.csv give several for this photo", None)


def test_a_table_without_any_usable_box_is_refused_with_the_reasons(tmp_path: Path) -> None:
    file = table(tmp_path, "x.jpg,0.1,0.2,0.5,0.6")
    with pytest.raises(SourceError, match=r"a box for one of the photos at least; got x\.jpg: bad box: .*not shares"):
        read_boxes(file, ["x.jpg", "z.jpg"])
    with pytest.raises(SourceError, match=r"z\.jpg: no box: boxes\.csv has none.*\(and 2 more\)\. Give left, top"):
        read_boxes(file, [f"{letter}.jpg" for letter in "zyxwv"])


def test_a_table_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("path,left,top\nx.jpg,1,2\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"got \['path', 'left', 'top'\]. It lacks right, bottom"):
        read_boxes(tmp_path / "boxes.csv", ["x.jpg"])


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[1, 2, 3]], r"boxes must be of shape \(1, 4\), one \(left, top, right, bottom\) a photo; got \(1, 3\)"),
        ([[5, 2, 3, 9]], r"boxes\[0\] must be left < right and top < bottom; got \[5.0, 2.0, 3.0, 9.0\]"),
        ([[0, 0, 0.5, 1]], r"boxes\[0\] must be in pixels, not shares of width and height; got"),
        ([[0, 0, np.nan, 9]], r"boxes\[0\] must be four numbers; got"),
    ],
)
def test_boxes_from_python_that_are_none_are_refused(boxes: list, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_boxes(np.array(boxes, float), 1)


@pytest.mark.parametrize(
    ("box", "is_outside"),
    [
        ((10, 10, 50, 50), False),
        ((-60, 10, 70, 50), False),
        ((150, 60, 240, 130), False),
        ((210, 10, 250, 50), True),
        ((10, -90, 50, -20), True),
    ],
)
def test_a_box_whose_middle_lies_outside_is_of_another_photo(box: tuple, is_outside: bool) -> None:
    assert (word_outside(np.array(box, float), (100, 200)) is not None) is is_outside
