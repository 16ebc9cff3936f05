"""``headstart convert``: keypoint annotations in any form → one CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from headstart.cli.flags import recipe_from_flags, with_recipe_flags


def _convert(
    data: Annotated[Path, Parameter(help="the photos: a folder, a table of points, or an archive of either")],
    *,
    out: Annotated[Path, Parameter(help="the CSV to write")],
    **settings: Any,
) -> None:
    from headstart import pipeline

    given = {**settings, "data": str(data)}
    recipe = recipe_from_flags(given, command=_convert, fixed={"task": "keypoints"})
    pipeline.convert(out=out, recipe=recipe)


convert = with_recipe_flags(
    _convert,
    groups=("Data", "Split"),
    leave_out=(
        *("task", "label_column", "flip_pairs", "crop_to_points", "max_pixels", "duplicate_distance"),
        *("split", "resplit", "validation_fraction", "test_fraction"),
    ),
)
