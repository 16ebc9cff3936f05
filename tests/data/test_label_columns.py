"""Label columns of tables and of file names: classes, bins, combinations, several labels in a cell."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.account import account, describe
from headstart.data.label_layout import MISSING, labels_of
from headstart.data.label_matching import with_classes_of
from headstart.data.label_strata import with_strata
from headstart.data.sources import read_source
from headstart.data.splits import assign_splits
from headstart.data.table import SampleTable
from headstart.errors import SourceError
from headstart.recipe import make_recipe


def read(
    folder: Path, text: str, *, name: str = "t.csv", min_classes: int = 2, may_lack: tuple[str, ...] = (), **settings
) -> SampleTable:
    (folder / name).write_text(text, encoding="utf-8")
    recipe = make_recipe({"data": str(folder / name), **settings})
    return read_source(recipe, unpack_dir=folder, min_classes=min_classes, may_lack=may_lack)


FACES = "path,mask,gender,age\n1.jpg,0,f,29\n2.jpg,1,m,30\n3.jpg,0,m,\n4.jpg,1 ,f,60\n5.jpg,,,\n"


def test_each_column_has_its_classes_and_empty_cells_are_missing(tmp_path):
    table = read(tmp_path, FACES.replace("1 ,f", "1,f"), label="mask,gender,age", label_bins="age=30,60")
    assert table.labels is not None
    assert [column.class_names for column in table.labels.columns] == [("0", "1"), ("f", "m"), ("<30", "30–60", "≥60")]
    assert labels_of(table.kept).tolist() == [[0, 0, 0], [1, 1, 1], [0, 1, MISSING], [1, 0, 2]]
    assert table.excluded_counts == {"no label": 1}
    assert "0 + m + –" in table.class_names
    assert table.output_names[:2] == ("mask=0", "mask=1")
    assert any("Cells without a label: 1 of 'mask', 1 of 'gender', 2 of 'age'" in note for note in table.notes)


def test_a_label_with_space_beside_its_twin_is_refused_with_row_and_column(tmp_path):
    with pytest.raises(SourceError, match=r"row 5, column 'mask' must be '1' like other rows, without space"):
        read(tmp_path, FACES, label="mask,gender")


def test_combinations_are_classes_and_incomplete_rows_are_left_out(tmp_path):
    table = read(tmp_path, FACES.replace("1 ,f", "1,f"), label="mask+gender+age", label_bins={"age": [30, 60]})
    assert table.class_names == ("0 + f + <30", "1 + f + ≥60", "1 + m + 30–60")
    assert table.frame["label"].to_list() == [0, 2, None, 1, None]
    assert table.excluded_counts == {"no label": 2}


def test_bins_of_one_label_are_in_the_order_of_their_numbers(tmp_path):
    table = read(tmp_path, "path,age\n1.jpg,70\n2.jpg,8\n3.jpg,30.5\n4.jpg,60\n", label="age", label_bins="age=30,60")
    assert table.class_names == ("<30", "30–60", "≥60")
    assert table.frame["label"].to_list() == [2, 0, 1, 2]
    assert table.labels is None


def test_a_bin_without_a_number_is_no_class_and_said(tmp_path):
    table = read(tmp_path, "path,age\n1.jpg,20\n2.jpg,40\n", label="age", label_bins="age=30,60")
    assert table.class_names == ("<30", "30–60")
    assert any("'≥60'" in note for note in table.notes)


def test_a_cell_that_is_no_number_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"row 3, column 'age' must be a number; got 'old'"):
        read(tmp_path, "path,age\n1.jpg,20\n2.jpg,old\n", label="age", label_bins="age=30")


def test_a_column_of_one_class_cannot_be_learned(tmp_path):
    with pytest.raises(SourceError, match=r"label column 'look' must be one with at least 2 classes; got \['R'\]"):
        read(tmp_path, "path,look,mask\n1.jpg,R,0\n2.jpg,R,1\n", label="look,mask")


def test_a_column_that_is_not_there_is_named_with_its_flag(tmp_path):
    with pytest.raises(SourceError, match=r"--label must be a column of t.csv.*'gendr'. Did you mean 'gender'"):
        read(tmp_path, FACES, label="mask,gendr")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["cat; dog", "dog", "owl;cat"], "separated by ';'"),
        (["cat|dog", "dog", "owl|cat"], "separated by '|'"),
        (["cat, dog", "dog", "owl,cat"], "separated by ','"),
        (["cat dog", "dog", "owl cat"], "separated by white space"),
        (["['cat', 'dog']", "['dog']", "['owl', 'cat']"], "separated by ','"),
    ],
)
def test_the_sign_between_labels_is_guessed_and_said(tmp_path, cells, said):
    rows = "".join(f'{number}.jpg,"{cell}"\n' for number, cell in enumerate(cells))
    table = read(tmp_path, f"path,tags\n{rows}", multi_label="tags")
    assert table.output_names == ("cat", "dog", "owl")
    assert labels_of(table.kept).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert table.task == "multi-label"
    assert any(said in note for note in table.notes)


def test_a_sign_that_could_be_another_is_asked_for(tmp_path):
    text = 'path,tags\n1.jpg,"big, cat; dog"\n2.jpg,owl\n'
    with pytest.raises(SourceError, match=r"one sign between labels; got ';' in 1, ',' in 1 cells.*--label-separator"):
        read(tmp_path, text, multi_label="tags")
    table = read(tmp_path, text, multi_label="tags", label_separator=";")
    assert table.output_names == ("big, cat", "dog", "owl")


def test_an_empty_cell_is_left_out_and_brackets_mean_none_of_the_labels(tmp_path):
    table = read(tmp_path, "path,tags\n1.jpg,cat;dog\n2.jpg,\n3.jpg,[]\n", multi_label="tags")
    assert table.frame["excluded"].to_list() == [None, "no label", None]
    assert labels_of(table.kept).tolist() == [[1, 1], [0, 0]]
    assert table.class_names[table.frame["label"][2]] == "–"


def test_lists_of_a_parquet_file_are_read_as_they_are(tmp_path):
    frame = pl.DataFrame({"path": ["1.jpg", "2.jpg"], "tags": [["polar bear, big", "owl"], []]})
    frame.write_parquet(tmp_path / "t.parquet")
    recipe = make_recipe({"data": str(tmp_path / "t.parquet"), "multi_label": "tags"})
    table = read_source(recipe, unpack_dir=tmp_path)
    assert table.output_names == ("owl", "polar bear, big")
    assert labels_of(table.kept).tolist() == [[1, 1], [0, 0]]


PATTERN = r"_(?P<person>\d+)_(?P<age>\d+)_(?P<sex>[FM])_\d+_(?P<mask>M\d)_"


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


NAMES = ("202/R_202_40_M_01_M0_G0_C0_01.jpg", "202/R_202_40_M_01_M1_G0_C0_02.jpg", "203/R_203_20_F_01_M1_G0_C0_01.jpg")


def test_file_names_give_the_labels_and_the_person(tmp_path):
    folder = photos(tmp_path / "p", *NAMES, "203/other.jpg", "203/notes.txt")
    recipe = make_recipe(
        {"data": str(folder), "name_pattern": PATTERN, "label": "sex,mask,age", "label_bins": "age=30"}
    )
    table = read_source(recipe, unpack_dir=tmp_path)
    assert labels_of(table.kept).tolist() == [[1, 0, 1], [1, 1, 1], [0, 1, 0]]
    assert table.kept["group"].to_list() == ["202", "202", "203"]
    assert table.excluded_counts == {"no label": 1}
    assert table.frame["split"].null_count() == 4


def test_one_label_may_stand_in_file_names_too(tmp_path):
    folder = photos(tmp_path / "p", *(f"{split}/{name}" for split in ("train", "test") for name in NAMES))
    recipe = make_recipe({"data": str(folder), "name_pattern": PATTERN, "label": "mask"})
    table = read_source(recipe, unpack_dir=tmp_path)
    assert table.class_names == ("M0", "M1")
    assert table.frame["split"].to_list() == ["test"] * 3 + ["train"] * 3


def test_a_named_group_of_the_file_name_keeps_photos_together(tmp_path):
    folder = photos(tmp_path / "p", *NAMES)
    settings = {"data": str(folder), "name_pattern": PATTERN, "label": "mask", "group_column": "sex"}
    table = read_source(make_recipe(settings), unpack_dir=tmp_path)
    assert table.frame["group"].to_list() == ["M", "M", "F"]
    names = settings | {"name_pattern": r"_(?P<group>\d+)_\d+_[FM]_\d+_(?P<mask>M\d)_", "group_column": "group"}
    assert read_source(make_recipe(names), unpack_dir=tmp_path).frame["group"].to_list() == ["202", "202", "203"]


def test_file_names_may_give_the_split(tmp_path):
    names = [f"{name}_{part}.jpg" for part in ("train", "Val", "test") for name in ("a1", "b2", "a3")]
    settings = {"data": str(photos(tmp_path / "p", *names)), "label": "what"}
    settings |= {"name_pattern": r"(?P<what>[ab])(?P<number>\d)_(?P<part>\w+)", "split_column": "part"}
    table = read_source(make_recipe(settings), unpack_dir=tmp_path)
    assert table.frame.group_by("split").len().sort("split").rows() == [("test", 3), ("train", 3), ("validation", 3)]
    with pytest.raises(
        SourceError, match=r"'number' of \S+\.jpg must be train, validation or test .*got '1', '2', '3'"
    ):
        read_source(make_recipe(settings | {"split_column": "number"}), unpack_dir=tmp_path)


def test_what_file_names_do_not_say_of_photos_is_refused_all_at_once(tmp_path):
    folder = photos(tmp_path / "p", *NAMES)
    settings = {"data": str(folder), "name_pattern": PATTERN, "label": "mask", "image_root": str(folder)}
    settings |= {"group_column": "persn", "split_column": "part", "path_column": "file"}
    with pytest.raises(SourceError) as refused:
        read_source(make_recipe(settings), unpack_dir=tmp_path)
    for words in (
        "--group-column must be one of the groups of --name-pattern (person, age, sex, mask)",
        "got 'persn'. Did you mean 'person'?",
        "got 'part'",
        "--path-column must be left out where labels stand in file names; got 'file'",
        "--image-root must be left out",
    ):
        assert words in str(refused.value)


def test_a_label_that_no_group_of_the_pattern_is_called_is_named(tmp_path):
    folder = photos(tmp_path / "p", *NAMES)
    recipe = make_recipe({"data": str(folder), "name_pattern": PATTERN, "label": "sex,msk"})
    with pytest.raises(SourceError, match=r"--label must be groups of --name-pattern.*got \['msk'\]"):
        read_source(recipe, unpack_dir=tmp_path)


def test_a_table_and_file_names_may_hold_a_label_each(tmp_path):
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(NAMES))
    table = read(tmp_path, f"path,glasses\n{rows}", label="mask,glasses", name_pattern=PATTERN)
    assert labels_of(table.kept).tolist() == [[0, 0], [1, 1], [1, 0]]
    assert table.frame["group"].to_list() == ["202", "202", "203"]


def test_class_folders_take_persons_from_file_names(tmp_path):
    folder = photos(tmp_path / "p", "a/S1_1.jpg", "a/S2_1.jpg", "b/S1_2.jpg")
    recipe = make_recipe({"data": str(folder), "name_pattern": r"(?P<person>S\d)_"})
    table = read_source(recipe, unpack_dir=tmp_path)
    assert table.class_names == ("a", "b")
    assert table.frame["group"].to_list() == ["S1", "S2", "S1"]


def test_a_saved_table_comes_back_with_its_labels(tmp_path):
    table = read(tmp_path, FACES.replace("1 ,f", "1,f"), label="mask+gender")
    table.save(tmp_path / "table.parquet")
    again = SampleTable.load(tmp_path / "table.parquet")
    assert again.labels == table.labels
    assert again.frame.equals(table.frame)


def test_the_account_counts_each_column(tmp_path):
    lines = describe(account(read(tmp_path, FACES.replace("1 ,f", "1,f"), label="mask,gender")))
    assert "mask: 2 classes (0: 2, 1: 2)" in lines
    assert not any(line.startswith("combinations") for line in lines)
    joint = describe(account(read(tmp_path, FACES.replace("1 ,f", "1,f"), label="mask+gender")))
    assert any(line.startswith("combinations: 4 (") for line in joint)


def many(tmp_path, *, num=400, seed=0, **settings) -> SampleTable:
    draw = np.random.default_rng(seed)
    species = draw.choice(40, num, p=(weights := 1 / np.arange(1, 41)) / weights.sum())
    rows = "".join(f"{n}.jpg,{species[n]:02},{draw.integers(0, 5)},{draw.integers(0, 4)}\n" for n in range(num))
    return read(tmp_path, f"path,species,site,month\n{rows}", **settings)


def test_rare_combinations_do_not_all_go_to_training(tmp_path):
    table, report = assign_splits(many(tmp_path, label="species,site,month"), make_recipe({}))
    assert report.sizes["test"] == pytest.approx(60, abs=6)
    kept = table.kept
    numbers, splits = labels_of(kept)[:, 0], kept["split"].to_numpy()
    for label in np.flatnonzero(np.bincount(numbers) >= 12):
        assert {"train", "validation", "test"} == set(splits[numbers == label])
    for label in range(numbers.max() + 1):
        assert "train" in splits[numbers == label]


def test_strata_of_combinations_that_are_frequent_are_the_combinations(tmp_path):
    table = many(tmp_path, label="site,month")
    rows, names = with_strata(table.kept, np.arange(table.kept.height), table)
    assert names == table.class_names
    assert rows["label"].equals(table.kept["label"])


def test_rare_sets_of_labels_are_dealt_by_their_rarest_label(tmp_path):
    cells = ["cat"] * 20 + ["dog"] * 20 + ["cat;dog;owl"] * 3 + ["[]"] * 2
    rows = "".join(f"{number}.jpg,{cell}\n" for number, cell in enumerate(cells))
    table = read(tmp_path, f"path,tags\n{rows}", multi_label="tags")
    rows, names = with_strata(table.kept, np.arange(len(cells)), table)
    found = [names[number] for number in rows["label"]]
    assert found == ["cat"] * 20 + ["dog"] * 20 + ["owl"] * 3 + ["none of the labels"] * 2


def test_other_photos_are_numbered_as_the_model_does(tmp_path):
    model = read(tmp_path, "path,mask,sex\n1.jpg,0,f\n2.jpg,1,m\n3.jpg,2,m\n", label="mask,sex")
    other = read(tmp_path, "path,m,s\n1.jpg,2,m\n2.jpg,9,f\n3.jpg,9,x\n", label="m,s", name="o.csv", min_classes=1)
    found = with_classes_of(model.labels, model.class_names, other)
    assert labels_of(found.frame).tolist() == [[2, 1], [MISSING, 0], [MISSING, MISSING]]
    assert found.excluded_counts == {"no label": 1}
    assert any("m=9, s=x" in note for note in found.notes)
    with pytest.raises(SourceError, match="labelled like the model's"):
        with_classes_of(model.labels, model.class_names, read(tmp_path, "path,m\n1.jpg,2\n2.jpg,1\n", label="m"))


def test_columns_taken_in_their_order_are_said(tmp_path):
    model = read(tmp_path, "path,mask,sex\n1.jpg,0,f\n2.jpg,1,m\n", label="mask,sex")
    other = read(tmp_path, "path,m,s\n1.jpg,1,m\n", label="m,s", name="o.csv", min_classes=1)
    assert "taken in their order: 'm' as 'mask', 's' as 'sex'." in with_classes_of(model.labels, (), other).notes[-1]


def test_label_columns_are_matched_by_name_and_one_that_is_not_there_has_no_labels(tmp_path):
    model = read(tmp_path, "path,mask,sex,hat\n1.jpg,0,f,0\n2.jpg,1,m,1\n", label="mask,sex,hat")
    other = read(tmp_path, "path,hat,mask\n1.jpg,1,0\n2.jpg,0,1\n3.jpg,0,\n", label="hat,mask", name="o.csv")
    found = with_classes_of(model.labels, model.class_names, other)
    assert labels_of(found.frame).tolist() == [[0, MISSING, 1], [1, MISSING, 0], [MISSING, MISSING, 0]]
    assert found.labels == model.labels


@pytest.mark.parametrize(
    ("sign", "message"),
    [
        (",", r"in the model's columns \(mask, glasses\); got 'glasses, worn'\. Rename 'worn', or leave --label out"),
        ("+", r"in all of the model's columns \(mask, glasses\); got 'glasses, worn'\. Rename 'worn'\.$"),
    ],
)
def test_columns_of_which_one_has_another_name_are_not_taken_for_each_other(tmp_path, sign, message):
    model = read(tmp_path, "path,mask,glasses\n1.jpg,0,1\n2.jpg,1,0\n", label=f"mask{sign}glasses")
    text = "path,glasses,worn\n1.jpg,0,1\n2.jpg,1,0\n"
    other = read(tmp_path, text, label=f"glasses{sign}worn", name="o.csv")
    with pytest.raises(SourceError, match=message):
        with_classes_of(model.labels, model.class_names, other)


def test_combinations_need_every_column(tmp_path):
    model = read(tmp_path, "path,mask,sex,hat\n1.jpg,0,f,0\n2.jpg,1,m,1\n", label="mask+sex+hat")
    other = read(tmp_path, "path,mask,sex\n1.jpg,0,f\n2.jpg,1,m\n", label="mask+sex", name="o.csv")
    with pytest.raises(SourceError, match=r"all of the model's columns .*got 'mask, sex'\. Add 'hat'\.$"):
        with_classes_of(model.labels, model.class_names, other)


def test_one_labelled_column_is_enough_to_score_and_is_needed(tmp_path):
    empty = "path,mask,sex\n1.jpg,0,\n2.jpg,1,\n"
    found = read(tmp_path, empty, label="mask,sex", min_classes=1)
    assert labels_of(found.kept).tolist() == [[0, MISSING], [1, MISSING]]
    lacking = read(tmp_path, "path,mask\n1.jpg,0\n", label="mask,sex", min_classes=1, may_lack=("mask", "sex"))
    assert lacking.labels.names == ("mask",)
    assert any("t.csv have no label column 'sex'" in note for note in lacking.notes)
    with pytest.raises(SourceError, match=r"'mask' must be one with at least 1 classes; got \[\]\. Label some"):
        read(tmp_path, "path,mask,sex\n1.jpg,,\n", label="mask,sex", min_classes=1)
    with pytest.raises(SourceError, match=r"--label must be a column of t.csv: path, hat; got 'mask'"):
        read(tmp_path, "path,hat\n1.jpg,0\n", label="mask,sex", min_classes=1, may_lack=("mask", "sex"))


def test_file_names_may_lack_a_label_of_the_model_that_is_scored(tmp_path):
    recipe = {"data": str(photos(tmp_path / "p", *NAMES)), "name_pattern": PATTERN, "label": "sex,hat"}
    table = read_source(make_recipe(recipe), unpack_dir=tmp_path, min_classes=1, may_lack=("sex", "hat"))
    assert labels_of(table.kept).tolist() == [[1], [1], [0]]
    assert any("File names have no label column 'hat'" in note for note in table.notes)


def test_combinations_that_a_model_does_not_know_are_left_out(tmp_path):
    model = read(tmp_path, "path,mask,sex\n1.jpg,0,f\n2.jpg,1,m\n", label="mask+sex")
    other = read(tmp_path, "path,mask,sex\n1.jpg,1,m\n2.jpg,0,m\n", label="mask+sex", name="o.csv", min_classes=1)
    found = with_classes_of(model.labels, model.class_names, other)
    assert found.frame["label"].to_list() == [1, None]
    assert found.class_names == model.class_names
