"""Checkpoints: one safetensors file that holds tensors and, in its header, JSON. Atomic, no pickle.

A checkpoint is everything that the next step depends on. Randomness has no state (see ``randomness``), so what is left
is weights, buffers, optimizer moments, the moving average, and a few counters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from headstart.errors import TrainingError, must_be
from headstart.files import written_aside

_GROUP: Final = "group"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint aside, sync it, rename it: a crash leaves the last one whole.

    Args:
        path: The checkpoint file.
        tensors: Names and tensors, on any device.
        state: JSON values: epoch, step, scores, history.
    """
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with written_aside(path) as aside:
        save_file(contiguous, aside, metadata={"state": json.dumps(state)})


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint's tensors and state.

    Raises:
        TrainingError: The file is not a whole checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        problem = must_be(
            str(path), "a whole checkpoint", str(error), "Remove it and resume from the run's other files."
        )
        raise TrainingError(problem) from None


def save_training(
    path: Path, parts: Mapping[str, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write a training under way: tensors under the names of their parts, and all of the optimizer's state.

    Args:
        path: The checkpoint file.
        parts: State dicts by name.
        optimizer: Of the training.
        state: JSON values besides.
    """
    tensors = with_prefix("optimizer", optimizer_tensors(optimizer))
    for name, part in parts.items():
        tensors |= with_prefix(name, part)
    save_checkpoint(path, tensors, {**state, "optimizer": optimizer_scalars(optimizer)})


def load_training(path: Path, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take up the optimizer's state from ``save_training``'s file, and give tensors (see ``under_prefix``) and state.

    Raises:
        TrainingError: The file is not a whole checkpoint.
    """
    tensors, state = load_checkpoint(path)
    restore_optimizer(optimizer, under_prefix("optimizer", tensors), state.get("optimizer"))
    return tensors, state


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors ``prefix.name``, to keep several state dicts in one file."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take back what ``with_prefix`` put in."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the tensors of an optimizer's state: ``parameter number.key`` → tensor, and those of its groups."""
    found = {name: value for name, value in _flat_state(optimizer).items() if isinstance(value, Tensor)}
    for number, group in enumerate(optimizer.param_groups):
        found |= {f"{_GROUP}{number}.{name}": value for name, value in group.items() if isinstance(value, Tensor)}
    return found


def optimizer_scalars(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Give the rest of an optimizer's state, as JSON values: plain numbers of parameters and of groups.

    Raises:
        TrainingError: There is something else in it, which could not be taken up again.
    """
    state = {name: value for name, value in _flat_state(optimizer).items() if not isinstance(value, Tensor)}
    groups = [
        {name: value for name, value in group.items() if name != "params" and _is_scalar(value)}
        for group in optimizer.param_groups
    ]
    odd = sorted({name.split(".", 1)[1] for name, value in state.items() if not _is_scalar(value)})
    if odd:
        problem = must_be("the optimizer's state", "tensors and numbers", ", ".join(odd), "Use another --optimizer.")
        raise TrainingError(problem)
    return {"state": state, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any] | None = None
) -> None:
    """Put flattened state back, in the memory layout of each parameter (so that the next step's bits are the same).

    Args:
        optimizer: Over the same parameters; what state it has is dropped.
        tensors: From ``optimizer_tensors``.
        scalars: From ``optimizer_scalars``; older checkpoints have none.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.state.clear()
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        if number.startswith(_GROUP):
            optimizer.param_groups[int(number.removeprefix(_GROUP))][key] = tensor
            continue
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape and tensor.ndim:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        else:
            tensor = tensor.to(parameter.device)  # the fused step on a GPU reads its counter there
        optimizer.state[parameter][key] = tensor
    for name, value in (scalars or {}).get("state", {}).items():
        number, key = name.split(".", 1)
        optimizer.state[parameters[int(number)]][key] = value
    for group, values in zip(optimizer.param_groups, (scalars or {}).get("groups", ()), strict=False):
        group.update(values)


def _flat_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()["state"]
    return {f"{number}.{key}": value for number, values in state.items() for key, value in values.items()}


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
