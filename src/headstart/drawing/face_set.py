"""The data set of drawn faces on the disk: pictures and labels in twin trees, as driver-state sets have them.

``DIR/images/<person>/NAME.jpg``, ``DIR/labels/<person>/NAME.json``, and ``DIR/labels.csv`` with who and what is seen.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from headstart.drawing.curves import Points
from headstart.drawing.faces import LEFT_EYE, OUTER_LIP, RIGHT_EYE
from headstart.drawing.moments import FRAME_SIZE, FRAMES_PER_SCENE, SCENES_PER_PERSON, Moment, draw_moment
from headstart.drawing.painting import Picture, paint
from headstart.drawing.people import Person, draw_person, draws_for
from headstart.errors import HeadstartError, all_at_once, must_be
from headstart.files import folder_written_aside
from headstart.progress import track

Damage = Literal["cut off", "one point missing", "a number missing"]
DAMAGES: Final[tuple[Damage, ...]] = ("cut off", "one point missing", "a number missing")
"""What is wrong with the label files that are broken on purpose, one each."""

COLUMNS: Final = ("path", "person", "age", "gender", "mask", "glasses", "cap", "look")
"""Of ``labels.csv``."""

_PER_PERSON = FRAMES_PER_SCENE * SCENES_PER_PERSON
_JPEG_QUALITY = 87
_OPEN_MOUTH = 0.1  # expressions are either below 0.05 or above 0.15
_OPEN_EYE = 0.3  # expressions are either below 0.1 or above 0.45


@dataclass(frozen=True)
class _Shot:
    """Who is on a picture, and when."""

    person: Person
    moment: Moment

    @property
    def folder(self) -> str:
        return f"{self.person.number:03}"

    @property
    def name(self) -> str:
        """Give the file's name without suffix: look, person, age, gender, scene, mask, glasses, cap, frame."""
        scene = self.moment.scene
        worn = f"M{self.moment.has_mask:d}_G{bool(scene.glasses):d}_C{bool(scene.cap):d}"
        letter = "I" if scene.look == "infrared" else "R"
        who = f"{self.folder}_{self.person.age}_{self.person.gender}"
        return f"{letter}_{who}_{scene.number:02}_{worn}_{self.moment.frame:02}"

    @property
    def row(self) -> tuple[object, ...]:
        """Give the picture's row in ``labels.csv``."""
        scene = self.moment.scene
        worn = (int(self.moment.has_mask), int(bool(scene.glasses)), int(bool(scene.cap)))
        path = f"images/{self.folder}/{self.name}.jpg"
        return path, self.folder, self.person.age, self.person.gender, *worn, scene.look


def write_faces(directory: Path, *, count: int = 600, seed: int = 0, with_broken: bool = False) -> int:
    """Write pictures of drawn faces with 70 exact keypoints each, twelve pictures a person.

    Args:
        directory: Made here; must not hold anything yet.
        count: Number of pictures. Those that a smaller and a larger set share are the same.
        seed: Same seed, same files.
        with_broken: Break three label files, each in another way; ``broken_faces`` tells which.

    Returns:
        The number of pictures.

    Raises:
        HeadstartError: The directory holds files already; the count or the seed is out of bounds.
    """
    _check(count, seed, with_broken=with_broken)
    damages = broken_faces(count=count, seed=seed) if with_broken else {}
    with folder_written_aside(directory) as aside, track("drawing faces", count, is_said_after=True) as advance:

        def write(index: int) -> _Shot:
            shot = _shot(seed, index)
            _write_one(aside, shot, damages.get(f"labels/{shot.folder}/{shot.name}.json"))
            advance(1)
            return shot

        pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="draw")
        try:
            shots = list(pool.map(write, range(count)))
        finally:
            pool.shutdown(cancel_futures=True)
        _write_table(aside / "labels.csv", shots)
    return count


def broken_faces(*, count: int, seed: int) -> dict[str, Damage]:
    """Tell which label files ``write_faces(with_broken=True)`` breaks.

    Returns:
        Path in the set, ``labels/…json`` → what is wrong with it.

    Examples:
        >>> sorted(broken_faces(count=30, seed=0).values())
        ['a number missing', 'cut off', 'one point missing']
    """
    chosen = draws_for(seed, kind="broken", numbers=(count,)).choice(count, len(DAMAGES), replace=False)
    shots = [_shot(seed, int(index)) for index in chosen]
    return {f"labels/{shot.folder}/{shot.name}.json": damage for shot, damage in zip(shots, DAMAGES, strict=True)}


def _check(count: int, seed: int, *, with_broken: bool) -> None:
    problems = []
    if count < 1:
        problems.append(must_be("--count", "at least 1", count, "600 is usual."))
    elif with_broken and count < len(DAMAGES):
        problems.append(must_be("--count", f"at least {len(DAMAGES)} with --broken", count, "600 is usual."))
    if seed < 0:
        problems.append(must_be("--seed", "0 or more", seed, "Any whole number gives another set."))
    if problems:
        raise HeadstartError(all_at_once(problems))


def _shot(seed: int, index: int) -> _Shot:
    person = draw_person(seed, 1 + index // _PER_PERSON)
    return _Shot(person, draw_moment(seed, person, index % _PER_PERSON))


def _write_one(root: Path, shot: _Shot, damage: Damage | None) -> None:
    import simplejpeg

    picture = paint(shot.person, shot.moment)
    is_grey = picture.pixels.ndim == 2
    pixels = np.ascontiguousarray(picture.pixels[..., None] if is_grey else picture.pixels)
    kind = {"colorspace": "GRAY", "colorsubsampling": "Gray"} if is_grey else {"colorsubsampling": "420"}
    files = {
        "images": (".jpg", simplejpeg.encode_jpeg(pixels, _JPEG_QUALITY, **kind)),
        "labels": (".json", _damaged(_annotation(shot, picture), damage).encode()),
    }
    for tree, (suffix, content) in files.items():
        folder = root / tree / shot.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{shot.name}{suffix}").write_bytes(content)


def _annotation(shot: _Shot, picture: Picture) -> dict[str, Any]:
    """Give a picture's labels. The person's left eye is the one at the right of the picture."""
    points, expression = picture.points, shot.moment.expression
    height, width = FRAME_SIZE
    left = {"Opened": expression.right_eye > _OPEN_EYE, "Position": _box(points[RIGHT_EYE], margin=0.25)}
    right = {"Opened": expression.left_eye > _OPEN_EYE, "Position": _box(points[LEFT_EYE], margin=0.25)}
    mouth = {"Opened": expression.mouth > _OPEN_MOUTH, "Position": _box(points[OUTER_LIP], margin=0.1)}
    return {
        "FileInfo": {"FileName": f"{shot.name}.jpg", "Width": width, "Height": height},
        "ObjectInfo": {
            "KeyPoints": {"Count": len(points), "Points": [f"{number:.2f}" for number in points.ravel()]},
            "BoundingBox": {
                "Face": {"isVisible": True, "Position": _box(picture.outline, margin=0)},
                "Leye": {"isVisible": True, **left},
                "Reye": {"isVisible": True, **right},
                "Mouth": {"isVisible": not shot.moment.has_mask, **mouth},
            },
        },
    }


def _box(points: Points, *, margin: float) -> list[float]:
    """Give x1, y1, x2, y2 around points, wider by a share of the width, inside of the picture."""
    low, high = points.min(axis=0), points.max(axis=0)
    more = margin * (high[0] - low[0])
    size = np.array(FRAME_SIZE[::-1])
    corners = np.concatenate([np.clip(low - more, 0, size), np.clip(high + more, 0, size)])
    return [round(float(number), 2) for number in corners]


def _damaged(annotation: dict[str, Any], damage: Damage | None) -> str:
    """Give the labels as JSON, broken as asked."""
    numbers = annotation["ObjectInfo"]["KeyPoints"]["Points"]
    if damage == "one point missing":
        del numbers[-2:]
    if damage == "a number missing":
        numbers[41], numbers[90] = "", "NaN"
    text = json.dumps(annotation, indent=1)
    return text[: len(text) // 2] if damage == "cut off" else text


def _write_table(path: Path, shots: Sequence[_Shot]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(shot.row for shot in shots)
