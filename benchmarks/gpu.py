"""Training on a GPU: images a second of whole epochs from the pixel store, against the bare step on pixels in place.

Both are headstart's own step: bf16, channels last, AdamW, moving average, the loss checked at each step. The bare step
gets one batch that lies on the GPU; the epoch reads photos from a raw store, copies them to the GPU and renders them
there. With ``--compile`` both run compiled. The photos are drawn: what is in them makes no difference to the speed.

Usage: python benchmarks/gpu.py [--quick] [--compile] [--networks a,b] [--record]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from harness import Aim, finish
from headstart.data.batches import Batch
from headstart.data.geometry import identity
from headstart.data.sources import read_source
from headstart.data.store import PixelStore, StoreSettings, fill_store
from headstart.data.table import SampleTable
from headstart.models.network import new_network
from headstart.recipe import make_recipe
from headstart.training.fit import make_fabric
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.tasks import Classification

NETWORKS = {
    "mobilenetv2_100": (11_000, 512),
    "mobilenetv3_large_100": (13_000, 512),
    "mobilenetv3_small_100": (38_000, 1024),
    "efficientnet_b0": (8_000, 512),
    "resnet50": (7_000, 512),
    "vgg16": (3_500, 256),
}
"""Images a second to reach, and the batch size."""

SHARE = 0.92
NUM_PHOTOS = 2000
SIZE = 224


def main() -> None:
    """Time each network and print its rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--record", action="store_true", help="append the result to benchmarks/RESULTS.md")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device.")
    num_steps, rounds = (8, 2) if arguments.quick else (20, 3)
    aims: list[Aim] = []
    with tempfile.TemporaryDirectory() as scratch:
        table, store = _photos(Path(scratch))
        for name in arguments.networks.split(","):
            start = time.perf_counter()
            tuning = _tuning(name, table, store, Path(scratch) / name, num_steps, is_compiled=arguments.compile)
            found = [_rates(tuning, num_steps) for _ in range(rounds + 1)][1:]
            bare, epoch = (statistics.median(rate) for rate in zip(*found, strict=True))
            share = statistics.median(epoch / bare for bare, epoch in found)
            spent = time.perf_counter() - start
            print(f"{name}: bare step {bare:,.0f}, from the store {epoch:,.0f} images/s ({spent:.0f} s)", flush=True)
            parts = {part: f"{seconds:.2f}" for part, seconds in tuning.counters.seconds.items()}
            print(f"  seconds: {parts}", flush=True)
            aims += [Aim(f"gpu-{name}-images/s", bare, NETWORKS[name][0]), Aim(f"gpu-{name}-store", share, SHARE)]
    notes = [f"{torch.cuda.get_device_name()}; {SIZE} px, batches of {', '.join(str(b) for _, b in NETWORKS.values())}"]
    finish(aims, packages=("headstart", "torch", "timm"), record=arguments.record, notes=notes)


def _photos(scratch: Path) -> tuple[SampleTable, PixelStore]:
    """Draw photos of 256×341 in six classes, and read them into a raw store."""
    draws = np.random.default_rng(0)
    for number in range(NUM_PHOTOS):
        folder = scratch / "photos" / str(number % 6)
        folder.mkdir(parents=True, exist_ok=True)
        coarse = draws.integers(0, 256, (16, 22, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.resize(coarse, (341, 256), interpolation=cv2.INTER_CUBIC))
    recipe = make_recipe({"data": str(scratch / "photos")})
    settings = StoreSettings(image_size=(SIZE, SIZE), fit="crop", encoding="raw", max_pixels=recipe.max_pixels)
    table = read_source(recipe, unpack_dir=scratch / "unpacked")
    return fill_store(table, settings, scratch / "store", quiet=True)


def _tuning(
    name: str, table: SampleTable, store: PixelStore, folder: Path, num_steps: int, *, is_compiled: bool
) -> FineTuning:
    batch_size = NETWORKS[name][1]
    recipe = make_recipe({
        "backbone": name, "weights": "none", "batch_size": batch_size, "epochs": 1000, "patience": 1000,
        "batch_norm": "trained", "compile": "on" if is_compiled else "off", "checkpoint_seconds": 1e6,
    })  # fmt: skip
    rows = table.kept.sample(num_steps * batch_size, seed=0, with_replacement=True)
    task = Classification(recipe)
    samples = task.samples(rows, store)
    network = new_network(recipe, 6)
    network.unfreeze("all")
    network.to("cuda")
    data = TrainingData(store, samples, samples)
    return FineTuning(make_fabric(recipe), network, data, task=task, recipe=recipe, folder=folder)


def _rates(tuning: FineTuning, num_steps: int) -> tuple[float, float]:
    """Give images a second of the bare step, and of an epoch from the store."""
    size, num_images = tuning.recipe.batch_size, num_steps * tuning.recipe.batch_size
    start = time.perf_counter()
    tuning.counters.step = 0
    tuning.train_epoch()
    torch.cuda.synchronize()
    epoch = num_images / (time.perf_counter() - start)
    tuning.module.train()
    pixels = torch.randint(0, 256, (size, SIZE, SIZE, 3), dtype=torch.uint8, device="cuda")
    batch = Batch(pixels=pixels, positions=np.arange(size), affine=identity(size))
    start = time.perf_counter()
    for _ in range(num_steps):
        tuning.train_step(batch)
    torch.cuda.synchronize()
    return num_images / (time.perf_counter() - start), epoch


if __name__ == "__main__":
    main()
