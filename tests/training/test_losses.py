"""Losses: one battery for all of them, and the closed form of each."""

import math

import pytest
import torch
from sklearn.metrics import f1_score

from headstart.data.label_settings import MULTI_LOSSES
from headstart.models.heads import SimccHead
from headstart.training.losses import (
    CLASSIFICATION_LOSSES,
    COORDINATE_LOSSES,
    SOFT_WING,
    WING,
    as_shares,
    balanced_weights,
    binary_focal,
    classification_loss,
    coordinate_loss,
    effective_weights,
    focal,
    presence_loss,
    simcc_loss,
    smooth,
    soft_wing,
    wing,
)

POINTS = torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(0))
ALL = torch.ones(4, 5, dtype=torch.bool)


@pytest.mark.parametrize("name", COORDINATE_LOSSES)
def test_a_perfect_answer_costs_nothing(name):
    assert float(coordinate_loss(name, POINTS, POINTS, ALL)) == 0


@pytest.mark.parametrize("name", COORDINATE_LOSSES)
def test_a_larger_error_costs_more_and_both_directions_the_same(name):
    sizes = torch.linspace(0, 1, 200)
    losses = COORDINATE_LOSSES[name](sizes)
    assert (losses.diff() > 0).all()
    assert torch.allclose(losses, COORDINATE_LOSSES[name](-sizes))


@pytest.mark.parametrize("name", COORDINATE_LOSSES)
def test_a_loss_has_no_jump(name):
    losses = COORDINATE_LOSSES[name](torch.linspace(0, 0.3, 30001))
    assert float(losses.diff().max()) < 2e-4


@pytest.mark.parametrize("name", COORDINATE_LOSSES)
def test_a_point_that_does_not_count_has_no_gradient(name):
    answers = POINTS.clone().requires_grad_()
    visible = ALL.clone()
    visible[1, 2] = False
    coordinate_loss(name, answers, torch.zeros_like(POINTS), visible).backward()
    assert answers.grad is not None
    assert (answers.grad[1, 2] == 0).all()
    assert (answers.grad[visible] != 0).all()


@pytest.mark.parametrize("name", COORDINATE_LOSSES)
def test_a_batch_without_a_visible_point_costs_nothing_and_is_finite(name):
    answers = POINTS.clone().requires_grad_()
    loss = coordinate_loss(name, answers, torch.zeros_like(POINTS), torch.zeros_like(ALL))
    loss.backward()
    assert float(loss.detach()) == 0
    assert answers.grad is not None
    assert torch.isfinite(answers.grad).all()


def test_losses_have_their_published_form():
    error = torch.tensor([0.3 * WING[0], 2 * WING[0]])
    constant = WING[0] - WING[0] * math.log(1 + WING[0] / WING[1])
    expected = [WING[0] * math.log(1 + float(error[0]) / WING[1]), float(error[1]) - constant]
    assert wing(error).tolist() == pytest.approx(expected)
    low, high, curvature = SOFT_WING
    error = torch.tensor([0.5 * low, 3 * low])
    expected = [0.5 * low, high * math.log(1 + 3 * low / curvature) + low - high * math.log(1 + low / curvature)]
    assert soft_wing(error).tolist() == pytest.approx(expected)
    assert smooth(torch.tensor([0.1, 2.0]), bend=1.0).tolist() == pytest.approx([0.005, 1.5])


def sure_outputs(head, targets):
    """Logits that put all weight on the bins of the targets."""
    outputs = torch.full((len(targets), head.num_keypoints, sum(head.num_bins)), -30.0)
    for row, points in enumerate(targets.tolist()):
        for point, (x, y) in enumerate(points):
            outputs[row, point, int(x * head.num_bins[1])] = 30.0
            outputs[row, point, head.num_bins[1] + int(y * head.num_bins[0])] = 30.0
    return outputs


def test_simcc_costs_least_where_the_distribution_lies_on_the_target():
    head = SimccHead(8, 5, map_size=(4, 4), num_bins=(64, 64))
    there = simcc_loss(head, sure_outputs(head, POINTS), POINTS, ALL)
    away = simcc_loss(head, sure_outputs(head, (POINTS + 0.3) % 1), POINTS, ALL)
    assert there < away


def test_simcc_learns_a_point_between_two_bins():
    head = SimccHead(8, 1, map_size=(2, 2), num_bins=(16, 16))
    outputs = torch.zeros(1, 1, 32, requires_grad=True)
    target, optimizer = torch.tensor([[[0.47, 0.33]]]), torch.optim.Adam([outputs], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        simcc_loss(head, outputs, target, torch.ones(1, 1, dtype=torch.bool)).backward()
        optimizer.step()
    assert head.decode(outputs.detach())[0, 0].tolist() == pytest.approx([0.47, 0.33], abs=2e-3)


@pytest.mark.parametrize("name", COORDINATE_LOSSES)
def test_a_loss_in_pixels_bends_at_whole_pixels(name):
    from headstart.training.losses import PIXEL

    answers, targets, visible = torch.tensor([[[3.0, 1.0]]]), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
    in_pixels = coordinate_loss(name, answers, targets, visible, in_pixels=True)
    expected = 5.0 if name == "mse" else float(coordinate_loss(name, answers * PIXEL, targets, visible)) / PIXEL
    assert float(in_pixels) == pytest.approx(expected)


LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 4
SHARES = as_shares(LABELS, 4)
WEIGHTS = torch.tensor([4.0, 1.0, 1.0, 0.5])


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_hard_labels_and_shares_that_say_the_same_cost_the_same(name):
    for weights in (None, WEIGHTS):
        hard = classification_loss(name, LOGITS, LABELS, weights=weights)
        assert torch.isclose(hard, classification_loss(name, LOGITS, SHARES, weights=weights), atol=1e-6)


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_mixed_shares_are_taken_and_have_gradients(name):
    logits = LOGITS.clone().requires_grad_()
    loss = classification_loss(name, logits, 0.7 * SHARES + 0.3 * SHARES.flip(0))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_the_right_answer_costs_less_than_a_wrong_one_and_weights_are_applied(name):
    right, wrong = 12 * SHARES - 6, 12 * SHARES.roll(1, 1) - 6
    assert classification_loss(name, right, LABELS) < 0.05 < classification_loss(name, wrong, LABELS)
    only_first = wrong * (LABELS == 0)[:, None] + right * (LABELS != 0)[:, None]  # class 0, the heavy one, is wrong
    plain = classification_loss(name, only_first, LABELS)
    assert classification_loss(name, only_first, LABELS, weights=WEIGHTS) > 1.5 * plain


@pytest.mark.parametrize("gamma", [0.3, 0.5, 2.0])
def test_what_is_told_for_sure_has_a_slope_under_any_focal_gamma(gamma):
    for loss in (focal, binary_focal):
        logits = torch.tensor([[60.0, 0.0], [0.0, 60.0]], requires_grad=True)
        loss(logits, torch.tensor([[1.0, 0.0]] * 2), gamma=gamma).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_focal_loss_is_cross_entropy_times_what_was_missing():
    probability = LOGITS.softmax(1)[range(12), LABELS]
    expected = ((1 - probability) ** 3 * -probability.log()).mean()
    assert torch.isclose(classification_loss("focal", LOGITS, LABELS, gamma=3.0), expected)


def test_alpha_weighs_the_second_of_two_classes():
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    losses = [classification_loss("focal", logits[[i]], labels[[i]], alpha=0.9) for i in (0, 1)]
    assert float(losses[1] / losses[0]) == pytest.approx(9)


def test_soft_f1_of_sure_answers_is_one_minus_f1():
    predicted = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2])
    expected = 1 - f1_score(LABELS % 3, predicted, average="macro")
    found = classification_loss("soft_f1", 1000 * as_shares(predicted, 3), LABELS % 3)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_binary_cross_entropy_of_one_unit_is_pytorchs():
    unit, labels = torch.randn(8), torch.arange(8) % 2
    logits = torch.stack([torch.zeros(8), unit], 1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(unit, labels.float())
    assert torch.isclose(classification_loss("bce", logits, labels), expected)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_loss_of_several_classes_at_once_is_torchvisions(gamma, alpha):
    from torchvision.ops import sigmoid_focal_loss

    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 5, generator=draw)
    shares = torch.randint(0, 2, (8, 5), generator=draw).float()
    theirs = sigmoid_focal_loss(logits, shares, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    assert torch.isclose(presence_loss("focal", logits, shares, gamma=gamma, alpha=alpha), theirs)


def test_soft_f1_of_several_classes_at_once_is_one_minus_macro_f1_of_sure_answers():
    truth = torch.tensor([[1.0, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    given = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 1]])
    loss = presence_loss("soft_f1", 100 * (given - 0.5), truth)
    assert float(loss) == pytest.approx(1 - f1_score(truth.numpy(), given.numpy(), average="macro"), abs=1e-6)


@pytest.mark.parametrize("name", MULTI_LOSSES)
def test_a_batch_without_any_of_the_classes_has_a_finite_loss(name):
    logits = torch.zeros(4, 3, requires_grad=True)
    loss = presence_loss(name, logits, torch.zeros(4, 3))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", MULTI_LOSSES)
def test_weights_and_mixed_photos_are_heeded_by_losses_of_several_classes_at_once(name):
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 3, generator=draw, requires_grad=True)
    shares = torch.rand(6, 3, generator=draw)
    plain, weighted = (
        presence_loss(name, logits, shares, weights=weights) for weights in (None, torch.tensor([9.0, 1, 1]))
    )
    assert not torch.isclose(plain, weighted)
    grads = [torch.autograd.grad(loss, logits)[0].abs().sum(0) for loss in (plain, weighted)]
    assert grads[1][0] / grads[1][2] > 2 * grads[0][0] / grads[0][2]


def test_balanced_classes_weigh_the_same_together():
    counts = torch.tensor([5, 50, 500])
    weights = balanced_weights(counts)
    assert torch.allclose(weights * counts, torch.full((3,), 555 / 3))
    mild = effective_weights(counts)
    assert 1 < mild[0] / mild[2] < weights[0] / weights[2]
    assert float((mild * counts).sum()) == pytest.approx(555, rel=1e-5)
