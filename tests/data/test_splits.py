"""Splits: units never straddle, class shares stay close, given splits are kept and their leaks told."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.folds import assign_folds, table_of_fold
from headstart.data.sources import read_source
from headstart.data.splits import SplitReport, assign_splits, describe, save_split
from headstart.data.stratification import divide_units, join_units
from headstart.data.table import SampleTable, table_from_columns
from headstart.errors import SplitError
from headstart.recipe import make_recipe

FRACTIONS = (0.7, 0.15, 0.15)


def make_table(labels: list[int], **columns: list[object]) -> SampleTable:
    names = tuple("abcdefghijklmnopqrstuvwxyz"[: max(labels) + 1])
    table = table_from_columns(
        [f"{number:04d}.jpg" for number in range(len(labels))], labels, root=Path(), class_names=names
    )
    types = {"copy_set": pl.UInt32, "cluster": pl.UInt32}
    series = [pl.Series(name, values, types.get(name, pl.String)) for name, values in columns.items()]
    return table.with_frame(table.frame.with_columns(series))


def split(table: SampleTable, **settings: object) -> tuple[pl.DataFrame, SplitReport]:
    table, report = assign_splits(table, make_recipe(settings))
    return table.frame, report


def random_groups(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of uneven size whose samples mostly share a class."""
    random = np.random.default_rng(seed)
    num_groups, num_classes = int(random.integers(20, 150)), int(random.integers(2, 8))
    units = np.repeat(np.arange(num_groups), random.geometric(1 / random.integers(1, 20), num_groups))
    main = random.choice(num_classes, num_groups)
    is_main = random.random(len(units)) < random.random()
    return units, np.where(is_main, main[units], random.integers(0, num_classes, len(units))).astype(np.int32)


def share_gap(labels: np.ndarray, part: np.ndarray) -> float:
    counts = np.array([np.bincount(labels[part == number], minlength=labels.max() + 1) for number in range(3)])
    return float(np.abs(counts / counts.sum(axis=1, keepdims=True) - counts.sum(axis=0) / counts.sum()).max())


# --- dealing anew


def test_default_split_is_70_15_15_with_equal_class_shares() -> None:
    frame, report = split(make_table([0, 0, 0, 1] * 250))
    assert report.sizes == {"train": 700, "validation": 150, "test": 150}
    assert report.worst_share_gap < 0.4
    assert frame.group_by("split").agg(pl.len()).height == 3


def test_the_seed_decides_and_the_same_seed_repeats() -> None:
    table = make_table([0, 1] * 100)
    first, again, other = (split(table, seed=seed)[0]["split"].to_list() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("seed", range(10))
def test_groups_never_straddle(seed: int) -> None:
    units, labels = random_groups(seed)
    part = divide_units(units, labels, fractions=FRACTIONS, seed=seed)
    assert all(len(np.unique(part[units == unit])) == 1 for unit in np.unique(units))


def test_class_shares_are_as_close_as_those_of_scikit_learn() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(30):
        units, labels = random_groups(seed)
        ours.append(share_gap(labels, divide_units(units, labels, fractions=(5 / 7, 1 / 7, 1 / 7), seed=seed)))
        fold = np.zeros(len(units), int)
        splitter = StratifiedGroupKFold(7, shuffle=True, random_state=seed)
        for number, (_, rows) in enumerate(_quietly(splitter, units, labels)):
            fold[rows] = number
        theirs.append(share_gap(labels, np.select([fold == 0, fold == 1], [1, 2], 0)))
    assert np.median(ours) <= np.median(theirs)
    assert np.mean(ours) <= np.mean(theirs)


def _quietly(splitter, units, labels):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer members than folds
        return list(splitter.split(units, labels, units))


@pytest.mark.parametrize("seed", range(5))
def test_classes_with_three_units_are_in_every_split(seed: int) -> None:
    labels = [0] * 300 + [1] * 3 + [2] * 4
    frame, _ = split(make_table(labels), seed=seed)
    splits = frame.group_by("label").agg(pl.col("split").n_unique())["split"].to_list()
    assert splits == [3, 3, 3]


def test_many_classes_of_two_samples_do_not_starve_a_split() -> None:
    labels = np.repeat(np.arange(200), 2).astype(np.int32)
    part = divide_units(np.arange(400), labels, fractions=FRACTIONS, seed=0)
    assert min(np.bincount(part, minlength=3)) >= 30  # 60 would be the target, were there no classes
    assert set(labels[part == 0]) == set(range(200))


def test_classes_that_are_too_small_are_named() -> None:
    table = make_table([0] * 100 + [1] * 4, group=[None] * 100 + ["x"] * 4)
    _, report = split(table)
    note = "Class 'b' is not in validation and test: it has 4 samples in 1 units that stay whole."
    assert note in report.notes


def test_a_huge_group_goes_to_train() -> None:
    table = make_table([0, 1] * 50, group=["huge"] * 60 + [None] * 40)
    frame, report = split(table)
    assert frame["split"][:60].unique().to_list() == ["train"]
    assert report.sizes == {"train": 70, "validation": 15, "test": 15}


def test_groups_copies_and_clusters_are_joined_through_each_other() -> None:
    frame = pl.DataFrame(
        {
            "group": ["p", "p", None, None, None],
            "copy_set": [None, 1, 1, None, None],
            "cluster": [None, None, 5, 5, None],
        }
    )
    assert join_units(frame).tolist() == [0, 0, 0, 0, 1]


def test_joined_samples_share_a_split_and_a_unit() -> None:
    labels = [0, 1] * 60
    clusters = [number // 3 for number in range(120)]
    table = make_table(labels, cluster=clusters, group=[f"p{number % 60 // 4}" for number in range(120)])
    frame, report = split(table)
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    assert frame.group_by("cluster").agg(pl.col("split").n_unique())["split"].max() == 1
    assert frame["unit"].n_unique() == report.num_units < 40
    assert not report.leaks


def test_excluded_samples_get_neither_split_nor_unit() -> None:
    table = make_table([0, 1] * 20)
    excluded = pl.when(pl.col("sample_id") < 2).then(pl.lit("empty")).alias("excluded")
    frame, report = split(table.with_frame(table.frame.with_columns(excluded)))
    assert frame["split"].to_list()[:2] == [None, None] == frame["unit"].to_list()[:2]
    assert sum(report.sizes.values()) == 38 == frame["split"].count()


def test_no_test_part_is_made_where_none_is_wanted() -> None:
    _, report = split(make_table([0, 1] * 50), test_fraction=0.0)
    assert report.sizes == {"train": 85, "validation": 15, "test": 0}


def test_no_validation_is_refused() -> None:
    with pytest.raises(SplitError, match=r"--validation-fraction must be greater than 0; got 0\.0"):
        split(make_table([0, 1] * 50), validation_fraction=0.0)


def test_too_few_units_are_refused() -> None:
    with pytest.raises(SplitError, match=r"got 20 samples in 2 units, none left for validation and test"):
        split(make_table([0, 1] * 10, group=["p", "q"] * 10))


def test_no_usable_sample_is_refused() -> None:
    table = make_table([0, 1])
    table = table.with_frame(table.frame.with_columns(excluded=pl.lit("missing")))
    with pytest.raises(SplitError, match=r"usable samples; got 0. Left out: {'missing': 2}"):
        split(table)


# --- given splits


def given(train: int, validation: int, test: int) -> list[object]:
    return ["train"] * train + ["validation"] * validation + ["test"] * test


def test_a_given_split_is_kept() -> None:
    sides = given(60, 20, 20)
    frame, report = split(make_table([0, 1] * 50, split=sides))
    assert frame["split"].to_list() == sides
    assert report.how == "Split as given with the data."


def test_missing_validation_is_carved_out_of_train_in_whole_groups() -> None:
    groups = [f"p{number // 4}" for number in range(80)] + [None] * 20
    frame, report = split(make_table([0, 1] * 50, split=given(80, 0, 20), group=groups))
    assert report.sizes == {"train": 68, "validation": 12, "test": 20}
    assert frame["split"][80:].unique().to_list() == ["test"]
    assert frame.drop_nulls("group").group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    assert "validation (15 %) carved out of its training part" in report.how


def test_missing_test_is_carved_out_of_train_too() -> None:
    _, report = split(make_table([0, 1] * 50, split=given(80, 20, 0)), validation_fraction=0.0)
    assert report.sizes == {"train": 68, "validation": 20, "test": 12}


def test_a_unit_that_stands_in_test_is_not_carved() -> None:
    groups = ["shared"] * 10 + [None] * 80 + ["shared"] * 10
    frame, report = split(make_table([0, 1] * 50, split=given(80, 0, 20), group=groups))
    assert frame["split"][:10].unique().to_list() == ["train"]
    assert [(leak.kind, leak.count, leak.splits) for leak in report.leaks] == [("group", 1, ("train", "test"))]


def test_leaks_of_a_given_split_are_told_by_kind_with_examples() -> None:
    sides = given(4, 2, 2)
    copies = [1, 2, None, None, None, None, 1, None]
    clusters = [1, 2, 3, None, 3, None, 1, 2]
    _, report = split(make_table([0, 1] * 4, split=sides, copy_set=copies, cluster=clusters))
    leaks = {(leak.kind, leak.splits): (leak.count, leak.num_samples, leak.examples) for leak in report.leaks}
    assert leaks == {
        ("copy", ("train", "test")): (1, 2, (("0000.jpg", "0006.jpg"),)),
        ("near", ("train", "test")): (1, 2, (("0001.jpg", "0007.jpg"),)),
        ("near", ("train", "validation")): (1, 2, (("0002.jpg", "0004.jpg"),)),
    }


def test_resplit_mends_leaks() -> None:
    table = make_table([0, 1] * 50, split=given(70, 15, 15), group=[f"p{number % 30}" for number in range(100)])
    assert split(table)[1].leaks
    frame, report = split(table, resplit=True)
    assert not report.leaks
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1


def test_samples_without_a_given_split_follow_their_group_or_train() -> None:
    sides = given(40, 10, 10)
    sides[0], sides[59] = None, None
    frame, report = split(make_table([0, 1] * 30, split=sides, group=[None] * 58 + ["p", "p"]))
    assert frame["split"].to_list() == given(40, 10, 10)
    assert report.notes[0] == ("2 samples have no given split: 1 went to train, 1 to where their group or copies are.")


def test_describe_says_sizes_gap_and_leaks() -> None:
    _, report = split(make_table([0, 1] * 4, split=given(4, 2, 2), copy_set=[1, None, None, None, 1, *[None] * 3]))
    lines = describe(report)
    assert lines[1].startswith("train 4 · validation 2 · test 2; class shares differ")
    assert lines[2] == (
        "Leak between train and validation through byte-identical files: 1 (2 samples), "
        "e.g. '0000.jpg', '0004.jpg'; --resplit mends it."
    )


def test_worst_share_gap_is_in_points_of_percent() -> None:
    _, report = split(make_table([0] * 4 + [0, 1, 0, 1], split=given(4, 2, 2)))
    assert report.worst_share_gap == pytest.approx(25.0)
    assert report.class_shares.row(1) == ("b", 0, 1, 1)


# --- split files


def saved(table: SampleTable, path: Path, **settings: object) -> SampleTable:
    table, _ = assign_splits(table, make_recipe(settings))
    save_split(table, path)
    return table


def test_a_saved_split_is_found_again_by_path(tmp_path: Path) -> None:
    table = saved(make_table([0, 1] * 50), tmp_path / "split.parquet", seed=3)
    frame, report = split(make_table([0, 1] * 50), split=str(tmp_path / "split.parquet"))
    assert frame["split"].equals(table.frame["split"])
    assert "Split taken from" in report.how


def test_a_saved_split_is_found_again_by_content_where_files_moved(tmp_path: Path) -> None:
    hashes = [f"{number:032x}" for number in range(100)]
    table = saved(make_table([0, 1] * 50, content_hash=hashes), tmp_path / "split.parquet")
    moved = make_table([1, 0] * 50, content_hash=hashes[::-1])
    frame, _ = split(moved, split=str(tmp_path / "split.parquet"))
    assert frame["split"].to_list() == table.frame["split"].to_list()[::-1]


def split_of_a_fold(path: Path, labels: list[int], **columns: list[object]) -> SampleTable:
    """Save and give the split of the first of four folds."""
    table, _ = assign_splits(make_table(labels, **columns), make_recipe({}))
    fold = table_of_fold(assign_folds(table, num_folds=4, seed=0)[0], 1, make_recipe({}))
    save_split(fold, path)
    return fold


def test_what_a_fold_leaves_aside_stays_aside_where_its_split_is_taken(tmp_path: Path) -> None:
    fold = split_of_a_fold(tmp_path / "split.parquet", [0, 1] * 60)
    frame, report = split(make_table([0, 1] * 60), split=str(tmp_path / "split.parquet"))
    assert frame["split"].null_count() == 18
    assert frame["split"].equals(fold.frame["split"])
    assert sum(report.sizes.values()) == report.num_units == 102
    note = "18 samples take no part in that split: nothing is learned from them, and they are not scored."
    assert report.notes == (note,)


def test_new_photos_of_a_person_who_stands_aside_stand_aside_too(tmp_path: Path) -> None:
    persons: list[object] = [f"p{number // 4}" for number in range(120)]
    fold = split_of_a_fold(tmp_path / "split.parquet", [0, 1] * 60, group=persons)
    frame, report = split(make_table([0, 1] * 120, group=persons * 2), split=str(tmp_path / "split.parquet"))
    assert frame["split"][120:].equals(fold.frame["split"])
    assert not report.leaks
    folds, _ = assign_folds(fold.with_frame(frame[:120]), num_folds=3, seed=1)
    assert folds.frame.filter(pl.col("fold").is_not_null() & fold.frame["split"].is_null()).is_empty()


def test_samples_that_a_split_file_lacks_are_counted(tmp_path: Path) -> None:
    saved(make_table([0, 1] * 40), tmp_path / "split.parquet")
    frame, report = split(make_table([0, 1] * 50), split=str(tmp_path / "split.parquet"))
    assert frame["split"][80:].unique().to_list() == ["train"]
    assert report.notes[0] == "20 samples have no given split: 20 went to train."


def test_a_split_file_of_other_photos_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["x.jpg"], "split": ["train"]}).write_parquet(tmp_path / "s.parquet")
    with pytest.raises(SplitError, match=r"a split of these photos; got 'x\.jpg'"):
        split(make_table([0, 1] * 10), split=str(tmp_path / "s.parquet"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"path": ["0000.jpg"], "split": ["tets"]},
            "must be train, validation or test; got 'tets'. Did you mean 'test'",
        ),
        ({"path": ["0000.jpg"]}, r"a file with path or content_hash, and split; got \['path'\]"),
    ],
)
def test_split_files_with_other_contents_are_refused(tmp_path: Path, columns: dict, message: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "s.parquet")
    with pytest.raises(SplitError, match=message):
        split(make_table([0, 1] * 10), split=str(tmp_path / "s.parquet"))


def test_a_missing_split_file_is_refused() -> None:
    with pytest.raises(SplitError, match=r"--split must be a file; got 'none\.parquet'"):
        split(make_table([0, 1] * 10), split="none.parquet")


def test_split_file_and_resplit_together_are_refused() -> None:
    with pytest.raises(SplitError, match=r"--resplit must be left out beside --split; got 's\.parquet'"):
        split(make_table([0, 1] * 10), split="s.parquet", resplit=True)


# --- real photos


needs_data = pytest.mark.skipif("HEADSTART_DATA" not in os.environ, reason="HEADSTART_DATA is not set")


@pytest.mark.real_data
@needs_data
def test_no_person_of_the_emotion_faces_is_on_two_sides(tmp_path: Path) -> None:
    data = Path(os.environ["HEADSTART_DATA"]) / "ck48_emotion_by_subject" / "labels.csv"
    recipe = make_recipe({"data": str(data), "group_column": "subject"})
    table, report = assign_splits(read_source(recipe, unpack_dir=tmp_path), recipe)
    assert table.frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    assert report.num_units == 118
    assert report.worst_share_gap < 2.0


@pytest.mark.real_data
@needs_data
def test_the_given_test_folder_of_the_scenes_is_kept(tmp_path: Path) -> None:
    recipe = make_recipe({"data": str(Path(os.environ["HEADSTART_DATA"]) / "scenes_intel100")})
    _, report = assign_splits(read_source(recipe, unpack_dir=tmp_path), recipe)
    assert report.sizes == {"train": 3060, "validation": 540, "test": 2158}
