"""What the user named (a folder, a file, an archive) → where it lies, unpacked where it was an archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from headstart.data.archives import is_archive, unpack
from headstart.data.table import SampleTable
from headstart.errors import SourceError, must_be
from headstart.recipe import Recipe


@dataclass(frozen=True)
class Place:
    """Where lies what the user named.

    Attributes:
        path: The folder or file.
        notes: A sentence each, for the user.
        archive: The archive as the user named it; None where there is none.
        unpacked: The folder that it was unpacked into, which may be gone when its name is read.
    """

    path: Path
    notes: tuple[str, ...] = ()
    archive: Path | None = None
    unpacked: Path | None = None

    def worded(self, text: str) -> str:
        """Name what lies in an archive by its path there.

        Examples:
            >>> place = Place(Path("/tmp/x/a-12-34"), archive=Path("a.zip"), unpacked=Path("/tmp/x/a-12-34"))
            >>> place.worded("/tmp/x/a-12-34/labels/1.json is empty; the points of a-12-34 are not.")
            'a.zip/labels/1.json is empty; the points of a.zip are not.'
        """
        if self.archive is None or self.unpacked is None:
            return text
        return text.replace(str(self.unpacked), str(self.archive)).replace(self.unpacked.name, self.archive.name)


def find_place(named: str | None, recipe: Recipe, *, unpack_dir: Path, kinds: str, setting: str = "data") -> Place:
    """Find the folder or file that a setting names; an archive is unpacked, ``faces.zip/labels`` is a part of one.

    Args:
        named: What the user gave.
        recipe: Says how large an archive may be.
        unpack_dir: Where an archive is unpacked (below it, in a folder of its own).
        kinds: What may be given, for the message.
        setting: The setting's name, for the message.

    Raises:
        SourceError: Nothing was named, it does not exist, or the archive cannot be unpacked.
    """
    if named is None:
        raise SourceError(must_be(setting, kinds, None, "Name it: headstart train PHOTOS."))
    given = Path(named).expanduser()
    place, archive = given.absolute(), archive_of(given)
    if archive is None:
        if not place.exists():
            raise SourceError(must_be(setting, kinds, named, f"No such file or folder: {place}."))
        return Place(place)
    unpacked = unpack(archive, unpack_dir, max_bytes=int(recipe.max_archive_gb * 1e9))
    inner = place.relative_to(archive)
    path = unpacked.root / inner if inner.parts else unpacked.folder
    if ".." in inner.parts or not path.exists():
        raise SourceError(must_be(setting, kinds, named, f"{archive.name} holds no {inner}."))
    outer = given.parents[len(inner.parts) - 1] if inner.parts else given
    return Place(path, unpacked.notes, outer, unpacked.root)


def archive_of(place: Path) -> Path | None:
    """Give the archive that a place is, or lies in, by its whole path; None where there is none."""
    whole = place.expanduser().absolute()
    return next((upper for upper in (whole, *whole.parents) if is_archive(upper) and upper.is_file()), None)


@contextmanager
def named_as_given(*places: Place) -> Iterator[None]:
    """Let messages about what lies in archives name its path there, not where it was unpacked.

    Raises:
        SourceError: What was raised inside, in other words.
    """
    try:
        yield
    except SourceError as error:
        raise SourceError(_worded(str(error), places)) from None


def with_names_as_given(table: SampleTable, *places: Place) -> SampleTable:
    """Give a table whose notes and details name what lies in archives by its path there."""
    if all(place.archive is None for place in places):
        return table
    details = pl.Series("detail", [text and _worded(text, places) for text in table.frame["detail"]], pl.String)
    return replace(
        table,
        frame=table.frame.with_columns(details),
        notes=tuple(_worded(note, places) for note in table.notes),
    )


def _worded(text: str, places: tuple[Place, ...]) -> str:
    for place in places:
        text = place.worded(text)
    return text
