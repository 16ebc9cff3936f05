"""A network cut in two: the frozen trunk, whose output can be kept, and the rest, which trains from there.

Networks are not written in two halves, so the cut is found by watching one pass, and tried: the rest is run with the
modules before the cut handing on their input, and the output of the cut put in its place. Where that does not give the
same features to the bit, the network is not cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from headstart.models.network import Network

_SMALL = 8
"""Side of the pictures that stand for the real ones where the trunk does not look at them."""


@dataclass(frozen=True)
class Cut:
    """Where a network is cut.

    Attributes:
        at: Name of the backbone's module whose output is kept.
        skipped: Names of the modules that run before it, the outermost of each.
        shape: Of the output, of one image.
    """

    at: str
    skipped: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def bytes_per_image(self) -> int:
        """What an image's activations take as float32."""
        return 4 * int(torch.tensor(self.shape).prod())

    @contextmanager
    def fed(self, network: Network, activations: Tensor) -> Iterator[Tensor]:
        """Let the network run from activations (n, *shape); yields the pictures to call it with."""
        modules = dict(network.backbone.named_modules())
        with ExitStack() as stack:
            for name in self.skipped:
                stack.enter_context(_replaced(modules[name], None))
            stack.enter_context(_replaced(modules[self.at], activations))
            yield torch.zeros(len(activations), _SMALL, _SMALL, 3, dtype=torch.uint8, device=activations.device)


class Trunk(nn.Module):
    """The part of a network up to a cut: pixels (n, H, W, 3) → activations (n, *shape)."""

    def __init__(self, network: Network, cut: Cut) -> None:
        super().__init__()
        self.network, self.cut = network, cut

    def forward(self, pixels: Tensor) -> Tensor:
        """Give the activations; what comes after the cut is not run."""
        found: list[Tensor] = []

        def stop(_: nn.Module, __: Any, output: Tensor) -> None:
            found.append(output)
            raise _CutReached

        handle = self.network.backbone.get_submodule(self.cut.at).register_forward_hook(stop)
        try:
            self.network.features(pixels)
        except _CutReached:
            pass
        finally:
            handle.remove()
        return found[0]

    def extra_repr(self) -> str:
        """Tell what the modules do not."""
        return f"cut at {self.cut.at}"


class _CutReached(Exception):  # noqa: N818 - no error: how a pass ends that has all it wants
    pass


def find_cut(network: Network) -> Cut | None:
    """Find the last place before anything that trains: its very end where all of the backbone is frozen.

    None where there is none, or where the rest would differ.

    Args:
        network: Unfrozen as it will train. Left as it was.

    Examples:
        >>> from headstart.models.backbones import create_backbone
        >>> from headstart.models.heads import ClassificationHead
        >>> from headstart.models.network import Network
        >>> network = Network(create_backbone("test_resnet", weights="none"), ClassificationHead(96, 4))
        >>> network.unfreeze(1)
        >>> find_cut(network).at
        'layer3'
        >>> network.unfreeze("all")
        >>> find_cut(network) is None
        True
        >>> network.freeze()
        >>> find_cut(network).at
        'layer4'
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return _tried(network, _watched(network))
    finally:
        network.train(was_training)


@dataclass
class _Watched:
    """What one pass showed of a module."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    output: Any = None


def _example(network: Network) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, *network.contract.image_size, 3), dtype=torch.uint8, generator=draws)
    return pixels.to(next(network.parameters()).device)


def _watched(network: Network) -> dict[str, _Watched]:
    """Run one pass and note when each module began and ended, and what it gave."""
    seen: dict[str, _Watched] = {name: _Watched() for name, _ in network.backbone.named_modules() if name}
    clock, handles = iter(range(10**9)), []
    for name, module in network.backbone.named_modules():
        if name:
            handles += _watch(module, seen[name], clock)
    try:
        network.features(_example(network))
    finally:
        for handle in handles:
            handle.remove()
    return {name: one for name, one in seen.items() if one.starts}


def _watch(module: nn.Module, seen: _Watched, clock: Iterator[int]) -> list[Any]:
    def begin(_: nn.Module, __: Any) -> None:
        seen.starts.append(next(clock))

    def end(_: nn.Module, __: Any, output: Any) -> None:
        seen.ends.append(next(clock))
        seen.output = output

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def _tried(network: Network, seen: dict[str, _Watched]) -> Cut | None:
    modules = dict(network.backbone.named_modules())
    training = [
        one.starts[0]
        for name, one in seen.items()
        if any(parameter.requires_grad for parameter in modules[name].parameters(recurse=False))
    ]
    if not training and any(parameter.requires_grad for parameter in network.backbone.parameters()):
        return None  # what trains belongs to no module that was seen to run
    first = min(training, default=math.inf)
    before = {name: one for name, one in seen.items() if one.ends and one.ends[-1] < first}
    fitting = {name: one for name, one in before.items() if isinstance(one.output, Tensor) and len(one.starts) == 1}
    fitting = {name: one for name, one in fitting.items() if any(True for _ in modules[name].parameters())}
    if not fitting:
        return None
    at = max(fitting, key=lambda name: fitting[name].ends[-1])
    earlier = [name for name, one in before.items() if one.ends[-1] < fitting[at].starts[0]]
    outermost = tuple(name for name in earlier if not any(name.startswith(f"{other}.") for other in earlier))
    cut = Cut(at, outermost, tuple(fitting[at].output.shape[1:]))
    return cut if _is_exact(network, cut, fitting[at].output) else None


def _is_exact(network: Network, cut: Cut, activations: Tensor) -> bool:
    try:
        with cut.fed(network, activations) as pictures:
            found = network.features(pictures)
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
        return False  # it computes with the pictures between its modules
    return torch.equal(found, network.features(_example(network)))


@contextmanager
def _replaced(module: nn.Module, output: Tensor | None) -> Iterator[None]:
    """Let a module give this output; None: whatever it is given first."""
    module.forward = (lambda given, *_, **__: given) if output is None else (lambda *_, **__: output)
    try:
        yield
    finally:
        del module.forward
