"""A run under a budget: measured and planned once, its recipe rewritten to what was chosen."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import polars as pl

from headstart.recipe import read_budget
from headstart.runs import RunFolder
from headstart.training.budget import CLOSING_SECONDS, Workload, choose_plan, measure, resized, smaller_sizes
from headstart.training.fit import describe_stages, samples_of
from headstart.training.tasks import make_task

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.data.table import SampleTable
    from headstart.models.network import Network


def plan_run(
    run: RunFolder, network: Network, table: SampleTable, store: PixelStore, *, started: float
) -> tuple[RunFolder, Network, float]:
    """Choose what fits the run's budget and write it down; a resumed run keeps what was chosen.

    Args:
        run: Its recipe has a budget.
        network: At the size of the recipe.
        table: Checked and split.
        store: The pixels.
        started: When the command began, on ``time.monotonic``'s clock.

    Returns:
        The run with the settings that were chosen, the network at the size that was chosen, and when fine-tuning has
        to be done, on the same clock.
    """
    budget = read_budget(str(run.recipe.budget))
    work = _workload(network, table, run)
    if "plan" not in run.facts:
        task = make_task(run.recipe, table)
        can_shrink = network.head.takes == "pooled" and network.pooling != "flatten"
        sizes = smaller_sizes(network.contract.image_size) if can_shrink else ()
        samples = samples_of(task, table, store, "train")
        measured = measure(network, samples, store, run.recipe, task=task, sizes=sizes)
        plan = choose_plan(budget - (time.monotonic() - started), measured, work)
        closing = work.num_others * measured.forward + CLOSING_SECONDS
        facts = {"settings": plan.settings, "words": plan.words, "seconds": budget - closing}
        run.note(plan=facts, store_size=list(network.contract.image_size))
    chosen = run.facts["plan"]
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen["settings"].items()}
    recipe = run.recipe.model_copy(update=settings)
    recipe.model_copy(update={"budget": None}).save(run.path / "recipe.toml")
    if recipe.image_size is not None:
        resized(network, recipe.image_size)
    run = RunFolder(run.path, recipe)
    run.note(training=describe_stages(network, recipe))
    return run, network, started + float(chosen["seconds"])


def resumed_deadline(run: RunFolder, *, started: float) -> float | None:
    """Give when fine-tuning has to be done in a run that was cut off under a budget; None where there is none.

    What the run spent before counts, the time while it stood still does not. Seconds of fine-tuning that a checkpoint
    holds are taken off where it is taken up.

    Args:
        run: Resumed, its recipe as the budget chose it.
        started: When the command began, on ``time.monotonic``'s clock.
    """
    facts = run.facts
    seconds = facts.get("plan", {}).get("seconds")
    if seconds is None or facts.get("raised_midway") or facts.get("extensions"):
        return None
    spent = sum(value for stage, value in facts["seconds"].items() if stage != "training")
    first = run.path / "probe" / "probe.json"
    if first.exists():
        spent += sum(json.loads(first.read_text(encoding="utf-8"))["seconds"].values())
    return started + seconds - spent


def _workload(network: Network, table: SampleTable, run: RunFolder) -> Workload:
    counts = dict(table.kept.group_by("split").agg(pl.len()).iter_rows())
    is_pooled = network.head.takes == "pooled"
    return Workload(
        num_train=counts.get("train", 0),
        num_validation=counts.get("validation", 0),
        num_others=counts.get("validation", 0) + counts.get("test", 0),
        image_size=network.contract.image_size,
        can_probe=is_pooled and run.recipe.from_run is None,
    )
