import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart.errors import BundleError
from headstart.models.bundle import FORMAT, Bundle, load_bundle, save_bundle
from headstart.models.network import Network, new_network
from headstart.recipe import Recipe

NAMES = ("고양이", "dog, house")


def make_network(name: str = "test_resnet", **settings) -> Network:
    return new_network(Recipe(backbone=name, weights="none", dropout=0.25, **settings), 2)


def saved(folder: Path, network: Network | None = None) -> Path:
    save_bundle(folder, network or make_network(), class_names=NAMES, temperature=1.5, extra={"stage": "probe"})
    return folder


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_bundle_gives_back_the_same_answers_bit_for_bit(tmp_path: Path, name: str):
    network = make_network(name, image_size=(96, 128), fit="letterbox").eval().to(memory_format=torch.channels_last)
    bundle = load_bundle(saved(tmp_path, network))
    pixels = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(bundle.network(pixels), network(pixels))
    assert bundle.network.contract == network.contract


def test_names_temperature_and_everything_else_come_back(tmp_path: Path):
    bundle = load_bundle(saved(tmp_path))
    assert isinstance(bundle, Bundle)
    assert bundle.class_names == NAMES
    assert bundle.temperature == 1.5
    assert bundle.network.head.dropout.p == 0.25
    assert bundle.metadata["extra"] == {"stage": "probe"}
    assert not bundle.network.training


def test_a_run_folder_stands_for_the_bundle_in_it(tmp_path: Path):
    saved(tmp_path / "run" / "bundle")
    assert load_bundle(tmp_path / "run").class_names == NAMES


def test_a_bundle_needs_no_weights_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved(tmp_path)
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load_bundle(tmp_path).network.name == "test_resnet"


def test_names_are_readable_in_the_json(tmp_path: Path):
    assert "고양이" in (saved(tmp_path) / "bundle.json").read_text(encoding="utf-8")


def test_saving_again_replaces_the_bundle_and_leaves_nothing_else(tmp_path: Path):
    saved(tmp_path)
    network = make_network(seed=7)
    saved(tmp_path, network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "weights.safetensors"]
    assert torch.equal(load_bundle(tmp_path).network.head.linear.weight, network.head.linear.weight)


def test_a_number_of_names_that_does_not_fit_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match=r"class_names must be 2 names, .* got \['one'\]"):
        save_bundle(tmp_path, make_network(), class_names=["one"])
    assert list(tmp_path.iterdir()) == []


def test_one_changed_byte_in_the_weights_is_found(tmp_path: Path):
    path = saved(tmp_path) / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.safetensors: SHA-256 must be [0-9a-f]{64} .* damaged"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("weights.safetensors", r"weights\.safetensors must be there; got 'no file'"),
        ("bundle.json", "broken off: bundle.json is missing"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, missing: str, message: str):
    (saved(tmp_path) / missing).unlink()
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)


def test_a_folder_without_a_bundle_and_no_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(BundleError, match=r"holds neither bundle\.json nor bundle/bundle\.json"):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"got '.*nowhere'\. No such folder"):
        load_bundle(tmp_path / "nowhere")


def changed(folder: Path, **changes: object) -> Path:
    path = saved(folder) / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": FORMAT + 1}, f"format must be at most {FORMAT}; got {FORMAT + 1}. Update headstart"),
        (
            {"task": "poetry"},
            "task must be one of classification, keypoints, several labels, multi-label; got 'poetry'",
        ),
        ({"task": "multi-label"}, "labels must be there, for several labels a photo; got None"),
        ({"labels": {"form": "heads"}}, "labels must be form, columns and combinations"),
        ({"backbone": "resnet18x"}, "a network of this timm; got 'resnet18x'"),
        ({"backbone": "local-dir:/etc"}, "a network of this timm; got 'local-dir:/etc'"),
        ({"backbone": "test_convnext"}, "must be the tensors of test_convnext"),
        ({"class_names": None}, "class_names must be there, and of the right type; got None"),
        ({"class_names": ["a", 3]}, r"class_names must be names; got \['a', 3\]"),
        ({"temperature": 0}, "temperature must be greater than 0; got 0"),
        ({"contract": {"fit": "crop"}}, r"contract: image_size must be there"),
    ],
)
def test_a_foreign_bundle_is_refused_with_what_is_wrong(tmp_path: Path, changes: dict[str, object], message: str):
    with pytest.raises(BundleError, match=message):
        load_bundle(changed(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '"a"'])
def test_json_that_is_no_bundle_is_refused(tmp_path: Path, text: str):
    (saved(tmp_path) / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        load_bundle(tmp_path)


def test_weights_of_another_network_under_a_right_hash_are_refused(tmp_path: Path):
    path = saved(tmp_path) / "weights.safetensors"
    tensors = load_file(path)
    tensors.pop("head.linear.bias")
    save_file(tensors, path)
    from headstart.models.weights import hash_file

    content = json.loads((tmp_path / "bundle.json").read_text(encoding="utf-8"))
    content["weights"]["sha256"] = hash_file(path)
    (tmp_path / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=r"head\.linear\.bias"):
        load_bundle(tmp_path)
