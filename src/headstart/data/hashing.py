"""Two fingerprints of a photo: one of its bytes, one of what it shows.

The pass over the files (``store.py``) computes both; ``duplicates.py`` compares them.
"""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

PLAIN: Final = 0
"""The perceptual hash of a picture with too little in it to be told from another (a plain sky, a blank page)."""

THUMBNAIL_SIZE: Final = 32
_MIN_DETAIL: Final = 2.0
"""Grey levels of standard deviation, beside a linear slope, below which a thumbnail is plain."""


def content_hash(data: bytes) -> str:
    """Hash a file's bytes: BLAKE2b of 128 bits as 32 hexadecimal digits. Equal means byte-identical.

    Examples:
        >>> content_hash(b"")
        'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink to 32×32 grey pixels by area averaging; the aspect ratio is given up.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).

    Returns:
        uint8 of shape (32, 32).
    """
    grey = cv2.cvtColor(np.asarray(pixels), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def detail(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give what is left of thumbnails when brightness and a linear slope are taken away.

    A clear sky, a wall in side light, a blank page: all are a slope and nothing else.

    Args:
        thumbnails: Shape (n, 32, 32).

    Returns:
        Shape (n, 1024), float32, in grey levels.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    return (flat - (flat @ _SLOPES.T) @ _SLOPES).astype(np.float32, copy=False)


def is_plain(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say of thumbnails (n, 32, 32) whether they show too little to be told from others.

    Examples:
        >>> is_plain(np.full((1, 32, 32), 180, np.uint8)).tolist()
        [True]
    """
    return detail(thumbnails).std(axis=1) < _MIN_DETAIL


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """Hash what a photo shows: near-identical photos differ in few of the 64 bits.

    The 32×32 grey thumbnail's cosine transform; of its 8×8 lowest frequencies each gives one bit, whether it is above
    their median. The constant term (brightness) takes no part and its bit is 0.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).

    Returns:
        0 … 2⁶⁴ − 1; ``PLAIN`` for a picture with nothing in it.

    References:
        Zauner: "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.1.1 (DCT hash).

    Examples:
        >>> perceptual_hash(np.full((50, 80, 3), 90, np.uint8)) == PLAIN
        True
    """
    small = thumbnail(pixels)
    if is_plain(small[None])[0]:
        return PLAIN
    low = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _orthonormal_slopes() -> NDArray[np.float32]:
    y, x = np.mgrid[:THUMBNAIL_SIZE, :THUMBNAIL_SIZE].reshape(2, -1) - (THUMBNAIL_SIZE - 1) / 2
    basis = np.stack([np.ones_like(x), x, y])
    return (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)


_SLOPES: Final = _orthonormal_slopes()
