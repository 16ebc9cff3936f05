"""Several networks that answer as one, and the bundle that holds them.

An ensemble's bundle is a folder with ``bundle.json`` (``"kind": "ensemble"``, members with their weights, classes) and
its members as ordinary bundles below ``members/``: it needs nothing else, and each member is a model of its own.
``load_model`` is the one place that tells an ensemble from a single network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.data.keypoints import KeypointLayout
from headstart.data.label_layout import LabelLayout
from headstart.errors import BundleError, all_at_once, must_be
from headstart.files import link_or_copy, write_json
from headstart.models.backbones import InputContract
from headstart.models.bundle import METADATA_FILE, WEIGHTS_FILE, Bundle, find_bundle, label_problems, load_bundle
from headstart.models.label_outputs import calibrated
from headstart.models.network import Network

FORMAT: Final = 2
"""Above the format of single bundles: a headstart that knows no ensembles says that it must be updated."""

_FIELDS: Final = {"task": str, "class_names": list, "members": list}


class JointNetwork(nn.Module):
    """Networks that look at the same pixels, run side by side; a backbone that several share runs once.

    Args:
        networks: In eval mode, each with the same ``pixel_contract``.
        temperatures: What each one's logits are divided by: of heads one each, else one.
        orders: For each, where the ensemble's outputs stand among its own; None for keypoints.
        layouts: For each, what its labels are; None where a photo gets one, or points.

    Attributes:
        contract: Of the first: how photos become pixels is the same for all; each normalises by its own.
    """

    temperatures: Tensor
    orders: Tensor | None

    def __init__(
        self,
        networks: Sequence[Network],
        temperatures: Sequence[Sequence[float]],
        orders: Sequence[Sequence[int]] | None,
        layouts: Sequence[LabelLayout | None] | None = None,
    ) -> None:
        super().__init__()
        self.contract = networks[0].contract
        self.networks = nn.ModuleList(_sharing_backbones(networks))
        self.layouts = layouts or (None,) * len(networks)
        # Buffers: what a converted network is kept under must tell these apart.
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32))
        self.register_buffer("orders", None if orders is None else torch.tensor(np.asarray(orders, np.int64)))

    def answers(self, pixels: Tensor) -> Tensor:
        """Give what each network says of pixels (n, H, W, 3).

        Returns:
            Calibrated probabilities in the ensemble's order, shape (n, networks, outputs), or coordinates as shares of
            the frame, shape (n, networks, keypoints, 2).
        """
        images: dict[tuple[Any, ...], Tensor] = {}
        features: dict[tuple[Any, ...], Tensor] = {}
        said: list[Tensor] = []
        for number, network in enumerate(cast("Iterable[Network]", self.networks)):
            norm = (network.contract.mean, network.contract.std)
            trunk = (id(network.backbone), network.head.takes, network.pooling)
            if trunk not in features:
                if norm not in images:
                    images[norm] = _normalised(pixels, network.scale, network.offset)
                features[trunk] = network.features_of(images[norm])
            said.append(self.answer_of(number, features[trunk]))
        return torch.stack(said, dim=1)

    def answer_of(self, number: int, features: Tensor) -> Tensor:
        """Give what one network says of features: its own probabilities, reordered, or coordinates."""
        network = cast("Network", self.networks[number])
        outputs = network.head.decode(network.answer(features))
        if self.orders is None:
            return outputs
        return calibrated(outputs.float(), self.layouts[number], self.temperatures[number])[:, self.orders[number]]


@dataclass(frozen=True)
class Ensemble:
    """Models whose weighted mean is the answer.

    Attributes:
        members: Bundles with the same classes, in any order, or the same points.
        weights: Of each member's vote; they sum to 1.
        class_names: Of the ensemble's probabilities; none for keypoints.
        keypoints: What the points are; None for classifiers.
        metadata: All of its ``bundle.json``.
        labels: What several labels a photo are; None where it gets one.
        temperature: 1: the members' probabilities are calibrated before they are averaged.
        temperatures: None, for the same reason.
    """

    members: tuple[Bundle, ...]
    weights: tuple[float, ...]
    class_names: tuple[str, ...]
    keypoints: KeypointLayout | None
    metadata: dict[str, Any]
    labels: LabelLayout | None = None
    temperature: float = 1.0
    temperatures: tuple[float, ...] = ()

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the members that look at the same pixels; those whose vote counts nothing are left out."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for number, member in enumerate(self.members):
            if self.weights[number] > 0:
                found.setdefault(pixel_contract(member.network.contract), []).append(number)
        return tuple(tuple(numbers) for numbers in found.values())

    @cached_property
    def joints(self) -> tuple[JointNetwork, ...]:
        """One network for each of the ``groups``."""
        return tuple(self._joint(numbers) for numbers in self.groups)

    def _joint(self, numbers: Sequence[int]) -> JointNetwork:
        members = [self.members[number] for number in numbers]
        orders = [class_order(member.class_names, self.class_names).tolist() for member in members]
        return JointNetwork(
            [member.network for member in members],
            [member.temperatures or (member.temperature,) for member in members],
            orders if self.keypoints is None else None,
            [member.labels for member in members],
        )


@dataclass(frozen=True)
class MemberSource:
    """What becomes a member of an ensemble's bundle.

    Attributes:
        folder: A bundle's folder, of one network.
        weight: Of its vote.
        temperatures: In place of its own: of heads one each, else one; without any it keeps its own.
        origin: What it was called, for whoever reads the JSON.
    """

    folder: Path
    weight: float
    temperatures: tuple[float, ...] = ()
    origin: str = ""


def class_order(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Give where each wanted class stands among a member's, by name.

    Args:
        names: The member's class of each probability.
        wanted: The ensemble's.

    Returns:
        Positions: ``probabilities[:, class_order(names, wanted)]`` is in the wanted order.

    Examples:
        >>> class_order(["cat", "dog", "owl"], ["owl", "cat", "dog"]).tolist()
        [2, 0, 1]
    """
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[name] for name in wanted], np.int64)


def pixel_contract(contract: InputContract) -> tuple[Any, ...]:
    """Give the part of an input contract that decides a photo's pixels; networks normalise them by themselves."""
    return (contract.image_size, contract.fit, contract.crop_fraction)


def load_model(directory: str | Path) -> Bundle | Ensemble:
    """Load what was trained: one network, or an ensemble.

    Args:
        directory: A bundle's folder, or a run's.

    Raises:
        BundleError: It is missing, damaged, of another kind, or written by a newer headstart.
    """
    folder = find_bundle(Path(directory))
    return load_ensemble(folder) if is_ensemble(folder) else load_bundle(folder)


def is_ensemble(directory: Path) -> bool:
    """Say whether a bundle, or a run's bundle, is an ensemble's; a damaged one is not."""
    try:
        content = json.loads((find_bundle(directory) / METADATA_FILE).read_text(encoding="utf-8"))
    except (BundleError, OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == "ensemble"


def save_ensemble(
    directory: Path,
    members: Sequence[MemberSource],
    *,
    class_names: Sequence[str] = (),
    keypoints: KeypointLayout | None = None,
    labels: LabelLayout | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write an ensemble's bundle, its members in it; one that is there is replaced.

    Weights are linked where the disk can, else copied. The ensemble's own JSON is written last: a folder with it is
    whole.

    Args:
        directory: The bundle's folder; made where it is missing.
        members: In order.
        class_names: Of the ensemble's probabilities.
        keypoints: What the points of a keypoint ensemble are.
        labels: What the labels are where a photo gets several.
        extra: What else to keep (JSON values).
    """
    import headstart

    entries: list[dict[str, Any]] = []
    for number, member in enumerate(members, 1):
        place = f"members/{number}"
        content = _copy_member(member, directory / place)
        entries.append(
            {"folder": place, "weight": member.weight, "sha256": content["weights"]["sha256"], "from": member.origin}
        )
    content = {"format": FORMAT, "kind": "ensemble", "task": "classification", "class_names": list(class_names)}
    if keypoints is not None:
        content |= {"task": "keypoints", "keypoints": keypoints.as_dict()}
    if labels is not None:
        content |= {"task": labels.task, "labels": labels.as_dict()}
    content |= {"members": entries, "headstart_version": headstart.__version__, "extra": dict(extra or {})}
    write_json(directory / METADATA_FILE, content)


def load_ensemble(folder: Path) -> Ensemble:
    """Load an ensemble's bundle.

    Args:
        folder: The bundle's own folder.

    Raises:
        BundleError: It is damaged, a member is missing or another's, or a newer headstart wrote it.
    """
    path = folder / METADATA_FILE
    content = _checked_content(path)
    members: list[Bundle] = []
    for number, entry in enumerate(content["members"], 1):
        member = load_bundle(_member_folder(folder, entry, number))
        if member.metadata["weights"]["sha256"] != entry.get("sha256"):
            remedy = "It was exchanged for another: copy the ensemble again, whole."
            found = member.metadata["weights"]["sha256"]
            raise BundleError(must_be(f"{path}: member {number}", f"the weights {entry.get('sha256')}", found, remedy))
        members.append(member)
    names = tuple(content["class_names"])
    layout = KeypointLayout.from_dict(content["keypoints"]) if content["task"] == "keypoints" else None
    labels = LabelLayout.from_dict(content["labels"]) if content.get("labels") else members[0].labels
    form = labels.form if labels else None
    wrong = [
        number
        for number, member in enumerate(members, 1)
        if set(member.class_names) != set(names) or (member.labels.form if member.labels else None) != form
    ]
    if wrong:
        raise BundleError(must_be(f"{path}: member {wrong[0]}", "a model of the ensemble's classes", "others"))
    weights = tuple(float(entry["weight"]) for entry in content["members"])
    return Ensemble(tuple(members), weights, names, layout, content, labels)


def _copy_member(member: MemberSource, target: Path) -> dict[str, Any]:
    source = find_bundle(member.folder)
    content = json.loads((source / METADATA_FILE).read_text(encoding="utf-8"))
    if member.temperatures:
        content |= {"temperature": member.temperatures[0] if len(member.temperatures) == 1 else 1.0}
        content |= {"temperatures": list(member.temperatures)} if "temperatures" in content else {}
    link_or_copy(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    write_json(target / METADATA_FILE, content)
    return content


def _checked_content(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    found = content.get("format")
    if isinstance(found, int) and found > FORMAT:
        remedy = "Update headstart: a newer one wrote it."
        raise BundleError(must_be(f"{path}: format", f"at most {FORMAT}", found, remedy))
    problems = [
        must_be(f"{path}: {name}", "there, and of the right type", content.get(name), "Copy the ensemble again.")
        for name, kind in _FIELDS.items()
        if not isinstance(content.get(name), kind)
    ]
    problems = problems or [*_weight_problems(content["members"], path), *label_problems(content, str(path))]
    if problems:
        raise BundleError(all_at_once(problems))
    return content


def _weight_problems(members: list[Any], path: Path) -> list[str]:
    weights = [member.get("weight") if isinstance(member, dict) else None for member in members]
    shares = [weight for weight in weights if isinstance(weight, int | float) and weight >= 0]
    if len(shares) == len(weights) and abs(sum(shares) - 1) < 1e-6:
        return []
    return [must_be(f"{path}: weights of the members", "not negative, with the sum 1", weights)]


def _member_folder(folder: Path, entry: Mapping[str, Any], number: int) -> Path:
    """Give a member's folder; never one outside the bundle, whatever the JSON says."""
    place = folder / str(entry.get("folder"))
    if not place.resolve().is_relative_to(folder.resolve()):
        raise BundleError(must_be(f"{folder}: member {number}", "a folder in the bundle", entry.get("folder")))
    return place


def _normalised(pixels: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Give what ``backbones.scale_pixels`` gives, but not in place: OpenVINO would take two of those for one."""
    n, height, width, _ = pixels.shape
    factors, addends = scale.flatten().repeat(width), offset.flatten().repeat(width)
    rows = pixels.reshape(n, height, width * 3).float() * factors + addends
    return rows.view(n, height, width, 3).permute(0, 3, 1, 2)


def _sharing_backbones(networks: Sequence[Network]) -> list[Network]:
    """Give networks with equal backbones the same one, so that it is held, moved and run once."""
    first: dict[str, nn.Module] = {}
    for network in networks:
        key = f"{network.name} {network.contract} {_backbone_digest(network)}"
        network.backbone = first.setdefault(key, network.backbone)
    return list(networks)


def _backbone_digest(network: Network) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(network.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
