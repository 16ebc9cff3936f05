"""Pretrained weights into a network: read without running code, paired by name, accounted for to the last tensor.

Nothing is left random in silence: a backbone tensor that the file does not hold is refused by name.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart.errors import WeightsError, did_you_mean, must_be
from headstart.models.hub import WeightsFile
from headstart.models.naming import Match, State, counted, fold_epsilon, match_by_name, match_torchvision

WRAPPERS: Final = ("state_dict_ema", "model_ema", "state_dict", "model", "net")
"""Keys under which training scripts keep the tensors; averaged weights first, as they are the better ones."""

PREFIXES: Final = ("_orig_mod.", "module.", "model.", "backbone.", "net.")
"""What compiling, data parallelism and wrapping modules put before every name."""

_NUM_LISTED: Final = 20

Conversion = Callable[[State], Match | None]


@dataclass(frozen=True)
class WeightsReport:
    """What became of a weights file, tensor by tensor.

    Attributes:
        source: Where the weights come from, in words.
        loaded: Backbone tensors that were set from the file.
        missing: Backbone tensors that are still random.
        left_over: The file's tensors that found no place (its own classifier among them).
        sha256: Of the file; None where there was none.
        naming: Whose names the file uses; None where there was no file.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...] = ()
    sha256: str | None = None
    naming: str | None = None

    def describe(self) -> list[str]:
        """Give the report as lines for the terminal.

        Examples:
            >>> WeightsReport("a.pth", ("x",), (), ("fc.weight",), "ab", "timm's names").describe()
            ["weights: a.pth (timm's names)", '  1 tensors loaded, 0 missing, 1 left over (fc.weight)']
        """
        if self.sha256 is None:
            return [f"weights: {self.source}"]
        counts = [f"{len(self.loaded)} tensors loaded", f"{len(self.missing)} missing{_in_brackets(self.missing)}"]
        counts.append(f"{len(self.left_over)} left over{_in_brackets(self.left_over)}")
        return [f"weights: {self.source} ({self.naming})", "  " + ", ".join(counts)]


def random_weights(module: nn.Module) -> WeightsReport:
    """Report a network that starts from random weights because it was asked to."""
    return WeightsReport("none: every tensor starts random", (), tuple(counted(module.state_dict())))


def load_weights(
    module: nn.Module,
    file: WeightsFile,
    *,
    backbone: str,
    classifier: str | None,
    allow_partial: Iterable[str] = (),
    convert: Conversion | None = None,
) -> tuple[WeightsReport, State | None]:
    """Load a weights file into a backbone.

    Args:
        module: The backbone, without classifier.
        file: The weights.
        backbone: The backbone's name, for messages and for what torchvision does otherwise.
        classifier: Name of the classifier in timm's full network.
        allow_partial: Tensors that may stay random: names, or ``prefix.*``.
        convert: Last resort: timm's own conversion of files from elsewhere.

    Returns:
        The report, and the file's own classifier where it holds one.

    Raises:
        WeightsError: The file cannot be read, belongs to another network, or lacks a tensor not allowed to be missing.
    """
    target = counted(module.state_dict())
    state = unwrap(read_weights_file(file.path), target=target, place=str(file.path))
    match = _best_match(state, module, classifier=classifier, file=file, convert=convert, backbone=backbone)
    missing = tuple(name for name in target if name not in match.tensors)
    _check_allowed(missing, target, tuple(allow_partial))
    _refuse_missing(missing, match, file=file, backbone=backbone, allowed=tuple(allow_partial), target=target)
    _refuse_not_finite(match.tensors, file)
    module.load_state_dict(match.tensors, strict=False)
    loaded = tuple(name for name in target if name in match.tensors)
    report = WeightsReport(file.origin, loaded, missing, match.left_over, hash_file(file.path), match.naming)
    return report, match.classifier


def read_weights_file(path: Path) -> Any:
    """Read a safetensors or PyTorch file; pickled code in it is refused, not run.

    Raises:
        WeightsError: The file is damaged, or holds more than tensors.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        # timm's checkpoints hold a Namespace of settings; odd pickle protocols are warned of, and read or refused.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        remedy = "It is damaged, or holds Python objects, which could run code and are not loaded. Save its state_dict."
        raise WeightsError(must_be(str(path), "a file of tensors", _first_line(error), remedy)) from None
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        remedy = "It is damaged or not a weights file. Get it anew."
        raise WeightsError(must_be(str(path), "a weights file", _first_line(error), remedy)) from None


def unwrap(content: Any, *, target: State, place: str) -> State:
    """Find the tensors in what a file holds, under plain names.

    Args:
        content: What the file holds: tensors by name, or a training script's dictionary around them.
        target: The network's tensors: a prefix that they have too is kept.
        place: The file, for the message.

    Examples:
        >>> unwrap({"state_dict": {"module.a.weight": torch.ones(1)}}, target={"a.weight": torch.ones(1)}, place="f")
        {'a.weight': tensor([1.])}
    """
    inner = next(
        (content[key] for key in WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)), content
    )
    tensors = {k: v for k, v in inner.items() if isinstance(v, Tensor)} if isinstance(inner, dict) else {}
    if not tensors:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(must_be(place, "tensors by name (a state_dict)", found))
    return counted(_without_prefixes(tensors, target))


def hash_file(path: Path) -> str:
    """Give a file's SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _without_prefixes(tensors: State, target: State) -> State:
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            own = sum(name.startswith(prefix) for name in tensors)
            if own * 2 > len(tensors) and not any(name.startswith(prefix) for name in target):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                stripped = True
    return tensors


def _best_match(
    state: State,
    module: nn.Module,
    *,
    classifier: str | None,
    file: WeightsFile,
    convert: Conversion | None,
    backbone: str,
) -> Match:
    """Pair by timm's names; where tensors are missing, try torchvision's, then timm's conversion; keep the fullest."""
    target = counted(module.state_dict())
    best = match_by_name(state, target, classifier=classifier)
    if len(best.tensors) == len(target):
        return best
    ordered = file.path.suffix.lower() != ".safetensors"
    other = match_torchvision(state, target, classifier=classifier, ordered=ordered)
    if other is not None and len(other.tensors) > len(best.tensors):
        folded = fold_epsilon(other.tensors, module, backbone=backbone)
        best = Match(folded, other.left_over, other.wrong_shapes, other.naming, other.classifier)
    if len(best.tensors) == len(target) or not (best.left_over or best.wrong_shapes):
        return best
    converted = convert(state) if convert else None
    return converted if converted is not None and len(converted.tensors) > len(best.tensors) else best


def _check_allowed(missing: tuple[str, ...], target: State, allowed: tuple[str, ...]) -> None:
    """Refuse a pattern that names no tensor of the backbone: it is a slip, and would hide nothing."""
    for pattern in allowed:
        if not any(fnmatchcase(name, pattern) for name in target):
            remedy = did_you_mean(pattern, [*missing, *_patterns(missing), *target])
            raise WeightsError(must_be("allow_partial_weights", "tensors of the backbone", pattern, remedy))


def _refuse_missing(
    missing: tuple[str, ...], match: Match, *, file: WeightsFile, backbone: str, allowed: tuple[str, ...], target: State
) -> None:
    refused = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in allowed)]
    if not refused:
        return
    place, expected = f"weights file {file.path.name}", f"complete for the backbone {backbone}"
    if not match.tensors:
        differences = match.wrong_shapes or [f"the file holds {name}" for name in match.left_over]
        got = f"none of its {len(target)} tensors: {_listed(differences, at_most=4)}"
        raise WeightsError(
            f"{place} must be {expected}; got {got}. It belongs to another network: name that as --backbone."
        )
    got = f"{len(match.tensors)} of {len(target)} tensors ({match.naming}). Missing: {_listed(refused)}."
    shapes = f" Of another shape: {_listed(match.wrong_shapes, at_most=4)}." if match.wrong_shapes else ""
    remedy = (
        f"Use a complete file, or let these start random with --allow-partial-weights '{','.join(_patterns(refused))}'."
    )
    raise WeightsError(f"{place} must be {expected}; got {got}{shapes} {remedy}")


def _refuse_not_finite(tensors: State, file: WeightsFile) -> None:
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        remedy = "The training that wrote it diverged, or the file is damaged."
        raise WeightsError(must_be(f"weights file {file.path.name}", "finite", _listed(broken), remedy))


def _patterns(names: Iterable[str]) -> list[str]:
    """Give the shortest patterns for a message: one ``module.*`` for each first part of the names."""
    return list(dict.fromkeys(f"{name.split('.')[0]}.*" if "." in name else name for name in names))


def _listed(names: Iterable[str], *, at_most: int = _NUM_LISTED) -> str:
    every = list(names)
    more = f", and {len(every) - at_most} more" if len(every) > at_most else ""
    return ", ".join(every[:at_most]) + more


def _in_brackets(names: tuple[str, ...]) -> str:
    return f" ({_listed(names)})" if names else ""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
