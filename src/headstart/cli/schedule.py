"""``headstart schedule``: the learning rate that a recipe will follow, drawn before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from headstart.cli.flags import recipe_from_flags, with_recipe_flags


def _schedule(
    run: Annotated[Path | None, Parameter(help="a run, whose recipe and number of steps are taken")] = None,
    *,
    recipe: Annotated[Path | None, Parameter(help="settings from a TOML file")] = None,
    steps_per_epoch: Annotated[int, Parameter(help="steps of an epoch [100, or the run's]")] = 0,
    out: Annotated[Path | None, Parameter(help="an .svg file to draw the curve in as well")] = None,
    **settings: Any,
) -> None:
    from headstart.progress import say
    from headstart.training.schedule_preview import describe_schedule, previewed, steps_of_run, write_schedule

    file = run / "recipe.toml" if run is not None and recipe is None else recipe
    resolved = previewed(recipe_from_flags(settings, command=_schedule, recipe_file=file))
    steps = steps_per_epoch or (steps_of_run(run, resolved) if run is not None else 100)
    for line in describe_schedule(resolved, steps):
        say(line)
    if out is not None:
        write_schedule(resolved, steps, out)
        say(f"drawing: {out}")


schedule = with_recipe_flags(_schedule, groups=("Training",), also=("task", "unfreeze", "head"))
