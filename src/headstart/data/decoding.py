"""Bytes → upright RGB pixels at the size the store keeps: the one way a photo becomes pixels, in training and in use.

JPEG goes through simplejpeg at the smallest DCT scale that still covers the stored size. What simplejpeg refuses, and
PNG, WebP, BMP, GIF (first frame) and TIFF (first page) go through Pillow. A photo that cannot be decoded wholly is a
``DecodeFailure`` with its reason; no pixel is ever made up. ``store.py`` calls this for every file, the predictor for
every image it is given. Colour profiles are not applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from headstart.data.fallback import FROM_16_BIT, open_image, orientation_of, pillow_failures, plain_array
from headstart.data.headers import JPEG_END, JPEG_START, DecodeFailure, Size, bounded, jpeg_orientation
from headstart.errors import HeadstartError, must_be

Fit = Literal["crop", "letterbox", "stretch"]

MARGIN: Final = 8 / 7
"""How much larger than the image size photos are kept, so that random crops have room: 256 for 224."""

_EIGHTHS: Final = (1, 2, 4, 8)
"""DCT scales used, in eighths. libjpeg-turbo has no vector code for 3, 5, 6 and 7: at 12 megapixels 5/8 takes longer
than full size. They are also sharper than an antialiased shrink: down to 31 dB against Pillow, where these keep 44."""

_MOST_TAPS_AFTER: Final = 1.45
"""Largest shrink that is smoothed after the interpolation; beyond, bilinear interpolation passes over too much."""

_TRANSPOSED: Final = (5, 6, 7, 8)


@dataclass(frozen=True)
class StoredImage:
    """A photo as the store keeps it.

    Attributes:
        pixels: uint8 of shape (height, width, 3), RGB, upright.
        original_size: (height, width) of the upright photo.
        scale: (y, x): stored coordinate = original coordinate × scale. Not the quotient of the sizes: a JPEG decoder
            rounds scaled sizes up, while its pixel pitch is exactly 1, 1/2, 1/4 or 1/8.
    """

    pixels: NDArray[np.uint8]
    original_size: Size
    scale: tuple[float, float]


@dataclass(frozen=True)
class CoverRule:
    """How large a photo is kept: see ``stored_size`` for the fields.

    Examples:
        >>> CoverRule((224, 224), "crop").stored_size((720, 1280))
        (256, 455)
    """

    image_size: Size
    fit: Fit = "crop"
    margin: float = MARGIN

    def stored_size(self, original_size: Size) -> Size:
        """Give the (height, width) kept of an upright photo of this size."""
        return stored_size(original_size, self.image_size, self.fit, self.margin)


def stored_size(original_size: Size, image_size: Size, fit: Fit, margin: float = MARGIN) -> Size:
    """Give the size that a photo is shrunk to; it is never enlarged.

    Args:
        original_size: (height, width) of the upright photo.
        image_size: (height, width) of the network's input.
        fit: "crop": the smallest scale at which the photo covers margin × image size both ways. "letterbox": the scale
            at which it just fits inside that box. "stretch": each axis is shrunk to the box by itself.
        margin: How much larger than the image size.

    Returns:
        (height, width), each at least 1.

    Examples:
        >>> stored_size((720, 1280), (224, 224), "letterbox")
        (144, 256)
        >>> stored_size((720, 200), (224, 224), "stretch")
        (256, 200)
    """
    # 1e-9: 8/7 × 224 must be 256 whatever the last bit says
    (height, width), (image_height, image_width) = original_size, image_size
    ratio_y = min(1.0, math.ceil(image_height * margin - 1e-9) / height)
    ratio_x = min(1.0, math.ceil(image_width * margin - 1e-9) / width)
    if fit != "stretch":
        ratio_y = ratio_x = max(ratio_y, ratio_x) if fit == "crop" else min(ratio_y, ratio_x)
    return max(1, round(height * ratio_y)), max(1, round(width * ratio_x))


def decode(data: bytes, *, cover: CoverRule, max_pixels: int) -> StoredImage:
    """Decode a photo's bytes to upright RGB pixels at the stored size.

    Args:
        data: The whole file.
        cover: How large the photo is kept.
        max_pixels: Refuse photos with more pixels, from the header alone.

    Returns:
        The photo.

    Raises:
        DecodeFailure: The photo cannot be decoded wholly; its ``reason`` says why.

    Examples:
        >>> jpeg = simplejpeg.encode_jpeg(np.full((720, 1280, 3), 200, np.uint8))
        >>> stored = decode(jpeg, cover=CoverRule((224, 224)), max_pixels=10**7)
        >>> stored.pixels.shape, stored.original_size
        ((256, 455, 3), (720, 1280))
    """
    if not data:
        raise DecodeFailure("empty", "the file has no bytes")
    stored = _decode_fast_jpeg(data, cover, max_pixels) if data.startswith(JPEG_START) else None
    return stored or _decode_with_pillow(data, cover, max_pixels)


def from_pixels(image: NDArray[np.generic] | Image.Image, *, cover: CoverRule) -> StoredImage:
    """Bring pixels that were decoded elsewhere through the same colour and shrink code as a file's.

    Args:
        image: A Pillow image (its EXIF orientation is applied), or an array of uint8 or uint16 of shape
            (height, width), (height, width, 1), (height, width, 3) RGB or (height, width, 4) RGBA.
        cover: How large the photo is kept.

    Returns:
        The photo.

    Raises:
        HeadstartError: The array has another shape or type.
        DecodeFailure: The Pillow image was opened lazily and its file is damaged.

    Examples:
        >>> from_pixels(np.zeros((512, 512), np.uint8), cover=CoverRule((224, 224))).pixels.shape
        (256, 256, 3)
    """
    if isinstance(image, Image.Image):
        with pillow_failures():
            image.load()
            return _finish(plain_array(image), orientation_of(image), cover=cover)
    pixels = _array_as_rgb(image).view()
    pixels.flags.writeable = False  # they are the caller's
    return _finish(pixels, 1, cover=cover)


def shrink(pixels: NDArray[np.uint8], size: Size, *, in_place: bool = False) -> NDArray[np.uint8]:
    """Shrink by area averaging. From a factor of 2 on the average is OpenCV's; below, it is weighted by a tent.

    Three taps and bilinear interpolation have the variance of a tent of one output pixel. From 360×640 to 256×455 the
    taps before take 0.45 ms and after, where there are fewer pixels, 0.33 ms; ``INTER_AREA`` takes 1.4 ms. Against an
    antialiased bilinear shrink PSNR is 49 dB with the taps before, 48 after (up to ``_MOST_TAPS_AFTER``), 50 by area.

    Args:
        pixels: uint8 of shape (height, width) or (height, width, channels).
        size: (height, width), not larger than the pixels'.
        in_place: The pixels may be written over; a fifth faster.

    Returns:
        The shrunk pixels, or the same array where the size is the same.

    Examples:
        >>> shrink(np.full((300, 300, 3), 7, np.uint8), (256, 200)).max()
        np.uint8(7)
    """
    if pixels.shape[:2] == size:
        return pixels
    ratio_y, ratio_x = pixels.shape[0] / size[0], pixels.shape[1] / size[1]
    if max(ratio_y, ratio_x) >= 2:
        return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if max(ratio_y, ratio_x) <= _MOST_TAPS_AFTER:
        small = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
        taps = [_taps(_tent_variance(ratio) / ratio**2) for ratio in (ratio_x, ratio_y)]
        return cv2.sepFilter2D(small, -1, *taps, dst=small).astype(np.uint8, copy=False)
    taps = [_taps(_tent_variance(ratio)) for ratio in (ratio_x, ratio_y)]
    blurred = cv2.sepFilter2D(pixels, -1, *taps, dst=pixels if in_place else None)
    return cv2.resize(blurred, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def read_size(data: bytes, *, max_pixels: int) -> Size:
    """Read a photo's (height, width) from its header, as it lies in the file (EXIF orientation not applied).

    Raises:
        DecodeFailure: The header cannot be read, or promises too many pixels.
    """
    if data.startswith(JPEG_START):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            pass  # Pillow may read it, and words the reason if not
        else:
            return bounded((int(height), int(width)), max_pixels)
    with pillow_failures(data):
        image = open_image(data, max_pixels)
        return bounded((image.height, image.width), max_pixels)


def _decode_fast_jpeg(data: bytes, cover: CoverRule, max_pixels: int) -> StoredImage | None:
    """Decode with simplejpeg, or give None where Pillow must try."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    size = bounded((int(height), int(width)), max_pixels)
    if colour in ("CMYK", "YCCK"):
        return None
    orientation = jpeg_orientation(data)
    eighths = _dct_eighths(size, orientation, cover)
    pixels = _simplejpeg_pixels(data, size, eighths)
    return None if pixels is None else _finish(pixels, orientation, cover=cover, size=size, pitch=eighths / 8)


def _simplejpeg_pixels(data: bytes, size: Size, eighths: int) -> NDArray[np.uint8] | None:
    # At full size the minimum is left away: in a photo of a few pixels 7/8 rounds up to full size as well.
    least_height, least_width = (-(-side * eighths // 8) if eighths < 8 else 0 for side in size)
    try:
        return simplejpeg.decode_jpeg(data, min_height=least_height, min_width=least_width, min_factor=1)
    except ValueError as error:
        message = str(error)
    if message == "Premature end of JPEG file" and not data.endswith(JPEG_END):
        # Many programs forget the end marker, and then no pixel is missing: with it, the decoder tells.
        return _simplejpeg_pixels(data + JPEG_END, size, eighths)
    if "remature end" in message:
        raise DecodeFailure("truncated", message)
    if "bad Huffman code" in message or "bad arithmetic code" in message or "instead of RST" in message:
        raise DecodeFailure("decoder error", message)  # from there on the pixels would be made up
    return None


def _dct_eighths(size: Size, orientation: int, cover: CoverRule) -> int:
    """Give the smallest DCT scale that covers the stored size.

    A turned photo needs one that divides its size: else the part of a pixel that rounding up adds would come to lie at
    the start of an axis, and the scale alone would no longer say where a point is.
    """
    wanted = _as_lying(cover.stored_size(_as_lying(size, orientation)), orientation)
    for eighths in _EIGHTHS[:-1]:
        covers = all(-(-side * eighths // 8) >= least for side, least in zip(size, wanted, strict=True))
        if covers and (orientation == 1 or all(side * eighths % 8 == 0 for side in size)):
            return eighths
    return 8


def _finish(
    pixels: NDArray[np.uint8], orientation: int, *, cover: CoverRule, size: Size | None = None, pitch: float = 1.0
) -> StoredImage:
    """Shrink decoded pixels to the stored size, make them RGB and upright, and say at which scale they are.

    Pixels that are writeable are a decoder's and may be written over.
    """
    size = size or (pixels.shape[0], pixels.shape[1])
    wanted = _as_lying(cover.stored_size(_as_lying(size, orientation)), orientation)
    scale = (pitch * wanted[0] / pixels.shape[0], pitch * wanted[1] / pixels.shape[1])
    small = shrink(pixels, wanted, in_place=pixels.flags.writeable)
    if small.ndim == 2:
        small = np.repeat(small[..., None], 3, axis=2)
    upright = np.ascontiguousarray(_turned(small, orientation))
    is_transposed = orientation in _TRANSPOSED
    return StoredImage(upright, _as_lying(size, orientation), scale[::-1] if is_transposed else scale)


def _as_lying(size: Size, orientation: int) -> Size:
    """Swap height and width where the orientation turns the photo by a quarter."""
    return (size[1], size[0]) if orientation in _TRANSPOSED else size


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation: transpose first (5 to 8), then mirror."""
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _tent_variance(ratio: float) -> float:
    """Give what a tent of one output pixel (ratio²/6) has more of than bilinear interpolation (1/6), in pixels read."""
    return (ratio * ratio - 1) / 6


def _taps(variance: float) -> NDArray[np.float32]:
    """Give three taps that have this variance, in pixels."""
    return np.array([variance / 2, 1 - variance, variance / 2], np.float32)


def _array_as_rgb(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    channels = array.shape[2] if array.ndim == 3 else 1
    is_known = array.dtype in (np.uint8, np.uint16) and array.ndim in (2, 3) and channels in (1, 3, 4)
    if not is_known or 0 in array.shape:
        expected = "uint8 or uint16 of shape (height, width), (height, width, 3) RGB or (height, width, 4) RGBA"
        remedy = "Convert it; floats from 0 to 1 are (image * 255).round().astype('uint8')."
        raise HeadstartError(must_be("image array", expected, f"{array.dtype} of shape {array.shape}", remedy))
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    narrow = FROM_16_BIT[array.astype(np.uint16)] if array.dtype == np.uint16 else array.astype(np.uint8, copy=False)
    pixels = np.ascontiguousarray(narrow)
    return plain_array(Image.fromarray(pixels)) if channels == 4 else pixels


def _decode_with_pillow(data: bytes, cover: CoverRule, max_pixels: int) -> StoredImage:
    with pillow_failures(data):
        image = open_image(data, max_pixels)
        size = bounded((image.height, image.width), max_pixels)
        pitch = 1.0
        if isinstance(image, JpegImageFile):
            orientation = orientation_of(image)
            pitch = _dct_eighths(size, orientation, cover) / 8
            image.draft(None, (max(1, int(size[1] * pitch)), max(1, int(size[0] * pitch))))
        image.load()
        # Pillow turns TIFF upright while loading, and changes its size with it.
        orientation = orientation_of(image)
        return _finish(plain_array(image), orientation, cover=cover, size=size if pitch < 1 else None, pitch=pitch)
