"""The sample table: nothing is dropped, bad frames are refused, saving keeps everything."""

from pathlib import Path

import polars as pl
import pytest

from headstart.data.table import SampleTable, complete_columns, table_from_class_names, table_from_columns
from headstart.errors import SourceError


@pytest.fixture
def table() -> SampleTable:
    rows = pl.DataFrame({"path": ["a/1.jpg", "b/2.jpg", "3.jpg"], "class_name": ["개", "고양이", None]})
    return table_from_class_names(rows, root=Path("/photos"), notes=("Guessed.",))


def test_found_is_kept_plus_excluded(table: SampleTable) -> None:
    assert table.frame.height == table.kept.height + sum(table.excluded_counts.values())
    assert table.excluded_counts == {"no label": 1}


def test_excluded_counts_stand_in_order_of_frequency() -> None:
    frame = complete_columns(pl.DataFrame({"path": list("abc"), "label": [0, 0, 0]}))
    frame = frame.with_columns(excluded=pl.Series(["empty", "missing", "missing"]))
    assert list(SampleTable(frame, Path(), ("x",)).excluded_counts.items()) == [("missing", 2), ("empty", 1)]


def test_class_names_are_sorted_and_labels_point_at_them(table: SampleTable) -> None:
    assert table.class_names == tuple(sorted(["고양이", "개"]))
    assert table.class_names[table.frame["label"][1]] == "고양이"


def test_saving_and_loading_gives_the_same_table(table: SampleTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.parquet")
    loaded = SampleTable.load(tmp_path / "table.parquet")
    assert loaded.frame.equals(table.frame)
    assert (loaded.root, loaded.class_names, loaded.notes) == (table.root, table.class_names, table.notes)
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_loading_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(SourceError, match=r"a file that headstart saved; got '.*other\.parquet'"):
        SampleTable.load(tmp_path / "other.parquet")


def test_loading_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.parquet"):
        SampleTable.load(tmp_path / "none.parquet")


def test_dropping_rows_is_refused(table: SampleTable) -> None:
    with pytest.raises(SourceError, match="a frame of 3 rows; got 2"):
        table.with_frame(table.frame.head(2))


def test_notes_are_added(table: SampleTable) -> None:
    assert table.with_frame(table.frame, "Seen.").notes == ("Guessed.", "Seen.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit("bored").alias("excluded"), "column 'excluded' must be one of no label, .*; got 'bored'"),
        (pl.lit("val").alias("split"), "column 'split' must be one of train, validation, test; got 'val'"),
        (pl.lit(7, pl.Int32).alias("label"), "column 'label' must be from 0 to 1; got 7"),
        (pl.lit(1, pl.UInt32).alias("sample_id"), "'sample_id' must be 0"),
        (pl.lit(1, pl.Int64).alias("label"), "column 'label' must be of type Int32; got 'Int64'"),
        (pl.lit(1, pl.Int64).alias("cluster"), "column 'cluster' must be of type UInt32; got 'Int64'"),
    ],
)
def test_values_that_no_stage_may_write_are_refused(table: SampleTable, change: pl.Expr, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        table.with_frame(table.frame.with_columns(change))


def test_a_missing_column_is_refused(table: SampleTable) -> None:
    with pytest.raises(SourceError, match="with a column 'group'"):
        table.with_frame(table.frame.drop("group"))


def test_absolute_paths_stay_and_relative_ones_start_at_the_root() -> None:
    table = table_from_columns(["가/1.jpg", "/b/2.jpg"], [0, 0], root=Path("/"), class_names=("x",))
    assert table.absolute_paths(table.frame).to_list() == ["/가/1.jpg", "/b/2.jpg"]
