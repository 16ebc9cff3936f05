"""The network: input contract + backbone + head, from pixels to answers; and what of it is frozen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from headstart.errors import RecipeError, must_be
from headstart.models.backbones import (
    Backbone,
    check_classifier,
    create_backbone,
    feature_map,
    map_size,
    pool,
    scale_pixels,
)
from headstart.models.heads import (
    HEADS,
    ClassificationHead,
    CoordinateHead,
    IntegralHead,
    Pooling,
    SimccHead,
    Takes,
    num_pooled,
    pool_map,
)
from headstart.randomness import words

if TYPE_CHECKING:
    from headstart.recipe import Recipe


class Head(Protocol):
    """What the network asks of a head; see ``heads.py``."""

    kind: ClassVar[str]
    takes: Takes

    @property
    def num_outputs(self) -> int:
        """Numbers that it gives for an image."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What it is built from beside the features."""
        ...

    def decode(self, outputs: Tensor) -> Tensor:
        """Give what is of use from the outputs."""
        ...


class Network(nn.Module):
    """Backbone and head: takes pixels as they are stored and normalises them itself.

    It starts with its backbone frozen; ``unfreeze`` says otherwise.

    Args:
        backbone: From ``create_backbone``.
        head: Takes ``backbone.num_features`` features, pooled or at each position.

    Attributes:
        name: The backbone's name in timm.
        contract: The input it expects.
        weights_report: What became of the weights file.
        num_features: Features an image, between backbone and head.
        has_frozen_statistics: Whether BatchNorm statistics stand still in ``train()`` everywhere.

    Examples:
        >>> backbone = create_backbone("test_resnet", weights="none")
        >>> network = Network(backbone, ClassificationHead(backbone.num_features, 4)).eval()
        >>> network(torch.zeros(2, 160, 160, 3, dtype=torch.uint8)).shape
        torch.Size([2, 4])
    """

    scale: Tensor
    offset: Tensor

    head: Any

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.name = backbone.name
        self.contract = backbone.contract
        self.weights_report = backbone.weights
        self.num_features = backbone.num_features
        self.backbone = backbone.module
        self.head = head
        scale, offset = backbone.contract.scale_and_offset()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.has_frozen_statistics = False
        self.freeze()

    @property
    def takes_map(self) -> bool:
        """Whether the backbone ends at its map of features: for the head, or for a pooling of our own."""
        return self.head.takes == "map" or self.pooling != "own"

    @property
    def pooling(self) -> Pooling:
        """How a pooled head's features come from the map."""
        return getattr(self.head, "pooling", "own")

    @cached_property
    def unused(self) -> frozenset[str]:
        """Parameters of the backbone that a head on the feature map has no use for: what comes after the map."""
        return unused_parameters(self.backbone, self.contract.image_size) if self.takes_map else frozenset()

    @cached_property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """Names of the backbone's parameters, block by block from input to output, without the unused."""
        return without(find_blocks(self.backbone), self.unused)

    def forward(self, pixels: Tensor) -> Tensor:
        """Give the head's outputs, logits (n, num_classes) say, for pixels (n, H, W, 3) on 0..255, uint8 or float."""
        return self.answer(self.features(pixels))

    def features(self, pixels: Tensor) -> Tensor:
        """Give what the head takes for pixels (n, H, W, 3) on 0..255: (n, num_features), or a map (n, C, h, w)."""
        # Channels last in memory: what convolutions on a CPU and a GPU are fastest with.
        return self.features_of(scale_pixels(pixels, self.scale, self.offset))

    def features_of(self, images: Tensor) -> Tensor:
        """Give the same for normalised images (n, 3, H, W)."""
        return backbone_features(
            self.backbone, images, num_features=self.num_features, takes=self.head.takes, pooling=self.pooling
        )

    def answer(self, features: Tensor) -> Tensor:
        """Give the head's outputs for features."""
        return self.head(features)

    def answers(self, pixels: Tensor) -> Tensor:
        """Give what is of use: logits (n, num_classes), or coordinates (n, num_keypoints, 2) as shares of the frame."""
        return self.head.decode(self(pixels))

    def freeze(self) -> None:
        """Freeze the whole backbone; the head stays trainable."""
        self.unfreeze("none")

    def unfreeze(self, *what: str | int) -> None:
        """Choose what of the backbone trains (of several: what any of them names); the head always does.

        A frozen part has no gradients, and stays in eval mode in ``train()`` (its BatchNorm statistics stand still).

        Args:
            what: ``"none"``, ``"all"``, a number of last blocks, or a regular expression that is found in the names of
                the parameters.

        Raises:
            RecipeError: There are fewer blocks, or no parameter has such a name.
        """
        trainable = {name for one in what for name in self.trainable_names(str(one))}
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in trainable)
            if name not in trainable:
                parameter.grad = None
        self.train(self.training)

    def freeze_statistics(self, *, frozen: bool = True) -> None:
        """Keep the backbone's BatchNorm statistics as pretrained while its weights train.

        A small batch of other pictures says little about them, and the first steps would spoil what the weights were
        trained with (measured on scenes, MobileNetV2 from quantised weights: 0.93 accuracy in eval mode, 0.58 with the
        statistics of each batch).
        """
        self.has_frozen_statistics = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - PyTorch's signature
        """Enter training mode, except in what is frozen."""
        super().train(mode)
        _settle(self.backbone, mode=mode, is_frozen=False)
        if self.has_frozen_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.training = False
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that train, in order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def trainable_names(self, what: str) -> Iterable[str]:
        """Give the names of the backbone's parameters that ``unfreeze(what)`` lets train."""
        if what == "none":
            return ()
        if what == "all":
            return (name for name, _ in self.backbone.named_parameters() if name not in self.unused)
        if not what.isdecimal():
            return self._names_like(what)
        if not 1 <= int(what) <= len(self.blocks):
            expected = f"from 1 to {len(self.blocks)}, the blocks of {self.name}"
            raise RecipeError(must_be("unfreeze", expected, int(what), "Use 'all' to train everything."))
        return (name for block in self.blocks[-int(what) :] for name in block)

    def _names_like(self, pattern: str) -> list[str]:
        names = [name for block in self.blocks for name in block]
        found = [name for name in names if re.search(pattern, name)]
        if not found:
            expected = "none, all, a number of blocks, or a regular expression found in the parameters' names"
            remedy = f"They are {names[0]} to {names[-1]}."
            raise RecipeError(must_be("unfreeze", expected, pattern, remedy))
        return found

    def describe_training(self, what: str) -> str:
        """Say what trains, and how much of the whole that is.

        Args:
            what: As given to ``unfreeze``.

        Examples:
            >>> network = Network(create_backbone("test_resnet", weights="none"), ClassificationHead(96, 4))
            >>> network.describe_training("none")
            'training the head alone: 388 of 373,076 parameters'
        """
        trained = sum(parameter.numel() for parameter in self.trainable_parameters())
        total = sum(parameter.numel() for name, parameter in self.named_parameters())
        blocks = f"the last {what} of {len(self.blocks)} blocks and the head"
        parts = {"none": "the head alone", "all": "the whole network"}
        words = parts.get(what, blocks if what.isdecimal() else f"what is named like {what!r}, and the head")
        has_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.backbone.modules())
        kept = ", batch norm statistics " + ("as pretrained" if self.has_frozen_statistics else "of the batches")
        return f"training {words}: {trained:,} of {total:,} parameters" + (kept if has_norms and what != "none" else "")


def backbone_features(
    backbone: nn.Module, images: Tensor, *, num_features: int, takes: Takes, pooling: Pooling
) -> Tensor:
    """Give what a head takes of normalised images (n, 3, H, W): the map of features, or features pooled."""
    if takes == "map":
        return feature_map(backbone, images)
    if pooling != "own":
        return pool_map(feature_map(backbone, images), pooling)
    return pool(backbone(images), num_features)


def num_head_features(backbone: Backbone, kind: str, pooling: Pooling) -> int:
    """Give the number of features that a kind of head is given for an image: channels, where it takes the map."""
    if HEADS[kind].takes == "map":
        return map_size(backbone)[0]
    return backbone.num_features if pooling == "own" else num_pooled(map_size(backbone), pooling)


def new_network(recipe: Recipe, num_targets: int) -> Network:
    """Build what a recipe asks for: its backbone with weights, and a fresh head drawn from its seed.

    Args:
        recipe: The settings.
        num_targets: Classes, or for keypoints points.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> new_network(Recipe(backbone="test_resnet", weights="none"), 3).head.num_classes
        3
    """
    seed = int(words(recipe.seed, stream="init", epoch=0, indices=[0], count=1)[0, 0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = create_backbone(
            recipe.backbone,
            weights=recipe.weights,
            allow_partial=recipe.allow_partial_weights,
            image_size=recipe.image_size,
            fit=recipe.fit,
        )
        torch.manual_seed(seed)  # the head is the same whatever the backbone drew
        return Network(backbone, _new_head(recipe, backbone, num_targets))


def _new_head(recipe: Recipe, backbone: Backbone, num_targets: int) -> nn.Module:
    num_features, dropout = num_head_features(backbone, recipe.head, recipe.pooling), recipe.dropout
    if recipe.head == "integral":
        return IntegralHead(num_features, num_targets, dropout=dropout)
    image_size = backbone.contract.image_size
    if recipe.head == "simcc":
        sizes = {"map_size": map_size(backbone)[1:], "num_bins": image_size}
        return SimccHead(num_features, num_targets, **sizes, dropout=dropout)
    layers: dict[str, Any] = {
        "dropout": dropout,
        "hidden": recipe.head_hidden,
        "norm": recipe.head_norm,
        "pooling": recipe.pooling,
    }
    if recipe.head == "coordinates":
        frame = image_size if recipe.targets == "pixels" else (1, 1)
        return CoordinateHead(num_features, num_targets, frame=frame, **layers)
    one_unit = recipe.loss == "bce" and num_targets == 2 and recipe.labels.form != "multi"
    return ClassificationHead(num_features, num_targets, one_unit=one_unit, **layers)


def pretrained_classifier(name: str, class_names: Sequence[str], *, weights: str = "auto") -> Network:
    """Build a network with the classifier that came with its weights, unchanged (ImageNet's, as a rule).

    Args:
        name: A timm network.
        class_names: One for each class of that classifier, in its order.
        weights: ``"auto"`` or a file.

    Raises:
        WeightsError: The weights hold no classifier, or one of another number of classes.
    """
    backbone = create_backbone(name, weights=weights)
    state = check_classifier(backbone, len(class_names))
    head = ClassificationHead(state["weight"].shape[1], len(class_names))
    bias = state.get("bias", torch.zeros(len(class_names)))
    head.linear.load_state_dict({"weight": state["weight"], "bias": bias})
    return Network(backbone, head).eval()


def unused_parameters(module: nn.Module, image_size: tuple[int, int]) -> frozenset[str]:
    """Find a backbone's parameters that its feature map does not depend on: layers between the map and the pooling.

    They must not wait for gradients that never come, as several devices would do.

    Examples:
        >>> backbone = create_backbone("test_byobnet", weights="none")
        >>> sorted(unused_parameters(backbone.module, (64, 64)))
        []
    """
    was_training, wanted = module.training, [parameter.requires_grad for parameter in module.parameters()]
    with torch.inference_mode(mode=False), torch.enable_grad():
        module.eval().requires_grad_()
        device = next(module.parameters()).device
        feature_map(module, torch.zeros(1, 3, *image_size, device=device)).sum().backward()
    names = frozenset(name for name, parameter in module.named_parameters() if parameter.grad is None)
    for parameter, is_wanted in zip(module.parameters(), wanted, strict=True):
        parameter.grad = None
        parameter.requires_grad_(is_wanted)
    module.train(was_training)
    return names


def without(blocks: tuple[tuple[str, ...], ...], names: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """Leave names out of blocks, and blocks that hold nothing else.

    Examples:
        >>> without((("a", "b"), ("c",)), frozenset({"b", "c"}))
        (('a',),)
    """
    left = (tuple(name for name in block if name not in names) for block in blocks)
    return tuple(block for block in left if block)


def find_blocks(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Group a backbone's parameters into blocks from input to output, as timm does for layer-wise learning rates.

    A group of norms alone belongs to the block before it. The few networks that timm has no groups for go by their
    children, a sequence counting as one block for each of its own.

    Examples:
        >>> [len(block) for block in find_blocks(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)))]
        [4, 2]
    """
    parameters = dict(module.named_parameters())
    blocks: list[list[str]] = []
    for names in _groups(module):
        if blocks and all(parameters[name].ndim <= 1 for name in names):
            blocks[-1].extend(names)
        else:
            blocks.append(list(names))
    return tuple(tuple(block) for block in blocks)


def _groups(module: Any) -> list[list[str]]:
    try:
        groups = group_parameters(module, module.group_matcher(coarse=True))
    except (AttributeError, AssertionError):
        return _children_groups(module)
    return [names for _, names in sorted(groups.items())]


def _children_groups(module: nn.Module, prefix: str = "") -> list[list[str]]:
    groups = [[prefix + name for name, _ in module.named_parameters(recurse=False)]]
    for name, child in module.named_children():
        start = f"{prefix}{name}."
        if isinstance(child, nn.Sequential | nn.ModuleList):
            groups.extend(_children_groups(child, start))
        else:
            groups.append([start + parameter for parameter, _ in child.named_parameters()])
    return [group for group in groups if group]


def _settle(module: nn.Module, *, mode: bool, is_frozen: bool) -> None:
    """Set training mode, but eval where all parameters are frozen; modules without any follow their parent."""
    parameters = list(module.parameters())
    if parameters:
        is_frozen = not any(parameter.requires_grad for parameter in parameters)
    module.training = mode and not is_frozen
    for child in module.children():
        _settle(child, mode=mode, is_frozen=is_frozen)
