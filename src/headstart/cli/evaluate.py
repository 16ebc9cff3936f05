"""``headstart evaluate``: score a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from headstart.cli.flags import recipe_from_flags, with_recipe_flags
from headstart.runs import RunFolder


def _evaluate(
    run: Annotated[Path, Parameter(help="a run folder")],
    data: Annotated[Path | None, Parameter(help="other labelled photos; without it, the run's own test images")] = None,
    *,
    out: Annotated[Path | None, Parameter(help="folder for metrics.json and predictions.parquet")] = None,
    **settings: Any,
) -> None:
    from headstart import pipeline

    is_known = (run / "recipe.toml").exists()  # else the run is refused below, after the flags
    task = {"task": RunFolder.open(run).recipe.task} if is_known and not settings.get("task") else {}
    given = {**settings, "data": str(data) if data else None}
    recipe = recipe_from_flags(given, command=_evaluate, fixed=task)
    pipeline.evaluate(run, out=out, recipe=recipe)


evaluate = with_recipe_flags(
    _evaluate, groups=("Data", "Pixels", "Machine"), leave_out=("image_size", "fit", "num_devices", "precision")
)
