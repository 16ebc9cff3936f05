"""Losses: what a step of training minimises.

Losses of classes take logits and targets: class numbers, or shares of the classes where photos were mixed. Keypoint
losses take the distances of coordinates in shares of the model's frame (or in its pixels, where the recipe says so) and
count marked points only. Wing losses have their bends at a few pixels of a 224-pixel frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.models.heads import SimccHead, bin_centres

PIXEL: Final = 1 / 224
"""A pixel of the frame that the bends of the losses were published for."""

WING: Final = (10 * PIXEL, 2 * PIXEL)
"""Width and curvature of the wing loss, as published for faces of 224 pixels."""

SOFT_WING: Final = (2 * PIXEL, 20 * PIXEL, 0.5 * PIXEL)
"""Lower and upper bend and curvature of the soft wing loss, likewise."""

TINY: Final = 1e-7
"""Least that is raised to a power: below 1 a power's slope has no end at 0."""

SIMCC_SPREAD: Final = 0.02
"""Standard deviation of the target's Gaussian, as a share of the frame: about 4.5 pixels of 224."""


def cross_entropy(logits: Tensor, shares: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Give the mean cross-entropy, each sample weighted by its classes.

    For class numbers it is PyTorch's own, weights and smoothing included; for shares the mean is weighted likewise.

    Args:
        logits: Shape (n, classes).
        shares: What each sample is to be, shape (n, classes), rows summing to 1.
        weights: Of the classes, shape (classes,); equal unless told.
        smoothing: Share of the target that is spread over all classes.

    Examples:
        >>> logits, labels = torch.tensor([[2.0, 0.0], [0.5, 1.0]]), torch.tensor([0, 1])
        >>> ours = cross_entropy(logits, as_shares(labels, 2), weights=torch.tensor([1.0, 3.0]), smoothing=0.1)
        >>> theirs = F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 3.0]), label_smoothing=0.1)
        >>> bool(torch.isclose(ours, theirs))
        True

    References:
        Szegedy et al.: "Rethinking the inception architecture", CVPR 2016, section 7 (smoothing).
    """
    return _weighted_mean(-F.log_softmax(logits, 1), shares, weights=weights, smoothing=smoothing)


def focal(
    logits: Tensor,
    shares: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Tensor:
    """Give the focal loss: cross-entropy in which what is well told already counts less.

    Args:
        logits: Shape (n, classes).
        shares: Shape (n, classes).
        weights: Of the classes, shape (classes,).
        smoothing: Share of the target that is spread over all classes.
        gamma: How much less: a class at probability p counts (1 - p)^gamma.
        alpha: Weight of the second of two classes; the first has 1 - alpha. More classes have ``weights``.

    Examples:
        >>> logits, shares = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> bool(torch.isclose(focal(logits, shares, gamma=0.0), cross_entropy(logits, shares)))
        True
        >>> bool(focal(logits, shares) < 0.01 * cross_entropy(logits, shares))
        True

    References:
        Lin, Goyal, Girshick, He, Dollár: "Focal loss for dense object detection", ICCV 2017, eq. 5.
    """
    log_probabilities = F.log_softmax(logits, 1)
    losses = -log_probabilities * (1 - log_probabilities.exp()).clamp_min(TINY) ** gamma
    if alpha is not None:
        losses = losses * losses.new_tensor([1 - alpha, alpha])
    return _weighted_mean(losses, shares, weights=weights, smoothing=smoothing)


def soft_f1(logits: Tensor, shares: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Give 1 - macro F1 of the batch, with probabilities counted where F1 counts decisions.

    Classes that no sample of the batch is of do not count: their F1 is 0 whatever the network says.

    Args:
        logits: Shape (n, classes).
        shares: Shape (n, classes).
        weights: Of the classes in the mean over them, shape (classes,).

    Examples:
        >>> sure = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
        >>> float(soft_f1(sure, as_shares(torch.tensor([0, 1]), 3)))
        0.0

    References:
        Bénédict, Koops, Odijk, de Rijke: "sigmoidF1", TMLR 2022, eq. 5 to 8; here with softmax.
    """
    return _soft_f1(logits.softmax(1), shares, weights)


def binary_cross_entropy(
    logits: Tensor, shares: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Give the mean cross-entropy of one yes-or-no question a class; of two classes whose first logit is 0, of one.

    Args:
        logits: Shape (n, classes).
        shares: Each class's share, shape (n, classes); several may be 1.
        weights: Of each question's yes against the noes, shape (classes,).
        smoothing: Share of each answer that is moved to the middle.

    References:
        Wightman, Touvron, Jégou: "ResNet strikes back", arXiv 2110.00476, section 3.
    """
    losses = F.binary_cross_entropy_with_logits(logits, shares * (1 - smoothing) + smoothing / 2, reduction="none")
    return _mean_of_questions(losses, shares, weights)


def binary_focal(
    logits: Tensor,
    shares: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Tensor:
    """Give the focal loss of one yes-or-no question a class: what is well told already counts less.

    Args:
        logits: Shape (n, classes).
        shares: Each class's share, shape (n, classes); several may be 1.
        weights: Of each question's yes against the noes, shape (classes,).
        smoothing: Share of each answer that is moved to the middle.
        gamma: How much less: an answer at probability p counts (1 - p)^gamma.
        alpha: Weight of a yes; a no has 1 - alpha.

    Examples:
        >>> logits, shares = torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 1.0]])
        >>> plain = binary_cross_entropy(logits, shares, smoothing=0.1)
        >>> bool(torch.isclose(binary_focal(logits, shares, smoothing=0.1, gamma=0.0), plain))
        True

    References:
        Lin, Goyal, Girshick, He, Dollár: "Focal loss for dense object detection", ICCV 2017, eq. 5.
    """
    smoothed, found = shares * (1 - smoothing) + smoothing / 2, logits.sigmoid()
    yes = -F.logsigmoid(logits) * (1 - found).clamp_min(TINY) ** gamma * (1.0 if alpha is None else alpha)
    no = -F.logsigmoid(-logits) * found.clamp_min(TINY) ** gamma * (1.0 if alpha is None else 1 - alpha)
    return _mean_of_questions(smoothed * yes + (1 - smoothed) * no, shares, weights)


def presence_loss(
    name: str,
    logits: Tensor,
    shares: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Tensor:
    """Give the loss that a recipe names, of several classes at once: each is a question of its own.

    Args:
        name: One of ``label_settings.MULTI_LOSSES``.
        logits: Shape (n, classes).
        shares: Each class's share, shape (n, classes); several may be 1.
        weights: Of the classes: of yes against no, for soft F1 in the mean over them, shape (classes,).
        smoothing: Share of each answer that is moved to the middle; no business of soft F1.
        gamma: Of the focal loss.
        alpha: Likewise.

    Examples:
        >>> sure = torch.tensor([[50.0, -50.0], [50.0, 50.0]])
        >>> round(float(presence_loss("soft_f1", sure, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))), 6)
        0.0
    """
    logits = logits.float()
    if name == "soft_f1":
        return _soft_f1(logits.sigmoid(), shares, weights)
    if name == "focal":
        return binary_focal(logits, shares, weights=weights, smoothing=smoothing, gamma=gamma, alpha=alpha)
    return binary_cross_entropy(logits, shares, weights=weights, smoothing=smoothing)


def _soft_f1(probabilities: Tensor, shares: Tensor, weights: Tensor | None) -> Tensor:
    hits = (probabilities * shares).sum(0)
    scores = 2 * hits / (probabilities.sum(0) + shares.sum(0)).clamp_min(1e-12)
    counts = (shares.sum(0) > 0).to(probabilities.dtype) * (1.0 if weights is None else weights)
    return 1 - (scores * counts).sum() / counts.sum().clamp_min(1e-12)


def _mean_of_questions(losses: Tensor, shares: Tensor, weights: Tensor | None) -> Tensor:
    """Give the mean of losses (n, classes), the yes of each class weighted."""
    if weights is None:
        return losses.mean()
    each = shares * weights + (1 - shares)
    return (losses * each).sum() / each.sum()


def classification_loss(
    name: str,
    logits: Tensor,
    targets: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Tensor:
    """Give the loss that a recipe names.

    Args:
        name: One of ``CLASSIFICATION_LOSSES``.
        logits: Shape (n, classes).
        targets: Class numbers (n,), or shares of the classes (n, classes).
        weights: Of the classes, shape (classes,).
        smoothing: Share of the target that is spread over all classes; no business of soft F1.
        gamma: Of the focal loss.
        alpha: Likewise.

    Examples:
        >>> logits = torch.zeros(2, 4)
        >>> round(float(classification_loss("cross_entropy", logits, torch.tensor([0, 3]))), 3)
        1.386
    """
    logits = logits.float()
    if name == "cross_entropy" and targets.ndim == 1:  # PyTorch's own; the fastest
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
    shares = targets if targets.ndim == 2 else as_shares(targets, logits.shape[1])
    if name == "soft_f1":
        return soft_f1(logits, shares, weights=weights)
    if name == "focal":
        return focal(logits, shares, weights=weights, smoothing=smoothing, gamma=gamma, alpha=alpha)
    if name == "bce" and logits.shape[1] > 2:
        return binary_cross_entropy(logits, shares, weights=weights, smoothing=smoothing)
    return cross_entropy(logits, shares, weights=weights, smoothing=smoothing)  # softmax of (0, z) is the sigmoid of z


CLASSIFICATION_LOSSES: Final = ("cross_entropy", "focal", "soft_f1", "bce")
"""Losses of classes."""


def as_shares(labels: Tensor, num_classes: int) -> Tensor:
    """Give class numbers (n,) as shares of the classes (n, classes): all of it the one class.

    Examples:
        >>> as_shares(torch.tensor([1]), 3).tolist()
        [[0.0, 1.0, 0.0]]
    """
    return F.one_hot(labels, num_classes).float()


def balanced_weights(counts: Tensor) -> Tensor:
    """Give each class the weight at which all weigh the same together; their mean over the samples is 1.

    Args:
        counts: Training samples of each class, shape (classes,).

    Examples:
        >>> balanced_weights(torch.tensor([1, 3])).tolist()
        [2.0, 0.6666666865348816]

    References:
        King, Zeng: "Logistic regression in rare events data", Political Analysis 2001.
    """
    counts = counts.float()
    return counts.sum() / (len(counts) * counts.clamp_min(1))


def effective_weights(counts: Tensor, *, beta: float = 0.999) -> Tensor:
    """Give weights by the effective number of samples: rare classes gain, but less than in ``balanced_weights``.

    Args:
        counts: Training samples of each class, shape (classes,).
        beta: How soon further samples stop telling something new: beyond about 1 / (1 - beta) of them.

    Examples:
        >>> weights = effective_weights(torch.tensor([10, 1000]))
        >>> bool(weights[0] / weights[1] < 100)
        True

    References:
        Cui, Jia, Lin, Song, Belongie: "Class-balanced loss based on effective number of samples", CVPR 2019, eq. 2.
    """
    numbers = counts.double().clamp_min(1)
    weights = (1 - beta) / (1 - beta**numbers)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def _weighted_mean(losses: Tensor, shares: Tensor, *, weights: Tensor | None, smoothing: float) -> Tensor:
    """Weigh losses (n, classes) by the smoothed shares and the classes' weights; divide by the samples' weights."""
    smoothed = shares * (1 - smoothing) + smoothing / shares.shape[1]
    if weights is None:
        return (losses * smoothed).sum(1).mean()
    return (losses * smoothed * weights).sum() / (shares * weights).sum()


def squared(difference: Tensor) -> Tensor:
    """Give squared differences: the loss of plain regression, weak because few large errors rule it."""
    return difference.square()


def absolute(difference: Tensor) -> Tensor:
    """Give absolute differences."""
    return difference.abs()


def smooth(difference: Tensor, *, bend: float = 2 * PIXEL) -> Tensor:
    """Give differences that are squared below a bend and absolute above it (smooth L1, Huber's loss over its bend).

    References:
        Girshick: "Fast R-CNN", ICCV 2015, eq. 3.
    """
    size = difference.abs()
    return torch.where(size < bend, 0.5 * size.square() / bend, size - 0.5 * bend)


def wing(difference: Tensor, *, width: float = WING[0], curvature: float = WING[1]) -> Tensor:
    """Give the wing loss: logarithmic below its width, so that small errors still matter; absolute above.

    Examples:
        >>> at_bend = wing(torch.tensor([WING[0] - 1e-6, WING[0] + 1e-6]))
        >>> bool((at_bend[1] - at_bend[0]).abs() < 1e-5)
        True

    References:
        Feng, Kittler, Awais, Huber, Wu: "Wing loss for robust facial landmark localisation", CVPR 2018, eq. 5.
    """
    size = difference.abs()
    constant = width - width * math.log(1 + width / curvature)
    return torch.where(size < width, width * torch.log1p(size / curvature), size - constant)


def soft_wing(
    difference: Tensor, *, low: float = SOFT_WING[0], high: float = SOFT_WING[1], curvature: float = SOFT_WING[2]
) -> Tensor:
    """Give the soft wing loss: absolute below a small bend, logarithmic above, so that outliers count less.

    References:
        Lin, Zhu, Wang, Liao, et al.: "Structure-coherent deep feature learning for robust face alignment", IEEE TIP
        2021, eq. 4.
    """
    size = difference.abs()
    constant = low - high * math.log(1 + low / curvature)
    return torch.where(size < low, size, high * torch.log1p(size / curvature) + constant)


COORDINATE_LOSSES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "mse": squared,
    "l1": absolute,
    "smooth_l1": smooth,
    "wing": wing,
    "soft_wing": soft_wing,
}
"""Losses of coordinates, each a function of the differences alone."""


def coordinate_loss(
    name: str, coordinates: Tensor, targets: Tensor, visible: Tensor, *, in_pixels: bool = False
) -> Tensor:
    """Give the mean loss over the marked points' coordinates.

    Args:
        name: One of ``COORDINATE_LOSSES``.
        coordinates: Shape (n, points, 2).
        targets: Likewise.
        visible: Which points count, shape (n, points).
        in_pixels: Coordinates are pixels of the frame, not shares of it; bends are then at whole pixels.

    Examples:
        >>> there, wrong = torch.zeros(1, 2, 2), torch.tensor([[[0.0, 0.0], [9.0, 9.0]]])
        >>> float(coordinate_loss("l1", wrong, there, torch.tensor([[True, False]])))
        0.0
    """
    unit = PIXEL if in_pixels and name != "mse" else 1.0  # the others grow as their unit does
    losses = COORDINATE_LOSSES[name]((coordinates - targets) * unit).sum(-1) / unit
    return mean_over_visible(losses, visible) / 2


def simcc_loss(head: SimccHead, outputs: Tensor, targets: Tensor, visible: Tensor) -> Tensor:
    """Give the cross-entropy of both axes' distributions against Gaussians around the targets, over marked points.

    Args:
        head: What made the outputs.
        outputs: Its logits.
        targets: Coordinates as shares of the frame, shape (n, points, 2).
        visible: Which points count, shape (n, points).

    References:
        Jiang et al.: "RTMPose", arXiv 2303.07399, section 3.3 (Gaussian label smoothing).
    """
    losses = torch.zeros(visible.shape, device=outputs.device)
    for axis, logits in enumerate(head.split(outputs)):
        places = bin_centres(logits.shape[-1], logits)
        spread = max(SIMCC_SPREAD, 1 / len(places))  # narrower than a bin it could not say where in it a point lies
        distance = (places - targets[..., axis : axis + 1]) / spread
        wanted = torch.softmax(-0.5 * distance.square(), -1)
        losses = losses - (wanted * torch.log_softmax(logits.float(), -1)).sum(-1)
    return mean_over_visible(losses, visible) / 2


def mean_over_visible(losses: Tensor, visible: Tensor) -> Tensor:
    """Give the mean of the points' losses (n, points) over the marked ones; 0 where none is."""
    return (losses * visible).sum() / visible.sum().clamp_min(1)
