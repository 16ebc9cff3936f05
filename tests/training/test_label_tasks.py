"""Losses of several labels: weighted, masked where a label is missing, and each column for itself."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headstart.data.label_layout import MISSING, LabelColumn, LabelLayout
from headstart.recipe import make_recipe
from headstart.training.label_tasks import ManyLabelled, MultiLabel, SeveralLabels

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


def test_scores_are_means_over_columns_beside_each_ones_own():
    outputs, labels = drawn(40)
    samples = ManyLabelled(np.arange(40), labels.numpy(), np.arange(40), np.zeros((40, 2)))
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
