"""Whether data has points, told by a look: a table's header, or a few annotations beside the photos.

Cheap and never an error: what is wrong with the data is said when it is read (``keypoint_sources.py``). Folders and
archives are looked at alike, as a list of names of which a few are opened.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath
from typing import Final

from headstart.data.annotation_json import parse_json
from headstart.data.annotations import BadAnnotation
from headstart.data.archives import BROKEN, copy_members, list_members
from headstart.data.folders import IMAGE_SUFFIXES, is_system_name
from headstart.data.label_files import is_label_file, open_label_file
from headstart.data.places import archive_of
from headstart.data.points_tables import points_in_header
from headstart.errors import SourceError

ANNOTATION_SUFFIXES: Final = (".json", ".pts")
"""What files beside photos are called that hold their points."""

_MAX_NAMES: Final = 100_000  # files of a folder whose names are looked at
_MAX_LISTED: Final = 2**28  # bytes of a packed archive that are read for the names in it
_MAX_COPIED: Final = 2**29  # bytes of an archive's members that are looked at
_MAX_OPENED: Final = 20
_HEAD_BYTES: Final = 2**16
_POINTS_KEY: Final = re.compile(rb'(?i)"[^"]{0,40}(key_?points?|land_?marks?|points)"\s*:')
_NUM_EXAMPLES: Final = 3


@dataclass(frozen=True)
class _Files:
    """Files that are known by name.

    Attributes:
        annotations: Names of JSON and .pts files, and of tables at the top.
        images: Names of images without folder and suffix.
    """

    annotations: tuple[str, ...]
    images: frozenset[str]

    @classmethod
    def of(cls, names: Sequence[str], *, is_archive: bool = False) -> _Files:
        depth = _depth_of_top(names) if is_archive else 0
        images: set[str] = set()
        found: list[str] = []
        for name in names:
            stem, _, suffix = name.rpartition("/")[2].rpartition(".")
            suffix = suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                images.add(stem)
            elif f".{suffix}" in ANNOTATION_SUFFIXES or (name.count("/") == depth and is_label_file(Path(name))):
                found.append(name)
        return cls(tuple(sorted(found, key=lambda name: (name.count("/"), name))), frozenset(images))

    @property
    def is_beside_images(self) -> bool:
        """Whether most images have a JSON of their own name."""
        names = {PurePosixPath(name).stem for name in self.annotations if name.lower().endswith(".json")}
        return bool(self.images) and 2 * len(names & self.images) >= len(self.images)


def looks_like_keypoints(data: Path) -> bool:
    r"""Guess whether data has points, by a table's header or by some annotations beside photos.

    Args:
        data: A table, a JSON, a folder, an archive of these, or a part of one (``faces.zip/images``).

    Examples:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = (Path(place) / "points.csv").write_text("path,x1,y1,x2,y2,x3,y3\n1.jpg,1,2,3,4,5,6\n")
        ...     looks_like_keypoints(Path(place) / "points.csv"), looks_like_keypoints(Path(place))
        (True, True)
    """
    if data.is_dir():
        files = _Files.of(list(islice(_names_in(data), _MAX_NAMES)))
        return _have_points(files, lambda name: data / name)
    archive = archive_of(data)
    if archive is not None:
        return _archive_has_points(archive, data.expanduser().absolute().relative_to(archive).as_posix())
    if is_label_file(data):
        return num_points(data) > 0
    return data.suffix.lower() == ".json" and _json_has_points(data)


def num_points(table: Path, *, is_known: bool = False) -> int:
    """Say how many points a table's header names, 0 where it cannot be read; see ``points_in_header``."""
    try:
        return points_in_header(open_label_file(table).head.columns, is_known=is_known)
    except SourceError:
        return 0


def word_annotations(folder: Path, names: Sequence[str]) -> str:
    """Say that a folder which was taken for class folders holds annotations, and what is wrong with them.

    Args:
        folder: The folder.
        names: Its files, relative to it.

    Returns:
        The whole message; empty where there are no annotations, or some that say nothing of points.
    """
    files = [name for name in names if name.lower().endswith(ANNOTATION_SUFFIXES)]
    if not files:
        return ""
    if looks_like_keypoints(folder):
        expected = "a folder with one folder of images per class"
        return f"{folder} must be {expected}; got photos with annotations of points. Say --task keypoints."
    reasons = list(takewhile(bool, (_what_is_broken(folder / name, name) for name in files)))
    return word_broken(str(folder), reasons) if len(reasons) == len(files) else ""


def word_broken(place: str, reasons: Sequence[str]) -> str:
    """Say that all annotation files of a place are broken, with the first reasons.

    Examples:
        >>> word_broken("labels", ["1.json is empty", "2.json is empty"])
        'labels must be annotations that can be read; got 2 annotation files, all broken: 1.json is empty; 2.json is ...
    """
    files = "1 annotation file, broken" if len(reasons) == 1 else f"{len(reasons):,} annotation files, all broken"
    more = f"; and {len(reasons) - _NUM_EXAMPLES:,} more" if len(reasons) > _NUM_EXAMPLES else ""
    got = f"{files}: {'; '.join(reasons[:_NUM_EXAMPLES])}{more}"
    return f"{place} must be annotations that can be read; got {got}. Mend them, or export them anew."


def _what_is_broken(path: Path, name: str) -> str:
    """Say why a JSON cannot be read; empty where it can. A .pts file is text, whose errors its reader words."""
    if path.suffix.lower() != ".json":
        return ""
    try:
        parse_json(path.read_bytes())
    except BadAnnotation as problem:
        return f"{name} {problem}"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return ""


def _have_points(files: _Files, fetch: Callable[[str], Path]) -> bool:
    """Open the first annotations; where all are broken that lie beside the photos, their points were meant to be."""
    chosen = files.annotations[:_MAX_OPENED]
    if any(_file_has_points(fetch(name), PurePosixPath(name).stem, files.images) for name in chosen):
        return True
    own = [name for name in chosen if name.lower().endswith(".json")]
    return files.is_beside_images and bool(own) and all(_what_is_broken(fetch(name), name) for name in own)


def _archive_has_points(archive: Path, part: str) -> bool:
    try:
        names = [name for name in list_members(archive, max_bytes=_MAX_LISTED) if not _is_system_path(name)]
        names = [name for name in names if part == "." or PurePosixPath(name).is_relative_to(part)]
        files = _Files.of(names, is_archive=True)
        with tempfile.TemporaryDirectory(prefix="headstart-") as place:
            chosen = files.annotations[:_MAX_OPENED]
            copied = copy_members(archive, chosen, Path(place), max_bytes=_MAX_COPIED)
            return _have_points(files, lambda name: copied.get(name, Path(place) / "none"))
    except (*BROKEN, OSError, SourceError):  # said when it is unpacked
        return False


def _is_system_path(name: str) -> bool:
    return any(is_system_name(part) for part in name.split("/") if part not in ("", "."))


def _depth_of_top(names: Sequence[str]) -> int:
    """Give in how many folders a file at the top lies: in those around everything."""
    folders = [name.split("/")[:-1] for name in names]
    ends = zip(min(folders), max(folders), strict=False) if folders else ()
    return len(list(takewhile(lambda pair: pair[0] == pair[1], ends)))


def _names_in(folder: Path) -> Iterator[str]:
    """Give the files below a folder, those at the top first."""
    waiting: deque[tuple[Path, str]] = deque([(folder, "")])
    while waiting:
        here, prefix = waiting.popleft()
        for name, is_folder in _entries(here):
            if is_folder:
                waiting.append((here / name, f"{prefix}{name}/"))
            else:
                yield prefix + name


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Give the entries of a folder, and which of them are folders to go into."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        return []
    return sorted(pair for pair in found if not is_system_name(pair[0]))


def _file_has_points(path: Path, stem: str, images: frozenset[str]) -> bool:
    if is_label_file(path):
        return num_points(path) > 0
    if path.suffix.lower() == ".pts":
        return stem in images
    return _json_has_points(path)


def _json_has_points(path: Path) -> bool:
    """Look for a key that is called points at both ends of a JSON, which may be large."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, 2)
            file.seek(max(0, size - _HEAD_BYTES))
            tail = file.read()
    except OSError:
        return False
    return bool(_POINTS_KEY.search(head) or _POINTS_KEY.search(tail))
