"""The contact sheet of a training that mixes photos: each mixed as its batches are, with the box that was pasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from headstart.training.mixing import draw_mixing

if TYPE_CHECKING:
    from headstart.recipe import Recipe

Image = NDArray[np.uint8]

BOX_COLOUR = (255, 255, 255)


def mix_sheet(images: list[list[Image]], recipe: Recipe) -> list[list[Image]]:
    """Mix the photos of each column of a sheet with each other, by the draws of the first steps.

    Args:
        images: uint8 (height, width, 3): a row a photo, a column a draw.
        recipe: How it mixes; where it does not, the sheet is given back as it is.
    """
    if not (recipe.cutmix or recipe.mixup) or not images:
        return images
    columns = [_mixed([row[column] for row in images], recipe, step=column) for column in range(len(images[0]))]
    return [list(row) for row in zip(*columns, strict=True)]


def _mixed(photos: list[Image], recipe: Recipe, *, step: int) -> list[Image]:
    height, width = photos[0].shape[:2]
    mixing = draw_mixing(recipe, step=step, num_samples=len(photos), image_size=(height, width))
    if mixing is None:
        return photos
    mixed = mixing.mixed_pixels(torch.from_numpy(np.stack(photos))).round().to(torch.uint8).numpy()
    for photo, (top, left, bottom, right) in zip(mixed, mixing.boxes.tolist(), strict=True):
        if bottom > top and right > left:
            cv2.rectangle(photo, (left, top), (right - 1, bottom - 1), BOX_COLOUR, thickness=max(1, height // 112))
    return list(mixed)
