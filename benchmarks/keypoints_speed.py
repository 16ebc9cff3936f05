"""What the data path costs while learning points: whole epochs against the bare training step on random pixels.

As ``finetune.py``, with what keypoints add: draws that keep the points in the picture, targets moved with the pixels,
pairs swapped in mirrored pictures. Faces of the Udacity set, MobileNetV2, 224 pixels, the default head and loss.

Usage: HEADSTART_DATA=… python benchmarks/keypoints_speed.py [--quick] [--record]
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from finetune import speed_ratios
from harness import Aim, data_folder, finish, parse_arguments
from headstart.data.keypoint_check import check_keypoints
from headstart.data.sources import read_source
from headstart.data.store import StoreSettings, fill_store
from headstart.memory import keep_freed_memory
from headstart.models.network import new_network
from headstart.recipe import make_recipe
from headstart.training.fit import make_fabric
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.tasks import make_task


def main() -> None:
    """Time epochs and bare steps in turn and print the ratio of their speeds."""
    arguments = parse_arguments((__doc__ or "").splitlines()[0])
    data = data_folder() / "face_keypoints_udacity"
    keep_freed_memory()  # as `train` does
    num_steps, rounds = (4, 2) if arguments.quick else (12, 7)
    with tempfile.TemporaryDirectory() as scratch:
        ratios = speed_ratios(_tuning(data, Path(scratch), num_steps=num_steps), num_steps=num_steps, rounds=rounds)
    aim = Aim("keypoints-epoch-vs-bare-step", statistics.median(ratios), 0.95, spread=(min(ratios), max(ratios)))
    finish([aim], packages=("headstart", "torch", "timm"), record=arguments.record)


def _tuning(data: Path, scratch: Path, *, num_steps: int) -> FineTuning:
    settings = {"data": str(data / "training_frames_keypoints.csv"), "image_root": str(data / "training")}
    recipe = make_recipe({**settings, "task": "keypoints", "epochs": 1000, "patience": 1000})
    table = read_source(recipe, unpack_dir=scratch / "unpacked")
    stored = StoreSettings(image_size=(224, 224), fit="letterbox", encoding="raw", max_pixels=recipe.max_pixels)
    table, store = fill_store(table, stored, scratch / "store", quiet=True)
    layout = table.keypoints
    table, _ = check_keypoints(table, layout, recipe) if layout else (replace(table), None)
    task = make_task(recipe, table)
    samples = task.samples(table.kept.sample(num_steps * recipe.batch_size, seed=0), store)
    network = new_network(recipe, layout.num_keypoints if layout else 0)
    network.unfreeze("all")
    data_of_run = TrainingData(store, samples, samples)
    return FineTuning(make_fabric(recipe), network, data_of_run, task=task, recipe=recipe, folder=scratch)


if __name__ == "__main__":
    main()
