"""Probe, then fine-tune: what ``headstart train`` runs between the split and the scores.

Each stage leaves its result in the run folder (``probe/`` is a bundle of its own, ``checkpoints/`` the fine-tuning) and
is not repeated when the run is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from headstart.data.augmentation import policy_from_recipe
from headstart.data.store import PixelStore
from headstart.data.table import SampleTable
from headstart.errors import TrainingError, must_be
from headstart.files import write_json
from headstart.memory import keep_freed_memory
from headstart.models.bundle import load_bundle, save_bundle
from headstart.models.heads import CoordinateHead
from headstart.models.inference import InferenceLog, run_network
from headstart.progress import say
from headstart.recipe import Recipe
from headstart.recipe_defaults import trains_head_on_features
from headstart.training.activations import keep_activations
from headstart.training.checkpoints import load_checkpoint
from headstart.training.features import FeatureCache, cache_features, num_fixed_views, view_of
from headstart.training.history import History, Row
from headstart.training.loop import BEST, LAST, FineTuning, TrainingData
from headstart.training.probe import TargetFeatures, fit_probe
from headstart.training.probe_settings import probe_recipe
from headstart.training.schedules import is_better
from headstart.training.tasks import Task, make_task, mean_targets

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from headstart.models.network import Network


_PROBE_SPLITS = ("train", "validation")
_PROBE_LAST = Path("probe", "last.safetensors")  # where the head stands while it trains


@dataclass(frozen=True)
class FitResult:
    """What training chose, on validation alone.

    Attributes:
        stage: ``"fine-tune"``, or what came before it where that scored better: ``"probe"``, or ``"start"`` (the
            network of the run that this one continues).
        epoch: The chosen epoch of that stage, counted from 1; 0 for the start.
        probe_scores: Validation scores before fine-tuning; none where a fresh head cannot be probed.
        fine_tune_scores: Validation scores of the fine-tuned network; None where there was no fine-tuning.
        seconds: Seconds by stage and part.
        num_images: Images that went through each stage.
        notes: What the user should know, a sentence each.
        first_stage: What came before fine-tuning: ``"probe"`` or ``"start"``.
    """

    stage: str
    epoch: int
    probe_scores: dict[str, float]
    fine_tune_scores: dict[str, float] | None
    seconds: dict[str, dict[str, float]]
    num_images: dict[str, int]
    notes: tuple[str, ...] = ()
    first_stage: str = "probe"


def samples_of(task: Task, table: SampleTable, store: PixelStore, split: str) -> Any:
    """Give a split's samples as arrays."""
    return task.samples(table.kept.filter(pl.col("split") == split), store)


def fit(
    network: Network,
    table: SampleTable,
    store: PixelStore,
    recipe: Recipe,
    *,
    folder: Path,
    deadline: float | None = None,
) -> FitResult:
    """Train the network: a probe on cached features, then fine-tuning from there; keep what validates better.

    Args:
        network: Pretrained backbone and a fresh head, or the network of the run that this one continues. Left with the
            chosen weights, in eval mode.
        table: Checked and split.
        store: The pixels.
        recipe: The settings.
        folder: The run folder; stages found finished in it are not repeated.
        deadline: When fine-tuning has to be done, on ``time.monotonic``'s clock.
    """
    network.to(choose_device(recipe))
    first = _first_stage(network, table, store, recipe, folder)
    stage, monitor, before = first["stage"], recipe.monitor, first["scores"]
    seconds, num_images = {stage: first["seconds"]}, {stage: first["num_images"]}
    notes = tuple(note for note in (first["note"],) if note)
    if recipe.epochs == 0 or (stage == "probe" and recipe.trains_only_head):
        return FitResult(stage, first["epoch"], before, None, seconds, num_images, notes, stage)
    _launch(recipe, folder, store, deadline)
    counters = load_checkpoint(folder / "checkpoints" / LAST)[1]["counters"]
    seconds["fine-tune"], num_images["fine-tune"] = counters["seconds"], counters["num_images"]
    if counters.get("stopped"):
        notes += (f"Training diverged at half the learning rate, too, and was stopped: {counters['stopped']}.",)
    best = counters["best_score"]
    fine_tune_wins = best is not None and is_better(best, before.get(monitor), monitor=monitor)
    if fine_tune_wins:
        network.load_state_dict(load_checkpoint(folder / "checkpoints" / BEST)[0])
    network.eval()
    chosen, epoch = ("fine-tune", counters["best_epoch"]) if fine_tune_wins else (stage, first["epoch"])
    if not fine_tune_wins:
        notes += (f"Fine-tuning did not beat the {stage} on validation, so the {stage} is the model.",)
    return FitResult(chosen, epoch, before, counters["best_scores"], seconds, num_images, notes, stage)


def probe_features(network: Network, table: SampleTable, store: PixelStore, recipe: Recipe) -> FeatureCache:
    """Give the frozen backbone's features of the training and validation samples, computed once.

    With folds, of all samples: each fold needs others of them, and all folds share one cache.
    """
    is_needed = pl.lit(value=True) if recipe.folds else pl.col("split").is_in(_PROBE_SPLITS)
    samples = make_task(recipe, table).samples(table.kept.filter(is_needed), store)
    folder, threads = store.directory / "features", recipe.num_threads
    return cache_features(network, store, samples.records, folder=folder, boxes=samples.boxes, num_threads=threads)


def _first_stage(
    network: Network, table: SampleTable, store: PixelStore, recipe: Recipe, folder: Path
) -> dict[str, Any]:
    """Do what comes before fine-tuning, or take it from the run folder; the network is left at it."""
    record = folder / "probe" / "probe.json"
    if record.exists():
        (folder / _PROBE_LAST).unlink(missing_ok=True)
        network.load_state_dict(load_bundle(folder / "probe").network.state_dict())
        return {"stage": "probe"} | json.loads(record.read_text(encoding="utf-8"))
    task = make_task(recipe, table)
    if recipe.from_run is None and network.head.takes == "pooled" and probe_recipe(recipe).epochs:
        content = _probe(network, table, store, recipe, task=task, folder=folder)
    else:
        History(folder, task.score_names).close()
        content = _start(network, table, store, recipe, task=task)
    save_bundle(
        folder / "probe", network, class_names=table.output_names, keypoints=table.keypoints, labels=table.labels,
        extra={"stage": content["stage"]},
    )  # fmt: skip
    write_json(record, content)
    (folder / _PROBE_LAST).unlink(missing_ok=True)
    if content["scores"]:
        how = f"with {recipe.backbone} frozen (epoch {content['epoch']})"
        how = how if content["stage"] == "probe" else f"of {recipe.from_run}, from which this run goes on"
        say(f"{content['stage']}: validation {word_score(content['scores'], recipe.monitor)} {how}")
    return content


def _probe(
    network: Network, table: SampleTable, store: PixelStore, recipe: Recipe, *, task: Task, folder: Path
) -> dict[str, Any]:
    """Train the head on cached features: of the photos as they are, or of some augmented views of each."""
    cache = probe_features(network, table, store, recipe)
    samples = [samples_of(task, table, store, split) for split in _PROBE_SPLITS]
    train, validation = (_target_features(cache, theirs, network, task) for theirs in samples)
    seconds, num_images = dict(cache.log.seconds), cache.log.num_images
    views = [train]
    if num_fixed_views(recipe, task):
        among = _samples_of_all_folds(task, table, store, recipe)
        views, logs = view_features(
            network, samples[0], store, recipe, task=task, among=samples[0] if among is None else among
        )
        for log in logs:
            seconds |= {part: seconds.get(part, 0.0) + value for part, value in log.seconds.items()}
            num_images += log.num_images
    if isinstance(network.head, CoordinateHead):
        network.head.start_at(mean_targets(*train.targets))
    history = History(folder, task.score_names)
    try:
        result = fit_probe(
            network.head, views, validation, probe_recipe(recipe), task=task, contract=network.contract,
            on_epoch=history.append, checkpoint=folder / _PROBE_LAST,
        )  # fmt: skip
    finally:
        history.close()
    if not result.scores:
        remedy = "Try a lower --probe-lr, or --lr with --unfreeze none."
        raise TrainingError(must_be("the head's validation scores", "finite numbers", "none", remedy))
    return {
        "stage": "probe",
        "epoch": result.epoch,
        "scores": result.scores,
        "rows": result.rows,
        "seconds": seconds | {"head": sum(float(row["seconds"]) for row in result.rows)},
        "num_images": num_images,
        "note": cache.log.note,
    }


def _samples_of_all_folds(task: Task, table: SampleTable, store: PixelStore, recipe: Recipe) -> Any:
    """Give what is in some fold, for what all folds share; None where there are no folds."""
    return task.samples(table.kept.filter(pl.col("fold").is_not_null()), store) if recipe.folds else None


def _target_features(cache: FeatureCache, samples: Any, network: Network, task: Task) -> TargetFeatures:
    positions, contract = np.arange(len(samples)), network.contract
    maps = contract.view(samples.stored_sizes, boxes=samples.boxes)
    targets = task.targets(samples, positions, maps.affine, contract)
    return TargetFeatures.from_arrays(cache.of(samples.records, samples.boxes), targets, samples)


def view_features(
    network: Network, samples: Any, store: PixelStore, recipe: Recipe, *, task: Task, among: Any
) -> tuple[list[TargetFeatures], list[InferenceLog]]:
    """Give the frozen backbone's features of each augmented view of the training samples, computed once.

    Args:
        network: Its backbone is run.
        samples: Of training, from ``samples_of``.
        store: The pixels.
        recipe: ``views`` and the augmentation.
        task: Draws the views: the augmentation of the first epochs.
        among: The samples that are run, those of training among them: with folds all that are in some fold, so that
            all folds share one cache.
    """
    found, logs, rows = [], [], np.searchsorted(among.sample_ids, samples.sample_ids)
    for number in range(num_fixed_views(recipe, task)):
        maps_for = partial(task.draw, among, contract=network.contract, epoch=number)
        title = f"computing features, view {number + 1}/{recipe.views}"
        view = view_of(among, recipe, number=number, title=title, maps_for=maps_for)
        cache = cache_features(
            network, store, among.records, folder=store.directory / "features", boxes=among.boxes, view=view,
            num_threads=recipe.num_threads,
        )  # fmt: skip
        targets = task.targets(among, rows, maps_for(rows).affine, network.contract)
        found.append(TargetFeatures.from_arrays(cache.values[rows], targets, samples))
        logs.append(cache.log)
    return found, logs


def _start(network: Network, table: SampleTable, store: PixelStore, recipe: Recipe, *, task: Task) -> dict[str, Any]:
    """Score what fine-tuning starts from, where it has learned already; a fresh head says nothing yet."""
    log, scores = InferenceLog(), {}
    if recipe.from_run is not None:
        samples = samples_of(task, table, store, "validation")
        answers = run_network(
            network, store, samples.records, boxes=samples.boxes, num_threads=recipe.num_threads, log=log
        )
        scores = task.scores(torch.from_numpy(answers), samples, network.contract)
    content = {"stage": "start", "epoch": 0, "scores": scores, "rows": (), "seconds": log.seconds}
    return content | {"num_images": log.num_images, "note": log.note}


def word_score(scores: Mapping[str, float], monitor: str) -> str:
    """Word a monitored score.

    Examples:
        >>> word_score({"nme": 4.21}, "nme"), word_score({"macro_f1": 0.9}, "macro_f1")
        ('NME 4.21 %', 'macro f1 0.9000')
    """
    return f"NME {scores['nme']:.2f} %" if monitor == "nme" else f"{monitor.replace('_', ' ')} {scores[monitor]:.4f}"


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
        has_bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "32-true" if not on_gpu else "bf16-mixed" if has_bf16 else "16-mixed"
    strategy = "ddp_spawn" if recipe.num_devices > 1 else "auto"
    return Fabric(accelerator=accelerator, devices=recipe.num_devices, precision=precision, strategy=strategy)


def _launch(recipe: Recipe, folder: Path, store: PixelStore, deadline: float | None) -> None:
    fabric = make_fabric(recipe)
    work: Callable[[Fabric], None] = partial(
        _fine_tune_process, folder=folder, store_directory=store.directory, recipe=recipe, deadline=deadline
    )
    if recipe.num_devices == 1:
        work(fabric)
    else:
        fabric.launch(work)


def _fine_tune_process(
    fabric: Fabric, *, folder: Path, store_directory: Path, recipe: Recipe, deadline: float | None = None
) -> None:
    """Fine-tune from the probe's bundle. Everything comes from files, so each rank can be a process of its own."""
    keep_freed_memory()
    network = load_bundle(folder / "probe").network
    network.freeze_statistics(frozen=keeps_statistics(recipe))
    table, store = SampleTable.load(folder / "table.parquet"), PixelStore.open(store_directory)
    task = make_task(recipe, table)
    history = History(folder, task.score_names, _rows_so_far(folder)) if fabric.is_global_zero else None
    samples = [samples_of(task, table, store, split) for split in _PROBE_SPLITS]
    among = _samples_of_all_folds(task, table, store, recipe)
    network.to(fabric.device).unfreeze(recipe.unfreeze)
    tuning = FineTuning(
        fabric,
        network,
        TrainingData(store, *samples, kept=keep_activations(network, samples, store, recipe, task=task, among=among)),
        task=task,
        recipe=recipe,
        folder=folder,
        history=history,
        on_epoch=partial(_say_epoch, recipe=recipe),
    )
    tuning.deadline = deadline
    try:
        tuning.run()
    finally:
        if history is not None:
            history.close()


def describe_stages(network: Network, recipe: Recipe) -> list[str]:
    """Say what of the network trains, and from which epoch on; the network is left frozen.

    Raises:
        RecipeError: There is nothing in the network that the recipe names.
    """
    lines = []
    for epoch, what in ((1, recipe.unfreeze), *recipe.later_stages):
        network.unfreeze(what)
        what = what if recipe.epochs else "none"  # what was asked for is checked all the same
        network.unfreeze(what)
        lines.append((f"from epoch {epoch}: " if epoch > 1 else "") + network.describe_training(what))
    network.freeze()
    if trains_head_on_features(recipe.model_dump()) and not (recipe.views or policy_from_recipe(recipe).is_identity):
        lines[0] += ", on photos as they are (--views 4 would take four augmented views of each)"
    return lines


def keeps_statistics(recipe: Recipe) -> bool:
    """Say whether BatchNorm statistics stay as pretrained in fine-tuning."""
    return recipe.batch_norm == "frozen" or (recipe.batch_norm == "auto" and recipe.weights != "none")


def _rows_so_far(folder: Path) -> list[Row]:
    last = folder / "checkpoints" / LAST
    if last.exists():
        return load_checkpoint(last)[1]["rows"]
    return json.loads((folder / "probe" / "probe.json").read_text(encoding="utf-8"))["rows"]


def _say_epoch(row: Row, recipe: Recipe) -> None:
    scores = {name.removeprefix("validation_"): float(value) for name, value in row.items() if "validation" in name}
    loss = f"validation loss {scores['loss']:.4f}  " if "loss" in scores else ""
    say(
        f"epoch {row['epoch']:>3}/{recipe.epochs}  train loss {row['train_loss']:.4f}  {loss}"
        f"{word_score(scores, recipe.monitor)}  lr {row['lr']:.1e}  {row['images_per_second']:,.0f} images/s"
    )
