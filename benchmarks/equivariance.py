"""How far pixels and points drift apart on their way: stored photo → augmented view, and back, without a network.

Soft dots are drawn at known places of a photo, the photo is turned, scaled, shifted and mirrored through one drawn map
(each path: OpenCV in threads, torch on a device), and the dots are found again by their centre of mass. Where they are
is compared with where the same map says that the points are (there), and after the inverse map with where they began
(back). Pairs have nothing to do with it: each dot is one point.

Usage: python benchmarks/equivariance.py [--quick] [--record]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness import Aim, finish, parse_arguments
from headstart.data import geometry
from headstart.data.augmentation import AugmentationPolicy, draw_maps
from headstart.data.rendering import render_batch, render_images

SIZE, FRAME, SIGMA = (256, 320), (256, 256), 3.0
POLICY = AugmentationPolicy(rotation=45, scale=0.2, shift=0.05, horizontal_flip=0.5)


def main() -> None:
    """Measure both paths on drawn maps and print the largest error."""
    arguments = parse_arguments((__doc__ or "").splitlines()[0])
    num_photos = 40 if arguments.quick else 400
    rng = np.random.default_rng(0)
    points = rng.uniform([60, 60], [SIZE[1] - 60, SIZE[0] - 60], (num_photos, 1, 2))
    photos = np.stack([dot(place) for place in points[:, 0]])
    maps = draw_maps(
        POLICY, seed=0, epoch=0, sample_ids=np.arange(num_photos), sizes=np.full((num_photos, 2), SIZE),
        image_size=FRAME, fit="letterbox", crop_fraction=1.0,
    )  # fmt: skip
    expected = geometry.apply_to_points(maps.affine, points)[:, 0]
    errors: dict[str, float] = {}
    for name, views in rendered(photos, maps).items():
        found = np.stack([centre(view) for view in views])
        inside = geometry.is_inside(expected - 20, (FRAME[0] - 40, FRAME[1] - 40))
        back = geometry.apply_to_points(geometry.invert(maps.affine), found[:, None])[:, 0]
        errors[f"{name}, there"] = float(np.linalg.norm(found - expected, axis=1)[inside].max())
        errors[f"{name}, back"] = float(np.linalg.norm(back - points[:, 0], axis=1)[inside].max())
    for name, error in errors.items():
        print(f"{name:16} {error:.4f} pixels at most")
    aim = Aim("equivariance-pixels", max(errors.values()), 0.05, at_most=True)
    notes = [f"{name}: {error:.4f} pixels at most" for name, error in errors.items()]
    notes.append(f"{num_photos} photos, ±45°, scale ±20 %, shift ±5 %, every second one mirrored")
    finish([aim], packages=("headstart", "torch", "opencv-python-headless"), record=arguments.record, notes=notes)


def dot(place: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw a soft dot on black; its centre of mass is its place, to the rounding of eight bits."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    light = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * SIGMA**2))
    return np.repeat(np.rint(light).astype(np.uint8)[..., None], 3, axis=2)


def centre(view: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Find the dot's centre of mass; the grey of the bars around the photo is far from it and left out."""
    light = view[..., 0].astype(np.float64)
    top = np.unravel_index(np.where(light > 200, light, 0).argmax(), light.shape)
    low = np.maximum(np.array(top) - 14, 0)
    part = light[low[0] : low[0] + 29, low[1] : low[1] + 29]
    y, x = np.mgrid[0 : part.shape[0], 0 : part.shape[1]] + 0.5
    return np.array([(x * part).sum(), (y * part).sum()]) / part.sum() + low[::-1]


def rendered(photos: NDArray[np.uint8], maps: Any) -> dict[str, NDArray[np.uint8]]:
    """Render the photos by each path."""
    sizes = np.full((len(photos), 2), SIZE)
    batch = render_batch(torch.from_numpy(photos), maps, sizes=sizes, image_size=FRAME)
    return {"OpenCV": render_images(list(photos), maps, image_size=FRAME), "torch": batch.numpy()}


if __name__ == "__main__":
    main()
