import numpy as np
import polars as pl

from headstart.evaluation.classification import Evaluation, evaluate
from headstart.reporting.concerns import Concern, concerns_of_run

NAMES = ("cat", "dog", "새")


def evaluation(num_samples: int = 600, *, wrong_every: int = 10, sure: float = 2.9, **settings) -> Evaluation:
    labels = np.arange(num_samples) % 3
    predicted = np.where(np.arange(num_samples) % wrong_every == 0, (labels + 1) % 3, labels)
    return evaluate(np.eye(3)[predicted] * sure, labels, class_names=NAMES, num_resamples=200, **settings)


def concerns(scored: Evaluation | None, validation: Evaluation | None = None, **given) -> dict[str, str]:
    filled = {"worries": (), "excluded": {}, "history": pl.DataFrame(), "monitor": "accuracy"} | given
    return {concern.title: concern.text for concern in concerns_of_run(scored, validation, **filled)}


def history(*scores: float) -> pl.DataFrame:
    return pl.DataFrame({"stage": "fine-tune", "epoch": range(len(scores)), "validation_accuracy": scores})


def test_a_sound_run_raises_no_concern():
    assert concerns(evaluation(), evaluation(), history=history(0.5, 0.9, 0.8)) == {}


def test_no_scored_split_is_said():
    assert "No score" in concerns(None)


def test_what_earlier_stages_saw_comes_first():
    found = concerns(evaluation(30), worries=[Concern("Leak", "3 copies")], excluded={"truncated": 2, "empty": 1})
    assert next(iter(found)) == "Leak"
    assert found["Files left out"].startswith("3 files are left out: truncated (2), empty (1).")


def test_small_classes_are_named_with_their_number():
    assert concerns(evaluation(60))["Classes with few images"].startswith("cat (20), dog (20), 새 (20): ")


def test_a_class_that_is_never_predicted_is_named():
    logits = np.tile([2.0, 1.0, 0.0], (300, 1))
    found = concerns(evaluate(logits, np.arange(300) % 3, class_names=NAMES, num_resamples=100))
    assert found["Classes never predicted"].startswith("dog, 새")


def test_few_groups_are_warned_of():
    found = concerns(evaluation(600, units=np.arange(600) // 50))
    assert found["Few groups"].startswith("The 600 images come from 12 independent groups only.")
    alone = concerns(evaluation(600, units=np.zeros(600)))["Few groups"]
    assert alone == "The 600 images come from 1 independent group only. The intervals rest on that group."


def test_probabilities_that_are_far_too_sure_are_warned_of():
    assert "Calibration" in concerns(evaluation(wrong_every=4, sure=9.0))


def test_validation_that_is_better_than_the_test_is_warned_of():
    assert "90.0" in concerns(evaluation(), evaluation(wrong_every=700))["Validation is optimistic"]
    assert "Validation is optimistic" not in concerns(evaluation(), evaluation(wrong_every=5))


def test_optimism_of_a_loss_is_measured_downwards():
    better = evaluation(wrong_every=700)
    assert "Validation is optimistic" in concerns(evaluation(), better, monitor="log_loss")
    assert "Validation is optimistic" not in concerns(better, evaluation(), monitor="log_loss")


def test_a_run_whose_last_epoch_was_best_may_not_be_done():
    assert "Still improving" in concerns(evaluation(), history=history(0.5, 0.6, 0.7))
    assert "Still improving" not in concerns(evaluation(), history=history(0.5, 0.7, 0.6))


def test_a_class_absent_from_the_split_is_explained():
    result = evaluate(np.eye(3)[[0, 1] * 100], [0, 1] * 100, class_names=NAMES, num_resamples=100)
    assert "1 of 3 classes have no sample" in concerns(result)["How to read the scores"]
