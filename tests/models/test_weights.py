import argparse
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.errors import RecipeError, WeightsError
from headstart.models.backbones import Backbone, create_backbone
from headstart.models.weights import read_weights_file

NAME = "test_resnet"


def full_network(name: str = NAME, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    network = timm.create_model(name).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def written(tensors: object, path: Path) -> str:
    torch.save(tensors, path)
    return str(path)


def features(backbone: Backbone, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return backbone.module.eval()(images)


def logits_of(backbone: Backbone, images: Tensor) -> Tensor:
    assert backbone.classifier is not None
    return features(backbone, images) @ backbone.classifier["weight"].T + backbone.classifier["bias"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".pth.tar"])
def test_a_file_gives_the_features_and_classifier_of_the_network_it_was_written_from(tmp_path: Path, suffix: str):
    network = full_network()
    path = tmp_path / f"some{suffix}"
    if suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        written(network.state_dict(), path)
    backbone = create_backbone(NAME, weights=str(path))
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        assert torch.allclose(logits_of(backbone, images), network(images), atol=1e-5)
    assert set(backbone.weights.left_over) == {"fc.weight", "fc.bias"}
    assert backbone.weights.missing == ()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": tensors, "epoch": 3, "args": argparse.Namespace(lr=1)},
        lambda tensors: {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {f"_orig_mod.module.backbone.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"state_dict": {n: t * 0 for n, t in tensors.items()}, "state_dict_ema": tensors},
    ],
    ids=["state_dict", "module", "lightning", "compiled", "ema"],
)
def test_what_training_scripts_wrap_around_the_tensors_is_taken_off(tmp_path: Path, wrap):
    network = full_network()
    backbone = create_backbone(NAME, weights=written(wrap(network.state_dict()), tmp_path / "a.pth"))
    expected = network.state_dict()
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in backbone.module.state_dict().items()
        if "num_" not in name
    )


def test_step_counters_of_batch_norm_are_not_missed(tmp_path: Path):
    tensors = {name: t for name, t in full_network().state_dict().items() if "num_batches_tracked" not in name}
    assert create_backbone(NAME, weights=written(tensors, tmp_path / "a.pth")).weights.missing == ()


def without(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def test_a_missing_backbone_tensor_is_refused_by_name(tmp_path: Path):
    path = written(without(full_network().state_dict(), "layer4.0.bn2"), tmp_path / "partial.pth")
    with pytest.raises(
        WeightsError,
        match=r"partial\.pth must be complete .* got \d+ of \d+ .*layer4\.0\.bn2\.running_var.*'layer4\.\*'",
    ):
        create_backbone(NAME, weights=path)


@pytest.mark.parametrize(
    "allowed",
    [("layer4.0.bn2.*",), tuple(f"layer4.0.bn2.{part}" for part in ("weight", "bias", "running_mean", "running_var"))],
)
def test_a_missing_tensor_is_left_random_where_it_is_named(tmp_path: Path, allowed: tuple[str, ...]):
    path = written(without(full_network().state_dict(), "layer4.0.bn2"), tmp_path / "partial.pth")
    report = create_backbone(NAME, weights=path, allow_partial=allowed).weights
    assert {name.rsplit(".", 1)[0] for name in report.missing} == {"layer4.0.bn2"}
    assert "layer4.0.bn2.weight" in report.describe()[1]


def test_naming_some_missing_tensors_does_not_excuse_others(tmp_path: Path):
    tensors = without(without(full_network().state_dict(), "layer4.0.bn2"), "conv1.0")
    path = written(tensors, tmp_path / "partial.pth")
    with pytest.raises(WeightsError, match=r"Missing: conv1\.0\.weight\. Use"):
        create_backbone(NAME, weights=path, allow_partial=("layer4.0.bn2.*",))


def test_a_pattern_that_names_no_tensor_is_refused_with_the_nearest_name(tmp_path: Path):
    path = written(without(full_network().state_dict(), "layer4.0.bn2"), tmp_path / "partial.pth")
    with pytest.raises(
        WeightsError, match=r"allow_partial_weights must be .* got 'layr4\.\*'\. Did you mean 'layer4\.\*'"
    ):
        create_backbone(NAME, weights=path, allow_partial=("layr4.*",))


def test_another_networks_file_is_refused_with_what_differs(tmp_path: Path):
    path = written(full_network("test_resnet").state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        WeightsError,
        match=r"a\.pth must be complete for the backbone test_vit; got none of its .* the file holds conv1",
    ):
        create_backbone("test_vit", weights=path)


def test_the_same_names_in_other_shapes_are_refused_with_the_shapes(tmp_path: Path):
    tensors = {name: t.new_ones((*t.shape, 2)) for name, t in full_network().state_dict().items()}
    with pytest.raises(WeightsError, match=r"conv1\.0\.weight is \(.*, 2\), not \("):
        create_backbone(NAME, weights=written(tensors, tmp_path / "a.pth"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    tensors = full_network().state_dict()
    tensors["conv1.0.weight"][0] = float("nan")
    with pytest.raises(WeightsError, match=r"must be finite; got 'conv1\.0\.weight'"):
        create_backbone(NAME, weights=written(tensors, tmp_path / "a.pth"))


class Opener:
    def __reduce__(self):
        return (open, ("never-made.txt", "w"))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.ones(1)}, "code": Opener()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth must be a file of tensors; got .*Python objects"):
        read_weights_file(tmp_path / "evil.pth")
    assert not (tmp_path / "never-made.txt").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b"nonsense"),
        ("a.pth", b"nonsense"),
        ("a.pth", b""),
        ("b.pth", pickle.dumps([1])[:3]),
        ("c.pth", b"PK\x03\x04rest"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        create_backbone(NAME, weights=str(tmp_path / name))


def test_a_file_without_tensors_is_refused_with_what_it_holds(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"must be tensors by name .* got \['epoch', 'lr'\]"):
        create_backbone(NAME, weights=written({"epoch": 1, "lr": 0.1}, tmp_path / "a.pth"))


@pytest.mark.parametrize("weights", ["nowhere.pth", "weights.txt"])
def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path, weights: str):
    (tmp_path / "weights.txt").write_text("x")
    with pytest.raises(WeightsError, match=f"weights must be .* got '.*{weights}'"):
        create_backbone(NAME, weights=str(tmp_path / weights))


def test_position_embeddings_are_converted_to_another_image_size(tmp_path: Path):
    network = full_network("test_vit")
    path = written(network.state_dict(), tmp_path / "vit.pth")
    backbone = create_backbone("test_vit", weights=path, image_size=(96, 128))
    assert backbone.weights.missing == ()
    assert set(backbone.weights.left_over) == {"head.weight", "head.bias"}
    assert torch.equal(
        backbone.module.get_parameter("blocks.0.attn.qkv.weight"), network.get_parameter("blocks.0.attn.qkv.weight")
    )
    assert features(backbone, torch.randn(1, 3, 96, 128)).shape == (1, backbone.num_features)


def test_none_leaves_every_tensor_random_and_says_so():
    report = create_backbone(NAME, weights="none").weights
    assert report.loaded == ()
    assert "conv1.0.weight" in report.missing
    assert report.describe() == ["weights: none: every tensor starts random"]


def test_the_report_names_source_and_hash(tmp_path: Path):
    report = create_backbone(NAME, weights=written(full_network().state_dict(), tmp_path / "a.pth")).weights
    assert report.source == "the file a.pth"
    assert report.sha256 is not None
    assert len(report.sha256) == 64


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "Did you mean 'resnet\\d+'"),
        ("test_resnet.r160_in2k", "Did you mean 'test_resnet.r160_in1k'"),
        ("hf-hub:timm/resnet18", "list_models"),
    ],
)
def test_an_unknown_network_is_refused_with_the_nearest_name(name: str, near: str):
    with pytest.raises(RecipeError, match=f"backbone must be .* got '{name}'.*{near}"):
        create_backbone(name, weights="none")
