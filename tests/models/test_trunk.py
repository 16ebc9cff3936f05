"""A network is cut before what trains, and the rest gives the same features from what the trunk gave."""

import pytest
import torch

from headstart.models.network import new_network
from headstart.models.trunk import Trunk, find_cut
from headstart.recipe import Recipe


def _network(backbone, unfreeze, **settings):
    settings = {"weights": "none", "image_size": 64, **settings}
    network = new_network(Recipe(backbone=backbone, **settings), 3)
    network.unfreeze(unfreeze)
    return network.eval()


@pytest.mark.parametrize(
    ("backbone", "unfreeze", "at"),
    [
        ("test_resnet", "1", "layer3"),
        ("mobilenetv3_small_100", "2", "blocks.4"),
        ("mobilenetv2_100", r"^blocks\.6|conv_head", "blocks.5"),
        ("rexnet_100", "2", "features.14"),
        ("test_resnet", "none", "layer4"),
        ("mobilenetv2_100", "none", "bn2"),
    ],
)
def test_what_comes_after_the_cut_gives_the_same_answers(backbone, unfreeze, at):
    network = _network(backbone, unfreeze)
    cut = find_cut(network)
    assert cut is not None
    assert cut.at == at
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        activations = Trunk(network, cut)(pixels)
        assert activations.shape == (3, *cut.shape)
        with cut.fed(network, activations) as pictures:
            assert torch.equal(network(pictures), network(pixels))


def test_gradients_of_what_trains_are_the_same_from_the_cut_on():
    network = _network("test_resnet", "2")
    cut = find_cut(network)
    assert cut is not None
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    network(pixels).square().sum().backward()
    expected = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
    network.zero_grad(set_to_none=True)
    activations = Trunk(network, cut)(pixels).detach()
    with cut.fed(network, activations) as pictures:
        network(pictures).square().sum().backward()
    found = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in found)


def test_the_network_is_whole_again_after_it_was_fed():
    network = _network("test_resnet", "1")
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = network(pixels)
        cut = find_cut(network)
        assert cut is not None
        with pytest.raises(KeyError), cut.fed(network, torch.zeros(2, *cut.shape)):
            raise KeyError
        assert torch.equal(network(pixels), before)


@pytest.mark.parametrize(("backbone", "unfreeze"), [("test_resnet", "all"), ("test_vit", "1")])
def test_a_network_that_cannot_be_cut_is_left_whole(backbone, unfreeze):
    assert find_cut(_network(backbone, unfreeze, image_size=None)) is None
