"""Class weights: how much each class counts in the loss, from the training samples or from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from torch import Tensor

from headstart.errors import RecipeError, all_at_once, did_you_mean, must_be
from headstart.training.losses import balanced_weights, effective_weights

if TYPE_CHECKING:
    from headstart.data.table import SampleTable
    from headstart.recipe import Recipe

COMPUTED = {"balanced": balanced_weights, "effective": effective_weights}
"""Weights that follow from the number of training samples, by their names in a recipe."""


def class_weights(recipe: Recipe, table: SampleTable) -> Tensor | None:
    """Give the weight of each class, shape (classes,); None where all are equal.

    Args:
        recipe: ``class_weights``: a name, or a file.
        table: Its training samples are counted; classes without any get the weight of one sample.

    Raises:
        RecipeError: The file cannot be read, or does not fit the classes.
    """
    if recipe.class_weights is None:
        return None
    if recipe.class_weights in COMPUTED:
        labels = table.kept.filter(pl.col("split") == "train")["label"].cast(pl.Int64).to_numpy()
        counts = np.bincount(labels, minlength=len(table.class_names))
        return COMPUTED[recipe.class_weights](torch.from_numpy(counts))
    return torch.tensor(read_class_weights(Path(recipe.class_weights), table.class_names))


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


def describe_weights(weights: Tensor, class_names: Sequence[str]) -> str:
    """Say what the classes weigh: all of a few, else the extremes.

    Examples:
        >>> describe_weights(torch.tensor([2.0, 0.5]), ("cat", "dog"))
        'class weights: cat 2, dog 0.5'
    """
    pairs = sorted(zip(weights.tolist(), class_names, strict=True), reverse=True)
    named = [f"{name} {weight:.3g}" for weight, name in pairs]
    return "class weights: " + ", ".join(named if len(named) <= 8 else [*named[:3], "…", *named[-3:]])


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
