"""Where a fine-tuning stands: the numbers that go into every checkpoint beside weights and moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headstart.training.schedules import is_better

if TYPE_CHECKING:
    from headstart.recipe import Recipe


@dataclass
class Counters:
    """Where training stands; goes into every checkpoint.

    Attributes:
        epoch: Epochs finished.
        step: Steps finished in the epoch under way.
        loss_sum: Sum of the epoch's losses over its samples so far.
        num_seen: Samples of the epoch so far.
        epoch_seconds: Seconds of the epoch so far by part, over all sessions.
        best_score: Best validation score so far, by the recipe's ``monitor``.
        best_epoch: The epoch that reached it, counted from 1; 0 before the first.
        best_scores: All validation scores of that epoch.
        stop_score: Best score so far of the one that patience goes by.
        stop_epoch: The epoch that reached it.
        monitored: The monitored score of each epoch so far.
        lr_scale: What the schedule's rate is multiplied by: 0.5 once training has diverged.
        num_parts: Parts in which a batch is sent through the network.
        is_compiled: Whether the network was compiled; None before that was decided.
        finished: Training has ended: all epochs done, or stopped early.
        stopped: Why it ended, where it diverged for good after an epoch that is worth keeping.
        seconds: Seconds by part over all sessions.
        num_images: Training images processed over all sessions.
        planned_epochs: Epochs that the run was to have when this was written; more of them extend it.
        extended_at: The epoch at which it was last extended; patience counts from there.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    num_seen: int = 0
    epoch_seconds: dict[str, float] = field(default_factory=dict)
    best_score: float | None = None
    best_epoch: int = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    stop_score: float | None = None
    stop_epoch: int = 0
    monitored: list[float] = field(default_factory=list)
    lr_scale: float = 1.0
    num_parts: int = 1
    is_compiled: bool | None = None
    finished: bool = False
    stopped: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    num_images: int = 0
    planned_epochs: int = 0
    extended_at: int = 0

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Counters:
        """Give the counters of a checkpoint, also of one that was written before there were all of them."""
        seconds = state["epoch_seconds"]
        found = cls(**{**state, "epoch_seconds": seconds if isinstance(seconds, dict) else {"step": seconds}})
        if not found.stop_epoch:
            found.stop_score, found.stop_epoch = found.best_score, found.best_epoch
        return found

    def extend(self, epochs: int) -> None:
        """Take up a finished training that shall have more epochs."""
        before = self.planned_epochs or (self.epoch if self.finished else epochs)  # older checkpoints lack the plan
        if epochs > before:
            self.finished, self.stopped, self.extended_at = False, "", self.epoch
        self.planned_epochs = epochs

    @property
    def elapsed(self) -> float:
        """Seconds that passed in all sessions: without what threads did meanwhile.

        Examples:
            >>> Counters(seconds={"step": 2.0, "augment": 5.0, "validation": 1.0}).elapsed
            3.0
        """
        return sum(seconds for part, seconds in self.seconds.items() if part not in ("decode", "augment"))

    def add_seconds(self, **parts: float) -> None:
        """Add to the seconds of each named part, in all and of the epoch."""
        for total in (self.seconds, self.epoch_seconds):
            total.update({part: total.get(part, 0.0) + seconds for part, seconds in parts.items()})

    def take_score(self, score: float, stop_score: float, recipe: Recipe) -> bool:
        """Note the validation scores of the epoch just finished, and say whether it is the best so far.

        Args:
            score: The one that picks the best epoch.
            stop_score: The one that patience goes by.
            recipe: Its ``monitor`` and ``stop_by`` say which they are.
        """
        self.monitored.append(score)
        if is_better(stop_score, self.stop_score, monitor=recipe.stop_by or recipe.monitor):
            self.stop_score, self.stop_epoch = stop_score, self.epoch
        is_best = is_better(score, self.best_score, monitor=recipe.monitor)
        if is_best:
            self.best_score, self.best_epoch = score, self.epoch
        return is_best

    def has_waited(self, patience: int) -> bool:
        """Say whether so many epochs have brought nothing better."""
        return self.epoch - max(self.stop_epoch, self.extended_at) >= patience
