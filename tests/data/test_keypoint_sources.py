"""Keypoint sources as a whole: file names, places, the task's guess, and counts that add up."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from annotated_photos import details, driver, photos, read, seventy, write
from headstart.data.keypoint_guess import looks_like_keypoints
from headstart.data.keypoints import points_of
from headstart.data.sources import guess_task, read_source
from headstart.errors import SourceError
from headstart.recipe import make_recipe
from headstart.resolution import completed

PTS = "version: 1\nn_points: 1\n{\n1 2\n}\n"


# --- file names


def test_named_groups_of_the_file_name_are_columns_and_the_person_is_the_group(tmp_path: Path) -> None:
    photos(tmp_path, "a_x/S1_n_1.jpg", "a_x/S2_m_2.jpg", "odd.jpg")
    text = "path,x1,y1,x2,y2\na_x/S1_n_1.jpg,1,2,3,4\na_x/S2_m_2.jpg,1,2,3,4\nodd.jpg,1,2,3,5\n"
    table = read(write(tmp_path / "p.csv", text), name_pattern=r"^(?P<person>S\d)_(?P<mask>[nm])_")
    assert table.frame["mask"].to_list() == ["n", "m", None]
    assert table.frame["group"].to_list() == ["S1", "S2", None]
    assert any("1 file names do not have that form" in note for note in table.notes)


def test_a_named_group_column_or_pattern_goes_before_the_person(tmp_path: Path) -> None:
    photos(tmp_path, "S1_1.jpg")
    csv = write(tmp_path / "p.csv", "path,x1,y1,x2,y2,where\nS1_1.jpg,1,2,3,4,lab\n")
    assert read(csv, name_pattern=r"(?P<person>S\d)", group_column="where").frame["group"].to_list() == ["lab"]
    assert read(csv, name_pattern=r"(?P<person>S\d)", group_pattern=r"_(\d)").frame["group"].to_list() == ["1"]
    assert read(csv, name_pattern=r"(?P<look>S\d)", group_column="look").frame["group"].to_list() == ["S1"]


def test_a_name_pattern_that_fits_no_name_is_an_error(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    with pytest.raises(SourceError, match=r"--name-pattern must be found in the file names.*look like '1.jpg'"):
        read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n"), name_pattern="(?P<person>S)_")


def test_driver_names_are_left_alone_in_other_layouts(tmp_path: Path) -> None:
    photos(tmp_path, "R_202_40_M_01_M0_G0_C0_01.jpg")
    table = read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\nR_202_40_M_01_M0_G0_C0_01.jpg,1,2,3,4\n"))
    assert "person" not in table.frame.columns


# --- places


def test_an_archive_of_photos_and_points_is_unpacked_and_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("images/가.jpg", b"x")
        archive.writestr("labels/가.json", json.dumps({"points": [[1, 2], [3, 4]]}))
    assert read(tmp_path / "all.zip").kept["path"].to_list() == ["images/가.jpg"]


def packed(archive: Path, files: dict[str, str]) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as written:
            for name, text in files.items():
                written.writestr(name, text)
        return archive
    with tarfile.open(archive, "w:gz") as written:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            written.addfile(info, io.BytesIO(text.encode()))
    return archive


def faces_archive(archive: Path, **labels: str) -> Path:
    """Photos and annotations in twin folders, below one folder."""
    files = {f"faces/images/{name}.jpg": "x" for name in labels}
    return packed(archive, files | {f"faces/labels/{name}.json": text for name, text in labels.items()})


@pytest.mark.parametrize("name", ["faces.zip", "faces.tar.gz"])
def test_annotations_in_an_archive_are_found_without_a_flag(tmp_path: Path, name: str) -> None:
    good = json.dumps(driver("1.jpg", seventy()))
    archive = faces_archive(tmp_path / name, a=good, b=good)
    assert guess_task({"data": str(archive)}) == guess_task({"data": str(archive / "faces")}) == {"task": "keypoints"}
    assert guess_task({"data": str(archive / "faces" / "images")}) == {}
    table = read(archive)
    assert table.kept["path"].to_list() == ["images/a.jpg", "images/b.jpg"]


@pytest.mark.parametrize(
    ("files", "answer"),
    [
        ({"d/points.csv": "path,x1,y1,x2,y2,x3,y3\n1.jpg,1,2,3,4,5,6\n", "d/images/1.jpg": ""}, True),
        ({"d/deep/points.csv": "path,x1,y1,x2,y2,x3,y3\n1.jpg,1,2,3,4,5,6\n", "d/1.jpg": ""}, False),
        ({"a/1.jpg": "", "b/1.pts": PTS}, True),
        ({"a/1.jpg": "", "__MACOSX/1.pts": PTS}, False),
        ({"cat/1.jpg": "", "dog/2.jpg": "", "dog/2.json": '{"label": "dog"}'}, False),
        ({}, False),
    ],
)
def test_keypoints_in_an_archive_are_recognised_by_a_look(tmp_path: Path, files: dict[str, str], answer: bool) -> None:
    assert looks_like_keypoints(packed(tmp_path / "a.zip", files)) is answer


def test_a_damaged_archive_is_looked_at_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b no gzip")
    assert not any(looks_like_keypoints(tmp_path / name) for name in ("a.zip", "a.tar.gz", "nowhere.zip"))


def test_messages_about_an_archive_name_its_own_paths(tmp_path: Path) -> None:
    archive = faces_archive(tmp_path / "faces.zip", a="{", b="{")
    words = (
        r"faces\.zip/faces must be annotations that can be read; got 2 annotation files, all broken: labels/a\.json is"
    )
    with pytest.raises(SourceError, match=words) as caught:
        read(archive)
    assert "unpacked" not in str(caught.value)


def test_notes_and_details_about_an_archive_name_its_own_paths(tmp_path: Path) -> None:
    files = {"points.csv": "path,x1,y1,x2,y2\n1.jpg,10,20,30,40\n9.jpg,10,20,30,40\n", "images/1.jpg": "x"}
    table = read(packed(tmp_path / "faces.zip", files))
    assert details(table) == {"9.jpg": f"missing: no such file, and none of this name below {tmp_path / 'faces.zip'}"}
    assert not any("unpacked" in note for note in table.notes)


def test_a_part_of_an_archive_is_named_like_a_folder(tmp_path: Path) -> None:
    good = json.dumps({"points": [[1, 2], [3, 4]]})
    archive = faces_archive(tmp_path / "faces.zip", a=good, b=good)
    parts = {name: str(archive / "faces" / folder) for name, folder in (("data", "images"), ("annotations", "labels"))}
    table = read_source(make_recipe({"task": "keypoints", **parts}), unpack_dir=tmp_path / "unpacked")
    assert table.kept["path"].to_list() == ["a.jpg", "b.jpg"]
    assert not any("reused" in note for note in table.notes)
    with pytest.raises(SourceError, match=r"--annotations must be .*faces.zip/nowhere'. faces.zip holds no nowhere"):
        read(archive, annotations=archive / "nowhere")


@pytest.mark.parametrize(
    "names", [("1.jpg", "1.json", "2.jpg", "2.json"), ("i/1.jpg", "l/1.json", "i/2.jpg", "l/2.json"),
              ("A/1.jpg", "A/1.json", "B/2.jpg", "B/2.json"), ("1.jpg", "2.jpg", "all.json"),
              ("i/1.jpg", "i/2.jpg", "all.json")],
)  # fmt: skip
def test_annotations_that_are_all_broken_are_said_to_be(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write(tmp_path / "all" / name, '{"a": ' if name.endswith(".json") else "x")
    broken = [name for name in names if name.endswith(".json")]
    number = "1 annotation file, broken" if len(broken) == 1 else "2 annotation files, all broken"
    recipe = make_recipe(completed({"data": str(tmp_path / "all")}))
    with pytest.raises(
        SourceError, match=rf"must be annotations that can be read; got {number}: {broken[0]} is broken"
    ):
        read_source(recipe, unpack_dir=tmp_path / "unpacked")


def test_a_broken_json_does_not_make_classes_keypoints(tmp_path: Path) -> None:
    photos(tmp_path, *(f"{name}/{number}.jpg" for name in ("cat", "dog") for number in range(4)))
    write(tmp_path / "cat" / "1.json", "{")
    assert looks_like_keypoints(tmp_path) is False


def test_annotations_after_thousands_of_photos_are_found(tmp_path: Path) -> None:
    photos(tmp_path, *(f"images/{number}.jpg" for number in range(2100)))
    write(tmp_path / "labels" / "1.json", {"points": [[1, 2], [3, 4]]})
    assert looks_like_keypoints(tmp_path) is True


def test_photos_with_points_that_are_taken_for_classes_say_what_they_are(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"points": [[1, 2], [3, 4]]})
    recipe = make_recipe({"task": "classification", "data": str(tmp_path)})
    with pytest.raises(SourceError, match=r"got photos with annotations of points\. Say --task keypoints"):
        read_source(recipe, unpack_dir=tmp_path / "unpacked")


@pytest.mark.parametrize("name", ["labels", "labels/all.json"])
def test_annotations_may_be_the_data_and_the_photos_named_beside(tmp_path: Path, name: str) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg")
    write(tmp_path / "labels" / "all.json", {"1.jpg": [[1, 2], [3, 4]], "2.jpg": [[5, 6], [7, 8]]})
    table = read(tmp_path / name, image_root=tmp_path / "images")
    assert table.kept["path"].to_list() == ["1.jpg", "2.jpg"]
    assert table.root == tmp_path / "images"


def test_a_table_in_the_folder_of_photos_is_found_and_a_table_of_persons_is_not_in_its_way(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "points.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n")
    write(tmp_path / "persons.csv", "path,person\n1.jpg,A\n")
    assert read(tmp_path).kept.height == 1


def test_two_tables_of_points_are_an_error_that_names_both(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n")
    with pytest.raises(SourceError, match=r"got \['a.csv', 'b.csv'\]. Name the one to use, e.g. --annotations .*a.csv"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("setting", "name"), [("annotations", "nowhere"), ("annotations", "1.txt"), ("image_root", "nowhere")]
)
def test_a_place_that_is_none_is_named(tmp_path: Path, setting: str, name: str) -> None:
    photos(tmp_path, "1.jpg", "1.txt")
    write(tmp_path / "1.json", {"points": [[1, 2], [3, 4]]})
    with pytest.raises(SourceError, match=f"--{setting.replace('_', '-')} must be .*got '.*{name}'"):
        read(tmp_path, **{setting: tmp_path / name})


@pytest.mark.parametrize(
    ("file", "setting", "words"),
    [
        ("p.csv", "points_key", "--points-key must be left out for a table; got 'q'"),
        ("1.json", "path_column", "--path-column must be left out for JSON annotations; got 'q'"),
        ("1.pts", "crop_to_box", "--crop-to-box must be left out for .pts files; got 'q'"),
        ("1.pts", "points_key", "--points-key must be left out for .pts files; got 'q'"),
        ("coco.json", "crop_to_box", "--crop-to-box must be bbox, the box that COCO has; got 'q'"),
        ("coco.json", "points_key", "--points-key must be left out for COCO keypoints; got 'q'"),
    ],
)
def test_a_setting_that_would_not_be_heeded_is_refused(tmp_path: Path, file: str, setting: str, words: str) -> None:
    photos(tmp_path, "1.jpg")
    entry = {"image_id": 1, "keypoints": [1, 2, 2]}
    texts = {
        "p.csv": "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n",
        "1.json": '{"points": [[1, 2], [3, 4]]}',
        "1.pts": PTS,
        "coco.json": json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [entry]}),
    }
    write(tmp_path / file, texts[file])
    with pytest.raises(SourceError, match=words):
        read(tmp_path, **{setting: "q"})


def test_a_loop_of_links_is_left(tmp_path: Path) -> None:
    photos(tmp_path / "all", "a/1.jpg")
    write(tmp_path / "all" / "a" / "1.json", {"points": [[1, 2], [3, 4]]})
    (tmp_path / "all" / "a" / "up").symlink_to(tmp_path / "all")
    table = read(tmp_path / "all")
    assert table.kept.height == 1
    assert any("'a/up'" in note for note in table.notes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "got none. Name them: --annotations"),
        ({"1.jpg": ""}, "got none. Name them: --annotations"),
        ({"1.jpg": "", "who.csv": "path,who\n1.jpg,A\n"}, "tables without points: 'who.csv'"),
        ({"1.jpg": "", "1.json": "{}", "1.pts": "{}"}, "one form of annotations; got"),
        (
            {"1.jpg": "", **{f"{n}.json": "{" for n in range(3)}},
            "got 3 annotation files, all broken: 0.json is broken JSON at line 1, column 2",
        ),
        ({"1.jpg": "", "1.json": "[]"}, "annotations with a list of points; got none in 1 looked at"),
        ({"1.jpg": "", "1.json": "[" * 100_000}, "is nested too deeply"),
        ({"1.jpg": "", "1.json": '{"a":' * 5000 + "1" + "}" * 5000}, "too deeply|got none"),
        ({"1.jpg": "", "1.json": "1" * 5000}, "cannot be read: Exceeds the limit"),
        ({"1.jpg": "", "1.json": "[[[[1, 2]]]]"}, "got none"),
        ({"1.json": '{"points": [[1, 2], [3, 4]]}'}, "a folder of photos; got 'no image'"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path, files: dict[str, str], words: str) -> None:
    (tmp_path / "all").mkdir()
    for name, text in files.items():
        write(tmp_path / "all" / name, text)
    with pytest.raises(SourceError, match=words):
        read(tmp_path / "all")


def test_a_json_that_is_a_list_of_points_is_read(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    for number in (1, 2):
        write(tmp_path / f"{number}.json", [[number, 2], [3, 4], [5, 6]])
    assert points_of(read(tmp_path).kept)[:, 0, 0].tolist() == [1, 2]


def test_a_json_that_may_not_be_read_is_excluded(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "1.json", {"points": [[1, 2], [3, 4]]})
    (tmp_path / "2.json").symlink_to(tmp_path / "nowhere.json")
    assert details(read(tmp_path)) == {"2.jpg": "bad annotation: 2.json cannot be read: No such file or directory"}


def test_a_label_column_says_nothing_of_keypoints(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--label-column must be left out for keypoints; got 'mask'"):
        read(tmp_path, label_column="mask")


@pytest.mark.parametrize("seed", range(5))
def test_found_is_kept_and_excluded_whatever_is_wrong(tmp_path: Path, seed: int) -> None:
    """Every photo and every annotation is in the table, whichever of them are broken, doubled or missing."""
    draw = np.random.default_rng(seed)
    kinds = draw.integers(0, 6, 40)
    num_annotations = 0
    for number, kind in enumerate([0, 0, 0, *kinds]):
        if kind != 1:
            photos(tmp_path / "images", f"{number}.jpg")
        points: list[object] = seventy()[: 138 if kind == 2 else 140]
        text = "{" if kind == 3 else driver(f"{number}.jpg", [None, *points[1:]] if kind == 4 else points)
        if kind != 5:
            write(tmp_path / "labels" / f"{number}.json", text)
            num_annotations += 1
    table = read(tmp_path / "images", annotations=tmp_path / "labels")
    assert table.frame.height == num_annotations + (kinds == 5).sum()
    assert table.kept.height == 3 + (kinds == 0).sum()
    expected = {"missing": (kinds == 1).sum(), "bad annotation": np.isin(kinds, (2, 3, 4)).sum()}
    assert table.excluded_counts == {k: v for k, v in {**expected, "no annotation": (kinds == 5).sum()}.items() if v}


# --- guessing the task


@pytest.mark.parametrize(
    ("files", "answer"),
    [
        ({"p.csv": "path,x1,y1,x2,y2,x3,y3\n1.jpg,1,2,3,4,5,6\n"}, True),
        ({"p.csv": "path,nose_x,nose_y\n1.jpg,1,2\n"}, True),
        ({"p.csv": "path,x1,y1,x2,y2,class\n1.jpg,1,2,3,4,cat\n"}, False),
        ({"p.csv": "path,label\n1.jpg,cat\n"}, False),
        ({"p.csv": "path,label,0,1,2,3\n1.jpg,cat,1,2,3,4\n"}, False),
        ({"p.csv": ""}, False),
        ({"a/1.jpg": "", "a/1.pts": PTS}, True),
        ({"a/1.jpg": "", "a/2.pts": PTS}, False),
        ({"a/1.jpg": "", "a/1.json": json.dumps(driver("1.jpg", seventy()))}, True),
        ({"a/1.jpg": "", "a/1.json": '{"label": "cat"}'}, False),
        ({"cat/1.jpg": "", "dog/2.jpg": ""}, False),
        ({}, False),
    ],
)
def test_keypoints_are_recognised_by_a_look(tmp_path: Path, files: dict[str, str], answer: bool) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert looks_like_keypoints(tmp_path) is answer


# --- real data


@pytest.mark.real_data
def test_the_udacity_faces_are_read_as_they_stand(real_data: Path) -> None:
    folder = real_data / "face_keypoints_udacity"
    table = read(folder / "training_frames_keypoints.csv", image_root=folder / "training")
    assert (table.frame.height, table.kept.height) == (3462, 3462)
    assert points_of(table.kept).shape == (3462, 68, 2)
    assert points_of(table.kept)[0, :2].tolist() == [[45, 98], [47, 106]]
    beside = read(folder / "training", annotations=folder / "training_frames_keypoints.csv")
    assert beside.frame.equals(table.frame)


@pytest.mark.real_data
def test_real_label_data_is_not_taken_for_keypoints(real_data: Path) -> None:
    names = ("scenes_intel100", "ck48_emotion_by_subject", "bccd_boxes", "bccd_boxes/annotations.csv")
    assert not any(looks_like_keypoints(real_data / name) for name in names)
    assert looks_like_keypoints(real_data / "face_keypoints_udacity")


def test_a_photo_whose_name_is_no_text_is_in_the_table(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"points": [[1, 2], [3, 4]]})
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this disk takes no such name")
    assert read(tmp_path).excluded_counts == {"no annotation": 1}
