"""What runs have learned from: told by the photo, and by all that belongs together with it in any run's table."""

from pathlib import Path

import polars as pl

from headstart.ancestry import LEARNED_FILE, learned_by, rows_learned
from headstart.data.table import SampleTable, complete_columns

KIM_AND_LEE = {"content_hash": ["a", "b", "c", "d"], "group": ["kim", "kim", "lee", "lee"], "unit": [0, 0, 1, 1]}


def rows_of(columns: dict[str, list]) -> pl.DataFrame:
    paths = [f"{photo}.jpg" for photo in columns["content_hash"]]
    source = pl.DataFrame({"path": paths, "label": [0] * len(paths)})
    later = {"content_hash": pl.String, "group": pl.String, "split": pl.String, "unit": pl.UInt32}
    known = [pl.Series(name, columns[name], later[name]) for name in later if name in columns]
    return complete_columns(source).with_columns(known)


def saved(folder: Path, columns: dict[str, list]) -> str:
    SampleTable(rows_of(columns), Path("/photos"), ("x",)).save(folder / "table.parquet")
    return str(folder)


def covered(ancestors: list[str], columns: dict[str, list], **how) -> list[bool]:
    return learned_by(ancestors, **how).joined(rows_of(columns))[1].tolist()


def test_a_person_is_learned_where_another_run_learned_from_one_photo_and_knew_of_no_persons(tmp_path):
    knows = saved(tmp_path / "knows", KIM_AND_LEE | {"split": ["test"] * 4})
    alone = {"content_hash": ["a", "b", "c", "d"], "unit": [0, 1, 2, 3]}
    does_not = saved(tmp_path / "does_not", alone | {"split": ["train", "test", "test", "test"]})
    assert covered([does_not], alone) == [True, False, False, False]
    assert covered([knows, does_not], alone) == [True, True, False, False]
    assert covered([knows, does_not], KIM_AND_LEE) == [True, True, False, False]


def test_a_burst_is_learned_where_one_of_its_frames_was(tmp_path):
    burst = {"content_hash": ["a", "b", "c"], "unit": [4, 4, 5], "split": ["train", "test", "test"]}
    assert covered([saved(tmp_path / "run", burst)], burst) == [True, True, False]


def test_units_join_through_a_photo_that_two_tables_know_whatever_they_number_them(tmp_path):
    first = saved(tmp_path / "first", {"content_hash": ["a", "b"], "unit": [7, 7], "split": ["train", "test"]})
    other = {"content_hash": ["x", "b", "c", "d"], "unit": [7, 0, 0, 1], "split": ["test"] * 4}
    assert covered([first, saved(tmp_path / "other", other)], other) == [False, True, True, False]


def test_validation_photos_count_only_where_they_are_asked_for(tmp_path):
    run = saved(tmp_path / "run", KIM_AND_LEE | {"split": ["train", "train", "validation", "validation"]})
    assert covered([run], KIM_AND_LEE) == [True] * 4
    assert covered([run], KIM_AND_LEE, splits=("train",)) == [True, True, False, False]


def test_units_are_joint_and_numbered_in_the_order_of_the_rows(tmp_path):
    knows = saved(tmp_path / "knows", KIM_AND_LEE | {"split": ["test"] * 4})
    alone = rows_of({"content_hash": ["d", "z", "a", "c"], "unit": [0, 1, 2, 3]})
    assert learned_by([knows]).joined(alone)[0].tolist() == [0, 1, 2, 0]


def test_rows_without_a_unit_are_no_unit_of_their_own(tmp_path):
    left_out = {"content_hash": ["a", "b", "c"], "unit": [None, None, 0], "split": ["train", "test", "test"]}
    assert covered([saved(tmp_path / "run", left_out)], left_out) == [True, False, False]


def test_an_ensemble_hands_on_what_its_members_know(tmp_path):
    runs = [
        saved(tmp_path / "knows", KIM_AND_LEE | {"split": ["test"] * 4}),
        saved(tmp_path / "does_not", {"content_hash": ["a", "b"], "unit": [0, 1], "split": ["train", "test"]}),
    ]
    (tmp_path / "both").mkdir()
    rows_learned(runs).write_parquet(tmp_path / "both" / LEARNED_FILE)
    again = learned_by([str(tmp_path / "both")])
    assert (again.hashes, again.groups, again.unknown) == ({"a"}, set(), ())
    assert again.joined(rows_of(KIM_AND_LEE))[1].tolist() == [True, True, False, False]


def test_a_run_whose_table_is_gone_is_unknown(tmp_path):
    assert learned_by([str(tmp_path / "gone")]).unknown == (str(tmp_path / "gone"),)
