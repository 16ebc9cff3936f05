"""A run under a budget: measured and planned once, its recipe rewritten to what was chosen."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import polars as pl

from headstart.data.folds import table_of_fold
from headstart.recipe import make_recipe
from headstart.recipe_defaults import PROBE_EPOCHS, without_consequences, without_unheeded
from headstart.recipe_values import read_budget
from headstart.runs import RunFolder
from headstart.training.budget import CLOSING_SECONDS, Workload, choose_plan, measure, resized, smaller_sizes
from headstart.training.checkpoints import load_checkpoint
from headstart.training.counters import Counters
from headstart.training.features import num_fixed_views
from headstart.training.fit import choose_device, describe_stages, make_fabric, samples_of
from headstart.training.loop import LAST
from headstart.training.tasks import make_task

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.data.table import SampleTable
    from headstart.models.network import Network
    from headstart.recipe import Recipe
    from headstart.training.tasks import Task


def plan_run(
    run: RunFolder, network: Network, table: SampleTable, store: PixelStore, *, started: float
) -> tuple[RunFolder, Network, float]:
    """Choose what fits the run's budget and write it down; a resumed run keeps what was chosen.

    Folds share the budget: what fits a K-th of it is chosen once, for all of them.

    Args:
        run: Its recipe has a budget.
        network: At the size of the recipe.
        table: Checked and split.
        store: The pixels.
        started: When the command began, on ``time.monotonic``'s clock.

    Returns:
        The run with the settings that were chosen, the network at the size that was chosen, and when fine-tuning has
        to be done (of folds: when all of them have to be finished), on the same clock.
    """
    if "plan" not in run.facts:
        plan = _chosen(run, network, table, store, started=started)
        run.note(plan=plan, store_size=list(network.contract.image_size))
    plan = run.facts["plan"]
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in plan["settings"].items()}
    asked = without_consequences(run.recipe.model_dump(), settings) | settings | {"budget": None}
    recipe = make_recipe(without_unheeded(asked))  # where it comes down to the head, mixing goes with the rest
    recipe.save(run.path / "recipe.toml")
    if recipe.image_size is not None:
        resized(network, recipe.image_size)
    run = RunFolder(run.path, recipe)
    others = run.facts.get("training", [])[1:]  # of class weights, say; the first said what was asked for
    run.note(training=[*plan["words"], *describe_stages(network, recipe), *others])
    return run, network, started + float(plan["seconds"])


def _chosen(
    run: RunFolder, network: Network, table: SampleTable, store: PixelStore, *, started: float
) -> dict[str, Any]:
    """Give the settings that fit, words for them, and by which second of the run what has to be done."""
    recipe, task, num_runs = run.recipe, make_task(run.recipe, table), run.recipe.num_runs
    sizes = smaller_sizes(network.contract.image_size) if _can_shrink(network, recipe) else ()
    network.to(choose_device(recipe))
    measured = measure(
        network, samples_of(task, table, store, "train"), store, recipe,
        task=task, sizes=sizes, autocast=make_fabric(recipe).autocast,
    )  # fmt: skip
    work = _workload(network, table if num_runs == 1 else table_of_fold(table, 1, recipe), run, task)
    num_tests = int((table.kept["split"] == "test").sum())
    together = num_runs * num_tests * measured.forward + CLOSING_SECONDS if num_runs > 1 else 0.0
    seconds = read_budget(str(recipe.budget)) - together
    plan = choose_plan((seconds - (time.monotonic() - started)) / num_runs, measured, work)
    # the epoch that the deadline cuts off is still validated
    closing = (work.num_validation + work.num_others) * measured.forward + CLOSING_SECONDS
    end = seconds if num_runs > 1 else seconds - closing
    settings = plan.settings
    if settings.get("unfreeze") == "none" and not settings["epochs"] and not recipe.probe_epochs:
        settings = settings | {"probe_epochs": PROBE_EPOCHS}
    return {"settings": settings, "words": plan.words, "seconds": end, "closing": closing}


def _can_shrink(network: Network, recipe: Recipe) -> bool:
    """Say whether the network takes smaller pictures: heads on the map, some backbones and old weights do not."""
    is_fixed = getattr(network.backbone, "pretrained_cfg", {}).get("fixed_input_size", False)
    return network.head.takes == "pooled" and network.pooling != "flatten" and not is_fixed and recipe.from_run is None


def resumed_deadline(run: RunFolder, *, started: float) -> float | None:
    """Give when fine-tuning has to be done in a run that was cut off under a budget; None where there is none.

    What the run spent before counts, the time while it stood still does not. Seconds of fine-tuning that a checkpoint
    holds are taken off where it is taken up; of folds that were killed, all that is known counts.

    Args:
        run: Resumed, its recipe as the budget chose it.
        started: When the command began, on ``time.monotonic``'s clock.
    """
    facts = run.facts
    seconds = facts.get("plan", {}).get("seconds")
    if seconds is None or facts.get("raised_midway") or facts.get("extensions"):
        return None
    unrecorded = sum(_spent_in_fold(run, fold_run) - _recorded_of_fold(run, fold_run) for fold_run in _folds_of(run))
    return started + seconds - _spent_before_fine_tuning(run) - unrecorded


def deadline_of_fold(run: RunFolder, fold_run: RunFolder, end: float, *, num_left: int) -> float:
    """Give when the fine-tuning of a fold has to be done, so that the others have as much time.

    Args:
        run: The whole, planned.
        fold_run: The fold; what it spent before it was cut off is a part of its share, and ``end`` knows of it already.
        end: When all folds have to be finished.
        num_left: Folds that are not finished, this one too.
    """
    now = time.monotonic()
    spent = _spent_in_fold(run, fold_run)
    share = (end - now + spent) / num_left - float(run.facts["plan"]["closing"])
    return now + share - (spent - _spent_fine_tuning(fold_run))


def _folds_of(run: RunFolder) -> list[RunFolder]:
    """Give the folds that were begun."""
    paths = [run.path / f"fold-{number}" for number in range(1, (run.recipe.folds or 0) + 1)]
    return [RunFolder.open(path) for path in paths if (path / "recipe.toml").exists()]


def _recorded_of_fold(run: RunFolder, fold_run: RunFolder) -> float:
    """Give the seconds of a fold that the whole has written down: those of sessions that ended without a kill."""
    return float(run.facts["seconds"].get(f"fold {fold_run.recipe.fold}", 0.0))


def _spent_in_fold(run: RunFolder, fold_run: RunFolder) -> float:
    """Give the seconds that a fold took in earlier sessions: as written down, or what its own files know, if more."""
    known = _spent_before_fine_tuning(fold_run) + _spent_fine_tuning(fold_run)
    return max(known, _recorded_of_fold(run, fold_run))


def _spent_fine_tuning(run: RunFolder) -> float:
    last = run.path / "checkpoints" / LAST
    return Counters.from_state(load_checkpoint(last)[1]["counters"]).elapsed if last.exists() else 0.0


def _spent_before_fine_tuning(run: RunFolder) -> float:
    """Give the seconds of earlier sessions; those of fine-tuning stand in its checkpoint."""
    spent = sum(value for stage, value in run.facts["seconds"].items() if stage != "training")
    first = run.path / "probe" / "probe.json"
    if first.exists():
        seconds = json.loads(first.read_text(encoding="utf-8"))["seconds"]
        spent += seconds.get("total", 0.0) + seconds.get("head", 0.0)  # the other parts lie within the total
    return spent


def _workload(network: Network, table: SampleTable, run: RunFolder, task: Task) -> Workload:
    counts = dict(table.kept.group_by("split").agg(pl.len()).iter_rows())
    is_pooled = network.head.takes == "pooled"
    return Workload(
        num_train=counts.get("train", 0),
        num_validation=counts.get("validation", 0),
        num_others=counts.get("validation", 0) + counts.get("test", 0),
        image_size=network.contract.image_size,
        can_probe=is_pooled and run.recipe.from_run is None,
        num_views=num_fixed_views(run.recipe, task),
        num_folds=run.recipe.num_runs,
        what=run.recipe.unfreeze,
        most_epochs=run.recipe.epochs,
    )
