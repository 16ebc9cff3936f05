"""What ``predict`` is given → paths of photos: files, folders, globs, and tables with a path column."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from headstart.data.folders import FolderListing, has_image_suffix
from headstart.data.label_files import PATH_NAMES, is_label_file, open_label_file
from headstart.data.table import is_absolute
from headstart.errors import SourceError, must_be


def gather_inputs(arguments: Iterable[str], *, path_column: str | None = None) -> list[str]:
    """Give the photos that arguments name, in their order, each once.

    A file that is named but missing is kept: it gets a row with the error. In a folder, and what lies below it, every
    file named like an image is taken, in order of their names.

    Args:
        arguments: Files, folders, globs (``**`` goes through folders), and CSV, TSV or Parquet files of paths, which
            start from the table's folder.
        path_column: The tables' column of paths; guessed unless told.

    Raises:
        SourceError: A folder, glob or table holds no photos, or a table's path column cannot be told.

    Examples:
        >>> gather_inputs(["missing.jpg", "missing.jpg"])
        ['missing.jpg']
    """
    found = [path for argument in arguments for path in _expand(str(argument), path_column)]
    if not found:
        raise SourceError(must_be("images", "files, folders, globs or tables", [], "Name at least one photo."))
    return list(dict.fromkeys(found))


def _expand(argument: str, path_column: str | None) -> list[str]:
    path = Path(argument).expanduser()
    if path.is_dir():
        return _folder_images(path)
    if path.is_file() and is_label_file(path):
        return _table_paths(path, path_column)
    if path.exists() or not glob.has_magic(argument):
        return [str(path)]
    return _glob(str(path), path_column)


def _folder_images(folder: Path) -> list[str]:
    paths = FolderListing(folder).paths.to_frame("path").filter(has_image_suffix(pl.col("path")))["path"]
    if not len(paths):
        raise SourceError(must_be("images", "a folder with photos in it or below it", str(folder), "It has none."))
    return [str(folder / name) for name in paths]


def _glob(pattern: str, path_column: str | None) -> list[str]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    files = [match for match in matches if not Path(match).is_dir()]
    if not files:
        remedy = "No file matches. Name a folder itself to take what is in it."
        raise SourceError(must_be("images", "a pattern that matches files", pattern, remedy))
    return [
        path
        for file in files
        for path in (_table_paths(Path(file), path_column) if is_label_file(Path(file)) else [file])
    ]


def _table_paths(table: Path, path_column: str | None) -> list[str]:
    file = open_label_file(table)
    column = path_column or _path_column(table, file.head)
    if column not in file.head.columns:
        remedy = "Name another with path_column."
        raise SourceError(must_be(f"{table}: path_column", f"one of {', '.join(file.head.columns)}", column, remedy))
    stripped = pl.col(column).cast(pl.String).str.strip_chars()
    paths = file.rows.select(stripped.alias("path")).drop_nulls().filter(pl.col("path") != "").collect()
    root = table.parent
    absolute = paths.select(is_absolute(pl.col("path")))["path"]
    return [name if is_whole else str(root / name) for name, is_whole in zip(paths["path"], absolute, strict=True)]


def _path_column(table: Path, head: pl.DataFrame) -> str:
    """Take the only column whose cells are named like images, or the only one of those with a usual name."""
    texts = [name for name, dtype in head.schema.items() if dtype == pl.String]
    shares = {
        name: head.select(has_image_suffix(pl.col(name).str.strip_chars()).mean()).item() or 0.0 for name in texts
    }
    images = [name for name, share in shares.items() if share > 0.9]
    usual = [name for name in images or texts if name.strip().lower() in PATH_NAMES]
    for names in (images, usual):
        if len(names) == 1:
            return names[0]
    raise SourceError(must_be(str(table), "a table with one column of image paths", head.columns, "Call it 'path'."))
