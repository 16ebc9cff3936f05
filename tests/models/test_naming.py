from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.errors import WeightsError
from headstart.models.backbones import create_backbone

torchvision_models = pytest.importorskip(
    "torchvision.models", reason="torchvision (the extra 'peers') is not installed"
)

QUICK = {
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "efficientnet_b0": "efficientnet_b0",
    "densenet121": "densenet121",
    "mnasnet_100": "mnasnet1_0",
    "regnety_004": "regnet_y_400mf",
}
SLOW = {
    "vgg16": "vgg16",
    "vgg16_bn": "vgg16_bn",
    "convnext_tiny": "convnext_tiny",
    "vit_base_patch32_224": "vit_b_32",
    "efficientnetv2_s": "efficientnet_v2_s",
    "efficientnet_b5": "efficientnet_b5",
}


def lively(name: str) -> nn.Module:
    """Give a torchvision network whose norms are far from their fresh values, so that each of them matters."""
    torch.manual_seed(0)
    network = getattr(torchvision_models, name)(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.02, 1.0)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    for parameter_name, parameter in network.named_parameters():
        if parameter_name.endswith(("layer_scale", "class_token", "pos_embedding", "heads.head.weight")):
            nn.init.uniform_(parameter, -1, 1)
    return network


def check_equal(timm_name: str, torchvision_name: str, path: Path) -> None:
    network = lively(torchvision_name)
    if path.suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    backbone = create_backbone(timm_name, weights=str(path))
    images = torch.randn(1, 3, *backbone.contract.image_size, dtype=torch.float64)
    with torch.inference_mode():  # in float64: these lively networks amplify rounding
        expected, given = network.double()(images), backbone.module.double().eval()(images)
    assert backbone.classifier is not None
    logits = given @ backbone.classifier["weight"].double().T + backbone.classifier["bias"]
    assert float((logits - expected).abs().max() / expected.abs().max()) < 1e-4
    assert backbone.weights.missing == ()
    assert len(backbone.weights.left_over) == 2


@pytest.mark.parametrize(("timm_name", "torchvision_name"), QUICK.items())
def test_a_torchvision_file_gives_torchvisions_logits(timm_name: str, torchvision_name: str, tmp_path: Path):
    check_equal(timm_name, torchvision_name, tmp_path / "a.pth")


@pytest.mark.slow
@pytest.mark.parametrize(("timm_name", "torchvision_name"), SLOW.items())
def test_a_large_torchvision_file_gives_torchvisions_logits(timm_name: str, torchvision_name: str, tmp_path: Path):
    check_equal(timm_name, torchvision_name, tmp_path / "a.pth")


@pytest.mark.parametrize("timm_name", ["mobilenetv2_100", "mobilenetv3_small_100"])
def test_safetensors_lose_the_order_but_not_the_pairing(timm_name: str, tmp_path: Path):
    check_equal(timm_name, QUICK[timm_name], tmp_path / "a.safetensors")


def features_only(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in lively(name).state_dict().items() if key.startswith("features.")}


def test_a_torchvision_file_without_its_last_layers_is_refused_by_timms_names(tmp_path: Path):
    torch.save(features_only("mobilenet_v3_small"), tmp_path / "features.pth")
    with pytest.raises(
        WeightsError,
        match=r"206 of 208 .*torchvision's names.* Missing: conv_head\.weight, conv_head\.bias\. .*'conv_head\.\*'",
    ):
        create_backbone("mobilenetv3_small_100", weights=str(tmp_path / "features.pth"))


def test_tensors_in_another_order_are_not_paired(tmp_path: Path):
    tensors = list(features_only("mobilenet_v2").items())
    torch.save(dict([*tensors[6:], *tensors[:6]]), tmp_path / "shuffled.pth")
    with pytest.raises(WeightsError, match=r"shuffled\.pth must be complete .* got none of its 260 tensors"):
        create_backbone("mobilenetv2_100", weights=str(tmp_path / "shuffled.pth"))


def test_a_larger_network_that_begins_alike_is_not_cut_to_fit(tmp_path: Path):
    tensors = lively("mobilenet_v2").state_dict()
    tensors["further.0.weight"] = torch.ones(3, 3)
    tensors["further.1.weight"] = torch.ones(3, 3)
    torch.save(tensors, tmp_path / "longer.pth")
    with pytest.raises(WeightsError, match=r"got none of its 260 tensors"):
        create_backbone("mobilenetv2_100", weights=str(tmp_path / "longer.pth"))
