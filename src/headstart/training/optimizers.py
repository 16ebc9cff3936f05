"""Optimizers: which parameters decay, and AdamW over them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def make_adamw(
    named_parameters: Iterable[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float
) -> torch.optim.AdamW:
    """Make AdamW over the parameters that train, with weight decay on matrices only (not on biases and norms).

    Args:
        named_parameters: Names and parameters; those without gradient are left out, so they cost no state.
        lr: Learning rate until the schedule sets another.
        weight_decay: Decoupled decay.

    References:
        Loshchilov, Hutter: "Decoupled weight decay regularization", ICLR 2019.
    """
    trainable = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
