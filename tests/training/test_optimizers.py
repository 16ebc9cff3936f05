"""Every optimizer by name: who decays, how fast layers learn, and a resumed one that takes the same step."""

import json

import pytest
import timm.optim
import torch
from torch import nn

from headstart.errors import RecipeError
from headstart.recipe import make_recipe
from headstart.training.checkpoints import optimizer_scalars, optimizer_tensors, restore_optimizer
from headstart.training.optimizers import check_optimizer, make_optimizer, parameter_groups, set_lr


def _network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _optimizer(network, name="adamw", **settings):
    recipe = make_recipe({"optimizer": name, **settings})
    return make_optimizer(parameter_groups(network.named_parameters(), weight_decay=0.3), recipe, lr=1e-3)


def _step(network, optimizer, seed):
    torch.manual_seed(seed)
    optimizer.zero_grad(set_to_none=True)
    network(torch.randn(8, 3, 4, 4)).square().mean().backward()
    optimizer.step()


def test_biases_and_norms_do_not_decay():
    network = _network()
    decays = {
        id(parameter): group["weight_decay"]
        for group in _optimizer(network).param_groups
        for parameter in group["params"]
    }
    assert {decays[id(parameter)] for parameter in (network[0].weight, network[3].weight)} == {0.3}
    assert {decays[id(parameter)] for parameter in (network[0].bias, network[1].weight, network[1].bias)} == {0.0}


def test_frozen_parameters_are_not_in_the_optimizer():
    network = nn.Linear(4, 4)
    network.weight.requires_grad_(False)
    optimizer = _optimizer(network)
    assert [parameter is network.bias for group in optimizer.param_groups for parameter in group["params"]] == [True]


def test_each_block_learns_slower_than_the_next_by_the_layer_decay():
    network = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 2)})
    blocks = (("0.weight", "0.bias"), ("1.weight", "1.bias"))
    groups = parameter_groups(network.named_parameters(), weight_decay=0.0, blocks=blocks, layer_decay=0.5)
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_lr(optimizer, 0.8)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    layers = (network["backbone"][0], network["backbone"][1], network["head"])
    assert [rates[id(layer.weight)] for layer in layers] == pytest.approx([0.2, 0.4, 0.8])


ELSEWHERE = ("bnb", "fused", "adahessian", "kron")
"""Optimizers that need a GPU and another package, or that are refused: how their names begin."""


@pytest.mark.parametrize("name", [name for name in timm.optim.list_optimizers() if not name.startswith(ELSEWHERE)])
def test_an_optimizer_goes_on_from_a_checkpoint_with_the_same_bits(name):
    network = _network()
    optimizer = _optimizer(network, name)
    _step(network, optimizer, 1)
    _step(network, optimizer, 2)
    tensors = {key: value.clone() for key, value in optimizer_tensors(optimizer).items()}
    scalars = json.loads(json.dumps(optimizer_scalars(optimizer)))
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    _step(network, optimizer, 3)
    other = _network()
    other.load_state_dict(weights)
    resumed = _optimizer(other, name)
    restore_optimizer(resumed, tensors, scalars)
    _step(other, resumed, 3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_an_optimizer_that_needs_another_package_is_refused_by_name():
    with pytest.raises(RecipeError, match="optimizer must be one that can be made here; got 'fusedlamb'"):
        _optimizer(_network(), "fusedlamb")


def test_sgd_looks_ahead_only_where_it_is_asked_to():
    assert _optimizer(_network(), "sgd").param_groups[0]["nesterov"] is False
    assert _optimizer(_network(), "nesterov").param_groups[0]["nesterov"] is True
    assert _optimizer(_network(), "sgd", momentum=0.5).param_groups[0]["momentum"] == 0.5


def test_rates_and_decay_follow_the_optimizer_where_they_are_not_given():
    adam, sgd = make_recipe({"optimizer": "adam"}), make_recipe({"optimizer": "sgd"})
    assert (adam.lr, adam.weight_decay) == (3e-4, 0.0)
    assert (sgd.lr, sgd.weight_decay) == (1e-3, 0.0)
    assert make_recipe({"optimizer": "sgd", "lr": 0.5, "weight_decay": 1e-4}).lr == 0.5
    assert make_recipe({}).updated(optimizer="sgd").weight_decay == 0.0


@pytest.mark.parametrize(
    ("name", "message"),
    [("adamm", "Did you mean 'adam"), ("adahessian", "second derivatives"), ("kron", "could not be resumed")],
)
def test_an_optimizer_that_cannot_be_had_is_refused_with_the_reason(name, message):
    with pytest.raises(RecipeError, match=message):
        check_optimizer(name)
