"""The one table: a row for every sample found, from the source to the predictions.

Every source (``sources.py``) becomes a ``SampleTable``; the pass over the files, the duplicate search and the splits
add columns and return a new table. Rows are never dropped: a sample that cannot be used says why in ``excluded``, so
found = kept + excluded holds at every stage. A table of keypoints has points in place of labels (``keypoints.py``); one
of several labels a sample has them in ``labels``, and in ``label`` their combination (``label_layout.py``).

Columns from the source: ``sample_id, path, label, group, split, excluded, detail``. The pass adds ``content_hash,
perceptual_hash, height, width, record``; the duplicate search ``copy_set, cluster``; the splits ``unit``, and ``fold``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

import polars as pl

from headstart.data.keypoints import KeypointLayout
from headstart.data.label_layout import LabelLayout
from headstart.errors import SourceError, all_at_once, must_be
from headstart.files import written_aside

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
"""The three splits, in the order in which they are shown."""

Exclusion = Literal[
    "no label",
    "no annotation",
    "bad annotation",
    "missing",
    "unreadable",
    "empty",
    "not an image",
    "truncated",
    "too many pixels",
    "decoder error",
]
EXCLUSIONS: Final[tuple[Exclusion, ...]] = get_args(Exclusion)
"""Every reason for leaving a sample out; the words of one case stand in ``detail``."""

SOURCE_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "sample_id": pl.UInt32(),  # 0 … n − 1, the row's number
    "path": pl.String(),  # relative to the root with forward slashes, or absolute where it lies elsewhere
    "label": pl.Int32(),  # number of the class name; null where there is none
    "group": pl.String(),  # what the user says belongs together
    "split": pl.String(),  # one of SPLITS
    "excluded": pl.String(),  # one of EXCLUSIONS, or null where the sample is kept
    "detail": pl.String(),  # the words for the reason
}
"""The columns every table has, and their types."""

LATER_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "content_hash": pl.String(),
    "perceptual_hash": pl.UInt64(),
    "height": pl.UInt32(),
    "width": pl.UInt32(),
    "record": pl.UInt32(),
    "copy_set": pl.UInt32(),
    "cluster": pl.UInt32(),
    "unit": pl.UInt32(),
}
"""The columns that later stages add; where one stands, it has this type."""

_METADATA_KEY: Final = "headstart"
_FORMAT: Final = 1


@dataclass(frozen=True)
class SampleTable:
    """Samples, what is known of each, and what was noticed on the way.

    Attributes:
        frame: One row per sample found, in the order of ``sample_id``.
        root: The folder that relative paths start from.
        class_names: Names of the classes, sorted; label i is ``class_names[i]``.
        notes: What was guessed or noticed, a sentence each, for the user.
        keypoints: What the points are; None in a table of labels.
        labels: What several labels a sample are; None where there is one.

    Raises:
        SourceError: The frame lacks a column, a column has another type, or a value is not allowed.

    Examples:
        >>> table = table_from_columns(["a/1.jpg", "b/2.jpg"], [0, 1], root=Path("photos"), class_names=("a", "b"))
        >>> table.kept.height, table.excluded_counts
        (2, {})
    """

    frame: pl.DataFrame
    root: Path
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    keypoints: KeypointLayout | None = None
    labels: LabelLayout | None = None

    def __post_init__(self) -> None:
        """Check the frame once, here at the boundary."""
        problems = _schema_problems(self.frame) or _value_problems(self.frame, len(self.class_names))
        problems += _keypoint_problems(self.frame, self.keypoints) + _label_problems(self.frame, self.labels)
        if problems:
            raise SourceError(all_at_once(problems))

    @property
    def kept(self) -> pl.DataFrame:
        """The rows that are used."""
        if self.frame["excluded"].null_count() == self.frame.height:
            return self.frame
        return self.frame.filter(pl.col("excluded").is_null())

    @property
    def task(self) -> str:
        """What is learned, in a word for files."""
        if self.labels is not None:
            return self.labels.task
        return "keypoints" if self.keypoints is not None else "classification"

    @property
    def has_plain_classes(self) -> bool:
        """Whether a sample has one class, ``label``: not so for several heads, or several classes at once."""
        return self.labels is None or self.labels.form == "joint"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each output that a classifier of these samples has: its classes, of all heads together."""
        return self.labels.output_names if self.labels is not None else self.class_names

    @property
    def excluded_counts(self) -> dict[str, int]:
        """Number of samples left out for each reason, the most frequent first."""
        reasons = (
            self.frame["excluded"].drop_nulls().value_counts().sort(["count", "excluded"], descending=[True, False])
        )
        return dict(zip(reasons["excluded"].to_list(), reasons["count"].to_list(), strict=True))

    def with_frame(self, frame: pl.DataFrame, *notes: str) -> SampleTable:
        """Give the table with another frame of the same samples, and further notes.

        Raises:
            SourceError: The frame does not have the same number of samples: rows are never dropped.
        """
        if frame.height != self.frame.height:
            remedy = "Mark samples as excluded instead of dropping them."
            raise SourceError(must_be("table.frame", f"a frame of {self.frame.height:,} rows", frame.height, remedy))
        return replace(self, frame=frame, notes=self.notes + notes)

    def absolute_paths(self, frame: pl.DataFrame) -> pl.Series:
        """Give the full path of each row of ``frame`` (this table's frame, or some of its rows).

        Examples:
            >>> table = table_from_columns(["1.jpg", "/b/2.jpg"], [0, 1], root=Path("/photos"), class_names=("a", "b"))
            >>> table.absolute_paths(table.frame).to_list()
            ['/photos/1.jpg', '/b/2.jpg']
        """
        path, root = pl.col("path"), self.root.as_posix().rstrip("/")
        whole = pl.when(is_absolute(path)).then(path).otherwise(pl.concat_str(pl.lit(f"{root}/"), path))
        return frame.select(whole.alias("path"))["path"]

    def save(self, path: Path) -> None:
        """Write the table as one Parquet file that holds root, class names and notes too, aside and then renamed."""
        header = {
            "format": _FORMAT,
            "root": str(self.root),
            "class_names": list(self.class_names),
            "notes": list(self.notes),
            "keypoints": self.keypoints and self.keypoints.as_dict(),
            "labels": self.labels and self.labels.as_dict(),
        }
        with written_aside(path) as aside:
            self.frame.write_parquet(aside, metadata={_METADATA_KEY: json.dumps(header, ensure_ascii=False)})

    @classmethod
    def load(cls, path: Path) -> SampleTable:
        """Read a table that ``save`` wrote.

        Raises:
            SourceError: The file is missing, is not Parquet, or was not written by ``save``.
        """
        try:
            header = pl.read_parquet_metadata(path).get(_METADATA_KEY)
            frame = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise SourceError(must_be("table", "a Parquet file of samples", str(path), f"{error}.")) from None
        if header is None:
            raise SourceError(must_be("table", "a file that headstart saved", str(path), "Give a run's table.parquet."))
        values = json.loads(header)
        layout = values.get("keypoints") and KeypointLayout.from_dict(values["keypoints"])
        labels = LabelLayout.from_dict(values["labels"]) if values.get("labels") else None
        names, notes = tuple(values["class_names"]), tuple(values["notes"])
        return cls(frame, Path(values["root"]), names, notes, layout or None, labels)


def layout_of(table: SampleTable) -> KeypointLayout:
    """Give what the points of a keypoint table are."""
    if table.keypoints is None:
        raise TypeError("the table holds labels, not keypoints")
    return table.keypoints


def table_from_columns(
    paths: pl.Series | list[str], labels: pl.Series | list[int | None], *, root: Path, class_names: tuple[str, ...]
) -> SampleTable:
    """Make a table from paths and labels alone, with no groups, no given split and nothing excluded.

    Args:
        paths: Image paths, relative to ``root`` or absolute.
        labels: Number of each sample's class; null excludes the sample as "no label".
        root: The folder that relative paths start from.
        class_names: Names of the classes, sorted.

    Returns:
        The table.
    """
    frame = pl.DataFrame({"path": paths, "label": labels}, schema_overrides={"path": pl.String, "label": pl.Int32})
    return SampleTable(complete_columns(frame), root, class_names)


def table_from_class_names(
    frame: pl.DataFrame, *, root: Path, notes: tuple[str, ...] = (), class_names: tuple[str, ...] | None = None
) -> SampleTable:
    """Make a table from rows that carry the class as text: names are sorted and numbered.

    Args:
        frame: Rows with ``path`` and ``class_name`` (null where there is none), and any of ``SOURCE_COLUMNS``.
        root: The folder that relative paths start from.
        notes: What was guessed or noticed while reading.
        class_names: The names in an order of their own; sorted unless told.

    Returns:
        The table; rows without a class are excluded as "no label".

    Examples:
        >>> rows = pl.DataFrame({"path": ["1.jpg", "2.jpg", "3.jpg"], "class_name": ["dog", None, "cat"]})
        >>> table = table_from_class_names(rows, root=Path("photos"))
        >>> table.class_names, table.frame["label"].to_list()
        (('cat', 'dog'), [1, None, 0])
    """
    if class_names is None:
        class_names = tuple(sorted(frame["class_name"].drop_nulls().unique().to_list()))
    numbers = frame["class_name"].cast(pl.Enum(class_names)).to_physical().cast(pl.Int32)
    numbered = frame.drop("class_name").with_columns(numbers.alias("label"))
    return SampleTable(complete_columns(numbered), root, class_names, notes)


def table_from_keypoints(
    frame: pl.DataFrame, *, root: Path, layout: KeypointLayout, notes: tuple[str, ...] = ()
) -> SampleTable:
    """Make a table of samples with points.

    Args:
        frame: Rows with ``path``, ``keypoints`` and ``visible`` (see ``keypoints.keypoint_columns``; null where a
            sample has none), any of ``SOURCE_COLUMNS``, maybe ``box``, and text columns, which are kept.
        root: The folder that relative paths start from.
        layout: What the points are.
        notes: What was guessed or noticed while reading.

    Returns:
        The table; rows without points are excluded as "no annotation" unless they say another reason.

    Examples:
        >>> from headstart.data.keypoints import keypoint_columns, numbered_layout
        >>> rows = pl.DataFrame({"path": ["1.jpg"], "person": ["A"]}).with_columns(keypoint_columns([[[1, 2], [3, 4]]]))
        >>> table = table_from_keypoints(rows, root=Path("photos"), layout=numbered_layout(2))
        >>> table.kept.height, table.frame["person"].to_list()
        (1, ['A'])
    """
    return SampleTable(complete_columns(frame, target="keypoints"), root, (), notes, layout)


def complete_columns(frame: pl.DataFrame, *, target: Literal["label", "keypoints"] = "label") -> pl.DataFrame:
    """Add the columns of a source that ``frame`` lacks, number the samples, and exclude those without a label.

    Args:
        frame: Rows with ``path`` and the target, and any other column of ``SOURCE_COLUMNS``.
        target: What is learned. Rows without it are excluded.

    Returns:
        The frame with the columns of ``SOURCE_COLUMNS``, and ``labels`` after them; for keypoints all further columns.

    Examples:
        >>> complete_columns(pl.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [0, None]}))["excluded"].to_list()
        [None, 'no label']
    """
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in SOURCE_COLUMNS.items() if name not in frame.columns]
    why = pl.lit("no label" if target == "label" else "no annotation")
    reason = pl.when(pl.col(target).is_null()).then(pl.coalesce("excluded", why)).otherwise("excluded")
    numbered = frame.with_columns(missing).with_columns(
        sample_id=pl.int_range(pl.len(), dtype=pl.UInt32), excluded=reason
    )
    more = [
        name for name in frame.columns if name not in SOURCE_COLUMNS and (target == "keypoints" or name == "labels")
    ]
    return numbered.select(*(pl.col(name).cast(dtype) for name, dtype in SOURCE_COLUMNS.items()), *more)


def is_absolute(path: pl.Expr) -> pl.Expr:
    """Say of each path whether it is absolute (``/a/b``, or ``C:/a/b`` on Windows).

    Examples:
        >>> pl.select(is_absolute(pl.lit(pl.Series(["/a", "a/b", "C:/a"])))).to_series().to_list()
        [True, False, True]
    """
    return path.str.starts_with("/") | path.str.contains(r"^[A-Za-z]:[/\\]")


def _schema_problems(frame: pl.DataFrame) -> list[str]:
    schema = frame.schema
    problems = [
        must_be("table", f"given with a column {name!r}", list(schema.names()), "Make it with complete_columns.")
        for name in SOURCE_COLUMNS
        if name not in schema
    ]
    for name, dtype in (SOURCE_COLUMNS | LATER_COLUMNS).items():
        if name in schema and schema[name] != dtype:
            problems.append(must_be(f"table column {name!r}", f"of type {dtype}", str(schema[name]), "Cast it."))
    return problems


def _keypoint_problems(frame: pl.DataFrame, layout: KeypointLayout | None) -> list[str]:
    if layout is None:
        return []
    count = layout.num_keypoints
    types: dict[str, pl.DataType] = {
        "keypoints": pl.Array(pl.Float32, 2 * count),
        "visible": pl.Array(pl.Boolean, count),
        "box": pl.Array(pl.Float32, 4),
    }
    found = {name: frame.schema.get(name) for name in types if name in frame.columns or name != "box"}
    return [
        must_be(f"table column {name!r}", f"of type {types[name]}", str(dtype), "Make it with keypoint_columns.")
        for name, dtype in found.items()
        if dtype != types[name]
    ]


def _label_problems(frame: pl.DataFrame, layout: LabelLayout | None) -> list[str]:
    found = frame.schema.get("labels")
    if layout is None or found == layout.dtype:
        return []
    return [must_be("table column 'labels'", f"of type {layout.dtype}", str(found), "Make it with labels_column.")]


def _value_problems(frame: pl.DataFrame, num_classes: int) -> list[str]:
    """Look for values that no stage may write; cheap enough for 2,000,000 rows (about 20 ms)."""
    problems: list[str] = []
    for column, allowed in (("excluded", EXCLUSIONS), ("split", SPLITS)):
        found = frame[column].drop_nulls().unique()
        unknown = found.filter(~found.is_in(allowed))
        if len(unknown):
            problems.append(must_be(f"table column {column!r}", f"one of {', '.join(allowed)}", unknown[0]))
    bounds = (frame["label"].min(), frame["label"].max())
    outside = [value for value in bounds if isinstance(value, int) and not 0 <= value < num_classes]
    problems += [must_be("table column 'label'", f"from 0 to {num_classes - 1}", value) for value in outside]
    in_order = frame.select((pl.col("sample_id") == pl.int_range(pl.len(), dtype=pl.UInt32)).all()).item()
    if not in_order:
        problems.append("table column 'sample_id' must be 0 … n − 1 in order; got another order. Sort by sample_id.")
    return problems
