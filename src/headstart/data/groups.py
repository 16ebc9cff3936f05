"""What belongs together, by the user's word: the table's group column, or a pattern on the path."""

from __future__ import annotations

import re

import polars as pl

from headstart.data.folders import some
from headstart.errors import SourceError, must_be
from headstart.recipe import Recipe


def take_groups(frame: pl.DataFrame, recipe: Recipe) -> tuple[pl.DataFrame, list[str]]:
    """Take groups from paths by the recipe's pattern; count the samples without one, of either kind.

    Raises:
        SourceError: Both a column and a pattern are named, or the pattern is found in no path.
    """
    if recipe.group_pattern is None and recipe.group_column is None:
        return frame, []
    if recipe.group_pattern is not None:
        frame = _by_pattern(frame, recipe, recipe.group_pattern)
    num_without = frame["group"].null_count()
    if not num_without:
        return frame, []
    noun = "sample has no group and" if num_without == 1 else "samples have no group; each"
    return frame, [f"{num_without:,} {noun} is a group of its own."]


def _by_pattern(frame: pl.DataFrame, recipe: Recipe, pattern: str) -> pl.DataFrame:
    if recipe.group_column is not None:
        remedy = "Give --group-column or --group-pattern."
        raise SourceError(must_be("--group-pattern", "left out beside --group-column", pattern, remedy))
    frame = frame.with_columns(group=_first_capture(frame["path"], pattern))
    if frame["group"].null_count() == frame.height:
        remedy = f"Paths look like {some(frame['path'].head(3).to_list())}."
        raise SourceError(must_be("--group-pattern", "found in the paths", pattern, remedy))
    return frame


def _first_capture(paths: pl.Series, pattern: str) -> pl.Series:
    try:
        return paths.str.extract(pattern, 1)
    except pl.exceptions.ComputeError:  # look-around and back-references: Python's expressions have them, Rust's do not
        search = re.compile(pattern).search
        found = (search(path) for path in paths)
        return pl.Series("group", [match[1] if match else None for match in found], pl.String)
