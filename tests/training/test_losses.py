"""Losses: one battery for all of them, and the closed form of each."""

import math

import pytest
import torch

from headstart.models.heads import SimccHead
from headstart.training.losses import (
    COORDINATE_LOSSES,
    SOFT_WING,
    WING,
    coordinate_loss,
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
