"""Augmentation on one thread: photos of 256×256 → normalised 224×224 batches, against torchvision v2 and Kornia.

Everyone crops at random (35 to 100 % of the area), flips, rotates by up to 10 degrees, changes brightness, contrast,
saturation and hue, normalises, and gives a float32 batch. Decoding is not part of it: each gets photos as it likes them
best (PIL images, uint8 tensors, one float32 batch, arrays).

Usage: HEADSTART_DATA=… python benchmarks/augment.py [--quick] [--record]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import count

import cv2
import kornia.augmentation as K
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from harness import Aim, data_folder, finish, interleaved, parse_arguments, ratio
from headstart.data.augmentation import PRESETS, draw_maps
from headstart.data.rendering import render_images
from headstart.models.backbones import InputContract

CONTRACT = InputContract((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
POLICY = PRESETS["standard"]
BATCH_SIZE = 32


def main() -> None:
    """Time the contestants in turn and print the ratios."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    photos = read_photos()
    contestants = {
        "headstart": partial(run_headstart, photos, count()),
        "torchvision v2, PIL": partial(run_each, pil_chain(), [Image.fromarray(photo) for photo in photos]),
        "torchvision v2, tensor": partial(run_each, tensor_chain(), [as_tensor(photo) for photo in photos]),
        "Kornia, batch": partial(run_kornia, kornia_chain(), torch.stack([as_tensor(photo) for photo in photos])),
    }
    for name, run in contestants.items():
        assert run().shape == (BATCH_SIZE, 3, 224, 224), name
    report(contestants, rounds=5 if arguments.quick else 31, record=arguments.record)


def report(contestants: dict[str, Callable[[], torch.Tensor]], *, rounds: int, record: bool) -> None:
    """Print a row per contestant and the line of the aim."""
    seconds = interleaved(contestants, rounds=rounds)
    ours = seconds.pop("headstart")
    print(f"{'headstart':24} {statistics.median(ours) / BATCH_SIZE * 1e3:7.3f} ms an image")
    for name, theirs in seconds.items():
        middle, (low, high) = ratio(theirs, ours)
        each = statistics.median(theirs) / BATCH_SIZE * 1e3
        print(f"{name:24} {each:7.3f} ms an image; headstart is {middle:.1f}× as fast ({low:.1f} to {high:.1f})")
    better = min((name for name in seconds if "torchvision" in name), key=lambda name: statistics.median(seconds[name]))
    value, spread = ratio(seconds[better], ours)
    aim = Aim("augment-vs-torchvision", value, 8.0, spread=spread)
    notes = [f"better torchvision chain: {better}", f"one thread, batches of {BATCH_SIZE}, {rounds} rounds"]
    packages = ("headstart", "torch", "torchvision", "kornia", "opencv-python-headless")
    finish([aim], packages=packages, record=record, notes=notes)


def read_photos() -> list[NDArray[np.uint8]]:
    """Give one batch of real photos, 256×256."""
    paths = sorted((data_folder() / "sample_photos").glob("*.jpg"))
    photos = []
    for path in paths:
        with Image.open(path) as image:
            image = image.convert("RGB")
            side = min(image.size)
            photos.append(np.asarray(image.crop((0, 0, side, side)).resize((256, 256), Image.Resampling.BICUBIC)))
    return [photos[number % len(photos)] for number in range(BATCH_SIZE)]


def as_tensor(photo: NDArray[np.uint8]) -> torch.Tensor:
    """Give a photo as torchvision holds it: channels first."""
    return torch.from_numpy(photo.copy()).permute(2, 0, 1).contiguous()


def run_headstart(photos: list[NDArray[np.uint8]], epochs: count[int]) -> torch.Tensor:
    """Draw, render, normalise."""
    maps = draw_maps(
        POLICY,
        seed=0,
        epoch=next(epochs),
        sample_ids=np.arange(len(photos)),
        sizes=[photo.shape[:2] for photo in photos],
        image_size=CONTRACT.image_size,
        fit=CONTRACT.fit,
        crop_fraction=CONTRACT.crop_fraction,
    )
    return CONTRACT.normalise(torch.from_numpy(render_images(photos, maps, image_size=CONTRACT.image_size)))


def shared_chain() -> list[torch.nn.Module]:
    """Give torchvision's counterpart of the "standard" preset."""
    return [
        v2.RandomResizedCrop(224, scale=(POLICY.crop_scale, 1), ratio=(3 / 4, 4 / 3)),
        v2.RandomHorizontalFlip(POLICY.horizontal_flip),
        v2.RandomRotation(POLICY.rotation, interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(POLICY.brightness, POLICY.contrast, POLICY.saturation, POLICY.hue),
    ]


def to_input() -> list[torch.nn.Module]:
    """Give torchvision's normalisation."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(CONTRACT.mean, CONTRACT.std)]


def pil_chain() -> v2.Compose:
    """Give the chain on PIL images."""
    return v2.Compose([*shared_chain(), v2.PILToTensor(), *to_input()])


def tensor_chain() -> v2.Compose:
    """Give the chain on uint8 tensors."""
    return v2.Compose([*shared_chain(), *to_input()])


def run_each(chain: v2.Compose, photos: list[Image.Image] | list[torch.Tensor]) -> torch.Tensor:
    """Change photos one by one, as a data set does, and stack them."""
    return torch.stack([chain(photo) for photo in photos])


def kornia_chain() -> K.AugmentationSequential:
    """Give Kornia's counterpart, on a batch of float tensors."""
    return K.AugmentationSequential(
        K.RandomResizedCrop((224, 224), scale=(POLICY.crop_scale, 1), ratio=(3 / 4, 4 / 3)),
        K.RandomHorizontalFlip(p=POLICY.horizontal_flip),
        K.RandomRotation(degrees=POLICY.rotation, p=1.0),
        K.ColorJitter(POLICY.brightness, POLICY.contrast, POLICY.saturation, POLICY.hue, p=1.0),
        K.Normalize(torch.tensor(CONTRACT.mean), torch.tensor(CONTRACT.std)),
    )


def run_kornia(chain: K.AugmentationSequential, photos: torch.Tensor) -> torch.Tensor:
    """Change a whole batch at once."""
    with torch.no_grad():
        return chain(photos.float() / 255)


if __name__ == "__main__":
    main()
