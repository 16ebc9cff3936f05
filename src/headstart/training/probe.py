"""Stage 1: the linear probe. A head on cached features, trained in seconds.

It gives a first honest score, and the head from which fine-tuning starts: a head that fits spares the backbone the
large, random gradients of the first epochs.

References:
    Kumar et al.: "Fine-tuning can distort pretrained features and underperform out-of-distribution", arXiv 2202.10054.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.errors import TrainingError, must_be
from headstart.progress import say
from headstart.randomness import permutation
from headstart.recipe import Recipe
from headstart.training.checkpoints import load_training, save_training, under_prefix
from headstart.training.counters import Counters
from headstart.training.history import Row, epoch_row
from headstart.training.interrupts import held_back
from headstart.training.optimizers import are_finite, make_optimizer, parameter_groups, set_lr
from headstart.training.schedules import Schedule, steps_in
from headstart.training.tasks import finite_scores

if TYPE_CHECKING:
    from headstart.models.backbones import InputContract
    from headstart.training.tasks import Task


@dataclass(frozen=True)
class TargetFeatures:
    """Features and targets of one split, and the samples they are of.

    Attributes:
        features: Shape (n, features), float32.
        targets: What the task's loss takes, each of n rows.
        samples: What the task's scores take.
    """

    features: Tensor
    targets: tuple[Tensor, ...]
    samples: Any = None

    @classmethod
    def from_arrays(
        cls, features: NDArray[np.float32], targets: tuple[Tensor, ...], samples: Any = None
    ) -> TargetFeatures:
        """Copy features (a part of a memory-mapped file, as a rule) into a tensor."""
        return cls(torch.from_numpy(np.array(features, np.float32)), targets, samples)

    def to(self, device: torch.device) -> TargetFeatures:
        """Give them on a device."""
        targets = tuple(target.to(device) for target in self.targets)
        return TargetFeatures(self.features.to(device), targets, self.samples)

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class ProbeResult:
    """The best epoch's head weights, its scores on validation, and a row per epoch."""

    head: dict[str, Tensor]
    scores: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    rows: tuple[Row, ...] = ()


def fit_probe(
    head: Any,
    views: Sequence[TargetFeatures],
    validation: TargetFeatures,
    recipe: Recipe,
    *,
    task: Task,
    contract: InputContract,
    on_epoch: Callable[[Row], None] = lambda _: None,
    checkpoint: Path | None = None,
) -> ProbeResult:
    """Train a head on features, and keep the epoch that scores best on validation.

    Args:
        head: Maps features to outputs; trained in place and left at its best epoch.
        views: What it learns from: the features of each augmented view of the training photos, taken in turn by the
            epochs; one entry where photos are not augmented.
        validation: What picks the epoch.
        recipe: Of this stage, from ``probe_recipe``.
        task: Gives loss and scores.
        contract: How the network sees a photo.
        on_epoch: Called with each epoch's row, also with those of an earlier session.
        checkpoint: Where training stands, written at ends of epochs, so often that no more than
            ``recipe.checkpoint_seconds`` are lost (or one epoch, where it alone takes longer); if the file is there,
            training goes on from it with the same bits. Nothing is written unless told.

    Raises:
        TrainingError: The loss is no finite number, and was none at half the learning rate either.
    """
    device = next(head.parameters()).device
    views, validation = [view.to(device) for view in views], validation.to(device)
    stage = _Probe(head, task, recipe, contract=contract, checkpoint=checkpoint)
    for row in stage.rows:
        on_epoch(row)
    try:
        while not stage.is_finished:
            on_epoch(stage.run_epoch(views[stage.counters.epoch % len(views)], validation))
    except KeyboardInterrupt:
        stage.save()
        raise
    if stage.best:
        head.load_state_dict(stage.best)
    kept, counters = stage.best or dict(head.state_dict()), stage.counters
    return ProbeResult(kept, counters.best_scores, counters.best_epoch, tuple(stage.rows))


class _Probe:
    """A head under training on features.

    Attributes:
        best: The head's weights at its best epoch so far; none before the first.
        rows: A row per epoch.
    """

    def __init__(
        self, head: Any, task: Task, recipe: Recipe, *, contract: InputContract, checkpoint: Path | None
    ) -> None:
        self.head, self.task, self.recipe, self.contract = head, task, recipe, contract
        groups = parameter_groups(head.named_parameters(), weight_decay=recipe.weight_decay)
        self.optimizer = make_optimizer(groups, recipe, lr=recipe.lr)
        self.counters, self.rows, self.best = Counters(), list[Row](), dict[str, Tensor]()
        self._checkpoint, self._last_saved = checkpoint, time.monotonic()
        self._before: tuple[dict[str, Any], dict[str, Any]] | None = None
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or training was stopped early."""
        return self.counters.epoch >= self.recipe.epochs or self.counters.has_waited(self.recipe.patience)

    def run_epoch(self, train: TargetFeatures, validation: TargetFeatures) -> Row:
        """Train for an epoch, score it, and write down where training stands, if it is time; give its row."""
        epoch, start = self.counters.epoch, time.perf_counter()
        self._before = copy.deepcopy((self.head.state_dict(), self.optimizer.state_dict()))
        loss, lr = self._train_epoch(train, epoch)
        answers = _answers(self.head, validation.features).cpu()
        scores = finite_scores(self.task, answers, validation.samples, self.contract)
        seconds = time.perf_counter() - start
        row = epoch_row("probe", epoch + 1, lr=lr, train_loss=loss, scores=scores, seconds=seconds, num=len(train))
        with held_back():
            self._close_epoch(row, scores)
            is_due = time.monotonic() + seconds - self._last_saved > self.recipe.checkpoint_seconds
            if is_due and not self.is_finished:
                self.save()
        return row

    def _close_epoch(self, row: Row, scores: dict[str, float]) -> None:
        counters, recipe = self.counters, self.recipe
        self.rows.append(row)
        counters.epoch += 1
        if counters.take_score(scores[recipe.monitor], scores[recipe.stop_by or recipe.monitor], recipe):
            counters.best_scores = scores
            self.best = {name: value.clone() for name, value in self.head.state_dict().items()}
        self._before = None

    def save(self) -> None:
        """Write down where training stands; an epoch that was cut off starts again."""
        if self._checkpoint is None:
            return
        self._go_back()
        parts, state = {"head": self.head.state_dict(), "best": self.best}, asdict(self.counters)
        save_training(self._checkpoint, parts, self.optimizer, {"counters": state, "rows": self.rows})
        self._last_saved = time.monotonic()

    def _load(self, checkpoint: Path) -> None:
        tensors, state = load_training(checkpoint, self.optimizer)
        self.head.load_state_dict(under_prefix("head", tensors))
        device = next(self.head.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in under_prefix("best", tensors).items()}
        self.counters, self.rows = Counters.from_state(state["counters"]), state["rows"]

    def _go_back(self) -> None:
        """Put the head and the optimizer back to the start of the epoch under way."""
        if self._before is not None:
            self.head.load_state_dict(self._before[0])
            self.optimizer.load_state_dict(copy.deepcopy(self._before[1]))  # it takes tensors as they are

    def _train_epoch(self, train: TargetFeatures, epoch: int) -> tuple[float, float]:
        """Train for an epoch and give its loss and last rate; one that diverges is done again at half the rate."""
        loss, lr = self._pass(train, epoch)
        if math.isfinite(loss) and are_finite(self.head.parameters()):
            return loss, lr
        if self.counters.lr_scale < 1:
            what = loss if not math.isfinite(loss) else "weights that are no numbers"
            problem = f"{what} in epoch {epoch + 1} of the head, again after the learning rate had been halved"
            remedy = f"The rate was {lr:.2g}; try a lower one (--probe-lr, or --lr with --unfreeze none)."
            raise TrainingError(must_be("the training loss", "a finite number", problem, remedy))
        say(f"Training the head diverged in epoch {epoch + 1}: it is done again at half the learning rate.")
        self.counters.lr_scale = 0.5
        self._go_back()
        return self._train_epoch(train, epoch)

    def _pass(self, train: TargetFeatures, epoch: int) -> tuple[float, float]:
        self.head.train()
        recipe, size = self.recipe, self.recipe.batch_size * self.recipe.accumulate
        order = torch.from_numpy(permutation(recipe.seed, stream="order", epoch=epoch, num_samples=len(train)))
        torch.manual_seed(recipe.seed + epoch)
        starts = [number * size for number in range(steps_in(len(train), recipe))]
        schedule = Schedule(recipe, len(starts))
        total, lr, num_seen = 0.0, 0.0, 0
        for step, start in enumerate(starts):
            chosen = order[start : start + size]
            lr = schedule.rate(epoch * len(starts) + step, self.counters.monitored) * self.counters.lr_scale
            set_lr(self.optimizer, lr)
            targets = tuple(target[chosen] for target in train.targets)
            loss = self.task.loss(self.head, self.head(train.features[chosen]), targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.head.parameters(), recipe.clip_grad)
            self.optimizer.step()
            total, num_seen = total + float(loss.detach()) * len(chosen), num_seen + len(chosen)
            if not math.isfinite(total):
                break
        return total / num_seen, lr


@torch.no_grad()
def _answers(head: Any, features: Tensor) -> Tensor:
    head.eval()
    if not len(features):
        return torch.empty(0, 0)
    return torch.cat([head.decode(head(chunk)) for chunk in features.split(8192)])
