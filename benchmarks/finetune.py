"""What the data path costs while fine-tuning: whole epochs against the bare training step on random pixels.

Both sides train the same network with the same batches, optimizer and moving average; the bare step gets one batch of
random pixels that lies in memory, the epoch reads, augments and collates photos from the store.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from harness import Aim, data_folder, finish, parse_arguments
from headstart.data.batches import Batch
from headstart.data.geometry import identity
from headstart.data.sources import read_source
from headstart.data.store import StoreSettings, fill_store
from headstart.memory import keep_freed_memory
from headstart.models.network import new_network
from headstart.recipe import make_recipe
from headstart.training.fit import make_fabric
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.tasks import Classification


def main() -> None:
    """Time epochs and bare steps in turn and print the ratio of their speeds."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    data = data_folder()
    keep_freed_memory()  # as `train` does
    num_steps, rounds = (4, 2) if arguments.quick else (12, 7)
    with tempfile.TemporaryDirectory() as scratch:
        tuning = _tuning(data, Path(scratch), num_steps=num_steps)
        ratios = speed_ratios(tuning, num_steps=num_steps, rounds=rounds)
    aim = Aim("finetune-epoch-vs-bare-step", statistics.median(ratios), 0.95, spread=(min(ratios), max(ratios)))
    finish([aim], packages=("headstart", "torch", "timm"), record=arguments.record)


def speed_ratios(tuning: FineTuning, *, num_steps: int, rounds: int) -> list[float]:
    """Give the epoch's speed over that of the bare step in each round, after one round to warm up."""
    return [_epoch_speed(tuning, num_steps) / _bare_speed(tuning, num_steps) for _ in range(rounds + 1)][1:]


def _tuning(data: Path, scratch: Path, *, num_steps: int) -> FineTuning:
    recipe = make_recipe({"data": str(data / "scenes_intel100"), "epochs": 1000, "patience": 1000})
    table = read_source(recipe, unpack_dir=scratch / "unpacked")
    settings = StoreSettings(image_size=(224, 224), fit="crop", encoding="raw", max_pixels=recipe.max_pixels)
    table, store = fill_store(table, settings, scratch / "store", quiet=True)
    rows = table.kept.sample(num_steps * recipe.batch_size, seed=0)
    task = Classification(recipe)
    samples = task.samples(rows, store)
    network = new_network(recipe, len(table.class_names))
    network.unfreeze("all")
    data_of_run = TrainingData(store, samples, samples)
    return FineTuning(make_fabric(recipe), network, data_of_run, task=task, recipe=recipe, folder=scratch)


def _epoch_speed(tuning: FineTuning, num_steps: int) -> float:
    """Images a second of an epoch of photos."""
    tuning.counters.step = 0
    start = time.perf_counter()
    tuning.train_epoch()
    return num_steps * tuning.recipe.batch_size / (time.perf_counter() - start)


def _bare_speed(tuning: FineTuning, num_steps: int) -> float:
    """Images a second of steps on one batch of random pixels."""
    size = tuning.recipe.batch_size
    pixels = torch.randint(0, 256, (size, *tuning.network.contract.image_size, 3), dtype=torch.uint8)
    batch = Batch(pixels=pixels, positions=np.arange(size), affine=identity(size))
    start = time.perf_counter()
    for _ in range(num_steps):
        tuning.train_step(batch)
    return num_steps * size / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
