from pathlib import Path

import polars as pl
import pytest

from headstart.data.account import Account, account, describe
from headstart.data.table import SampleTable, table_from_columns

NAMES = ("바다", "산", "숲")


def table_with(num_samples: int = 12, names: tuple[str, ...] = NAMES, **columns: list[object]) -> SampleTable:
    """A table as it is after the duplicate search; ``columns`` gives whole columns."""
    labels = [row % len(names) for row in range(num_samples)]
    paths = [f"{names[label]}/{row:02}.jpg" for row, label in enumerate(labels)]
    table = table_from_columns(paths, labels, root=Path("/photos"), class_names=names)
    types = {"record": pl.UInt32, "copy_set": pl.UInt32, "cluster": pl.UInt32, "height": pl.UInt32, "width": pl.UInt32}
    defaults = {"record": list(range(num_samples)), "height": [60] * num_samples, "width": [80] * num_samples}
    given = {**dict.fromkeys(types, [None] * num_samples), **defaults, **columns}
    types |= {"excluded": pl.String, "detail": pl.String, "split": pl.String, "group": pl.String, "label": pl.Int32}
    return table.with_frame(table.frame.with_columns(pl.Series(n, v, dtype=types[n]) for n, v in given.items()))


def at(num_samples: int = 12, **values: object) -> list[object]:
    """A column that is null but at some rows: ``at(_3="x")``."""
    cells: list[object] = [None] * num_samples
    for row, value in values.items():
        cells[int(row.removeprefix("_"))] = value
    return cells


def lines_of(table: SampleTable) -> str:
    return "\n".join(describe(account(table)))


def test_found_is_kept_and_excluded():
    excluded = at(_2="truncated", _5="empty", _7="truncated", _8="missing")
    found = account(
        table_with(excluded=excluded, detail=at(_2="ends early", _5="no bytes", _7="ends early", _8="gone"))
    )
    assert (found.num_found, found.num_kept, found.num_excluded) == (12, 8, 4)
    assert found.num_found == found.num_kept + found.num_excluded
    assert found.excluded == {"truncated": 2, "empty": 1, "missing": 1}
    assert found.exclusions.height == 4
    assert found.exclusions.row(0) == ("숲/02.jpg", "truncated", "ends early")
    assert sum(found.class_counts.values()) == found.num_kept


def test_excluded_files_are_named_with_their_words():
    excluded = ["truncated"] * 5 + [None] * 7
    text = lines_of(table_with(excluded=excluded, detail=["ends early"] * 5 + [None] * 7))
    assert "found: 12 images = 7 kept + 5 excluded" in text
    assert "excluded: 5 truncated" in text
    assert "  truncated: 바다/00.jpg (ends early)" in text
    assert "  truncated: and 2 more" in text


def test_classes_are_counted_also_those_without_an_image():
    labels = [0] * 9 + [1] * 3
    found = account(table_with(label=labels))
    assert found.class_counts == {"바다": 9, "산": 3, "숲": 0}
    assert found.imbalance is None
    text = "\n".join(describe(found))
    assert "classes: 3 (바다: 9, 산: 3, 숲: 0)" in text
    assert "classes without a usable image: 숲" in text


def test_imbalance_is_the_largest_to_the_smallest():
    found = account(table_with(label=[0] * 8 + [1] * 2 + [2] * 2))
    assert found.imbalance == 4.0
    assert "; 4.0 : 1)" in "\n".join(describe(found))


def test_many_classes_are_summed_up():
    names = tuple(f"class{number:02}" for number in range(20))
    table = table_with(60, names, label=[0] * 30 + list(range(1, 20)) + [5] * 11)
    assert "classes: 20 (largest class00: 30, smallest class19: 1; 30.0 : 1)" in lines_of(table)


def test_copies_and_clusters_are_counted_apart():
    records = [0, 0, 2, 3, 4, 4, 6, 7, 8, 9, 10, 11]
    copies = at(_0=0, _1=0, _4=1, _5=1)
    clusters = at(_0=0, _1=0, _2=1, _3=1, _4=2, _5=2, _6=2)
    found = account(table_with(record=records, copy_set=copies, cluster=clusters))
    assert (found.num_copy_sets, found.num_copied) == (2, 4)
    assert (found.num_clusters, found.num_clustered, found.largest_cluster) == (2, 5, 3)
    text = "\n".join(describe(found))
    assert "copies: 2 sets of byte-identical files (4 images)" in text
    assert "near-identical: 2 clusters (5 images, the largest of 3)" in text


def test_copies_with_two_labels_are_named_with_both():
    records = [0, 0, 2, 2, *range(4, 12)]
    table = table_with(record=records, copy_set=at(_0=0, _1=0, _2=1, _3=1), label=[0, 1, 2, 2] + [0] * 8)
    found = account(table)
    assert found.num_conflicting_sets == 1
    assert found.conflicts.rows() == [(0, "바다/00.jpg", "바다"), (0, "산/01.jpg", "산")]
    assert "copies with different labels: 1" in "\n".join(describe(found))
    assert "  바다/00.jpg (바다) = 산/01.jpg (산)" in "\n".join(describe(found))


def split_table() -> SampleTable:
    """Copies, clusters and groups of which some stand on two or three sides."""
    return table_with(
        split=["train"] * 6 + ["validation"] * 3 + ["test"] * 3,
        record=[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 11],
        copy_set=at(_0=0, _9=0, _1=1, _10=1),
        cluster=at(_0=0, _9=0, _1=1, _10=1, _2=2, _7=2, _11=2, _3=3, _4=3),
        group=["a", "a", "b", "b", "c", "c", "c", "d", "d", "e", "e", "e"],
    )


def test_what_stands_in_several_given_splits_is_counted_by_kind_and_sides():
    found = account(split_table())
    assert found.split_counts == {"train": 6, "validation": 3, "test": 3}
    crossings = {(c.kind, c.splits): (c.count, c.num_samples, c.examples) for c in found.crossings}
    assert crossings == {
        ("copy", ("train", "test")): (2, 4, (("바다/00.jpg", "바다/09.jpg"), ("산/01.jpg", "산/10.jpg"))),
        ("near", ("train", "validation", "test")): (1, 3, (("숲/02.jpg", "산/07.jpg", "숲/11.jpg"),)),
        ("group", ("train", "validation")): (1, 3, (("산/04.jpg", "바다/06.jpg"),)),
    }
    assert (found.num_groups, found.largest_group) == (5, 3)


def test_leaks_are_said_with_the_remedy_and_can_be_left_to_the_splits():
    text = lines_of(split_table())
    assert "given splits: train 6, validation 3, test 3" in text
    assert "leak: 2 sets of byte-identical files in train and test (4 images); --resplit mends it" in text
    assert "  바다/00.jpg ~ 바다/09.jpg" in text
    assert "leak: 1 cluster of near-identical images in train and validation and test (3 images)" in text
    assert "leak: 1 group in train and validation" in text
    assert "groups: 5, the largest of 3 images" in text
    assert not [line for line in describe(account(split_table()), with_splits=False) if "split" in line]


def test_a_class_that_lacks_in_a_split_is_named():
    table = table_with(split=["train"] * 8 + ["test"] * 4, label=[0, 1, 2, 0, 1, 2, 0, 1, 0, 0, 1, 1])
    found = account(table)
    assert found.absent_classes == {"숲": ("train",)}
    assert "class '숲' is in train only" in "\n".join(describe(found))


def test_without_given_splits_nothing_is_said_of_them():
    found = account(table_with())
    assert (found.split_counts, found.crossings, found.absent_classes) == ({}, (), {})


def test_sizes_are_from_the_smallest_to_the_largest_photo():
    found = account(table_with(height=[60] * 10 + [10, 900], width=[80] * 10 + [500, 1600]))
    assert found.sizes is not None
    assert (found.sizes.median, found.sizes.smallest, found.sizes.largest) == ((60, 80), (60, 80), (900, 1600))
    assert "sizes: median 60 × 80 (height × width), from 60 × 80 to 900 × 1,600" in "\n".join(describe(found))
    assert "sizes: all 60 × 80 (height × width)" in lines_of(table_with())
    assert "sizes: median" in lines_of(table_with(height=[60] * 11 + [80], width=[80] * 11 + [60]))


def test_a_giant_cluster_is_doubted():
    table = table_with(60, record=list(range(60)), cluster=[0] * 55 + [None] * 5)
    assert "lower --duplicate-distance" in lines_of(table)
    assert "--duplicate-distance" not in lines_of(table_with(cluster=at(_0=0, _1=0)))


@pytest.mark.parametrize("num_excluded", [0, 3])
def test_a_table_that_was_not_read_yet_can_be_accounted_for(num_excluded):
    labels = [None] * num_excluded + [0] * 4
    table = table_from_columns(
        [f"{row}.jpg" for row in range(len(labels))], labels, root=Path("/p"), class_names=("a",)
    )
    found = account(table)
    assert isinstance(found, Account)
    assert (found.num_found, found.num_excluded) == (4 + num_excluded, num_excluded)
    assert found.sizes is None
    assert describe(found)


def test_a_table_without_samples_can_be_accounted_for():
    found = account(table_from_columns([], [], root=Path("/p"), class_names=()))
    assert describe(found) == ["found: 0 images = 0 kept + 0 excluded"]
