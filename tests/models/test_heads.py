"""Heads: shapes, decoding, gradients, and that each can be built again from what its bundle says."""

import pytest
import torch

from headstart.data.keypoints import numbered_layout
from headstart.errors import RecipeError
from headstart.models.backbones import create_backbone, feature_map
from headstart.models.bundle import load_bundle, save_bundle
from headstart.models.heads import (
    HEADS,
    REACH,
    ClassificationHead,
    CoordinateHead,
    IntegralHead,
    SimccHead,
    build_head,
)
from headstart.models.network import new_network
from headstart.recipe import Recipe

KEYPOINT_HEADS = {
    "coordinates": lambda: CoordinateHead(8, 5),
    "integral": lambda: IntegralHead(8, 5),
    "simcc": lambda: SimccHead(8, 5, map_size=(4, 6), num_bins=(40, 60)),
}


def features_for(head, num_samples=3):
    shape = (num_samples, 8) if head.takes == "pooled" else (num_samples, 8, 4, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KEYPOINT_HEADS)
def test_a_keypoint_head_gives_a_point_for_each_keypoint(kind):
    head = KEYPOINT_HEADS[kind]()
    outputs = head(features_for(head))
    assert outputs.shape[0] == 3
    assert outputs[0].numel() == head.num_outputs
    assert head.decode(outputs).shape == (3, 5, 2)


@pytest.mark.parametrize("kind", KEYPOINT_HEADS)
def test_mixed_precision_does_not_round_coordinates(kind):
    head = KEYPOINT_HEADS[kind]().eval()
    features = features_for(head).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = head.decode(head(features))
    assert answers.dtype == torch.float32
    assert torch.allclose(answers, head.decode(head(features.float())), atol=1e-6)


@pytest.mark.parametrize("kind", KEYPOINT_HEADS)
def test_every_parameter_of_a_head_learns(kind):
    head = KEYPOINT_HEADS[kind]()
    head.decode(head(features_for(head))).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


@pytest.mark.parametrize("make", [*KEYPOINT_HEADS.values(), lambda: ClassificationHead(8, 3, dropout=0.1)])
def test_a_head_is_built_again_from_its_kind_and_settings(make):
    head = make()
    again = build_head(head.kind, 8, head.settings)
    again.load_state_dict(head.state_dict())
    features = features_for(head)
    assert torch.equal(head.eval()(features), again.eval()(features))
    assert again.settings == head.settings


def test_a_simcc_head_that_is_sure_of_a_bin_decodes_to_its_middle():
    head = SimccHead(8, 1, map_size=(4, 6), num_bins=(40, 60))
    outputs = torch.full((1, 1, 100), -100.0)
    outputs[0, 0, 30] = outputs[0, 0, 60 + 10] = 100.0
    assert head.decode(outputs)[0, 0].tolist() == pytest.approx([30.5 / 60, 10.5 / 40])


def test_an_integral_head_reaches_beyond_the_edges_of_the_frame():
    head = IntegralHead(8, 2)
    with torch.no_grad():
        for parameter in head.heatmaps.parameters():
            parameter.zero_()
    middle = head.decode(head(torch.zeros(1, 8, 4, 6)))[0]
    assert middle.flatten().tolist() == pytest.approx([0.5] * 4, abs=1e-6)
    assert REACH > 0.5 / (4 * 4)  # the outermost places of a 4×4 map lie outside the frame


def test_a_coordinate_head_in_pixels_decodes_to_shares_of_the_frame():
    head = CoordinateHead(8, 1, frame=(100, 200))
    assert head.decode(torch.tensor([[50.0, 25.0]])).tolist() == [[[0.25, 0.25]]]


def test_a_coordinate_head_starts_at_the_mean_face():
    head = CoordinateHead(8, 2, frame=(10, 20))
    mean = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    head.start_at(mean)
    assert torch.allclose(head.decode(head(torch.zeros(1, 8)))[0], mean)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_byobnet", "test_mambaout"])
def test_feature_maps_of_every_kind_of_backbone_have_channels_first(name):
    backbone = create_backbone(name, weights="none")
    height, width = backbone.contract.image_size
    features = feature_map(backbone.module, torch.zeros(2, 3, height, width))
    assert features.ndim == 4
    assert features.shape[:2] == (2, backbone.module.num_features)
    assert features.shape[2] == features.shape[3] < height


def test_the_tokens_of_a_transformer_lie_where_their_patches_were():
    backbone = create_backbone("test_vit", weights="none")
    image = torch.zeros(1, 3, *backbone.contract.image_size)
    image[..., 16:32, 32:48] = 5.0  # the patch in row 1, column 2
    change = (
        (feature_map(backbone.module.eval(), image) - feature_map(backbone.module, torch.zeros_like(image)))[0]
        .norm(dim=0)
        .detach()
    )
    assert divmod(int(change.argmax()), change.shape[1]) == (1, 2)


def test_a_backbone_without_a_map_of_features_is_refused_by_name():
    class Pooled(torch.nn.Module):
        def forward_features(self, images):
            return images.mean((2, 3))

    with pytest.raises(RecipeError, match=r"head must be 'coordinates' for a backbone without a map .*; got 'Pooled'"):
        feature_map(Pooled(), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "linear"])
def test_a_keypoint_network_gives_the_same_points_from_its_bundle(kind, tmp_path):
    recipe = Recipe(task="keypoints", head=kind, backbone="test_resnet", weights="none", image_size=(64, 96))
    network = new_network(recipe, 7).eval()
    save_bundle(tmp_path, network, keypoints=numbered_layout(7))
    loaded = load_bundle(tmp_path)
    pixels = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(network.answers(pixels), loaded.network.answers(pixels))
    assert loaded.keypoints == numbered_layout(7)


def test_layers_that_a_feature_map_leaves_out_do_not_train():
    recipe = Recipe(task="keypoints", backbone="mobilenetv3_small_100", weights="none", image_size=64)
    network = new_network(recipe, 5)
    network.unfreeze("all")
    network.answers(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)).sum().backward()
    assert network.unused == {"conv_head.weight", "conv_head.bias"}
    assert all(parameter.grad is not None for parameter in network.trainable_parameters())
    network.unfreeze("1")
    assert not any("conv_head" in name for name in network.blocks[-1])
