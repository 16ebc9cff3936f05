import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.account import account
from headstart.data.table import SampleTable
from headstart.reporting.check_page import (
    concerns_of_data,
    count_classes,
    count_sizes,
    list_exclusions,
    write_check_page,
)
from headstart.reporting.image_sets import MAX_MEMBERS, MAX_SETS, find_sets, show_sets

NAMES = ("glacier", "건물", "바다")


class DrawnPixels:
    """Pixels for any record, and which records were asked for."""

    def __init__(self) -> None:
        self.read_records: list[int] = []

    def read(self, record: int) -> np.ndarray:
        self.read_records.append(record)
        return np.full((60, 80, 3), (record * 37) % 256, np.uint8)


def made_up_table(
    num_samples: int = 300, *, names: tuple[str, ...] = NAMES, **columns: dict[int, object]
) -> SampleTable:
    """A table as it is after the duplicate search; ``columns`` changes single cells by row."""
    types = {
        "sample_id": pl.UInt32, "path": pl.String, "label": pl.Int32, "group": pl.String, "split": pl.String,
        "excluded": pl.String, "detail": pl.String, "content_hash": pl.String, "perceptual_hash": pl.UInt64,
        "height": pl.UInt32, "width": pl.UInt32, "record": pl.UInt32, "copy_set": pl.UInt32, "cluster": pl.UInt32,
    }  # fmt: skip
    rows = [
        {"sample_id": row, "label": row % len(names), "path": f"{names[row % len(names)]}/{row:04}.jpg", "height": 720,
         "width": 1280, "record": row, "content_hash": f"{row:032x}", "perceptual_hash": row}
        for row in range(num_samples)
    ]  # fmt: skip
    for name, cells in columns.items():
        for row, value in cells.items():
            rows[row][name] = value
    return SampleTable(pl.DataFrame(rows, schema=types), Path("/photos/여름"), names)


def troubled_table() -> SampleTable:
    """Every kind of trouble at once: files left out, copies with two labels, clusters, and splits that leak."""
    splits = {row: "train" if row < 200 else "test" for row in range(300)}
    excluded = {row: "truncated" if row < 70 else "empty" for row in range(10, 73)}
    broken = dict.fromkeys(range(10, 73))
    return made_up_table(
        split=splits, excluded=excluded, detail={row: f"ends {row} bytes early" for row in range(10, 73)},
        record=broken | {4: 3}, height=broken, width=broken, copy_set={3: 0, 4: 0},
        cluster={3: 0, 4: 0} | dict.fromkeys(range(196, 206), 1) | dict.fromkeys((80, 81), 2),
    )  # fmt: skip


def written(table: SampleTable, folder: Path) -> str:
    write_check_page(account(table), table, DrawnPixels(), folder / "check.html")
    return (folder / "check.html").read_text(encoding="utf-8")


def titles(table: SampleTable) -> dict[str, str]:
    return {concern.title: concern.text for concern in concerns_of_data(account(table))}


@pytest.mark.parametrize(
    "words",
    [
        "여름", ">300<", ">237<", ">63<", "truncated (60), empty (3)", "ends 12 bytes early", "and 10 more",
        "Copies with several labels", "Copies across the given splits", "Near-identical images", "720 × 1,280",
        "10 images, the first 6 shown", "건물/0004.jpg", "--resplit mends it",
    ],
)  # fmt: skip
def test_every_part_is_on_the_page(words, tmp_path):
    assert words in written(troubled_table(), tmp_path)


def test_data_in_an_archive_is_called_by_the_archive(tmp_path):
    table = made_up_table()
    write_check_page(account(table), table, DrawnPixels(), tmp_path / "check.html", data=Path("내/faces.zip"))
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "<h1>faces.zip</h1>" in page
    assert "여름" not in page


def test_the_page_needs_nothing_from_outside(tmp_path):
    page = written(troubled_table(), tmp_path)
    assert not re.findall(r"https?://|<script|<link|@import|url\(", page)
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', page))


def test_clean_data_raises_no_worry(tmp_path):
    page = written(made_up_table(), tmp_path)
    assert "Nothing was found" in page
    assert "Left out</h2>" not in page


def test_hostile_names_are_text(tmp_path):
    page = written(made_up_table(names=("<script>x</script>", '"><img src=x>')), tmp_path)
    assert "<script" not in page
    assert "<img src=x>" not in page


def test_data_of_which_nothing_is_kept_still_has_a_page(tmp_path):
    gone = dict.fromkeys(range(5))
    table = made_up_table(5, excluded=dict.fromkeys(range(5), "missing"), record=gone, height=gone, width=gone)
    assert "missing (5)" in written(table, tmp_path)


def test_only_the_files_shown_are_read_from_the_store(tmp_path):
    table, store = troubled_table(), DrawnPixels()
    write_check_page(account(table), table, store, tmp_path / "check.html")
    assert len(store.read_records) <= 3 * MAX_SETS * MAX_MEMBERS
    assert set(store.read_records) <= {3, 80, 81, *range(196, 206)}


def test_sets_are_those_that_differ_the_largest_first():
    kept = troubled_table().kept
    assert find_sets(kept, "copy_set", differing="label").count == 1
    assert [rows.height for rows in find_sets(kept, "cluster", differing="record").largest] == [10, 2]
    assert find_sets(kept, "cluster", differing="split").largest[0]["cluster"].unique().to_list() == [1]


def test_a_set_shows_what_differs_first():
    table = troubled_table()
    shown = show_sets(find_sets(table.kept, "cluster", differing="split"), table, DrawnPixels(), first_of="split")
    assert [member.split for member in shown[0].members][:4] == ["train", "test", "train", "test"]
    assert (shown[0].size, len(shown[0].members)) == (10, MAX_MEMBERS)


def test_only_the_largest_sets_are_shown_but_all_are_counted():
    table = made_up_table(cluster={row: row // 2 for row in range(100)})
    found = find_sets(table.kept, "cluster", differing="record")
    assert (found.count, len(found.largest)) == (50, MAX_SETS)


def test_a_table_without_the_duplicate_search_has_no_sets():
    assert find_sets(made_up_table().kept.drop("cluster"), "cluster", differing="label").count == 0


def test_exclusions_add_up_and_name_the_first_fifty():
    table = troubled_table()
    truncated, empty = list_exclusions(account(table))
    assert (truncated.reason, truncated.count, len(truncated.files)) == ("truncated", 60, 50)
    assert truncated.files[0] == ("건물/0010.jpg", "ends 10 bytes early")
    assert truncated.count + empty.count + table.kept.height == table.frame.height


def test_classes_without_a_kept_image_are_counted_as_zero():
    table = made_up_table(6, excluded=dict.fromkeys((0, 3), "empty"))
    assert count_classes(table)["images"].to_list() == [0, 2, 2]
    assert titles(table)["Classes with few images"].startswith("glacier (0), 건물 (2), 바다 (2)")


def test_a_class_that_lacks_in_a_split_is_named():
    splits = {row: "train" if row < 150 or row % 3 == 1 else "test" for row in range(300)}
    assert titles(made_up_table(split=splits))["Classes absent from a split"] == "건물 (in train only)."


def test_leaks_and_conflicts_are_counted():
    found = titles(troubled_table())
    assert found["Leak between splits"].startswith(
        "1 set of near-identical images stands in train and test (10 images)"
    )
    assert found["Copies with several labels"].startswith("1 set of byte-identical files carries")


def test_sizes_are_the_most_frequent_and_the_rest():
    kept = made_up_table(height={row: 100 + row for row in range(20)}).kept
    rows = count_sizes(kept)
    assert (rows[0]["height"], rows[0]["count"]) == (720, 280)
    assert (rows[-1]["height"], rows[-1]["num_sizes"], sum(row["count"] for row in rows)) == (None, 15, 300)


@pytest.mark.browser
def test_no_part_is_wider_than_a_phone(tmp_path, measure_page):
    seen = measure_page(written(troubled_table(), tmp_path), width=390)
    assert (seen["scroll_width"], seen["broken_images"]) == (390, 0)


def test_groups_on_two_sides_of_a_given_split_are_counted(tmp_path):
    splits = {row: "train" if row < 200 else "test" for row in range(300)}
    page = written(made_up_table(split=splits, group={row: f"person {row % 7}" for row in range(300)}), tmp_path)
    assert "7 groups stand in train and test (300 images)" in page


def test_the_page_needs_no_pytorch():
    modules = "headstart.preparation, headstart.reporting.check_page, headstart.reporting.keypoint_findings"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
