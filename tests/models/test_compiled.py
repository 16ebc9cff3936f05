import os
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]

from headstart.models.compiled import compile_forward
from headstart.models.graphs import Graph, read_graph, write_graph
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


@pytest.fixture
def graph_path(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Compile the small network with a cache of its own, and give the one file in it."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    network = small_network()
    compile_forward(network, some_pixels(4))
    (path,) = (tmp_path / "graphs").iterdir()
    return network, path


def forbid_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("it was converted")

    monkeypatch.setattr(openvino, "convert_model", fail)


@pytest.mark.parametrize("batch_size", [4, 7])
def test_a_network_is_converted_once_for_all_batch_sizes(graph_path, batch_size, monkeypatch: pytest.MonkeyPatch):
    network, _ = graph_path
    forbid_conversion(monkeypatch)
    assert compile_forward(network, some_pixels(batch_size)).note is None


def test_a_graph_from_the_cache_gives_the_same_bits(graph_path):
    network, path = graph_path
    from_cache = compile_forward(network, some_pixels(4))
    path.unlink()
    fresh = compile_forward(network, some_pixels(4))
    assert torch.equal(from_cache(some_pixels(9)), fresh(some_pixels(9)))


def test_changed_weights_are_converted_anew(graph_path):
    network, path = graph_path
    before = compile_forward(network, some_pixels(4))(some_pixels(4))
    with torch.no_grad():
        network.head.linear.bias += 1
    after = compile_forward(network, some_pixels(4))(some_pixels(4))
    assert torch.allclose(after, before + 1, atol=1e-4)
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "short", "one bit", "other file"])
def test_a_damaged_graph_is_made_anew(graph_path, damage: str):
    network, path = graph_path
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"empty": b"", "short": whole[:-9], "one bit": flipped, "other file": b"x" * 5000}[damage])
    assert compile_forward(network, some_pixels(4)).note is None
    assert read_graph(path) is not None


def test_a_graph_of_another_network_under_this_name_is_not_used(graph_path):
    network, path = graph_path
    other = small_network()
    torch.nn.init.ones_(other.head.linear.bias)
    compile_forward(other, some_pixels(4))
    (other_path,) = set(path.parent.iterdir()) - {path}
    path.write_bytes(other_path.read_bytes())
    with torch.inference_mode():
        expected = network(some_pixels(4))
    assert torch.allclose(compile_forward(network, some_pixels(4))(some_pixels(4)), expected, atol=1e-4)


def test_a_whole_file_that_is_no_graph_is_made_anew(graph_path):
    network, path = graph_path
    path.write_bytes(Graph(b"no layers", b"").to_bytes())
    assert compile_forward(network, some_pixels(4)).note is None
    assert read_graph(path) != Graph(b"no layers", b"")


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    assert compile_forward(small_network(), some_pixels(4)).note is None


def test_what_was_not_used_for_longest_makes_room(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headstart.models.graphs._MOST_BYTES", 2500)
    for number in range(4):
        write_graph(tmp_path / f"{number}.graph", Graph(b"<net/>", bytes(1000)))
        os.utime(tmp_path / f"{number}.graph", (number, number))
        read_graph(tmp_path / "0.graph")
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0", "3"]
