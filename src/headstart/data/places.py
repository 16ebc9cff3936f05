"""What the user named (a folder, a file, an archive) → where it lies, unpacked where it was an archive."""

from __future__ import annotations

from pathlib import Path

from headstart.data.archives import is_archive, unpack
from headstart.errors import SourceError, must_be
from headstart.recipe import Recipe


def find_place(
    named: str | None, recipe: Recipe, *, unpack_dir: Path, kinds: str, setting: str = "data"
) -> tuple[Path, tuple[str, ...]]:
    """Find the folder or file that a setting names; an archive is unpacked.

    Args:
        named: What the user gave.
        recipe: Says how large an archive may be.
        unpack_dir: Where an archive is unpacked (below it, in a folder of its own).
        kinds: What may be given, for the message.
        setting: The setting's name, for the message.

    Returns:
        The place, and notes for the user.

    Raises:
        SourceError: Nothing was named, it does not exist, or the archive cannot be unpacked.
    """
    if named is None:
        raise SourceError(must_be(setting, kinds, None, "Name it: headstart train PHOTOS."))
    place = Path(named).expanduser().absolute()
    if not place.exists():
        raise SourceError(must_be(setting, kinds, named, f"No such file or folder: {place}."))
    if place.is_dir() or not is_archive(place):
        return place, ()
    unpacked = unpack(place, unpack_dir, max_bytes=int(recipe.max_archive_gb * 1e9))
    return unpacked.folder, unpacked.notes
