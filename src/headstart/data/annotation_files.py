"""Finding annotation files and pairing annotations with photos: by place, by the name they state, by their own name.

Of several photos that fit, the one whose folders agree most with the annotation's is taken, so that twin trees
(``images/a/1.jpg``, ``labels/a/1.json``) pair within one folder too; where two agree alike, none is taken.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headstart.data.annotations import Annotation, BadAnnotation

_THREADS: Final = 8
_WINDOW: Final = 2048  # files that are read ahead
_BLOCK: Final = 16  # files that a thread reads at a time; a divisor of the window


def read_files(paths: Sequence[Path]) -> Iterator[bytes | BadAnnotation]:
    """Read files in threads, a window ahead; give their bytes in order, or what is wrong with one."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), _WINDOW):
            blocks = [paths[first : first + _BLOCK] for first in range(start, min(start + _WINDOW, len(paths)), _BLOCK)]
            for block in pool.map(_read_block, blocks):
                yield from block


def _read_block(paths: Sequence[Path]) -> list[bytes | BadAnnotation]:
    return [_read(path) for path in paths]


def _read(path: Path) -> bytes | BadAnnotation:
    try:
        return path.read_bytes()
    except OSError as error:
        return BadAnnotation(f"cannot be read: {error.strerror}")


def without_suffix(path: str) -> str:
    """Give a path without what follows its last dot.

    Examples:
        >>> without_suffix("a.b/1.tar.jpg"), without_suffix("a.b/1")
        ('a.b/1.tar', 'a.b/1')
    """
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


@dataclass(frozen=True)
class Match:
    """The photo of an annotation.

    Attributes:
        photo: Its number; None where there is none.
        how: What paired them.
        rivals: Photos that fit alike, of which none was taken.
    """

    photo: int | None
    how: str = ""
    rivals: tuple[str, ...] = ()


class PhotoNames:
    """The photos of a folder, by every name under which an annotation may mean them.

    Args:
        paths: Relative to the folder, with forward slashes.

    Examples:
        >>> photos = PhotoNames(["a/1.jpg", "b/1.jpg", "b/2.jpg"])
        >>> photos.match(Annotation("labels/b/1.json", stem="labels/b/1")).photo
        1
        >>> photos.match(Annotation("1.json", stem="1")).rivals
        ('a/1.jpg', 'b/1.jpg')
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        self._keys = [unicodedata.normalize("NFC", path) for path in paths]
        self._by_path: dict[str, list[int]] = {}
        self._by_place: dict[str, list[int]] = {}
        self._by_name: dict[str, list[int]] = {}
        self._by_stem: dict[str, list[int]] = {}
        for number, key in enumerate(self._keys):
            name = key.rpartition("/")[2]
            self._by_path.setdefault(key, []).append(number)
            self._by_place.setdefault(without_suffix(key), []).append(number)
            self._by_name.setdefault(name, []).append(number)
            self._by_stem.setdefault(without_suffix(name), []).append(number)

    def __contains__(self, name: str) -> bool:
        """Say whether some photo is called so, with or without suffix."""
        name = _tidy(name).rpartition("/")[2]
        return name in self._by_name or name in self._by_stem

    def match(self, annotation: Annotation) -> Match:
        """Find the photo of an annotation."""
        stem, stated = unicodedata.normalize("NFC", annotation.stem), _tidy(annotation.photo)
        place = self._by_place.get(stem, []) if stem else []
        named = self._named(stated)
        if len(place) > 1:
            place = [number for number in place if number in named] or place
        tries = (("place", place, stem), ("stated name", named, stated if "/" in stated else stem))
        own_name = self._by_stem.get(stem.rpartition("/")[2], []) if stem else []
        rivals: list[int] = []
        for how, numbers, near in (*tries, ("own name", own_name, stem)):
            nearest = self._nearest(numbers, near)
            if len(nearest) == 1:
                return Match(nearest[0], how)
            rivals = rivals or nearest
        return Match(None, rivals=tuple(self.paths[number] for number in rivals))

    def in_one_folder(self, wanted: Sequence[str]) -> dict[str, str] | None:
        """Give where paths lie, if there is just one folder below which all stand as they are written.

        Examples:
            >>> PhotoNames(["test/1.jpg", "train/1.jpg", "train/2.jpg"]).in_one_folder(["1.jpg", "2.jpg"])
            {'1.jpg': 'train/1.jpg', '2.jpg': 'train/2.jpg'}
        """
        found: dict[str, dict[str, str]] = {}
        for path in wanted:
            end = _tidy(path)
            for number in self._by_name.get(end.rpartition("/")[2], []):
                if self._keys[number].endswith(f"/{end}"):
                    found.setdefault(self._keys[number][: -len(end)], {})[path] = self.paths[number]
        whole = [places for places in found.values() if len(places) == len(wanted)]
        return whole[0] if len(whole) == 1 else None

    def states_another(self, annotation: Annotation, photo: int) -> bool:
        """Say whether an annotation's text names a photo that is here, and another than its place does."""
        named = self._named(_tidy(annotation.photo))
        return bool(named) and photo not in named

    def _named(self, stated: str) -> list[int]:
        if not stated:
            return []
        name = stated.rpartition("/")[2]
        return self._by_path.get(stated) or self._by_name.get(name) or self._by_stem.get(name, [])

    def _nearest(self, numbers: list[int], near: str) -> list[int]:
        """Keep those whose folders agree most, from the file upwards."""
        if len(numbers) < 2:
            return numbers
        folders = near.split("/")[-2::-1]
        agreement = [_num_common(self._keys[number].split("/")[-2::-1], folders) for number in numbers]
        most = max(agreement)
        return [number for number, agrees in zip(numbers, agreement, strict=True) if agrees == most]


def _num_common(one: Sequence[str], other: Sequence[str]) -> int:
    agree = [left == right for left, right in zip(one, other, strict=False)]
    return agree.index(False) if False in agree else len(agree)


def _tidy(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))
