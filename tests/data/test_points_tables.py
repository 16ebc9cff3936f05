"""Tables of points: header, numbers, paths, boxes and groups; a row that is wrong is named."""

from pathlib import Path

import polars as pl
import pytest

from annotated_photos import details, layout_of, photos, read, write
from headstart.data.keypoints import boxes_of, points_of, visible_of
from headstart.errors import SourceError


def test_a_table_gives_points_in_pixels_and_keeps_its_text_columns(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    table = read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2,mask\n1.jpg,1.5,2,3,4,no\n2.jpg,5,6,7,8,예\n"))
    assert points_of(table.kept).tolist() == [[[1.5, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert table.frame["mask"].to_list() == ["no", "예"]
    assert visible_of(table.kept).all()


@pytest.mark.parametrize(
    "header", ["x1,y1,x2,y2", "x_1,y_1,x_2,y_2", "x0,y0,x1,y1", "X1,Y1,X2,Y2", "1_x,1_y,2_x,2_y", "0,1,2,3", ",,,"]
)
def test_numbered_points_are_found_in_any_usual_header(tmp_path: Path, header: str) -> None:
    photos(tmp_path, "1.jpg")
    table = read(write(tmp_path / "p.csv", f"path,{header}\n1.jpg,10,20,30,40\n"))
    assert points_of(table.kept).tolist() == [[[10, 20], [30, 40]]]
    assert layout_of(table).names == ("0", "1")


def test_numbered_points_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    table = read(write(tmp_path / "p.csv", "path,x10,x2,y10,y2\n1.jpg,10,2,11,3\n"))
    assert points_of(table.kept).tolist() == [[[2, 3], [10, 11]]]


def test_named_points_keep_their_names(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    table = read(write(tmp_path / "p.csv", "path,left eye_x,left eye_y,nose.x,nose.y\n1.jpg,1,2,3,4\n"))
    assert layout_of(table).names == ("left eye", "nose")


def test_a_lone_x_is_refused_by_name(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    with pytest.raises(SourceError, match=r"column 'x2' must have one of y beside it; got none"):
        read(write(tmp_path / "p.csv", "path,x1,y1,x2\n1.jpg,1,2,3\n"))


def test_a_named_pair_beside_numbered_points_is_no_point(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    table = read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2,gaze_x,gaze_y\n1.jpg,1,2,3,4,5,6\n"))
    assert layout_of(table).num_keypoints == 2
    assert table.frame["gaze_x"].to_list() == ["5"]


def test_a_table_without_points_says_how_to_name_them(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    with pytest.raises(SourceError, match=r"x and y of each point; got columns 'person', 'age'. Name them x1, y1"):
        read(write(tmp_path / "p.csv", "path,person,age\n1.jpg,A,3\n"))


@pytest.mark.parametrize("cell", ["", "abc", "nan", "inf", "1e30", "-inf"])
def test_a_cell_that_is_no_number_excludes_its_row_by_name(tmp_path: Path, cell: str) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    table = read(write(tmp_path / "p.csv", f"path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n2.jpg,1,2,{cell},4\n"))
    got = f'"{cell}"' if cell else "nothing"
    assert details(table) == {"2.jpg": f"bad annotation: p.csv row 3, column 'x2': must be a number; got {got}"}


def test_a_row_without_any_number_has_no_annotation(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    table = read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n2.jpg,,,,\n"))
    assert details(table) == {"2.jpg": "no annotation: p.csv row 3 has no points"}


@pytest.mark.parametrize("flags", [("v1", "v2"), ("visible_1", "visible_2"), ("visibility_1", "visibility_2")])
def test_a_point_marked_hidden_needs_no_place(tmp_path: Path, flags: tuple[str, str]) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    header = f"path,x1,y1,{flags[0]},x2,y2,{flags[1]}"
    table = read(write(tmp_path / "p.csv", f"{header}\n1.jpg,1,2,1,,,0\n2.jpg,1,2,2,3,4,false\n"))
    assert visible_of(table.kept).tolist() == [[True, False], [True, False]]
    assert table.kept.height == 2


def test_a_point_marked_visible_needs_a_place_and_a_flag_must_be_one(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    table = read(
        write(tmp_path / "p.csv", "path,x1,y1,v1,x2,y2,v2\n1.jpg,1,2,1,,4,1\n2.jpg,1,2,1,3,4,?\n3.jpg,1,2,1,3,4,1\n")
    )
    assert details(table) == {
        "1.jpg": "bad annotation: p.csv row 2, column 'x2': must be a number; got nothing",
        "2.jpg": "bad annotation: p.csv row 3, column 'v2': must be 0 or 1; got \"?\"",
    }


@pytest.mark.parametrize(
    ("encoding", "note"), [("utf-8", ""), ("utf-8-sig", ""), ("cp949", "is in cp949"), ("utf-16", "is in utf-16")]
)
def test_korean_paths_are_read_in_any_usual_encoding(tmp_path: Path, encoding: str, note: str) -> None:
    photos(tmp_path, "사진/가.jpg")
    table = read(write(tmp_path / "p.csv", "경로,x1,y1,x2,y2,마스크\n사진/가.jpg,1,2,3,4,없음\n", encoding=encoding))
    assert table.kept["path"].to_list() == ["사진/가.jpg"]
    assert table.frame["마스크"].to_list() == ["없음"]
    assert note in " ".join(table.notes)


def test_photos_are_found_by_file_name_below_the_folder_and_it_is_said(tmp_path: Path) -> None:
    photos(tmp_path / "all", "a/1.jpg", "b/2.jpg")
    csv = write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n/home/me/1.jpg,1,2,3,4\nold/2.jpg,1,2,3,5\n9.jpg,1,2,3,6\n")
    table = read(tmp_path / "all", annotations=csv)
    assert table.kept["path"].to_list() == ["a/1.jpg", "b/2.jpg"]
    assert any("2 paths of p.csv were found by file name" in note for note in table.notes)
    assert details(table)["9.jpg"].startswith("missing: no such file, and none of this name below")


def test_a_file_name_that_stands_for_two_photos_is_excluded_and_both_are_named(tmp_path: Path) -> None:
    photos(tmp_path / "all", "a/1.jpg", "b/1.jpg", "b/2.jpg", "a/3.jpg")
    csv = write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n2.jpg,1,2,3,5\n3.jpg,1,2,3,6\n")
    table = read(tmp_path / "all", annotations=csv)
    assert details(table) == {"1.jpg": "missing: stands for several files: 'a/1.jpg' and 'b/1.jpg'"}
    assert any("--image-root" in note for note in table.notes)


def test_one_folder_that_holds_every_name_is_the_one_that_is_meant(tmp_path: Path) -> None:
    photos(tmp_path, "train/1.jpg", "train/2.jpg", "test/1.jpg")
    table = read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n2.jpg,1,2,3,5\n"))
    assert table.kept["path"].to_list() == ["train/1.jpg", "train/2.jpg"]


def test_when_no_photo_can_be_found_it_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    photos(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(SourceError, match=r"got 1 × missing \(stands for several files.*give --image-root"):
        read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n"))


def test_coordinates_between_0_and_1_are_refused_as_normalised(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    with pytest.raises(SourceError, match=r"all coordinates lie between 0 and 1: they look normalised. Multiply x"):
        read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,0.1,0.2,0.9,0.4\n"))


@pytest.mark.parametrize(
    ("header", "box", "cells"),
    [
        ("a,b,c,d", "a,b,c,d", "1,2,11,22"),
        ("face_x1,face_y1,face_x2,face_y2", "face", "1,2,11,22"),
        ("face_left,face_top,face_right,face_bottom", "Info.Face", "1,2,11,22"),
        ("face_x,face_y,face_w,face_h", "face", "1,2,10,20"),
        ("l,t,box_width,box_height", "l,t,box_width,box_height", "1,2,10,20"),
    ],
)
def test_a_box_is_four_columns_or_a_prefix(tmp_path: Path, header: str, box: str, cells: str) -> None:
    photos(tmp_path, "1.jpg")
    table = read(write(tmp_path / "p.csv", f"path,x1,y1,x2,y2,{header}\n1.jpg,1,2,3,4,{cells}\n"), crop_to_box=box)
    assert boxes_of(table.kept).tolist() == [[1, 2, 11, 22]]


def test_a_box_without_area_excludes_the_row_where_it_is_asked_for(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    text = "path,x1,y1,x2,y2,f_x1,f_y1,f_x2,f_y2\n1.jpg,1,2,3,4,9,2,9,4\n2.jpg,1,2,3,5,1,2,3,4\n"
    table = read(write(tmp_path / "p.csv", text), crop_to_box="f")
    assert "row 2 has no box with an area in f_x1" in details(table)["1.jpg"]


def test_a_box_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    header = "path,x1,y1,x2,y2,leye_x1,leye_y1,leye_x2,leye_y2,head_left,head_top,head_width,head_height"
    table = write(tmp_path / "boxes.csv", f"{header}\n1.jpg,{','.join('12345678')},1,2,3,4\n")
    with pytest.raises(SourceError, match=r"got 'nose'\. Boxes there are: 'leye', 'head'\."):
        read(table, crop_to_box="nose")
    assert layout_of(read(table)).box_names == ("leye", "head")
    with pytest.raises(SourceError, match=r"--crop-to-box must be four columns of p.csv, or a prefix.*got 'face'"):
        read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2\n1.jpg,1,2,3,4\n"), crop_to_box="face")


def test_group_and_split_columns_are_taken_as_for_labels(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    text = "path,x1,y1,x2,y2,who,part\n1.jpg,1,2,3,4,A ,train\n2.jpg,1,2,3,5,A,val\n3.jpg,1,2,3,6,,test\n"
    table = read(write(tmp_path / "p.csv", text), group_column="who", split_column="part")
    assert table.frame["group"].to_list() == ["A", "A", None]
    assert table.frame["split"].to_list() == ["train", "validation", "test"]


def test_columns_named_like_the_tables_own_get_another_name(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    table = read(write(tmp_path / "p.csv", "path,x1,y1,x2,y2,label,width\n1.jpg,1,2,3,4,happy,640\n"))
    assert table.frame["source_label"].to_list() == ["happy"]
    assert table.frame["source_width"].to_list() == ["640"]


def test_the_same_row_twice_counts_once_and_rows_that_differ_count_not(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    rows = "1.jpg,1,2,3,4\n1.jpg,1,2,3,4\n2.jpg,1,2,3,4\n2.jpg,9,2,3,4\n"
    table = read(write(tmp_path / "p.csv", f"path,x1,y1,x2,y2\n{rows}"))
    differing = "p.csv rows 4 and 5 give other points for one photo"
    assert table.frame["detail"].to_list() == [None, "p.csv row 3 says the same as row 2", differing, differing]


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    frame = pl.DataFrame({"path": ["1.jpg"], "x1": [1.25], "y1": [2], "x2": [3.0], "y2": [None], "v1": [1], "v2": [0]})
    frame.write_parquet(tmp_path / "p.parquet")
    table = read(tmp_path / "p.parquet")
    assert points_of(table.kept).tolist() == [[[1.25, 2], [0, 0]]]
    assert visible_of(table.kept).tolist() == [[True, False]]
