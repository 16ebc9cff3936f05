"""``predict --draw``: photos with the points drawn on them, in a folder that holds nothing else.

Each drawing carries a comment that says so. A prediction that broke off can therefore be run again into the same
folder: drawings are replaced, and nothing that is not one is ever written over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from headstart.data.decoding import CoverRule, decode
from headstart.data.folders import is_system_name
from headstart.deploy.point_drawing import draw_points
from headstart.errors import RunError, must_be

if TYPE_CHECKING:
    from headstart.deploy.keypoint_predictor import KeypointPrediction

_QUALITY: Final = 92  # of the drawn JPEGs
_LARGEST: Final = CoverRule((4096, 4096), "crop")
_TEXT: Final = b"headstart: points drawn on a copy of a photo"
_COMMENT: Final = b"\xff\xfe" + (len(_TEXT) + 2).to_bytes(2, "big") + _TEXT  # a JPEG segment that decoders pass over
_HEAD: Final = 256  # bytes of a drawing within which the comment ends


def check_drawing_folder(folder: Path, paths: Sequence[str]) -> str:
    """See that drawings can be written: into a new or empty folder, or one that holds earlier drawings alone.

    Args:
        folder: What ``--draw`` names.
        paths: The photos that will be drawn on.

    Returns:
        A sentence on drawings that are there already; empty where there are none.

    Raises:
        RunError: The folder holds something else, or the photos lie in it.
    """
    expected = "a new or empty folder, or one that holds nothing but drawings of an earlier --draw"
    if not folder.exists():
        return ""
    if not folder.is_dir():
        raise RunError(must_be("--draw", expected, str(folder), "It is a file. Name a folder."))
    held = [entry for entry in folder.iterdir() if not is_system_name(entry.name) or entry.suffix == ".jpg"]
    foreign = sorted(entry.name for entry in held if not is_drawing(entry))
    if foreign:
        remedy = f"It holds {foreign[0]!r}, which is no drawing. Name another one."
        raise RunError(must_be("--draw", expected, str(folder), remedy))
    whole = folder.resolve()
    if any(Path(path).resolve().parent == whole for path in paths):
        remedy = "The photos lie in it and would be drawn over. Name another one."
        raise RunError(must_be("--draw", "another folder than the photos'", str(folder), remedy))
    if not held:
        return ""
    num_others = len({entry.name for entry in held} - set(drawn_names(paths)))
    others = f"; {num_others:,} of other photos stay as they are" if num_others else ""
    return f"{folder} holds {len(held):,} earlier drawings: those of the same photos are replaced{others}."


def is_drawing(path: Path) -> bool:
    """Say whether ``write_drawing`` wrote a file, or was about to: one that is empty holds nothing to lose."""
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return not head or _COMMENT in head


def drawn_names(paths: Sequence[str]) -> Iterator[str]:
    """Give each photo's drawing a name: its own where no other has the same, else with a number.

    Examples:
        >>> list(drawn_names(["a/1.jpg", "b/1.png", "c/2.bmp"]))
        ['1.jpg', '1-2.jpg', '2.jpg']
    """
    used: set[str] = set()
    for path in paths:
        stem = Path(path).stem
        numbered = (f"{stem}-{number}.jpg" for number in count(2))
        name = next(name for name in chain([f"{stem}.jpg"], numbered) if name not in used)
        used.add(name)
        yield name


def write_drawing(row: KeypointPrediction, place: Path) -> None:
    """Write the upright photo with its points; a photo that has none is not drawn."""
    if row.points is None or row.path is None:
        return
    photo = decode(Path(row.path).read_bytes(), cover=_LARGEST, max_pixels=2**31)
    scale = np.array(photo.scale[::-1])
    drawn = draw_points(photo.pixels, row.points * scale)
    place.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(drawn[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    place.write_bytes(_marked(encoded.tobytes()))


def _marked(jpeg: bytes) -> bytes:
    """Put the comment behind a JPEG's first segment, which must stay the first."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:end] + _COMMENT + jpeg[end:]
