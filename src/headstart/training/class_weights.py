"""Class weights: how much each class counts in the loss, from the training samples or from a file of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from torch import Tensor

from headstart.data.class_weights_file import read_class_weights
from headstart.data.label_layout import LabelLayout, class_counts
from headstart.recipe_defaults import COMPUTED_WEIGHTS
from headstart.training.losses import balanced_weights, effective_weights

if TYPE_CHECKING:
    from headstart.data.table import SampleTable
    from headstart.recipe import Recipe

_COMPUTED = {"balanced": balanced_weights, "effective": effective_weights}
"""Weights that follow from the number of training samples, by their names in a recipe."""


def class_weights(recipe: Recipe, table: SampleTable) -> Tensor | None:
    """Give the weight of each class, shape (classes,); None where all are equal.

    Of several heads, the weights of all their classes, one head after the other, each balanced for itself; of several
    classes at once, how much each yes counts against a no.

    Args:
        recipe: ``class_weights``: a name, or a file.
        table: Its training samples are counted; classes without any get the weight of one sample.

    Raises:
        RecipeError: The file cannot be read, or does not fit the classes.
    """
    if recipe.class_weights is None:
        return None
    if recipe.class_weights not in COMPUTED_WEIGHTS:
        return torch.tensor(read_class_weights(Path(recipe.class_weights), table.output_names))
    train = table.kept.filter(pl.col("split") == "train")
    if table.labels is not None and not table.has_plain_classes:
        return _weights_of_labels(recipe.class_weights, train, table.labels)
    counts = np.bincount(train["label"].cast(pl.Int64).to_numpy(), minlength=len(table.class_names))
    return _COMPUTED[recipe.class_weights](torch.from_numpy(counts))


def _weights_of_labels(name: str, train: pl.DataFrame, layout: LabelLayout) -> Tensor:
    counts = [torch.tensor(list(column.values())) for column in class_counts(train, layout).values()]
    if layout.form == "multi" and name == "balanced":
        return (train.height - counts[0]).clamp_min(1) / counts[0].clamp_min(1)
    return torch.cat([_COMPUTED[name](column) for column in counts])


def describe_weights(weights: Tensor | None, class_names: Sequence[str]) -> str:
    """Say what the classes weigh: all of a few, else the extremes.

    Examples:
        >>> describe_weights(torch.tensor([2.0, 0.5]), ("cat", "dog"))
        'class weights: cat 2, dog 0.5'
    """
    if weights is None:
        return "class weights: all equal"
    pairs = sorted(zip(weights.tolist(), class_names, strict=True), reverse=True)
    named = [f"{name} {weight:.3g}" for weight, name in pairs]
    return "class weights: " + ", ".join(named if len(named) <= 8 else [*named[:3], "…", *named[-3:]])
