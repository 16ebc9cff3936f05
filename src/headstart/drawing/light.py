"""The camera's look: daylight in colour, or an infrared lamp beside the lens, grey and grainy."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from headstart.drawing.moments import FRAME_SIZE, Moment

_STEP = 16  # light varies slowly: worked out at 1/16 of the size
_INFRARED = np.array([[0.62, 0.26, 0.12]], np.float32)  # what a red-weighted sensor sees of red, green, blue
_SENSOR = np.rint(255 * (np.arange(256) / 255) ** 0.8).astype(np.uint8)  # lifts dark tones, as such cameras do
_GRAIN = {"light": 1.0, "infrared": 1.8}  # standard deviation, of 255


def develop(pixels: NDArray[np.uint8], moment: Moment) -> NDArray[np.uint8]:
    """Give the picture as the camera has it.

    Args:
        pixels: Shape (height, width, 3), as painted.
        moment: Gives light, look and grain.

    Returns:
        Shape (height, width, 3) in daylight, (height, width) in infrared.
    """
    gain = _daylight(moment) if moment.scene.look == "light" else _lamp(moment)
    if moment.scene.look == "infrared":
        pixels = cv2.LUT(cv2.transform(pixels, _INFRARED), _SENSOR).astype(np.uint8, copy=False)
    full = cv2.resize(gain, FRAME_SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    lit = cv2.multiply(pixels, full, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
    return _with_grain(lit, moment)


def _grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    height, width = FRAME_SIZE
    y, x = np.mgrid[0 : height : _STEP * 1.0, 0 : width : _STEP * 1.0].astype(np.float32)
    return x, y


def _daylight(moment: Moment) -> NDArray[np.float32]:
    """Give the gain of each channel: brighter towards the window, darker in the corners, warm or cool."""
    x, y = _grid()
    height, width = FRAME_SIZE
    across = (x - width / 2) / width
    distance = np.hypot(x - width / 2, y - height / 2) / width
    gain = moment.scene.brightness * (1 + 0.3 * moment.scene.light_side * across) * (1 - 0.5 * distance**2)
    warmth = np.clip(moment.scene.warmth, -1, 1) * 0.08
    return np.stack([gain * (1 + warmth), gain, gain * (1 - warmth)], axis=2).astype(np.float32)


def _lamp(moment: Moment) -> NDArray[np.float32]:
    """Give the gain of an infrared lamp: bright on the driver, falling off around."""
    x, y = _grid()
    pose = moment.pose
    distance = np.hypot((x - pose.x) / 1.15, y - (pose.y - 0.6 * pose.scale)) / pose.scale
    falloff = 0.18 + 0.72 / (1 + (distance / 2.9) ** 2.4)
    corner = np.hypot(x - FRAME_SIZE[1] / 2, y - FRAME_SIZE[0] / 2) / FRAME_SIZE[1]
    return (0.5 * (1 + moment.scene.brightness) * falloff * (1 - 0.9 * corner**2)).astype(np.float32)


def _with_grain(pixels: NDArray[np.uint8], moment: Moment) -> NDArray[np.uint8]:
    """Add the sensor's grain: one field, taken from a different place for each picture."""
    height, width = FRAME_SIZE
    top, left = moment.grain % 256, moment.grain // 256 % 256
    grain = _grain_field(pixels.ndim)[top : top + height, left : left + width]
    strength = _GRAIN[moment.scene.look] / 32
    return cv2.addWeighted(pixels, 1, grain, strength, -128 * strength).astype(np.uint8, copy=False)


@cache
def _grain_field(num_axes: int) -> NDArray[np.uint8]:
    """Give grain around 128 with a standard deviation of 32, a little soft, for grey or colour pictures."""
    draws = np.random.Generator(np.random.Philox(20_240))
    noise = draws.standard_normal((FRAME_SIZE[0] + 256, FRAME_SIZE[1] + 256), dtype=np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 0.8)
    field = np.clip(128 + soft * (32 / float(soft.std())), 0, 255).astype(np.uint8)
    return field if num_axes == 2 else np.repeat(field[..., None], 3, axis=2)
