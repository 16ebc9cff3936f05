"""Points in JSON, in any usual shape, one file per photo or one for all; a file that is wrong is named."""

import unicodedata
from pathlib import Path

import pytest

from annotated_photos import details, driver, layout_of, photos, read, seventy, write
from headstart.data.keypoints import boxes_of, points_of
from headstart.errors import SourceError

# --- one JSON per photo


def test_the_driver_state_layout_needs_no_flag(tmp_path: Path) -> None:
    names = [f"R_202_40_M_01_M{number}_G0_C0_0{number}" for number in range(3)]
    for name in names:
        photos(tmp_path / "images" / "a", f"{name}.jpg")
        write(tmp_path / "labels" / "a" / f"{name}.json", driver(f"{name}.jpg", seventy()))
    table = read(tmp_path / "images", annotations=tmp_path / "labels", crop_to_box="Face")
    assert table.kept.height == 3
    assert layout_of(table).num_keypoints == 70
    assert boxes_of(table.kept)[0].tolist() == [10, 20, 110, 220]
    assert table.frame["leye_opened"].to_list() == ["false"] * 3
    assert table.frame["mouth_opened"].to_list() == ["true"] * 3
    assert table.frame["mask"].to_list() == ["M0", "M1", "M2"]
    assert table.frame["group"].to_list() == ["202"] * 3
    assert {"look", "person", "age", "sex", "scene", "glasses", "cap", "frame"} <= set(table.frame.columns)
    assert "labels was read as driver-state data: points at 'ObjectInfo.KeyPoints.Points'." in table.notes
    assert any("form of driver-state data" in note for note in table.notes)


def test_a_box_of_the_driver_state_may_be_named_by_its_whole_path(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", driver("1.jpg", seventy()))
    table = read(tmp_path, crop_to_box="ObjectInfo.BoundingBox.Leye")
    assert boxes_of(table.kept).tolist() == [[30, 40, 50, 60]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"FileInfo": ', "1.json is broken JSON at line 1, column 14: Expecting value"),
        ("", "1.json is empty"),
        (driver("1.jpg", seventy()[:138]), "1.json has 69 points, the others 70"),
        (driver("1.jpg", seventy(), count=69), "1.json counts 69 points and lists 70"),
        (driver("1.jpg", seventy()[:139], count=70), "1.json has 139 numbers, which make no pairs"),
        (driver("1.jpg", ["nan", *seventy()[1:]]), "1.json point 0 (counted from 0) is at (nan, 100.25)"),
        (driver("1.jpg", ["left", *seventy()[1:]]), '1.json number 1 of 140 is "left"'),
        (driver("1.jpg", [None, *seventy()[1:]]), "1.json number 1 of 140 is null"),
        (driver("1.jpg", [True, *seventy()[1:]]), "1.json number 1 of 140 is true"),
        (driver("1.jpg", ["1e999", *seventy()[1:]]), "1.json point 0 (counted from 0) is at (inf, 100.25)"),
        (driver("1.jpg", [10**400, *seventy()[1:]]), "1.json number 1 of 140 is 1000"),
        (driver("1.jpg", seventy(), boxes={"Face": {"Position": [0, 0, 0, 0]}}), "1.json box 'Face' has no area"),
        (driver("1.jpg", seventy(), boxes={"Hand": {}}), "1.json has no box 'Face'"),
        (driver("1.jpg", seventy(), boxes={"Face": {"Position": None}}), "1.json box 'Face' is not four numbers: null"),
    ],
)
def test_a_bad_json_is_excluded_and_says_why(tmp_path: Path, content: object, words: str) -> None:
    photos(tmp_path, *(f"{number}.jpg" for number in range(1, 6)))
    for number in range(2, 6):
        write(tmp_path / f"{number}.json", driver(f"{number}.jpg", seventy()))
    write(tmp_path / "1.json", content)
    table = read(tmp_path, crop_to_box="Face")
    assert table.kept.height == 4
    assert details(table)["1.jpg"].startswith(f"bad annotation: {words}")


def test_a_photo_without_json_and_a_json_without_photo_are_named(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "1.json", driver("1.jpg", seventy()))
    write(tmp_path / "3.json", driver("drei.jpg", seventy()))
    assert details(read(tmp_path)) == {
        "2.jpg": "no annotation: nothing annotates it",
        "drei.jpg": "missing: 3.json: its photo 'drei.jpg' is not here",
    }


def test_an_empty_list_of_points_is_no_annotation(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    write(tmp_path / "1.json", driver("1.jpg", seventy()))
    write(tmp_path / "2.json", driver("2.jpg", []))
    write(tmp_path / "3.json", driver("3.jpg", [], count=70))
    found = details(read(tmp_path))
    assert found["2.jpg"] == "no annotation: 2.json has no points"
    assert found["3.jpg"] == "bad annotation: 3.json counts 70 points and lists 0"


def test_files_pair_by_place_then_by_the_stated_name_then_by_their_own(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a/1.jpg", "a/2.jpg", "a/3.jpg")
    points = [[10, 20], [30, 40], [50, 60]]
    write(tmp_path / "labels" / "a" / "1.json", {"points": points})
    write(tmp_path / "labels" / "else" / "x.json", {"file_name": "2.jpg", "points": points})
    write(tmp_path / "labels" / "else" / "3.json", {"points": points})
    table = read(tmp_path / "images", annotations=tmp_path / "labels")
    assert table.kept["path"].to_list() == ["a/1.jpg", "a/2.jpg", "a/3.jpg"]
    assert any("1 by place, 1 by stated name, 1 by own name" in note for note in table.notes)


def test_twin_trees_in_one_folder_pair_by_the_folders_they_share(tmp_path: Path) -> None:
    photos(tmp_path, "images/a/1.jpg", "images/b/1.jpg")
    write(tmp_path / "labels" / "a" / "1.json", {"points": [[10, 20], [30, 40], [50, 60]]})
    write(tmp_path / "labels" / "b" / "1.json", {"points": [[11, 20], [30, 40], [50, 60]]})
    table = read(tmp_path)
    assert points_of(table.kept)[:, 0, 0].tolist() == [10, 11]
    assert table.kept["path"].to_list() == ["images/a/1.jpg", "images/b/1.jpg"]


def test_a_json_that_fits_two_photos_alike_is_left_out_and_both_are_named(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a/1.jpg", "b/1.jpg", "2.jpg")
    for name in ("1", "2"):
        write(tmp_path / "labels" / f"{name}.json", {"points": [[10, 20], [30, 40], [50, 60]]})
    found = details(read(tmp_path / "images", annotations=tmp_path / "labels"))
    assert found["1.json"] == "missing: 1.json fits several photos alike: 'a/1.jpg' and 'b/1.jpg'"
    assert found["a/1.jpg"].startswith("no annotation")


def test_a_json_that_states_another_photo_than_its_place_is_said(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "1.json", driver("2.jpg", seventy()))
    write(tmp_path / "2.json", driver("2.jpg", seventy()))
    assert any("1 annotations state another photo" in note and "'1.json'" in note for note in read(tmp_path).notes)


def test_two_annotations_of_one_photo_count_once_if_alike_and_not_if_they_differ(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg")
    for name, folder, start in (("1", "a", 100), ("1", "b", 100), ("2", "a", 100), ("2", "b", 101)):
        write(tmp_path / "labels" / folder / f"{name}.json", driver(f"{name}.jpg", seventy(start)))
    table = read(tmp_path / "images", annotations=tmp_path / "labels")
    assert table.kept["path"].to_list() == ["1.jpg"]
    assert table.frame["detail"].drop_nulls().to_list() == [
        "b/1.json says the same of '1.jpg' as a/1.json",
        "a/2.json gives other points for '2.jpg' than b/2.json",
        "b/2.json gives other points for '2.jpg' than a/2.json",
    ]


@pytest.mark.parametrize(
    "points",
    [
        [10, 20, 30, 40, 50, 60],
        ["10", "20", "30.0", "40", "50", "60"],
        [10, 20, 2, 30, 40, 1, 50, 60, 2],
        [[10, 20], [30, 40], [50, 60]],
        [["10", "20"], ["30", "40"], ["50", "60"]],
        [[10, 20, 1], [30, 40, 1], [50, 60, 2]],
        [[10, 20, -3.5], [30, 40, 0.25], [50, 60, 9.0]],
        [{"x": 10, "y": 20}, {"x": 30, "y": 40}, {"x": "50", "y": "60"}],
        [
            {"name": "a", "x": 10, "y": 20, "visible": True},
            {"name": "b", "x": 30, "y": 40},
            {"name": "c", "x": 50, "y": 60},
        ],
        {"a": [10, 20], "b": [30, 40], "c": [50, 60]},
        {"a": {"x": 10, "y": 20}, "b": {"x": 30, "y": 40}, "c": {"x": 50, "y": 60}},
    ],
)
def test_points_are_found_in_every_usual_shape(tmp_path: Path, points: object) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"version": 2, "size": [640, 480], "deep": {"er": {"face": points}}})
    table = read(tmp_path)
    assert points_of(table.kept).tolist() == [[[10, 20], [30, 40], [50, 60]]]
    assert any("'deep.er.face' (3 points)" in note for note in table.notes)


def test_the_points_of_labelme_shapes_are_one_sample_with_names(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    shapes = [{"label": name, "points": [[x, x + 1]], "shape_type": "point"} for name, x in (("nose", 5), ("chin", 9))]
    write(tmp_path / "1.json", {"shapes": shapes, "imagePath": "1.jpg", "imageData": "A" * 1000})
    table = read(tmp_path)
    assert points_of(table.kept).tolist() == [[[5, 6], [9, 10]]]
    assert layout_of(table).names == ("nose", "chin")
    assert "imageData" not in table.frame.columns


def test_named_points_are_matched_by_name_whatever_their_order(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    whole = {"nose": [10, 20], "chin": [30, 40], "brow": [50, 60]}
    for number in (1, 2):
        write(tmp_path / f"{number}.json", {"points": whole})
    write(tmp_path / "3.json", {"points": {"brow": [50, 60], "chin": [30, 40], "nose": [10, 20]}})
    write(tmp_path / "4.json", {"points": {"brow": [50, 60], "chin": [30, 40], "ear": [10, 20]}})
    table = read(tmp_path)
    assert (points_of(table.kept) == points_of(table.kept)[0]).all()
    assert details(table) == {"4.jpg": "bad annotation: 4.json has no point 'nose'"}


def test_two_lists_that_could_be_meant_are_an_error_that_names_both(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"left": [[1, 2], [3, 4], [5, 6]], "right": [[1, 2], [3, 4], [5, 6], [7, 8]]})
    with pytest.raises(SourceError, match=r"'right' \(4 points, in 1 of 1\); 'left' \(3 points.*--points-key right"):
        read(tmp_path)
    assert points_of(read(tmp_path, points_key="left").kept).shape == (1, 3, 2)


def test_the_list_that_is_called_points_is_meant(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"outline": [[1, 2], [3, 4], [5, 6]], "landmarks": [[7, 8], [3, 4], [5, 6], [7, 8]]})
    assert points_of(read(tmp_path).kept)[0, 0].tolist() == [7, 8]


def test_a_points_key_that_is_nowhere_names_those_that_are(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"face": {"points": [[10, 20], [30, 40]]}})
    with pytest.raises(
        SourceError, match=r"--points-key must be a key of .*got 'points'. Lists of points stand at 'face.points'"
    ):
        read(tmp_path, points_key="points")


def test_one_face_of_several_is_named_by_its_number_and_all_by_brackets(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    faces = [{"pts": [[x, 1], [x, 2]], "box": [x, 0, x + 10, 10]} for x in (20, 40)]
    write(tmp_path / "1.json", {"faces": faces})
    assert points_of(read(tmp_path, points_key="faces[1].pts").kept)[:, 0, 0].tolist() == [40]
    both = read(tmp_path, points_key="faces[].pts", crop_to_box="box")
    assert boxes_of(both.kept)[:, 0].tolist() == [20, 40]
    assert both.kept["group"].to_list() == ["1.jpg", "1.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_json_is_read_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    photos(tmp_path, "사진/가나.jpg")
    write(tmp_path / "라벨" / "x.json", {"파일": "가나.jpg", "점": [[1, 2], [3, 4], [5, 6]]}, encoding=encoding)
    assert read(tmp_path).kept["path"].to_list() == ["사진/가나.jpg"]


def test_a_name_in_another_normal_form_pairs(tmp_path: Path) -> None:
    name = "한글"
    photos(tmp_path, unicodedata.normalize("NFD", name) + ".jpg")
    write(tmp_path / f"{unicodedata.normalize('NFC', name)}.json", {"points": [[1, 2], [3, 4]]})
    assert read(tmp_path).kept.height == 1


def test_a_box_that_is_nowhere_is_refused_with_those_that_are(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    for number in (1, 2):
        write(tmp_path / f"{number}.json", driver(f"{number}.jpg", seventy()))
    words = r"--crop-to-box must be a box of .*; got 'Nose'. Boxes there are: 'Face', 'Leye', 'Mouth'\."
    with pytest.raises(SourceError, match=words):
        read(tmp_path, crop_to_box="Nose")
    with pytest.raises(SourceError, match=r"got 'Fase'\. Did you mean 'Face'\? Boxes there are"):
        read(tmp_path, crop_to_box="Fase")
    assert layout_of(read(tmp_path)).box_names == ("Face", "Leye", "Mouth")


def test_points_are_no_box_and_data_without_one_says_so(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    write(tmp_path / "1.json", {"points": [10, 20, 30, 40], "size": [640, 480]})
    with pytest.raises(SourceError, match=r"got 'face'\. There is no box at all"):
        read(tmp_path, crop_to_box="face")


def test_the_only_face_of_a_list_has_its_own_box(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    faces = [{"pts": [[x, 1], [x, 2]], "box": [x, 0, x + 10, 10]} for x in (20, 40)]
    write(tmp_path / "1.json", {"faces": faces})
    write(tmp_path / "2.json", {"faces": faces[1:]})
    table = read(tmp_path, points_key="faces[].pts", crop_to_box="box")
    assert boxes_of(table.kept)[:, 0].tolist() == [20, 40, 40]
    assert layout_of(table).box_names == ("box",)


# --- one JSON for all


def test_a_list_of_records_is_read_and_its_words_are_columns(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg")
    records = [{"image": f"{n}.jpg", "person": f"P{n}", "age": 30, "points": [[n, 2], [3, 4]]} for n in (1, 2)]
    table = read(tmp_path / "images", annotations=write(tmp_path / "all.json", records), group_column="person")
    assert table.frame["group"].to_list() == ["P1", "P2"]
    assert table.frame["age"].to_list() == ["30", "30"]
    assert table.frame["path"].to_list() == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize("wrap", [lambda records: records, lambda records: {"version": 1, "data": records}])
@pytest.mark.parametrize("keys", [("1.jpg", "2.jpg"), ("1", "2"), ("images/1.jpg", "images/2.jpg")])
def test_an_object_keyed_by_file_name_is_read(tmp_path: Path, wrap, keys: tuple[str, str]) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg")
    records = {key: [[number, 2], [3, 4]] for number, key in enumerate(keys, 1)}
    table = read(tmp_path / "images", annotations=write(tmp_path / "all.json", wrap(records)))
    assert points_of(table.kept)[:, 0, 0].tolist() == [1, 2]


def test_a_bad_record_is_named_by_its_photo(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    records = {"1.jpg": [[1, 2], [3, 4]], "2.jpg": [[1, 2], [3]], "3.jpg": [[1, 2], [3, 4]], "4.jpg": [[1, 2], [3, 4]]}
    assert details(read(tmp_path / "images", annotations=write(tmp_path / "all.json", records))) == {
        "2.jpg": "bad annotation: all.json '2.jpg' has a point that is not x, y or x, y, visible: [3]",
        "4.jpg": "missing: all.json '4.jpg': its photo '4.jpg' is not here",
    }
