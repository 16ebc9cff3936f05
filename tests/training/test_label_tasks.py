"""Losses of several labels: weighted, masked where a label is missing, and each column for itself."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headstart.data.label_layout import MISSING, LabelColumn, LabelLayout
from headstart.data.sources import read_source
from headstart.recipe import make_recipe
from headstart.training.class_weights import class_weights
from headstart.training.label_tasks import MultiLabel, SeveralLabels
from headstart.training.losses import classification_loss
from headstart.training.mixing import Mixing
from headstart.training.tasks import LabelledRecords

COLUMNS = (LabelColumn("mask", ("no", "yes")), LabelColumn("age", ("<30", "30–60", "≥60")))
HEADS = LabelLayout("heads", COLUMNS)
TAGS = LabelLayout("multi", (LabelColumn("tags", ("a", "b", "c")),))


def heads(**settings) -> SeveralLabels:
    return SeveralLabels(make_recipe({"label": "mask,age", **settings}), HEADS)


def drawn(num=8):
    draw = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.randint(0, 2, (num,), generator=draw), torch.randint(0, 3, (num,), generator=draw)], 1)
    return torch.randn(num, 5, generator=draw, requires_grad=True), labels


def test_the_loss_is_the_weighted_mean_of_the_columns():
    outputs, labels = drawn()
    task = heads(label_weights="mask=1,age=3", label_smoothing=0.1)
    mask = F.cross_entropy(outputs[:, :2], labels[:, 0], label_smoothing=0.1)
    age = F.cross_entropy(outputs[:, 2:], labels[:, 1], label_smoothing=0.1)
    assert task.loss(None, outputs, (labels,)).item() == pytest.approx(((mask + 3 * age) / 4).item(), rel=1e-6)


def test_a_missing_label_gives_its_column_no_gradient():
    outputs, labels = drawn()
    labels[:3, 1] = MISSING
    heads().loss(None, outputs, (labels,)).backward()
    assert (outputs.grad[:3, 2:] == 0).all()
    assert (outputs.grad[:3, :2] != 0).all()
    assert (outputs.grad[3:, 2:] != 0).all()


def test_a_batch_without_any_label_of_a_column_trains_the_others():
    outputs, labels = drawn()
    labels[:, 1] = MISSING
    loss = heads().loss(None, outputs, (labels,))
    loss.backward()
    assert torch.isfinite(loss)
    assert (outputs.grad[:, 2:] == 0).all()


def test_a_weight_of_zero_leaves_a_column_out():
    outputs, labels = drawn()
    heads(label_weights="age=0").loss(None, outputs, (labels,)).backward()
    assert (outputs.grad[:, 2:] == 0).all()


def mixing(num=8, *, own=0.75) -> Mixing:
    """Each photo takes a quarter of the next one."""
    partners = np.roll(np.arange(num), -1)
    return Mixing(partners, np.full(num, own, np.float32), np.zeros((num, 4), np.int64))


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "soft_f1", "bce"])
def test_every_loss_of_classes_serves_a_column(loss):
    outputs, labels = drawn()
    labels[0, 0] = MISSING
    task = heads(loss=loss, label_weights="age=0")
    alone = classification_loss(loss, outputs[1:, :2], labels[1:, 0], smoothing=task.recipe.label_smoothing)
    assert task.loss(None, outputs, (labels,)).item() == pytest.approx(alone.item(), rel=1e-6)


def test_a_mixed_photo_counts_where_both_photos_have_a_label():
    outputs, labels = drawn()
    labels[3, 1] = MISSING
    task = heads()
    shares = task.mixed(None, (labels,), mixing())
    assert shares[0].shape == (8, 5)
    task.loss(None, outputs, shares).backward()
    assert (outputs.grad[[2, 3], 2:] == 0).all()
    assert (outputs.grad[[2, 3], :2] != 0).all()
    assert (outputs.grad[[0, 1, 4, 5, 6, 7]] != 0).all()


def test_photos_mixed_with_themselves_lose_as_before():
    outputs, labels = drawn()
    labels[3, 1] = MISSING
    task = heads()
    whole = task.mixed(None, (labels,), mixing(own=1.0))
    assert task.loss(None, outputs, whole).item() == pytest.approx(task.loss(None, outputs, (labels,)).item(), rel=1e-6)


def test_classes_of_each_head_are_balanced_for_themselves():
    outputs, labels = drawn()
    weights = torch.tensor([1.0, 3.0, 2.0, 1.0, 0.5])
    task = SeveralLabels(make_recipe({"label": "mask,age", "label_smoothing": 0.0}), HEADS, weights)
    mask = F.cross_entropy(outputs[:, :2], labels[:, 0], weight=weights[:2])
    age = F.cross_entropy(outputs[:, 2:], labels[:, 1], weight=weights[2:])
    assert task.loss(None, outputs, (labels,)).item() == pytest.approx(((mask + age) / 2).item(), rel=1e-6)


def test_class_weights_come_from_the_training_samples_of_each_column(tmp_path):
    rows = [("a", "x", "train")] * 3 + [("b", "x", "train")] + [("b", "y", "train")] * 2 + [("b", "y", "test")] * 9
    text = "".join(f"{number}.jpg,{','.join(row)}\n" for number, row in enumerate(rows))
    (tmp_path / "t.csv").write_text(f"path,one,two,split\n{text}")
    recipe = make_recipe(
        {"data": str(tmp_path / "t.csv"), "label": "one,two", "split_column": "split", "class_weights": "balanced"}
    )
    table = read_source(recipe, unpack_dir=tmp_path)
    assert class_weights(recipe, table).tolist() == pytest.approx([1.0, 1.0, 0.75, 1.5])
    (tmp_path / "w.csv").write_text("one=a,1\none=b,2\ntwo=x,3\ntwo=y,4\n")
    assert class_weights(recipe.updated(class_weights=str(tmp_path / "w.csv")), table).tolist() == [1, 2, 3, 4]


def test_a_rare_class_of_several_counts_more_where_it_is_there(tmp_path):
    rows = "".join(f"{number}.jpg,{'cat;dog' if number == 0 else 'dog'}\n" for number in range(5))
    (tmp_path / "t.csv").write_text(
        f"path,tags,split\n{rows}".replace("\n", ",train\n").replace("split,train", "split")
    )
    recipe = make_recipe(
        {"data": str(tmp_path / "t.csv"), "multi_label": "tags", "split_column": "split", "class_weights": "balanced"}
    )
    table = read_source(recipe, unpack_dir=tmp_path)
    assert class_weights(recipe, table).tolist() == [4.0, pytest.approx(0.2)]


def test_scores_are_means_over_columns_beside_each_ones_own():
    outputs, labels = drawn(40)
    samples = LabelledRecords(np.arange(40), labels.numpy(), np.arange(40), np.zeros((40, 2)))
    scores = heads().scores(outputs.detach(), samples, None)
    assert scores["accuracy"] == pytest.approx((scores["mask.accuracy"] + scores["age.accuracy"]) / 2)
    assert scores["exact"] <= min(scores["mask.accuracy"], scores["age.accuracy"])
    assert set(heads().score_names) <= set(scores)


def test_several_classes_at_once_have_a_binary_cross_entropy_each():
    outputs = torch.tensor([[2.0, -1.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    task = MultiLabel(make_recipe({"multi_label": "tags"}), TAGS)
    expected = F.binary_cross_entropy_with_logits(outputs, labels)
    assert task.loss(None, outputs, (labels,)).item() == pytest.approx(expected.item())
    smoothed = MultiLabel(make_recipe({"multi_label": "tags", "label_smoothing": 0.2}), TAGS)
    soft = torch.tensor([[0.9, 0.1, 0.9]])
    expected = F.binary_cross_entropy_with_logits(outputs, soft)
    assert smoothed.loss(None, outputs, (labels,)).item() == pytest.approx(expected.item())
