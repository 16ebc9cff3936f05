"""A table of samples with points → the one CSV that ``points_tables.py`` reads back to the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from headstart.data.keypoints import KeypointLayout, visible_of
from headstart.data.point_columns import find_point_columns
from headstart.data.table import LATER_COLUMNS, SOURCE_COLUMNS, SampleTable
from headstart.errors import RecipeError, must_be
from headstart.files import written_aside
from headstart.recipe import Recipe

_MAX_NAMED: Final = 20  # samples of one reason that are named
_SIDES: Final = ("x1", "y1", "x2", "y2")


def points_frame(table: SampleTable, *, crop_to_box: str | None = None) -> pl.DataFrame:
    """Give the samples in use as plain columns.

    Args:
        table: Samples with points.
        crop_to_box: What the boxes were read from; its last word begins their columns' names.

    Returns:
        ``path``; ``x1, y1, …`` (``nose_x, nose_y, …`` where points have names); ``v1, …`` where a point is not marked;
        ``box_x1, box_y1, box_x2, box_y2``; ``group`` and ``split`` where there are any; the text columns.

    Examples:
        >>> from headstart.data.keypoints import keypoint_columns, numbered_layout
        >>> from headstart.data.table import table_from_keypoints
        >>> rows = pl.DataFrame({"path": ["1.jpg"], "mask": ["no"]}).with_columns(keypoint_columns([[[1, 2], [3, 4]]]))
        >>> points_frame(table_from_keypoints(rows, root=Path("photos"), layout=numbered_layout(2))).columns
        ['path', 'x1', 'y1', 'x2', 'y2', 'mask']
    """
    kept, layout = table.kept, table.keypoints
    if layout is None:
        return kept.select("path")
    xy, flags = _names(layout, kept.columns)
    columns = [kept["path"], *_columns(kept["keypoints"].to_numpy(), xy)]
    if not visible_of(kept).all():
        columns += _columns(visible_of(kept).astype(np.uint8), flags)
    if "box" in kept.columns and kept["box"].null_count() < kept.height:
        columns += _box_columns(kept["box"], _box_prefix(crop_to_box))
    columns += [kept[name] for name in ("group", "split") if kept[name].null_count() < kept.height]
    own = {*SOURCE_COLUMNS, *LATER_COLUMNS, "keypoints", "visible", "box"}
    return pl.DataFrame([*columns, *(kept[name] for name in kept.columns if name not in own)])


def write_points_csv(table: SampleTable, path: Path, *, crop_to_box: str | None = None) -> None:
    """Write the samples in use as a CSV in UTF-8, aside and then renamed; see ``points_frame`` for its columns."""
    with written_aside(path) as aside:
        points_frame(table, crop_to_box=crop_to_box).write_csv(aside)


def check_target(target: Path, recipe: Recipe) -> None:
    """Refuse a file that is no CSV, or that is read itself, or lies among those that are.

    Raises:
        RecipeError: It is; or the recipe is not for keypoints.
    """
    if recipe.task != "keypoints":
        raise RecipeError(must_be("task", "keypoints, to convert them", recipe.task, "Set task='keypoints'."))
    if target.suffix.lower() != ".csv" or target.is_dir():
        raise RecipeError(must_be("--out", "the name of a CSV file", str(target), f"Try {target.with_suffix('.csv')}."))
    read = [Path(place).expanduser() for place in (recipe.data, recipe.annotations) if place is not None]
    held = [inner for place in read for inner in (place, place / target.name) if inner.exists()]
    if target.exists() and any(target.samefile(place) for place in held):
        raise RecipeError(must_be("--out", "another file than the one that is read", str(target), "Name a new one."))


def describe_conversion(table: SampleTable, target: Path, *, archive: str | None = None) -> list[str]:
    """Say what was written, and name what was left out, line by line.

    Args:
        table: What was read.
        target: The CSV.
        archive: The photos as the user named them, where they lie in an archive.
    """
    lines: list[str] = []
    for reason, number in table.excluded_counts.items():
        rows = table.frame.filter(pl.col("excluded") == reason).select("path", "detail")
        lines.append(f"left out, {reason}: {number:,}")
        lines += [f"  {path}: {detail}" for path, detail in rows.head(_MAX_NAMED).iter_rows()]
        lines += [f"  and {number - _MAX_NAMED:,} more"] if number > _MAX_NAMED else []
    found, kept = table.frame.height, table.kept.height
    lines.append(f"{found:,} samples found: {kept:,} written, {found - kept:,} left out: {target}")
    if archive is not None:
        return [*lines, f"Paths are those in {archive}; to read the CSV, give {archive} --annotations {target}."]
    return [*lines, f"Paths start from {table.root}; to read the CSV, give --image-root {table.root}."]


def _names(layout: KeypointLayout, taken: list[str]) -> tuple[list[str], list[str]]:
    """Give the columns of coordinates, and of visibility: by the points' names where these can be read back."""
    numbers = range(1, layout.num_keypoints + 1)
    named = [f"{name}_{axis}" for name in layout.names for axis in "xy"]
    found = find_point_columns([*named, *taken], place="")
    if found is not None and found.names == layout.names and len({*named, *taken}) == len(named) + len(taken):
        return named, [f"{name}_v" for name in layout.names]
    return [f"{axis}{number}" for number in numbers for axis in "xy"], [f"v{number}" for number in numbers]


def _columns(values: np.ndarray, names: list[str]) -> list[pl.Series]:
    return [pl.Series(name, np.ascontiguousarray(values[:, number])) for number, name in enumerate(names)]


def _box_columns(box: pl.Series, prefix: str) -> list[pl.Series]:
    sides = box.to_frame().select(pl.col("box").arr.get(number).alias(f"{prefix}_{side}")
                                  for number, side in enumerate(_SIDES))  # fmt: skip
    return sides.get_columns()


def _box_prefix(crop_to_box: str | None) -> str:
    """Give ``face`` for "Face" and "ObjectInfo.BoundingBox.Face"; ``box`` where no box, or four columns, were named."""
    if not crop_to_box or "," in crop_to_box:
        return "box"
    return crop_to_box.rpartition(".")[2].strip().lower()
