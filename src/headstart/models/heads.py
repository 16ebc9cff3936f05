"""Heads: what turns a backbone's features into answers.

A head says what it takes (features pooled over the picture, or the map of features at each position), and can be built
again from its ``kind`` and ``settings``, which stand in the bundle. Keypoint heads give coordinates as shares of the
model's frame: (0, 0) is its top left corner, (1, 1) its bottom right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Takes = Literal["pooled", "map"]
Pooling = Literal["own", "average", "max", "both", "flatten"]

HIDDEN: Final = 256
"""Channels that a feature map is narrowed to: a quarter to a fifth of small backbones' last layer."""

UPSAMPLING: Final = 4
"""A 7×7 feature map becomes 28×28 heatmaps: finer ones gained nothing on faces of 224 pixels."""

REACH: Final = 0.1
"""Heatmaps reach this share of the frame beyond it, so that an average of places can lie at its very edge."""


@runtime_checkable
class KeypointHead(Protocol):
    """A head that gives points."""

    takes: Takes
    num_keypoints: int

    def decode(self, outputs: Tensor) -> Tensor:
        """Give coordinates (n, num_keypoints, 2) as shares of the model's frame from the head's outputs."""
        ...


class PooledHead(nn.Module):
    """What heads on pooled features share: batch norm on the features, hidden layers, dropout, and the last layer.

    Args:
        num_features: That the head is given for an image.
        num_outputs: Units of the last layer.
        dropout: Before the last layer, and after each hidden one.
        hidden: Units of hidden layers, each followed by ReLU.
        norm: Batch norm on the features, before all else.
        pooling: How the features come from the map of features; see ``pool_map``.
    """

    takes: Takes = "pooled"

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        *,
        dropout: float = 0.0,
        hidden: Sequence[int] = (),
        norm: bool = False,
        pooling: Pooling = "own",
    ) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.hidden = tuple(hidden)
        self.norm = nn.BatchNorm1d(num_features) if norm else None
        self.layers = _hidden_layers(num_features, self.hidden, dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.hidden[-1] if hidden else num_features, num_outputs)

    @property
    def shared_settings(self) -> dict[str, Any]:
        """What it is built from beside the features and the number of outputs."""
        plain: dict[str, Any] = {"dropout": self.dropout.p}
        others = {"hidden": list(self.hidden), "norm": self.norm is not None, "pooling": self.pooling}
        usual = {"hidden": [], "norm": False, "pooling": "own"}
        return plain | {name: value for name, value in others.items() if value != usual[name]}

    def extra_repr(self) -> str:
        """Tell what the modules do not: compiled graphs are found again by it."""
        return f"pooling={self.pooling}"

    def last_layer(self, features: Tensor) -> Tensor:
        """Give the last layer's outputs for pooled features."""
        features = features if self.norm is None else self.norm(features)
        return self.linear(self.dropout(self.layers(features)))


class ClassificationHead(PooledHead):
    """Pooled features (n, num_features) → logits (n, num_classes).

    Args:
        num_features: That the head is given for an image.
        num_classes: Logits to give.
        one_unit: Of two classes the second has the one unit, the first a logit of 0: binary cross-entropy's form.
        **layers: ``dropout``, ``hidden``, ``norm``, ``pooling``; see ``PooledHead``.

    Examples:
        >>> import torch
        >>> ClassificationHead(8, 3)(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
        >>> ClassificationHead(8, 2, one_unit=True, hidden=(4, 4))(torch.zeros(2, 8)).shape
        torch.Size([2, 2])
    """

    kind: ClassVar = "linear"

    def __init__(self, num_features: int, num_classes: int, *, one_unit: bool = False, **layers: Any) -> None:
        super().__init__(num_features, 1 if one_unit else num_classes, **layers)
        self.one_unit = one_unit

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return 2 if self.one_unit else self.linear.out_features

    @property
    def num_outputs(self) -> int:
        """Numbers that it gives for an image."""
        return self.num_classes

    @property
    def settings(self) -> dict[str, Any]:
        """What it is built from beside the features."""
        found = {"num_classes": self.num_classes} | self.shared_settings
        return found | {"one_unit": True} if self.one_unit else found

    def extra_repr(self) -> str:
        """Tell what the modules do not."""
        return f"{super().extra_repr()}, one_unit={self.one_unit}"

    def forward(self, features: Tensor) -> Tensor:
        """Give the logits of pooled features."""
        logits = self.last_layer(features)
        return torch.cat([torch.zeros_like(logits), logits], 1) if self.one_unit else logits

    def decode(self, outputs: Tensor) -> Tensor:
        """Give the logits: they are the answer."""
        return outputs


class CoordinateHead(PooledHead):
    """Pooled features (n, num_features) → x1, y1, … (n, 2 · num_keypoints).

    Args:
        num_features: That the head is given for an image.
        num_keypoints: Points to give.
        frame: (height, width) that the outputs are pixels of; (1, 1) for shares of the frame. Networks learn pixels
            badly: their first outputs are near 0, a hundred times smaller than what they should be.
        **layers: ``dropout``, ``hidden``, ``norm``, ``pooling``; see ``PooledHead``.

    Examples:
        >>> head = CoordinateHead(8, 5)
        >>> head.decode(head(torch.zeros(2, 8))).shape
        torch.Size([2, 5, 2])
    """

    kind: ClassVar = "coordinates"

    def __init__(
        self, num_features: int, num_keypoints: int, *, frame: tuple[int, int] = (1, 1), **layers: Any
    ) -> None:
        super().__init__(num_features, 2 * num_keypoints, **layers)
        self.num_keypoints = num_keypoints
        self.frame = (int(frame[0]), int(frame[1]))

    @property
    def num_outputs(self) -> int:
        """Numbers that it gives for an image."""
        return 2 * self.num_keypoints

    @property
    def settings(self) -> dict[str, Any]:
        """What it is built from beside the features."""
        return {"num_keypoints": self.num_keypoints, "frame": list(self.frame)} | self.shared_settings

    def forward(self, features: Tensor) -> Tensor:
        """Give the coordinates of pooled features."""
        with _full_precision(features):
            return self.last_layer(features.float())

    def decode(self, outputs: Tensor) -> Tensor:
        """Give coordinates (n, num_keypoints, 2) as shares of the model's frame."""
        height, width = self.frame
        return outputs.unflatten(-1, (self.num_keypoints, 2)) / outputs.new_tensor([width, height])

    def start_at(self, coordinates: Tensor) -> None:
        """Let a fresh head begin at these coordinates (num_keypoints, 2): the training set's mean, as a rule."""
        height, width = self.frame
        with torch.no_grad():
            self.linear.bias.copy_((coordinates * coordinates.new_tensor([width, height])).flatten())
            self.linear.weight.mul_(0.1)


class IntegralHead(nn.Module):
    """Heatmaps whose average place is the answer: feature map (n, C, h, w) → coordinates (n, 2 · num_keypoints).

    Args:
        num_features: Channels of the feature map.
        num_keypoints: Points to give.
        dropout: Of channels, before the heatmaps.

    Examples:
        >>> head = IntegralHead(8, 5)
        >>> head.decode(head(torch.zeros(2, 8, 7, 7))).shape
        torch.Size([2, 5, 2])

    References:
        Sun, Xiao, Wei, Liang, Wei: "Integral human pose regression", ECCV 2018, eq. 2. Upsampling by sub-pixel
        convolution: Shi et al., CVPR 2016.
    """

    kind: ClassVar = "integral"
    takes: Takes = "map"

    def __init__(self, num_features: int, num_keypoints: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.narrow = _narrowing(num_features)
        self.dropout = nn.Dropout2d(dropout)
        self.heatmaps = nn.Conv2d(HIDDEN, num_keypoints * UPSAMPLING**2, 1)

    @property
    def num_outputs(self) -> int:
        """Numbers that it gives for an image."""
        return 2 * self.num_keypoints

    @property
    def settings(self) -> dict[str, Any]:
        """What it is built from beside the features."""
        return {"num_keypoints": self.num_keypoints, "dropout": self.dropout.p}

    def forward(self, feature_map: Tensor) -> Tensor:
        """Give the coordinates of a feature map."""
        with _full_precision(feature_map):
            narrow = self.dropout(self.narrow(feature_map.float()))
            heatmaps = nn.functional.pixel_shuffle(self.heatmaps(narrow), UPSAMPLING)
            n, points, height, width = heatmaps.shape
            mass = heatmaps.flatten(2).softmax(2).view(n, points, height, width)
            x = mass.sum(2) @ _places(width, mass)
            y = mass.sum(3) @ _places(height, mass)
            return torch.stack([x, y], 2).flatten(1)

    def decode(self, outputs: Tensor) -> Tensor:
        """Give coordinates (n, num_keypoints, 2) as shares of the model's frame."""
        return outputs.unflatten(-1, (self.num_keypoints, 2))


class SimccHead(nn.Module):
    """Each coordinate as a choice among bins along its axis: feature map → logits (n, num_keypoints, bins x + bins y).

    Each point looks at the map through a filter of its own, and two linear layers turn the places where it answers into
    a distribution over the columns and one over the rows of the frame.

    Args:
        num_features: Channels of the feature map.
        num_keypoints: Points to give.
        map_size: (height, width) of the feature map.
        num_bins: Bins along y and along x; one a pixel of the model's frame is enough, as the answer is their mean.
        dropout: Of channels, before the filters.

    Examples:
        >>> head = SimccHead(8, 5, map_size=(7, 7), num_bins=(64, 64))
        >>> head.decode(head(torch.zeros(2, 8, 7, 7))).shape
        torch.Size([2, 5, 2])

    References:
        Li, Yang, Liu, et al.: "SimCC: a simple coordinate classification perspective for human pose estimation",
        ECCV 2022; the head without its attention: Jiang et al.: "RTMPose", arXiv 2303.07399.
    """

    kind: ClassVar = "simcc"
    takes: Takes = "map"

    def __init__(
        self,
        num_features: int,
        num_keypoints: int,
        *,
        map_size: tuple[int, int],
        num_bins: tuple[int, int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.map_size = (int(map_size[0]), int(map_size[1]))
        self.num_bins = (int(num_bins[0]), int(num_bins[1]))
        self.narrow = _narrowing(num_features)
        self.dropout = nn.Dropout2d(dropout)
        self.filters = nn.Conv2d(HIDDEN, num_keypoints, 3, padding=1)
        self.hidden = nn.Sequential(nn.Linear(self.map_size[0] * self.map_size[1], HIDDEN), nn.SiLU())
        self.columns = nn.Linear(HIDDEN, self.num_bins[1])
        self.rows = nn.Linear(HIDDEN, self.num_bins[0])

    @property
    def num_outputs(self) -> int:
        """Numbers that it gives for an image."""
        return self.num_keypoints * sum(self.num_bins)

    @property
    def settings(self) -> dict[str, Any]:
        """What it is built from beside the features."""
        sizes = {"map_size": list(self.map_size), "num_bins": list(self.num_bins)}
        return {"num_keypoints": self.num_keypoints, "dropout": self.dropout.p} | sizes

    def forward(self, feature_map: Tensor) -> Tensor:
        """Give the logits of a feature map: for each point the columns' first, then the rows'."""
        with _full_precision(feature_map):
            answers = self.filters(self.dropout(self.narrow(feature_map.float()))).flatten(2)
            hidden = self.hidden(answers)
            return torch.cat([self.columns(hidden), self.rows(hidden)], 2)

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Give the logits of the columns (x) and of the rows (y)."""
        columns, rows = outputs.split([self.num_bins[1], self.num_bins[0]], dim=-1)
        return columns, rows

    def decode(self, outputs: Tensor) -> Tensor:
        """Give coordinates (n, num_keypoints, 2) as shares of the model's frame: the mean of each distribution."""
        with _full_precision(outputs):
            means = [part.float().softmax(-1) @ bin_centres(part.shape[-1], part) for part in self.split(outputs)]
            return torch.stack(means, -1)


def bin_centres(num_bins: int, like: Tensor) -> Tensor:
    """Give the middles of bins that divide the frame's side, as shares of it, shape (num_bins,).

    Examples:
        >>> bin_centres(4, torch.zeros(1)).tolist()
        [0.125, 0.375, 0.625, 0.875]
    """
    return (torch.arange(num_bins, device=like.device, dtype=torch.float32) + 0.5) / num_bins


HEADS: Final = {head.kind: head for head in (ClassificationHead, CoordinateHead, IntegralHead, SimccHead)}
"""Every head by its kind."""


def build_head(kind: str, num_features: int, settings: Mapping[str, Any]) -> nn.Module:
    """Build a fresh head from what its ``kind`` and ``settings`` said.

    Examples:
        >>> head = build_head("integral", 8, IntegralHead(8, 5).settings)
        >>> type(head).__name__, head.num_keypoints
        ('IntegralHead', 5)
    """
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    return HEADS[kind](num_features, **values)


def pool_map(feature_map: Tensor, pooling: Pooling) -> Tensor:
    """Give features (n, features) of a map of features (n, C, h, w).

    Args:
        feature_map: From the backbone.
        pooling: "average" and "max" over positions, "both" side by side, or "flatten": each position's own.

    Examples:
        >>> pool_map(torch.arange(8.0).view(1, 2, 2, 2), "both").tolist()
        [[1.5, 5.5, 3.0, 7.0]]
    """
    if pooling == "flatten":
        return feature_map.flatten(1)
    average, highest = feature_map.mean((2, 3)), feature_map.amax((2, 3))
    return {"average": average, "max": highest}.get(pooling, torch.cat([average, highest], 1))


def num_pooled(map_size: tuple[int, int, int], pooling: Pooling) -> int:
    """Give the number of features that pooling makes of a map of (channels, height, width).

    Examples:
        >>> num_pooled((512, 7, 7), "flatten")
        25088
    """
    channels, height, width = map_size
    return channels * {"flatten": height * width, "both": 2}.get(pooling, 1)


def _hidden_layers(num_features: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((num_features, *hidden), hidden, strict=False):
        layers += [nn.Dropout(dropout)] if layers else []
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def _full_precision(values: Tensor) -> torch.autocast:
    """Leave mixed precision: bfloat16 tells a place in the frame to half a pixel of 224 at best."""
    return torch.autocast(values.device.type, enabled=False)


def _narrowing(num_features: int) -> nn.Sequential:
    """Give the layer that narrows a feature map. Group norm: small batches and frozen statistics do not disturb it."""
    return nn.Sequential(nn.Conv2d(num_features, HIDDEN, 1, bias=False), nn.GroupNorm(8, HIDDEN), nn.SiLU())


def _places(num_places: int, like: Tensor) -> Tensor:
    return bin_centres(num_places, like) * (1 + 2 * REACH) - REACH
