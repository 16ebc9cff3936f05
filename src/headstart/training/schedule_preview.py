"""The learning rate that a recipe will follow, before there is a run, and that a run has followed, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import RecipeError, must_be
from headstart.files import written_aside
from headstart.recipe_defaults import RISING, SCHEDULE_SETTINGS
from headstart.reporting.text_plot import HEIGHT, text_curve
from headstart.training.probe_settings import probe_recipe
from headstart.training.schedules import Schedule, steps_in

if TYPE_CHECKING:
    from headstart.recipe import Recipe

MOST_EPOCHS_LISTED = 12
"""More epochs than this are listed in steps, or the list would hide the curve."""


def rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    """Give the learning rate at every step; for "plateau" as if each epoch brought something better.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> rates(Recipe(epochs=2, lr=1.0, warmup_epochs=0, schedule="step", step_epochs=1), 2)
        [1.0, 1.0, 0.1, 0.1]
    """
    schedule = Schedule(recipe, steps_per_epoch)
    return [schedule.rate(step) for step in range(schedule.total_steps)]


def followed_rates(
    recipe: Recipe, rows: Sequence[Mapping[str, Any]], num_samples: int, *, num_devices: int = 1
) -> tuple[list[float], list[float]] | None:
    """Give the learning rate that a stage of a run has followed, at some hundred of its steps.

    The curve is worked out anew and held against the rates that the history has of the epochs' last steps. Where an
    epoch was begun again at half the rate, that holds from there on; in the last one a budget may have run out.

    Args:
        recipe: Of the stage.
        rows: Its epochs, as in history.csv.
        num_samples: It learned from.
        num_devices: It was trained on.

    Returns:
        Epochs passed after each step, and rates; None where the recorded rates are of another curve, as in a run that
        got more epochs on its way.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> recipe = Recipe(epochs=2, lr=1.0, batch_size=4, warmup_epochs=0, schedule="step", step_epochs=1)
        >>> rows = [{"epoch": 1, "lr": 1.0}, {"epoch": 2, "lr": 0.1}]
        >>> followed_rates(recipe, rows, 8)
        ([0.5, 1.0, 1.5, 2.0], [1.0, 1.0, 0.1, 0.1])
    """
    steps, score = steps_in(num_samples, recipe, num_devices=num_devices), recipe.monitor.replace("log_loss", "loss")
    found, scores = list[float](), [row.get(f"validation_{score}") for row in rows]
    scores = [math.nan if one is None else float(one) for one in scores]
    for row in rows:
        number = int(row["epoch"])
        planned = next((epochs for epochs in (*recipe.epochs_before, recipe.epochs) if number <= epochs), None)
        if planned is None:
            return None
        schedule = Schedule(recipe.model_copy(update={"epochs": planned}), steps)
        rates = [schedule.rate((number - 1) * steps + step, scores[: number - 1]) for step in range(steps)]
        taken = _taken(rates, float(row["lr"]), may_be_part=row is rows[-1])
        if not taken:
            return None
        found += taken
    places = _thinned(range(len(found))) if found else []
    return [(place + 1) / steps for place in places], [found[place] for place in places]


def _taken(rates: Sequence[float], last: float, *, may_be_part: bool) -> list[float]:
    """Give the rates of an epoch, halved where that was, or a part of them; none if it did not end as recorded."""
    ends = [len(rates), *(range(len(rates) - 1, 0, -1) if may_be_part else ())]
    for end in ends:
        for scale in (1.0, 0.5):
            if math.isclose(rates[end - 1] * scale, last, rel_tol=1e-6):
                return [rate * scale for rate in rates[:end]]
    return []


def describe_schedule(recipe: Recipe, steps_per_epoch: int) -> list[str]:
    """Give the lines that ``headstart schedule`` prints: what is followed, the curve, and rates by epoch.

    Raises:
        RecipeError: There is no epoch.
    """
    if recipe.epochs == 0:
        raise RecipeError(must_be("--epochs", "at least 1 to draw a schedule", 0))
    found = rates(recipe, steps_per_epoch)
    highest = f"{max(found):.3g}"
    margin = max(len(highest), 1)
    curve = text_curve(found)
    labels = [highest, *[""] * (HEIGHT - 2), "0"]
    lines = [_named(recipe, steps_per_epoch), ""]
    lines += [f"{label:>{margin}} ┤{row}" for label, row in zip(labels, curve, strict=True)]
    lines += [f"{'':>{margin}} └{'─' * len(curve[0])} epoch {recipe.epochs}", ""]
    lines += _by_epoch(found, recipe.epochs, steps_per_epoch)
    if recipe.schedule == "plateau":
        drop = f"Times {recipe.gamma:g} after {recipe.plateau_epochs} epochs without a better {recipe.monitor}"
        lines += ["", f"{drop}; drawn as if that never happened."]
    if recipe.budget is not None:
        lines += ["", f"Drawn for {recipe.epochs} epochs; under --budget {recipe.budget} there are as many as fit."]
    return lines


def write_schedule(recipe: Recipe, steps_per_epoch: int, path: Path) -> None:
    """Write the curve as an SVG file.

    Raises:
        RecipeError: The name does not end in .svg.
    """
    from headstart.reporting.plots import Series, line_chart

    if path.suffix != ".svg":
        raise RecipeError(must_be("--out", "an .svg file", str(path)))
    found = rates(recipe, steps_per_epoch)
    places = _thinned(range(len(found)))
    epochs = [step / steps_per_epoch for step in places]
    chart = line_chart("Learning rate by epoch", epochs, [Series("learning rate", [found[step] for step in places])])
    styles = (
        "text{font:11.5px sans-serif;fill:#333}polyline,line{fill:none;stroke:#999}polyline{stroke:#0b6;stroke-width:2}"
    )
    start = '<svg xmlns="http://www.w3.org/2000/svg"'
    content = str(chart).replace("<svg", start, 1).replace(">", f"><style>{styles}</style>", 1)
    with written_aside(path) as aside:
        aside.write_text(content + "\n", encoding="utf-8")


def _named(recipe: Recipe, steps_per_epoch: int) -> str:
    used = {name: getattr(recipe, name) for name in SCHEDULE_SETTINGS[recipe.schedule]}
    if recipe.cycle_epochs is None:  # one cycle: nothing grows
        used.pop("cycle_growth", None)
    parts = [f"{name.replace('_', ' ')} {_worded(value)}" for name, value in used.items() if value not in (None, ())]
    if recipe.schedule not in RISING and recipe.warmup_epochs:
        warmup = min(recipe.warmup_epochs, recipe.epochs / 2)
        parts.insert(0, f"after {warmup:g} epoch{'' if warmup == 1 else 's'} of warm-up")
    told = f"{recipe.schedule.replace('_', '-')}{', ' if parts else ''}{', '.join(parts)}"
    return f"{told}: {recipe.epochs} epochs of {steps_per_epoch:,} steps, {recipe.optimizer}"


def _worded(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def _by_epoch(found: Sequence[float], epochs: int, steps: int) -> list[str]:
    every = -(-epochs // MOST_EPOCHS_LISTED)
    shown = [epoch for epoch in range(epochs) if epoch % every == 0 or epoch == epochs - 1]
    return [
        f"epoch {epoch + 1:>{len(str(epochs))}}  {found[epoch * steps]:.3e} → {found[(epoch + 1) * steps - 1]:.3e}"
        for epoch in shown
    ]


def _thinned(steps: range, most: int = 600) -> list[int]:
    """Give at most so many steps, the last among them."""
    every = -(-len(steps) // most)
    return sorted({*steps[::every], steps[-1]})


def previewed(recipe: Recipe) -> Recipe:
    """Give the settings whose schedule matters: the probe's where nothing else trains."""
    if recipe.trains_only_head or recipe.epochs == 0:
        return probe_recipe(recipe).model_copy(update={"budget": None})  # nothing of it is left out
    return recipe


def steps_of_run(run: Path, recipe: Recipe) -> int:
    """Give the steps of an epoch of a run, from its table.

    Raises:
        RecipeError: There is no run, or its data was not read yet.
    """
    import polars as pl

    from headstart.data.folds import table_of_fold
    from headstart.data.table import SampleTable

    file = run / "table.parquet"
    if not file.exists():
        remedy = "Without a run, --steps-per-epoch tells how many steps to draw."
        raise RecipeError(must_be("RUN", "a run that has read its data", str(run), remedy))
    table = SampleTable.load(file)
    is_in_folds = recipe.num_runs > 1 and table.kept["fold"].is_not_null().any()
    table = table_of_fold(table, 1, recipe) if is_in_folds else table
    return steps_in(table.kept.filter(pl.col("split") == "train").height, recipe)
