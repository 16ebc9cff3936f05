"""What bench_losses.py and bench_optimizers.py share: the same three epochs under several settings, over seeds.

On cached features a head is trained on all scenes; a fine-tune of all layers sees a part of them, small. Scores are of
validation: the test set takes no part in choosing defaults. The step's time is that of the whole fine-tuning step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import Aim, data_folder, finish, parse_arguments
from headstart.data.batches import Batch
from headstart.data.geometry import identity
from headstart.data.sources import read_source
from headstart.data.splits import assign_splits
from headstart.memory import keep_freed_memory
from headstart.models.network import Network, new_network
from headstart.preparation import PreparedData, prepare
from headstart.recipe import Recipe, make_recipe
from headstart.training.features import cache_features
from headstart.training.fit import make_fabric, samples_of
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.probe import TargetFeatures, fit_probe
from headstart.training.probe_settings import probe_recipe
from headstart.training.tasks import make_task

EPOCHS = 3
FINE_TUNE_SIZE = 128
STEP_AIM = 1.05

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """Validation accuracy in percent over seeds."""

    values: list[float]

    @property
    def words(self) -> str:
        """Mean, and the half-width of a 95 % interval over seeds (Student's t)."""
        if len(self.values) < 2:
            return f"{self.values[0]:.1f}"
        t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}[len(self.values)]
        half = t * statistics.stdev(self.values) / len(self.values) ** 0.5
        return f"{statistics.mean(self.values):.1f} ± {half:.1f}"


def main(title: str, contestants: Mapping[str, Settings], *, heavier: Sequence[str] = ()) -> None:
    """Compare settings and print the table.

    Args:
        title: First line of the script.
        contestants: Settings by name; the first is the default that the others' steps are measured against.
        heavier: Names whose mathematics needs more than the default's: their step is told, not judged.
    """
    arguments = parse_arguments(title)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        found, network = _prepared(data_folder(), Path(scratch))
        rows = {name: [_on_features(found, network, settings, arguments)] for name, settings in contestants.items()}
        for name, settings in contestants.items():
            rows[name].append(_fine_tuned(found, settings, arguments, Path(scratch)))
            print(f"{name}: features {rows[name][0].words}, fine-tune {rows[name][1].words}", flush=True)
        steps = _step_ratios(found, contestants, Path(scratch), rounds=4 if arguments.quick else 12)
    lines = [f"{'':20} {'cached features':>16} {'fine-tune':>16} {'step':>6}"]
    lines += [f"{name:20} {a.words:>16} {b.words:>16} {steps[name][0]:6.2f}" for name, (a, b) in rows.items()]
    print("\n".join(lines))
    judged = [name for name in contestants if name not in heavier]
    aims = [Aim(f"step-{name}", steps[name][0], STEP_AIM, at_most=True, spread=steps[name][1]) for name in judged[1:]]
    table = "\n".join(f"  {line}" for line in ("```", *lines, "```"))
    notes = [f"validation accuracy after {EPOCHS} epochs, mean and 95 % interval over seeds:\n\n{table}\n"]
    finish(aims, packages=("headstart", "torch", "timm"), record=arguments.record, notes=notes)


def _prepared(data: Path, scratch: Path) -> tuple[PreparedData, Network]:
    recipe = make_recipe({"data": str(data / "scenes_intel100" / "train"), "store_dir": str(scratch / "store"),
                          "test_fraction": 0.0, "validation_fraction": 0.2})  # fmt: skip
    table = read_source(recipe, unpack_dir=scratch / "unpacked")
    network = new_network(recipe, len(table.class_names))
    found = prepare(table, recipe, image_size=network.contract.image_size, with_splits=False)
    table, _ = assign_splits(found.table, recipe)
    return PreparedData(**{**vars(found), "table": table}), network


def _on_features(found: PreparedData, network: Network, settings: Settings, arguments: argparse.Namespace) -> Scored:
    scores = []
    for seed in range(2 if arguments.quick else 5):
        recipe = make_recipe({"unfreeze": "none", "epochs": EPOCHS, "seed": seed, **settings})
        task = make_task(recipe, found.table)
        parts = []
        for split in ("train", "validation"):
            samples = samples_of(task, found.table, found.store, split)
            cache = cache_features(network, found.store, samples.records, folder=found.store.directory / "features")
            targets = (torch.from_numpy(samples.labels.copy()),)
            parts.append(TargetFeatures.from_arrays(cache.of(samples.records), targets, samples))
        head = new_network(recipe.updated(weights="none"), len(found.table.class_names)).head
        result = fit_probe(head, parts[:1], parts[1], probe_recipe(recipe), task=task, contract=network.contract)
        scores.append(100 * result.scores["accuracy"])
    return Scored(scores)


def _tuning(found: PreparedData, recipe: Recipe, folder: Path, *, per_class: int) -> FineTuning:
    task = make_task(recipe, found.table)
    kept = found.table.kept
    rows = kept.filter(split="train").group_by("label", maintain_order=True).head(per_class)
    train = task.samples(rows, found.store)
    validation = task.samples(kept.filter(split="validation").sample(240, seed=0), found.store)
    network = new_network(recipe, len(found.table.class_names))
    network.freeze_statistics()
    data = TrainingData(found.store, train, validation)
    return FineTuning(make_fabric(recipe), network, data, task=task, recipe=recipe, folder=folder)


def _fine_tuned(found: PreparedData, settings: Settings, arguments: argparse.Namespace, scratch: Path) -> Scored:
    scores = []
    for seed in range(1 if arguments.quick else 3):
        recipe = make_recipe({"epochs": EPOCHS, "seed": seed, "image_size": FINE_TUNE_SIZE, "batch_size": 16,
                              "ema_decay": 0.0, **settings})  # fmt: skip
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            tuning = _tuning(found, recipe, Path(folder), per_class=16 if arguments.quick else 40)
            counters = tuning.run()
        scores.append(100 * float(counters.best_score or 0.0))
    return Scored(scores)


def _step_ratios(
    found: PreparedData, contestants: Mapping[str, Settings], scratch: Path, *, rounds: int
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Give the time of each contestant's step over that of the first, round by round."""
    tunings = {}
    for name, settings in contestants.items():
        recipe = make_recipe({"image_size": FINE_TUNE_SIZE, "epochs": 10**5, **settings})
        tunings[name] = _tuning(found, recipe, scratch / name, per_class=8)
    pixels = torch.randint(0, 256, (32, FINE_TUNE_SIZE, FINE_TUNE_SIZE, 3), dtype=torch.uint8)
    batch = Batch(pixels=pixels, positions=np.arange(32), affine=identity(32))
    seconds: dict[str, list[float]] = {name: [] for name in tunings}
    for number in range(rounds + 1):
        for name, tuning in tunings.items():
            tuning.module.train()
            start = time.perf_counter()
            tuning.train_step(batch)
            if number:
                seconds[name].append(time.perf_counter() - start)
    base = next(iter(seconds.values()))
    ratios = {name: [a / b for a, b in zip(times, base, strict=True)] for name, times in seconds.items()}
    return {name: (statistics.median(found), (min(found), max(found))) for name, found in ratios.items()}
