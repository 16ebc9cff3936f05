import sys

import pytest
import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]

from headstart.models.compiled import compile_forward
from headstart.models.network import new_network
from headstart.recipe import Recipe


class Lazy(nn.Module):
    """Answers otherwise while it is traced, so that its graph is wrong."""

    def forward(self, values: Tensor) -> Tensor:
        return values.float() * (2 if is_tracing() else 1)


class Untraceable(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        if is_tracing():
            raise RuntimeError("this cannot be traced\nat all")
        return values.float() + 1


def small_network() -> nn.Module:
    return new_network(Recipe(backbone="test_efficientnet", weights="none", image_size=(64, 64)), 5).eval()


def some_pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def compiled_pair():
    network = small_network()
    with torch.inference_mode():  # as callers do
        return network, compile_forward(network, some_pixels(4))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_batches_of_any_size_get_pytorchs_answer(compiled_pair, count: int):
    network, forward = compiled_pair
    assert forward.note is None
    with torch.inference_mode():
        expected = network(some_pixels(count))
    given = forward(some_pixels(count))
    assert given.shape == expected.shape
    assert float((given - expected).abs().max() / expected.abs().max()) < 1e-4


def test_an_answer_is_not_written_over_by_the_next(compiled_pair):
    _, forward = compiled_pair
    first = forward(some_pixels(4))
    kept = first.clone()
    forward(some_pixels(3))
    assert torch.equal(first, kept)


def test_a_graph_that_disagrees_is_not_used():
    forward = compile_forward(Lazy(), torch.ones(2, 3))
    assert forward.note is not None
    assert "differs from PyTorch's by 1.0e+00 (allowed 1e-03)" in forward.note
    assert torch.equal(forward(torch.ones(5, 3)), torch.ones(5, 3))


def test_a_network_that_cannot_be_converted_runs_in_pytorch():
    forward = compile_forward(Untraceable(), torch.ones(2, 3))
    assert forward.note == "OpenVINO cannot run this network (this cannot be traced), so PyTorch does."
    assert torch.equal(forward(torch.ones(5, 3)), torch.full((5, 3), 2.0))


def test_without_openvino_pytorch_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    forward = compile_forward(nn.Linear(3, 2).eval(), torch.ones(2, 3))
    assert forward.note is not None
    assert "OpenVINO is not installed" in forward.note
    assert forward(torch.ones(5, 3)).shape == (5, 2)


def test_compiling_leaves_the_network_as_it_was():
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    compile_forward(network, some_pixels(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    network.train()(some_pixels(2)).sum().backward()
    assert network.head.linear.weight.grad is not None  # pyright: ignore
