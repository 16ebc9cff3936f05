"""The page of models that answer as one counts them once, and says where their probabilities come from."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.label_layout import LabelColumn, LabelLayout
from headstart.evaluation.classification import evaluate
from headstart.evaluation.intervals import Score
from headstart.evaluation.several_labels import LabelsEvaluation, evaluate_labels
from headstart.reporting.ensemble_report import EnsembleResults, MemberRow, write_ensemble_report
from headstart.reporting.label_report import LabelResults, write_label_report
from headstart.reporting.run_facts import RunFacts

CLASSES = ("cat", "dog")
COLUMNS = (LabelColumn("mask", ("no", "yes")), LabelColumn("sex", ("f", "m")))
HEADS = LabelLayout("heads", COLUMNS)
JOINT = LabelLayout("joint", COLUMNS, ((0, 0), (0, 1), (1, 0), (1, 1)))
MEAN = "Probabilities are the mean of what the members say, by their weights."
OWN = "The temperature is 1"
SUM = "The probability of a class is the sum over its combinations."


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


def labelled(layout: LabelLayout, temperature: float) -> LabelsEvaluation:
    random = np.random.default_rng(0)
    labels, ones = random.integers(2, size=(40, 2)), (temperature,) * layout.num_temperatures
    return evaluate_labels(random.normal(size=(40, 4)), labels, layout, temperatures=ones)


@pytest.mark.parametrize(("layout", "num_sections", "num_sums"), [(HEADS, 2, 0), (JOINT, 3, 2)])
def test_a_mean_of_members_has_no_temperature_and_no_before(layout, num_sections, num_sums, tmp_path):
    test = labelled(layout, 1.0)
    page = written(EnsembleResults(facts(), members([0.5, 0.5]), labels=layout, test=test), tmp_path)
    assert (page.count(MEAN), page.count(SUM)) == (num_sections, num_sums)
    assert OWN not in page
    assert "<th>before</th>" not in page


def test_a_mean_of_members_is_said_of_plain_classes_too(tmp_path):
    test = evaluate(np.eye(2)[[0, 1] * 6] * 3, [0, 1] * 6, class_names=CLASSES, num_resamples=50)
    page = written(EnsembleResults(facts(), members([0.5, 0.5]), class_names=CLASSES, test=test), tmp_path)
    assert page.count(MEAN) == 1


def test_folds_say_the_temperature_of_combinations_of_the_columns_that_are_summed_from_them(tmp_path):
    oof = labelled(JOINT, 1.5)
    folds = [MemberRow("fold-1", chosen="probe, epoch 1", num_held_out=40, scores=oof.scores)]
    page = written(EnsembleResults(facts(), folds, labels=JOINT, oof=oof), tmp_path)
    assert page.count("Temperature 1.50, fitted out of fold, softens every combination before it is summed") == 2
    assert page.count("Temperature 1.50, fitted out of fold, softens every answer") == 1
    assert page.count("It never changes which class comes first.") == 1
    assert MEAN not in page
    assert OWN not in page


@pytest.mark.parametrize(
    ("temperature", "words"), [(0.5, "Temperature 0.50, fitted on validation, sharpens"), (1, OWN)]
)
def test_a_run_of_combinations_does_not_call_sums_the_networks_own(temperature, words, tmp_path):
    counts = pl.DataFrame({"class_name": ["no"], "train": [1], "validation": [1], "test": [1]})
    write_label_report(LabelResults(facts(), JOINT, labelled(JOINT, temperature), None, counts), tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert (page.count(words), page.count(SUM), page.count("<th>before</th>")) == (3, 2, 1)
