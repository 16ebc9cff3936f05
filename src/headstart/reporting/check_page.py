"""The page of ``headstart check``: every file accounted for, and what stands between the data and an honest score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from headstart.data.account import Account, describe
from headstart.data.label_layout import LabelLayout, output_counts
from headstart.data.table import SPLITS, SampleTable
from headstart.evaluation.classification import listed
from headstart.reporting.concerns import Concern
from headstart.reporting.image_sets import ReadsPixels, find_sets, show_sets
from headstart.reporting.keypoint_sheet import KeypointSheet
from headstart.reporting.pages import write_page

MAX_NAMES: Final = 50
"""Files named for each reason; the table beside the page names all."""

FEW_IMAGES: Final = 20
"""A class with fewer images than this leaves about three for the test."""

_CROSSINGS: Final = {
    "copy": ("set of byte-identical files", "sets of byte-identical files", "the test is partly known by heart"),
    "near": ("set of near-identical images", "sets of near-identical images", "the test is partly known by heart"),
    "group": ("group", "groups", "the score says nothing about new groups"),
}
"""For each kind of leak: one, several, and the harm."""


@dataclass(frozen=True)
class Exclusion:
    """Files left out for one reason: how many, and the first of them, each with the words for its case."""

    reason: str
    count: int
    files: tuple[tuple[str, str], ...]


def write_check_page(
    account: Account,
    table: SampleTable,
    store: ReadsPixels,
    path: Path,
    *,
    keypoints: KeypointSheet | None = None,
    data: Path | None = None,
) -> None:
    """Write the account of the data as one HTML file that needs nothing else.

    Args:
        account: What was counted.
        table: The samples, after the duplicate search; splits as given, before any are assigned.
        store: Where thumbnails come from: the user's files are not opened again.
        path: Where to write; replaced in one step.
        keypoints: What to show of a table of keypoints (``keypoint_sheet.keypoint_sheet``); None for one of labels.
        data: What the user named, where that is an archive; the folder of the photos unless told.
    """
    kept = table.kept
    conflicting = find_sets(kept, "copy_set", differing="label")
    across = find_sets(kept, "cluster", differing="split")  # exact copies are in a cluster too
    near = find_sets(kept, "cluster", differing="record")
    context = {
        "account": account,
        "table": table,
        "data": data or table.root,
        "lines": [*table.notes, *describe(account)],
        "concerns": [*concerns_of_data(account), *(keypoints.concerns if keypoints else ())],
        "exclusions": list_exclusions(account),
        "classes": count_classes(table),
        "sizes": count_sizes(kept),
        "keypoints": keypoints,
        "conflicting": (conflicting.count, show_sets(conflicting, table, store, first_of="label")),
        "across": (across.count, show_sets(across, table, store, first_of="split")),
        "near": (near.count, show_sets(near, table, store)),
    }
    write_page("check.html", context, path)


def concerns_of_data(account: Account) -> list[Concern]:
    """List what to worry about before training, the gravest first.

    Examples:
        >>> from headstart.data.account import account
        >>> from headstart.data.table import table_from_columns
        >>> table = table_from_columns(["1.jpg", "2.jpg"], [0, None], root=Path("photos"), class_names=("cat",))
        >>> [concern.title for concern in concerns_of_data(account(table))]
        ['Files left out', 'Classes with few images']
    """
    found: list[Concern] = []
    for crossing in account.crossings:
        one, several, harm = _CROSSINGS[crossing.kind]
        words = f"{crossing.count:,} {several} stand" if crossing.count > 1 else f"1 {one} stands"
        text = f"{words} in {' and '.join(crossing.splits)} ({crossing.num_samples:,} images): {harm}."
        found.append(Concern("Leak between splits", f"{text} --resplit mends it."))
    if account.num_conflicting_sets:
        sets = account.num_conflicting_sets
        words = f"{sets:,} sets of byte-identical files carry" if sets > 1 else "1 set of byte-identical files carries"
        found.append(Concern("Copies with several labels", f"{words} several labels: at least one of them is wrong."))
    if account.excluded:
        named = ", ".join(f"{reason} ({count:,})" for reason, count in account.excluded.items())
        found.append(Concern("Files left out", f"{named}. They are named below."))
    return found + _about_classes(account)


def list_exclusions(account: Account) -> list[Exclusion]:
    """Name the first files left out for each reason, the most frequent reason first."""
    found: list[Exclusion] = []
    for reason, count in account.excluded.items():
        rows = account.exclusions.filter(pl.col("excluded") == reason).head(MAX_NAMES)
        details = rows["detail"].fill_null("").to_list()
        found.append(Exclusion(reason, count, tuple(zip(rows["path"].to_list(), details, strict=True))))
    return found


def count_classes(table: SampleTable) -> pl.DataFrame:
    """Count the kept samples of every class, also of those that have none, in each given split.

    Returns:
        ``class_name``, ``images``, ``share`` (of the largest class; for the bars), and where splits are given a column
        for each of them.
    """
    if table.labels is not None and not table.has_plain_classes:
        return _with_shares(count_outputs(table, table.labels))
    kept, names = table.kept, pl.DataFrame({"class_name": pl.Series(table.class_names, dtype=pl.String)})
    columns = [pl.len().alias("images")]
    columns += [(pl.col("split") == split).sum().alias(split) for split in SPLITS if (kept["split"] == split).any()]
    counts = kept.group_by("label").agg(columns)
    everyone = names.with_row_index("label").with_columns(pl.col("label").cast(pl.Int32))
    joined = everyone.join(counts, on="label", how="left", maintain_order="left").drop("label")
    return _with_shares(joined.with_columns(pl.exclude("class_name").fill_null(0)))


def count_outputs(table: SampleTable, layout: LabelLayout) -> pl.DataFrame:
    """Count the kept samples of each class of several labels, in all and in each given split."""
    kept = table.kept
    parts = {"images": kept} | {split: kept.filter(pl.col("split") == split) for split in SPLITS}
    columns = {name: list(output_counts(rows, layout).values()) for name, rows in parts.items() if rows.height}
    return pl.DataFrame({"class_name": pl.Series(layout.output_names, dtype=pl.String), **columns})


def _with_shares(counts: pl.DataFrame) -> pl.DataFrame:
    return counts.with_columns(share=pl.col("images") / pl.max_horizontal(pl.col("images").max(), 1))


def count_sizes(kept: pl.DataFrame, *, limit: int = 6) -> list[dict[str, Any]]:
    """Count the most frequent image sizes: ``height, width, count, share``; the rest as one row without a size."""
    if "height" not in kept.columns or not kept.height:
        return []
    counts = kept.group_by("height", "width").agg(count=pl.len()).sort(["count", "height", "width"], descending=True)
    rows = counts.head(limit).to_dicts()
    if counts.height > limit:
        rest = counts[limit:]
        rows.append({"height": None, "width": None, "count": rest["count"].sum(), "num_sizes": rest.height})
    return [row | {"share": row["count"] / kept.height} for row in rows]


def _about_classes(account: Account) -> list[Concern]:
    found: list[Concern] = []
    few = sorted((count, name) for name, count in account.class_counts.items() if count < FEW_IMAGES)
    if few:
        named = listed([f"{name} ({count})" for count, name in few])
        found.append(Concern("Classes with few images", f"{named}: too few to train on and to judge by."))
    if account.absent_classes:
        named = listed([f"{name} (in {' and '.join(splits)} only)" for name, splits in account.absent_classes.items()])
        found.append(Concern("Classes absent from a split", f"{named}."))
    return found
