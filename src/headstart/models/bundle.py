"""The bundle: one folder with weights, names of the answers, preprocessing and temperature, for use on any machine.

``weights.safetensors`` holds the tensors, ``bundle.json`` everything else and the weights' SHA-256. The JSON is written
last, in one step, so a folder with it is whole; a half-replaced one is told by the hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.data.keypoints import KeypointLayout
from headstart.data.label_layout import LabelLayout
from headstart.errors import BundleError, HeadstartError, all_at_once, must_be
from headstart.files import write_json, written_aside
from headstart.models.backbones import Backbone, InputContract, create_backbone
from headstart.models.heads import HEADS, build_head
from headstart.models.network import Network, num_head_features
from headstart.models.weights import WeightsReport, hash_file

FORMAT: Final = 1
"""Raised when older versions of headstart could misread what is written."""

WEIGHTS_FILE: Final = "weights.safetensors"
METADATA_FILE: Final = "bundle.json"
TASKS: Final = ("classification", "keypoints", "several labels", "multi-label")

_FIELDS: Final = {
    "format": int,
    "task": str,
    "backbone": str,
    "class_names": list,
    "contract": dict,
    "temperature": (int, float),
    "dropout": (int, float),
    "weights": dict,
}
_CONTRACT_FIELDS: Final = {
    "image_size": list,
    "mean": list,
    "std": list,
    "interpolation": str,
    "crop_fraction": (int, float),
    "fit": str,
}


@dataclass(frozen=True)
class Bundle:
    """A network with everything its use needs.

    Attributes:
        network: In eval mode, on the CPU.
        class_names: Name of each logit; none for keypoints.
        temperature: What logits are divided by before the softmax (or sigmoid); 1 where heads have one each.
        metadata: All of ``bundle.json``.
        keypoints: What the points are; None for a classifier.
        labels: What several labels a photo are; None where it gets one.
        temperatures: One of each head, in the order of the label columns; else ``temperature``.
    """

    network: Network
    class_names: tuple[str, ...]
    temperature: float
    metadata: dict[str, Any]
    keypoints: KeypointLayout | None = None
    labels: LabelLayout | None = None
    temperatures: tuple[float, ...] = ()


def save_bundle(
    directory: Path,
    network: Network,
    *,
    class_names: Sequence[str] = (),
    keypoints: KeypointLayout | None = None,
    labels: LabelLayout | None = None,
    temperature: float = 1.0,
    temperatures: Sequence[float] = (),
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a bundle; one that is there is replaced.

    Args:
        directory: The bundle's folder; made where it is missing.
        network: What to save.
        class_names: Name of each logit of a classifier.
        keypoints: What the points of a keypoint network are.
        labels: What the labels are where a photo gets several.
        temperature: From calibration.
        temperatures: Of each head where there are several.
        extra: What else to keep (JSON values): scores, dates, hashes.

    Raises:
        BundleError: There are not as many names as logits, or points.
    """
    if keypoints is None and len(class_names) != network.head.num_classes:
        raise BundleError(must_be("class_names", f"{network.head.num_classes} names, one a logit", list(class_names)))
    if keypoints is not None and keypoints.num_keypoints != network.head.num_keypoints:
        expected = f"a layout of {network.head.num_keypoints} points, as the head gives"
        raise BundleError(must_be("keypoints", expected, keypoints.num_keypoints))
    weights = Path(directory) / WEIGHTS_FILE
    # A copy each: safetensors takes neither permuted memory nor two names for the same memory.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    with written_aside(weights) as aside:
        save_file(tensors, aside, metadata={"format": "pt"})
    content = _describe(network) | {"class_names": list(class_names), "temperature": float(temperature)}
    if keypoints is not None:
        content |= {"task": "keypoints", "keypoints": keypoints.as_dict()}
    if labels is not None:
        content |= {"task": labels.task, "labels": labels.as_dict()}
    if temperatures:
        content["temperatures"] = [float(one) for one in temperatures]
    content["weights"] = {"file": WEIGHTS_FILE, "sha256": hash_file(weights), "bytes": weights.stat().st_size}
    write_json(Path(directory) / METADATA_FILE, content | {"extra": dict(extra or {})})


def load_bundle(directory: Path) -> Bundle:
    """Load a bundle of one network. It needs neither the training data nor the pretrained weights nor a network.

    ``ensemble.load_model`` takes ensembles, too.

    Args:
        directory: A bundle's folder, or a run's.

    Raises:
        BundleError: It is missing, damaged, of another kind, or written by a newer headstart.
    """
    folder = find_bundle(Path(directory))
    content = _read_metadata(folder / METADATA_FILE)
    weights = _check_weights(folder, content)
    network = _build(content, folder)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        remedy = (
            f"The bundle was written with timm {content.get('timm_version')}; this is another. {_first_lines(error)}"
        )
        raise BundleError(must_be(str(weights), f"the tensors of {network.name}", weights.name, remedy)) from None
    names, temperature = tuple(content["class_names"]), float(content["temperature"])
    layout = KeypointLayout.from_dict(content["keypoints"]) if content["task"] == "keypoints" else None
    labels = LabelLayout.from_dict(content["labels"]) if content.get("labels") else None
    temperatures = tuple(map(float, content.get("temperatures") or ()))
    temperatures = temperatures or (temperature,) * (labels.num_temperatures if labels else 1)
    return Bundle(network.eval(), names, temperature, content, layout, labels, temperatures)


def _describe(network: Network) -> dict[str, Any]:
    import timm

    import headstart

    return {
        "format": FORMAT,
        "task": "classification",
        "backbone": network.name,
        "num_features": network.num_features,
        "contract": asdict(network.contract),
        "dropout": network.head.dropout.p,
        "head": {"kind": network.head.kind, "settings": network.head.settings},
        "pretrained": {"source": network.weights_report.source, "sha256": network.weights_report.sha256},
        "headstart_version": headstart.__version__,
        "timm_version": timm.__version__,
        "torch_version": str(torch.__version__),
    }


def find_bundle(directory: Path) -> Path:
    """Give the bundle's own folder: the one named, or ``bundle/`` in a run's.

    Raises:
        BundleError: There is no bundle in either.
    """
    for folder in (directory, directory / "bundle"):
        if (folder / METADATA_FILE).is_file():
            return folder
    if (directory / WEIGHTS_FILE).exists():
        remedy = (
            f"Writing it was broken off: {METADATA_FILE} is missing. Train with --resume, or copy the bundle again."
        )
    else:
        remedy = (
            f"It holds neither {METADATA_FILE} nor bundle/{METADATA_FILE}." if directory.is_dir() else "No such folder."
        )
    raise BundleError(must_be("bundle", "a run folder or a bundle", str(directory), remedy))


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            must_be(str(path), "a bundle's JSON", path.name, f"{error}. Copy the bundle again.")
        ) from None
    if isinstance(content, dict) and content.get("kind") == "ensemble":
        remedy = f"Name one of its members: {path.parent / 'members' / '1'}."
        raise BundleError(must_be(str(path.parent), "a bundle of one network", "an ensemble", remedy))
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise BundleError(
            must_be(f"{path}: format", f"at most {FORMAT}", found, "Update headstart: a newer one wrote it.")
        )
    problems = _field_problems(content, _FIELDS, str(path)) or _value_problems(content, str(path))
    if problems:
        raise BundleError(all_at_once(problems))
    return content


def _field_problems(content: Any, fields: Mapping[str, Any], place: str) -> list[str]:
    if not isinstance(content, dict):
        return [must_be(place, "a bundle's JSON object", type(content).__name__)]
    return [
        must_be(
            f"{place}: {name}", "there, and of the right type", content.get(name), "This is not a headstart bundle."
        )
        for name, kind in fields.items()
        if not isinstance(content.get(name), kind)
    ]


def _value_problems(content: dict[str, Any], place: str) -> list[str]:
    problems = _field_problems(content["contract"], _CONTRACT_FIELDS, f"{place}: contract")
    if content["task"] not in TASKS:
        expected = f"one of {', '.join(TASKS)}"
        problems.append(must_be(f"{place}: task", expected, content["task"], "Update headstart."))
    if content["task"] == "keypoints":
        return problems + _keypoint_problems(content, place)
    names = content["class_names"]
    if not names or not all(isinstance(name, str) for name in names):
        problems.append(must_be(f"{place}: class_names", "names", names))
    if not content["temperature"] > 0:
        problems.append(must_be(f"{place}: temperature", "greater than 0", content["temperature"]))
    return problems + label_problems(content, place)


def label_problems(content: dict[str, Any], place: str) -> list[str]:
    """Check what a bundle says of several labels: one name a logit, and a temperature above 0 for each head."""
    labels = content.get("labels")
    if labels is None:
        needs_labels = content["task"] in TASKS[2:]
        return [must_be(f"{place}: labels", "there, for several labels a photo", None)] if needs_labels else []
    try:
        layout = LabelLayout.from_dict(labels)
        names, num_heads = layout.output_names, layout.num_temperatures
    except (KeyError, TypeError, IndexError):
        return [must_be(f"{place}: labels", "form, columns and combinations", labels, "Copy the bundle again.")]
    problems: list[str] = []
    if list(names) != content["class_names"]:
        problems.append(
            must_be(f"{place}: class_names", "the names of the labels' outputs", content["class_names"][:8])
        )
    found = content.get("temperatures") or [1.0] * num_heads
    if len(found) != num_heads or not all(isinstance(one, int | float) and one > 0 for one in found):
        problems.append(must_be(f"{place}: temperatures", f"{num_heads} numbers greater than 0", found))
    return problems


def _keypoint_problems(content: dict[str, Any], place: str) -> list[str]:
    layout, head = content.get("keypoints"), content.get("head")
    problems = _field_problems(layout, {"names": list, "flip_note": str}, f"{place}: keypoints")
    problems += _field_problems(head, {"kind": str, "settings": dict}, f"{place}: head")
    if not problems and head["kind"] not in HEADS:  # type: ignore[index]
        expected = f"one of {', '.join(HEADS)}"
        problems.append(must_be(f"{place}: head", expected, head["kind"], "Update headstart."))  # type: ignore[index]
    return problems


def _check_weights(folder: Path, content: dict[str, Any]) -> Path:
    path, expected = folder / WEIGHTS_FILE, content["weights"].get("sha256")
    if not path.is_file():
        raise BundleError(must_be(str(path), "there", "no file", "The bundle is incomplete: copy it again, whole."))
    found = hash_file(path)
    if found != expected:
        remedy = "The file is damaged or from another bundle: copy the bundle again, whole."
        raise BundleError(must_be(f"{path}: SHA-256", f"{expected} as {METADATA_FILE} says", found, remedy))
    return path


def _build(content: dict[str, Any], folder: Path) -> Network:
    stored = content["contract"]
    contract = InputContract(**{name: _as_tuple(stored[name]) for name in _CONTRACT_FIELDS})
    try:
        backbone = create_backbone(
            content["backbone"], weights="none", image_size=contract.image_size, fit=contract.fit
        )
    except HeadstartError as error:
        remedy = f"The bundle was written with timm {content.get('timm_version')}. {error}"
        raise BundleError(
            must_be(f"{folder / METADATA_FILE}: backbone", "a network of this timm", content["backbone"], remedy)
        ) from None
    pretrained = content.get("pretrained") or {}
    report = WeightsReport(str(pretrained.get("source", "unknown")), (), (), sha256=pretrained.get("sha256"))
    backbone = Backbone(backbone.name, backbone.module, contract, backbone.num_features, report, None)
    return Network(backbone, _build_head(content, backbone))


def _build_head(content: dict[str, Any], backbone: Backbone) -> nn.Module:
    linear = {"num_classes": len(content["class_names"]), "dropout": float(content["dropout"])}
    head = content.get("head") or {"kind": "linear", "settings": linear}
    num_features = num_head_features(backbone, head["kind"], head["settings"].get("pooling", "own"))
    return build_head(head["kind"], num_features, head["settings"])


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3])
