"""What the labels of a table are where there is more than one a sample: columns, their classes, and what is learned.

A table with a layout has a column ``labels`` beside ``label``: for ``heads`` and ``joint`` the class number in each
label column (``MISSING`` where the cell is empty), for ``multi`` 1 for each class that a sample has, else 0. ``label``
is then the number of the combination: what splits are stratified by, and what ``joint`` learns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

MISSING: Final = -1
"""Stands in ``labels`` where a sample has no label in a column."""

JOIN: Final = " + "
"""Stands between the labels of a combination in its name."""

NO_LABEL: Final = "–"
"""Stands in the name of a combination where a column has no label."""


@dataclass(frozen=True)
class LabelColumn:
    """A label column: its name and its classes; label i is ``class_names[i]``."""

    name: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class LabelLayout:
    """What several labels a sample are.

    Attributes:
        form: ``heads``: one head a column; ``joint``: each combination is a class; ``multi``: several classes at once.
        columns: The label columns; one for ``multi``.
        combinations: For ``joint`` the classes of the columns that each joint class stands for.

    Examples:
        >>> layout = LabelLayout("heads", (LabelColumn("mask", ("no", "yes")), LabelColumn("age", ("<30", "≥30"))))
        >>> layout.output_names, layout.slices
        (('mask=no', 'mask=yes', 'age=<30', 'age=≥30'), (slice(0, 2, None), slice(2, 4, None)))
    """

    form: Literal["heads", "joint", "multi"]
    columns: tuple[LabelColumn, ...]
    combinations: tuple[tuple[int, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return tuple(column.name for column in self.columns)

    @property
    def task(self) -> str:
        """What is learned, in a word for files."""
        return {"heads": "several labels", "multi": "multi-label", "joint": "classification"}[self.form]

    @property
    def num_temperatures(self) -> int:
        """How many temperatures are fitted: one a head, else one."""
        return len(self.columns) if self.form == "heads" else 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each output of the network."""
        if self.form == "heads":
            return tuple(f"{column.name}={name}" for column in self.columns for name in column.class_names)
        return self.columns[0].class_names if self.form == "multi" else self.combination_names

    @property
    def combination_names(self) -> tuple[str, ...]:
        """Name of each joint class."""
        return tuple(self.name_of(numbers) for numbers in self.combinations)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Which outputs belong to each column (``heads``)."""
        ends = np.cumsum([0, *(len(column.class_names) for column in self.columns)]).tolist()
        return tuple(slice(start, stop) for start, stop in pairwise(ends))

    @property
    def dtype(self) -> pl.Array:
        """The type of the table's column ``labels``."""
        if self.form == "multi":
            return pl.Array(pl.Int8, len(self.columns[0].class_names))
        return pl.Array(pl.Int32, len(self.columns))

    def combination_numbers(self, labels: ArrayLike, *, allow_unknown: bool = False) -> NDArray[np.int64]:
        """Give the number of each row's joint class.

        Args:
            labels: Class numbers, shape (n, columns).
            allow_unknown: Give ``MISSING`` for a combination that is none of them.

        Raises:
            KeyError: A combination is none of them, and that is not allowed.

        Examples:
            >>> columns = (LabelColumn("mask", ("no", "yes")), LabelColumn("sex", ("f", "m")))
            >>> layout = LabelLayout("joint", columns, ((0, 0), (1, 1)))
            >>> layout.combination_numbers([[1, 1], [0, 1]], allow_unknown=True).tolist()
            [1, -1]
        """
        known = {combination: number for number, combination in enumerate(self.combinations)}
        rows = [tuple(row) for row in np.asarray(labels).tolist()]
        return np.array([known.get(row, MISSING) if allow_unknown else known[row] for row in rows], np.int64)

    def name_of(self, numbers: Sequence[int]) -> str:
        """Name a combination of class numbers, or for ``multi`` of 0 and 1.

        Examples:
            >>> LabelLayout("multi", (LabelColumn("tags", ("cat", "dog", "owl")),)).name_of([1, 0, 1])
            'cat + owl'
        """
        if self.form == "multi":
            names = self.columns[0].class_names
            return JOIN.join(name for name, has in zip(names, numbers, strict=True) if has) or NO_LABEL
        pairs = zip(self.columns, numbers, strict=True)
        return JOIN.join(NO_LABEL if number == MISSING else column.class_names[number] for column, number in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        columns = [{"name": column.name, "class_names": list(column.class_names)} for column in self.columns]
        return {"form": self.form, "columns": columns, "combinations": [list(one) for one in self.combinations]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelLayout:
        """Take it from JSON values."""
        columns = tuple(LabelColumn(one["name"], tuple(one["class_names"])) for one in values["columns"])
        return cls(values["form"], columns, tuple(tuple(one) for one in values["combinations"]))


def labels_column(values: ArrayLike, layout: LabelLayout) -> pl.Series:
    """Give labels, shape (n, columns), or for ``multi`` (n, classes), as the table's column."""
    dtype = layout.dtype
    numbers = np.asarray(values, np.int8 if layout.form == "multi" else np.int32).reshape(-1, dtype.size)
    return pl.Series("labels", numbers, dtype=dtype)


def labels_of(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Give the labels of rows, shape (n, columns), or for several labels in a cell (n, classes)."""
    dtype = rows.schema["labels"]
    width = dtype.size if isinstance(dtype, pl.Array) else 0
    return rows["labels"].to_numpy().astype(np.int64).reshape(rows.height, width)


def class_counts(rows: pl.DataFrame, layout: LabelLayout) -> dict[str, dict[str, int]]:
    """Count the rows of each class, column by column; cells without a label count nowhere."""
    labels = labels_of(rows)
    if layout.form == "multi":
        numbers = [labels.sum(axis=0)]
    else:
        sizes = [len(column.class_names) for column in layout.columns]
        pairs = zip(labels.T, sizes, strict=True)
        numbers = [np.bincount(cells[cells != MISSING], minlength=size) for cells, size in pairs]
    return {
        column.name: dict(zip(column.class_names, counts.tolist(), strict=True))
        for column, counts in zip(layout.columns, numbers, strict=True)
    }


def output_counts(rows: pl.DataFrame, layout: LabelLayout) -> dict[str, int]:
    """Count the rows of each class of heads, or of several classes at once, in the order of ``output_names``."""
    counts = class_counts(rows, layout).values()
    return dict(zip(layout.output_names, [one for column in counts for one in column.values()], strict=True))


def with_own_names(columns: Sequence[pl.Series]) -> list[pl.Series]:
    """Give each column a name that none before it has: " (2)" and so on is added to a name that is taken.

    Examples:
        >>> [one.name for one in with_own_names([pl.Series("path", [1]), pl.Series("path", [2])])]
        ['path', 'path (2)']
    """
    taken: set[str] = set()
    found: list[pl.Series] = []
    for column in columns:
        names = (column.name, *(f"{column.name} ({number})" for number in range(2, len(columns) + 2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        found.append(column.alias(name))
    return found


def number_rows(values: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the different rows of a table of whole numbers, in the order of their values.

    Returns:
        The number of each row, and for each number a row that has it.

    Examples:
        >>> number_rows(np.array([[1, 0], [0, 1], [1, 0]]))
        (array([1, 0, 1]), array([1, 0]))
    """
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    numbers = np.zeros(len(values), np.int64)
    for column in values.T.astype(np.int64):  # one column at a time: a key of all would overflow
        low = int(column.min())
        keys = numbers * (int(column.max()) - low + 1) + (column - low)
        numbers = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return numbers, np.unique(numbers, return_index=True)[1].astype(np.int64)
