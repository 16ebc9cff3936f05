"""The one pass over the files: hash, decode, shrink and keep every photo, so that nothing reads the user's files again.

``fill_store`` takes a table, reads what the store does not know yet, and gives the table with what each file turned out
to be. A store is keyed by the data's place and the settings; later runs reuse it, and one that a crash left half
written is continued from its last committed shard. The user's files are opened for reading only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from headstart.data.reading import Reading, look_at_files, one_opencv_thread, read_in_order
from headstart.data.records import FORMAT, PixelStore, StoreSettings, index_covers, write_index
from headstart.data.shards import (
    NO_ROOM,
    ContentSet,
    Shard,
    ShardWriter,
    cannot_write,
    committed_shards,
    read_ledgers,
    remove_shard,
    remove_what_is_not_whole,
)
from headstart.data.store_place import plan_store
from headstart.data.table import SampleTable
from headstart.errors import StoreError, must_be
from headstart.files import write_json
from headstart.progress import say, track

__all__ = ["PixelStore", "StoreSettings", "fill_store", "plan_store"]


def fill_store(
    table: SampleTable,
    settings: StoreSettings,
    directory: Path,
    *,
    num_threads: int | None = None,
    quiet: bool = False,
) -> tuple[SampleTable, PixelStore]:
    """Read every file of the table that the store does not know, and say what each turned out to be.

    A file is known if its path, size and time of change are. Byte-identical files share one record. Records stand in
    the order of the table, whatever thread finishes first. When it is interrupted (also by ``kill -9``), the next call
    goes on from the last committed shard.

    Args:
        table: The samples; rows that are excluded already are left as they are.
        settings: The size, the encoding, the bound on pixels.
        directory: The store's folder; made if needed.
        num_threads: Threads that read and decode; all cores by default.
        quiet: Show no progress.

    Returns:
        The table with ``content_hash, perceptual_hash, height, width, record``, and ``excluded`` and ``detail`` for
        files that cannot be used; and the store, verified.

    Raises:
        StoreError: The disk is full or cannot be written (what was committed stays), or the folder holds another store.
    """
    threads = num_threads or _num_cores()
    with _locked(directory, settings, quiet=quiet), ThreadPoolExecutor(threads) as pool:
        shards = _sound_shards(directory, settings, quiet=quiet)
        files = look_at_files(table.absolute_paths(table.kept).unique(maintain_order=True), pool)
        with one_opencv_thread():
            failures = _read_new_files(files, shards, settings, directory, pool=pool, threads=threads, quiet=quiet)
        shards = committed_shards(directory)
        if not index_covers(directory, shards):
            _write_index(directory, shards, settings)
        store = PixelStore.open(directory)
    return _with_findings(table, files.update(failures, on="path", how="left"), shards), store


# --- the store's folder


@contextmanager
def _locked(directory: Path, settings: StoreSettings, *, quiet: bool) -> Iterator[None]:
    """Make the folder and hold its lock; the system lets go of the lock of a killed run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if not quiet:
                say(f"waiting for another run that is filling {directory}")
            lock.acquire()
    except OSError as error:
        raise cannot_write(directory, error) from None
    try:
        _claim(directory, settings)
        yield
    finally:
        lock.release()


def _claim(directory: Path, settings: StoreSettings) -> None:
    """Write down whose folder this is, or refuse one that belongs to other settings."""
    path, mine = directory / "store.json", {"format": FORMAT, "settings": settings.as_dict()}
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        found = None
    if found is None:
        write_json(path, mine)
    elif found != mine:
        raise StoreError(must_be(f"pixel store {directory}", f"made with {mine}", found, "Give another folder."))


def _sound_shards(directory: Path, settings: StoreSettings, *, quiet: bool) -> list[Shard]:
    """Give the committed shards after removing whatever is half written or damaged."""
    damaged = remove_what_is_not_whole(directory)
    shards = committed_shards(directory)
    if shards and not (index_covers(directory, shards) and _opens(directory)):
        _write_index(directory, shards, settings)
        if not _opens(directory):
            damaged += _remove_damaged(directory, shards)
            shards = committed_shards(directory)
    if damaged and not quiet:
        say(f"pixel store {directory}: {', '.join(damaged)} damaged; their photos are read again")
    return shards


def _opens(directory: Path) -> bool:
    try:
        PixelStore.open(directory)
    except StoreError:
        return False
    return True


def _remove_damaged(directory: Path, shards: list[Shard]) -> list[str]:
    """Remove the shards that hold a damaged record; every record is checked."""
    store = PixelStore.open_unchecked(directory)
    bad = {store.shard_of(record) for record in store.damaged_records(np.arange(len(store)))}
    gone = [shard for shard in shards if shard.path in bad]
    for shard in gone:
        remove_shard(shard)
    return [shard.path.stem for shard in gone]


def _write_index(directory: Path, shards: list[Shard], settings: StoreSettings) -> None:
    try:
        write_index(directory, shards, settings)
    except OSError as error:
        raise cannot_write(directory, error) from None


# --- reading


def _read_new_files(
    files: pl.DataFrame,
    shards: list[Shard],
    settings: StoreSettings,
    directory: Path,
    *,
    pool: ThreadPoolExecutor,
    threads: int,
    quiet: bool,
) -> pl.DataFrame:
    """Read what the ledgers do not know into new shards; give the files that could not be opened this time."""
    ledger = read_ledgers(shards, ["path", "size", "mtime_ns", "content_hash", "num_bytes", "excluded"])
    contents = ledger.filter(pl.col("num_bytes") > 0)["content_hash"]
    # a copy whose record was in a damaged shard is unknown again
    known = ledger.filter(pl.col("excluded").is_not_null() | pl.col("content_hash").is_in(contents.implode()))
    new = files.filter(pl.col("excluded").is_null()).join(
        known, on=["path", "size", "mtime_ns"], how="anti", maintain_order="left"
    )
    failures: list[tuple[object, object, object]] = []
    if new.height:
        stored, writer = ContentSet(contents), ShardWriter(directory, shards)
        del ledger, known
        with (
            track("reading photos", new.height, quiet=quiet) as advance,
            _committing(writer, new.height),
            closing(read_in_order(new, settings, stored, pool=pool, window=4 * threads)) as readings,
        ):
            for reading in readings:
                _enter(reading, writer, stored, failures)
                advance(1)
    schema = {"path": pl.String, "excluded": pl.String, "detail": pl.String}
    return pl.DataFrame(failures, schema=schema, orient="row")


def _enter(
    reading: Reading, writer: ShardWriter, stored: ContentSet, failures: list[tuple[object, object, object]]
) -> None:
    """Enter one file, in the table's order; so of two copies the first in the table holds the record."""
    row = reading.row
    if "size" not in row:  # could not be opened: tried again next time
        failures.append((row["path"], row["excluded"], row["detail"]))
        return
    digest = str(row.get("content_hash"))
    if "excluded" in row or digest in stored:
        row = {name: row.get(name) for name in ("path", "size", "mtime_ns", "content_hash", "excluded", "detail")}
        is_committed = writer.append(row)
    else:
        stored.add(digest)
        is_committed = writer.append(row, reading.payload)
    if is_committed:
        stored.settle()


@contextmanager
def _committing(writer: ShardWriter, num_new: int) -> Iterator[None]:
    """Commit what was read, also when interrupted; say what is needed where the disk is full."""
    start, directory = (writer.num_files, writer.num_bytes), writer.directory
    try:
        try:
            yield
        except OSError:
            raise
        except BaseException:
            writer.commit()
            raise
        writer.commit()
    except OSError as error:
        done, num_bytes = writer.num_files - start[0], writer.num_bytes - start[1]
        writer.discard()
        if error.errno not in NO_ROOM:
            raise cannot_write(directory, error) from None
        needed = num_bytes / max(done, 1) * (num_new - done)
        raise _no_room(directory, needed, num_left=num_new - done) from None


def _no_room(directory: Path, needed: float, *, num_left: int) -> StoreError:
    free = shutil.disk_usage(directory).free
    expected = f"a folder with about {_space(needed)} free for the {num_left:,} photos still to read"
    remedy = "Pass --store jpeg (about an eighth of the space), or --store-dir on a larger disk. What is stored stays."
    return StoreError(must_be("--store-dir", expected, f"{_space(free)} free in {directory}", remedy))


def _space(num_bytes: float) -> str:
    unit, name = (1e9, "GB") if num_bytes >= 1e9 else (1e6, "MB") if num_bytes >= 1e6 else (1e3, "kB")
    return f"{num_bytes / unit:.1f} {name}"


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- the findings


def _with_findings(table: SampleTable, files: pl.DataFrame, shards: list[Shard]) -> SampleTable:
    """Add to each row what its file turned out to be."""
    keys = ["path", "size", "mtime_ns"]
    rows = read_ledgers(shards, [*keys, "content_hash", "excluded", "detail"]).drop("shard")
    rows = rows.unique(keys, keep="last").rename({"excluded": "found", "detail": "found_detail"})
    records = read_ledgers(shards, ["content_hash", "perceptual_hash", "height", "width", "num_bytes"])
    records = records.filter(pl.col("num_bytes") > 0).drop("num_bytes", "shard").with_row_index("record")
    records = records.unique("content_hash", keep="first")
    known = (
        files.join(rows, on=keys, how="left", maintain_order="left")
        .with_columns(excluded=pl.coalesce("excluded", "found"), detail=pl.coalesce("detail", "found_detail"))
        .join(records, on="content_hash", how="left", maintain_order="left")
    )
    lost = known.filter(pl.col("excluded").is_null() & pl.col("record").is_null())
    if lost.height:
        raise StoreError(
            must_be(f"pixel store record of {lost['path'][0]}", "there", None, "Remove the store's folder.")
        )
    return table.with_frame(_joined(table, known.drop("size", "mtime_ns", "found", "found_detail")))


def _joined(table: SampleTable, known: pl.DataFrame) -> pl.DataFrame:
    later = ["content_hash", "perceptual_hash", "height", "width", "record"]
    found = known.rename({"path": "absolute", "excluded": "found", "detail": "found_detail"})
    frame = table.frame.drop(later, strict=False).with_columns(absolute=table.absolute_paths(table.frame))
    is_read = pl.col("excluded").is_null()
    is_kept = is_read & pl.col("found").is_null()
    return (
        frame.join(found, on="absolute", how="left", maintain_order="left")
        .with_columns(pl.when(is_kept).then(pl.col(name)).otherwise(None).alias(name) for name in later)
        .with_columns(
            excluded=pl.when(is_read).then("found").otherwise("excluded"),
            detail=pl.when(is_read & ~is_kept).then("found_detail").otherwise("detail"),
        )
        .select(*frame.drop("absolute").columns, *later)
    )
