"""predictions.parquet keeps its columns whatever the classes are called."""

import numpy as np
import polars as pl

from headstart.models.inference import InferenceLog
from headstart.scoring import Scoring, save_predictions


def _scoring(*class_names):
    rows = pl.DataFrame({"path": ["a.jpg", "b.jpg"], "split": ["test", "validation"], "label": [0, 1]})
    probabilities = np.eye(len(class_names))[[1, 1]]
    return Scoring({}, rows, probabilities, 1.0, (), InferenceLog(), class_names)


def test_labels_and_answers_are_class_names(tmp_path):
    save_predictions(_scoring("고양이", "dog"), tmp_path / "p.parquet")
    frame = pl.read_parquet(tmp_path / "p.parquet")
    assert frame["label"].to_list() == ["고양이", "dog"]
    assert frame["predicted"].to_list() == ["dog", "dog"]
    assert frame["dog"].to_list() == [1.0, 1.0]


def test_a_class_named_like_a_column_does_not_hide_it(tmp_path):
    save_predictions(_scoring("path", "split", "cat"), tmp_path / "p.parquet")
    frame = pl.read_parquet(tmp_path / "p.parquet")
    assert frame.columns == ["path", "split", "label", "predicted", "path (class)", "split (class)", "cat"]


def test_rows_of_one_split_stand_beside_their_probabilities():
    rows, probabilities = _scoring("cat", "dog").of_split("validation")
    assert rows["path"].to_list() == ["b.jpg"]
    assert probabilities.shape == (1, 2)
