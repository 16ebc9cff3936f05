"""Class weights: counted from the training samples, or read from a file that has to fit the classes."""

import numpy as np
import pytest

from headstart.data.class_weights_file import read_class_weights
from headstart.data.table import SampleTable
from headstart.errors import RecipeError
from headstart.training.class_weights import class_weights, describe_weights
from headstart.training.tasks import make_task

NAMES = ("cat", "dog")


def _file(tmp_path, text):
    path = tmp_path / "weights.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_balanced_weights_count_the_training_samples_alone(finished_run):
    table = SampleTable.load(finished_run.path / "table.parquet")
    kept = table.kept
    labels = kept.filter(kept["split"] == "train")["label"].to_numpy()
    counts = np.bincount(labels, minlength=10)
    weights = class_weights(finished_run.recipe.updated(class_weights="balanced"), table)
    assert weights is not None
    assert weights.numpy() == pytest.approx(len(labels) / 10 / counts)
    assert make_task(finished_run.recipe, table).weights is None


@pytest.mark.parametrize("text", ["label,weight\ncat,2\ndog,0.5\n", "\ufeffdog,0.5\ncat,2\n"])
def test_a_file_of_weights_is_read_with_or_without_a_header(tmp_path, text):
    assert read_class_weights(_file(tmp_path, text), NAMES) == [2.0, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat,2\n", r"a row for the class 'dog'"),
        ("cat,2\ndog,1\ndgo,1\n", r"classes of this data; got 'dgo'\. Did you mean 'dog'"),
        ("cat,2\ndog,-1\n", r"weight of 'dog' must be a number above 0; got -1"),
        ("cat,2\ndog,much\n", r"weight of 'dog' must be a number above 0; got nan"),
        ("cat\ndog\n", "two columns, label and weight"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        read_class_weights(_file(tmp_path, text), NAMES)


def test_a_name_that_is_no_file_is_refused_with_the_choices(tmp_path):
    with pytest.raises(RecipeError, match=r"balanced, effective or a CSV file"):
        read_class_weights(tmp_path / "blanced", NAMES)


def test_many_classes_are_described_by_their_extremes():
    import torch

    text = describe_weights(torch.arange(1.0, 21.0), [f"c{i}" for i in range(20)])
    assert text == "class weights: c19 20, c18 19, c17 18, …, c2 3, c1 2, c0 1"
