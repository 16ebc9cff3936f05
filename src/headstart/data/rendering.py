"""Photos → the pixels that the network sees, through the maps of ``augmentation``.

``render_images`` (OpenCV, one thread) and ``render_batch`` (torch, any device) read the same maps, so a run looks the
same on a laptop and on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data import geometry
from headstart.data.augmentation import NOISE_TILE, Maps
from headstart.data.geometry import Pixels
from headstart.randomness import generator

if TYPE_CHECKING:
    import torch


def render(image: Pixels, maps: Maps, *, image_size: tuple[int, int], out: Pixels | None = None) -> Pixels:
    """Give one stored photo as the model sees it; see ``render_images``. ``maps`` holds the one row for it."""
    return render_images([image], maps, image_size=image_size, out=None if out is None else out[None])[0]


def render_images(
    images: Sequence[Pixels], maps: Maps, *, image_size: tuple[int, int], out: Pixels | None = None
) -> Pixels:
    """Give stored photos as the model sees them, on the calling thread, with OpenCV.

    Args:
        images: n RGB photos, uint8, each of shape (height, width, 3).
        maps: Their maps.
        image_size: (height, width) of the result.
        out: Where to write, uint8, C-contiguous, shape (n, *image_size, 3); a new array if not given.

    Returns:
        ``out``, shape (n, *image_size, 3).

    Raises:
        HeadstartError: An image is not 8-bit RGB.

    Examples:
        >>> from headstart.data.augmentation import evaluation_maps
        >>> photo = np.full((300, 400, 3), 80, np.uint8)
        >>> maps = evaluation_maps([photo.shape[:2]], image_size=(224, 224), fit="crop", crop_fraction=0.875)
        >>> render_images([photo], maps, image_size=(224, 224)).shape
        (1, 224, 224, 3)
    """
    if out is None:
        out = np.empty((len(images), *image_size, 3), np.uint8)
    if not len(images):
        return out
    sizes = [image.shape[:2] for image in images]
    windows = geometry.find_windows(maps.affine, sizes, image_size=image_size, border=maps.border)
    recoloured = _recoloured(maps)
    for index, image in enumerate(images):
        part, affine = windows.cut(image, index), windows.affine[index]
        pixels = geometry.warp_image(part, affine, image_size=image_size, border=maps.border, out=out[index])
        if recoloured[index]:
            cv2.transform(pixels, maps.colour[index], dst=pixels)
        if maps.noise[index] > 0:
            _add_noise(pixels, float(maps.noise[index]), maps.noise_offset[index].tolist())
    return out


def _recoloured(maps: Maps) -> NDArray[np.bool_]:
    """Tell which samples' colours change at all; an eighth of a grey level over the whole range does not show."""
    return np.abs(maps.colour - np.eye(3, 4, dtype=np.float32)).max(axis=(1, 2)) > 1e-4


@lru_cache(maxsize=1)
def _noise_tile() -> NDArray[np.float32]:
    """Give the unit-normal noise that all samples read, each from its own place; the same in every run."""
    return generator(0, stream="noise").standard_normal((NOISE_TILE, NOISE_TILE, 3), dtype=np.float32)


@lru_cache(maxsize=2)
def _wrapped_noise(image_size: tuple[int, int]) -> NDArray[np.float32]:
    """Give the tile continued past its edges, so that a whole image is one view at any offset."""
    return np.pad(_noise_tile(), ((0, image_size[0]), (0, image_size[1]), (0, 0)), mode="wrap")


def _add_noise(pixels: Pixels, deviation: float, offset: list[int]) -> None:
    height, width = pixels.shape[:2]
    noise = _wrapped_noise((height, width))[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    cv2.addWeighted(pixels, 1.0, noise, deviation, 0.0, dst=pixels, dtype=cv2.CV_8U)


def render_batch(padded: torch.Tensor, maps: Maps, *, sizes: ArrayLike, image_size: tuple[int, int]) -> torch.Tensor:
    """Give stored photos as the model sees them, on the device they lie on, with torch.

    The same maps give the same pixels as ``render_images``, to rounding. Where photos may be larger than the input,
    cut them first with ``geometry.find_windows`` and pass its sizes and affine maps, as ``batches`` does.

    Args:
        padded: n RGB photos, uint8, shape (n, height, width, 3); see ``geometry.warp_batch``.
        maps: Their maps, from the photos as they lie in ``padded``.
        sizes: (height, width) of each photo, shape (n, 2).
        image_size: (height, width) of the result.

    Returns:
        Uint8, contiguous, shape (n, *image_size, 3), on the device of ``padded``.
    """
    import torch

    with torch.no_grad(), torch.autocast(padded.device.type, enabled=False):
        pixels = geometry.warp_batch(padded, maps.affine, sizes=sizes, image_size=image_size, border=maps.border)
        pixels = pixels.round_()  # OpenCV rounds to bytes after each step, so this path does too
        if _recoloured(maps).any():
            pixels = _recolour_batch(pixels, torch.from_numpy(maps.colour).to(padded.device)).round_().clamp_(0, 255)
        if (maps.noise > 0).any():
            pixels = (pixels + _noise_batch(maps, image_size, padded.device)).round_().clamp_(0, 255)
        return pixels.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def _recolour_batch(pixels: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Give each pixel's colour through its photo's matrix.

    Multiplied channel by channel: products of 3×3 matrices with long rows are what libraries are slowest at.

    Args:
        pixels: Shape (n, 3, height, width).
        matrices: Shape (n, 3, 4), the last column an addend.
    """
    import torch

    factors = matrices[..., None, None]
    red, green, blue = pixels.unbind(1)
    changed = torch.empty_like(pixels)
    for channel in range(3):
        mixed = torch.addcmul(factors[:, channel, 3], red, factors[:, channel, 0], out=changed[:, channel])
        mixed.addcmul_(green, factors[:, channel, 1]).addcmul_(blue, factors[:, channel, 2])
    return changed


def _noise_batch(maps: Maps, image_size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Give each sample's noise, scaled, shape (n, 3, *image_size)."""
    import torch

    offset = torch.from_numpy(maps.noise_offset).to(device, torch.int64)
    rows = (offset[:, :1] + torch.arange(image_size[0], device=device)) % NOISE_TILE
    columns = (offset[:, 1:] + torch.arange(image_size[1], device=device)) % NOISE_TILE
    noise = _noise_tile_on(str(device))[rows[:, :, None], columns[:, None, :]]
    return noise.permute(0, 3, 1, 2) * torch.from_numpy(maps.noise).to(device)[:, None, None, None]


@lru_cache(maxsize=4)
def _noise_tile_on(device: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(_noise_tile()).to(device)
