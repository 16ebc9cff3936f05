"""Small pictures inside a page: pixels → JPEG → a data address, so that the page stays one file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError, must_be

LONGEST_SIDE = 160
"""Pixels: large enough to see what it is, small enough (about 6 kB) for a hundred on a page."""


@dataclass(frozen=True)
class Thumbnail:
    """An image as a page holds it: its data address and its size in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(image: NDArray[Any], *, longest_side: int = LONGEST_SIDE) -> Thumbnail:
    """Shrink an image (never enlarge it) and encode it as JPEG.

    Args:
        image: uint8, shape (height, width, 3) RGB or (height, width) grey.
        longest_side: Of the thumbnail, in pixels.

    Raises:
        HeadstartError: The array is not such an image.

    Examples:
        >>> small = thumbnail(np.zeros((480, 640, 3), np.uint8))
        >>> small.width, small.height, small.uri[:22]
        (160, 120, 'data:image/jpeg;base64')
    """
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        expected = "uint8 of shape (height, width, 3) or (height, width)"
        raise HeadstartError(must_be("image", expected, f"{image.dtype} of shape {image.shape}"))
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    share = min(1.0, longest_side / max(picture.size))
    width, height = (max(1, round(side * share)) for side in picture.size)
    shrunk = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shrunk.save(buffer, "JPEG", quality=82)
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", width, height)
