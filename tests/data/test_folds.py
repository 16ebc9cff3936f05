"""Folds: every sample outside the test is held out once, units never straddle, class shares stay close."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.folds import assign_folds, table_of_fold, with_folds
from headstart.data.splits import SplitReport, assign_splits, describe
from headstart.data.table import SampleTable, table_from_columns
from headstart.errors import RecipeError, SplitError
from headstart.recipe import Recipe, make_recipe


def make_split(labels, *, groups=None, **settings) -> tuple[SampleTable, SplitReport]:
    """Give a split table of two or more classes, by groups where there are some, and what is said of the split."""
    names = tuple("abcdefgh"[: max(labels) + 1])
    paths = [f"{number:04d}.jpg" for number in range(len(labels))]
    table = table_from_columns(paths, labels, root=Path(), class_names=names)
    if groups is not None:
        table = table.with_frame(table.frame.with_columns(group=pl.Series(groups, dtype=pl.String)))
    return assign_splits(table, make_recipe(settings))


def make_table(labels, *, groups=None, **settings) -> SampleTable:
    return make_split(labels, groups=groups, **settings)[0]


def persons(num_persons: int, seed: int = 0):
    """Give labels and persons: each person has 2 to 9 samples of random classes."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(num_persons), random.integers(2, 10, num_persons))
    return random.integers(0, 3, len(person)).tolist(), [f"p{number}" for number in person]


def test_each_sample_outside_the_test_is_held_out_once_and_the_test_never():
    table, _ = assign_folds(make_table([0, 1] * 60), num_folds=4, seed=0)
    frames = [table_of_fold(table, fold, Recipe()).frame for fold in (1, 2, 3, 4)]
    held_out = np.stack([(frame["split"] == "test").fill_null(value=False).to_numpy() for frame in frames]).sum(axis=0)
    is_test = table.frame["fold"].is_null().to_numpy()
    assert (held_out == np.where(is_test, 0, 1)).all()
    assert all(frame.filter(pl.Series(is_test))["split"].null_count() == is_test.sum() for frame in frames)


def test_the_test_is_that_of_a_plain_run():
    plain = make_table([0, 1, 2] * 40, seed=3)
    folded, _ = assign_folds(plain, num_folds=5, seed=3)
    assert folded.frame["fold"].is_null().equals(plain.frame["split"] == "test")


@pytest.mark.parametrize("seed", range(5))
def test_no_person_stands_in_two_folds_or_on_two_sides_of_one(seed):
    labels, groups = persons(40, seed)
    table, _ = assign_folds(make_table(labels, groups=groups, seed=seed), num_folds=5, seed=seed)
    assert table.kept.drop_nulls("fold").group_by("group").agg(pl.col("fold").n_unique())["fold"].max() == 1
    for fold in range(1, 6):
        kept = table_of_fold(table, fold, Recipe(seed=seed)).kept.drop_nulls("split")
        assert kept.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
        assert set(kept["split"]) == {"train", "validation", "test"}


def test_folds_are_of_equal_size_with_the_same_class_shares():
    table, lines = assign_folds(make_table([0, 0, 0, 1] * 100), num_folds=5, seed=0)
    counts = table.kept.drop_nulls("fold").group_by("fold", "label").len().sort("fold", "label")["len"].to_numpy()
    assert np.ptp(counts.reshape(5, 2), axis=0).max() <= 1
    assert lines[0].startswith("5 folds of the 340 samples that are not test (seed 0), stratified by class: 68 · 68")


def test_all_samples_serve_the_folds_where_there_is_no_test():
    table, _ = assign_folds(make_table([0, 1] * 30, test_fraction=0), num_folds=3, seed=0)
    assert table.frame["fold"].null_count() == 0


def test_one_fold_alone_is_the_fold_of_the_whole():
    whole, _ = with_folds(*make_split([0, 1] * 60), Recipe(folds=4))
    alone, lines = with_folds(*make_split([0, 1] * 60), Recipe(folds=4, fold=3))
    assert alone.frame["split"].equals(table_of_fold(whole, 3, Recipe(folds=4)).frame["split"])
    assert lines[-1].startswith("Fold 3/4: train ")


def test_a_table_without_folds_stays_as_it_is():
    table, report = make_split([0, 1] * 30)
    assert with_folds(table, report, Recipe()) == (table, describe(report))


def test_excluded_samples_have_no_fold():
    table = make_table([0, 1] * 30)
    is_out = pl.col("sample_id") == 5
    table = table.with_frame(
        table.frame.with_columns(
            excluded=pl.when(is_out).then(pl.lit("truncated")).otherwise("excluded"),
            split=pl.when(~is_out).then("split"),
        )
    )
    assert assign_folds(table, num_folds=3, seed=0)[0].frame["fold"][5] is None


def test_a_class_in_one_fold_alone_is_named():
    labels = [0, 1] * 30 + [2, 2, 2]
    groups = [f"p{number}" for number in range(60)] + ["lone"] * 3
    _, lines = assign_folds(make_table(labels, groups=groups, test_fraction=0), num_folds=3, seed=0)
    assert "In one fold alone" in lines[1]
    assert "'c'" in lines[1]


def test_more_folds_than_persons_are_refused():
    labels, groups = persons(6)
    with pytest.raises(SplitError, match=r"--folds must be at most 6, the units .*; got 7"):
        assign_folds(make_table(labels, groups=groups, test_fraction=0), num_folds=7, seed=0)


@pytest.mark.parametrize("settings", [{"fold": 1}, {"folds": 3, "fold": 4}])
def test_a_fold_that_there_is_not_is_refused(settings):
    with pytest.raises(RecipeError, match="fold must be at most folds"):
        make_recipe(settings)


def test_one_fold_is_no_fold():
    with pytest.raises(RecipeError, match="folds must be greater than or equal to 2; got 1"):
        make_recipe({"folds": 1})
