"""``--name-pattern``: what file names say of their photos (person, mask, …) as text columns."""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from headstart.data.driver_state import NAME_PATTERN
from headstart.data.folders import some
from headstart.data.table import LATER_COLUMNS, SOURCE_COLUMNS
from headstart.errors import SourceError, must_be
from headstart.recipe import Recipe

_NEARLY_ALL: Final = 0.9
_OWN_NAMES: Final = frozenset((*SOURCE_COLUMNS, *LATER_COLUMNS, "keypoints", "visible", "box", "labels"))


def text_name(name: str) -> str:
    """Give the name of a text column: names that the table has for itself get a prefix.

    Examples:
        >>> text_name("mask"), text_name("width")
        ('mask', 'source_width')
    """
    return f"source_{name}" if name in _OWN_NAMES else name


def take_name_columns(
    frame: pl.DataFrame, recipe: Recipe, *, is_driver_state: bool = False
) -> tuple[pl.DataFrame, list[str]]:
    r"""Add the named groups of the recipe's pattern on the file name; a group called ``person`` is the group too.

    Args:
        frame: Rows with ``path``.
        recipe: Has the pattern, maybe.
        is_driver_state: Whether the data has the driver-state layout, whose names are known.

    Raises:
        SourceError: The recipe's pattern is found in no file name.

    Examples:
        >>> rows = pl.DataFrame({"path": ["a/S01_mask_3.jpg"]})
        >>> take_name_columns(rows, Recipe(task="keypoints", name_pattern=r"(?P<person>S\d+)_"))[0]["person"].to_list()
        ['S01']
    """
    pattern = recipe.name_pattern or (NAME_PATTERN if is_driver_state else None)
    if pattern is None or not frame.height:
        return frame, []
    found = _captures(frame["path"], re.compile(pattern))
    num_found = frame.height - found.select(pl.all_horizontal(pl.all().is_null()).sum()).item()
    if recipe.name_pattern is None:
        if num_found < _NEARLY_ALL * frame.height:
            return frame, []
        said = "File names have the form of driver-state data; they give the columns"
    elif not num_found:
        remedy = f"File names look like {some(frame['path'].head(3).str.extract(r'([^/]*)$').to_list())}."
        raise SourceError(must_be("--name-pattern", "found in the file names", pattern, remedy))
    else:
        said = "File names give the columns"
    notes = [f"{said} {', '.join(found.columns)}."]
    if num_found < frame.height:
        notes.append(f"{frame.height - num_found:,} file names do not have that form; these columns are empty there.")
    frame, group_notes = _person_as_group(frame.with_columns(found.get_columns()), found, recipe)
    return frame, notes + group_notes


def _captures(paths: pl.Series, pattern: re.Pattern[str]) -> pl.DataFrame:
    matches = [pattern.search(path.rpartition("/")[2]) for path in paths]
    columns = [
        pl.Series(text_name(name), [match[name] if match else None for match in matches], pl.String)
        for name in pattern.groupindex
    ]
    return pl.DataFrame(columns)


def _person_as_group(frame: pl.DataFrame, found: pl.DataFrame, recipe: Recipe) -> tuple[pl.DataFrame, list[str]]:
    if "person" not in found.columns or recipe.group_column or recipe.group_pattern:
        return frame, []
    known = [pl.col("group")] if "group" in frame.columns else []
    frame = frame.with_columns(group=pl.coalesce("person", *known))
    num_without = frame["group"].null_count()
    said = f"Photos of one person stay together: the person in the file name is the group ({frame['group'].n_unique()}"
    notes = [f"{said} groups)."]
    if num_without:
        notes.append(f"{num_without:,} samples have no person in the file name; each is a group of its own.")
    return frame, notes
