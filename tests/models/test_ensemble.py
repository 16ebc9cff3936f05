"""The ensemble's bundle: whole, self-contained, and its votes those of its members."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.deploy.predictor import Predictor, load
from headstart.errors import BundleError
from headstart.models.bundle import load_bundle, save_bundle
from headstart.models.ensemble import Ensemble, JointNetwork, MemberSource, load_model, save_ensemble
from headstart.models.network import Network, new_network
from headstart.recipe import Recipe

NAMES = ("고양이", "dog", "owl")


def make_network(name: str = "test_resnet", *, seed: int = 0, **settings) -> Network:
    return new_network(Recipe(backbone=name, weights="none", seed=seed, **{"image_size": 48} | settings), 3).eval()


def saved(folder: Path, networks: list[Network], *, names=None, weights=None, temperatures=None) -> Path:
    """Save networks as members of an ensemble, each from a folder of its own."""
    sources = []
    for number, network in enumerate(networks):
        place = folder / "single" / str(number)
        save_bundle(place, network, class_names=(names or [NAMES] * len(networks))[number], temperature=1.0 + number)
        weight = weights[number] if weights else 1 / len(networks)
        sources.append(MemberSource(place, weight, (temperatures[number],) if temperatures else (), f"run {number}"))
    save_ensemble(folder / "joint", sources, class_names=NAMES)
    return folder / "joint"


def photos(num_photos: int = 3) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (num_photos, 60, 50, 3), dtype=np.uint8))


def probabilities(predictor: Predictor) -> np.ndarray:
    answers = predictor.predict(photos(), top_k=3)
    return np.array([[dict(answer.top)[name] for name in NAMES] for answer in answers])


@pytest.mark.parametrize(
    "kinds",
    [
        [("test_resnet", {}), ("test_resnet", {"seed": 1})],
        [("test_resnet", {}), ("test_efficientnet", {})],
        [("test_resnet", {}), ("test_resnet", {"image_size": 64}), ("test_vit", {"fit": "letterbox"})],
    ],
)
def test_the_vote_is_the_weighted_mean_of_what_members_say_alone(tmp_path: Path, kinds):
    networks = [make_network(name, **settings) for name, settings in kinds]
    weights = np.arange(1, len(networks) + 1) / sum(range(1, len(networks) + 1))
    folder = saved(tmp_path, networks, weights=weights.tolist())
    alone = [probabilities(load(tmp_path / "single" / str(number), device="cpu")) for number in range(len(networks))]
    assert probabilities(load(folder, device="cpu")) == pytest.approx(np.tensordot(weights, alone, axes=1), abs=1e-5)


def test_classes_in_another_order_are_told_by_name(tmp_path: Path):
    network, turned = make_network(), make_network()
    with torch.no_grad():
        for tensor in turned.head.linear.parameters():
            tensor.copy_(tensor[[2, 0, 1]].clone())
    folder = saved(tmp_path, [network, turned], names=[NAMES, (NAMES[2], NAMES[0], NAMES[1])])
    alone = [probabilities(load(tmp_path / "single" / number, device="cpu")) for number in "01"]
    assert (alone[0] - alone[1]).max() > 1e-4  # their temperatures differ
    assert probabilities(load(folder, device="cpu")) == pytest.approx(sum(alone) / 2, abs=1e-5)


def test_members_with_the_same_backbone_hold_and_run_it_once(tmp_path: Path):
    one, other = make_network(), make_network()
    torch.nn.init.normal_(other.head.linear.weight)
    ensemble = load_model(saved(tmp_path, [one, other]))
    assert isinstance(ensemble, Ensemble)
    (joint,) = ensemble.joints
    assert joint.networks[0].backbone is joint.networks[1].backbone
    calls: list[int] = []
    joint.networks[0].backbone.register_forward_hook(lambda *_: calls.append(1))
    assert joint.answers(torch.zeros(2, 48, 48, 3, dtype=torch.uint8)).shape == (2, 2, 3)
    assert len(calls) == 1


def test_members_that_look_at_the_same_pixels_are_run_together(tmp_path: Path):
    networks = [make_network(), make_network("test_efficientnet"), make_network(image_size=64)]
    ensemble = load_model(saved(tmp_path, networks))
    assert isinstance(ensemble, Ensemble)
    assert ensemble.groups == ((0, 1), (2,))


def test_a_member_without_a_vote_is_not_run(tmp_path: Path):
    networks = [make_network(), make_network(image_size=64, seed=2)]
    folder = saved(tmp_path, networks, weights=[1.0, 0.0])
    ensemble = load_model(folder)
    assert isinstance(ensemble, Ensemble)
    assert ensemble.groups == ((0,),)
    alone = probabilities(load(tmp_path / "single" / "0", device="cpu"))
    assert probabilities(load(folder, device="cpu")) == pytest.approx(alone, abs=1e-6)


def test_compiled_members_answer_as_in_pytorch(tmp_path: Path):
    from headstart.models.compiled import compile_forward
    from headstart.models.inference import Answers

    networks = [make_network(), make_network(seed=3), make_network("test_efficientnet")]
    joint = JointNetwork(networks, [[1.0], [2.0], [0.5]], [[0, 1, 2], [2, 1, 0], [1, 0, 2]]).eval()
    pixels = torch.randint(0, 256, (9, 48, 48, 3), dtype=torch.uint8)
    compiled = compile_forward(Answers(joint).eval(), pixels)
    assert compiled.note is None
    with torch.inference_mode():
        assert torch.allclose(compiled(pixels), joint.answers(pixels), atol=1e-4)


def test_the_bundle_needs_no_other_folder_and_its_members_are_bundles(tmp_path: Path):
    folder = saved(tmp_path, [make_network(), make_network(seed=1)], temperatures=[3.0, 3.0])
    before = probabilities(load(folder, device="cpu"))
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "single")
    shutil.rmtree(folder)
    assert probabilities(load(moved, device="cpu")) == pytest.approx(before)
    assert load_bundle(moved / "members" / "2").temperature == 3.0


def test_a_photo_that_cannot_be_read_gets_an_error_whatever_the_sizes(tmp_path: Path):
    folder = saved(tmp_path, [make_network(), make_network(image_size=64, fit="letterbox")])
    answers = load(folder, device="cpu").predict([photos()[0], b"no photo", photos()[1]])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert answers[1].label is None


def test_an_ensemble_is_no_single_bundle(tmp_path: Path):
    folder = saved(tmp_path, [make_network(), make_network(seed=1)])
    with pytest.raises(BundleError, match=r"a bundle of one network; got 'an ensemble'\. Name one of its members"):
        load_bundle(folder)


def change(folder: Path, **values) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_member_that_is_missing_or_another_is_told(tmp_path: Path):
    folder = saved(tmp_path, [make_network(), make_network(seed=1)])
    shutil.rmtree(folder / "members" / "2")
    with pytest.raises(BundleError, match=r"a run folder or a bundle; got '.*members/2'"):
        load_model(folder)
    shutil.copytree(folder / "members" / "1", folder / "members" / "2")
    with pytest.raises(BundleError, match=r"member 2 must be the weights .* exchanged for another"):
        load_model(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 3}, "at most 2; got 3. Update headstart"),
        ({"members": "none"}, "members must be there, and of the right type; got 'none'"),
        ({"members": [{"folder": "members/1", "weight": 0.7}]}, r"with the sum 1; got \[0.7\]"),
        ({"members": [{"folder": "../single/0", "weight": 1}]}, "member 1 must be a folder in the bundle; got '../sin"),
        ({"class_names": ["고양이", "dog"]}, "member 1 must be a model of the ensemble's classes"),
    ],
)
def test_a_damaged_ensemble_is_refused(tmp_path: Path, values, message):
    folder = saved(tmp_path, [make_network(), make_network(seed=1)])
    change(folder, **values)
    with pytest.raises(BundleError, match=message):
        load_model(folder)
