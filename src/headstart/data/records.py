"""The pixel store on disk, being read: one memory-mapped index over the records of all shards.

``index.npy`` is derived from the ledgers when a pass is complete, and ``index.json`` beside it says what it belongs to:
format, settings, shards with their sizes, checksum. Opening checks all of that and the checksums of 64 records spread
over the store. Training reads records from here and never opens the user's files again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import simplejpeg
from numpy.typing import NDArray

from headstart.data.decoding import CoverRule, Fit
from headstart.data.headers import Size
from headstart.data.shards import Shard, read_ledgers
from headstart.errors import StoreError, all_at_once, must_be
from headstart.files import write_json, written_aside
from headstart.progress import track

Encoding = Literal["raw", "jpeg"]

FORMAT: Final = 2
"""Raised when the files' layout or the decoded pixels change; a store of another format is made anew."""

_RECORD: Final = np.dtype(
    [
        ("offset", np.uint64),
        ("scale", np.float64, (2,)),
        ("size", np.int32, (2,)),
        ("original_size", np.int32, (2,)),
        ("shard", np.uint32),
        ("num_bytes", np.uint32),
        ("crc32", np.uint32),
    ]
)
_NUM_SPREAD: Final = 64
_AGAIN: Final = "Run headstart check or train again: it mends the store."


@dataclass(frozen=True)
class StoreSettings:
    """What decides the stored pixels.

    Attributes:
        image_size: (height, width) of the network's input.
        fit: How a photo meets the image size; see ``decoding.stored_size``.
        encoding: "raw" pixels, or "jpeg" of quality 95 without chroma subsampling: about an eighth of the space.
        max_pixels: Photos with more are excluded.
    """

    image_size: Size
    fit: Fit = "crop"
    encoding: Encoding = "raw"
    max_pixels: int = 200_000_000

    @property
    def cover(self) -> CoverRule:
        """How large photos are kept."""
        return CoverRule(self.image_size, self.fit)

    def as_dict(self) -> dict[str, object]:
        """Give the settings as they stand in JSON."""
        return asdict(self) | {"image_size": list(self.image_size), "margin": self.cover.margin}


class PixelStore:
    """Decoded photos, read by record number. Safe to read from any number of threads.

    Attributes:
        directory: Its folder.
        settings: What decided the pixels.
        fingerprint: Changes with the settings, and with what the records hold and their order.
    """

    def __init__(self, directory: Path, header: dict[str, Any], index: NDArray[np.void]) -> None:
        self.directory = directory
        self.settings = _settings_of(header)
        self.fingerprint = str(header["fingerprint"])
        self._index = index
        self._paths = [directory / name for name, _ in _shards_of(header)]
        self._maps: dict[int, NDArray[np.uint8]] = {}

    @classmethod
    def open(cls, directory: Path) -> PixelStore:
        """Open a store that ``fill_store`` completed, and verify it.

        Args:
            directory: The store's folder.

        Returns:
            The store; its index is memory-mapped, so that 2,000,000 records open in well under a second.

        Raises:
            StoreError: The store is missing, half written, damaged, or of another format.
        """
        store = cls.open_unchecked(directory)
        damaged = store.damaged_records(np.unique(np.linspace(0, len(store) - 1, _NUM_SPREAD).astype(np.int64)))
        if damaged:
            raise store._damage(damaged)
        return store

    @classmethod
    def open_unchecked(cls, directory: Path) -> PixelStore:
        """Open a store whose records may be damaged; index and shard sizes are verified all the same.

        Raises:
            StoreError: The store is missing, half written, of another format, or its index is damaged.
        """
        header = _read_header(directory)
        index = _map_index(directory, header)
        for name, num_bytes in _shards_of(header):
            file = directory / name
            found = file.stat().st_size if file.is_file() else "no file"
            if found != num_bytes:
                raise StoreError(must_be(f"pixel store {file}", f"{num_bytes:,} bytes long", found, _AGAIN))
        return cls(directory, header, index)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(height, width) of each stored photo, shape (n, 2)."""
        return self._index["size"]

    @property
    def original_sizes(self) -> NDArray[np.int32]:
        """(height, width) of each upright original, shape (n, 2)."""
        return self._index["original_size"]

    @property
    def scales(self) -> NDArray[np.float64]:
        """(y, x), shape (n, 2): stored coordinate = original coordinate × scale."""
        return self._index["scale"]

    def read(self, record: int) -> NDArray[np.uint8]:
        """Give a record's pixels: uint8 of shape (height, width, 3), RGB, upright.

        Args:
            record: 0 … len(store) − 1, the table's column ``record``.

        Returns:
            A read-only view into the memory map ("raw"), or a new array ("jpeg").

        Raises:
            StoreError: There is no such record, or its bytes are damaged.
        """
        if not 0 <= record < len(self._index):
            raise StoreError(
                must_be("record", f"from 0 to {len(self._index) - 1}", record, f"Store: {self.directory}.")
            )
        data = self._bytes(record)
        if self.settings.encoding == "raw":
            height, width = self._index["size"][record]
            return data.reshape(height, width, 3)
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError:
            raise self._damage([record]) from None

    def verify(self, *, quiet: bool = False) -> None:
        """Check every record's checksum.

        Raises:
            StoreError: Records are damaged; the first few are named.
        """
        damaged: list[int] = []
        with track("verifying the store", len(self), quiet=quiet) as advance:
            for start in range(0, len(self), 1024):
                block = np.arange(start, min(start + 1024, len(self)))
                damaged += self.damaged_records(block)
                advance(len(block))
        if damaged:
            raise self._damage(damaged)

    def damaged_records(self, records: NDArray[np.int64]) -> list[int]:
        """Give those of the records whose bytes do not have the checksum that they were written with."""
        if not len(self):
            return []
        return [
            int(record)
            for record in records
            if zlib.crc32(self._bytes(int(record)).data) != self._index["crc32"][record]
        ]

    def shard_of(self, record: int) -> Path:
        """Give the shard file that holds a record."""
        return self._paths[int(self._index["shard"][record])]

    def _bytes(self, record: int) -> NDArray[np.uint8]:
        shard, start = int(self._index["shard"][record]), int(self._index["offset"][record])
        if shard not in self._maps:  # two threads may both map it; one map stays
            self._maps[shard] = np.memmap(self._paths[shard], np.uint8, "r").view(np.ndarray)
        return self._maps[shard][start : start + int(self._index["num_bytes"][record])]

    def _damage(self, records: list[int]) -> StoreError:
        named = ", ".join(f"{record} in {self.shard_of(record).name}" for record in records[:3])
        more = f" and {len(records) - 3:,} more" if len(records) > 3 else ""
        place = f"pixel store {self.directory}"
        return StoreError(f"{place} must be as it was written; got damaged records: {named}{more}. {_AGAIN}")


def write_index(directory: Path, shards: list[Shard], settings: StoreSettings) -> None:
    """Derive the index from the ledgers and write it, header last."""
    columns = ["content_hash", "height", "width", "stored_height", "stored_width", "scale_y", "scale_x"]
    rows = read_ledgers(shards, [*columns, "offset", "num_bytes", "crc32"]).filter(pl.col("num_bytes") > 0)
    index = np.zeros(rows.height, _RECORD)
    for field in ("offset", "shard", "num_bytes", "crc32"):
        index[field] = rows[field].to_numpy()
    pairs = {"scale": "scale_y scale_x", "size": "stored_height stored_width", "original_size": "height width"}
    for field, names in pairs.items():
        index[field] = rows.select(names.split()).to_numpy()
    with written_aside(directory / "index.npy") as aside, aside.open("wb") as file:
        np.save(file, index)
    header = {
        "format": FORMAT,
        "settings": settings.as_dict(),
        "num_records": rows.height,
        "checksum": _checksum(index),
        "fingerprint": _fingerprint(rows["content_hash"], settings),
        "shards": [[shard.path.name, shard.num_bytes] for shard in shards],
    }
    write_json(directory / "index.json", header)


def index_covers(directory: Path, shards: list[Shard]) -> bool:
    """Say whether the index is of exactly these shards."""
    try:
        return _shards_of(_read_header(directory)) == [(shard.path.name, shard.num_bytes) for shard in shards]
    except StoreError:
        return False


def _read_header(directory: Path) -> dict[str, Any]:
    path = directory / "index.json"
    place = f"pixel store {directory}"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise StoreError(must_be(place, "complete", "no index.json", "Run headstart check or train first.")) from None
    except ValueError as error:
        raise StoreError(must_be(str(path), "JSON", str(error), _AGAIN)) from None
    if header.get("format") != FORMAT:
        raise StoreError(must_be(f"{path} format", str(FORMAT), header.get("format"), "Remove the folder."))
    missing = {"settings", "num_records", "checksum", "fingerprint", "shards"} - header.keys()
    if missing:
        raise StoreError(must_be(str(path), "a store's header", f"no {', '.join(sorted(missing))}", _AGAIN))
    return header


def _map_index(directory: Path, header: dict[str, Any]) -> NDArray[np.void]:
    path = directory / "index.npy"
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(must_be(str(path), "a store's index", str(error), _AGAIN)) from None
    problems = []
    if index.dtype != _RECORD or len(index) != header["num_records"]:
        found = f"{len(index):,} records of {index.dtype.itemsize} bytes"
        problems.append(
            must_be(str(path), f"{header['num_records']:,} records of {_RECORD.itemsize} bytes", found, _AGAIN)
        )
    elif _checksum(index) != header["checksum"]:
        problems.append(must_be(f"{path} checksum", str(header["checksum"]), _checksum(index), _AGAIN))
    if problems:
        raise StoreError(all_at_once(problems))
    return index


def _settings_of(header: dict[str, Any]) -> StoreSettings:
    values = dict(header["settings"])
    values.pop("margin")
    height, width = values.pop("image_size")
    return StoreSettings(image_size=(height, width), **values)


def _shards_of(header: dict[str, Any]) -> list[tuple[str, int]]:
    return [(str(name), int(num_bytes)) for name, num_bytes in header["shards"]]


def _checksum(index: NDArray[np.void]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(index).view(np.uint8).data, digest_size=16).hexdigest()


def _fingerprint(content_hashes: pl.Series, settings: StoreSettings) -> str:
    digest = hashlib.blake2b(json.dumps([FORMAT, settings.as_dict()], sort_keys=True).encode(), digest_size=16)
    for start in range(0, len(content_hashes), 65536):
        digest.update("".join(content_hashes[start : start + 65536].to_list()).encode())
    return digest.hexdigest()
