"""What stands in a cell → class names: trimmed, as bins of a number, or several of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from headstart.data.folders import some
from headstart.errors import SourceError, all_at_once, must_be

SEPARATORS: Final = (";", "|", ",")
"""What may stand between the labels of a cell, beside white space."""

LIST_SEPARATOR: Final = "\x1f"
"""Stands between the labels of a cell that was a list in its file."""

_QUOTES: Final = "[](){}'\" \t"  # around a list, and around its names


def clean_cells(cells: pl.Series, place: str) -> tuple[pl.Series, list[str]]:
    """Strip labels, and refuse two that differ by the space around them only.

    Args:
        cells: Text.
        place: Where they stand, with ``{}`` for the row.

    Returns:
        Class names (null where there is none), and what was noticed.

    Raises:
        SourceError: Two labels differ by the space around them.

    Examples:
        >>> clean_cells(pl.Series(["cat ", "", "dog"]), "row {}")[0].to_list()
        ['cat', None, 'dog']
    """
    values = cells.rename("raw").unique().drop_nulls().to_frame()
    values = values.with_columns(pl.col("raw").str.strip_chars().str.normalize("NFC").alias("clean"))
    values = values.with_columns(pl.when(pl.col("clean") != "").then("clean"))
    spaced = values.filter(pl.col("raw").str.strip_chars() != pl.col("raw")).drop_nulls()
    _refuse_twins(cells, values, spaced, place)
    notes: list[str] = []
    if spaced.height:
        num_rows = cells.is_in(spaced["raw"].to_list()).sum()
        notes.append(f"Space around the label was removed in {num_rows:,} rows, e.g. {spaced['raw'].sort()[0]!r}.")
    known = values.drop_nulls()["clean"]
    if len(known) and known.str.contains(r"^-?\d+\.0+$").all():
        values = values.with_columns(pl.col("clean").str.replace(r"\.0+$", ""))
        notes.append(f"Labels such as {known.sort()[0]!r} were read as whole numbers.")
    names = dict(values.iter_rows())
    return (cells.replace_strict(names, default=None, return_dtype=pl.String) if names else cells), notes


def bin_cells(cells: pl.Series, edges: Sequence[float], place: str) -> tuple[pl.Series, tuple[str, ...], list[str]]:
    """Make classes of numbers.

    Args:
        cells: Text.
        edges: Rising; a number that is an edge belongs above it.
        place: Where they stand, with ``{}`` for the row.

    Returns:
        Class names (null where there is no number), the names that occur, in order, and what was noticed.

    Raises:
        SourceError: A cell holds no number.

    Examples:
        >>> bin_cells(pl.Series(["29", "30", None, "60.5"]), (30, 60), "row {}")[0].to_list()
        ['<30', '30–60', None, '≥60']
    """
    stripped = cells.str.strip_chars()
    stripped = stripped.set(stripped == "", None)
    numbers = stripped.cast(pl.Float64, strict=False)
    wrong = stripped.is_not_null() & ~numbers.is_finite().fill_null(value=False)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        remedy = f"Fix the {wrong.sum():,} cells like it, or empty them." if wrong.sum() > 1 else "Fix or empty it."
        raise SourceError(must_be(place.replace("{}", str(row + 2)), "a number", cells[row], remedy))
    names = bin_names(edges)
    places = np.searchsorted(np.asarray(edges, float), numbers.fill_null(0.0).to_numpy(), side="right")
    found = pl.Series(names, dtype=pl.String)[places].set(numbers.is_null(), None).alias(cells.name)
    present = set(found.drop_nulls().unique().to_list())
    empty = [name for name in names if name not in present]
    notes = [f"No number of {cells.name!r} lies in {some(empty)}: no class was made of it."] if empty else []
    return found, tuple(name for name in names if name in present), notes


def bin_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Name the bins between edges.

    Examples:
        >>> bin_names((30, 60)), bin_names((0.5,))
        (('<30', '30–60', '≥60'), ('<0.5', '≥0.5'))
    """
    words = [f"{edge:.10g}" for edge in edges]
    between = [f"{low}–{high}" for low, high in pairwise(words)]
    return (f"<{words[0]}", *between, f"≥{words[-1]}")


def split_cells(cells: pl.Series, separator: str | None, place: str) -> tuple[pl.Series, list[str]]:
    """Take several labels out of each cell.

    Args:
        cells: Text.
        separator: What stands between labels; blank for white space, None to guess.
        place: What to call the column, in words.

    Returns:
        A list of different names for each cell; null for an empty one, an empty list for one such as ``[]``.

    Raises:
        SourceError: Several separators could be meant.

    Examples:
        >>> split_cells(pl.Series(["cat; dog", "owl", "", "[]"]), None, "column 'tags'")[0].to_list()
        [['cat', 'dog'], ['owl'], None, []]
    """
    text = cells.cast(pl.String).str.normalize("NFC")
    text = text.set(text.str.strip_chars() == "", None)
    chosen, notes = (separator, []) if separator is not None else _guess_separator(text, place)
    parts = text.str.replace_all(r"\s+", " ").str.strip_chars()
    parts = parts.str.split(" ") if not chosen.strip() and chosen != LIST_SEPARATOR else text.str.split(chosen)
    rows = parts.to_frame("names").with_row_index("row").explode("names")
    rows = rows.with_columns(pl.col("names").str.strip_chars(_QUOTES)).filter(pl.col("names") != "")
    found = rows.group_by("row").agg(pl.col("names").unique(maintain_order=True))
    whole = text.to_frame("text").with_row_index("row").join(found, on="row", how="left", maintain_order="left")
    nothing = pl.lit([], pl.List(pl.String))
    whole = whole.with_columns(pl.when(pl.col("text").is_not_null()).then(pl.col("names").fill_null(nothing)))
    return whole["names"].alias(cells.name), notes


def _guess_separator(text: pl.Series, place: str) -> tuple[str, list[str]]:
    known = text.drop_nulls()
    if known.str.contains(LIST_SEPARATOR, literal=True).any():
        return LIST_SEPARATOR, []
    found = {sign: int(known.str.contains(sign, literal=True).sum()) for sign in SEPARATORS}
    likely = [sign for sign, count in found.items() if count]
    if len(likely) > 1:
        remedy = f"Say which: --label-separator '{max(likely, key=found.__getitem__)}'."
        counts = ", ".join(f"{sign!r} in {found[sign]:,}" for sign in likely)
        raise SourceError(f"{place} must hold one sign between labels; got {counts} cells. {remedy}")
    if likely:
        return likely[0], [f"Labels in {place} are separated by {likely[0]!r}."]
    spaced = known.filter(known.str.strip_chars().str.contains(r"\s"))
    if not len(spaced):
        return ";", [f"No cell in {place} holds more than one label."]
    example = re.split(r"\s+", spaced[0].strip())
    return " ", [f"Labels in {place} are separated by white space: {spaced[0]!r} is {some(example)}."]


def _refuse_twins(cells: pl.Series, values: pl.DataFrame, spaced: pl.DataFrame, place: str) -> None:
    stripped = values.drop_nulls().with_columns(pl.col("raw").str.strip_chars().alias("bare"))
    twins = stripped.group_by("bare").agg(pl.len()).filter(pl.col("len") > 1)["bare"]
    unlike = spaced.filter(pl.col("raw").str.strip_chars().is_in(twins.to_list())).sort("raw")["raw"]
    problems = []
    for raw in unlike.head(10):
        row = int(cells.index_of(raw) or 0) + 2
        count = int((cells == raw).sum())
        remedy = f"Fix the {count:,} cells like it." if count > 1 else "Fix the cell."
        problems.append(
            must_be(
                place.replace("{}", str(row)), f"{raw.strip()!r} like other rows, without space around it", raw, remedy
            )
        )
    if problems:
        raise SourceError(all_at_once(problems))
