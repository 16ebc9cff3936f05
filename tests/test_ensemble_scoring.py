"""Votes are scored beside their members, each at its own place, and counted once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.table import SampleTable, table_from_columns
from headstart.ensemble_scoring import EnsembleScoring, MemberAnswers, score_votes
from headstart.models.backbones import InputContract
from headstart.models.inference import InferenceLog
from headstart.recipe import Recipe

TRUTH = np.array([0, 1] * 20)
HALF = (0.5, 0.5, 0.5)


def table_of(num_photos: int) -> SampleTable:
    paths = [f"{number}.jpg" for number in range(num_photos)]
    table = table_from_columns(paths, TRUTH.tolist(), root=Path("photos"), class_names=("cat", "dog"))
    units = pl.int_range(pl.len(), dtype=pl.UInt32)
    return table.with_frame(table.frame.with_columns(split=pl.lit("test"), unit=units))


def answers(num_wrong: int) -> np.ndarray:
    """Give probabilities of a member that is wrong on the first photos."""
    given = np.where(np.arange(len(TRUTH)) < num_wrong, 1 - TRUTH, TRUTH)
    return np.where(np.arange(2) == given[:, None], 0.9, 0.1)


def scored(members: list[np.ndarray], weights: list[float]) -> EnsembleScoring:
    table = table_of(len(TRUTH))
    contract = InputContract((8, 8), HALF, HALF)
    found = MemberAnswers(table.kept, np.stack(members), InferenceLog(), contract)
    return score_votes(found, weights, table, Recipe(), splits=("test",))


def test_members_stand_at_their_own_place_also_where_one_has_no_vote():
    nothing = np.full((len(TRUTH), 2), np.nan)
    found = scored([answers(4), nothing, answers(10)], [0.7, 0.0, 0.3])
    first, silent, third = found.to_metrics_json()["vote"]["test"]["members"]
    assert silent is None
    assert (first["value"], third["value"]) == (pytest.approx(0.9), pytest.approx(0.75))
    assert found.describe()[-1].startswith("The 2 together are 7.50 points of accuracy better than one of them (gain ")


def test_a_vote_of_one_member_gains_nothing_over_it():
    found = scored([np.full((len(TRUTH), 2), np.nan), answers(4)], [0.0, 1.0])
    assert found.describe()[-1] == "One member alone has a vote: nothing is gained over it."
    assert found.gain["test"].as_json() == {"value": 0, "low": 0, "high": 0}


def test_members_that_are_right_on_the_same_photos_are_level_within_an_interval():
    slightly_other = answers(0) * 0.9 + 0.05
    line = scored([answers(0), slightly_other], [0.5, 0.5]).describe()[-1]
    assert line == "The 2 together are level in accuracy with one of them (gain -8.76 to 8.76)."
