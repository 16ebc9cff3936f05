"""A CSV, TSV or Parquet file with a path column and a label column → table.

Columns are read as text, only those needed, and every step works on whole columns. What is guessed is said; what could
mean two things is an error that names the candidates.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import polars as pl

from headstart.data.folders import SPLIT_NAMES, has_image_suffix, some
from headstart.data.label_cells import LIST_SEPARATOR
from headstart.data.label_columns import absent_labels, captured_names, table_label_keys, take_labels, word_absent
from headstart.data.name_columns import take_name_columns
from headstart.data.table import SampleTable, is_absolute
from headstart.errors import SourceError, all_at_once, did_you_mean, must_be
from headstart.recipe import Recipe

LABEL_SUFFIXES: Final = (".csv", ".tsv", ".parquet", ".pq")
PATH_NAMES: Final = frozenset(
    (
        *(
            "path",
            "file",
            "filename",
            "file_name",
            "filepath",
            "file_path",
            "image",
            "images",
            "image_path",
            "image_file",
        ),
        *("image_name", "image_filename", "img", "img_path", "img_name", "photo", "picture"),
    )
)
"""What a column of paths is usually called."""
LABEL_NAMES: Final = frozenset(
    (
        *("label", "labels", "class", "classes", "class_name", "class_id", "classname", "category", "category_name"),
        *("target", "y", "species", "breed", "emotion", "expression", "diagnosis", "cell_type"),
        *("라벨", "레이블", "클래스", "분류"),
    )
)
"""What a column of labels is usually called."""
_HEAD: Final = 1000  # rows that guesses look at
_EXISTING: Final = 50  # paths that are looked for on the disk
_COLUMNS: Final = ("path", "label", "group", "split")


@dataclass(frozen=True)
class LabelFile:
    """An opened label file: its rows are read on demand, its first rows and its notes are here.

    Attributes:
        path: The file.
        rows: All rows, not yet read.
        head: The first rows.
        notes: Encoding and separator, where they are unusual.
    """

    path: Path
    rows: pl.LazyFrame
    head: pl.DataFrame
    notes: tuple[str, ...]


def is_label_file(path: Path) -> bool:
    """Say whether a file is named like a table of labels.

    Examples:
        >>> is_label_file(Path("labels.CSV")), is_label_file(Path("cat.jpg"))
        (True, False)
    """
    return path.suffix.lower() in LABEL_SUFFIXES


def read_label_file(path: Path, recipe: Recipe, *, may_lack: Collection[str] = ()) -> SampleTable:
    """Read a table of paths and labels.

    Args:
        path: The CSV (or TSV) in UTF-8, UTF-16 or cp949, or the Parquet file.
        recipe: Names the columns and the image folder; what it leaves open is guessed where only one answer is left.
        may_lack: Label columns that need not be there.

    Returns:
        One row per row of the file; rows without a label or path are excluded.

    Raises:
        SourceError: The file cannot be read, a column is missing or ambiguous, or a cell is not allowed.
    """
    file = open_label_file(path)
    root = image_root_of(path, recipe)
    guessed = ("path",) if recipe.labels.names else ("path", "label")
    absent = absent_labels(recipe, {*file.head.columns, *captured_names(recipe)}, may_lack)
    labels = {key: name for key, name in table_label_keys(recipe).items() if name not in absent}
    columns, guesses = choose_columns(file, recipe, root, guessed=guessed, labels=labels)
    frame = read_columns(file, columns)
    frame, path_notes = clean_paths(frame, root, path)
    path_notes += _absent_notes(frame, root)
    frame, name_notes = take_name_columns(clean_groups(frame), recipe)
    frame, split_notes = clean_splits(frame, path, columns.get("split"))
    table = take_labels(frame, recipe, root=root, file=path, column=columns.get("label"), absent=absent)
    guesses = (*guesses, *word_absent(f"The rows of {path.name}", absent))
    notes = (*file.notes, *guesses, *path_notes, *_repeated_notes(table.frame, path), *name_notes)
    return replace(table, notes=(*notes, *table.notes, *split_notes))


def open_label_file(path: Path) -> LabelFile:
    """Open a label file and read its first rows.

    Raises:
        SourceError: The file is empty, has no header, is not what its name says, or is in an unknown encoding.
    """
    try:
        rows, notes = _parquet_rows(path) if path.suffix.lower() in (".parquet", ".pq") else _csv_rows(path)
        head = rows.head(_HEAD).collect()
    except pl.exceptions.NoDataError:
        raise SourceError(must_be(str(path), "a table with a header and rows", "an empty file")) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(_word_read_error(path, error)) from None
    images = [name for name in head.columns if re.search(r"(?i)\.(jpe?g|png|bmp|webp|gif|tiff?)$", name.strip())]
    if images:
        remedy = "Add a first line such as 'path,label'."
        raise SourceError(must_be(f"{path} row 1", "the column names", images[0], remedy))
    if not head.height:
        raise SourceError(must_be(str(path), "a table with rows below its header", f"columns {head.columns} only"))
    return LabelFile(path, rows, head, notes)


def _parquet_rows(path: Path) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    return pl.scan_parquet(path), ()


def _csv_rows(path: Path) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    encoding = _encoding(path)
    source: Path | io.BytesIO = path
    notes: tuple[str, ...] = ()
    if encoding != "utf-8-sig":
        source = io.BytesIO(path.read_bytes().decode(encoding).encode())
        notes = (f"{path.name} is in {encoding}, not UTF-8.",)
    with path.open(encoding=encoding, newline="") as lines:
        header = lines.readline()
    separator = _separator(header, path)
    if separator not in (",", "\t"):
        notes = (*notes, f"The columns of {path.name} are separated by {separator!r}.")
    return pl.scan_csv(source, separator=separator, infer_schema=False), notes


def _encoding(path: Path) -> str:
    """Find the encoding by decoding the whole file: a Korean name may stand in the last row only."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    problem = ""
    for encoding in ("utf-8-sig", "cp949"):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            return encoding
        except UnicodeDecodeError as error:
            problem = problem or f"bytes {error.object[error.start : error.end]!r}"
    remedy = "Save it as 'CSV UTF-8'."
    raise SourceError(must_be(str(path), "text in UTF-8, UTF-16 or cp949", problem, remedy))


def _separator(header: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max((",", ";", "\t", "|"), key=header.count)


def _word_read_error(path: Path, error: Exception) -> str:
    """Say which row is broken where a row is; else what the reader said."""
    if path.suffix.lower() in (".csv", ".tsv"):
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline="") as lines:
            separator = _separator(lines.readline(), path)
            lines.seek(0)
            rows = csv.reader(lines, delimiter=separator)
            width = len(next(rows))
            for row in rows:
                if len(row) > width:
                    place = f"{path} row {rows.line_num}"
                    return must_be(
                        place, f"{width} cells wide", len(row), f"Put cells that hold {separator!r} in quotes."
                    )
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return must_be(str(path), "a readable table", first_line, "Check that it is what its name says.")


def image_root_of(path: Path, recipe: Recipe) -> Path:
    """Give the folder that a table's paths start from: the one the recipe names, else the table's own.

    Raises:
        SourceError: The folder that the recipe names does not exist.
    """
    if recipe.image_root is None:
        return path.parent
    root = Path(recipe.image_root).expanduser().absolute()
    if not root.is_dir():
        raise SourceError(must_be("--image-root", "a folder", recipe.image_root, "Check the path."))
    return root


def choose_columns(
    file: LabelFile,
    recipe: Recipe,
    root: Path,
    *,
    guessed: tuple[Literal["path", "label"], ...] = ("path", "label"),
    labels: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give the file's column for each of path, label, group, split, and what was guessed.

    Args:
        file: The table.
        recipe: Names columns.
        root: The folder that paths start from.
        guessed: The columns that are looked for where the recipe does not name them.
        labels: The label columns that the recipe names: what each is to be called, and its name in the file.

    Raises:
        SourceError: A column that the recipe names is not there, or a guess has no single answer.
    """
    asked = {
        "path": recipe.path_column,
        **(labels or {}),
        "group": recipe.group_column,
        "split": recipe.split_column,
    }
    columns = {meaning: name for meaning, name in asked.items() if name is not None}
    flags = dict.fromkeys(labels or (), recipe.labels.flag)
    problems = [
        must_be(
            flags.get(meaning, f"--{meaning}-column"),
            f"a column of {file.path.name}: {', '.join(file.head.columns)}",
            name,
            near,
        )
        for meaning, name in columns.items()
        if name not in file.head.columns
        for near in [did_you_mean(name, file.head.columns)]
    ]
    if problems:
        raise SourceError(all_at_once(problems))
    notes: list[str] = []
    guesses = {"path": _guess_path_column, "label": _guess_label_column}
    for meaning in guessed:
        if meaning not in columns:
            columns[meaning] = guesses[meaning](file, set(columns.values()), root)
            notes.append(f"Column {columns[meaning]!r} of {file.path.name} was taken as the {meaning} column.")
    return columns, tuple(notes)


def _guess_path_column(file: LabelFile, taken: set[str], root: Path) -> str:
    texts = [name for name, dtype in file.head.schema.items() if dtype == pl.String and name not in taken]
    candidates = [name for name in texts if _share_of_images(file.head[name]) > 0.9]
    candidates = candidates or [name for name in texts if _num_existing(file.head[name], root)]
    return _only_one(file, "path", candidates, texts, PATH_NAMES)


def _guess_label_column(file: LabelFile, taken: set[str], _root: Path) -> str:
    free = [name for name in file.head.columns if name not in taken]
    named = [name for name in free if plain_name(name) in LABEL_NAMES]
    candidates = named or [name for name in free if _could_be_label(file.head[name])]
    return _only_one(file, "label", candidates, free, LABEL_NAMES)


def _only_one(file: LabelFile, meaning: str, candidates: list[str], free: list[str], usual: frozenset[str]) -> str:
    """Give the only candidate, or the only one with a usual name; else say what there is and which flag decides."""
    preferred = [name for name in candidates if plain_name(name) in usual]
    for names in (candidates, preferred):
        if len(names) == 1:
            return names[0]
    shown = [f"{name!r} ({', '.join(map(repr, _examples(file.head[name])))}, …)" for name in candidates or free]
    what = "one column that can be" if candidates else "a column that looks like"
    words = {"path": "the image paths", "label": "the labels"}[meaning]
    got = "; ".join(shown[:10]) or "no further column"
    remedy = f"Name it: --{meaning}-column {(candidates or free or ['NAME'])[0]}."
    raise SourceError(f"{file.path} must be a table with {what} {words}; got {got}. {remedy}")


def plain_name(name: str) -> str:
    """Give a column's name in lower case with underscores, as names are compared.

    Examples:
        >>> plain_name(" Image Path")
        'image_path'
    """
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _examples(column: pl.Series) -> list[str]:
    return column.drop_nulls().head(2).cast(pl.String, strict=False).to_list()


def _share_of_images(column: pl.Series) -> float:
    values = column.drop_nulls().str.strip_chars()
    share = values.to_frame("path").select(has_image_suffix(pl.col("path")).mean()).item()
    return share or 0.0


def _num_existing(values: pl.Series, root: Path) -> int:
    names = values.drop_nulls().head(_EXISTING).to_list()
    return sum(bool(name.strip()) and (root / name.strip()).is_file() for name in names)


def _could_be_label(column: pl.Series) -> bool:
    """Say whether values repeat as labels do: at least two, on average twice each, and no fractions."""
    values = column.drop_nulls().cast(pl.String, strict=False).str.strip_chars()
    if not column.name.strip() or values.str.contains(r"^-?\d*\.\d*[1-9]\d*$").any():
        return False
    return 2 <= values.n_unique() <= max(2, len(values) // 2)


def read_columns(file: LabelFile, columns: dict[str, str]) -> pl.DataFrame:
    """Read columns as text.

    Args:
        file: The table.
        columns: What each is to be called, and its name in the file.

    Raises:
        SourceError: A row cannot be read; it is named.
    """
    schema = file.head.schema
    chosen = [_as_text(pl.col(name), schema[name]).alias(meaning) for meaning, name in columns.items()]
    try:
        return file.rows.select(chosen).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(_word_read_error(file.path, error)) from None


def _as_text(cells: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Give cells as text; a list of labels (in Parquet) as labels with a sign between them that no label holds."""
    if not isinstance(dtype, pl.List | pl.Array):
        return cells.cast(pl.String, strict=False)
    names = cells.cast(pl.List(pl.String)).list.join(LIST_SEPARATOR)
    return pl.when(names == "").then(pl.lit("[]")).otherwise(names)


def clean_paths(frame: pl.DataFrame, root: Path, file: Path) -> tuple[pl.DataFrame, list[str]]:
    """Make paths relative to the root with forward slashes; rows without one are excluded."""
    notes: list[str] = []
    path = pl.col("path").str.strip_chars()
    if frame["path"].str.contains("\\", literal=True).any():
        path = path.str.replace_all("\\", "/", literal=True)
        notes.append(f"Backslashes in the paths of {file.name} were read as forward slashes.")
    within = path.str.strip_prefix("./").str.strip_prefix(f"{root.as_posix().rstrip('/')}/")
    frame = frame.with_columns(path=within.fill_null(""))
    frame, normal_notes = _match_normal_form(frame, root)
    empty = pl.col("path") == ""
    if frame.select(empty.any()).item():
        detail = pl.format("{} row {} has no path", pl.lit(file.name), pl.int_range(2, pl.len() + 2))
        frame = frame.with_columns(excluded=pl.when(empty).then(pl.lit("missing")), detail=pl.when(empty).then(detail))
    return frame, notes + normal_notes


def _match_normal_form(frame: pl.DataFrame, root: Path) -> tuple[pl.DataFrame, list[str]]:
    """Spell paths as the disk does: a Mac writes 'é' or '한' in parts (NFD), a table mostly in one (NFC)."""
    foreign = frame["path"].filter(frame["path"].str.contains(r"[^\x00-\x7F]"))
    if not len(foreign) or _num_existing(foreign, root):
        return frame, []
    for form in ("NFC", "NFD"):
        if _num_existing(foreign.head(_EXISTING).str.normalize(form), root):
            return frame.with_columns(pl.col("path").str.normalize(form)), [
                f"Paths were matched to the files in {form}."
            ]
    return frame, []


def _repeated_notes(frame: pl.DataFrame, file: Path) -> list[str]:
    paths = frame["path"].filter(frame["path"] != "")
    repeated = len(paths) - paths.n_unique()
    if not repeated:
        return []
    several = frame.filter((pl.col("path") != "") & pl.col("path").is_duplicated())
    num_differing = several.group_by("path").agg(pl.col("label").n_unique() > 1)["label"].sum()
    note = f"{repeated:,} rows of {file.name} name a photo that an earlier row names"
    return [f"{note}; {num_differing:,} photos have rows with different labels." if num_differing else f"{note}."]


def _absent_notes(frame: pl.DataFrame, root: Path) -> list[str]:
    """Say early that the photos seem to lie elsewhere; the pass over the files says it of each."""
    relative = frame.head(_HEAD).filter((pl.col("path") != "") & ~is_absolute(pl.col("path")))["path"]
    if not len(relative) or _num_existing(relative, root):
        return []
    inside = [entry.path for entry in os.scandir(root) if entry.is_dir()] if root.is_dir() else []
    better = next((place for place in sorted(inside)[:_HEAD] if _num_existing(relative.head(3), Path(place))), None)
    remedy = f"try --image-root {better}" if better else "if the photos lie elsewhere, give --image-root"
    return [f"None of the first {min(len(relative), _EXISTING)} paths exists below {root}; {remedy}."]


def clean_groups(frame: pl.DataFrame) -> pl.DataFrame:
    """Strip and normalise groups: 'S1 ' and 'S1' are one person, and must never stand on two sides."""
    if "group" not in frame.columns:
        return frame
    clean = pl.col("group").str.strip_chars().str.normalize("NFC")
    return frame.with_columns(group=pl.when(clean != "").then(clean))


def clean_splits(frame: pl.DataFrame, file: Path | None, column: str | None) -> tuple[pl.DataFrame, list[str]]:
    """Read the cells of ``split`` as train, validation or test.

    Args:
        frame: Rows with ``path``, and ``split`` as text.
        file: Where the cells stand; None: in the names of the photos.
        column: What they are called; None where nothing is to be read.

    Raises:
        SourceError: A cell says something else, or none says anything.
    """
    if column is None:
        return frame, []
    clean = pl.col("split").str.strip_chars().str.to_lowercase()
    clean = pl.when(clean != "").then(clean)
    unknown = frame.filter(clean.is_not_null() & ~clean.is_in(list(SPLIT_NAMES)))["split"]
    if len(unknown):
        values = some(unknown.unique().sort().head(6).to_list(), count=unknown.n_unique())
        row = int(frame["split"].index_of(unknown[0]) or 0)
        place = f"{file} row {row + 2}, column {column!r}" if file else f"{column!r} of {frame['path'][row]}"
        expected = "train, validation or test (or training, val, valid, dev, testing)"
        raise SourceError(f"{place} must be {expected}; got {values}. Fix the cells, or leave out --split-column.")
    frame = frame.with_columns(split=clean.replace_strict(dict(SPLIT_NAMES), default=None, return_dtype=pl.String))
    num_open = frame["split"].null_count()
    if num_open == frame.height:
        place = f"{file}, column {column!r}" if file else f"{column!r} of the file names"
        raise SourceError(must_be(place, "filled with train, validation or test", "empty cells"))
    return frame, [f"{num_open:,} rows have no split."] if num_open else []
