"""Class folders → table: the class is the name of a photo's first-level folder, or of the one below train, val, test.

The folder is read once with ``os.scandir``; which folders are classes, which are splits, and what else lies about is
then decided on whole columns of paths.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import polars as pl

from headstart.data.table import SPLITS, SampleTable, Split, table_from_class_names
from headstart.errors import SourceError, must_be

IMAGE_SUFFIXES: Final = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"),
    *("pbm", "pgm", "ppm", "pnm", "jp2", "avif", "heic", "heif"),
)
"""What an image may be called; whether it is one, the pass over the files finds out."""
SPLIT_NAMES: Final[Mapping[str, Split]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Names that people give to splits, in lower case, and ours."""

_SYSTEM_NAMES: Final = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"])
_CHUNK: Final = 100_000  # paths that are held as Python text at once
_MAX_NAMED: Final = 5


def has_image_suffix(path: pl.Expr) -> pl.Expr:
    """Say of each path whether it is named like an image.

    Examples:
        >>> pl.select(has_image_suffix(pl.lit(pl.Series(["a.JPG", "a.txt"])))).to_series().to_list()
        [True, False]
    """
    return path.str.contains(rf"(?i)\.({'|'.join(IMAGE_SUFFIXES)})$")


def is_system_name(name: str) -> bool:
    """Say whether a file or folder is the system's own and not the user's: hidden, or known by name.

    Examples:
        >>> is_system_name(".DS_Store"), is_system_name("Thumbs.db"), is_system_name("cat.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def some(names: list[str], *, count: int | None = None) -> str:
    """Name a few and count the rest.

    Examples:
        >>> some(["a", "b"]), some(list("abcdefg"))
        ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    count = len(names) if count is None else count
    named = ", ".join(repr(name) for name in names[:_MAX_NAMED])
    return named if count <= _MAX_NAMED else f"{named} and {count - _MAX_NAMED:,} more"


class FolderListing:
    """Every file below a folder, as one sorted column of relative paths, and what was passed over on the way.

    Links are followed; a link back to a folder that holds it is passed over. Nothing is opened.

    Attributes:
        paths: Paths relative to the folder, with forward slashes, sorted.
        unusable: Paths that cannot be opened, and why: names that are not text, pipes, devices.
        system_files: Hidden and system names, and how often each was passed over.
        empty_folders: Folders that hold nothing.
        loops: Linked folders that lead back to themselves.

    Raises:
        SourceError: A folder may not be read.
    """

    def __init__(self, folder: Path) -> None:
        self.unusable: dict[str, str] = {}
        self.system_files: Counter[str] = Counter()
        self.empty_folders: list[str] = []
        self.loops: list[str] = []
        self._chunks: list[pl.Series] = []
        self._recent: list[str] = []
        self._walk(folder)
        self._flush()
        self.paths = pl.concat([pl.Series("path", [], pl.String), *self._chunks]).sort()
        self._chunks.clear()

    def _walk(self, folder: Path) -> None:
        """Go through all folders without recursion; each knows the folders it lies in, so that no loop is entered."""
        waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
        while waiting:
            place, prefix, above = waiting.pop()
            status = _status(place)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                self.loops.append(prefix.rstrip("/"))
                continue
            inside = above | {identity}
            waiting += [(path, f"{prefix}{name}/", inside) for path, name in self._read(place, prefix)]

    def _read(self, place: str, prefix: str) -> list[tuple[str, str]]:
        """Note the files of one folder; give its folders."""
        folders: list[tuple[str, str]] = []
        num_entries = 0
        for entry in _entries(place):
            num_entries += 1
            if is_system_name(entry.name):
                self.system_files[entry.name] += 1
            elif _is_folder(entry):
                folders.append((entry.path, entry.name))
            else:
                self._add(prefix + entry.name, entry)
        if not num_entries and prefix:
            self.empty_folders.append(_as_text(prefix).rstrip("/"))
        return folders

    def _add(self, path: str, entry: os.DirEntry[str]) -> None:
        text = path if path.isascii() else _as_text(path)
        if text != path:
            self.unusable[text] = "its name is not UTF-8 text; rename it"
        elif not _is_file_or_link(entry):
            self.unusable[text] = "it is a pipe, socket or device, not a file"
        self._recent.append(text)
        if len(self._recent) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._chunks.append(pl.Series("path", self._recent, pl.String))
        self._recent = []


def read_folder(folder: Path, listing: FolderListing) -> SampleTable | None:
    """Read class folders, or train/val/test folders of class folders.

    Args:
        folder: The folder.
        listing: Its files.

    Returns:
        One row per file in a class folder, and per image outside (excluded as "no label"); None where the folder has
        no class folders.

    Raises:
        SourceError: Two folders name the same split, or the only folders are splits without classes.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for name in ("cat/1.jpg", "dog/2.jpg"):
        ...         (Path(place) / name).parent.mkdir()
        ...         _ = (Path(place) / name).write_bytes(b"")
        ...     table = read_folder(Path(place), FolderListing(Path(place)))
        >>> table.class_names, table.frame["path"].to_list()
        (('cat', 'dog'), ['cat/1.jpg', 'dog/2.jpg'])
    """
    rows = _with_classes(_with_parts(listing.paths), folder)
    names = rows["class_name"].drop_nulls().unique().sort().to_list()
    if not names:
        return None
    if all(name.lower() in SPLIT_NAMES for name in names):
        remedy = "Put the photos of each class into a folder of their own, e.g. train/cat, or give a table of labels."
        raise SourceError(must_be(str(folder), "a folder with class folders below train and test", names, remedy))
    is_sample = pl.col("class_name").is_not_null() | pl.col("is_image")
    beside = rows.filter(~is_sample)["path"]
    frame = rows.filter(is_sample).select("path", "class_name", "split", *_unusable(listing))
    return table_from_class_names(frame, root=folder, notes=_notes(folder, listing, beside))


def _with_classes(files: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Add class and given split; a folder is a class where an image lies in it or deeper."""
    splits = _split_folders(files, folder)
    given = pl.col("first").replace_strict(splits, default=None) if splits else pl.lit(None)
    files = files.with_columns(
        split=given.cast(pl.String),
        folder=pl.when(pl.col("first").is_in(list(splits))).then("second") if splits else pl.col("first"),
    )
    is_class = (pl.col("is_image").any() & pl.col("folder").is_not_null()).over("folder")
    return files.with_columns(class_name=pl.when(is_class).then(pl.col("folder").str.normalize("NFC")))


def _with_parts(paths: pl.Series) -> pl.DataFrame:
    """Add to each path its first folder, its second folder, and whether it is named like an image."""
    path = pl.col("path")
    return paths.to_frame().select(
        path,
        first=path.str.extract(r"^([^/]+)/"),
        second=path.str.extract(r"^[^/]+/([^/]+)/"),
        is_image=has_image_suffix(path),
    )


def _split_folders(files: pl.DataFrame, folder: Path) -> dict[str, Split]:
    """Give the folders that are splits, or none where the first level holds the classes.

    "train" may be a class of vehicles: folders are splits where each of them holds folders of images and either there
    are two such, or nothing else holds images.
    """
    images = files.filter("is_image").drop_nulls("first")
    nested = images.group_by("first").agg(pl.col("second").is_not_null().any()).sort("first")
    named: dict[str, Split] = {
        name: SPLIT_NAMES[name.strip().lower()]
        for name, has_folders in nested.iter_rows()
        if has_folders and name.strip().lower() in SPLIT_NAMES
    }
    if "train" not in named.values() or (len(named) == 1 and nested.height > 1):
        return {}
    for split in SPLITS:
        names = [name for name, meaning in named.items() if meaning == split]
        if len(names) > 1:
            remedy = "Join them, or move one away."
            raise SourceError(must_be(str(folder), f"a folder with one {split} folder", names, remedy))
    return named


def _unusable(listing: FolderListing) -> list[pl.Expr]:
    path, reasons = pl.col("path"), listing.unusable
    detail = path.replace_strict(reasons, default=None, return_dtype=pl.String)
    excluded = pl.when(path.is_in(list(reasons))).then(pl.lit("unreadable"))
    return [excluded.alias("excluded"), detail.alias("detail")] if reasons else []


def _notes(folder: Path, listing: FolderListing, beside: pl.Series) -> tuple[str, ...]:
    notes: list[str] = []
    hidden = [name for name, _ in listing.system_files.most_common()]
    if hidden:
        notes.append(f"Passed over as hidden or system files: {listing.system_files.total():,} ({some(hidden)}).")
    if listing.loops:
        notes.append(f"Links to folders that hold them were not followed: {some(listing.loops)}.")
    if listing.empty_folders:
        notes.append(f"Empty folders: {some(sorted(listing.empty_folders))}.")
    is_table = ~beside.str.contains("/") & beside.str.to_lowercase().str.contains(r"\.(csv|tsv|parquet)$")
    tables = beside.filter(is_table).to_list()
    if tables:
        remedy = f"to use it, give {folder / tables[0]} as the data"
        notes.append(f"Beside the class folders lies {some(tables)}, which was not read; {remedy}.")
    others = beside.filter(~is_table)
    if len(others):
        named = some(others.head(_MAX_NAMED).to_list(), count=len(others))
        notes.append(f"Files that are no image and lie in no class folder were left aside: {len(others):,} ({named}).")
    return tuple(notes)


def _status(place: str) -> os.stat_result:
    try:
        return os.stat(place)  # noqa: PTH116 - text paths, 2,000,000 times
    except OSError as error:
        raise _unreadable(place, error) from None


def _entries(place: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            yield from entries
    except OSError as error:
        raise _unreadable(place, error) from None


def _unreadable(place: str, error: OSError) -> SourceError:
    remedy = "Allow reading it, or move it away."
    return SourceError(must_be(_as_text(place), "a folder that can be read", error.strerror, remedy))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file_or_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _as_text(path: str) -> str:
    """Give a file name that may not be text as text; names that are come back as they are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
