"""Checkpoints come back whole, and a resumed optimizer takes the same step."""

import pytest
import torch

from headstart.errors import TrainingError
from headstart.recipe import make_recipe
from headstart.training.checkpoints import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under_prefix,
    with_prefix,
)
from headstart.training.optimizers import make_optimizer, parameter_groups


def _network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2)).to(
        memory_format=torch.channels_last
    )


def _adamw(network):
    groups = parameter_groups(network.named_parameters(), weight_decay=0.1)
    return make_optimizer(groups, make_recipe({}), lr=0.1)


def _step(network, optimizer, seed):
    torch.manual_seed(seed)
    network(torch.randn(8, 3, 4, 4)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_tensors_and_state_come_back_unchanged(tmp_path):
    tensors = {"a": torch.randn(2, 3).t(), "b": torch.arange(4)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"epoch": 3, "이름": "값"})
    loaded, state = load_checkpoint(tmp_path / "c.safetensors")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert state == {"epoch": 3, "이름": "값"}


def test_half_a_checkpoint_is_refused_by_name(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.randn(100)}, {})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"c\.safetensors must be a whole checkpoint"):
        load_checkpoint(path)


def test_a_restored_optimizer_takes_the_same_step_to_the_bit(tmp_path):
    network = _network()
    optimizer = _adamw(network)
    _step(network, optimizer, 1)
    tensors = with_prefix("network", network.state_dict()) | with_prefix("optimizer", optimizer_tensors(optimizer))
    save_checkpoint(tmp_path / "c.safetensors", tensors, {})
    _step(network, optimizer, 2)
    loaded = load_checkpoint(tmp_path / "c.safetensors")[0]
    other = _network()
    other.load_state_dict(under_prefix("network", loaded))
    resumed = _adamw(other)
    restore_optimizer(resumed, under_prefix("optimizer", loaded))
    _step(other, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
