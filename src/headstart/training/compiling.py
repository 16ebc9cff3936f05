"""Whether torch.compile pays: a probe on the run's own batches, before they train.

Compiling takes half a minute to some minutes and saves a share of every step. So it is tried only where what is left of
the run is many times as long, and kept only where the compiled step is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from headstart.progress import say

if TYPE_CHECKING:
    from headstart.models.network import Network

COMPILE_SECONDS: Final = {"cpu": 80.0, "cuda": 45.0}
"""What compiling a MobileNetV3 took, by device: the cost that a run has to be able to repay."""

WORTH_TRYING: Final = 4.0
"""The rest of the run has to take so many times as long as compiling before it is tried."""

WORTH_KEEPING: Final = 0.95
"""Largest share of the plain step that a compiled one may take."""

NUM_TIMED: Final = 3


@dataclass(frozen=True)
class Verdict:
    """What the probe found.

    Attributes:
        words: Why, for the user.
        is_compiled: Whether training goes on with the compiled network.
    """

    words: str
    is_compiled: bool


def try_compiling(network: Network, step: Callable[[], Any], *, steps_left: int, is_asked: bool = False) -> Verdict:
    """Compile a network in place where that pays for the steps that are left.

    Args:
        network: Called by ``step``; it is left compiled, or as it was.
        step: Forward and backward on a batch of the run, without an update; it waits for the device.
        steps_left: Of the run.
        is_asked: Compile without asking whether it pays.
    """
    device = next(network.parameters()).device.type
    with _kept_buffers(network):
        plain = timed(step)
        left, cost = plain * steps_left, COMPILE_SECONDS.get(device, 60.0)
        if not is_asked and left < WORTH_TRYING * cost:
            words = f"not compiled: the rest takes about {left:.0f} s, compiling alone about {cost:.0f} s"
            return Verdict(words, is_compiled=False)
        return _compiled(network, step, plain, is_asked=is_asked)


def _compiled(network: Network, step: Callable[[], Any], plain: float, *, is_asked: bool) -> Verdict:
    say("compiling the training step …")
    start = time.perf_counter()
    network.compile(dynamic=False)
    try:
        step()
        spent, fast = time.perf_counter() - start, timed(step)
    except Exception as error:  # noqa: BLE001 - whatever a compiler says, training goes on without it
        undo(network)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Verdict(f"not compiled: {reason}", is_compiled=False)
    faster = f"{1000 * fast:.0f} instead of {1000 * plain:.0f} ms a step, compiled in {spent:.0f} s"
    if fast > plain * WORTH_KEEPING and not is_asked:
        undo(network)
        return Verdict(f"not compiled: it would take {faster}", is_compiled=False)
    return Verdict(f"compiled: {faster}", is_compiled=True)


def timed(step: Callable[[], Any]) -> float:
    """Give the median seconds of a step, after one to warm up."""
    step()
    seconds = []
    for _ in range(NUM_TIMED):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def undo(network: Network) -> None:
    """Let a network run as written again."""
    network._compiled_call_impl = None  # what Module.compile sets; PyTorch has no call that takes it back


@contextmanager
def as_written() -> Iterator[None]:
    """Run compiled networks as written: batches of another size would be compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _kept_buffers(network: Network) -> Iterator[None]:
    """Leave running statistics as they were: a probe must not train."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
