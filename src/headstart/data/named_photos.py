"""A folder of photos whose labels stand in their names → table."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import polars as pl

from headstart.data.folders import SPLIT_NAMES, FolderListing, has_image_suffix
from headstart.data.label_columns import absent_labels, take_labels, word_absent
from headstart.data.label_files import clean_groups, clean_splits
from headstart.data.name_columns import take_name_columns, text_name
from headstart.data.table import SampleTable
from headstart.errors import SourceError, all_at_once, did_you_mean, must_be
from headstart.recipe import Recipe

_NOT_HEEDED: Final = ("path_column", "image_root")
"""Settings of tables that say nothing about photos in a folder; taking them silently would mislead."""


def read_named_photos(
    folder: Path, listing: FolderListing, recipe: Recipe, *, may_lack: Collection[str] = ()
) -> SampleTable:
    """Read photos whose labels stand in their names, wherever below the folder they lie.

    Args:
        folder: The folder.
        listing: Its files.
        recipe: Its pattern names every label column, and those of groups and splits where it asks for such.
        may_lack: Label columns that need not be there.

    Raises:
        SourceError: There is no photo, a column is no group of the pattern, or a setting is of a table.
    """
    groups = re.compile(recipe.name_pattern or "").groupindex
    absent = absent_labels(recipe, groups, may_lack)
    _check_columns(recipe, groups, absent)
    frame = listing.paths.to_frame("path").filter(has_image_suffix(pl.col("path")))
    if frame.is_empty():
        raise SourceError(must_be(str(folder), "a folder of photos", f"{len(listing.paths):,} files, no image"))
    unusable = pl.col("path").replace_strict(listing.unusable, default=None, return_dtype=pl.String)
    if listing.unusable:
        is_lost = pl.col("path").is_in(list(listing.unusable))
        frame = frame.with_columns(excluded=pl.when(is_lost).then(pl.lit("unreadable")), detail=unusable)
    frame = frame.with_columns(split=_given_splits(frame["path"]))
    frame, notes = take_name_columns(frame, recipe)
    columns = {meaning: name for meaning, name in _asked(recipe).items() if name is not None}
    frame = frame.with_columns(pl.col(text_name(name)).alias(meaning) for meaning, name in columns.items())
    frame, split_notes = clean_splits(clean_groups(frame), None, columns.get("split"))
    table = take_labels(frame, recipe, root=folder, absent=absent)
    return table.with_frame(table.frame, *notes, *split_notes, *word_absent("File names", absent))


def _asked(recipe: Recipe) -> dict[str, str | None]:
    return {"group": recipe.group_column, "split": recipe.split_column}


def _check_columns(recipe: Recipe, groups: Collection[str], absent: Collection[str]) -> None:
    """Refuse columns that are no group of the pattern, and settings that say nothing where there is no table."""
    expected = f"groups of --name-pattern ({', '.join(groups)}) where the data is a folder of photos"
    unknown = [name for name in recipe.labels.names if name not in (*groups, *absent)]
    problems = [must_be(recipe.labels.flag, expected, unknown, did_you_mean(unknown[0], groups))] if unknown else []
    problems += [
        must_be(f"--{meaning}-column", f"one of the {expected}", name, did_you_mean(name, groups))
        for meaning, name in _asked(recipe).items()
        if name is not None and name not in groups
    ]
    problems += [
        must_be(f"--{name.replace('_', '-')}", "left out where labels stand in file names", value, "Leave it out.")
        for name in _NOT_HEEDED
        if (value := getattr(recipe, name)) is not None
    ]
    if problems:
        raise SourceError(all_at_once(problems))


def _given_splits(paths: pl.Series) -> pl.Series:
    """Give the split of each photo where every photo lies in a folder named like one, and some in train; else nulls."""
    first = paths.str.extract(r"^([^/]+)/").str.to_lowercase()
    found = first.replace_strict(dict(SPLIT_NAMES), default=None, return_dtype=pl.String)
    is_given = not found.null_count() and bool((found == "train").any())
    return (found if is_given else pl.Series([None] * len(paths), dtype=pl.String)).alias("split")
