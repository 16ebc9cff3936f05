"""A run under a budget: measured and planned once, its recipe rewritten to what was chosen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import polars as pl

from headstart.recipe import read_budget
from headstart.runs import RunFolder
from headstart.training.budget import CLOSING_SECONDS, Workload, choose_plan, measure, resized
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
        measured = measure(network, samples_of(task, table, store, "train"), store, run.recipe, task=task)
        plan = choose_plan(budget - (time.monotonic() - started), measured, work)
        facts = {"settings": plan.settings, "words": plan.words, "forward": measured.forward}
        run.note(plan=facts, store_size=list(network.contract.image_size))
    chosen = run.facts["plan"]
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen["settings"].items()}
    recipe = run.recipe.model_copy(update=settings)
    recipe.model_copy(update={"budget": None}).save(run.path / "recipe.toml")
    if recipe.image_size is not None:
        resized(network, recipe.image_size)
    run = RunFolder(run.path, recipe)
    run.note(training=describe_stages(network, recipe))
    closing = work.num_others * float(chosen["forward"]) + CLOSING_SECONDS
    return run, network, started + budget - closing


def _workload(network: Network, table: SampleTable, run: RunFolder) -> Workload:
    counts = dict(table.kept.group_by("split").agg(pl.len()).iter_rows())
    is_pooled = network.head.takes == "pooled"
    return Workload(
        num_train=counts.get("train", 0),
        num_validation=counts.get("validation", 0),
        num_others=counts.get("validation", 0) + counts.get("test", 0),
        image_size=network.contract.image_size,
        can_probe=is_pooled and run.recipe.from_run is None,
        can_shrink=is_pooled and network.pooling != "flatten",
    )
