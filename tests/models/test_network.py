import pytest
import torch
from torch import nn

from headstart.errors import RecipeError, WeightsError
from headstart.models.backbones import InputContract, create_backbone, pool
from headstart.models.heads import ClassificationHead
from headstart.models.network import Network, find_blocks, new_network, pretrained_classifier
from headstart.recipe import Recipe


def make_network(name: str = "test_resnet", num_classes: int = 3) -> Network:
    return new_network(Recipe(backbone=name, weights="none"), num_classes)


def random_pixels(network: Network, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, *network.contract.image_size, 3), dtype=torch.uint8, generator=generator)


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def test_pixels_are_normalised_as_timm_does_and_lie_channels_last():
    contract = InputContract((2, 3), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8)
    images = contract.normalise(pixels)
    expected = (pixels.double() / 255 - torch.tensor(contract.mean)) / torch.tensor(contract.std)
    assert torch.allclose(images.double(), expected.permute(0, 3, 1, 2), atol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_network_takes_pixels_and_normalises_them_itself():
    network = make_network().eval()
    pixels = random_pixels(network)
    expected = network.head(network.backbone(network.contract.normalise(pixels)))
    assert torch.allclose(network(pixels), expected, atol=1e-5)
    assert torch.allclose(network(pixels.float()), expected, atol=1e-5)
    assert torch.equal(network.answer(network.features(pixels)), network(pixels))


def test_the_contract_comes_from_the_backbone():
    contract = create_backbone("mobilenetv2_100", weights="none").contract
    assert contract == InputContract((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875, "crop")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_any_image_size_that_the_network_takes_is_taken(name: str):
    network = new_network(Recipe(backbone=name, weights="none", image_size=(96, 128)), 3).eval()
    assert network.contract.image_size == (96, 128)
    assert network(random_pixels(network)).shape == (2, 3)


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(RecipeError, match=r"image_size must be .* test_vit takes; got \(100, 90\)"):
        create_backbone("test_vit", weights="none", image_size=(100, 90))


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3, 4), (2, 3, 4, 5), (2, 7, 5)])
def test_features_are_averaged_over_positions_wherever_the_channels_are(shape: tuple[int, ...]):
    assert torch.allclose(pool(torch.full(shape, 2.0), 5), torch.full((2, 5), 2.0))


def test_a_new_network_starts_with_a_frozen_backbone_and_a_trainable_head():
    network = make_network()
    assert {id(parameter) for parameter in network.trainable_parameters()} == {id(p) for p in network.head.parameters()}


def step(network: Network) -> None:
    network.train()
    optimizer = torch.optim.SGD(network.trainable_parameters(), lr=0.1)
    network(random_pixels(network, 4)).square().sum().backward()
    optimizer.step()


def test_a_frozen_backbone_does_not_move_in_training_nor_do_its_statistics():
    network = make_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network)
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(after["head.linear.weight"], before["head.linear.weight"])


def test_only_the_last_blocks_move_where_they_alone_are_unfrozen():
    network = make_network()
    network.unfreeze(1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    names = {name.removeprefix("backbone.") for name in moved if name.startswith("backbone.")}
    assert names
    assert all(name.startswith("layer4.") for name in names)
    assert "layer4.0.bn1.running_mean" in names


def test_norms_of_frozen_blocks_stay_in_eval_mode_however_often_train_is_called():
    network = make_network()
    network.unfreeze("2")
    network.eval().train()
    assert not any(norm.training for norm in norms(network.backbone.get_submodule("layer2")))
    assert all(norm.training for norm in norms(network.backbone.get_submodule("layer3")))
    assert network.training
    assert not any(norm.training for norm in norms(network.eval()))


def test_dropout_in_a_frozen_backbone_is_off():
    backbone = create_backbone("test_resnet", weights="none")
    backbone.module.add_module("extra", nn.Dropout(0.5))
    network = Network(backbone, ClassificationHead(backbone.num_features, 2, dropout=0.5)).train()
    assert not network.backbone.get_submodule("extra").training
    assert network.head.dropout.training
    network.unfreeze("all")
    assert network.backbone.get_submodule("extra").training


def test_freezing_again_drops_gradients():
    network = make_network()
    network.unfreeze("all")
    step(network)
    network.freeze()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())


@pytest.mark.parametrize(
    ("what", "message"),
    [("most", "found in the parameters' names; got 'most'. They are"), (99, "from 1 to 5, .* got 99")],
)
def test_what_cannot_be_unfrozen_is_refused(what: str | int, message: str):
    with pytest.raises(RecipeError, match=message):
        make_network().unfreeze(what)


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_100",
        "mobilenetv3_small_100",
        "resnet18",
        "vgg11",
        "test_vit",
        "test_convnext",
        "densenet121",
        "poolformer_s12",
        "pit_ti_224",
    ],
)
def test_blocks_hold_every_parameter_once_and_none_is_norms_alone(name: str):
    module = create_backbone(name, weights="none").module
    blocks = find_blocks(module)
    parameters = dict(module.named_parameters())
    assert sorted(name for block in blocks for name in block) == sorted(parameters)
    assert len(blocks) >= 4
    assert all(any(parameters[name].ndim > 1 for name in block) for block in blocks)


def test_the_head_depends_on_the_seed_alone():
    first, second, other = (
        new_network(Recipe(backbone="test_resnet", weights="none", seed=seed), 3) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.linear.weight, other.head.linear.weight)


def test_building_a_network_leaves_torchs_randomness_alone():
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    make_network()
    assert torch.equal(torch.rand(1), expected)


def test_a_classifier_is_refused_where_the_weights_have_none_or_another(tmp_path):
    import timm

    tensors = timm.create_model("test_resnet").state_dict()
    torch.save(tensors, tmp_path / "whole.pth")
    torch.save(
        {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}, tmp_path / "features.pth"
    )
    with pytest.raises(WeightsError, match="one for 2 classes; got 1000"):
        pretrained_classifier("test_resnet", ["a", "b"], weights=str(tmp_path / "whole.pth"))
    with pytest.raises(WeightsError, match=r"features\.pth must be there"):
        pretrained_classifier("test_resnet", ["a", "b"], weights=str(tmp_path / "features.pth"))
