"""A .zip, .tar, .tar.gz of photos → a folder, unpacked so that it cannot harm.

Each member is checked before it is written: it must be a plain file or folder, inside, not encrypted, not named twice,
and the total is counted while writing, whatever the headers say. Unpacking happens aside and is renamed at the end, so
a folder that is there is whole; it is reused while the archive's size and time of change stay the same.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

from filelock import FileLock

from headstart.data.folders import is_system_name
from headstart.data.label_files import is_label_file
from headstart.errors import SourceError, must_be
from headstart.progress import track

SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CHUNK: Final = 1 << 20
_MB: Final = 1_000_000
BROKEN: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # a compression method that zipfile does not know
)
"""What Python raises where an archive is damaged."""


@dataclass(frozen=True)
class Unpacked:
    """Where an archive's contents lie, and what was noticed.

    Attributes:
        folder: The unpacked folder; inside the top folder where the archive has only one.
        root: Where the paths of the archive's members start from.
        notes: A sentence each, for the user.
    """

    folder: Path
    root: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Member:
    """One entry of an archive: its name as text, what it is, and how to open it."""

    name: str
    kind: str  # "file", "folder", or why it is refused
    open: Callable[[], IO[bytes] | None]
    position: int  # bytes of the archive read so far


def is_archive(path: Path) -> bool:
    """Say whether a file is named like an archive.

    Examples:
        >>> is_archive(Path("photos.tar.GZ")), is_archive(Path("photos.csv"))
        (True, False)
    """
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, unpack_dir: Path, *, max_bytes: int) -> Unpacked:
    """Unpack an archive below ``unpack_dir``, or find it unpacked there already.

    Args:
        archive: The .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz file.
        unpack_dir: The folder to unpack below; made where it is missing.
        max_bytes: Largest total size of the contents, counted as they are written.

    Returns:
        The folder with the contents.

    Raises:
        SourceError: The archive is damaged, too large, or holds something that must not be written.
    """
    unpack_dir.mkdir(parents=True, exist_ok=True)
    status = archive.stat()
    name = f"{_stem(archive)}-{_digest(str(archive))}"
    target = unpack_dir / f"{name}-{_digest(f'{status.st_size} {status.st_mtime_ns}')}"
    with FileLock(unpack_dir / f".{name}.lock"):
        if target.is_dir():
            return Unpacked(descend(target), target, (f"{archive.name} was unpacked before; its files were reused.",))
        _remove(unpack_dir.glob(f".{name}.partial-*"))
        notes = _unpack_aside(archive, target, max_bytes, f".{name}.partial-")
        _remove(folder for folder in unpack_dir.glob(f"{name}-*") if folder != target)
    return Unpacked(descend(target), target, notes)


def list_members(archive: Path, *, max_bytes: int) -> list[str]:
    """Name the plain files of an archive, as far as that takes no more than so many of its bytes; cheap for a zip.

    Examples:
        >>> with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(Path(place, "a.zip"), "w") as written:
        ...     written.writestr("photos/1.jpg", b"")
        ...     written.close()
        ...     list_members(Path(place, "a.zip"), max_bytes=1000)
        ['photos/1.jpg']
    """
    is_zip = archive.name.lower().endswith(".zip")
    names: list[str] = []
    with _members(archive, set()) as members:
        for member in members:
            if member.position > max_bytes and not is_zip:
                break
            names += [_tidy(member.name)] if member.kind == "file" else []
    return names


def _tidy(name: str) -> str:
    """Give a member's name with plain slashes, and without the "./" that tars begin with."""
    return name.replace("\\", "/").removeprefix("./")


def copy_members(archive: Path, names: Collection[str], folder: Path, *, max_bytes: int) -> dict[str, Path]:
    """Copy some members of an archive, to look at them, into a folder under names of our own.

    Args:
        archive: The archive.
        names: Members, as ``list_members`` gives them.
        folder: Where to write.
        max_bytes: Largest total size; what is beyond it is not copied.

    Returns:
        Where each member lies that was found.
    """
    found: dict[str, Path] = {}
    with _members(archive, set()) as members:
        for member in members:
            name = _tidy(member.name)
            if name in names and name not in found and member.kind == "file":
                found[name] = folder / f"{len(found)}{Path(name).suffix}"
                with _opened(member, name) as source:
                    data = source.read(max_bytes)
                found[name].write_bytes(data)
                max_bytes -= len(data)
            if len(found) == len(names) or max_bytes <= 0:
                break
    return found


def descend(folder: Path) -> Path:
    """Go into a single top folder, and on, while nothing but one folder of folders (or with a table) lies there.

    Examples:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     (Path(place) / "photos" / "cat").mkdir(parents=True)
        ...     descend(Path(place)).name
        'photos'
    """
    while True:
        visible = [entry for entry in folder.iterdir() if not is_system_name(entry.name)]
        if len(visible) != 1 or not visible[0].is_dir():
            return folder
        inside = [entry for entry in visible[0].iterdir() if not is_system_name(entry.name)]
        if not any(entry.is_dir() or is_label_file(entry) for entry in inside):
            return folder
        folder = visible[0]


def _stem(archive: Path) -> str:
    suffix = max((end for end in SUFFIXES if archive.name.lower().endswith(end)), key=len)
    return re.sub(r"[^\w.-]", "_", archive.name[: -len(suffix)])[:40] or "archive"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _remove(folders: Iterator[Path]) -> None:
    for folder in list(folders):
        shutil.rmtree(folder)


def _unpack_aside(archive: Path, target: Path, max_bytes: int, prefix: str) -> tuple[str, ...]:
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        notes = _write_members(archive, aside, max_bytes)
        aside.chmod(0o755)
        aside.rename(target)
    except BROKEN as error:
        raise SourceError(_word_broken(archive, error)) from None
    except OSError as error:
        if error.errno is None:  # how bz2 says that its data is damaged
            raise SourceError(_word_broken(archive, error)) from None
        remedy = "Free some space, or unpack it by hand and give the folder."
        raise SourceError(must_be(str(archive), "an archive that can be unpacked", str(error), remedy)) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return notes


def _word_broken(archive: Path, error: Exception) -> str:
    return must_be(str(archive), "a whole archive", f"{type(error).__name__}: {error}", "Download or make it again.")


def _write_members(archive: Path, aside: Path, max_bytes: int) -> tuple[str, ...]:
    encodings: set[str] = set()
    left = max_bytes
    total_mb = max(1, archive.stat().st_size // _MB)
    with _members(archive, encodings) as members, track(f"unpacking {archive.name}", total_mb, unit="MB") as advance:
        done_mb = 0
        for member in members:
            left -= _write(member, archive, aside, left, max_bytes)
            advance(member.position // _MB - done_mb)
            done_mb = member.position // _MB
    unusual = encodings - {"utf-8"}
    return tuple(f"Names in {archive.name} are in {encoding}, not UTF-8." for encoding in sorted(unusual))


def _write(member: _Member, archive: Path, aside: Path, left: int, max_bytes: int) -> int:
    """Write one member; give the number of its bytes."""
    place = f"{archive} member {member.name!r}"
    path = aside.joinpath(*_safe_parts(member.name, place))
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return 0
    if member.kind != "file":
        raise SourceError(must_be(place, "a plain file or folder", member.kind, "Make the archive without it."))
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with _opened(member, place) as source, path.open("xb") as sink:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if written > left:
                    raise SourceError(_word_too_large(archive, max_bytes))
                sink.write(chunk)
    except FileExistsError:
        raise SourceError(
            must_be(place, "named once", "a second member of that name", "Make the archive anew.")
        ) from None
    return written


def _opened(member: _Member, place: str) -> IO[bytes]:
    source = member.open()
    if source is None:
        raise SourceError(must_be(place, "a file with contents", member.kind, "Make the archive without it."))
    return source


def _word_too_large(archive: Path, max_bytes: int) -> str:
    limit = f"{max_bytes / 1e9:g} GB"
    return must_be(
        str(archive), f"at most {limit} unpacked", f"more than {limit}", "Raise --max-archive-gb if it is meant."
    )


def _safe_parts(name: str, place: str) -> list[str]:
    """Split a member's name into folders and file, and refuse one that could leave the folder."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or re.match(r"^[A-Za-z]:", plain) or ".." in parts or "\0" in plain:
        remedy = "Do not trust this archive; it would write elsewhere."
        raise SourceError(must_be(place, "a path inside the archive", name, remedy))
    return parts


@contextmanager
def _members(archive: Path, encodings: set[str]) -> Iterator[Iterator[_Member]]:
    """Give an archive's members one by one, of either kind; encodings of their names are added as they are found."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(opened, encodings)
        return
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as opened:
        yield _tar_members(opened, raw, encodings)


def _zip_members(opened: zipfile.ZipFile, encodings: set[str]) -> Iterator[_Member]:
    infos = opened.infolist()
    encoding = _names_encoding([raw for raw in map(_raw_name, infos) if raw is not None])
    encodings.add(encoding)
    position = 0
    for info in infos:
        position += info.compress_size
        raw = _raw_name(info)
        name = info.filename if raw is None else raw.decode(encoding)
        yield _Member(name, _zip_kind(info), partial(opened.open, info), position)


def _raw_name(info: zipfile.ZipInfo) -> bytes | None:
    """Give the bytes of a name whose encoding the zip does not state; None where it does."""
    if info.flag_bits & 0x800:
        return None
    try:
        return info.filename.encode("cp437")
    except UnicodeEncodeError:  # the name came from the Unicode extra field
        return None


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x1:
        return "an encrypted file"
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link" if stat.S_ISLNK(mode) else "a device or pipe"
    return "folder" if info.is_dir() or info.filename.endswith("\\") else "file"


def _tar_members(opened: tarfile.TarFile, raw: IO[bytes], encodings: set[str]) -> Iterator[_Member]:
    while (info := opened.next()) is not None:
        name, encoding = _tar_name(info.name)
        encodings.add(encoding)
        yield _Member(name, _tar_kind(info), partial(opened.extractfile, info), raw.tell())
        opened.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - else 2,000,000 headers stay in memory


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isreg():
        return "file"
    if info.isdir():
        return "folder"
    return "a link" if info.issym() or info.islnk() else "a device or pipe"


def _tar_name(name: str) -> tuple[str, str]:
    raw = os.fsencode(name)
    encoding = _names_encoding([raw])
    return raw.decode(encoding), encoding


def _names_encoding(names: list[bytes]) -> str:
    r"""Give the first encoding that all names can be read in: old zips carry none, and Korean Windows writes cp949.

    Examples:
        >>> _names_encoding(["고양이.jpg".encode("cp949")]), _names_encoding([b"\x82.jpg"])
        ('cp949', 'cp437')
    """
    for encoding in ("utf-8", "cp949"):
        if all(_can_decode(name, encoding) for name in names):
            return encoding
    return "cp437"


def _can_decode(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
