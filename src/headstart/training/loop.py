"""Stage 2: fine-tuning. Epoch → step, on Lightning Fabric, resumable at any step with the same bits on a CPU.

The order of the samples, every augmentation, dropout's draws and the learning rate are functions of seed, epoch and
step. So a checkpoint needs weights, optimizer moments, the moving average and a few counters, and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from headstart.data.augmentation import Maps
from headstart.data.batches import Batch, BatchLoader
from headstart.errors import TrainingError, must_be
from headstart.models.inference import evaluation_loader
from headstart.progress import track
from headstart.randomness import permutation, words
from headstart.recipe import Recipe
from headstart.training.checkpoints import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under_prefix,
    with_prefix,
)
from headstart.training.history import History, Row, epoch_row
from headstart.training.interrupts import held_back
from headstart.training.optimizers import make_adamw, set_lr
from headstart.training.probe import is_better
from headstart.training.schedules import warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from headstart.data.store import PixelStore
    from headstart.models.network import Network
    from headstart.training.tasks import Task

LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass(frozen=True)
class TrainingData:
    """The pixels, the samples to learn from, and the samples that pick the best epoch, as the task gives them."""

    store: PixelStore
    train: Any
    validation: Any


@dataclass
class Counters:
    """Where training stands; goes into every checkpoint.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished in the epoch under way.
        loss_sum: Sum of the epoch's losses over its samples so far.
        num_seen: Samples of the epoch so far.
        epoch_seconds: Seconds spent in the epoch so far, over all sessions.
        best_score: Best validation score so far, by the recipe's ``monitor``.
        best_epoch: The epoch that reached it, counted from 1; 0 before the first.
        best_scores: All validation scores of that epoch.
        finished: Training has ended: all epochs done, or stopped early.
        seconds: Seconds by part over all sessions.
        num_images: Training images processed over all sessions.
        planned_epochs: Epochs that the run was to have when this was written; more of them extend it.
        extended_at: The epoch at which it was last extended; patience counts from there.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_seen: int = 0
    epoch_seconds: float = 0.0
    best_score: float | None = None
    best_epoch: int = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    num_images: int = 0
    planned_epochs: int = 0
    extended_at: int = 0

    def extend(self, epochs: int) -> None:
        """Take up a finished training that shall have more epochs."""
        before = self.planned_epochs or (self.epoch if self.finished else epochs)  # older checkpoints lack the plan
        if epochs > before:
            self.finished, self.extended_at = False, self.epoch
        self.planned_epochs = epochs

    def add_seconds(self, **parts: float) -> None:
        """Add to the seconds of each named part."""
        for part, seconds in parts.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds


class FineTuning:
    """A fine-tuning under way.

    Args:
        fabric: Launched; places the network and the precision.
        network: With its head as the probe left it and its parts frozen as the recipe says.
        data: What to learn from, and what picks the best epoch.
        task: What is learned: augmentation, targets, loss and scores.
        recipe: The settings.
        folder: The run folder. Checkpoints lie in ``checkpoints/``; one that is there is continued.
        history: Where each epoch is written down; None on all ranks but the first.
        on_epoch: Called with each epoch's row (on the first rank).
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        data: TrainingData,
        *,
        task: Task,
        recipe: Recipe,
        folder: Path,
        history: History | None = None,
        on_epoch: Callable[[Row], None] = lambda _: None,
    ) -> None:
        self.fabric, self.data, self.recipe, self.task = fabric, data, recipe, task
        self.history, self.on_epoch = history, on_epoch
        self.folder = folder / "checkpoints"
        self.network = network.to(memory_format=torch.channels_last)
        self.ema = _make_ema(self.network, recipe)
        optimizer = make_adamw(network.named_parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.module, self.optimizer = fabric.setup(self.network, optimizer)
        if self.ema is not None:
            self.ema.to(fabric.device)
        self.counters = Counters()
        self._last_saved = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; a last batch with one sample a device is left out (batch norm cannot learn from one)."""
        whole, rest = divmod(len(self.data.train.records), self.recipe.batch_size)
        return max(whole + (rest >= 2 * self.fabric.world_size), 1)

    def run(self) -> Counters:
        """Train to the end, from wherever the last checkpoint stands.

        Returns:
            The counters. The best epoch's weights are in ``checkpoints/best.safetensors``.

        Raises:
            TrainingError: The loss is no longer a number; the last good checkpoint stays.
        """
        self._restore()
        try:
            while not self.counters.finished:
                wait_seconds = self.train_epoch()
                self._end_epoch(wait_seconds=wait_seconds)
        except KeyboardInterrupt:
            self._save()
            raise
        return self.counters

    def train_epoch(self) -> float:
        """Train on what is left of the epoch under way, and give the seconds spent waiting for pixels."""
        counters = self.counters
        self.module.train()
        loader = self._loader(counters.epoch, first_batch=counters.step)
        num_left, batch_size = self.steps_per_epoch - counters.step, self.recipe.batch_size
        with track(
            f"epoch {counters.epoch + 1}/{self.recipe.epochs}",
            min(num_left * batch_size, len(self.data.train.records) - counters.step * batch_size),
            quiet=self.fabric.global_rank > 0,
            is_said_after=True,
        ) as advance:
            for batch in _first(loader, num_left):
                with held_back(), self._timed("step"):
                    self.train_step(batch)
                advance(len(batch.positions) * self.fabric.world_size)
                if time.monotonic() - self._last_saved > self.recipe.checkpoint_seconds:
                    self._save()
        counters.add_seconds(**loader.seconds)
        counters.epoch_seconds += loader.seconds["wait"]
        return loader.seconds["wait"]

    def train_step(self, batch: Batch) -> None:
        """Train on one batch: learning rate, forward, backward, optimizer, moving average."""
        counters, recipe, device = self.counters, self.recipe, self.fabric.device
        done = counters.epoch * self.steps_per_epoch + counters.step
        set_lr(self.optimizer, self._lr(done))
        torch.manual_seed(int(words(recipe.seed, stream="torch", epoch=0, indices=[done], count=1)[0, 0]))
        targets = self.task.targets(self.data.train, batch.positions, batch.affine, self.network.contract)
        outputs = self.module(batch.pixels.to(device, non_blocking=True))
        loss = self.task.loss(self.network.head, outputs, tuple(target.to(device) for target in targets))
        self._check_finite(loss, done)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.network, step=done)
        counters.loss_sum += float(loss.detach()) * len(batch)
        counters.num_seen += len(batch)
        counters.num_images += len(batch)
        counters.step += 1

    def _end_epoch(self, *, wait_seconds: float) -> None:
        train_seconds = self.counters.epoch_seconds
        with self._timed("validation"):
            # The first rank's word counts: batch norm's statistics differ, and all have to stop in the same epoch.
            scores = self.fabric.broadcast(self._validate())
        with held_back():
            self._close_epoch(scores, train_seconds=train_seconds, wait_seconds=wait_seconds)

    def _close_epoch(self, scores: dict[str, float], *, train_seconds: float, wait_seconds: float) -> None:
        """Write the epoch down, keep its weights if they are the best, and save where training stands."""
        counters, recipe = self.counters, self.recipe
        lr = self._lr(counters.epoch * self.steps_per_epoch + counters.step - 1)
        row = epoch_row(
            "fine-tune", counters.epoch + 1, lr=lr, train_loss=counters.loss_sum / max(counters.num_seen, 1),
            scores=scores, seconds=train_seconds, num=counters.num_seen,
        )  # fmt: skip
        row["wait_seconds"] = wait_seconds
        counters.epoch, counters.step, counters.loss_sum, counters.num_seen = counters.epoch + 1, 0, 0.0, 0
        counters.epoch_seconds = 0.0
        if is_better(scores[recipe.monitor], counters.best_score, monitor=recipe.monitor):
            counters.best_score, counters.best_epoch = scores[recipe.monitor], counters.epoch
            counters.best_scores = scores
            self._save_best()
        stopped_early = counters.epoch - max(counters.best_epoch, counters.extended_at) >= recipe.patience
        counters.finished = counters.epoch >= recipe.epochs or stopped_early
        if self.history is not None:
            self.history.append(row)
            self.on_epoch(row)
        self._save()

    def _validate(self) -> dict[str, float]:
        """Score the moving average (or the weights themselves) on validation, as in use."""
        evaluated: Network = self.ema.module if self.ema is not None else self.network  # pyright: ignore[reportAssignmentType]
        evaluated.eval()
        outputs: list[Tensor] = []
        samples, threads = self.data.validation, self.recipe.num_threads
        loader = evaluation_loader(
            evaluated, self.data.store, samples.records, boxes=samples.boxes, num_threads=threads
        )
        with torch.inference_mode(), self.fabric.autocast():
            outputs.extend(evaluated.answers(batch.pixels.to(self.fabric.device)).float().cpu() for batch in loader)
        return self.task.scores(torch.cat(outputs), samples, self.network.contract)

    def _loader(self, epoch: int, *, first_batch: int) -> BatchLoader:
        world, rank, recipe = self.fabric.world_size, self.fabric.global_rank, self.recipe
        order = permutation(recipe.seed, stream="order", epoch=epoch, num_samples=len(self.data.train.records))
        contract = self.network.contract

        def maps_for(positions: NDArray[np.integer]) -> Maps:
            return self.task.draw(self.data.train, positions, contract, epoch=epoch)

        return BatchLoader(
            self.data.store,
            self.data.train.records,
            maps_for=maps_for,
            image_size=contract.image_size,
            batch_size=recipe.batch_size // world,
            order=share_of_rank(order, rank=rank, world_size=world),
            first_batch=first_batch,
            num_threads=recipe.num_threads,
            device=str(self.fabric.device),
        )

    def _lr(self, step: int) -> float:
        total = self.recipe.epochs * self.steps_per_epoch
        warmup = round(min(self.recipe.warmup_epochs, self.recipe.epochs / 2) * self.steps_per_epoch)
        return self.recipe.lr * warmup_cosine(step, total_steps=total, warmup_steps=warmup)

    def _check_finite(self, loss: Tensor, step: int) -> None:
        if not math.isfinite(float(loss.detach())):
            where = f"Epoch {self.counters.epoch + 1}, learning rate {self._lr(step):.2g}."
            remedy = f"{where} Try a lower --lr; the last good checkpoint is kept."
            raise TrainingError(must_be("the training loss", "a finite number", float(loss.detach()), remedy))

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.counters.add_seconds(**{part: seconds})
        self.counters.epoch_seconds += seconds

    def _save_best(self) -> None:
        if self.fabric.is_global_zero:
            evaluated = self.ema.module if self.ema is not None else self.network
            save_checkpoint(self.folder / BEST, evaluated.state_dict(), {"epoch": self.counters.best_epoch})

    def _save(self) -> None:
        start = time.perf_counter()
        if self.fabric.is_global_zero:
            tensors = with_prefix("network", self.network.state_dict())
            tensors |= with_prefix("optimizer", optimizer_tensors(self.optimizer))
            if self.ema is not None:
                tensors |= with_prefix("ema", self.ema.module.state_dict())
            state: dict[str, Any] = {
                "counters": asdict(self.counters),
                "rows": self.history.rows if self.history else [],
            }
            save_checkpoint(self.folder / LAST, tensors, state)
        self._last_saved = time.monotonic()
        self.counters.add_seconds(checkpoint=time.perf_counter() - start)

    def _restore(self) -> None:
        self.counters.extend(self.recipe.epochs)
        if not (self.folder / LAST).exists():
            return
        tensors, state = load_checkpoint(self.folder / LAST)
        self.network.load_state_dict(under_prefix("network", tensors))
        restore_optimizer(self.optimizer, under_prefix("optimizer", tensors))
        if self.ema is not None:
            self.ema.module.load_state_dict(under_prefix("ema", tensors))
        self.counters = Counters(**state["counters"])
        self.counters.extend(self.recipe.epochs)


def share_of_rank(order: NDArray[np.int64], *, rank: int, world_size: int) -> NDArray[np.int64]:
    """Give the part of an epoch's order that one rank takes: every ``world_size``-th sample, equally many on each.

    Examples:
        >>> share_of_rank(np.arange(7), rank=1, world_size=2).tolist()
        [1, 3, 5]
    """
    whole = len(order) // world_size * world_size
    return order[rank:whole:world_size]


def _first(loader: BatchLoader, num_batches: int) -> Iterator[Batch]:
    """Give the first batches of a loader, maybe none; leaving the loop early shuts its threads down."""
    if num_batches < 1:
        return
    for number, batch in enumerate(loader, 1):
        yield batch
        if number >= num_batches:
            return


def _make_ema(network: Network, recipe: Recipe) -> ModelEmaV3 | None:
    """Keep a moving average of weights and buffers; its decay rises from 0, so that short trainings profit too."""
    if not recipe.ema_decay:
        return None
    return ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)
