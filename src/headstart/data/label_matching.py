"""Other photos' labels, numbered as a model does that learned several: what ``evaluate`` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_layout import MISSING, LabelColumn, LabelLayout, labels_column, labels_of, number_rows
from headstart.data.table import SampleTable
from headstart.errors import SourceError, must_be


def with_classes_of(layout: LabelLayout, class_names: tuple[str, ...], table: SampleTable) -> SampleTable:
    """Number the labels of a table as a model does that knows the same columns.

    Labels that the model does not know count as missing, and are told in the notes.

    Args:
        layout: The model's.
        class_names: The model's, for ``joint``.
        table: Other photos, labelled with as many columns: matched by their names, or by their order where those
            differ.

    Raises:
        SourceError: The labels are of another form or number, or the model knows none of them.
    """
    ours = table.labels
    if ours is None or ours.form != layout.form or len(ours.columns) != len(layout.columns):
        got = "one label" if ours is None else f"{ours.form}: {', '.join(ours.names)}"
        expected = f"labelled like the model's ({layout.form}: {', '.join(layout.names)})"
        raise SourceError(must_be(str(table.root), expected, got, "Name the columns with --label or --multi-label."))
    order = _order_of(ours.names, layout.names)
    ours, numbers = replace(ours, columns=tuple(ours.columns[at] for at in order)), labels_of(table.frame)
    numbers = numbers if layout.form == "multi" else numbers[:, order]
    if layout.form == "multi":
        found, unknown = _indicators_of(numbers, ours.columns[0], layout.columns[0])
    else:
        pairs = zip(numbers.T, ours.columns, layout.columns, strict=True)
        renumbered = [_renumbered(column, our, their) for column, our, their in pairs]
        found = np.stack([one for one, _ in renumbered], axis=1)
        unknown = [name for _, names in renumbered for name in names]
    notes = (f"Not counted, because the model does not know these labels: {', '.join(unknown)}.",) if unknown else ()
    return _renewed(table, found, layout, class_names, notes)


def _order_of(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Give where each wanted column stands among those that there are."""
    return [names.index(name) for name in wanted] if set(names) == set(wanted) else list(range(len(wanted)))


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
