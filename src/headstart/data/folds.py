"""K folds: what is not test, dealt into parts that are held out in turn; whole units, class shares alike.

The folds stand in the table's column ``fold``. A fold's own table is an ordinary split: the part held out is its test,
validation is carved out of the other parts, and what is test of all folds takes no part.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.folders import some
from headstart.data.label_strata import with_strata
from headstart.data.splits import SplitReport, checked_validation_fraction, describe, strata_words
from headstart.data.stratification import divide_units
from headstart.data.table import SampleTable
from headstart.errors import SplitError, must_be
from headstart.recipe import Recipe


def with_folds(table: SampleTable, report: SplitReport, recipe: Recipe) -> tuple[SampleTable, list[str]]:
    """Divide a split table into the folds that the recipe asks for; leave it as it is where it asks for none.

    Args:
        table: As ``assign_splits`` gives it.
        report: Likewise.
        recipe: ``folds`` says how many, ``fold`` which one alone.

    Returns:
        The table, and what is to be said of split and folds. With ``fold`` it is that fold's own table.

    Raises:
        SplitError: There are fewer units than folds, or no share for validation.
    """
    if recipe.folds is None:
        return table, describe(report)
    table, said = assign_folds(table, num_folds=recipe.folds, seed=recipe.seed)
    if recipe.fold is not None:
        table = table_of_fold(table, recipe.fold, recipe)
        said = [*said, describe_fold(table, recipe.fold, recipe.folds)]
    return table, [*describe(report), *said]


def assign_folds(table: SampleTable, *, num_folds: int, seed: int) -> tuple[SampleTable, list[str]]:
    """Give every kept sample outside the test its fold, numbered from 1; validation joins what is divided.

    Args:
        table: With ``unit`` and ``split``; units stay whole.
        num_folds: Parts of equal size.
        seed: Decides among equals.

    Returns:
        The table with ``fold`` (null in the test) and ``split`` (train or test), and sentences for the user.

    Raises:
        SplitError: There are fewer units than folds.

    Examples:
        >>> from pathlib import Path
        >>> from headstart.data.splits import assign_splits
        >>> from headstart.data.table import table_from_columns
        >>> paths = [f"{number}.jpg" for number in range(24)]
        >>> table = table_from_columns(paths, [0, 1] * 12, root=Path("photos"), class_names=("cat", "dog"))
        >>> table, _ = assign_splits(table, Recipe())
        >>> table, lines = assign_folds(table, num_folds=5, seed=0)
        >>> lines
        ['5 folds of the 20 samples that are not test (seed 0), stratified by class: 4 · 4 · 4 · 4 · 4.']
    """
    rest = table.kept.filter(pl.col("split") != "test")
    units = rest["unit"].to_numpy()
    rest, class_names = with_strata(rest, units, table)
    labels = rest["label"].fill_null(0).to_numpy().astype(np.int32)
    num_units = len(np.unique(units))
    if num_units < num_folds:
        expected = f"at most {num_units}, the units (samples, or groups of them that stay together) that are not test"
        raise SplitError(must_be("--folds", expected, num_folds, "Use fewer folds, or add samples of other groups."))
    fold = divide_units(units, labels, fractions=(1 / num_folds,) * num_folds, seed=seed).astype(np.uint32) + 1
    found = rest.select("sample_id").with_columns(fold=pl.Series(fold, dtype=pl.UInt32))
    frame = table.frame.drop("fold", strict=False).join(found, on="sample_id", how="left", maintain_order="left")
    frame = frame.with_columns(split=pl.when(pl.col("fold").is_null()).then("split").otherwise(pl.lit("train")))
    sizes = " · ".join(f"{size:,}" for size in np.bincount(fold, minlength=num_folds + 1)[1:])
    strata = strata_words(rest)
    together = f"; what belongs together stays together ({num_units:,} units)" if num_units < rest.height else ""
    of = f"{num_folds} folds of the {rest.height:,} samples that are not test (seed {seed})"
    line = f"{of}{strata}{together}: {sizes}."
    return table.with_frame(frame), [line, *_lone_classes(class_names, labels, fold)]


def table_of_fold(table: SampleTable, fold: int, recipe: Recipe) -> SampleTable:
    """Give one fold's own table: held out as test what is in the fold, the rest is its train and validation.

    Args:
        table: With ``fold``.
        fold: Counted from 1.
        recipe: Its share of validation, of what the fold learns from; its seed.

    Returns:
        The same samples; ``split`` is null for those that are test of all folds.

    Raises:
        SplitError: There is no share for validation, or what is left cannot be divided.
    """
    others = table.kept.filter(pl.col("fold") != fold)
    units = others["unit"].to_numpy()
    labels = with_strata(others, units, table)[0]["label"].fill_null(0).to_numpy().astype(np.int32)
    validation = checked_validation_fraction(recipe)
    part = divide_units(units, labels, fractions=(1 - validation, validation), seed=recipe.seed)
    if not part.any():
        expected = "enough to leave some samples for validation in every fold"
        raise SplitError(must_be("the data", expected, f"{len(np.unique(units))} units", "Use fewer folds."))
    splits = pl.Series("own", ["train", "validation"], pl.String).gather(pl.Series(part.astype(np.uint32)))
    own = others.select("sample_id").with_columns(splits)
    frame = table.frame.join(own, on="sample_id", how="left", maintain_order="left")
    held_out = pl.when(pl.col("fold") == fold).then(pl.lit("test")).otherwise("own")
    return table.with_frame(frame.with_columns(split=held_out).drop("own"))


def describe_fold(table: SampleTable, fold: int, num_folds: int) -> str:
    """Say what a fold learns from, and what it is scored on.

    Args:
        table: The fold's own.
        fold: Counted from 1.
        num_folds: In all.
    """
    counts = dict(table.kept["split"].value_counts().iter_rows())
    learned = " · ".join(f"{split} {counts.get(split, 0):,}" for split in ("train", "validation"))
    return f"Fold {fold}/{num_folds}: {learned} · held out {counts.get('test', 0):,}."


def _lone_classes(class_names: tuple[str, ...], labels: NDArray[np.int32], fold: NDArray[np.uint32]) -> Iterator[str]:
    """Name classes that stand in one fold alone: the model that is scored on it has not seen them."""
    pairs = np.unique(np.stack([labels, fold.astype(np.int32)]), axis=1)
    present, num_folds = np.unique(pairs[0], return_counts=True)
    alone = [class_names[label] for label in present[num_folds == 1].tolist()] if class_names else []
    if alone:
        where = "one fold alone, so the model that is scored on it has not seen it"
        yield f"In {where}: {some(alone)}. Such classes have too few groups for folds."
