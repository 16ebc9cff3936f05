"""One file, as the pass over the files meets it: what the system says of it, its bytes, its hashes, its pixels.

Runs in threads; ``store.py`` takes the results in the table's order. Files are opened for reading only.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import polars as pl
import simplejpeg
from numpy.typing import NDArray

from headstart.data.decoding import decode
from headstart.data.fallback import check_signature
from headstart.data.hashing import content_hash, perceptual_hash
from headstart.data.headers import DecodeFailure
from headstart.data.records import Encoding, StoreSettings
from headstart.data.shards import ContentSet

if TYPE_CHECKING:
    from headstart.data.table import Exclusion

_STAT_BLOCK: Final = 1024
_LARGE_FILE: Final = 64 * 2**20
"""Files larger than this are looked into before they are read: a film among the photos need not fill the memory."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a thread found in one file: its ledger row, and the record's bytes if it has any.

    A row without ``size`` is of a file that could not be read this time; the next run tries again.
    """

    row: dict[str, object]
    payload: NDArray[np.uint8] | bytes = b""


def look_at_files(paths: pl.Series, pool: ThreadPoolExecutor) -> pl.DataFrame:
    """Ask the system for size and time of every file in use: ``path, size, mtime_ns, excluded, detail``, in order."""
    blocks = [paths[start : start + _STAT_BLOCK] for start in range(0, len(paths), _STAT_BLOCK)]
    schema = {"path": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "excluded": pl.String, "detail": pl.String}
    frames = [pl.DataFrame(rows, schema=schema, orient="row") for rows in pool.map(_stat_block, blocks)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def _stat_block(paths: pl.Series) -> list[tuple[str, int | None, int | None, str | None, str | None]]:
    return [(path, *_stat(path)) for path in paths.to_list()]


def _stat(path: str) -> tuple[int | None, int | None, Exclusion | None, str | None]:
    try:
        found = os.stat(path)  # noqa: PTH116  (2,000,000 Path objects would take seconds)
    except (FileNotFoundError, NotADirectoryError):
        return None, None, "missing", _missing_detail(path)
    except (OSError, ValueError) as error:
        return None, None, "unreadable", str(error)
    if not stat.S_ISREG(found.st_mode):
        return None, None, "unreadable", "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
    if found.st_size == 0:
        return None, None, "empty", "the file has no bytes"
    return found.st_size, found.st_mtime_ns, None, None


def _missing_detail(path: str) -> str:
    link = Path(path)
    return f"a link to {link.readlink()}, which does not exist" if link.is_symlink() else "no such file"


def read_in_order(
    new: pl.DataFrame, settings: StoreSettings, stored: ContentSet, *, pool: ThreadPoolExecutor, window: int
) -> Generator[Reading]:
    """Read files in threads and give them in the table's order; at most ``window`` photos are in memory."""
    waiting: deque[Future[Reading]] = deque()
    try:
        for path, size, mtime_ns in new.select("path", "size", "mtime_ns").iter_rows(buffer_size=4096):
            waiting.append(pool.submit(_read, path, size, mtime_ns, settings, stored))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(path: str, size: int, mtime_ns: int, settings: StoreSettings, stored: ContentSet) -> Reading:
    """Read, hash and decode one file. Runs in a thread."""
    row: dict[str, object] = {"path": path, "size": size, "mtime_ns": mtime_ns}
    try:
        with Path(path).open("rb", buffering=0) as file:
            if size > _LARGE_FILE:
                check_signature(file.read(64))
                file.seek(0)
            data = file.readall()
        row["content_hash"] = digest = content_hash(data)
        if digest in stored:
            return Reading(row)
        image = decode(data, cover=settings.cover, max_pixels=settings.max_pixels)
    except DecodeFailure as failure:
        return Reading(row | {"excluded": failure.reason, "detail": failure.detail})
    except FileNotFoundError:
        return Reading({"path": path, "excluded": "missing", "detail": "it was removed meanwhile"})
    except OSError as error:
        return Reading({"path": path, "excluded": "unreadable", "detail": error.strerror or str(error)})
    except (MemoryError, cv2.error):
        return Reading({"path": path, "excluded": "decoder error", "detail": "not enough memory to decode it"})
    row["perceptual_hash"] = perceptual_hash(image.pixels)
    row["height"], row["width"] = image.original_size
    row["stored_height"], row["stored_width"] = image.pixels.shape[:2]
    row["scale_y"], row["scale_x"] = image.scale
    return Reading(row, _encoded(image.pixels, settings.encoding))


def _encoded(pixels: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.uint8] | bytes:
    if encoding == "raw":
        return pixels.reshape(-1)
    return simplejpeg.encode_jpeg(pixels, quality=95, colorspace="RGB", colorsubsampling="444")


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own inside ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
