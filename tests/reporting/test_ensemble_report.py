"""The page of models that answer as one counts them once, and says where their probabilities come from."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.evaluation.classification import evaluate
from headstart.evaluation.intervals import Score
from headstart.reporting.ensemble_report import EnsembleResults, MemberRow, write_ensemble_report
from headstart.reporting.run_facts import RunFacts

CLASSES = ("cat", "dog")


def facts(**changes) -> RunFacts:
    common = {"title": "both", "data": "photos", "backbone": "test_resnet", "weights": "", "monitor": "accuracy"}
    return RunFacts(**common | {"history": pl.DataFrame(), "counts": {"found": 9, "kept": 9, "excluded": {}}} | changes)


def written(results: EnsembleResults, folder: Path) -> str:
    write_ensemble_report(results, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def members(weights: list[float]) -> list[MemberRow]:
    return [
        MemberRow(f"run-{number}", weight=weight, test=Score(0.9, 0.8, 1.0) if weight else None)
        for number, weight in enumerate(weights)
    ]


@pytest.mark.parametrize(
    ("weights", "words", "worth"),
    [
        ([0.5, 0.5], "2 models that answer as one, ", "What the 2 are worth together"),
        ([0.7, 0, 0.3], "2 models that answer as one (1 other has no vote), ", "What the 2 are worth together"),
        ([0, 1.0, 0], "1 model that answers alone (2 others have no vote), ", "What it is worth"),
    ],
)
def test_members_are_counted_by_their_votes(weights, words, worth, tmp_path):
    test = evaluate(np.eye(2)[[0, 1] * 6] * 3, [0, 1] * 6, class_names=CLASSES, num_resamples=50)
    page = written(EnsembleResults(facts(), members(weights), class_names=CLASSES, test=test), tmp_path)
    assert words in page
    assert worth in page
    assert ("One without a vote is not run." in page) == (0 in weights)
