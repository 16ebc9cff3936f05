"""Sources: class folders, given splits, tables and archives become the same table; what is wrong is named."""

import os
import unicodedata
from pathlib import Path

import polars as pl
import pytest

from headstart.data.sources import read_source
from headstart.data.table import SampleTable
from headstart.errors import SourceError
from headstart.recipe import make_recipe


def read(data: Path, *, min_classes: int = 2, **settings: object) -> SampleTable:
    recipe = make_recipe({"data": str(data), **settings})
    return read_source(recipe, unpack_dir=data.parent / "unpacked", min_classes=min_classes)


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write_csv(root: Path, text: str, *, encoding: str = "utf-8", name: str = "labels.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def classes_of(table: SampleTable) -> dict[str, str | None]:
    labels = table.frame["label"].to_list()
    names = [None if label is None else table.class_names[label] for label in labels]
    return dict(zip(table.frame["path"].to_list(), names, strict=True))


# --- class folders


def test_the_first_folder_is_the_class_however_deep_the_photo_lies(tmp_path: Path) -> None:
    table = read(make_files(tmp_path / "photos", "고양이/1.jpg", "고양이/2024/여름/2.PNG", "dog/3.jpg"))
    assert classes_of(table) == {"dog/3.jpg": "dog", "고양이/1.jpg": "고양이", "고양이/2024/여름/2.PNG": "고양이"}


def test_every_file_in_a_class_folder_is_a_row_but_system_files(tmp_path: Path) -> None:
    table = read(
        make_files(tmp_path / "p", "a/1.jpg", "a/notes.txt", "a/.DS_Store", "a/Thumbs.db", "b/2.jpg", ".git/x")
    )
    assert table.frame["path"].to_list() == ["a/1.jpg", "a/notes.txt", "b/2.jpg"]
    assert any("system files: 3" in note and "'.DS_Store'" in note for note in table.notes)


def test_photos_outside_class_folders_are_excluded_not_lost(tmp_path: Path) -> None:
    table = read(make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg", "stray.jpg", "readme.txt"))
    assert table.excluded_counts == {"no label": 1}
    assert any("left aside: 1 ('readme.txt')" in note for note in table.notes)


def test_a_table_beside_class_folders_is_named_not_read(tmp_path: Path) -> None:
    table = read(make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg", "labels.csv"))
    assert any("'labels.csv', which was not read; to use it, give" in note for note in table.notes)


def test_empty_folders_are_named(tmp_path: Path) -> None:
    (make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg") / "c").mkdir()
    assert "Empty folders: 'c'." in read(tmp_path / "p").notes


def test_a_broken_link_is_a_row_and_a_link_to_a_file_too(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    (root / "a" / "broken.jpg").symlink_to(root / "nowhere.jpg")
    (root / "b" / "linked.jpg").symlink_to(root / "a" / "1.jpg")
    (root / "b" / "itself.jpg").symlink_to(root / "b" / "itself.jpg")
    table = read(root)
    assert table.frame["path"].to_list() == ["a/1.jpg", "a/broken.jpg", "b/2.jpg", "b/itself.jpg", "b/linked.jpg"]
    assert not table.excluded_counts


def test_a_linked_folder_is_read_and_a_loop_is_left(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    make_files(tmp_path / "elsewhere", "3.jpg")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    table = read(root)
    assert classes_of(table)["c/3.jpg"] == "c"
    assert any("'a/up'" in note for note in table.notes)
    assert table.frame.height == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_excluded_so_that_nothing_waits_for_it(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    os.mkfifo(root / "a" / "pipe.jpg")
    table = read(root)
    assert table.excluded_counts == {"unreadable": 1}
    assert "pipe" in table.frame.filter(pl.col("excluded").is_not_null())["detail"][0]


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="needs file names that are any bytes")
def test_a_name_that_is_not_text_is_excluded_with_the_reason(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    Path(os.fsdecode(os.fsencode(root / "a") + b"/\xb0\xed.jpg")).write_bytes(b"x")
    table = read(root)
    assert table.excluded_counts == {"unreadable": 1}
    assert "rename" in table.frame.filter(pl.col("excluded").is_not_null())["detail"][0]


def test_composed_and_decomposed_folder_names_are_one_class(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "고양이")
    table = read(make_files(tmp_path / "p", "train/고양이/1.jpg", f"test/{decomposed}/2.jpg", "train/개/3.jpg"))
    assert table.class_names == ("개", "고양이")


# --- given splits


def test_split_folders_are_splits_in_any_case(tmp_path: Path) -> None:
    names = [f"{split}/{name}/{split}.jpg" for split in ("Train", "VALID", "test") for name in "ab"]
    table = read(make_files(tmp_path / "p", *names))
    assert table.class_names == ("a", "b")
    assert table.frame["split"].unique().sort().to_list() == ["test", "train", "validation"]


def test_a_class_of_one_split_only_is_named(tmp_path: Path) -> None:
    table = read(make_files(tmp_path / "p", "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "test/c/4.jpg"))
    assert "Class 'b' has samples in train, none in validation and test." in table.notes
    assert "Class 'c' has samples in test, none in train and validation." in table.notes


def test_train_may_be_a_class_of_vehicles(tmp_path: Path) -> None:
    table = read(make_files(tmp_path / "p", "train/old/1.jpg", "train/new/2.jpg", "car/3.jpg", "bus/4.jpg"))
    assert table.class_names == ("bus", "car", "train")
    assert table.frame["split"].null_count() == 4


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "train/a/1.jpg", "val/a/2.jpg", "validation/b/3.jpg")
    with pytest.raises(SourceError, match=r"one validation folder; got \['val', 'validation'\]"):
        read(root)


def test_split_folders_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"class folders below train and test; got \['test', 'train'\]"):
        read(make_files(tmp_path / "p", "train/1.jpg", "test/2.jpg"))


# --- folders that are no data


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.jpg", "2.jpg"], "one folder of images per class; got 2 images outside class folders"),
        (["a/readme.txt"], "got 1 files, no image"),
        ([], "got 0 files, no image"),
        (["cat/1.jpg"], r"at least 2 classes; got \['cat'\]. If its folders are the classes, give .*cat"),
    ],
)
def test_folders_that_are_no_labelled_photos_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(SourceError, match=message):
        read(make_files(tmp_path / "p", *files))


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data must be .*; got '.*nowhere'"):
        read(tmp_path / "nowhere")


def test_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data must be .*; got None"):
        read_source(make_recipe({}), unpack_dir=tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"got '.*a\.jpg'"):
        read(make_files(tmp_path, "a.jpg") / "a.jpg")


def test_settings_of_tables_are_refused_for_class_folders_all_at_once(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg", "labels.csv")
    with pytest.raises(SourceError, match=r"(?s)2 problems.*--label-column.*--group-column.*labels.csv as the data"):
        read(root, label_column="x", group_column="person")


def test_one_class_is_enough_to_score(tmp_path: Path) -> None:
    assert read(make_files(tmp_path / "p", "cat/1.jpg"), min_classes=1).class_names == ("cat",)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    root = make_files(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    (root / "b").chmod(0)
    with pytest.raises(SourceError, match="b must be a folder that can be read; got 'Permission denied'"):
        read(root)


# --- tables


def test_columns_are_guessed_and_said(tmp_path: Path) -> None:
    table = read(write_csv(tmp_path / "d", "id,photo,kind\n1,a.jpg,x\n2,b.jpg,y\n3,c.jpg,x\n4,d.jpg,y\n"))
    assert table.class_names == ("x", "y")
    assert "Column 'photo' of labels.csv was taken as the path column." in table.notes
    assert "Column 'kind' of labels.csv was taken as the label column." in table.notes


def test_named_columns_are_not_guessed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "a,b,label,other\n1.jpg,2.jpg,x,p\n3.jpg,4.jpg,y,q\n")
    table = read(path, path_column="b", label_column="other")
    assert classes_of(table) == {"2.jpg": "p", "4.jpg": "q"}
    assert not any("was taken as" in note for note in table.notes)


def test_ambiguous_columns_are_listed_with_the_flag(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "front,back,label\n1.jpg,2.jpg,x\n3.jpg,4.jpg,y\n")
    with pytest.raises(SourceError, match=r"'front' \('1.jpg', '3.jpg', …\); 'back' .* --path-column front"):
        read(path)


def test_two_label_columns_are_listed_with_the_flag(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label,species\n1.jpg,x,p\n2.jpg,y,q\n")
    with pytest.raises(SourceError, match=r"'label' .*'species' .* --label-column label"):
        read(path)


def test_paths_without_suffix_are_recognised_by_their_files(tmp_path: Path) -> None:
    path = write_csv(make_files(tmp_path / "d", "one", "two"), "what,label\none,x\ntwo,y\n")
    assert read(path).frame["path"].to_list() == ["one", "two"]


def test_a_wrong_column_gets_the_nearest_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label\n1.jpg,x\n")
    with pytest.raises(
        SourceError, match=r"--label-column must be a column of labels.csv: path, label; got 'lable'. Did"
    ):
        read(path, label_column="lable")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_korean_tables_are_read_in_their_encodings(tmp_path: Path, encoding: str) -> None:
    path = write_csv(tmp_path / "d", "경로,label\n사진/고양이 1.jpg,고양이\n사진/개.jpg,개\n", encoding=encoding)
    table = read(path)
    assert classes_of(table) == {"사진/고양이 1.jpg": "고양이", "사진/개.jpg": "개"}
    assert any("is in" in note for note in table.notes) == (encoding not in ("utf-8", "utf-8-sig"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label\n")
    path.write_bytes(b"path,label\n1.jpg,\xff\xfe\xff\n")
    with pytest.raises(SourceError, match=r"text in UTF-8, UTF-16 or cp949; got .*xff"):
        read(path)


def test_paths_become_relative_to_the_image_root(tmp_path: Path) -> None:
    root = make_files(tmp_path / "images", "a.jpg")
    path = write_csv(tmp_path / "d", f"path,label\n{root}/a.jpg,x\n./b.jpg,y\n/other/c.jpg,x\nsub\\d.jpg,y\n")
    table = read(path, image_root=str(root))
    assert table.frame["path"].to_list() == ["a.jpg", "b.jpg", "/other/c.jpg", "sub/d.jpg"]
    assert table.root == root


def test_a_missing_image_root_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label\n1.jpg,x\n2.jpg,y\n")
    with pytest.raises(SourceError, match="--image-root must be a folder; got 'nowhere'"):
        read(path, image_root="nowhere")


def test_photos_that_lie_elsewhere_are_looked_for(tmp_path: Path) -> None:
    path = write_csv(make_files(tmp_path / "d", "images/1.jpg"), "path,label\n1.jpg,x\n2.jpg,y\n")
    assert any(f"try --image-root {tmp_path / 'd' / 'images'}" in note for note in read(path).notes)


def test_paths_are_spelled_as_the_disk_spells_them(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "사진.jpg")
    path = write_csv(make_files(tmp_path / "d", decomposed), "path,label\n사진.jpg,x\na.jpg,y\n")
    assert read(path).frame["path"][0] == decomposed


def test_rows_without_label_or_path_are_excluded(tmp_path: Path) -> None:
    table = read(write_csv(tmp_path / "d", "path,label\n1.jpg,x\n2.jpg,\n,y\n3.jpg,y\n4.jpg,  \n"))
    assert table.frame["excluded"].to_list() == [None, "no label", "missing", None, "no label"]
    assert table.frame["detail"][2] == "labels.csv row 4 has no path"


def test_labels_that_differ_by_space_only_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label\n1.jpg,Cat\n2.jpg,Dog\n3.jpg,Cat \n")
    with pytest.raises(SourceError, match=r"row 4, column 'label' must be 'Cat' .*; got 'Cat '\. Fix the cell"):
        read(path)


def test_space_around_every_label_is_removed_and_said(tmp_path: Path) -> None:
    table = read(write_csv(tmp_path / "d", "path,label\n1.jpg, Cat\n2.jpg, Dog\n"))
    assert table.class_names == ("Cat", "Dog")
    assert any("removed in 2 rows, e.g. ' Cat'" in note for note in table.notes)


def test_labels_that_differ_by_case_only_are_said(tmp_path: Path) -> None:
    table = read(write_csv(tmp_path / "d", "path,label\n1.jpg,Cat\n2.jpg,cat\n"))
    assert "Classes 'Cat', 'cat' differ by upper and lower case only." in table.notes


def test_whole_numbers_are_labels_as_written(tmp_path: Path) -> None:
    assert read(write_csv(tmp_path / "d", "path,label\n1.jpg,01\n2.jpg,2\n")).class_names == ("01", "2")
    assert read(write_csv(tmp_path / "d", "path,label\n1.jpg,1.0\n2.jpg,2.0\n")).class_names == ("1", "2")


def test_photos_named_twice_are_counted(tmp_path: Path) -> None:
    table = read(write_csv(tmp_path / "d", "path,label\n1.jpg,x\n1.jpg,x\n2.jpg,x\n2.jpg,y\n"))
    note = next(note for note in table.notes if "earlier row" in note)
    assert note.startswith("2 rows")
    assert "1 photos have rows with different labels" in note


def test_parquet_and_tsv_read_like_csv(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [3, None]}).write_parquet(tmp_path / "t.parquet")
    table = read(tmp_path / "t.parquet", min_classes=1)
    assert (table.class_names, table.excluded_counts) == (("3",), {"no label": 1})
    assert read(write_csv(tmp_path / "d", "path\tlabel\n1,5.jpg\tx\n2.jpg\ty\n", name="t.tsv")).class_names == (
        "x",
        "y",
    )


def test_other_separators_are_found_and_said(tmp_path: Path) -> None:
    table = read(write_csv(tmp_path / "d", "path;label\n1.jpg;x\n2.jpg;y\n"))
    assert "The columns of labels.csv are separated by ';'." in table.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a table with a header and rows; got 'an empty file'"),
        ("path,label\n", "rows below its header"),
        ("1.jpg,cat\n2.jpg,dog\n", "row 1 must be the column names; got '1.jpg'"),
        ("path,label\n1.jpg,x\n2.jpg,y,z\n", "row 3 must be 2 cells wide; got 3"),
        ("path,label\n1.jpg,x\n2.jpg,x\n", r"at least 2 classes; got \['x'\]"),
        ("name,label\nfoo,x\nbar,y\n", r"looks like the image paths; got 'name' \('foo', 'bar', …\)"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(write_csv(tmp_path / "d", text))


def test_a_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no\.parquet must be a readable table"):
        read(write_csv(tmp_path / "d", "path,label\n", name="no.parquet"))


def test_a_folder_with_a_table_and_no_classes_is_read_by_its_table(tmp_path: Path) -> None:
    root = make_files(tmp_path / "d", "images/1.jpg", "images/2.jpg")
    write_csv(root, "path,label\nimages/1.jpg,x\nimages/2.jpg,y\n")
    table = read(root)
    assert table.class_names == ("x", "y")
    assert "d has no class folders; labels come from labels.csv." in table.notes


def test_two_tables_and_no_classes_are_named(tmp_path: Path) -> None:
    root = make_files(tmp_path / "d", "images/1.jpg", "a.csv", "b.csv")
    with pytest.raises(SourceError, match=r"got \['a.csv', 'b.csv'\]. Name the one to use"):
        read(root)


# --- groups and split columns


def test_groups_come_from_a_column_without_space_around(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label,who\n1.jpg,x,p1\n2.jpg,y,p1 \n3.jpg,y,\n")
    table = read(path, group_column="who")
    assert table.frame["group"].to_list() == ["p1", "p1", None]
    assert "1 sample has no group and is a group of its own." in table.notes


@pytest.mark.parametrize("pattern", [r"(p\d+)_", r"(?<=/)(p\d+)_"])
def test_groups_come_from_a_pattern_on_the_path(tmp_path: Path, pattern: str) -> None:
    table = read(make_files(tmp_path / "d", "a/p1_1.jpg", "b/p1_2.jpg", "b/p2_1.jpg", "b/x.jpg"), group_pattern=pattern)
    assert table.frame["group"].to_list() == ["p1", "p1", "p2", None]


def test_a_pattern_that_fits_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"--group-pattern must be found in the paths; got '\(zzz\)'. Paths look like"
    ):
        read(make_files(tmp_path / "d", "a/1.jpg", "b/2.jpg"), group_pattern="(zzz)")


def test_group_column_and_pattern_together_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label,who\n1.jpg,x,p1\n2.jpg,y,p1\n")
    with pytest.raises(SourceError, match="Give --group-column or --group-pattern"):
        read(path, group_column="who", group_pattern="(.)")


def test_split_column_knows_the_usual_words(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label,part\n1.jpg,x,TRAIN\n2.jpg,y,val\n3.jpg,x,Test \n4.jpg,y,\n")
    table = read(path, split_column="part")
    assert table.frame["split"].to_list() == ["train", "validation", "test", None]
    assert "1 rows have no split." in table.notes


def test_other_words_in_a_split_column_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d", "path,label,part\n1.jpg,x,train\n2.jpg,y,holdout\n")
    with pytest.raises(SourceError, match=r"row 3, column 'part' must be train, validation or test .*; got 'holdout'"):
        read(path, split_column="part")


@pytest.mark.real_data
@pytest.mark.skipif("HEADSTART_DATA" not in os.environ, reason="HEADSTART_DATA is not set")
def test_the_emotion_faces_read_the_same_from_folder_and_table() -> None:
    root = Path(os.environ["HEADSTART_DATA"]) / "ck48_emotion_by_subject"
    folder, table = read(root), read(root / "labels.csv", group_column="subject")
    assert classes_of(folder) == classes_of(table)
    assert table.frame["group"].n_unique() == 118
