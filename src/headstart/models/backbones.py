"""Backbones: any timm network by name, without its classifier, with the input it expects and its pretrained weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, Literal

import timm
import torch
from numpy.typing import ArrayLike
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # pyright: ignore[reportPrivateImportUsage]
from timm.models import get_pretrained_cfg, split_model_name_tag
from torch import Tensor, nn

from headstart.data.augmentation import Maps, evaluation_maps
from headstart.errors import RecipeError, WeightsError, did_you_mean, must_be
from headstart.models.hub import find_weights
from headstart.models.naming import Match, State, counted
from headstart.models.weights import WeightsReport, load_weights, random_weights

Fit = Literal["crop", "letterbox", "stretch"]

_MARK: Final = 1000.0
"""Filled into marked copies (plus the tensor's number): far from any fresh value, exact in float32."""


@dataclass(frozen=True)
class InputContract:
    """What a network expects of its pixels. It travels with the network, into the bundle and every export.

    Attributes:
        image_size: (height, width).
        mean: Of red, green and blue, on a scale of 0 to 1.
        std: Likewise.
        interpolation: What the weights were trained with, as timm names it.
        crop_fraction: Share of the resized photo's side that the centre crop keeps (timm's crop_pct).
        fit: How a photo meets the image size.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    crop_fraction: float = 0.875
    fit: Fit = "crop"

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels (n, H, W, 3) on 0..255 into the network's float32 input (n, 3, H, W), channels last in memory.

        Examples:
            >>> contract = InputContract((1, 1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
            >>> contract.normalise(torch.tensor([[[[0, 255, 0]]]], dtype=torch.uint8)).flatten().tolist()
            [-1.0, 1.0, -1.0]
        """
        scale, offset = (tensor.to(pixels.device) for tensor in self.scale_and_offset())
        return scale_pixels(pixels, scale, offset)

    def view(self, sizes: ArrayLike, *, boxes: ArrayLike | None = None) -> Maps:
        """Give the maps through which the network sees photos in validation, test and use.

        Args:
            sizes: (height, width) of the photos as decoded or stored, shape (n, 2).
            boxes: The part of each that it looks at (left, top, right, bottom), shape (n, 4); all of it unless told.

        Examples:
            >>> contract = InputContract((8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), fit="letterbox")
            >>> contract.view([[16, 8]]).affine[0].tolist()
            [[0.5, 0.0, 2.0], [0.0, 0.5, 0.0]]
        """
        return evaluation_maps(
            sizes, image_size=self.image_size, fit=self.fit, crop_fraction=self.crop_fraction, boxes=boxes
        )

    def scale_and_offset(self) -> tuple[Tensor, Tensor]:
        """Give the normalisation as factor and addend for pixels on 0..255, each (1, 3, 1, 1)."""
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (1 / (255 * std)).float(), (-mean / std).float()


def scale_pixels(pixels: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Give ``pixels * scale + offset`` as float32 (n, 3, H, W), channels last in memory.

    Works on whole rows of pixels: broadcasting over three channels is four times as slow on a CPU (measured: 80 against
    290 µs for 224×224).

    Args:
        pixels: Shape (n, H, W, 3), on 0..255.
        scale: Factors, shape (1, 3, 1, 1).
        offset: Addends, shape (1, 3, 1, 1).
    """
    n, height, width, _ = pixels.shape
    factors, addends = scale.flatten().repeat(width), offset.flatten().repeat(width)
    rows = pixels.reshape(n, height, width * 3).to(torch.float32, copy=True)  # the one copy; what follows is in place
    return rows.mul_(factors).add_(addends).view(n, height, width, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        name: As timm knows it.
        module: Gives features (n, num_features) from normalised images; see ``pool``.
        contract: The input it expects.
        num_features: Features an image.
        weights: What became of the weights file.
        classifier: Weight (classes, features) and bias (classes) that came with the weights, if any.
    """

    name: str
    module: nn.Module
    contract: InputContract
    num_features: int
    weights: WeightsReport
    classifier: State | None


def create_backbone(
    name: str,
    *,
    weights: str = "auto",
    allow_partial: tuple[str, ...] = (),
    image_size: tuple[int, int] | None = None,
    fit: Fit = "crop",
) -> Backbone:
    """Build a backbone with pretrained weights.

    Args:
        name: A timm network, e.g. ``"mobilenetv2_100"`` or ``"resnet50.a1_in1k"``.
        weights: ``"auto"`` (the folder in HEADSTART_WEIGHTS, timm's cache, the hub), a file, or ``"none"``.
        allow_partial: Backbone tensors that may stay random: names, or ``prefix.*``.
        image_size: (height, width); the network's own unless told.
        fit: How photos will meet the image size.

    Raises:
        RecipeError: There is no such network, or it cannot take this image size.
        WeightsError: The weights cannot be had, or do not fit.

    Examples:
        >>> backbone = create_backbone("test_resnet", weights="none")
        >>> backbone.num_features, backbone.contract.image_size
        (96, (160, 160))
    """
    published = _published(name)
    contract = _contract(published, image_size=image_size, fit=fit)
    options = _size_options(published, contract.image_size)
    module = _create(name, options, contract.image_size)
    num_features = _count_features(module, name, contract.image_size)
    if weights == "none":
        return Backbone(name, module, contract, num_features, random_weights(module), None)
    file = find_weights(name, weights, published=published)
    names = published.get("classifier")
    report, classifier = load_weights(
        module,
        file,
        backbone=name,
        classifier=names if isinstance(names, str) else None,
        allow_partial=allow_partial,
        convert=partial(_convert_by_timm, name=name, options=options, target=counted(module.state_dict())),
    )
    return Backbone(name, module, contract, num_features, report, classifier)


def pool(features: Tensor, num_features: int) -> Tensor:
    """Average what a backbone gives over positions, where it does not do so itself: (n, …) → (n, num_features)."""
    if features.ndim == 2:
        return features
    axis = 1 if features.shape[1] == num_features else features.ndim - 1
    return features.movedim(axis, 1).flatten(2).mean(2)


def feature_map(module: Any, images: Tensor) -> Tensor:
    """Give a backbone's last features at each position, (n, channels, h, w), before they are pooled.

    Channels that come last (Swin) are moved to the front; a transformer's tokens are laid out as the grid of patches
    that they stand for, without class tokens.

    Args:
        module: A timm network.
        images: Normalised, shape (n, 3, H, W).

    Raises:
        RecipeError: The network has no such map.

    Examples:
        >>> backbone = create_backbone("test_resnet", weights="none")
        >>> feature_map(backbone.module, torch.zeros(2, 3, 160, 160)).shape
        torch.Size([2, 96, 5, 5])
    """
    features = module.forward_features(images)
    if isinstance(features, Tensor) and features.ndim == 4:
        return features if features.shape[1] == module.num_features else features.permute(0, 3, 1, 2)
    if isinstance(features, Tensor) and features.ndim == 3:
        tokens = features[:, int(getattr(module, "num_prefix_tokens", 0)) :]
        height = round((tokens.shape[1] * images.shape[2] / images.shape[3]) ** 0.5)
        if height and tokens.shape[1] % height == 0:
            return tokens.transpose(1, 2).unflatten(2, (height, tokens.shape[1] // height))
    name = type(module).__name__
    raise RecipeError(must_be("head", "'coordinates' for a backbone without a map of features", name, "Change one."))


def map_size(backbone: Backbone) -> tuple[int, int, int]:
    """Give channels, height and width of a backbone's feature map for its image size."""
    was_training = backbone.module.training
    with torch.no_grad():
        features = feature_map(backbone.module.eval(), torch.zeros(1, 3, *backbone.contract.image_size))
    backbone.module.train(was_training)
    return features.shape[1], features.shape[2], features.shape[3]


@cache
def _network_names() -> tuple[str, ...]:
    return tuple(timm.list_models())


def _published(name: str) -> dict[str, Any]:
    """Give timm's entry for a network: where its weights are and what input they expect."""
    architecture, tag = split_model_name_tag(name)
    if architecture not in _network_names():
        remedy = did_you_mean(architecture, _network_names()) or "timm.list_models() lists all names."
        raise RecipeError(must_be("backbone", "the name of a timm network", name, remedy))
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        remedy = did_you_mean(name, tags) or f"Leave out '.{tag}'."
        raise RecipeError(must_be("backbone", f"one of {', '.join([architecture, *tags])}", name, remedy))
    entry = get_pretrained_cfg(name, allow_unregistered=True)
    return entry.to_dict() if entry is not None else {}


def _contract(published: dict[str, Any], *, image_size: tuple[int, int] | None, fit: Fit) -> InputContract:
    _, height, width = published.get("input_size") or (3, 224, 224)
    return InputContract(
        image_size=image_size or (height, width),
        mean=_triple(published.get("mean") or IMAGENET_DEFAULT_MEAN),
        std=_triple(published.get("std") or IMAGENET_DEFAULT_STD),
        interpolation=published.get("interpolation") or "bicubic",
        crop_fraction=float(published.get("crop_pct") or 0.875),
        fit=fit,
    )


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _size_options(published: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Give the option that builds a network of fixed input size for another one."""
    is_own = tuple(published.get("input_size") or ())[1:] == tuple(image_size)
    return {"img_size": tuple(image_size)} if published.get("fixed_input_size") and not is_own else {}


def _create(name: str, options: dict[str, Any], image_size: tuple[int, int], **weights: Any) -> nn.Module:
    try:
        return timm.create_model(name, num_classes=0, **options, **weights)
    except (AssertionError, ValueError, TypeError) as error:
        raise RecipeError(_size_problem(name, image_size, error)) from None


def _count_features(module: nn.Module, name: str, image_size: tuple[int, int]) -> int:
    """Run one black image: the only way to know that a network takes this size, and what it gives."""
    was_training = module.training
    try:
        with torch.no_grad():
            features = module.eval()(torch.zeros(1, 3, *image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RecipeError(_size_problem(name, image_size, error)) from None
    finally:
        module.train(was_training)
    named = getattr(module, "num_features", features.shape[1])
    return features.shape[1] if features.ndim == 2 or named not in features.shape else int(named)


def _size_problem(name: str, image_size: tuple[int, int], error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return must_be("image_size", f"a (height, width) that {name} takes", image_size, f"It says: {reason}.")


def _convert_by_timm(state: State, *, name: str, options: dict[str, Any], target: State) -> Match | None:
    """Pair tensors by timm's own loading: old names, other sources, position embeddings of another size.

    timm's conversion does not say what went where. So it is run once on copies filled with each tensor's number.
    """
    marked = {
        key: torch.full_like(tensor, _MARK + i, dtype=torch.float32) for i, (key, tensor) in enumerate(state.items())
    }
    marks, values = _load_by_timm(marked, name, options), _load_by_timm(state, name, options)
    if marks is None or values is None:
        return None
    loaded = {key: marks[key] for key in target if key in marks and float(marks[key].float().min()) >= _MARK - 0.5}
    used = {int(mark) for tensor in loaded.values() for mark in (tensor - _MARK).round().unique().tolist()}
    left_over = tuple(key for i, key in enumerate(state) if i not in used)
    return Match({key: values[key] for key in loaded}, left_over, (), "converted by timm", None)


def _load_by_timm(state: State, name: str, options: dict[str, Any]) -> State | None:
    overlay = {"state_dict": dict(state), "custom_load": False}
    try:
        with _quiet_timm():
            module = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError):
        return None  # not a file that timm can convert: the pairing by name says what is missing
    return module.state_dict()


@contextmanager
def _quiet_timm() -> Iterator[None]:
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_classifier(backbone: Backbone, num_classes: int) -> State:
    """Give the classifier that came with the weights, if it has this many classes.

    Raises:
        WeightsError: There is none, or it has another number of classes.
    """
    place = f"the classifier in {backbone.weights.source}"
    if backbone.classifier is None:
        found = sorted(backbone.weights.left_over)
        raise WeightsError(must_be(place, "there (weight and bias)", found, "Pass a file of the whole network."))
    rows = len(backbone.classifier["weight"])
    if rows != num_classes:
        raise WeightsError(must_be(place, f"one for {num_classes} classes", rows, "Pass as many class names."))
    return backbone.classifier
