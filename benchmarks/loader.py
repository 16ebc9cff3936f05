"""Batches from the pixel store, on two threads, against torchvision ImageFolder + DataLoader with two workers.

Both give normalised float32 batches of the same photos (about 640×480 JPEGs made from the sample photos) after a random
resized crop and a flip. The peer's workers are started, and everyone's files are in the page cache, before the clock
runs. Filling the store happens once in the life of a data set; its time is printed, not charged.

Usage: HEADSTART_DATA=… python benchmarks/loader.py [--quick] [--record]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from harness import Aim, data_folder, finish, interleaved, parse_arguments, ratio
from headstart.data.augmentation import AugmentationPolicy, Maps, draw_maps, evaluation_maps
from headstart.data.batches import BatchLoader
from headstart.data.sources import read_source
from headstart.data.store import PixelStore, StoreSettings, fill_store
from headstart.data.table import SampleTable
from headstart.memory import keep_freed_memory
from headstart.models.backbones import InputContract
from headstart.randomness import permutation
from headstart.recipe import make_recipe

CONTRACT = InputContract((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
POLICY = AugmentationPolicy(crop="random-resized", crop_scale=0.35, horizontal_flip=0.5)
BATCH_SIZE, WORKERS = 32, 2


def main() -> None:
    """Make the photos, fill the store, time epochs in turn and print the ratio."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)  # here as in DataLoader's workers: the two loader threads already fill two cores
    keep_freed_memory()  # as `train` does
    num_photos, rounds = (320, 5) if arguments.quick else (1600, 5)
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "photos"
        write_photos(photos, num_photos)
        raw, jpeg = (filled_store(photos, Path(scratch), encoding) for encoding in ("raw", "jpeg"))
        print_likeness(photos, *raw)
        contestants = {
            "headstart, raw store": partial(run_headstart, *raw, count()),
            "headstart, JPEG store": partial(run_headstart, *jpeg, count()),
            "ImageFolder + DataLoader": run_peer(photos),
        }
        seconds = interleaved(contestants, rounds=rounds)
    report(seconds, num_photos, record=arguments.record)


def report(seconds: dict[str, list[float]], num_photos: int, *, record: bool) -> None:
    """Print a row per contestant and the line of the aim."""
    for name, spent in seconds.items():
        print(f"{name:26} {num_photos / statistics.median(spent):8,.0f} images/s")
    theirs = seconds["ImageFolder + DataLoader"]
    value, spread = ratio(theirs, seconds["headstart, raw store"])
    from_jpeg, _ = ratio(theirs, seconds["headstart, JPEG store"])
    notes = [f"from a JPEG store: {from_jpeg:.1f}", f"{num_photos} photos of 640×480, {WORKERS} threads or workers"]
    print(f"from a JPEG store headstart is {from_jpeg:.1f}× as fast")
    aim = Aim("loader-vs-imagefolder", value, 8.0, spread=spread)
    finish([aim], packages=("headstart", "torch", "torchvision", "pillow"), record=record, notes=notes)


def write_photos(folder: Path, num_photos: int) -> None:
    """Write distinct photos of 640×480 or 480×640: parts of the sample photos, enlarged, in two class folders."""
    rng = np.random.default_rng(0)
    paths = sorted((data_folder() / "sample_photos").glob("*.jpg"))
    for number in range(num_photos):
        with Image.open(paths[number % len(paths)]) as image:
            image = image.convert("RGB")
        width, height = image.size
        left, top = rng.uniform(0, 0.3, 2) * image.size
        size = (640, 480) if width >= height else (480, 640)
        part = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + 0.7 * width, top + 0.7 * height))
        path = folder / f"class_{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.save(path, quality=90)


def filled_store(photos: Path, scratch: Path, encoding: Literal["raw", "jpeg"]) -> tuple[SampleTable, PixelStore]:
    """Fill a store and print how long that took."""
    recipe = make_recipe({"data": str(photos)})
    table = read_source(recipe, unpack_dir=scratch / "unpacked")
    settings = StoreSettings(
        image_size=CONTRACT.image_size, fit=CONTRACT.fit, encoding=encoding, max_pixels=recipe.max_pixels
    )
    start = time.perf_counter()
    table, store = fill_store(table, settings, scratch / encoding, quiet=True)
    print(f"filling the {encoding} store, once: {time.perf_counter() - start:.2f} s")
    return table, store


def our_loader(
    table: SampleTable, store: PixelStore, maps_for: Callable[..., Maps], order: NDArray[np.int64]
) -> BatchLoader:
    """Give headstart's loader over all photos."""
    return BatchLoader(
        store,
        table.kept["record"].to_numpy(),
        maps_for=maps_for,
        image_size=CONTRACT.image_size,
        batch_size=BATCH_SIZE,
        order=order,
        num_threads=WORKERS,
    )


def run_headstart(table: SampleTable, store: PixelStore, epochs: count[int]) -> None:
    """Take one epoch of normalised batches."""
    records, epoch = table.kept["record"].to_numpy(), next(epochs)

    def maps_for(positions: NDArray[np.int64]) -> Maps:
        return draw_maps(
            POLICY,
            seed=0,
            epoch=epoch,
            sample_ids=positions,
            sizes=store.sizes[records[positions]],
            image_size=CONTRACT.image_size,
            fit=CONTRACT.fit,
            crop_fraction=CONTRACT.crop_fraction,
        )

    order = permutation(0, stream="order", epoch=epoch, num_samples=len(records))
    for batch in our_loader(table, store, maps_for, order):
        CONTRACT.normalise(batch.pixels)


def run_peer(photos: Path) -> Callable[[], None]:
    """Give a function that takes one epoch from a DataLoader whose workers stay alive."""
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(224, scale=(POLICY.crop_scale, 1), ratio=(3 / 4, 4 / 3)),
            v2.RandomHorizontalFlip(POLICY.horizontal_flip),
            *to_input(),
        ]
    )
    data = ImageFolder(photos, chain)
    loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def run() -> None:
        for _ in loader:
            pass

    return run


def to_input() -> list[torch.nn.Module]:
    """Give torchvision's way from a PIL image to a normalised tensor."""
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(CONTRACT.mean, CONTRACT.std)]


def print_likeness(photos: Path, table: SampleTable, store: PixelStore) -> None:
    """Say how far apart the two lie where nothing is random: the evaluation view of the same photos."""
    peer = ImageFolder(photos, v2.Compose([v2.Resize(256), v2.CenterCrop(224), *to_input()]))
    records = table.kept["record"].to_numpy()

    def maps_for(positions: NDArray[np.int64]) -> Maps:
        sizes = store.sizes[records[positions]]
        return evaluation_maps(
            sizes, image_size=CONTRACT.image_size, fit=CONTRACT.fit, crop_fraction=CONTRACT.crop_fraction
        )

    place = {path: row for row, path in enumerate(table.absolute_paths(table.kept).to_list())}
    order = np.array([place[path] for path, _ in peer.samples[:BATCH_SIZE]])
    ours = CONTRACT.normalise(next(iter(our_loader(table, store, maps_for, order))).pixels)
    theirs = torch.stack([peer[number][0] for number in range(BATCH_SIZE)])
    levels = float((ours - theirs).abs().mean()) * 0.226 * 255
    print(f"evaluation view of the same photos: mean difference {levels:.2f} of 255 levels")


if __name__ == "__main__":
    main()
