"""Cells of the label column, or of several, → class numbers and a layout: the part of a source that reads labels.

Label columns stand in a table (``label_files.py``) or in the names of the files (``name_columns.py``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_cells import bin_cells, clean_cells, split_cells
from headstart.data.label_layout import (
    MISSING,
    LabelColumn,
    LabelLayout,
    labels_column,
    number_rows,
)
from headstart.data.label_settings import LabelSettings
from headstart.data.name_columns import text_name
from headstart.data.table import SampleTable, complete_columns, table_from_class_names
from headstart.errors import SourceError, all_at_once, must_be
from headstart.recipe import Recipe

_KEY: Final = "label of "


def captured_names(recipe: Recipe) -> frozenset[str]:
    """Give the label columns that file names hold."""
    groups = re.compile(recipe.name_pattern).groupindex if recipe.name_pattern else {}
    return frozenset(name for name in recipe.labels.names if name in groups)


def table_label_keys(recipe: Recipe) -> dict[str, str]:
    """Give the label columns to read from a table: what each is called meanwhile, and its name there."""
    labels, captured = recipe.labels, captured_names(recipe)
    return {label_key(labels, name): name for name in labels.names if name not in captured}


def absent_labels(recipe: Recipe, there: Collection[str], may_lack: Collection[str]) -> tuple[str, ...]:
    """Name the label columns that the data lacks and may lack; none where it would be left without any.

    Args:
        recipe: Names the label columns.
        there: The columns that there are.
        may_lack: Label columns that the user has not asked for: the model that is scored knows them.
    """
    absent = tuple(name for name in recipe.labels.names if name in may_lack and name not in there)
    return absent if len(absent) < len(recipe.labels.names) else ()


def word_absent(place: str, absent: tuple[str, ...]) -> list[str]:
    """Say that label columns are not there; nothing where all are."""
    return [f"{place} have no label column {', '.join(map(repr, absent))}: not scored."] if absent else []


def label_key(labels: LabelSettings, name: str) -> str:
    """Give what a label column is called until its cells are read."""
    return "label" if labels.form == "single" else f"{_KEY}{name}"


def take_labels(
    frame: pl.DataFrame,
    recipe: Recipe,
    *,
    root: Path,
    file: Path | None = None,
    column: str | None = None,
    absent: Collection[str] = (),
) -> SampleTable:
    """Make the table of samples: cells become classes, and where there are several labels a layout.

    Args:
        frame: Rows with ``path``, the cells as text under ``label_key`` or ``name_columns.text_name``, and any of the
            source's columns.
        recipe: Says which columns hold labels, and in which form they are learned.
        root: The folder that paths start from.
        file: The table that rows come from; None for file names.
        column: The label column that was guessed.
        absent: Label columns that are not there; see ``absent_labels``.

    Raises:
        SourceError: A cell cannot be read, or a column says nothing.
    """
    labels, captured = recipe.labels, captured_names(recipe)
    names = [name for name in labels.names or (column or "label",) if name not in absent]
    keys = {name: text_name(name) if name in captured else label_key(labels, name) for name in names}
    bare = frame.drop([name for name in frame.columns if name == "label" or name.startswith(_KEY)])
    if labels.form == "multi":
        return _several_in_cells(bare, frame[keys[names[0]]], labels, root)
    found: dict[str, tuple[pl.Series, tuple[str, ...]]] = {}
    notes: list[str] = []
    for name, key in keys.items():
        where = f"{file} row {{}}, column {name!r}" if file and name not in captured else f"{name!r} of file name {{}}"
        cells, class_names, more = _classes(frame[key].alias(name), labels, name, where)
        found[name], notes = (cells, class_names), [*notes, *more]
    if labels.form != "single":
        return _with_columns(bare, found, labels, root=root, notes=notes)
    cells, class_names = found[names[0]]
    rows = bare.with_columns(cells.alias("class_name"))
    return table_from_class_names(rows, root=root, notes=tuple(notes), class_names=class_names)


def _classes(
    cells: pl.Series, labels: LabelSettings, name: str, place: str
) -> tuple[pl.Series, tuple[str, ...], list[str]]:
    """Read the cells of one column: class names, all of them in order, and notes."""
    if name in labels.bins:
        return bin_cells(cells, labels.bins[name], place)
    cleaned, notes = clean_cells(cells, place)
    named = [f"Column {name!r}: {note[0].lower()}{note[1:]}" for note in notes] if labels.form != "single" else notes
    return cleaned, tuple(sorted(cleaned.drop_nulls().unique().to_list())), named


def _with_columns(
    frame: pl.DataFrame,
    found: Mapping[str, tuple[pl.Series, tuple[str, ...]]],
    labels: LabelSettings,
    *,
    root: Path,
    notes: list[str],
) -> SampleTable:
    """Make the table of several label columns."""
    columns = tuple(LabelColumn(name, class_names) for name, (_, class_names) in found.items())
    numbers = np.stack([_numbers(cells, class_names) for cells, class_names in found.values()], axis=1)
    form = "joint" if labels.form == "joint" else "heads"
    layout = LabelLayout(form, columns)
    is_used = (numbers != MISSING).all(axis=1) if form == "joint" else (numbers != MISSING).any(axis=1)
    missing = {name: int((numbers[:, place] == MISSING).sum()) for place, name in enumerate(found)}
    empty = ", ".join(f"{count:,} of {name!r}" for name, count in missing.items() if count)
    if empty:
        what = "such rows are left out" if form == "joint" else "they count in no loss and no score of that column"
        notes = [*notes, f"Cells without a label: {empty}; {what}."]
    return table_of_combinations(frame, numbers, layout, root=root, is_used=is_used, notes=tuple(notes))


def _several_in_cells(frame: pl.DataFrame, cells: pl.Series, labels: LabelSettings, root: Path) -> SampleTable:
    """Make the table of a column with several labels in a cell."""
    name = labels.names[0]
    names, notes = split_cells(cells, labels.separator, f"column {name!r}")
    flat = pl.DataFrame({"row": pl.int_range(len(names), eager=True), "name": names}).explode("name").drop_nulls()
    class_names = tuple(sorted(flat["name"].unique().to_list()))
    layout = LabelLayout("multi", (LabelColumn(name, class_names),))
    numbers = np.zeros((len(names), len(class_names)), np.int8)
    numbers[flat["row"].to_numpy(), _numbers(flat["name"], class_names)] = 1
    is_used = names.is_not_null().to_numpy()
    if not is_used.all():
        remedy = "write [] into the cell of a photo that has none of the labels"
        notes.append(f"{(~is_used).sum():,} cells of {name!r} are empty and their photos left out; {remedy}.")
    return table_of_combinations(frame, numbers, layout, root=root, is_used=is_used, notes=tuple(notes))


def _numbers(cells: pl.Series, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    numbers = cells.cast(pl.Enum(class_names)).to_physical().cast(pl.Int64)
    return numbers.fill_null(MISSING).to_numpy().astype(np.int64)


def table_of_combinations(
    frame: pl.DataFrame,
    numbers: NDArray[np.integer],
    layout: LabelLayout,
    *,
    root: Path,
    is_used: NDArray[np.bool_],
    notes: tuple[str, ...] = (),
) -> SampleTable:
    """Make the table: ``labels`` as given, ``label`` the number of each sample's combination.

    Args:
        frame: Rows with ``path`` and any of the source's columns.
        numbers: Labels, shape (n, columns), or for several labels in a cell (n, classes).
        layout: What they are; its combinations are filled in here.
        root: The folder that paths start from.
        is_used: Which rows have enough labels to be of use, shape (n,).
        notes: For the table.
    """
    labels, examples = number_rows(numbers[is_used])
    combinations = tuple(tuple(row) for row in numbers[is_used][examples].tolist())
    class_names = tuple(layout.name_of(one) for one in combinations)
    if layout.form == "joint":
        layout = LabelLayout("joint", layout.columns, combinations)
        _refuse_equal_names(class_names, root)
    label = np.full(len(numbers), MISSING, np.int64)
    label[is_used] = labels
    found = pl.Series("label", label, dtype=pl.Int32)
    columns = [found.set(found == MISSING, None), labels_column(numbers, layout)]
    return SampleTable(complete_columns(frame.with_columns(columns)), root, class_names, notes, labels=layout)


def _refuse_equal_names(class_names: tuple[str, ...], root: Path) -> None:
    twice = [name for name, count in Counter(class_names).items() if count > 1]
    if twice:
        remedy = "Rename labels that hold ' + '."
        raise SourceError(must_be(str(root), "labelled such that combinations have names of their own", twice, remedy))


def check_label_columns(table: SampleTable, min_classes: int) -> None:
    """Refuse a label column with too few classes; to score heads, one that has labels is enough.

    Args:
        table: From the source.
        min_classes: Fewest classes that are of use: 2 to train, 1 to score a finished model.

    Raises:
        SourceError: It names every such column.
    """
    columns = table.labels.columns if table.labels else ()
    is_multi = table.labels is not None and table.labels.form == "multi"
    fewest = 1 if is_multi else min_classes
    poor = [column for column in columns if len(column.class_names) < fewest]
    is_scored = min_classes == 1 and table.labels is not None and table.labels.form == "heads"
    if is_scored and len(poor) < len(columns):
        return
    remedy = "Label some photos." if is_scored else "Leave it out, or label more photos."
    problems = [
        must_be(
            f"label column {column.name!r}", f"one with at least {fewest} classes", list(column.class_names),
            remedy,
        )
        for column in poor
    ]  # fmt: skip
    if problems:
        raise SourceError(all_at_once(problems))
