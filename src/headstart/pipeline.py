"""The whole path of a run as one short function; a newcomer starts here.

``train`` reads like the picture in the README: source → one pass over the files → split → probe, then fine-tuning →
scores → report and bundle. Each stage leaves its result in the run folder and is not repeated when a run is resumed.
"""

from __future__ import annotations

import atexit
import logging
import tempfile
import time
import warnings
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.data.account import Account
from headstart.data.account import describe as describe_account
from headstart.data.class_weights_file import check_class_weights
from headstart.data.folds import with_folds
from headstart.data.label_settings import check_focal_alpha
from headstart.data.places import archive_of
from headstart.data.sources import read_source
from headstart.data.splits import assign_splits, check_split_settings, save_split
from headstart.data.table import SampleTable
from headstart.errors import RecipeError, RunError, WeightsError, must_be
from headstart.memory import keep_freed_memory
from headstart.preparation import PreparedData, prepare, renew_records, reopen
from headstart.progress import say
from headstart.recipe import Recipe, make_recipe
from headstart.resolution import completed
from headstart.runs import RunFolder
from headstart.samples import write_digits

DEMO_SETTINGS: dict[str, Any] = {
    "backbone": "resnet10t",
    "image_size": 64,
    "augment": "light",
    "horizontal_flip": 0.0,
    "rotation": 10.0,
    "epochs": 6,
}
"""What the demo trains: a small network that takes a laptop a minute. Digits must not be mirrored."""

DEMO_FROM_SCRATCH: dict[str, Any] = {"weights": "none", "lr": 3e-3, "probe_epochs": 20}
"""What changes where there are no pretrained weights: larger steps."""

if TYPE_CHECKING:
    from headstart.models.network import Network
    from headstart.scoring import AnyScoring
    from headstart.training.fit import FitResult


def train(
    data: str | Path | None = None, *, out: str | Path, recipe: Recipe | None = None, **settings: Any
) -> RunFolder:
    """Check, split, train, evaluate, report, bundle.

    Args:
        data: The photos: a folder of class folders, a table, or an archive of either.
        out: The run folder, new or empty.
        recipe: Settings to start from; the defaults where there are none.
        **settings: Single settings by name, e.g. ``lr=5e-6, image_size=224``: the fields of ``Recipe``.

    Returns:
        The run folder, with ``report.html``, ``metrics.json``, ``predictions.parquet``, ``bundle/`` and the rest in it.

    Raises:
        RecipeError: A setting is unknown or not allowed.
        HeadstartError: The data, the weights or the folder cannot be used; the message says what to do.
    """
    resolved = _resolve(recipe, data, settings).with_absolute_paths()
    return _to_the_end(RunFolder.create(Path(out), resolved))


def resume(folder: str | Path, *, epochs: int | None = None) -> RunFolder:
    """Go on with a run where it stopped; a finished one is left as it is, or trained for more epochs.

    Args:
        folder: The run folder.
        epochs: Epochs of fine-tuning in all, more than the run has.

    Raises:
        RunError: There is no run, or it has as many epochs already.
    """
    run = RunFolder.open(Path(folder))
    if run.facts.get("kind") == "ensemble":
        raise RunError(must_be("--resume", "a run that was trained", str(folder), "An ensemble has nothing to train."))
    if run.is_finished and epochs is None and not run.epochs_to_come:
        say(f"This run is finished: {run.path / 'report.html'}")
        return run
    return _to_the_end(run, epochs=epochs)


def check(
    data: str | Path | None = None, *, out: str | Path | None = None, recipe: Recipe | None = None, **settings: Any
) -> Account:
    """Account for every file: what is broken, duplicated, unbalanced, leaking.

    Args:
        data: The photos: a folder of class folders, a table, or an archive of either.
        out: Folder for ``check.html`` and ``check.parquet``; nothing is saved without it.
        recipe: Settings to start from.
        **settings: Single settings by name.

    Returns:
        The account, whose numbers add up: found = kept + excluded.
    """
    recipe = _resolve(recipe, data, settings)
    keep_freed_memory()
    folder = Path(out) if out else None
    table = read_source(recipe, unpack_dir=_unpack_dir(folder))
    if folder:
        folder.mkdir(parents=True, exist_ok=True)  # before the pass: a place that cannot be written is said at once
    found = prepare(table, recipe, image_size=recipe.image_size or (224, 224))
    if folder:
        from headstart.reporting.check_page import write_check_page
        from headstart.reporting.keypoint_findings import find_sheet

        found.table.save(folder / "check.parquet")
        sheet = find_sheet(found.table, found.store, found.keypoints) if found.keypoints else None
        data = Path(str(recipe.data))
        write_check_page(
            found.account, found.table, found.store, folder / "check.html", keypoints=sheet,
            data=data if archive_of(data) else None,
        )  # fmt: skip
        say(f"page: {folder / 'check.html'}")
    return found.account


def convert(
    data: str | Path | None = None, *, out: str | Path, recipe: Recipe | None = None, **settings: Any
) -> SampleTable:
    """Write keypoints, in any form that ``train`` reads, as one CSV; what is left out is named and counted.

    Args:
        data: The photos: a folder, a table of points, or an archive of either.
        out: The CSV: path, x1, y1, … of every sample in use, and what else is known of it.
        recipe: Settings to start from; its task is keypoints.
        **settings: Single settings by name, e.g. ``annotations="labels/"``.

    Returns:
        The table of all samples, whose numbers add up: found = kept + excluded.

    Raises:
        RecipeError: ``out`` is no CSV, or is one of the files that are read.
        SourceError: The annotations cannot be read; the message says what to do.
    """
    from headstart.data.points_csv import check_target, describe_conversion, write_points_csv

    recipe = _resolve(recipe, data, settings if recipe else {"task": "keypoints", **settings})
    target = Path(out)
    check_target(target, recipe)
    table = read_source(recipe, unpack_dir=_unpack_dir(None))
    write_points_csv(table, target, crop_to_box=recipe.crop_to_box)
    archive = recipe.data if archive_of(Path(str(recipe.data))) else None
    for line in (*table.notes, *describe_conversion(table, target, archive=archive)):
        say(line)
    return table


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    **settings: Any,
) -> AnyScoring:
    """Score a trained model, with intervals: on its own test images, or on other labelled photos.

    Args:
        run: A run folder.
        data: Other labelled photos, in any form that ``train`` takes; without them, the run's own test images.
        out: Folder for ``metrics.json`` and ``predictions.parquet``; nothing is saved without it.
        recipe: How to read ``data``: its columns, groups, and so on.
        **settings: Single settings by name.

    Returns:
        The scores; ``evaluations["test"]`` holds them. Photos that the run was trained on are counted and said.
    """
    from headstart.reevaluation import evaluate_run

    _quiet_libraries()
    found = RunFolder.open(Path(run))
    settings = settings if recipe is not None else {"task": found.recipe.task} | settings
    recipe = _resolve(recipe, data, settings, needs_data=False)
    return evaluate_run(found, recipe, out=Path(out) if out else None)


def ensemble(
    *runs: str | Path,
    out: str | Path,
    weights: Literal["equal", "fitted"] = "equal",
    device: str = "auto",
    num_threads: int | None = None,
) -> RunFolder:
    """Let several trained models answer as one, scored on photos that none of them has learned from.

    Args:
        *runs: Run folders, bundles or ensembles: two or more, with the same classes in any order, or the same points.
        out: The ensemble's folder, new or empty.
        weights: ``"equal"``, or ``"fitted"`` on validation photos that no member trained on.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        num_threads: Threads that prepare pixels; all cores unless told.

    Returns:
        The folder: ``predict``, ``evaluate`` and ``load`` take it like a run's.

    Raises:
        HeadstartError: The models do not go together, or weights cannot be fitted; the message says why.
    """
    from headstart.ensembling import make_ensemble

    _quiet_libraries()
    paths = [Path(run) for run in runs]
    return make_ensemble(paths, out=Path(out), weights=weights, device=device, num_threads=num_threads)


def demo(directory: str | Path = "demo") -> RunFolder:
    """Run the main job on bundled handwritten digits; from scratch where pretrained weights cannot be had, said so."""
    folder = Path(directory)
    photos = folder / "digits"
    if not photos.exists():
        say(f"digits: {write_digits(photos):,} real handwritten digits in {photos}")
    number = next(number for number in count(1) if not (folder / f"run-{number}").exists())
    settings = DEMO_SETTINGS | {"data": str(photos), "store_dir": str(folder / "store")}
    try:
        from headstart.models.backbones import create_backbone

        _quiet_libraries()
        create_backbone(settings["backbone"], weights="auto")
    except WeightsError as error:
        say(f"No pretrained weights here, so the demo trains from scratch (train would stop and say): {error}")
        settings |= DEMO_FROM_SCRATCH
    return train(out=folder / f"run-{number}", recipe=make_recipe(settings))


def _to_the_end(run: RunFolder, *, epochs: int | None = None) -> RunFolder:
    """Carry a run out; one whose recipe is of an extended run is then extended likewise."""
    if not run.is_finished or epochs is not None:
        run = _carry_out(run, epochs=epochs)
    while run.epochs_to_come:
        say(f"on to {run.epochs_to_come[0]} epochs, as the run was extended that the recipe is of")
        run = _carry_out(run, epochs=run.epochs_to_come[0])
    return run


def _carry_out(run: RunFolder, *, epochs: int | None = None) -> RunFolder:
    started = time.monotonic()
    _quiet_libraries()
    keep_freed_memory()
    with run.held():
        run = run if epochs is None else run.extended(epochs)
        found, network = _prepare(run)
        run, network, deadline = _within_budget(run, network, found, started=started)
        if run.recipe.num_runs > 1:
            from headstart.fold_training import train_folds

            train_folds(run, network, found, train_one=_train_prepared, end=deadline)
            return run
        fitted, scoring = _train_prepared(run, network, found, deadline=deadline)
        for line in (*fitted.notes, *scoring.notes, *scoring.describe()):
            say(line)
        say(f"report: {run.path / 'report.html'}")
    return run


def _train_prepared(
    run: RunFolder, network: Network, found: PreparedData, *, deadline: float | None = None
) -> tuple[FitResult, AnyScoring]:
    """Fit, score and publish, with the data and the network at hand."""
    with run.timed("training"):
        fitted = _fit(run, network, found, deadline=deadline)
    with run.timed("evaluation"):
        scoring = _score(run, network, found, fitted)
    with run.timed("report"):
        _publish(run, network, found, fitted, scoring)
    return fitted, scoring


def _prepare(run: RunFolder) -> tuple[PreparedData, Network]:
    """Read, check and split the data, or take both from the run folder; and make the network that fits it."""
    recipe, table_file = run.recipe, run.path / "table.parquet"
    if table_file.exists():
        table = SampleTable.load(table_file)
        network = _make_network(run, table)
        store_size = tuple(run.facts.get("store_size", network.contract.image_size))
        found = reopen(table, recipe, image_size=store_size)
        return replace(found, table=renew_records(table, found.table, table_file)), network
    with run.timed("source"):
        check_split_settings(recipe)
        table = read_source(recipe, unpack_dir=run.path / "unpacked")
        check_class_weights(recipe, table.output_names)
        check_focal_alpha(recipe, table.output_names)
    say(f"{table.frame.height:,} photos listed; loading {recipe.backbone}")  # PyTorch takes seconds to import
    with run.timed("network"):
        network = _make_network(run, table)
    with run.timed("pass over the files"):
        found = prepare(table, recipe, image_size=network.contract.image_size, with_splits=False)
    with run.timed("split"):
        table = _split(run, found)
    for line in run.facts["weights"]:
        say(line)
    return replace(found, table=table), network


def _split(run: RunFolder, found: PreparedData) -> SampleTable:
    """Split the checked samples, refuse what could not be trained on, and write down table, account and split."""
    recipe = run.recipe
    table, lines = with_folds(*assign_splits(found.table, recipe), recipe)
    for line in lines:
        say(line)
    save_split(table, run.path / "split.parquet")
    if table.keypoints is not None:
        from headstart.keypoint_scoring import check_scorable
        from headstart.training.tasks import keypoint_policy

        check_scorable(table, recipe)
        keypoint_policy(recipe, table.keypoints)
    account = describe_account(found.account, with_splits=False)
    account += found.keypoints.lines if found.keypoints else ()
    if recipe.from_run is not None:
        from headstart.ancestry import ancestors_of, seen_before

        run.note(ancestors=ancestors_of(Path(recipe.from_run)))
        seen = seen_before(run.facts["ancestors"], table, in_folds=recipe.folds is not None)
        lines += seen
        for line in seen:
            say(line)
    leaks = [line for line in lines if line.startswith("Leak ")]
    run.note(account=[*table.notes, *account], split=lines, leaks=leaks)
    if recipe.class_weights:
        from headstart.training.class_weights import class_weights, describe_weights

        weights = class_weights(recipe, table)
        described = [line for line in run.facts["training"] if not line.startswith("class weights: ")]
        run.note(training=[*described, describe_weights(weights, table.output_names)])
    table.save(run.path / "table.parquet")
    return table


def _make_network(run: RunFolder, table: SampleTable) -> Network:
    """Make the network: from the run's first stage where it is done, from the run that this one continues, or fresh.

    What cannot be had (device, blocks to unfreeze, weights) is refused here, before the pass over the files.
    """
    import torch

    from headstart.ancestry import continue_from
    from headstart.models.bundle import load_bundle
    from headstart.models.network import new_network
    from headstart.training.fit import choose_device, describe_stages, keeps_statistics
    from headstart.training.optimizers import check_optimizer

    torch.set_num_threads(run.recipe.num_threads or torch.get_num_threads())
    choose_device(run.recipe)
    if (run.path / "probe" / "probe.json").exists():
        return load_bundle(run.path / "probe").network
    num_targets = table.keypoints.num_keypoints if table.keypoints else len(table.output_names)
    if run.recipe.from_run is not None:
        network, ancestry = continue_from(Path(run.recipe.from_run), run.recipe, table)
        run.note(weights=[f"weights: from {run.recipe.from_run}"], ancestry=ancestry)
    else:
        network = new_network(run.recipe, num_targets)
        run.note(weights=network.weights_report.describe())
    check_optimizer(run.recipe.optimizer)
    network.freeze_statistics(frozen=keeps_statistics(run.recipe))
    stages = describe_stages(network, run.recipe)
    run.note(training=run.facts.get("training") or stages)  # a resumed run keeps what its budget chose
    return network


def _fit(run: RunFolder, network: Network, found: PreparedData, *, deadline: float | None = None) -> FitResult:
    from headstart.training.fit import fit

    return fit(network, found.table, found.store, run.recipe, folder=run.path, deadline=deadline)


def _within_budget(
    run: RunFolder, network: Network, found: PreparedData, *, started: float
) -> tuple[RunFolder, Network, float | None]:
    """Choose what fits the run's budget, once; from then on its recipe says what was chosen.

    Returns:
        The run with its recipe, the network at the size that was chosen, and when fine-tuning has to be done; None
        where there is no budget.
    """
    if run.recipe.budget is None and "plan" not in run.facts:
        return run, network, None
    from headstart.training.budgeting import plan_run, resumed_deadline

    if run.recipe.budget is None:
        return run, network, resumed_deadline(run, started=started)
    with run.timed("planning"):
        planned = plan_run(run, network, found.table, found.store, started=started)
    for line in run.facts["plan"]["words"]:
        say(line)
    return planned


def _score(run: RunFolder, network: Network, found: PreparedData, fitted: FitResult) -> AnyScoring:
    from headstart.keypoint_scoring import score_keypoints
    from headstart.scoring import save_predictions, score
    from headstart.training.fit import probe_features

    table, store, recipe = found.table, found.store, run.recipe
    features = probe_features(network, table, store, recipe) if fitted.stage == "probe" else None
    if table.keypoints is not None:
        scoring = score_keypoints(network, table, store, recipe, features=features)
    else:
        how: dict[str, Any] = {"features": features, "seed": recipe.seed, "num_threads": recipe.num_threads}
        if table.labels is not None:
            from headstart.label_scoring import score_labels

            scoring = score_labels(network, table, store, table.labels, **how)
        else:
            scoring = score(network, table, store, **how)
    save_predictions(scoring, run.path / "predictions.parquet")
    return scoring


def _publish(run: RunFolder, network: Network, found: PreparedData, fitted: FitResult, scoring: AnyScoring) -> None:
    """Write the bundle, metrics.json and the report."""
    from headstart.models.bundle import save_bundle
    from headstart.reporting.run_results import write_report
    from headstart.scoring import save_metrics

    extra = {"stage": fitted.stage, "epoch": fitted.epoch, "versions": run.facts["versions"]}
    extra |= {
        "ancestry": run.facts.get("ancestry", []),
        "crop": run.recipe.model_dump(include={"crop_to_box", "crop_to_points"}),
    }
    save_bundle(
        run.path / "bundle", network, class_names=found.table.output_names, keypoints=found.table.keypoints,
        labels=found.table.labels, temperature=scoring.temperature,
        temperatures=getattr(scoring, "temperatures", ()), extra=extra,
    )  # fmt: skip
    write_report(run, found.table, found.store, fitted=fitted, scoring=scoring, contract=network.contract)
    stages = {fitted.first_stage: fitted.probe_scores, "fine-tune": fitted.fine_tune_scores}
    stages = {name: scores for name, scores in stages.items() if scores}
    save_metrics(
        scoring, found.table, run.path / "metrics.json", seconds=run.facts["seconds"], chosen=fitted.stage,
        chosen_epoch=fitted.epoch, stages=stages,
    )  # fmt: skip
    run.note(is_extending=False)


def _resolve(
    recipe: Recipe | None, data: str | Path | None, settings: dict[str, Any], *, needs_data: bool = True
) -> Recipe:
    named = settings if data is None else {**settings, "data": data}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in named.items()}
    resolved = make_recipe(completed(given, recipe.model_dump(exclude_unset=True) if recipe else {}))
    if needs_data and resolved.data is None:
        raise RecipeError(must_be("data", "a folder, a table or an archive", None, "Say where the photos are."))
    return resolved


def _unpack_dir(folder: Path | None) -> Path:
    """Where ``check`` unpacks an archive: beside its page, else in a folder that is removed when Python ends."""
    if folder:
        return folder / "unpacked"
    scratch = tempfile.TemporaryDirectory(prefix="headstart-")
    atexit.register(scratch.cleanup)
    return Path(scratch.name)


def _quiet_libraries() -> None:
    """Keep libraries' remarks (tips, hardware lists) out of what the user reads; their errors still come."""
    for name in ("lightning", "lightning.fabric", "lightning_fabric", "timm", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|timm|torch)\..*")
