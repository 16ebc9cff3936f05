"""What folds say together."""

import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.evaluation.calibration import apply_temperature
from headstart.evaluation.folds import FoldScores, logits_from_probabilities, scores_from_json, spread
from headstart.evaluation.intervals import Score


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_probabilities_give_back_their_logits(temperature):
    logits = np.random.default_rng(0).normal(size=(20, 4)) * 5
    back = logits_from_probabilities(apply_temperature(logits, temperature), temperature)
    assert back - back[:, :1] == pytest.approx(logits - logits[:, :1], abs=1e-6)


def test_what_a_model_rules_out_stays_ruled_out():
    back = logits_from_probabilities([[1.0, 0.0]], 2.0)
    assert apply_temperature(back, 0.7).tolist() == [[1.0, 0.0]]


def test_a_temperature_must_be_positive():
    with pytest.raises(HeadstartError, match="greater than 0; got 0"):
        logits_from_probabilities([[1.0, 0.0]], 0)


def test_scores_survive_the_json():
    fold = FoldScores(1, 30, "probe", 4, {"accuracy": Score(0.5, 0.4, 0.6)})
    assert scores_from_json(fold.as_dict()["scores"]) == fold.scores


def test_one_fold_has_no_spread():
    assert spread([FoldScores(1, 30, "probe", 4, {"nme": Score(3.0, 2.0, 4.0)})], "nme").deviation == 0
