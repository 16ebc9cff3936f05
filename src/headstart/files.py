"""Writing files so that a crash leaves the old one or the new one, never half of either; and where caches lie."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, must_be


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving without an error it is synced and renamed to ``path``.

    Args:
        path: The file to write or replace. Its folder is made.

    Yields:
        Where to write. On an error it is removed and ``path`` stays as it was.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "scores.txt"
        >>> with written_aside(target) as aside:
        ...     _ = aside.write_text("0.98")
        >>> target.read_text()
        '0.98'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield aside
        _sync(aside)
        os.replace(aside, path)  # noqa: PTH105 - the atomic call, by its own name
        sync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(directory: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``directory``; on leaving without an error it is renamed to ``directory``.

    Half a data set would pass for one, so it stands under its name only when whole.

    Args:
        directory: A new or empty folder.

    Yields:
        Where to write. On an error it is removed and ``directory`` stays as it was.

    Raises:
        HeadstartError: The directory holds something, or is a file.
    """
    if (directory.exists() and not directory.is_dir()) or (directory.is_dir() and any(directory.iterdir())):
        raise HeadstartError(must_be("DIR", "a new or empty folder", str(directory), "Name another one."))
    whole = directory.absolute()
    aside = whole.with_name(f".{whole.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)  # what a killed run left
    aside.mkdir(parents=True)
    try:
        yield aside
        if directory.exists():
            directory.rmdir()
        aside.rename(whole)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def link_aside(source: Path, target: Path) -> None:
    """Give a file a second name, in place of what had it; a copy where the system has no links."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    try:
        aside.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, aside)
        _sync(aside)
    os.replace(aside, target)  # noqa: PTH105 - the atomic call, by its own name
    sync_directory(target.parent)


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people and tools: indented, any script as it is, in one atomic step."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk cannot: no space is taken twice.

    For files that are only ever replaced, never written into: as ``written_aside`` does it.
    """
    with written_aside(target) as aside:
        try:
            os.link(source, aside)
        except OSError:
            shutil.copyfile(source, aside)


def cache_folder() -> Path:
    """Give where lies what can be made again: the environment variable HEADSTART_CACHE, else ``~/.cache/headstart``."""
    return Path(os.environ.get("HEADSTART_CACHE") or "~/.cache/headstart").expanduser()


def sync_directory(directory: Path) -> None:
    """Make renames in a folder permanent (where the system can open folders)."""
    if os.name == "posix":
        _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
