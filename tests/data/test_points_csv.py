"""Converting: any form of annotations becomes one CSV, which is read back as the same samples."""

import zipfile
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import headstart
from annotated_photos import driver, layout_of, photos, read, seventy, write
from headstart.cli import main
from headstart.data.table import SampleTable
from headstart.errors import HeadstartError
from headstart.progress import console


def same_samples(again: SampleTable, table: SampleTable) -> None:
    assert_frame_equal(again.frame.drop("sample_id"), table.kept.drop("sample_id"))
    assert layout_of(again) == layout_of(table)


def driver_state(root: Path) -> Path:
    for number, person in enumerate((201, 202, 202)):
        name = f"R_{person}_40_F_01_M0_G1_C0_0{number}"
        photos(root / "사진", f"{person}/{name}.jpg")
        write(root / "labels" / f"{person}" / f"{name}.json", driver(f"{name}.jpg", seventy(100 + number / 3)))
    return root


def test_driver_state_data_comes_back_the_same(tmp_path: Path) -> None:
    root = driver_state(tmp_path)
    table = headstart.convert(
        root / "사진", annotations=root / "labels", crop_to_box="Face", out=tmp_path / "points.csv"
    )
    header = (tmp_path / "points.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("path,x1,y1,x2,y2,")
    assert ",x70,y70,face_x1,face_y1,face_x2,face_y2,group,face_visible,leye_visible,leye_opened" in header
    same_samples(read(tmp_path / "points.csv", image_root=root / "사진", crop_to_box="face"), table)


def test_hidden_points_boxes_and_names_come_back_the_same(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg")
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    faces = [(1, [5.25, 6, 2, 0, 0, 0]), (1, [50, 6, 2, 7, 8, 1]), (2, [5, 6, 1, 7.1, 8, 1])]
    entries = [{"image_id": i, "category_id": 1, "keypoints": k, "bbox": [1, 2, 60, 20]} for i, k in faces]
    whole = {"images": images, "annotations": entries, "categories": [{"id": 1, "keypoints": ["left eye", "코"]}]}
    label = write(tmp_path / "coco.json", whole)
    table = headstart.convert(tmp_path / "images", annotations=label, out=tmp_path / "points.csv")
    header = (tmp_path / "points.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("path,left eye_x,left eye_y,코_x,코_y,left eye_v,코_v,box_x1")
    same_samples(read(tmp_path / "points.csv", image_root=tmp_path / "images"), table)


@pytest.mark.parametrize("names", [["x_1", "box"], ["1", "2"], ["a", "A"], ["v", "y"], ["eye.x", "eye"], ["1", "nose"]])
def test_names_that_a_header_cannot_hold_become_numbers(tmp_path: Path, names: list[str]) -> None:
    photos(tmp_path / "images", "1.jpg")
    entry = {"image_id": 1, "category_id": 1, "keypoints": [5, 6, 2, 7, 8, 2]}
    whole = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [entry],
        "categories": [{"id": 1, "keypoints": names}],
    }
    label = write(tmp_path / "coco.json", whole)
    table = headstart.convert(tmp_path / "images", annotations=label, out=tmp_path / "points.csv")
    again = read(tmp_path / "points.csv", image_root=tmp_path / "images")
    assert again.kept["keypoints"].to_list() == table.kept["keypoints"].to_list()


def test_what_is_left_out_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.cache_clear()
    photos(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    write(tmp_path / "labels" / "1.json", {"points": [[1, 2], [3, 4]]})
    write(tmp_path / "labels" / "2.json", "{")
    headstart.convert(tmp_path / "images", annotations=tmp_path / "labels", out=tmp_path / "points.csv")
    printed = capsys.readouterr().out
    assert "left out, bad annotation: 1\n  2.jpg: 2.json is broken JSON at line 1, column 2" in printed
    assert "left out, no annotation: 1\n  3.jpg: nothing annotates it" in printed
    assert "3 samples found: 1 written, 2 left out" in printed
    assert pl.read_csv(tmp_path / "points.csv").rows() == [("1.jpg", 1.0, 2.0, 3.0, 4.0)]


def test_many_left_out_are_counted_after_twenty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.cache_clear()
    photos(tmp_path, *(f"{number}.jpg" for number in range(30)))
    write(tmp_path / "1.json", {"points": [[1, 2], [3, 4]]})
    headstart.convert(tmp_path, out=tmp_path / "out" / "points.csv")
    printed = capsys.readouterr().out
    assert printed.count("nothing annotates it") == 20
    assert "  and 9 more\n" in printed


def test_a_csv_of_an_archive_says_how_it_is_read_and_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.cache_clear()
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("images/1.jpg", b"x")
        archive.writestr("labels/1.json", '{"points": [[1, 2], [3, 4]]}')
    out = tmp_path / "points.csv"
    first = headstart.convert(tmp_path / "faces.zip", out=out)
    printed = capsys.readouterr().out
    assert f"to read the CSV, give {tmp_path / 'faces.zip'} --annotations {out}." in printed
    assert "--image-root" not in printed
    again = read(tmp_path / "faces.zip", annotations=out)
    assert again.kept["path"].to_list() == first.kept["path"].to_list() == ["images/1.jpg"]


def test_the_file_that_is_read_is_never_written(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    csv = write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n")
    with pytest.raises(HeadstartError, match=r"--out must be another file than the one that is read; got '.*p.csv'"):
        headstart.convert(csv, out=csv)
    with pytest.raises(HeadstartError, match=r"--out must be another file"):
        headstart.convert(tmp_path, out=csv)


def test_out_must_be_a_csv(tmp_path: Path) -> None:
    with pytest.raises(
        HeadstartError, match=r"--out must be the name of a CSV file; got '.*points.parquet'. Try .*points.csv"
    ):
        headstart.convert(tmp_path, out=tmp_path / "points.parquet")


def test_a_recipe_for_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="task must be keypoints, to convert them; got 'classification'"):
        headstart.convert(tmp_path, out=tmp_path / "points.csv", recipe=headstart.Recipe())


@pytest.mark.real_data
def test_real_faces_come_back_the_same(real_data: Path, tmp_path: Path) -> None:
    folder, pattern = real_data / "face_keypoints_udacity", r"^(?P<person>.+)_\d+\.jpg$"
    label, out = folder / "training_frames_keypoints.csv", tmp_path / "points.csv"
    table = headstart.convert(folder / "training", annotations=label, name_pattern=pattern, out=out)
    assert table.frame["group"].n_unique() == 347
    same_samples(read(out, image_root=folder / "training"), table)


def test_the_command_writes_the_csv_and_refuses_bad_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = driver_state(tmp_path), tmp_path / "points.csv"
    for flags, code in ((("--crop-to-box", "Face"), 0), (("--crop-to-bux", "Face"), 2), (("--epochs", "3"), 2)):
        console.cache_clear()
        with pytest.raises(SystemExit) as stop:
            main(["convert", str(root / "사진"), "--annotations", str(root / "labels"), "--out", str(out), *flags])
        assert stop.value.code == code
    assert pl.read_csv(out).height == 3
    assert "Did you mean '--crop-to-box'?" in capsys.readouterr().err
