"""Which tensor of a weights file belongs to which tensor of a network: by name, or by torchvision's order.

The same network goes by other names in torchvision. Its modules come in the same order with the same shapes, though, so
they are paired one after the other, and the pairing is dropped at the first pair that does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor, nn

State = dict[str, Tensor]

_RENAMES: Final = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)
"""torchvision's vision transformers, whose modules come in another order than timm's."""

_REGNET_RENAMES: Final = ((r"^stem\.0\.", "stem.conv."), (r"^stem\.1\.", "stem.bn."), (r"^fc\.", "head.fc."))
_REGNET_BLOCK: Final = re.compile(r"^trunk_output\.block(\d+)\.block\d+-(\d+)\.(proj\.\d|f\.se|f\.\w\.\d)\.(.+)$")

_REGNET_PARTS: Final = {"proj.0": "downsample.conv", "proj.1": "downsample.bn", "f.se": "se"} | {
    f"f.{letter}.{index}": f"conv{number}.{part}"
    for number, letter in enumerate("abc", 1)
    for index, part in enumerate(("conv", "bn"))
}

_TORCHVISION_EPS: Final = ((r"mobilenetv3_", 1e-3), (r"efficientnet_b[567]\b", 1e-3), (r"efficientnetv2_", 1e-3))
"""BatchNorm's epsilon in torchvision where it is not PyTorch's 1e-5: part of the weights, yet not in the file."""

_SAME_ROLE: Final = {"layer_scale": "gamma"}


@dataclass(frozen=True)
class Match:
    """A pairing of a file's tensors with a network's.

    Attributes:
        tensors: Network tensor name → the file's tensor in the network's shape.
        left_over: The file's names that found no place.
        wrong_shapes: What does not fit although the name does, in words.
        naming: Whose names the file uses, in words.
        classifier: Weight (classes, features) and bias (classes) of the file's own classifier, where it holds one.
    """

    tensors: State
    left_over: tuple[str, ...]
    wrong_shapes: tuple[str, ...]
    naming: str
    classifier: State | None = None


def counted(state: Mapping[str, Tensor]) -> State:
    """Give the tensors that count: all but BatchNorm's step counters, which no forward pass reads."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def match_by_name(state: State, target: State, *, classifier: str | None, naming: str = "timm's names") -> Match:
    """Pair tensors of equal name.

    Args:
        state: The file's tensors.
        target: The network's tensors.
        classifier: Name of the classifier module in the file, e.g. ``"head.fc"``.
        naming: What to call these names.

    Examples:
        >>> import torch
        >>> match = match_by_name({"a": torch.ones(2), "b": torch.ones(3)}, {"a": torch.zeros(2)}, classifier=None)
        >>> list(match.tensors), match.left_over
        (['a'], ('b',))
    """
    tensors, wrong_shapes = {}, []
    for name in (name for name in target if name in state):
        fitted = _reshaped(state[name], target[name])
        if fitted is None:
            wrong_shapes.append(f"{name} is {tuple(state[name].shape)}, not {tuple(target[name].shape)}")
        else:
            tensors[name] = fitted
    left_over = tuple(name for name in state if name not in tensors)
    return Match(tensors, left_over, tuple(wrong_shapes), naming, _classifier(state, classifier))


def match_torchvision(state: State, target: State, *, classifier: str | None, ordered: bool) -> Match | None:
    """Pair a torchvision file's tensors with a timm network's, or give None where they are not the same network.

    Args:
        state: The file's tensors.
        target: The network's tensors, in order.
        classifier: Name of the classifier module in timm's names.
        ordered: Whether the file keeps the modules' order (safetensors sorts by name: the numbers in it are used).
    """
    names = _timm_names(state)
    if all(name == renamed for name, renamed in names.items()):
        return _match_by_order(state, target, ordered=ordered)
    renamed_state = {names[name]: tensor for name, tensor in state.items()}
    match = match_by_name(renamed_state, target, classifier=classifier, naming="torchvision's names")
    left_over = tuple(name for name in state if names[name] not in match.tensors)
    return replace(match, left_over=left_over)


def fold_epsilon(tensors: State, module: nn.Module, *, backbone: str) -> State:
    """Shift BatchNorm's variances so that timm's epsilon gives what torchvision's gave: var + eps stays the same."""
    source = next((eps for pattern, eps in _TORCHVISION_EPS if re.search(pattern, backbone)), 1e-5)
    own = {
        f"{name}.running_var": float(part.eps)  # pyright: ignore[reportArgumentType]
        for name, part in module.named_modules()
        if getattr(part, "running_var", None) is not None
    }
    return {name: tensor + (source - own[name]) if name in own else tensor for name, tensor in tensors.items()}


def _timm_names(names: Iterable[str]) -> dict[str, str]:
    """Give timm's name for each of torchvision's, for networks whose modules come in another order."""
    is_regnet = any(name.startswith("trunk_output.") for name in names)
    renames = _REGNET_RENAMES if is_regnet else _RENAMES
    return {name: _renamed(_REGNET_BLOCK.sub(_regnet_name, name), renames) for name in names}


def _regnet_name(found: re.Match[str]) -> str:
    stage, block, part, rest = found.groups()
    return f"s{stage}.b{int(block) + 1}.{_REGNET_PARTS[part]}.{rest}"


def _renamed(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _match_by_order(state: State, target: State, *, ordered: bool) -> Match | None:
    own, others = _modules(target), _modules(state)
    if not ordered:
        others = dict(sorted(others.items(), key=lambda item: _natural(item[0])))
    tensors: State = {}
    for (own_name, own_part), other_part in zip(own.items(), others.values(), strict=False):
        fitted = _fit_part(own_part, other_part)
        if fitted is None:
            return None
        tensors |= {f"{own_name}.{role}" if own_name else role: tensor for role, tensor in fitted.items()}
    rest = [(name, part) for name, part in list(others.items())[len(own) :]]
    if len(rest) > 1 or (rest and not _is_classifier(rest[0][1])):
        return None
    left_over = tuple(f"{name}.{role}" for name, part in rest for role in part)
    classifier = _flat_classifier(rest[0][1]) if rest else None
    return Match(tensors, left_over, (), "torchvision's names", classifier)


def _modules(state: State) -> dict[str, State]:
    """Group tensors by the module that holds them, in the order of first appearance."""
    modules: dict[str, State] = {}
    for name, tensor in state.items():
        module, _, role = name.rpartition(".")
        modules.setdefault(module, {})[_SAME_ROLE.get(role, role)] = tensor
    return modules


def _natural(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sort key: numbers by value, classifiers last."""
    is_last = name.startswith(("classifier", "fc", "head"))
    return is_last, [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _fit_part(own: State, other: State) -> State | None:
    if own.keys() != other.keys():
        return None
    fitted = {role: _reshaped(other[role], own[role]) for role in own}
    return None if any(tensor is None for tensor in fitted.values()) else fitted  # pyright: ignore[reportReturnType]


def _reshaped(tensor: Tensor, wanted: Tensor) -> Tensor | None:
    """Give the tensor in the wanted shape where both mean the same, else None.

    A Linear layer of (o, c·h·w) is a convolution of (o, c, h, w) (VGG's first); of (o, c), one of (o, c, 1, 1). A scale
    of (C, 1, 1) is one of (C,).
    """
    if tensor.shape == wanted.shape:
        return tensor
    if tensor.numel() != wanted.numel() or tensor.ndim == 0 or tensor.shape[0] != wanted.shape[0]:
        return None
    is_same = {tensor.ndim, wanted.ndim} == {2, 4} or tensor.squeeze().shape == wanted.squeeze().shape
    return tensor.reshape(wanted.shape) if is_same else None


def _is_classifier(part: State) -> bool:
    return "weight" in part and part.keys() <= {"weight", "bias"} and part["weight"].flatten(1).ndim == 2


def _classifier(state: State, name: str | None) -> State | None:
    if name is None or f"{name}.weight" not in state:
        return None
    part = {role: state[f"{name}.{role}"] for role in ("weight", "bias") if f"{name}.{role}" in state}
    return _flat_classifier(part)


def _flat_classifier(part: State) -> State:
    return {role: tensor.flatten(1) if role == "weight" else tensor for role, tensor in part.items()}
