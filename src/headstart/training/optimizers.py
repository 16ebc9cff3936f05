"""Optimizers: which parameters decay, how fast each layer learns, and timm's optimizers over them by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from torch import nn

from headstart.errors import RecipeError, did_you_mean, must_be

if TYPE_CHECKING:
    from headstart.recipe import Recipe

Blocks = Sequence[Sequence[str]]

_FUSED: Final = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
"""PyTorch's own, all parameters in one call: a step of MobileNetV2 takes a third of the time."""

_SGD: Final = {"sgd": False, "momentum": False, "nesterov": True}
"""Names of stochastic gradient descent, and whether the momentum looks ahead. Timm's "sgd" does; PyTorch's and Keras's,
which people mean, does not."""


_UNFIT: Final = {
    "adahessian": "It needs second derivatives, which take many times as long.",
    **dict.fromkeys(("kron", "kronc", "kronw"), "A run could not be resumed from its state."),
}
"""Optimizers of timm that cannot be had here, and why."""


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    blocks: Blocks = (),
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Sort the parameters that train into groups of one weight decay and one share of the learning rate.

    Biases and norms do not decay. With layer decay each block of the backbone learns slower than the one after it.

    Args:
        named_parameters: Names and parameters; those without gradient are left out, so they cost no state.
        weight_decay: Of matrices.
        blocks: Names of the backbone's parameters, block by block from input to output.
        layer_decay: What a block's rate is of the next one's; the head has the whole. Equal rates unless told.

    Returns:
        Groups with ``params``, ``weight_decay`` and ``lr_scale``, its share of the learning rate.

    Examples:
        >>> layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> blocks = [["0.weight", "0.bias"]]
        >>> groups = parameter_groups(layers.named_parameters(), weight_decay=0.1, blocks=blocks, layer_decay=0.5)
        >>> [(group["lr_scale"], group["weight_decay"]) for group in groups]
        [(0.5, 0.1), (0.5, 0.0), (1.0, 0.1), (1.0, 0.0)]

    References:
        Howard, Ruder: "Universal language model fine-tuning", ACL 2018, section 3.2 (discriminative rates); Bao, Dong,
        Piao, Wei: "BEiT", ICLR 2022 (layer decay).
    """
    depths = {name: len(blocks) - number for number, block in enumerate(blocks) for name in block}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            scale = 1.0 if layer_decay is None else layer_decay ** depths.get(name.removeprefix("backbone."), 0)
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (scale, decay), parameters in groups.items()
    ]


def make_optimizer(
    groups: list[dict[str, Any]], recipe: Recipe, *, lr: float, fused: bool = True
) -> torch.optim.Optimizer:
    """Make the optimizer that a recipe names: PyTorch's fused one where there is one, else timm's.

    Args:
        groups: From ``parameter_groups``.
        recipe: ``optimizer`` and ``momentum``.
        lr: Learning rate until the schedule sets another.
        fused: Whether PyTorch's own take all parameters in one call.

    Raises:
        RecipeError: There is no such optimizer, or it needs what is not installed.
    """
    name = recipe.optimizer
    check_optimizer(name)
    if name in _FUSED:
        return _FUSED[name](groups, lr=lr, fused=fused)
    if name in _SGD:
        nesterov = _SGD[name] and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    try:
        return create_optimizer_v2(groups, opt=name, lr=lr, momentum=recipe.momentum, weight_decay=0.0)
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise RecipeError(must_be("optimizer", "one that can be made here", name, f"It says: {reason}.")) from None


def are_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Say whether all parameters that train are numbers: a last step can spoil them behind a loss that still was one.

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> are_finite(layer.parameters())
        True
        >>> _ = torch.nn.init.constant_(layer.bias, float("inf"))
        >>> are_finite(layer.parameters())
        False
    """
    return all(bool(parameter.isfinite().all()) for parameter in parameters if parameter.requires_grad)


def check_optimizer(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        RecipeError: Likewise.

    Examples:
        >>> check_optimizer("rmspropp")
        Traceback (most recent call last):
        headstart.errors.RecipeError: --optimizer must be one of timm's; got 'rmspropp'. Did you mean 'rmsprop'?
    """
    names = [str(known) for known in list_optimizers() if known not in _UNFIT]
    if name in _UNFIT:
        raise RecipeError(must_be("--optimizer", "another of timm's", name, _UNFIT[name]))
    if name not in names:
        remedy = did_you_mean(name, names) or f"There are {', '.join(names)}."
        raise RecipeError(must_be("--optimizer", "one of timm's", name, remedy))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, as its share of the whole says."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
