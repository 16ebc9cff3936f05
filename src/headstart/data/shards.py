"""The pixel store on disk, being written: shards of pixel bytes, each with a ledger of the files that were read for it.

``shard-00000.bin`` holds records one after another; ``shard-00000.parquet``, its ledger, has one row per file read, in
the order of the table: a stored photo, a byte-identical copy of one (no bytes of its own), or an excluded file. Both
are written aside, synced and renamed, the ledger last, so a shard is either whole or absent. ``store.py`` fills
shards; ``records.py`` reads them.
"""

from __future__ import annotations

import errno
import io
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.errors import StoreError, must_be
from headstart.files import sync_directory

LEDGER_SCHEMA: Final = pl.Schema(
    {
        "path": pl.String(),  # absolute
        "size": pl.Int64(),  # of the file, in bytes; with mtime_ns it says whether the file is still the same
        "mtime_ns": pl.Int64(),
        "content_hash": pl.String(),
        "perceptual_hash": pl.UInt64(),
        "height": pl.UInt32(),  # of the upright photo
        "width": pl.UInt32(),
        "stored_height": pl.UInt32(),
        "stored_width": pl.UInt32(),
        "scale_y": pl.Float64(),  # stored coordinate = original coordinate × scale
        "scale_x": pl.Float64(),
        "offset": pl.UInt64(),  # in the shard
        "num_bytes": pl.UInt32(),  # 0: a copy of another record, or excluded
        "crc32": pl.UInt32(),
        "excluded": pl.String(),
        "detail": pl.String(),
    }
)

_MIN_FILES, _MIN_BYTES, _LOSS = 2_000, 64 * 2**20, 64
"""A shard is committed after 2,000 files or 64 MiB, later after 1/64 of what is committed: so a kill costs at most a
few seconds or 1/64 of the work, and 2,000,000 photos make some 400 files to map, not 8,000."""

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Shard:
    """One committed shard: where its bytes are, and how many they are."""

    path: Path
    num_bytes: int
    num_files: int

    @property
    def ledger(self) -> Path:
        """The ledger's path."""
        return self.path.with_suffix(".parquet")


def committed_shards(directory: Path) -> list[Shard]:
    """List the shards that are whole: those whose ledger can be read and accounts for every byte.

    Args:
        directory: The store's folder.

    Returns:
        The shards in the order in which they were written.
    """
    shards = []
    for ledger in sorted(directory.glob("shard-*.parquet")):
        path = ledger.with_suffix(".bin")
        try:
            num_bytes = pl.read_parquet(ledger, columns=["num_bytes"])["num_bytes"]
            if path.stat().st_size == int(num_bytes.cast(pl.Int64).sum() or 0):
                shards.append(Shard(path, path.stat().st_size, len(num_bytes)))
        except (OSError, pl.exceptions.PolarsError):
            continue
    return shards


def remove_what_is_not_whole(directory: Path) -> list[str]:
    """Remove leftovers of a killed run and damaged shards, whose files are then read again.

    Args:
        directory: The store's folder. Call only under its lock.

    Returns:
        Names of the shards that had been committed and are damaged; leftovers of a killed run are not named.
    """
    whole = {file for shard in committed_shards(directory) for file in (shard.path, shard.ledger)}
    damaged = []
    for file in sorted(directory.glob("shard-*")):
        if file not in whole:
            if file.suffix == ".parquet":
                damaged.append(file.stem)
            file.unlink()
    for pattern in ("*.partial", ".*.tmp"):
        for file in directory.glob(pattern):
            file.unlink()
    return damaged


def remove_shard(shard: Shard) -> None:
    """Remove a damaged shard, ledger first, so that it is never half trusted."""
    shard.ledger.unlink()
    shard.path.unlink()


def read_ledgers(shards: list[Shard], columns: list[str]) -> pl.DataFrame:
    """Read some columns of all ledgers, and ``shard``, the number of the shard in the list."""
    frames = [pl.read_parquet(shard.ledger, columns=columns) for shard in shards]
    numbered = [frame.with_columns(shard=pl.lit(number, pl.UInt32)) for number, frame in enumerate(frames)]
    schema = {name: LEDGER_SCHEMA[name] for name in columns} | {"shard": pl.UInt32}
    return pl.concat(numbered) if numbered else pl.DataFrame(schema=schema)


class ContentSet:
    """The contents that have a record, as sorted 64-bit prefixes of their hashes: 8 bytes each.

    Among 2,000,000 photos two prefixes meet with a probability of 10⁻⁷; ``store.py`` notices and says so.
    """

    def __init__(self, hashes: pl.Series) -> None:
        self._sorted = np.sort(self._prefixes(hashes))
        self._recent: set[int] = set()

    def __contains__(self, content_hash: str) -> bool:
        """Safe to ask from any thread while another adds."""
        prefix = int(content_hash[:16], 16)
        known = self._sorted
        position = int(np.searchsorted(known, np.uint64(prefix)))
        return prefix in self._recent or (position < len(known) and int(known[position]) == prefix)

    def add(self, content_hash: str) -> None:
        """Note a new record's content."""
        self._recent.add(int(content_hash[:16], 16))

    def settle(self) -> None:
        """Move what was added lately into the sorted array."""
        recent = np.fromiter(self._recent, np.uint64, len(self._recent))
        self._sorted = np.sort(np.concatenate([self._sorted, recent]))
        self._recent = set()

    @staticmethod
    def _prefixes(hashes: pl.Series) -> NDArray[np.uint64]:
        return hashes.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()


class ShardWriter:
    """Appends records to the open shard and commits it when it is full. One thread, under the store's lock.

    Attributes:
        directory: The store's folder.
        num_files: Files entered so far, committed or not.
        num_bytes: Bytes written so far, committed or not.
    """

    def __init__(self, directory: Path, shards: list[Shard]) -> None:
        self.directory = directory
        self._number = 1 + max((int(shard.path.stem.removeprefix("shard-")) for shard in shards), default=-1)
        self.num_files = self._committed_files = sum(shard.num_files for shard in shards)
        self.num_bytes = self._committed_bytes = sum(shard.num_bytes for shard in shards)
        self._columns: dict[str, list[object]] = {name: [] for name in LEDGER_SCHEMA}
        self._file: BinaryIO | None = None

    def append(self, row: dict[str, object], payload: NDArray[np.uint8] | bytes = b"") -> bool:
        """Enter a file, with its record's bytes if it has one.

        Args:
            row: Values by ledger column; what is not given is null. Offset, length and checksum are filled in.
            payload: The record, flat.

        Returns:
            Whether this committed the shard.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        self._file = self._file or self._aside(".bin").open("wb")
        data = payload if isinstance(payload, bytes) else payload.data
        offset = self.num_bytes - self._committed_bytes
        self._file.seek(offset)  # an interrupted append may have left bytes here
        self._file.write(data)
        row = row | {"offset": offset, "num_bytes": len(data), "crc32": zlib.crc32(data)}
        for name, values in self._columns.items():
            values.append(row.get(name))
        self.num_files += 1
        self.num_bytes += len(data)
        return self._commit_if_full()

    def commit(self) -> None:
        """Make what was appended permanent: bytes first, then the ledger. If interrupted, it may be called again."""
        num_rows = self.num_files - self._committed_files
        if self._file is None or not num_rows:
            self.discard()
            return
        if not self._file.closed:
            self._file.truncate(self.num_bytes - self._committed_bytes)
            _sync_and_close(self._file)
        frame = pl.DataFrame({k: v[:num_rows] for k, v in self._columns.items()}, schema=LEDGER_SCHEMA)
        ledger = io.BytesIO()
        frame.write_parquet(ledger)
        file = self._aside(".parquet").open("wb")
        file.write(ledger.getbuffer())
        _sync_and_close(file)
        for suffix in (".bin", ".parquet"):
            if self._aside(suffix).exists():
                self._aside(suffix).replace(self.directory / f"{self._name}{suffix}")
        sync_directory(self.directory)
        self._start_next()

    def discard(self) -> None:
        """Drop what was appended since the last commit."""
        if self._file is not None:
            with suppress(OSError):  # closing writes what is left, and the disk may be full
                self._file.close()
        for suffix in (".bin", ".parquet"):
            self._aside(suffix).unlink(missing_ok=True)
        self.num_files, self.num_bytes = self._committed_files, self._committed_bytes
        self._start_next()

    @property
    def _name(self) -> str:
        return f"shard-{self._number:05d}"

    def _aside(self, suffix: str) -> Path:
        return self.directory / f"{self._name}{suffix}.partial"

    def _start_next(self) -> None:
        self._number += 1 if self.num_files > self._committed_files else 0
        self._committed_files, self._committed_bytes = self.num_files, self.num_bytes
        self._columns = {name: [] for name in LEDGER_SCHEMA}
        self._file = None

    def _commit_if_full(self) -> bool:
        files, num_bytes = self.num_files - self._committed_files, self.num_bytes - self._committed_bytes
        is_full = files >= max(_MIN_FILES, self._committed_files // _LOSS)
        if is_full or num_bytes >= max(_MIN_BYTES, self._committed_bytes // _LOSS):
            self.commit()
            return True
        return False


def cannot_write(directory: Path, error: OSError) -> StoreError:
    """Word that the store's folder cannot be written."""
    return StoreError(must_be("--store-dir", "a folder that can be written", str(directory), f"{error.strerror}."))


def _sync_and_close(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
