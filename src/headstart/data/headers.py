"""What a photo's bytes say before they are decoded: orientation, an early end; and how decoding fails.

``decoding.py`` (JPEG) and ``fallback.py`` (everything else) read files with the help of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.data.table import Exclusion

Size = tuple[int, int]
"""(height, width)"""

JPEG_START: Final = b"\xff\xd8"
JPEG_END: Final = b"\xff\xd9"


class DecodeFailure(HeadstartError):  # noqa: N818  (the photo failed, not the program)
    """A photo that cannot be used, with the reason the table shows.

    Attributes:
        reason: One of ``table.EXCLUSIONS``.
        detail: The words of this case.

    Examples:
        >>> str(DecodeFailure("empty", "the file has no bytes"))
        'empty: the file has no bytes'
    """

    def __init__(self, reason: Exclusion, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Exclusion = reason
        self.detail: str = detail


def bounded(size: Size, max_pixels: int) -> Size:
    """Give the size back, or refuse it.

    Raises:
        DecodeFailure: The photo has more than ``max_pixels`` pixels.

    Examples:
        >>> bounded((30000, 30000), 200_000_000)
        Traceback (most recent call last):
        headstart.data.headers.DecodeFailure: too many pixels: 30,000 × 30,000 = 900,000,000 pixels; ...
    """
    height, width = size
    if height * width > max_pixels:
        detail = f"{height:,} × {width:,} = {height * width:,} pixels; at most {max_pixels:,} are read (--max-pixels)"
        raise DecodeFailure("too many pixels", detail)
    return height, width


def jpeg_orientation(data: bytes) -> int:
    """Find the EXIF segment among those before a JPEG's pixels, and read its orientation; 1 where there is none."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (0xDA, 0xD9):
            break
        if marker == 0xFF:  # padding
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return exif_orientation(data[position + 10 : end])
        position = end
    return 1


def exif_orientation(exif: bytes) -> int:
    r"""Read the orientation from EXIF bytes (a TIFF header and its first directory); 1 where there is none.

    Broken EXIF is no reason to refuse a photo, so whatever cannot be read counts as upright.

    Examples:
        >>> exif_orientation(b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0")
        6
        >>> exif_orientation(b"broken")
        1
    """
    exif = exif.removeprefix(b"Exif\0\0")
    if exif[:2] not in (b"II", b"MM"):
        return 1
    order = "little" if exif[:2] == b"II" else "big"
    start = int.from_bytes(exif[4:8], order)
    num_entries = int.from_bytes(exif[start : start + 2], order)
    for position in range(start + 2, min(start + 2 + 12 * num_entries, len(exif)), 12):
        if int.from_bytes(exif[position : position + 2], order) == 0x0112:
            value = int.from_bytes(exif[position + 8 : position + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def is_cut_short(data: bytes) -> bool:
    r"""Say of a JPEG, PNG, GIF, WebP or BMP that failed whether it ends before the end that it declares.

    Examples:
        >>> is_cut_short(b"GIF89a..."), is_cut_short(b"GIF89a...;")
        (True, False)
    """
    ends = data.rstrip(b"\0")
    if data.startswith(JPEG_START):
        return not ends.endswith(JPEG_END)
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"GIF8"):
        return not ends.endswith(b";")
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return data.startswith(b"BM") and int.from_bytes(data[2:6], "little") > len(data)
