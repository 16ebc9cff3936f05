"""Probe, then fine-tune: what ``headstart train`` runs between the split and the scores.

Each stage leaves its result in the run folder (``probe/`` is a bundle of its own, ``checkpoints/`` the fine-tuning) and
is not repeated when the run is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.data.store import PixelStore
from headstart.data.table import SampleTable
from headstart.errors import TrainingError, must_be
from headstart.files import write_json
from headstart.memory import keep_freed_memory
from headstart.models.bundle import load_bundle, save_bundle
from headstart.progress import say
from headstart.recipe import Recipe
from headstart.training.checkpoints import load_checkpoint
from headstart.training.features import FeatureCache, cache_features
from headstart.training.history import History, Row
from headstart.training.loop import BEST, LAST, FineTuning, LabelledRecords, TrainingData
from headstart.training.probe import LabelledFeatures, fit_probe, is_better

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from headstart.models.network import Network


_PROBE_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class FitResult:
    """What training chose, on validation alone.

    Attributes:
        stage: ``"probe"`` or ``"fine-tune"``: whichever scored better.
        epoch: The chosen epoch of that stage, counted from 1.
        probe_scores: Validation scores of the probe.
        fine_tune_scores: Validation scores of the fine-tuned network; None where there was no fine-tuning.
        seconds: Seconds by stage and part.
        num_images: Images that went through each stage.
        notes: What the user should know, a sentence each.
    """

    stage: str
    epoch: int
    probe_scores: dict[str, float]
    fine_tune_scores: dict[str, float] | None
    seconds: dict[str, dict[str, float]]
    num_images: dict[str, int]
    notes: tuple[str, ...] = ()


def samples_of(table: SampleTable, split: str) -> LabelledRecords:
    """Give a split's samples as arrays: store rows, labels, sample ids."""
    import polars as pl

    rows = table.kept.filter(pl.col("split") == split)
    columns = (rows[name].cast(pl.Int64).to_numpy() for name in ("record", "label", "sample_id"))
    return LabelledRecords(*columns)


def fit(network: Network, table: SampleTable, store: PixelStore, recipe: Recipe, *, folder: Path) -> FitResult:
    """Train the network: a probe on cached features, then fine-tuning from there; keep what validates better.

    Args:
        network: Pretrained backbone and a fresh head. Left with the chosen weights, in eval mode.
        table: Checked and split.
        store: The pixels.
        recipe: The settings.
        folder: The run folder; stages found finished in it are not repeated.
    """
    network.to(choose_device(recipe))
    probe = _probe_stage(network, table, store, recipe, folder)
    seconds, num_images = {"probe": probe["seconds"]}, {"probe": probe["num_images"]}
    notes = tuple(note for note in (probe["note"],) if note)
    if recipe.unfreeze == "none" or recipe.epochs == 0:
        return FitResult("probe", probe["epoch"], probe["scores"], None, seconds, num_images, notes)
    _launch(recipe, folder, store)
    counters = load_checkpoint(folder / "checkpoints" / LAST)[1]["counters"]
    seconds["fine-tune"], num_images["fine-tune"] = counters["seconds"], counters["num_images"]
    fine_tune_wins = is_better(counters["best_score"], probe["scores"][recipe.monitor], monitor=recipe.monitor)
    if fine_tune_wins:
        network.load_state_dict(load_checkpoint(folder / "checkpoints" / BEST)[0])
    network.eval()
    stage, epoch = ("fine-tune", counters["best_epoch"]) if fine_tune_wins else ("probe", probe["epoch"])
    if not fine_tune_wins:
        notes += ("Fine-tuning did not beat the probe on validation, so the probe is the model.",)
    return FitResult(stage, epoch, probe["scores"], counters["best_scores"], seconds, num_images, notes)


def probe_features(
    network: Network, table: SampleTable, store: PixelStore, *, num_threads: int | None = None
) -> FeatureCache:
    """Give the frozen backbone's features of the training and validation samples, computed once."""
    records = np.concatenate([samples_of(table, split).records for split in _PROBE_SPLITS])
    return cache_features(network, store, records, folder=store.directory / "features", num_threads=num_threads)


def _probe_stage(
    network: Network, table: SampleTable, store: PixelStore, recipe: Recipe, folder: Path
) -> dict[str, Any]:
    """Fit the probe, or take it from the run folder; the network's head is left at it."""
    record = folder / "probe" / "probe.json"
    if record.exists():
        network.load_state_dict(load_bundle(folder / "probe").network.state_dict())
        return json.loads(record.read_text(encoding="utf-8"))
    cache = probe_features(network, table, store, num_threads=recipe.num_threads)
    train, validation = (
        LabelledFeatures.from_arrays(cache.of(samples.records), samples.labels)
        for samples in (samples_of(table, split) for split in _PROBE_SPLITS)
    )
    history = History(folder)
    result = fit_probe(network.head, train, validation, recipe, on_epoch=history.append)
    history.close()
    seconds = cache.log.seconds | {"head": sum(float(row["seconds"]) for row in result.rows)}
    content = {
        "epoch": result.epoch,
        "scores": result.scores,
        "rows": result.rows,
        "seconds": seconds,
        "num_images": cache.log.num_images,
        "note": cache.log.note,
    }
    save_bundle(folder / "probe", network, class_names=table.class_names, temperature=1.0, extra={"stage": "probe"})
    write_json(record, content)
    score, name = result.scores[recipe.monitor], recipe.monitor.replace("_", " ")
    say(f"probe: validation {name} {score:.4f} with {recipe.backbone} frozen (epoch {result.epoch})")
    return content


def choose_device(recipe: Recipe) -> torch.device:
    """Give the device that trains, or the first of several.

    Raises:
        TrainingError: The device asked for is not there, or there are fewer devices.
    """
    is_there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if recipe.device in is_there and not is_there[recipe.device]():
        remedy = f"No {recipe.device.upper()} device found; try --device cpu."
        raise TrainingError(must_be("device", "a device of this machine", recipe.device, remedy))
    on_gpu = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())
    if on_gpu and recipe.num_devices > torch.cuda.device_count():
        expected = f"at most {torch.cuda.device_count()}, the CUDA devices here"
        raise TrainingError(must_be("num_devices", expected, recipe.num_devices, "Use fewer."))
    kind = "cuda" if on_gpu else "cpu" if recipe.device == "auto" else recipe.device
    return torch.device(kind) if kind == "cpu" else torch.device(kind, 0)


def make_fabric(recipe: Recipe) -> Fabric:
    """Choose devices and precision: fp32 on a CPU; bf16 on a GPU that has it, else fp16.

    Raises:
        TrainingError: See ``choose_device``.
    """
    from lightning.fabric import Fabric  # seconds to import, and only fine-tuning needs it

    accelerator, precision = choose_device(recipe).type, recipe.precision
    if precision == "auto":
        on_gpu = accelerator == "cuda"
        precision = "32-true" if not on_gpu else "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    strategy = "ddp_spawn" if recipe.num_devices > 1 else "auto"
    return Fabric(accelerator=accelerator, devices=recipe.num_devices, precision=precision, strategy=strategy)


def _launch(recipe: Recipe, folder: Path, store: PixelStore) -> None:
    fabric = make_fabric(recipe)
    work: Callable[[Fabric], None] = partial(
        _fine_tune_process, folder=folder, store_directory=store.directory, recipe=recipe
    )
    if recipe.num_devices == 1:
        work(fabric)
    else:
        fabric.launch(work)


def _fine_tune_process(fabric: Fabric, *, folder: Path, store_directory: Path, recipe: Recipe) -> None:
    """Fine-tune from the probe's bundle. Everything comes from files, so each rank can be a process of its own."""
    keep_freed_memory()
    network = load_bundle(folder / "probe").network
    network.unfreeze(recipe.unfreeze)
    is_pretrained = recipe.weights != "none"
    network.freeze_statistics(frozen=recipe.batch_norm == "frozen" or (recipe.batch_norm == "auto" and is_pretrained))
    table = SampleTable.load(folder / "table.parquet")
    history = History(folder, _rows_so_far(folder)) if fabric.is_global_zero else None
    tuning = FineTuning(
        fabric,
        network,
        TrainingData(PixelStore.open(store_directory), samples_of(table, "train"), samples_of(table, "validation")),
        recipe=recipe,
        folder=folder,
        history=history,
        on_epoch=partial(_say_epoch, recipe=recipe),
    )
    tuning.run()
    if history is not None:
        history.close()


def _rows_so_far(folder: Path) -> list[Row]:
    last = folder / "checkpoints" / LAST
    if last.exists():
        return load_checkpoint(last)[1]["rows"]
    return json.loads((folder / "probe" / "probe.json").read_text(encoding="utf-8"))["rows"]


def _say_epoch(row: Row, recipe: Recipe) -> None:
    score = float(row[f"validation_{'loss' if recipe.monitor == 'log_loss' else recipe.monitor}"])
    say(
        f"epoch {row['epoch']:>3}/{recipe.epochs}  train loss {row['train_loss']:.4f}  validation loss "
        f"{row['validation_loss']:.4f}  {recipe.monitor} {score:.4f}  lr {row['lr']:.1e}  "
        f"{row['images_per_second']:,.0f} images/s"
    )
