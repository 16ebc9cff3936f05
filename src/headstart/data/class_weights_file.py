"""The file of class weights: CSV → a weight for each class; refused before the pass where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headstart.errors import RecipeError, all_at_once, did_you_mean, must_be
from headstart.recipe_defaults import COMPUTED_WEIGHTS

if TYPE_CHECKING:
    from headstart.recipe import Recipe


def check_class_weights(recipe: Recipe, class_names: Sequence[str]) -> None:
    """Refuse a file of weights that does not fit the classes.

    Raises:
        RecipeError: See ``read_class_weights``.
    """
    if recipe.class_weights is not None and recipe.class_weights not in COMPUTED_WEIGHTS:
        read_class_weights(Path(recipe.class_weights), class_names)


def read_class_weights(path: Path, class_names: Sequence[str]) -> list[float]:
    """Read a CSV of two columns, label and weight.

    Args:
        path: With or without a header.
        class_names: Each has to have one row.

    Raises:
        RecipeError: The file is missing or broken, or a class is missing, unknown, or has no positive weight.
    """
    try:
        frame = pl.read_csv(path, has_header=False, infer_schema=False, encoding="utf8", truncate_ragged_lines=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        remedy = f"{str(error).splitlines()[0].rstrip('.')}. There are --class-weights balanced and effective, too."
        raise RecipeError(must_be("--class-weights", "balanced, effective or a CSV file", str(path), remedy)) from None
    if frame.width != 2:
        raise RecipeError(must_be(str(path), "a CSV of two columns, label and weight", f"{frame.width} columns"))
    weights = {str(label).strip().removeprefix("\ufeff"): _number(weight) for label, weight in frame.iter_rows()}
    if (first := next(iter(weights))) not in class_names and math.isnan(weights[first]):
        del weights[first]  # the header
    problems = list(_problems(weights, class_names, path))
    if problems:
        raise RecipeError(all_at_once(problems))
    return [weights[name] for name in class_names]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _problems(weights: Mapping[str, float], class_names: Sequence[str], path: Path) -> list[str]:
    problems = [
        must_be(str(path), f"a row for the class {name!r}", "none") for name in class_names if name not in weights
    ]
    for name, weight in weights.items():
        if name not in class_names:
            problems.append(must_be(str(path), "classes of this data", name, did_you_mean(name, class_names)))
        elif not 0 < weight < math.inf:
            problems.append(must_be(f"{path}: weight of {name!r}", "a number above 0", weight))
    return problems
