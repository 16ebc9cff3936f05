"""Weight decay on matrices only; nothing kept for frozen parameters."""

import torch

from headstart.training.optimizers import make_adamw, set_lr


def test_biases_and_norms_do_not_decay():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = make_adamw(network.named_parameters(), lr=0.1, weight_decay=0.3)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(network[0].weight)] == 0.3
    assert {decays[id(p)] for p in (network[0].bias, network[1].weight, network[1].bias)} == {0.0}


def test_frozen_parameters_are_not_in_the_optimizer():
    network = torch.nn.Linear(4, 4)
    network.weight.requires_grad_(False)
    optimizer = make_adamw(network.named_parameters(), lr=0.1, weight_decay=0.3)
    assert [p is network.bias for group in optimizer.param_groups for p in group["params"]] == [True]


def test_a_new_rate_reaches_every_group():
    network = torch.nn.Linear(4, 4)
    optimizer = make_adamw(network.named_parameters(), lr=0.1, weight_decay=0.3)
    set_lr(optimizer, 0.01)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
