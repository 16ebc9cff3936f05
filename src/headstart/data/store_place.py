"""Where decoded photos are kept, and as what: one folder for each data set and settings, by free disk where "auto"."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from headstart.data.decoding import read_size
from headstart.data.headers import DecodeFailure
from headstart.data.records import FORMAT, Encoding, StoreSettings
from headstart.data.shards import committed_shards
from headstart.data.table import SampleTable
from headstart.files import cache_folder

if TYPE_CHECKING:
    from headstart.recipe import Recipe

_RAW_SHARE: Final = 0.4
"""Share of the free disk that raw pixels may take before "auto" chooses JPEG."""


def plan_store(
    recipe: Recipe, table: SampleTable, *, image_size: tuple[int, int], source: Path | None = None
) -> tuple[StoreSettings, Path]:
    """Decide how decoded photos are kept, and where.

    Args:
        recipe: Gives ``fit``, ``max_pixels``, ``store`` and ``store_dir``.
        table: The samples; with "auto", the sizes of some are looked at.
        image_size: (height, width) of the network's input.
        source: What the user named as the data (an archive keeps its store however often it is unpacked); the table's
            root where it is not given.

    Returns:
        The settings, and the store's folder: below ``store_dir``, else below the environment variable HEADSTART_CACHE,
        else below ``~/.cache/headstart``. "auto" stays with a store that exists; else it is raw if that would take less
        than 40 % of the free disk.
    """
    folders: dict[Encoding, tuple[StoreSettings, Path]] = {}
    for encoding in ("raw", "jpeg"):
        settings = StoreSettings(image_size, recipe.fit, encoding, recipe.max_pixels)
        folders[encoding] = (settings, _folder(recipe.store_dir, source or table.root, settings))
    if recipe.store != "auto":
        return folders[recipe.store]
    for settings, directory in folders.values():
        if committed_shards(directory):
            return settings, directory
    settings, directory = folders["raw"]
    free = shutil.disk_usage(_existing_part(directory)).free
    return folders["raw" if estimate_raw_bytes(table, settings) < _RAW_SHARE * free else "jpeg"]


def estimate_raw_bytes(table: SampleTable, settings: StoreSettings, *, num_looked_at: int = 32) -> int:
    """Estimate how much disk the kept photos take as raw pixels, from the headers of some spread over the table.

    Args:
        table: The samples.
        settings: The size they are shrunk to.
        num_looked_at: How many files are opened.
    """
    kept = table.kept
    chosen = np.unique(np.linspace(0, kept.height - 1, num_looked_at).astype(np.int64)) if kept.height else []
    paths = table.absolute_paths(kept[chosen]).to_list() if kept.height else []
    sizes = [size for path in paths if (size := header_size(path, settings.max_pixels))]
    stored = [settings.cover.stored_size(size) for size in sizes or [(3000, 4000)]]
    return int(np.mean([3 * height * width for height, width in stored]) * kept["path"].n_unique())


def _folder(store_dir: str | None, source: Path, settings: StoreSettings) -> Path:
    base = Path(store_dir).expanduser() if store_dir else cache_folder()
    place = source.expanduser().resolve()
    key = json.dumps([FORMAT, str(place), settings.as_dict()], sort_keys=True)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return base / "pixels" / f"{place.name or 'root'}-{digest}"


def _existing_part(directory: Path) -> Path:
    return next(folder for folder in (directory, *directory.absolute().parents) if folder.is_dir())


def header_size(path: str, max_pixels: int) -> tuple[int, int] | None:
    """Give the (height, width) of a photo as its first bytes tell it; None where they do not."""
    try:
        with Path(path).open("rb") as file:
            return read_size(file.read(2**20), max_pixels=max_pixels)
    except (OSError, DecodeFailure):
        return None
