"""The folder of ``predict --draw``: drawings are known by what is in them, and nothing else is written over."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from headstart.deploy.drawings import check_drawing_folder, drawn_names, is_drawing, write_drawing
from headstart.deploy.keypoint_predictor import KeypointPrediction
from headstart.errors import RunError


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "1.jpg"), np.full((60, 80, 3), 90, np.uint8))
    return tmp_path / "photos" / "1.jpg"


def draw(photo: Path, folder: Path) -> Path:
    points = np.array([[20.0, 30.0], [40.0, 30.0]])
    write_drawing(KeypointPrediction(str(photo), points, (60, 80), None), folder / photo.name)
    return folder / photo.name


def test_a_drawing_is_a_picture_that_says_what_it_is(photo: Path, tmp_path: Path) -> None:
    drawing = draw(photo, tmp_path / "drawn")
    assert cv2.imread(str(drawing)).shape == (60, 80, 3)
    assert is_drawing(drawing)
    assert not is_drawing(photo)


def test_a_photo_without_points_is_not_drawn(photo: Path, tmp_path: Path) -> None:
    write_drawing(KeypointPrediction(str(photo), None, None, "empty"), tmp_path / "drawn" / "1.jpg")
    assert not (tmp_path / "drawn").exists()


def test_an_interrupted_drawing_can_be_done_again_in_the_same_folder(photo: Path, tmp_path: Path) -> None:
    whole = draw(photo, tmp_path / "drawn")
    (tmp_path / "drawn" / "2.jpg").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "drawn" / "3.jpg").write_bytes(b"")
    (tmp_path / "drawn" / ".DS_Store").write_bytes(b"of the file browser")
    note = check_drawing_folder(tmp_path / "drawn", [str(photo), "2.png"])
    assert "holds 3 earlier drawings: those of the same photos are replaced; 1 of other photos stay" in note


@pytest.mark.parametrize("name", ["1.jpg", "2.jpg", ".jpg.jpg", "notes.txt"])
def test_a_folder_with_anything_else_is_refused(photo: Path, tmp_path: Path, name: str) -> None:
    draw(photo, tmp_path / "drawn")
    (tmp_path / "drawn" / name).write_bytes(photo.read_bytes())
    with pytest.raises(
        RunError, match=rf"--draw must be a new or empty folder.*It holds '{name}', which is no drawing"
    ):
        check_drawing_folder(tmp_path / "drawn", [str(photo)])


def test_a_link_to_a_drawing_is_no_drawing(photo: Path, tmp_path: Path) -> None:
    drawing = draw(photo, tmp_path / "drawn")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.jpg").symlink_to(drawing)
    with pytest.raises(RunError, match="which is no drawing"):
        check_drawing_folder(tmp_path / "other", [str(photo)])


def test_drawings_that_are_drawn_on_again_are_not_drawn_over(photo: Path, tmp_path: Path) -> None:
    drawing = draw(photo, tmp_path / "drawn")
    with pytest.raises(RunError, match="--draw must be another folder than the photos'"):
        check_drawing_folder(tmp_path / "drawn", [str(drawing)])


def test_a_file_is_no_folder_to_draw_in(photo: Path) -> None:
    with pytest.raises(RunError, match=r"It is a file\. Name a folder"):
        check_drawing_folder(photo, [str(photo)])


def test_photos_of_one_name_get_drawings_of_their_own() -> None:
    assert list(drawn_names(["a/1.jpg", "b/1.png", "c/1-2.jpg"])) == ["1.jpg", "1-2.jpg", "1-2-2.jpg"]
