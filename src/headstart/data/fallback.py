"""Everything that is not a plain JPEG, through Pillow: opening by signature, colour, and what its failures mean.

``decoding.py`` calls this and does the rest: the bound on pixels, the shrink, the orientation.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from headstart.data.headers import DecodeFailure, bounded, exif_orientation, is_cut_short

FROM_16_BIT: Final = np.round(np.arange(65536) / 257).astype(np.uint8)
"""The 8-bit value of each 16-bit value."""

_PLUGINS: Final[tuple[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]], ...]] = (
    (re.compile(rb"\xff\xd8"), JpegImagePlugin.JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    # "BM", and 0 in the reserved words or a header size that exists: text may start with BM too
    (re.compile(rb"BM.{4}(\0{4}|.{8}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)", re.DOTALL), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
)
_PILLOW_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's plugins were seen to raise on damaged files."""


class _MutedPillow:
    """Keeps Pillow's warnings from the user while any thread decodes with it.

    ``warnings.catch_warnings`` swaps the whole process's filters and is not safe in threads; this adds one filter, for
    Pillow's own modules, and takes it away when the last thread is done.
    """

    _FILTER: Final = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            warnings.filterwarnings("ignore", module=self._FILTER[3].pattern)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0 and self._FILTER in warnings.filters:
                list.remove(warnings.filters, self._FILTER)  # pyright: ignore[reportArgumentType]


_MUTED: Final = _MutedPillow()


@contextmanager
def pillow_failures(data: bytes = b"") -> Iterator[None]:
    """Run Pillow with its warnings muted and what it raises turned into a ``DecodeFailure`` with its reason.

    Args:
        data: The file, to tell a truncated one from a damaged one.
    """
    with _MUTED:
        try:
            yield
        except DecodeFailure:
            raise
        except Image.DecompressionBombError as error:
            raise DecodeFailure("too many pixels", str(error)) from None
        except _PILLOW_ERRORS as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise DecodeFailure("truncated" if _ends_early(data, words) else "decoder error", words) from None


def open_image(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Open by signature. Not through ``Image.open``: its own pixel bound is one global, and it runs any plugin.

    Raises:
        DecodeFailure: It is no image, or its header promises too many pixels.
    """
    check_signature(data)
    for signature, plugin in _PLUGINS:
        if signature.match(data):
            if plugin is PngImagePlugin.PngImageFile and data[12:16] == b"IHDR" and len(data) >= 24:
                width, height = struct.unpack(">II", data[16:24])
                bounded((height, width), max_pixels)
            return plugin(io.BytesIO(data))
    raise DecodeFailure("not an image", "unknown signature")


def check_signature(head: bytes) -> None:
    """Look at a file's first 64 bytes before it is read whole.

    Raises:
        DecodeFailure: They are no image's.
    """
    if not any(signature.match(head) for signature, _ in _PLUGINS):
        raise DecodeFailure("not an image", _name_what_it_is(head))


def _name_what_it_is(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file, which is not read: convert it to JPEG or PNG"
    return f"none of JPEG, PNG, WebP, BMP, GIF, TIFF; it starts with {bytes(data[:8])!r}"


def orientation_of(image: Image.Image) -> int:
    """Give an opened image's EXIF orientation. TIFF has none left: Pillow turns it upright while loading."""
    exif = image.info.get("exif")
    if not isinstance(exif, bytes) or isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1
    return exif_orientation(exif)


def plain_array(image: Image.Image) -> NDArray[np.uint8]:
    """Give a loaded image's pixels as uint8 of shape (height, width) or (height, width, 3).

    16 bits are divided by 257, alpha is laid over white, 1 bit becomes black and white, CMYK is converted without a
    profile. Floats and 32-bit integers have no agreed range: theirs, from least to greatest, becomes 0 to 255.
    """
    if image.mode.startswith("I;16"):
        return FROM_16_BIT[np.asarray(image).astype(np.uint16)]
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image, np.float64))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        over_white = Image.new("RGB", image.size, "white")
        over_white.paste(with_alpha, mask=with_alpha.getchannel("A"))
        return np.asarray(over_white)
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def _stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = (np.where(finite, values, low) - low) * (255 / (high - low) if high > low else 0.0)
    return np.round(scaled).astype(np.uint8)


def _ends_early(data: bytes, words: str) -> bool:
    if re.search(r"truncat|unexpected end|not enough", words, re.IGNORECASE) or is_cut_short(data):
        return True
    return data.startswith((b"II", b"MM")) and _tiff_is_cut_short(data)


def _tiff_is_cut_short(data: bytes) -> bool:
    """Say whether a TIFF's directory, or the strips that it lists, lie beyond the end."""
    order = "little" if data.startswith(b"II") else "big"
    if int.from_bytes(data[4:8], order) + 2 > len(data):
        return True
    try:
        tags = TiffImagePlugin.TiffImageFile(io.BytesIO(data)).tag_v2
        offsets, counts = (tags.get(a) or tags.get(b) or () for a, b in ((273, 324), (279, 325)))
        return any(offset + count > len(data) for offset, count in zip(offsets, counts, strict=False))
    except _PILLOW_ERRORS:
        return True  # the directory itself is not whole
