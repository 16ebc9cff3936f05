"""CutMix and MixUp: each photo of a batch takes in part of another, and its target the same share of the other's.

Draws are functions of seed and step, like all randomness; ``loop.py`` applies them to the rendered batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.randomness import generator

if TYPE_CHECKING:
    from headstart.recipe import Recipe


@dataclass(frozen=True)
class Mixing:
    """How one batch is mixed.

    Attributes:
        partners: Which photo of the batch each takes from, shape (n,).
        shares: How much of each photo, and of its target, stays its own, shape (n,); 1: it is left as it is.
        boxes: What comes from the partner (top, left, bottom, right), in pixels, shape (n, 4); empty where all pixels
            are blended.
    """

    partners: NDArray[np.int64]
    shares: NDArray[np.float32]
    boxes: NDArray[np.int64]

    @property
    def is_blended(self) -> NDArray[np.bool_]:
        """Whether a photo is blended with its partner (MixUp), shape (n,); else it has a box of it."""
        top, left, bottom, right = self.boxes.T
        return (self.shares < 1) & ((bottom <= top) | (right <= left))

    def mixed_pixels(self, pixels: Tensor) -> Tensor:
        """Give the mixed photos; where any is blended as float32, else in their own type.

        Args:
            pixels: Shape (n, height, width, 3), on 0..255.

        Examples:
            >>> both = torch.stack([torch.zeros(2, 2, 3), torch.full((2, 2, 3), 200.0)]).to(torch.uint8)
            >>> half = np.full(2, 0.5, np.float32)
            >>> blend = Mixing(np.array([1, 0]), half, np.zeros((2, 4), np.int64))
            >>> blend.mixed_pixels(both).unique().tolist()
            [100.0]
        """
        partners = pixels[torch.from_numpy(self.partners).to(pixels.device)]
        if self.is_blended.any():
            pixels, partners = pixels.float(), partners.float()
            shares = np.where(self.is_blended, self.shares, 1.0).astype(np.float32)
            mixed = torch.lerp(partners, pixels, torch.from_numpy(shares).to(pixels.device)[:, None, None, None])
        else:
            mixed = pixels.clone()
        for number, (top, left, bottom, right) in enumerate(self.boxes.tolist()):
            mixed[number, top:bottom, left:right] = partners[number, top:bottom, left:right]
        return mixed

    def mixed_shares(self, shares: Tensor) -> Tensor:
        """Give the mixed targets, where targets are shares of the classes (n, classes).

        Examples:
            >>> mixing = Mixing(np.array([1, 0]), np.array([0.75, 1.0], np.float32), np.zeros((2, 4), np.int64))
            >>> mixing.mixed_shares(torch.eye(2)).tolist()
            [[0.75, 0.25], [0.0, 1.0]]
        """
        own = torch.from_numpy(self.shares).to(shares.device)[:, None]
        return shares * own + shares[torch.from_numpy(self.partners).to(shares.device)] * (1 - own)


def draw_mixing(recipe: Recipe, *, step: int, num_samples: int, image_size: tuple[int, int]) -> Mixing | None:
    """Draw how a batch is mixed; None where it is left as it is.

    Args:
        recipe: ``cutmix``, ``mixup``, their alphas, ``mix_per`` and ``seed``.
        step: The step's number, over all epochs (and devices).
        num_samples: Of the batch.
        image_size: (height, width).

    References:
        Yun, Han, Oh, Chun, Choe, Yoo: "CutMix", ICCV 2019, eq. 1 and 2; Zhang, Cisse, Dauphin, Lopez-Paz: "mixup",
        ICLR 2018, eq. 1.
    """
    if not (recipe.cutmix or recipe.mixup):
        return None
    draws = generator(recipe.seed, stream="mixing", epoch=step)
    partners = draws.permutation(num_samples)
    num_draws = num_samples if recipe.mix_per == "sample" else 1
    chosen = draws.random(num_draws)
    is_cut, is_mixed = chosen < recipe.cutmix, chosen < recipe.cutmix + recipe.mixup
    areas = draws.beta(recipe.cutmix_alpha or 1.0, recipe.cutmix_alpha or 1.0, num_draws)
    blends = draws.beta(recipe.mixup_alpha or 1.0, recipe.mixup_alpha or 1.0, num_draws)
    boxes, kept = _boxes(1 - areas, draws.random((num_draws, 2)), image_size)
    shares = np.where(is_cut, kept, np.where(is_mixed, blends, 1.0)).astype(np.float32)
    boxes = np.where(is_cut[:, None], boxes, 0)
    if not is_mixed.any():
        return None
    repeats = num_samples // num_draws
    return Mixing(partners, np.repeat(shares, repeats), np.repeat(boxes, repeats, axis=0))


def _boxes(
    areas: NDArray[np.float64], centres: NDArray[np.float64], image_size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give boxes of these shares of the area around these places, cut at the edges, and the share that is left."""
    size = np.array(image_size)
    sides = np.sqrt(areas)[:, None] * size
    middles = centres * size
    corners = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
    boxes = np.clip(np.round(corners), 0, np.tile(size, 2)).astype(np.int64)
    inside = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return boxes, 1 - inside / size.prod()
