"""Where a sample's path begins: the user's folder, table or archive → ``SampleTable``.

``read_source`` looks at what it was given and lets ``folders.py`` or ``label_files.py`` read it; photos with points are
read by ``keypoint_sources.py``. No image is opened here, and nothing is written but the contents of an archive, below
the folder given for them (``places.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from headstart.data.flip_checks import check_sides
from headstart.data.flip_pairs_file import read_flip_pairs
from headstart.data.folders import FolderListing, has_image_suffix, read_folder, some
from headstart.data.groups import take_groups
from headstart.data.keypoint_guess import looks_like_keypoints, word_annotations
from headstart.data.keypoint_sources import read_keypoint_source
from headstart.data.keypoints import points_of, visible_of
from headstart.data.label_columns import captured_names, check_label_columns
from headstart.data.label_files import is_label_file, read_label_file
from headstart.data.label_layout import LabelLayout, class_counts
from headstart.data.name_columns import take_name_columns
from headstart.data.named_photos import read_named_photos
from headstart.data.places import find_place, named_as_given, with_names_as_given
from headstart.data.table import SPLITS, SampleTable
from headstart.errors import SourceError, all_at_once, must_be
from headstart.recipe import Recipe
from headstart.recipe_defaults import KEYPOINT_HEADS

_TABLE_SETTINGS = (
    "path_column", "label", "label_column", "multi_label", "image_root", "group_column", "split_column",
)  # fmt: skip
_KINDS = "a folder of class folders, a CSV, TSV or Parquet table, or a .zip, .tar or .tar.gz of either"


def read_source(
    recipe: Recipe, *, unpack_dir: Path, min_classes: int = 2, may_lack: Collection[str] = ()
) -> SampleTable:
    r"""List the samples of ``recipe.data`` with their labels, groups and given splits.

    Args:
        recipe: Says where the data is, and which columns or pattern of a path mean what.
        unpack_dir: Where an archive is unpacked (below it, in a folder of its own).
        min_classes: Fewest classes that are of use: 2 to train, 1 to score a finished model.
        may_lack: Label columns that need not be there, as long as one of them is.

    Returns:
        The table: one row per sample found, with notes on what was guessed or noticed.

    Raises:
        SourceError: The data is missing, cannot be read, or is not a set of labelled images.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = (Path(place) / "labels.csv").write_text("path,label\n1.jpg,cat\n2.jpg,dog\n")
        ...     table = read_source(Recipe(data=f"{place}/labels.csv"), unpack_dir=Path(place))
        >>> table.class_names, table.frame.height
        (('cat', 'dog'), 2)
    """
    if recipe.task == "keypoints":
        return _with_known_points(read_keypoint_source(recipe, unpack_dir=unpack_dir), recipe)
    place = find_place(recipe.data, recipe, unpack_dir=unpack_dir, kinds=_KINDS)
    with named_as_given(place):
        table = _read_place(place.path, recipe, may_lack)
        frame, group_notes = take_groups(table.frame, recipe)
        table = table.with_frame(frame, *place.notes, *group_notes, *_class_notes(table))
        check_label_columns(table, min_classes)
        _check_classes(table, place.path, min_classes)
    return with_names_as_given(table, place)


def _with_known_points(table: SampleTable, recipe: Recipe) -> SampleTable:
    """Refuse points that the data does not have, and pairs and flips that its shapes contradict, before the pass."""
    num_keypoints = table.keypoints.num_keypoints if table.keypoints else 0
    check_nme_points(recipe, num_keypoints)
    given = read_flip_pairs(Path(recipe.flip_pairs), num_keypoints) if recipe.flip_pairs is not None else None
    check_sides(points_of(table.kept), visible_of(table.kept), recipe, given)
    return table


def check_nme_points(recipe: Recipe, num_keypoints: int) -> None:
    """Refuse points that the data does not have as those whose distance errors are divided by.

    Raises:
        SourceError: There are fewer points.
    """
    if recipe.nme_points and max(recipe.nme_points) >= num_keypoints:
        expected = f"two point numbers from 0 to {num_keypoints - 1}"
        raise SourceError(must_be("--nme-points", expected, list(recipe.nme_points), "Points are counted from 0."))


def guess_task(settings: Mapping[str, Any]) -> dict[str, str]:
    """Give the task as a setting where none is named and the data says it: annotations, or a table of coordinates.

    Examples:
        >>> guess_task({"annotations": "labels"}), guess_task({"data": "photos"}), guess_task({"task": "keypoints"})
        ({'task': 'keypoints'}, {}, {})
    """
    if settings.get("task") is not None:
        return {}
    data = settings.get("data")
    of_keypoints = ("annotations", "points_key", "flip_pairs", "crop_to_box", "crop_to_points", "nme_points")
    is_named = any(settings.get(name) for name in of_keypoints) or settings.get("head") in KEYPOINT_HEADS
    has_labels = any(settings.get(name) for name in ("label", "label_column", "multi_label"))
    is_seen = data is not None and not has_labels and looks_like_keypoints(Path(str(data)))
    return {"task": "keypoints"} if is_named or is_seen else {}


def _read_place(place: Path, recipe: Recipe, may_lack: Collection[str]) -> SampleTable:
    if place.is_dir():
        return _read_directory(place, recipe, may_lack)
    if is_label_file(place):
        return read_label_file(place, recipe, may_lack=may_lack)
    raise SourceError(must_be("data", _KINDS, str(place), "Put photos into one folder per class."))


def _read_directory(folder: Path, recipe: Recipe, may_lack: Collection[str]) -> SampleTable:
    """Read class folders; where there are fewer than two, the one table that lies in the folder instead."""
    listing = FolderListing(folder)
    label_files = [
        folder / name for name in listing.paths.filter(~listing.paths.str.contains("/")) if is_label_file(Path(name))
    ]
    captured = captured_names(recipe)
    if captured and (len(captured) == len(recipe.labels.names) or not label_files):
        return read_named_photos(folder, listing, recipe, may_lack=may_lack)
    table = read_folder(folder, listing)
    if (table is None or len(table.class_names) < 2) and label_files:
        return _read_only_table(folder, label_files, recipe, may_lack)
    if table is None:
        raise SourceError(_word_no_classes(folder, listing))
    _refuse_table_settings(recipe, label_files)
    return _with_persons(table, recipe)


def _with_persons(table: SampleTable, recipe: Recipe) -> SampleTable:
    """Take the group of class folders' photos from their names, where the recipe has a pattern for them."""
    if recipe.name_pattern is None:
        return table
    frame, notes = take_name_columns(table.frame, recipe)
    return table.with_frame(frame.select(table.frame.columns), *notes)


def _read_only_table(folder: Path, label_files: list[Path], recipe: Recipe, may_lack: Collection[str]) -> SampleTable:
    if len(label_files) > 1:
        names = [path.name for path in label_files]
        remedy = f"Name the one to use, e.g. {label_files[0]}."
        raise SourceError(must_be(str(folder), "a folder of class folders, or with one table of labels", names, remedy))
    table = read_label_file(label_files[0], recipe, may_lack=may_lack)
    return table.with_frame(table.frame, f"{folder.name} has no class folders; labels come from {label_files[0].name}.")


def _word_no_classes(folder: Path, listing: FolderListing) -> str:
    about_annotations = word_annotations(folder, listing.paths.to_list())
    if about_annotations:
        return about_annotations
    num_images = listing.paths.to_frame().select(has_image_suffix(pl.col("path")).sum()).item()
    got = f"{num_images:,} images outside class folders" if num_images else f"{len(listing.paths):,} files, no image"
    remedy = "Put the photos of each class into a folder named like the class, or give a table of paths and labels."
    return f"{folder} must be a folder with one folder of images per class; got {got}. {remedy}"


def _refuse_table_settings(recipe: Recipe, label_files: list[Path]) -> None:
    """Settings about a table's columns say nothing about class folders; using them silently would mislead."""
    given = [(name, getattr(recipe, name)) for name in _TABLE_SETTINGS if getattr(recipe, name) is not None]
    remedy = f"Give {label_files[0]} as the data." if label_files else "Leave it out, or give a table as the data."
    problems = [
        must_be(f"--{name.replace('_', '-')}", "left out where the data is class folders", value, remedy)
        for name, value in given
    ]
    if problems:
        raise SourceError(all_at_once(problems))


def _class_notes(table: SampleTable) -> list[str]:
    """Name classes that stand in some given splits only, and names that differ by case only."""
    layout = None if table.has_plain_classes else table.labels
    twins = _case_twins(table.class_names) if layout is None else _case_twins(layout.output_names)
    notes = [f"Classes {some(names)} differ by upper and lower case only." for names in twins]
    if layout is not None:
        return notes + _absent_label_notes(table, layout)
    present = table.frame.filter(pl.col("split").is_not_null() & pl.col("label").is_not_null())
    pairs = present.group_by("label").agg(pl.col("split").unique())
    given = [split for split in SPLITS if split in present["split"].unique().to_list()]
    for label, splits in pairs.sort("label").iter_rows():
        absent = [split for split in given if split not in splits]
        if absent:
            where = " and ".join(split for split in given if split in splits)
            notes.append(f"Class {table.class_names[label]!r} has samples in {where}, none in {' and '.join(absent)}.")
    return notes


def _absent_label_notes(table: SampleTable, layout: LabelLayout) -> list[str]:
    """Name labels that stand in some given splits only, of several label columns or of several labels in a cell."""
    kept = table.kept
    parts = {split: kept.filter(pl.col("split") == split) for split in SPLITS}
    counts = {split: class_counts(rows, layout) for split, rows in parts.items() if rows.height}
    notes: list[str] = []
    for column in layout.columns:
        for name in column.class_names:
            there = [split for split in counts if counts[split][column.name][name]]
            if there and len(there) < len(counts):
                absent = [split for split in counts if split not in there]
                where = f"{' and '.join(there)}, none in {' and '.join(absent)}"
                notes.append(f"Class {name!r} of {column.name!r} has samples in {where}.")
    return notes


def _case_twins(class_names: tuple[str, ...]) -> list[list[str]]:
    folded: dict[str, list[str]] = {}
    for name in class_names:
        folded.setdefault(name.strip().casefold(), []).append(name)
    return [names for names in folded.values() if len(names) > 1]


def _check_classes(table: SampleTable, place: Path, min_classes: int) -> None:
    if len(table.class_names) >= min_classes:
        return
    about_annotations = word_annotations(place, FolderListing(place).paths.to_list()) if place.is_dir() else ""
    if about_annotations:
        raise SourceError(about_annotations)
    remedy = "Add a folder for each class."
    if table.class_names and (place / table.class_names[0]).is_dir():
        remedy = f"If its folders are the classes, give {place / table.class_names[0]}."
    raise SourceError(must_be(str(place), f"data with at least {min_classes} classes", list(table.class_names), remedy))
