"""Losses: what a step of training minimises.

Keypoint losses take the distances of coordinates in shares of the model's frame (or in its pixels, where the recipe
says so) and count marked points only. Wing losses have their bends at a few pixels of a 224-pixel frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from headstart.models.heads import SimccHead, bin_centres

PIXEL: Final = 1 / 224
"""A pixel of the frame that the bends of the losses were published for."""

WING: Final = (10 * PIXEL, 2 * PIXEL)
"""Width and curvature of the wing loss, as published for faces of 224 pixels."""

SOFT_WING: Final = (2 * PIXEL, 20 * PIXEL, 0.5 * PIXEL)
"""Lower and upper bend and curvature of the soft wing loss, likewise."""

SIMCC_SPREAD: Final = 0.02
"""Standard deviation of the target's Gaussian, as a share of the frame: about 4.5 pixels of 224."""


def squared(difference: Tensor) -> Tensor:
    """Give squared differences: the loss of plain regression, weak because few large errors rule it."""
    return difference.square()


def absolute(difference: Tensor) -> Tensor:
    """Give absolute differences."""
    return difference.abs()


def smooth(difference: Tensor, *, bend: float = 2 * PIXEL) -> Tensor:
    """Give differences that are squared below a bend and absolute above it (smooth L1, Huber's loss over its bend).

    References:
        Girshick: "Fast R-CNN", ICCV 2015, eq. 3.
    """
    size = difference.abs()
    return torch.where(size < bend, 0.5 * size.square() / bend, size - 0.5 * bend)


def wing(difference: Tensor, *, width: float = WING[0], curvature: float = WING[1]) -> Tensor:
    """Give the wing loss: logarithmic below its width, so that small errors still matter; absolute above.

    Examples:
        >>> at_bend = wing(torch.tensor([WING[0] - 1e-6, WING[0] + 1e-6]))
        >>> bool((at_bend[1] - at_bend[0]).abs() < 1e-5)
        True

    References:
        Feng, Kittler, Awais, Huber, Wu: "Wing loss for robust facial landmark localisation", CVPR 2018, eq. 5.
    """
    size = difference.abs()
    constant = width - width * math.log(1 + width / curvature)
    return torch.where(size < width, width * torch.log1p(size / curvature), size - constant)


def soft_wing(
    difference: Tensor, *, low: float = SOFT_WING[0], high: float = SOFT_WING[1], curvature: float = SOFT_WING[2]
) -> Tensor:
    """Give the soft wing loss: absolute below a small bend, logarithmic above, so that outliers count less.

    References:
        Lin, Zhu, Wang, Liao, et al.: "Structure-coherent deep feature learning for robust face alignment", IEEE TIP
        2021, eq. 4.
    """
    size = difference.abs()
    constant = low - high * math.log(1 + low / curvature)
    return torch.where(size < low, size, high * torch.log1p(size / curvature) + constant)


COORDINATE_LOSSES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "mse": squared,
    "l1": absolute,
    "smooth_l1": smooth,
    "wing": wing,
    "soft_wing": soft_wing,
}
"""Losses of coordinates, each a function of the differences alone."""


def coordinate_loss(
    name: str, coordinates: Tensor, targets: Tensor, visible: Tensor, *, in_pixels: bool = False
) -> Tensor:
    """Give the mean loss over the marked points' coordinates.

    Args:
        name: One of ``COORDINATE_LOSSES``.
        coordinates: Shape (n, points, 2).
        targets: Likewise.
        visible: Which points count, shape (n, points).
        in_pixels: Coordinates are pixels of the frame, not shares of it; bends are then at whole pixels.

    Examples:
        >>> there, wrong = torch.zeros(1, 2, 2), torch.tensor([[[0.0, 0.0], [9.0, 9.0]]])
        >>> float(coordinate_loss("l1", wrong, there, torch.tensor([[True, False]])))
        0.0
    """
    unit = PIXEL if in_pixels and name != "mse" else 1.0  # the others grow as their unit does
    losses = COORDINATE_LOSSES[name]((coordinates - targets) * unit).sum(-1) / unit
    return mean_over_visible(losses, visible) / 2


def simcc_loss(head: SimccHead, outputs: Tensor, targets: Tensor, visible: Tensor) -> Tensor:
    """Give the cross-entropy of both axes' distributions against Gaussians around the targets, over marked points.

    Args:
        head: What made the outputs.
        outputs: Its logits.
        targets: Coordinates as shares of the frame, shape (n, points, 2).
        visible: Which points count, shape (n, points).

    References:
        Jiang et al.: "RTMPose", arXiv 2303.07399, section 3.3 (Gaussian label smoothing).
    """
    losses = torch.zeros(visible.shape, device=outputs.device)
    for axis, logits in enumerate(head.split(outputs)):
        places = bin_centres(logits.shape[-1], logits)
        spread = max(SIMCC_SPREAD, 1 / len(places))  # narrower than a bin it could not say where in it a point lies
        distance = (places - targets[..., axis : axis + 1]) / spread
        wanted = torch.softmax(-0.5 * distance.square(), -1)
        losses = losses - (wanted * torch.log_softmax(logits.float(), -1)).sum(-1)
    return mean_over_visible(losses, visible) / 2


def mean_over_visible(losses: Tensor, visible: Tensor) -> Tensor:
    """Give the mean of the points' losses (n, points) over the marked ones; 0 where none is."""
    return (losses * visible).sum() / visible.sum().clamp_min(1)
