"""Affine maps: crop, resize, letterbox, flip, rotation and shift as one 2×3 matrix for pixels and points alike.

On the path of a sample this stands between the stored photo and the network's input: ``augmentation`` draws the maps,
this module builds, composes and inverts them, and samples pixels through them once, with OpenCV or with torch.

One convention holds everywhere: coordinates are continuous, (x, y), and pixel (0, 0) covers [0, 1) × [0, 1), so its
centre is at (0.5, 0.5). Maps are float64 arrays of shape (n, 2, 3) that lead from the stored photo's frame to the
model's. Sizes are (height, width). Only the function that calls OpenCV knows OpenCV's convention of integer centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.errors import HeadstartError, must_be

if TYPE_CHECKING:
    import torch

Fit = Literal["crop", "letterbox", "stretch"]
Border = Literal["reflect", "fill"]
Affines = NDArray[np.float64]
Pixels = NDArray[np.uint8]

FILL: Final = 128
"""Grey of what lies outside a letterboxed photo: the middle of the range, which contrast leaves alone."""

MOST_BILINEAR_SHRINK: Final = 1.7
"""Bilinear sampling reads 2×2 pixels, so it skips pixels (aliases) where a photo shrinks by more than 2. A crop of a
stored photo shrinks by at most 1.52 (margin 8/7, aspect 4/3); what shrinks by more than this is area-averaged first."""

_EXACT: Final = 1e-6  # pixels; far below what eight bits can show


def identity(num_samples: int) -> Affines:
    """Give maps that change nothing, shape (num_samples, 2, 3)."""
    return np.repeat(np.eye(2, 3)[None], num_samples, axis=0)


def compose(*maps: Affines) -> Affines:
    """Join maps into one: the first argument is applied first.

    Examples:
        >>> twice = compose(flips([True], [False], image_size=(4, 6)), flips([True], [False], image_size=(4, 6)))
        >>> bool(np.allclose(twice, identity(1)))
        True
    """
    joined = maps[0]
    for following in maps[1:]:
        linear = following[:, :, :2]
        joined = linear @ joined
        joined[:, :, 2] += following[:, :, 2]
    return joined


def invert(maps: Affines) -> Affines:
    """Give the maps that lead back, from the model's frame to the stored photo's.

    Examples:
        >>> maps = turns([30.0], [1.2], [[0.1, 0.0]], image_size=(224, 224))
        >>> bool(np.allclose(compose(maps, invert(maps)), identity(1)))
        True
    """
    a, b, c, d = maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1]
    back = np.empty_like(maps)
    back[:, 0, 0], back[:, 0, 1], back[:, 1, 0], back[:, 1, 1] = d, -b, -c, a
    back[:, :, :2] /= (a * d - b * c)[:, None, None]
    back[:, :, 2] = -(back[:, :, :2] @ maps[:, :, 2:])[:, :, 0]
    return back


def apply_to_points(maps: Affines, points: ArrayLike) -> NDArray[np.float64]:
    """Move points (keypoints, corners of boxes) through the maps that move the pixels.

    Args:
        maps: Shape (n, 2, 3).
        points: (x, y), shape (n, num_points, 2).

    Returns:
        Shape (n, num_points, 2).

    Examples:
        >>> apply_to_points(flips([True], [False], image_size=(4, 6)), [[[0.5, 1.5]]]).tolist()
        [[[5.5, 1.5]]]
    """
    return np.asarray(points, np.float64) @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]


def is_inside(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Say of points (…, 2) whether they lie in a picture of this (height, width); its edges belong to it.

    Examples:
        >>> is_inside(np.array([[0.0, 0.0], [10.0, 5.0], [10.1, 5.0]]), (5, 10)).tolist()
        [True, True, False]
    """
    return np.asarray(((points >= 0) & (points <= np.array(size[::-1]))).all(axis=-1))


def scale_points(points: NDArray[np.float64], scales: ArrayLike) -> NDArray[np.float64]:
    """Move points (n, num_points, 2) from photos to the same photos at another size; divide by the scales to go back.

    Args:
        points: (x, y).
        scales: (y, x) factors of each photo, shape (n, 2), as the store keeps them.

    Examples:
        >>> scale_points(np.array([[[10.0, 20.0]]]), [[0.5, 0.25]]).tolist()
        [[[2.5, 10.0]]]
    """
    return points * np.asarray(scales, np.float64)[:, None, ::-1]


def parts(sizes: ArrayLike, boxes: ArrayLike | None) -> tuple[Affines | None, NDArray[np.float64]]:
    """Give the maps into the parts of photos that stand for the whole, and the parts' (height, width).

    Args:
        sizes: (height, width) of the photos, shape (n, 2).
        boxes: (left, top, right, bottom) of the parts, shape (n, 4); None: whole photos, and no maps.
    """
    if boxes is None:
        return None, np.asarray(sizes, np.float64)
    boxes = np.asarray(boxes, np.float64)
    extent = boxes[:, 2:] - boxes[:, :2]
    return scale_and_shift(np.ones_like(extent), -boxes[:, :2]), extent[:, ::-1]


def scale_and_shift(scale: NDArray[np.float64], offset: NDArray[np.float64]) -> Affines:
    """Build maps ``x → scale · x + offset``; both have shape (n, 2) and stand as (x, y)."""
    maps = np.zeros((len(scale), 2, 3))
    maps[:, 0, 0], maps[:, 1, 1] = scale[:, 0], scale[:, 1]
    maps[:, :, 2] = offset
    return maps


def boxes_to_frame(boxes: ArrayLike, *, image_size: tuple[int, int]) -> Affines:
    """Build maps that spread a box of the photo over the whole frame of the model.

    Args:
        boxes: (left, top, width, height) in the stored photo, shape (n, 4); may reach outside it.
        image_size: (height, width) of the model's input.
    """
    boxes = np.asarray(boxes, np.float64)
    scale = np.array(image_size[::-1]) / boxes[:, 2:]
    return scale_and_shift(scale, -scale * boxes[:, :2])


def resize_and_crop(
    sizes: ArrayLike,
    *,
    image_size: tuple[int, int],
    fit: Fit,
    crop_fraction: float = 1.0,
    position: ArrayLike = 0.5,
) -> Affines:
    """Build maps that resize a photo to slightly more than the model's input, then cut the input out.

    The cut falls on whole pixels of the resized photo, so that a photo stored at just that size is copied, not blurred.

    Args:
        sizes: (height, width) of the stored photos, shape (n, 2).
        image_size: (height, width) of the model's input.
        fit: "crop" covers the resized frame, "letterbox" lies inside it, "stretch" becomes it.
        crop_fraction: Side of the model's input over that of the resized frame (timm's ``crop_pct``).
        position: Where the cut lies, 0 (left, top) to 1 (right, bottom), as (x, y); 0.5 is the centre.

    Examples:
        >>> resize_and_crop([[256, 356]], image_size=(224, 224), fit="crop", crop_fraction=0.875)[0].tolist()
        [[1.0, 0.0, -66.0], [0.0, 1.0, -16.0]]
    """
    extent = np.asarray(sizes, np.float64)[:, ::-1]
    frame = np.array(image_size[::-1], np.float64)
    resized = np.floor(frame / crop_fraction + _EXACT)
    scale = _fit_scale(resized / extent, fit)
    shown = extent * scale
    canvas = np.broadcast_to(resized, shown.shape) if fit == "letterbox" else shown
    start = (shown - canvas) / 2 + np.asarray(position) * (canvas - frame)
    return scale_and_shift(scale, np.rint(-start) + 0.0)  # no negative zeros


def _fit_scale(ratio: NDArray[np.float64], fit: Fit) -> NDArray[np.float64]:
    if fit == "stretch":
        return ratio
    one = ratio.max(axis=1) if fit == "crop" else ratio.min(axis=1)
    return np.stack([one, one], axis=1)


def frames(sizes: ArrayLike, *, image_size: tuple[int, int], fit: Fit) -> NDArray[np.float64]:
    """Give what a random crop may be taken from: the photo, or for "letterbox" the photo with its bars.

    Args:
        sizes: (height, width) of the stored photos, shape (n, 2).
        image_size: (height, width) of the model's input.
        fit: How a photo meets the input.

    Returns:
        (left, top, width, height, aspect) in the stored photo, shape (n, 5). The aspect (width over height) is that of
        a crop that the model sees undistorted; for "stretch", as distorted as the whole photo.

    Examples:
        >>> frames([[100, 300]], image_size=(200, 200), fit="letterbox").tolist()
        [[0.0, -100.0, 300.0, 300.0, 1.0]]
    """
    extent = np.asarray(sizes, np.float64)[:, ::-1]
    frame = np.array(image_size[::-1], np.float64)
    canvas = frame / _fit_scale(frame / extent, fit) if fit == "letterbox" else extent
    aspect = extent[:, 0] / extent[:, 1] if fit == "stretch" else np.full(len(extent), frame[0] / frame[1])
    return np.concatenate([(extent - canvas) / 2, canvas, aspect[:, None]], axis=1)


def flips(horizontal: ArrayLike, vertical: ArrayLike, *, image_size: tuple[int, int]) -> Affines:
    """Build maps of the model's frame onto itself that mirror left-right, top-bottom, both or not at all."""
    flipped = np.stack([np.asarray(horizontal, bool), np.asarray(vertical, bool)], axis=1)
    return scale_and_shift(np.where(flipped, -1.0, 1.0), flipped * np.array(image_size[::-1], np.float64))


def turns(degrees: ArrayLike, scale: ArrayLike, shift: ArrayLike, *, image_size: tuple[int, int]) -> Affines:
    """Build maps that rotate and scale about the frame's centre, then shift.

    Args:
        degrees: Clockwise as seen on the screen, shape (n,).
        scale: Factor, shape (n,).
        shift: (x, y) as a share of the frame's width and height, shape (n, 2).
        image_size: (height, width) of the model's input.
    """
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    frame = np.array(image_size[::-1], np.float64)
    maps = np.empty((len(angle), 2, 3))
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1] = cosine, -sine, sine, cosine
    maps[:, :, 2] = frame / 2 - maps[:, :, :2] @ (frame / 2) + np.asarray(shift) * frame
    return maps


@dataclass(frozen=True)
class Windows:
    """The part of each photo that a map reads, shrunk first where sampling it would skip pixels.

    Attributes:
        boxes: (top, left, bottom, right) in the stored photo, int64, shape (n, 4).
        sizes: (height, width) of the part once cut and shrunk, int64, shape (n, 2).
        affine: Maps from the cut part to the model's frame, shape (n, 2, 3).
    """

    boxes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    affine: Affines

    def cut(self, image: Pixels, index: int) -> Pixels:
        """Cut one photo's part out: a view, or a new array where it had to shrink."""
        top, left, bottom, right = self.boxes[index].tolist()
        part = image[top:bottom, left:right]
        height, width = self.sizes[index].tolist()
        if part.shape[:2] == (height, width):
            return part
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]

    def place(self, image: Pixels, index: int, padded: Pixels) -> None:
        """Lay one photo's part in the top left corner of its row of a padded batch, with ``FILL`` around it."""
        height, width = self.sizes[index].tolist()
        padded[index, :height, :width] = self.cut(image, index)
        padded[index, height:] = FILL
        padded[index, :height, width:] = FILL


def find_windows(affine: Affines, sizes: ArrayLike, *, image_size: tuple[int, int], border: Border) -> Windows:
    """Find which part of each photo its map reads, so that the rest is neither moved nor shrunk.

    Args:
        affine: Maps from stored photo to model, shape (n, 2, 3).
        sizes: (height, width) of the stored photos, shape (n, 2).
        image_size: (height, width) of the model's input.
        border: What lies outside a photo; with "reflect" the part holds what is mirrored, too.
    """
    extent = np.asarray(sizes, np.int64)[:, ::-1]
    back = invert(affine)
    shrink = np.hypot(back[:, :, 0], back[:, :, 1])  # stored pixels per model pixel, along the stored x and y
    shrink = np.where(shrink > MOST_BILINEAR_SHRINK, shrink, 1.0)
    low, high = _reach(back, image_size, np.ceil(2 * shrink).astype(np.int64))
    if border == "reflect":
        low, high = np.minimum(low, 2 * extent - 1 - high), np.maximum(high, 1 - low)
    low = np.clip(low, 0, extent - 1)
    high = np.clip(high, low + 1, extent)
    cut = high - low
    kept = np.where(shrink > 1, np.maximum(np.ceil(cut / shrink), 1), cut).astype(np.int64)
    to_stored = scale_and_shift(cut / kept, low.astype(np.float64))
    boxes = np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1)
    return Windows(boxes, np.ascontiguousarray(kept[:, ::-1]), compose(to_stored, affine))


def _reach(
    back: Affines, image_size: tuple[int, int], margin: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the lowest and highest stored (x, y) that the model's frame reads, with a margin for neighbours."""
    height, width = image_size
    corners = back[:, :, :2] @ np.array([[0.0, width, 0.0, width], [0.0, 0.0, height, height]]) + back[:, :, 2:]
    low = np.floor(corners.min(axis=2)).astype(np.int64) - margin
    high = np.ceil(corners.max(axis=2)).astype(np.int64) + margin
    return low, high


def warp_image(
    image: Pixels, affine: Affines, *, image_size: tuple[int, int], border: Border, out: Pixels | None = None
) -> Pixels:
    """Sample one photo through one map with OpenCV, bilinear. Unscaled whole-pixel crops and flips are exact copies.

    The map should not shrink by more than ``MOST_BILINEAR_SHRINK``; ``find_windows`` sees to that.

    Args:
        image: RGB, uint8, shape (height, width, 3); may be a view.
        affine: One map, shape (2, 3).
        image_size: (height, width) of the result.
        border: "reflect" mirrors the photo about its edge pixels; "fill" puts grey (``FILL``) around it.
        out: Where to write, uint8, C-contiguous, shape (*image_size, 3); a new array if not given.

    Returns:
        ``out``, shape (*image_size, 3).

    Raises:
        HeadstartError: The image is not 8-bit RGB.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} of shape {image.shape}"
        raise HeadstartError(must_be("image", "uint8 of shape (height, width, 3)", got, "Decode it as RGB first."))
    if out is None:
        out = np.empty((*image_size, 3), np.uint8)
    box = _whole_box(image, affine, image_size)
    if box is None:
        _sampled(image, affine, border, out)
    else:
        left, top, right, bottom = box
        _resized(image[top:bottom, left:right], affine, out)
    return out


def _whole_box(image: Pixels, affine: Affines, image_size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Give the box of whole pixels that the map spreads over the model's frame, or None where it is another part."""
    (a, b, x), (c, d, y) = affine.tolist()
    if abs(b) + abs(c) > _EXACT:
        return None
    ends_x, ends_y = (-x / a, (image_size[1] - x) / a), (-y / d, (image_size[0] - y) / d)
    ends = (min(ends_x), min(ends_y), max(ends_x), max(ends_y))
    left, top, right, bottom = box = (round(ends[0]), round(ends[1]), round(ends[2]), round(ends[3]))
    is_whole = all(abs(end - whole) < _EXACT for end, whole in zip(ends, box, strict=True))
    is_inside = left >= 0 and top >= 0 and right <= image.shape[1] and bottom <= image.shape[0]
    return box if is_whole and is_inside else None


def _resized(part: Pixels, affine: Affines, out: Pixels) -> None:
    """Copy or resize a part and mirror it as the map says: five times as fast as sampling, bilinear all the same.

    The one difference: where the part is magnified, the outermost pixels do not blend with what lies beside the part.
    """
    flip = {(False, False): None, (True, False): 1, (False, True): 0, (True, True): -1}[
        affine[0, 0] < 0, affine[1, 1] < 0
    ]
    if part.shape == out.shape and flip is None:
        np.copyto(out, part)
    elif flip is None:
        cv2.resize(part, out.shape[1::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        resized = (
            part if part.shape == out.shape else cv2.resize(part, out.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        )
        cv2.flip(resized, flip, dst=out)


def _sampled(image: Pixels, affine: Affines, border: Border, out: Pixels) -> None:
    """Warp as four channels: OpenCV 5 is twice as fast with them as with three, and gives the same bits."""
    (a, b, x), (c, d, y) = affine.tolist()
    centred = np.array([[a, b, x + (a + b - 1) / 2], [c, d, y + (c + d - 1) / 2]])
    mode = cv2.BORDER_REFLECT_101 if border == "reflect" else cv2.BORDER_CONSTANT
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    warped = cv2.warpAffine(
        padded,
        centred,
        out.shape[1::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=mode,
        borderValue=(FILL, FILL, FILL, FILL),
    )
    cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)


def warp_batch(
    padded: torch.Tensor, affine: Affines, *, sizes: ArrayLike, image_size: tuple[int, int], border: Border
) -> torch.Tensor:
    """Sample a batch of photos of different sizes through one map each, on the device they lie on.

    Args:
        padded: RGB photos, uint8, shape (n, height, width, 3), each in the top left corner. With border "fill" the
            rest must hold ``FILL``; with "reflect" it is never read.
        affine: Maps from photo to model, shape (n, 2, 3).
        sizes: (height, width) of each photo, shape (n, 2).
        image_size: (height, width) of the result.
        border: What lies outside a photo; see ``warp_image``.

    Returns:
        Float32 values 0 … 255, not rounded, shape (n, 3, *image_size).
    """
    import torch
    from torch.nn import functional as F

    x, y = _source_points(affine, image_size, padded.device)
    if border == "reflect":
        extent = torch.as_tensor(np.asarray(sizes, np.float32), device=padded.device)
        x, y = _reflect(x, extent[:, 1]), _reflect(y, extent[:, 0])
    grid = torch.stack([x * (2 / padded.shape[2]) - 1, y * (2 / padded.shape[1]) - 1], dim=3)
    offset = 0 if border == "reflect" else FILL
    pixels = padded.permute(0, 3, 1, 2).to(torch.float32, copy=True).sub_(offset)
    mode = "border" if border == "reflect" else "zeros"
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode=mode, align_corners=False).add_(offset)


def _source_points(affine: Affines, image_size: tuple[int, int], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Give where each model pixel's centre lies in its photo: x and y, each of shape (n, height, width)."""
    import torch

    back = torch.from_numpy(invert(affine).astype(np.float32)).to(device)[:, :, :, None, None]
    columns = torch.arange(image_size[1], dtype=torch.float32, device=device) + 0.5
    rows = (torch.arange(image_size[0], dtype=torch.float32, device=device) + 0.5)[:, None]
    points = back[:, :, 0] * columns + back[:, :, 1] * rows + back[:, :, 2]
    return points[:, 0], points[:, 1]


def _reflect(points: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """Mirror coordinates about the centres of a photo's first and last pixel until they lie between them."""
    last = (extent - 1)[:, None, None]
    period = (2 * last).clamp(min=1)
    folded = (points - 0.5).abs().remainder(period)
    return folded.minimum(period - folded).minimum(last) + 0.5


def mirrored(maps: Affines) -> NDArray[np.bool_]:
    """Tell which maps mirror: there, left and right keypoints swap. A half turn (two flips) does not."""
    return maps[:, 0, 0] * maps[:, 1, 1] < maps[:, 0, 1] * maps[:, 1, 0]
