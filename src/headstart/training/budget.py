"""A time budget: measure the training step on this machine, and choose what fits.

What is given up, in this order: epochs beyond the least that fine-tuning needs, pixels, all but the last blocks, and
fine-tuning itself. A guard in the loop ends the last epoch early where the measure was wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from headstart.models.inference import evaluation_loader
from headstart.recipe_defaults import BUDGET_EPOCHS
from headstart.training.optimizers import make_optimizer, parameter_groups

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.data.store import PixelStore
    from headstart.models.network import Network
    from headstart.recipe import Recipe
    from headstart.training.tasks import Task

LEAST_EPOCHS: Final = 3
"""Fine-tuning of fewer epochs is warm-up and little else."""

SMALLER: Final = (288, 224, 192, 160)
"""Sides of smaller pictures to try, where the network's own are larger."""

LAST_BLOCKS: Final = 2

MARGIN: Final = 0.85
"""Share of what is left that is planned for: steps on a machine in use take longer than the ones that were timed."""

CLOSING_SECONDS: Final = 6.0
"""Bundle, report and metrics."""


@dataclass(frozen=True)
class Measured:
    """What was timed on this machine.

    Attributes:
        step: Seconds an image of training what the recipe asks for: all layers, as a rule.
        last_step: Seconds an image of training the last blocks.
        forward: Seconds an image of answering.
        smaller: Seconds an image of the step on smaller pictures, by their (height, width).
    """

    step: float
    last_step: float
    forward: float
    smaller: Mapping[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """How much there is to do.

    Attributes:
        num_train: Training samples.
        num_others: Validation and test samples.
        num_validation: Validation samples alone.
        image_size: (height, width) of the network's input.
        can_probe: Whether a head on cached features can come first.
        num_views: Augmented views of each training photo that such a head learns from, each a pass more.
        num_folds: Folds that share these passes; what is planned for, and its time, is one of them.
        what: What is to be trained at most, as ``unfreeze`` has it.
        most_epochs: Epochs to be trained at most.
    """

    num_train: int
    num_validation: int
    num_others: int
    image_size: tuple[int, int]
    can_probe: bool = True
    num_views: int = 0
    num_folds: int = 1
    what: str = "all"
    most_epochs: int = BUDGET_EPOCHS

    @property
    def can_give_up_blocks(self) -> bool:
        """Whether more than the last blocks is to be trained."""
        return self.what == "all" or (self.what.isdecimal() and int(self.what) > LAST_BLOCKS)


@dataclass(frozen=True)
class Plan:
    """What fits.

    Attributes:
        settings: Of the recipe, chosen.
        words: What was chosen and what was left out, for the user.
    """

    settings: dict[str, Any]
    words: tuple[str, ...]


def choose_plan(seconds_left: float, measured: Measured, work: Workload) -> Plan:
    """Choose what fits a time.

    Args:
        seconds_left: Of the budget.
        measured: On this machine.
        work: How much there is to do.

    Examples:
        >>> measured = Measured(step=0.05, last_step=0.02, forward=0.01, smaller={(192, 192): 0.037})
        >>> work = Workload(1000, 200, 400, (224, 224))
        >>> choose_plan(600, measured, work).settings, choose_plan(200, measured, work).settings
        ({'unfreeze': 'all', 'epochs': 9}, {'unfreeze': 'all', 'image_size': (192, 192), 'epochs': 3})
        >>> choose_plan(60, measured, work).settings
        {'unfreeze': 'none', 'epochs': 0}
    """
    num_passed = work.num_train * (1 + work.num_views) + work.num_others
    passes = num_passed * measured.forward / work.num_folds if work.can_probe else 0.0
    least = passes + work.num_others * measured.forward + CLOSING_SECONDS
    needed, there = (seconds * work.num_folds for seconds in (least, max(seconds_left, 0.0)))
    late = f"too short: what cannot be left out takes about {needed:.0f} s, and {there:.0f} s are left"
    is_late = (late,) if seconds_left < least else ()
    if work.can_probe and (work.what == "none" or not work.most_epochs):
        words = "budget: the head alone, as the recipe has it: nothing in it takes longer in more time"
        return Plan({}, (words, *is_late))
    left = seconds_left * MARGIN - least
    told = f"the step takes {1000 * measured.step:.0f} ms an image here, {max(left, 0):.0f} s are left for fine-tuning"
    given_up: list[str] = []
    for candidate, step, words in _candidates(measured, work):
        share = measured.forward * step / measured.step
        epochs = int(left / (work.num_train * step + work.num_validation * share))
        if epochs >= min(LEAST_EPOCHS, work.most_epochs):
            settings = candidate | {"epochs": min(epochs, work.most_epochs)}
            chosen = f"budget: {words}, {settings['epochs']} epochs ({told})"
            return Plan(settings, (chosen, *_left_out(given_up)))
        given_up.append(f"{words} (fits {max(epochs, 0)} epochs)")
    if work.can_probe:
        words = (f"budget: the head alone ({told})", *_left_out(given_up), *is_late)
        return Plan({"unfreeze": "none", "epochs": 0}, words)
    *_, (candidate, _, words) = _candidates(measured, work)
    chosen = f"budget: {words}, one epoch, stopped in time ({told})"
    return Plan(candidate | {"epochs": min(1, work.most_epochs)}, (chosen, *_left_out(given_up), *is_late))


def _candidates(measured: Measured, work: Workload) -> Iterator[tuple[dict[str, Any], float, str]]:
    """Give settings, their seconds an image, and words, the best first."""
    height, width = work.image_size
    named = {"all": "all layers", "none": "the head"}
    blocks = f"the last {work.what} blocks" if work.what.isdecimal() else f"what is named like {work.what!r}"
    words = named.get(work.what, blocks)
    yield {"unfreeze": work.what}, measured.step, f"{words} at {height}×{width}"
    for size, step in measured.smaller.items():
        yield {"unfreeze": work.what, "image_size": size}, step, f"{words} at {size[0]}×{size[1]}"
    if work.can_give_up_blocks:
        yield {"unfreeze": str(LAST_BLOCKS)}, measured.last_step, f"the last {LAST_BLOCKS} blocks at {height}×{width}"


def _left_out(given_up: list[str]) -> tuple[str, ...]:
    return (f"left out: {'; '.join(given_up)}",) if given_up else ()


def smaller_sizes(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Give the sizes of smaller pictures to try, the largest first.

    Examples:
        >>> smaller_sizes((224, 224)), smaller_sizes((280, 210)), smaller_sizes((96, 96))
        ([(192, 192), (160, 160)], [(224, 168), (192, 144), (160, 120)], [])
    """
    factors = [side / max(image_size) for side in SMALLER if side < max(image_size)]
    return [(round(image_size[0] * factor), round(image_size[1] * factor)) for factor in factors]


def measure(
    network: Network,
    samples: Any,
    store: PixelStore,
    recipe: Recipe,
    *,
    task: Task,
    sizes: Sequence[tuple[int, int]] = (),
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Measured:
    """Time answering and training on photos of the run; the network is left as it was.

    Args:
        network: At the size that it would train at, on the device that would train it.
        samples: Of training, from the task.
        store: The pixels.
        recipe: ``batch_size``, ``unfreeze`` and the optimizer.
        task: Gives targets and loss.
        sizes: Of smaller pictures to time, too.
        autocast: The precision that would train it.
    """
    size = min(recipe.batch_size, 16, len(samples.records))
    loader = evaluation_loader(
        network, store, samples.records[:size],
        boxes=None if samples.boxes is None else samples.boxes[:size], batch_size=size,
    )  # fmt: skip
    batch = next(iter(loader))
    positions = np.arange(len(batch))
    targets = task.targets(samples, positions, batch.affine, network.contract)
    targets = tuple(target.to(next(network.parameters()).device) for target in targets)
    pixels = batch.pixels.to(next(network.parameters()).device)

    def answer() -> None:
        with autocast():
            network.answers(pixels)

    with _as_before(network):
        with torch.inference_mode():
            network.eval()
            forward = _timed(answer) / len(batch)
        cut = [pixels[:, :height, :width].contiguous() for height, width in sizes]
        whole, *smaller = (
            _step_seconds(network, pictures, targets, recipe, task, recipe.unfreeze, autocast)
            for pictures in (pixels, *cut)
        )
        last = _step_seconds(network, pixels, targets, recipe, task, str(LAST_BLOCKS), autocast)
    # Fewer pixels and fewer layers never cost more; on a busy machine a timing may say so.
    smaller = [min(step, whole) for step in smaller]
    return Measured(whole, min(last, whole), forward, dict(zip(sizes, smaller, strict=True)))


def _step_seconds(
    network: Network,
    pixels: Tensor,
    targets: tuple[Tensor, ...],
    recipe: Recipe,
    task: Task,
    what: str,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> float:
    """Time a step that trains ``what``, an image; the rate is next to nothing, so that no weight runs away."""
    network.unfreeze(what)
    network.train()
    optimizer = make_optimizer(parameter_groups(network.named_parameters(), weight_decay=0.0), recipe, lr=1e-9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = task.loss(network.head, network(pixels), targets)
        loss.backward()
        optimizer.step()

    return _timed(step) / len(pixels)


def _timed(work: Any, *, rounds: int = 2) -> float:
    work()
    _wait_for_gpu()
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    _wait_for_gpu()
    return (time.perf_counter() - start) / rounds


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def _as_before(network: Network) -> Iterator[None]:
    """Put back weights, statistics and what trains."""
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    try:
        yield
    finally:
        network.load_state_dict(state)
        for parameter, is_wanted in zip(network.parameters(), wanted, strict=True):
            parameter.grad = None
            parameter.requires_grad_(is_wanted)
        network.eval()


def resized(network: Network, image_size: tuple[int, int]) -> None:
    """Let a network see pictures of another size."""
    network.contract = replace(network.contract, image_size=image_size)
