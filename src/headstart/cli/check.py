"""``headstart check``: account for every file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from headstart.cli.flags import recipe_from_flags, with_recipe_flags


def _check(
    data: Annotated[Path, Parameter(help="the photos: a folder, a table, or an archive of either")],
    *,
    out: Annotated[Path | None, Parameter(help="folder for check.html and check.parquet")] = None,
    **settings: Any,
) -> None:
    from headstart import pipeline

    pipeline.check(out=out, recipe=recipe_from_flags({**settings, "data": str(data)}, command=_check))


check = with_recipe_flags(
    _check,
    groups=("Data", "Split", "Pixels"),
    leave_out=("split", "resplit", "validation_fraction", "test_fraction", "folds", "fold"),
)
