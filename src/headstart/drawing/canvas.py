"""A picture to paint on: anti-aliased shapes at sub-pixel places, soft shapes, and shapes cut to an outline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from headstart.drawing.colours import Colour
from headstart.drawing.curves import Points

_SHIFT = 4  # OpenCV draws at 1/16 pixel
_COARSEST_BLUR = 2.5  # a mask is drawn smaller until its blur is about this many of its own pixels: exact to the eye


class Canvas:
    """Pixels that shapes are painted on.

    Attributes:
        pixels: Shape (height, width, 3), RGB; changed in place. (0, 0) is the middle of the first pixel.
    """

    def __init__(self, pixels: NDArray[np.uint8]):
        self.pixels = pixels
        self._corner = (0, 0)  # (x, y) of the first pixel in the whole picture; more than 0 while cut to an outline

    def fill(self, outline: Points, colour: Colour, *, opacity: float = 1.0, blur: float = 0.0) -> None:
        """Paint the inside of an outline.

        Args:
            outline: The corners, in pixels; may lie outside of the picture.
            colour: Of the paint.
            opacity: 1 hides what was there.
            blur: Standard deviation of the edge, in pixels; 0 is a sharp (anti-aliased) edge.
        """
        outline = outline - self._corner
        if opacity >= 1 and not blur:
            cv2.fillPoly(self.pixels, [_fixed(outline)], colour, cv2.LINE_AA, _SHIFT)
            return
        window = self._window(outline, margin=3 * blur + 2)
        if window is None:
            return
        part = self.pixels[window]
        weight = _mask(outline, window, blur) * np.float32(opacity / 255)
        painted = np.empty_like(part)
        cv2.rectangle(painted, (0, 0), painted.shape[1::-1], colour, cv2.FILLED)  # six times as fast as numpy's filling
        part[:] = cv2.blendLinear(part, painted, 1 - weight, weight)

    @contextmanager
    def within(self, outline: Points) -> Iterator[None]:
        """What is painted meanwhile stays inside of the outline."""
        whole, corner = self.pixels, self._corner
        window = self._window(outline - corner, margin=2) or (slice(0, 1), slice(0, 1))
        self.pixels = whole[window].copy()
        self._corner = (corner[0] + window[1].start, corner[1] + window[0].start)
        yield
        weight = _mask(outline - corner, window, 0) * np.float32(1 / 255)
        whole[window] = cv2.blendLinear(whole[window], self.pixels, 1 - weight, weight)
        self.pixels, self._corner = whole, corner

    def _window(self, outline: Points, *, margin: float) -> tuple[slice, slice] | None:
        """Give the rows and columns that a shape can touch; None where it lies outside of the picture."""
        height, width = self.pixels.shape[:2]
        (left, top), (right, bottom) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
        left, top = max(int(left - margin), 0), max(int(top - margin), 0)
        right, bottom = min(math.ceil(right + margin) + 1, width), min(math.ceil(bottom + margin) + 1, height)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _mask(outline: Points, window: tuple[slice, slice], blur: float) -> NDArray[np.float32]:
    """Give the share of each pixel of the window that the shape covers, 0 … 255."""
    height, width = (part.stop - part.start for part in window)
    step = max(1, int(blur / _COARSEST_BLUR))
    coarse = np.zeros((-(-height // step), -(-width // step)), np.uint8)
    local = (outline - (window[1].start, window[0].start) - (step - 1) / 2) / step
    cv2.fillPoly(coarse, [_fixed(local)], 255, cv2.LINE_AA, _SHIFT)
    if not blur:
        return coarse.astype(np.float32)
    soft = cv2.GaussianBlur(coarse.astype(np.float32), (0, 0), blur / step, borderType=cv2.BORDER_REPLICATE)
    if step > 1:
        soft = cv2.resize(soft, (coarse.shape[1] * step, coarse.shape[0] * step))[:height, :width]
    return soft.astype(np.float32, copy=False)


def _fixed(outline: Points) -> NDArray[np.int32]:
    return np.rint(outline * (1 << _SHIFT)).astype(np.int32)
