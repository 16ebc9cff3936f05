"""A CSV, TSV or Parquet file with a path and x, y of every point in each row → rows with points.

Every step works on whole columns; Python looks only at the rows that something is wrong with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.annotation_files import PhotoNames
from headstart.data.annotation_table import box_or_null, points_or_null
from headstart.data.annotations import LARGEST_COORDINATE, Annotation, shown
from headstart.data.folders import FolderListing, some
from headstart.data.keypoints import NOT_LOOKED_FOR, KeypointLayout, numbered_layout
from headstart.data.label_files import LabelFile, choose_columns, clean_paths, open_label_file, read_columns
from headstart.data.name_columns import text_name
from headstart.data.point_columns import BoxColumns, PointColumns, box_prefixes, find_box_columns, find_point_columns
from headstart.data.table import SPLITS
from headstart.errors import SourceError
from headstart.recipe import Recipe

_TRUE: Final = ("true", "yes", "t", "y")
_FALSE: Final = ("false", "no", "f", "n")


@dataclass(frozen=True)
class _Columns:
    """What each column of the file is."""

    path: str
    points: PointColumns
    box: BoxColumns | None
    texts: dict[str, str]  # what a text column is called here, and in the file
    notes: tuple[str, ...]


def read_points_table(path: Path, recipe: Recipe, *, root: Path) -> tuple[pl.DataFrame, KeypointLayout, list[str]]:
    """Read a table of paths and points.

    Args:
        path: The CSV (or TSV) in UTF-8, UTF-16 or cp949, or the Parquet file.
        recipe: Names the columns of path, group, split and box; the path's is guessed where it is not named.
        root: The folder of the photos.

    Returns:
        One row per row of the file (``table_from_keypoints`` takes them); the layout; notes.

    Raises:
        SourceError: The file cannot be read, or has no columns of points.
    """
    file = open_label_file(path)
    columns = _choose(file, recipe, root)
    frame = _read(file, columns, recipe)
    values = _Values.of(frame, columns)
    frame, notes = clean_paths(frame, root, path)
    frame = _with_points(frame, values, columns, path.name, needs_box=recipe.crop_to_box is not None)
    frame, found_notes = _find_files(frame, root, path.name)
    frame, repeated_notes = _judge_repeated(frame, path.name)
    names = columns.points.names
    layout = KeypointLayout(names, flip_note=NOT_LOOKED_FOR) if names else numbered_layout(len(columns.points.xs))
    layout = replace(layout, box_names=box_prefixes(file.head.columns))
    texts = list(columns.texts)
    own = ("path", "group", "split", "excluded", "detail", "keypoints", "visible", "box")
    kept = frame.select(*(name for name in own if name in frame.columns), *texts)
    return kept, layout, [*file.notes, *columns.notes, *notes, *found_notes, *repeated_notes]


def points_in_header(columns: list[str], *, is_known: bool = False) -> int:
    """Say how many points a table's header names.

    Args:
        columns: The header.
        is_known: The data is known to have points. Else a header counts only where nothing else can be meant: two
            numbered points may be a box, and numbered columns beside others may be anything.

    Examples:
        >>> corners = ["path", "x1", "y1", "x2", "y2"]
        >>> points_in_header(corners), points_in_header(corners, is_known=True)
        (0, 2)
        >>> points_in_header([*corners, "x3", "y3"])
        3
    """
    try:
        points = find_point_columns(columns, place="")
    except SourceError:
        return 0
    if points is None or is_known:
        return len(points.xs) if points else 0
    is_maybe_box = len(points.xs) < 3 and not points.names
    has_more = "in pairs" in points.form and len(points.all) < len(columns) - 1
    return 0 if is_maybe_box or has_more else len(points.xs)


def _choose(file: LabelFile, recipe: Recipe, root: Path) -> _Columns:
    named, notes = choose_columns(file, _for_file(recipe, file), root, guessed=("path",))
    place = file.path.name
    header = [name for name in file.head.columns if name != named["path"]]
    points = find_point_columns(header, place=place)
    if points is None:
        remedy = "Name them x1, y1, x2, y2, … or nose_x, nose_y, …"
        raise SourceError(
            f"{file.path} must be a table with x and y of each point; got columns {some(header)}. {remedy}"
        )
    box = find_box_columns(header, recipe.crop_to_box, place=place)
    taken = {*points.all, *(box.columns if box else ())}
    nested = {name for name, dtype in file.head.schema.items() if dtype.is_nested()}
    rest = [
        name for name in header if name not in taken | nested and name.strip() and not name.startswith("_duplicated_")
    ]
    texts = {text_name(name.strip()): name for name in rest if name.strip() not in _taken_as(file, recipe, header)}
    said = f"The {len(points.xs)} points of {place} were taken from columns {points.form}."
    guessed = [f"Column {name!r} of {place} was taken as the {name} column." for name in _taken_as(file, recipe, header)
               if getattr(recipe, f"{name}_column") is None]  # fmt: skip
    if box and recipe.crop_to_box is None:
        guessed.append(f"Boxes were taken from columns {', '.join(box.columns)} of {place}.")
    return _Columns(named["path"], points, box, texts, (*notes, said, *guessed))


def _for_file(recipe: Recipe, file: LabelFile) -> Recipe:
    """Leave out the names of columns that are none of the file's, but come from the file names."""
    groups = re.compile(recipe.name_pattern).groupindex if recipe.name_pattern else {}
    given = {"group_column": recipe.group_column, "split_column": recipe.split_column}
    ours = [name for name, column in given.items() if column in groups and column not in file.head.columns]
    return recipe.model_copy(update=dict.fromkeys(ours))


def _taken_as(file: LabelFile, recipe: Recipe, header: list[str]) -> dict[str, str]:
    """Give the columns that are called group and split and mean it, where the recipe does not say otherwise."""
    taken: dict[str, str] = {}
    if "group" in header and recipe.group_column in (None, "group") and recipe.group_pattern is None:
        taken["group"] = "group"
    if "split" in header and recipe.split_column in (None, "split"):
        values = file.head["split"].drop_nulls().cast(pl.String).str.strip_chars().unique().to_list()
        if recipe.split_column or set(values) - {""} <= set(SPLITS):
            taken["split"] = "split"
    return taken


def _read(file: LabelFile, columns: _Columns, recipe: Recipe) -> pl.DataFrame:
    box = columns.box.columns if columns.box else ()
    numbers = {f"number {index}": name for index, name in enumerate((*columns.points.all, *box))}
    recipe = _for_file(recipe, file)
    meanings = _taken_as(file, recipe, file.head.columns)
    asked = {"group": recipe.group_column, "split": recipe.split_column}
    meanings |= {meaning: name for meaning, name in asked.items() if name is not None}
    return read_columns(file, {"path": columns.path, **meanings, **numbers, **columns.texts})


@dataclass(frozen=True)
class _Values:
    """The numbers of every row, not a number where a cell holds none.

    Attributes:
        texts: The cells, for messages, in the order of the columns.
        points: Shape (n, num_keypoints, 2).
        flags: Shape (n, num_keypoints); None where the table has no visibility.
        boxes: Shape (n, 4); None where the table has no boxes.
    """

    texts: pl.DataFrame
    points: NDArray[np.float64]
    flags: NDArray[np.float64] | None
    boxes: NDArray[np.float64] | None

    @classmethod
    def of(cls, frame: pl.DataFrame, columns: _Columns) -> _Values:
        """Read the cells as numbers, and true and false as 1 and 0."""
        texts = frame.select(pl.col("^number .*$").str.strip_chars().replace("", None))
        num_keypoints, cells = len(columns.points.xs), texts.columns
        pairs = [name for pair in zip(cells[:num_keypoints], cells[num_keypoints : 2 * num_keypoints], strict=True)
                 for name in pair]  # fmt: skip
        flags = cells[2 * num_keypoints : len(columns.points.all)]
        boxes = cells[len(columns.points.all) :]
        points = _numbers(texts.select(pairs)).reshape(len(frame), num_keypoints, 2)
        return cls(
            texts,
            points,
            _numbers(_words_as_numbers(texts.select(flags))) if flags else None,
            _numbers(texts.select(boxes)) if boxes else None,
        )


def _numbers(texts: pl.DataFrame) -> NDArray[np.float64]:
    numbers = texts.select(pl.all().cast(pl.Float64, strict=False).fill_null(float("nan"))).to_numpy()
    return np.ascontiguousarray(np.where(np.abs(numbers) <= LARGEST_COORDINATE, numbers, np.nan))


def _words_as_numbers(texts: pl.DataFrame) -> pl.DataFrame:
    words = dict.fromkeys(_TRUE, "1") | dict.fromkeys(_FALSE, "0")
    return texts.select(pl.all().str.to_lowercase().replace(words))


def _with_points(
    frame: pl.DataFrame, values: _Values, columns: _Columns, file: str, *, needs_box: bool
) -> pl.DataFrame:
    """Add points, box, and what is wrong with the numbers of a row."""
    is_place = np.isfinite(values.points).all(axis=2)
    names = values.texts.columns[: 2 * len(columns.points.xs)]
    is_filled = ~values.texts.select(pl.all_horizontal(pl.col(names).is_null()).alias("none"))["none"].to_numpy()
    flags = values.flags
    marked = np.ones(is_place.shape, bool) if flags is None else np.nan_to_num(flags) > 0
    is_unclear = marked & ~is_place if flags is None else (marked & ~is_place) | (np.isnan(flags) & is_place)
    problems = {int(row): "" for row in np.flatnonzero(is_unclear.any(axis=1) & is_filled)}
    for row in problems:
        problems[row] = _word_cell(values, columns, row, int(is_unclear[row].argmax()), file)
    boxes = None
    if values.boxes is not None and columns.box:
        boxes, bad_boxes = _checked_boxes(values.boxes, columns.box)
        if needs_box:
            words = f"has no box with an area in {', '.join(columns.box.columns)}"
            problems |= {
                row: f"{file} row {row + 2} {words}" for row in bad_boxes if is_filled[row] and row not in problems
            }
    has_points = is_filled & (marked & is_place).any(axis=1)
    has_points[list(problems)] = False
    frame = frame.with_columns(points_or_null(values.points, marked & is_place, has_points))
    frame = frame if boxes is None else frame.with_columns(box_or_null(boxes))
    return _with_problems(frame, problems, has_points, file)


def _checked_boxes(numbers: NDArray[np.float64], columns: BoxColumns) -> tuple[NDArray[np.float64], list[int]]:
    """Give left, top, right, bottom of every row, not a number where that is no box; and these rows."""
    boxes = numbers.copy()
    if columns.is_size:
        boxes[:, 2:] += boxes[:, :2]
    is_box = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes[~is_box] = np.nan
    return boxes, np.flatnonzero(~is_box).tolist()


def _word_cell(values: _Values, columns: _Columns, row: int, point: int, file: str) -> str:
    """Name the cell that is wrong."""
    names = (columns.points.xs[point], columns.points.ys[point])
    bad = [axis for axis in (0, 1) if not np.isfinite(values.points[row, point, axis])]
    axis, name, expected = (bad[0], names[bad[0]], "a number") if bad else (2, columns.points.visible[point], "0 or 1")
    text = values.texts[row, axis * len(columns.points.xs) + point]
    got = "nothing" if text is None else shown(text)
    return f"{file} row {row + 2}, column {name!r}: must be {expected}; got {got}"


def _with_problems(
    frame: pl.DataFrame, problems: dict[int, str], has_points: NDArray[np.bool_], file: str
) -> pl.DataFrame:
    """Exclude rows with a problem, and those without points; rows without a path stay excluded as they are."""
    if "excluded" not in frame.columns:
        frame = frame.with_columns(excluded=pl.lit(None, pl.String), detail=pl.lit(None, pl.String))
    details: list[str | None] = [None] * frame.height
    reasons: list[str | None] = [None] * frame.height
    for row in np.flatnonzero(~has_points).tolist():
        details[row] = problems.get(row, f"{file} row {row + 2} has no points")
        reasons[row] = "bad annotation" if row in problems else "no annotation"
    return frame.with_columns(
        excluded=pl.coalesce("excluded", pl.Series(reasons, dtype=pl.String)),
        detail=pl.coalesce("detail", pl.Series(details, dtype=pl.String)),
    )


def _find_files(frame: pl.DataFrame, root: Path, file: str) -> tuple[pl.DataFrame, list[str]]:
    """Find the photos that are not where the table says by their file names, anywhere below the root."""
    wanted = frame["path"].filter(frame["path"] != "").unique(maintain_order=True).to_list()
    absent = [path for path in wanted if not (root / path).exists()]
    if not absent:
        return frame, []
    listing = FolderListing(root)
    photos = PhotoNames(listing.paths.to_list())
    found, lost = _by_name(absent, photos, root)
    better = pl.col("path").replace_strict(found, default=pl.col("path"), return_dtype=pl.String)
    why = pl.col("path").replace_strict(lost, default=None, return_dtype=pl.String)
    is_lost = why.is_not_null()
    frame = frame.with_columns(
        excluded=pl.when(is_lost & pl.col("excluded").is_null()).then(pl.lit("missing")).otherwise("excluded"),
        detail=pl.when(is_lost & pl.col("excluded").is_null()).then(why).otherwise("detail"),
        path=better,
    )
    notes: list[str] = []
    if found:
        path, place = next(iter(found.items()))
        notes.append(
            f"{len(found):,} paths of {file} were found by file name below {root}, e.g. {path!r} at {place!r}."
        )
    rivals = [path for path, words in lost.items() if words.startswith("stands for several")]
    if rivals:
        said = f"{len(rivals):,} paths of {file} stand for several files ({some(rivals[:5], count=len(rivals))})"
        notes.append(f"{said}; name the folder: --image-root.")
    return frame, notes


def _by_name(absent: list[str], photos: PhotoNames, root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Give where each path was found, and why the rest was not."""
    together = photos.in_one_folder(absent)
    if together is not None:
        return together, {}
    found: dict[str, str] = {}
    lost: dict[str, str] = {}
    for path in absent:
        match = photos.match(Annotation("", photo=path))
        if match.photo is not None:
            found[path] = photos.paths[match.photo]
        elif match.rivals:
            lost[path] = f"stands for several files: {' and '.join(map(repr, match.rivals[:2]))}"
        else:
            lost[path] = f"no such file, and none of this name below {root}"
    return found, lost


def _judge_repeated(frame: pl.DataFrame, file: str) -> tuple[pl.DataFrame, list[str]]:
    """Judge rows that name one photo: the same again is excluded; with boxes, others are samples of their own."""
    rows = frame.with_row_index("row").filter(pl.col("excluded").is_null() & pl.col("path").is_duplicated())
    if rows.filter(pl.col("path").is_duplicated()).is_empty():
        return frame, []
    what = [name for name in ("keypoints", "visible", "box") if name in rows.columns]
    details: dict[int, str] = {}
    for numbers in rows.group_by("path", maintain_order=True).agg("row")["row"].to_list():
        details |= _repeated_details(frame, numbers, what, file)
    row = pl.int_range(pl.len())
    why = row.replace_strict(details, default=None, return_dtype=pl.String) if details else pl.lit(None, pl.String)
    frame = frame.with_columns(
        excluded=pl.when(why.is_not_null()).then(pl.lit("bad annotation")).otherwise("excluded"),
        detail=pl.when(why.is_not_null()).then(why).otherwise("detail"),
    )
    several = frame.filter(pl.col("excluded").is_null()).filter(pl.col("path").is_duplicated())
    if several.is_empty():
        return frame, []
    known = [pl.col("group")] if "group" in frame.columns else []
    note = f"{several['path'].n_unique():,} photos hold several samples ({several.height:,}); each photo is a group."
    return frame.with_columns(group=pl.coalesce(*known, "path")), [note]


def _repeated_details(frame: pl.DataFrame, numbers: list[int], what: list[str], file: str) -> dict[int, str]:
    if len(numbers) < 2:
        return {}
    first_with: dict[str, int] = {}
    details: dict[int, str] = {}
    for number in numbers:
        content = repr(frame.select(what).row(number))
        if content in first_with:
            details[number] = f"{file} row {number + 2} says the same as row {first_with[content] + 2}"
        first_with.setdefault(content, number)
    if "box" in what or len(first_with) == 1:
        return details
    rows = " and ".join(str(number + 2) for number in list(first_with.values())[:2])
    return dict.fromkeys(numbers, f"{file} rows {rows} give other points for one photo")
