"""Other photos' labels, numbered as a model does that learned several: what ``evaluate`` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.folders import some
from headstart.data.label_layout import MISSING, LabelColumn, LabelLayout, labels_column, labels_of, number_rows
from headstart.data.table import SampleTable
from headstart.errors import SourceError, must_be


def with_classes_of(layout: LabelLayout, class_names: tuple[str, ...], table: SampleTable) -> SampleTable:
    """Number the labels of a table as a model does that knows the same columns.

    Labels that the model does not know count as missing, and are told in the notes; a column of heads that is not there
    has no labels.

    Args:
        layout: The model's.
        class_names: The model's, for ``joint``.
        table: Other photos. Label columns are matched by their names; by their order only where none is called as one
            of the model's, and there are as many: the notes say it.

    Raises:
        SourceError: The labels are of another form, stand in other columns, or the model knows none of them.
    """
    ours = table.labels
    if ours is None or ours.form != layout.form:
        got = "one label" if ours is None else f"{ours.form}: {', '.join(ours.names)}"
        expected = f"labelled like the model's ({layout.form}: {', '.join(layout.names)})"
        is_heads = layout.form == "heads"
        remedy = "Leave --label out: what is there is scored." if is_heads else "Name them: --label or --multi-label."
        raise SourceError(must_be(str(table.root), expected, got, remedy))
    numbers = labels_of(table.frame)
    if layout.form == "multi":
        found, unknown = _indicators_of(numbers, ours.columns[0], layout.columns[0])
        notes: tuple[str, ...] = ()
    else:
        places, notes = _places_of(ours, layout, table.root)
        found, unknown = _numbers_of(numbers, ours, layout, places)
    if unknown:
        notes += (f"Not counted, because the model does not know these labels: {', '.join(unknown)}.",)
    return _renewed(table, found, layout, class_names, notes)


def _places_of(ours: LabelLayout, theirs: LabelLayout, root: Path) -> tuple[list[int | None], tuple[str, ...]]:
    """Give where each of the model's columns stands among those that there are (None: nowhere), and what to say of it.

    Raises:
        SourceError: Some columns are called as the model's and others are not, or a combination lacks one.
    """
    unknown = [name for name in ours.names if name not in theirs.names]
    missing = [name for name in theirs.names if name not in ours.names]
    if len(unknown) == len(ours.names) == len(theirs.names):
        pairs = ", ".join(f"{name!r} as {known!r}" for name, known in zip(ours.names, theirs.names, strict=True))
        note = f"No label column is called as one of the model's, so they are taken in their order: {pairs}."
        return list(range(len(unknown))), (note,)
    if unknown or (missing and theirs.form == "joint"):
        whole = "all of " if theirs.form == "joint" else ""
        expected = f"labelled in {whole}the model's columns ({', '.join(theirs.names)})"
        remedy = f"Rename {some(unknown)}" if unknown else f"Add {some(missing)}"
        remedy += "." if theirs.form == "joint" else ", or leave --label out: what is there is scored."
        raise SourceError(must_be(str(root), expected, ", ".join(ours.names), remedy))
    return [ours.names.index(name) if name in ours.names else None for name in theirs.names], ()


def _numbers_of(
    numbers: NDArray[np.int64], ours: LabelLayout, theirs: LabelLayout, places: Sequence[int | None]
) -> tuple[NDArray[np.int64], list[str]]:
    """Give the labels of the model's columns, and those that it does not know; what is nowhere is ``MISSING``."""
    found = np.full((len(numbers), len(theirs.columns)), MISSING, np.int64)
    unknown: list[str] = []
    for number, (place, column) in enumerate(zip(places, theirs.columns, strict=True)):
        if place is not None:
            found[:, number], names = _renumbered(numbers[:, place], ours.columns[place], column)
            unknown += names
    return found, unknown


def _renewed(
    table: SampleTable,
    numbers: NDArray[np.integer],
    layout: LabelLayout,
    class_names: tuple[str, ...],
    notes: tuple[str, ...],
) -> SampleTable:
    """Give the table with other labels; what has none that the model knows is left out."""
    had_label = table.frame["label"].is_not_null().to_numpy()
    if layout.form == "joint":
        label = layout.combination_numbers(numbers, allow_unknown=True)
        is_used, names = had_label & (label != MISSING), class_names
    else:
        is_used = had_label & ((numbers != MISSING).any(axis=1) if layout.form == "heads" else True)
        label, examples = number_rows(numbers)
        names = tuple(layout.name_of(numbers[row].tolist()) for row in examples)
    if not is_used.any():
        expected = f"labelled with the model's classes ({', '.join(layout.output_names[:12])})"
        raise SourceError(must_be(str(table.root), expected, list(table.class_names[:6]), "Rename the labels."))
    is_lost = pl.Series(had_label & ~is_used)
    reason = pl.when(is_lost).then(pl.lit("no label")).otherwise("excluded")
    detail = pl.when(is_lost).then(pl.lit("not one of the model's classes")).otherwise("detail")
    found = pl.Series("label", np.where(is_used, label, MISSING), dtype=pl.Int32)
    columns = [found.set(found == MISSING, None), labels_column(numbers, layout)]
    frame = table.frame.with_columns(columns).with_columns(excluded=reason, detail=detail)
    return SampleTable(frame, table.root, names, table.notes + notes, labels=layout)


def _renumbered(
    numbers: NDArray[np.int64], ours: LabelColumn, theirs: LabelColumn
) -> tuple[NDArray[np.int64], list[str]]:
    known = {name: number for number, name in enumerate(theirs.class_names)}
    places = np.array([*(known.get(name, MISSING) for name in ours.class_names), MISSING], np.int64)
    return places[numbers], [f"{ours.name}={name}" for name in ours.class_names if name not in known]


def _indicators_of(
    numbers: NDArray[np.int64], ours: LabelColumn, theirs: LabelColumn
) -> tuple[NDArray[np.int64], list[str]]:
    places = {name: number for number, name in enumerate(ours.class_names)}
    found = np.zeros((len(numbers), len(theirs.class_names)), np.int64)
    for number, name in enumerate(theirs.class_names):
        if name in places:
            found[:, number] = numbers[:, places[name]]
    return found, [name for name in ours.class_names if name not in theirs.class_names]
