"""Learning-rate schedules: pure functions of the step, and of the scores so far.

So a resumed run follows the same curve, and ``headstart schedule`` can draw it before there is a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headstart.recipe_defaults import RISING, WITHOUT_FLOOR

if TYPE_CHECKING:
    from headstart.recipe import Recipe

LOWER_IS_BETTER: Final = ("log_loss", "nme")
"""Monitored scores that are errors."""

ONE_CYCLE: Final = (0.3, 1 / 25, 1e-4 / 25)
"""Share of the training in which one-cycle rises, and the factors it starts from and ends at: PyTorch's."""


def is_better(score: float, than: float | None, *, monitor: str) -> bool:
    """Say whether a score beats another: lower for losses and errors, higher for the rest.

    Any finite score beats none; what is no finite number beats nothing.

    Examples:
        >>> is_better(0.3, 0.4, monitor="log_loss"), is_better(0.3, 0.4, monitor="accuracy")
        (True, False)
        >>> is_better(float("nan"), None, monitor="log_loss")
        False
    """
    if than is None or not math.isfinite(score):
        return math.isfinite(score)
    return score < than if monitor in LOWER_IS_BETTER else score > than


def steps_in(num_samples: int, recipe: Recipe, *, num_devices: int = 1) -> int:
    """Give the steps of an epoch; a last batch with one sample a device is left out (batch norm cannot learn from one).

    Examples:
        >>> from headstart.recipe import Recipe
        >>> steps_in(65, Recipe(batch_size=32)), steps_in(66, Recipe(batch_size=32))
        (2, 3)
    """
    whole, rest = divmod(num_samples, recipe.batch_size * recipe.accumulate)
    is_kept = rest >= 2 * num_devices and not recipe.drop_last
    return max(whole + is_kept, 1)


def half_cosine(progress: float) -> float:
    """Give a cosine's fall from 1 to 0.

    Examples:
        >>> [round(half_cosine(progress), 3) for progress in (0, 0.5, 1)]
        [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Schedule:
    """The curve that a recipe's learning rate follows.

    Args:
        recipe: ``schedule`` and what belongs to it.
        steps_per_epoch: Optimizer steps of an epoch.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> schedule = Schedule(Recipe(schedule="step", step_epochs=2, epochs=6, lr=0.1, warmup_epochs=0), 10)
        >>> [round(schedule.rate(10 * epoch), 4) for epoch in range(6)]
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
        >>> schedule = Schedule(Recipe(epochs=3, lr=1.0), 2)  # warmup of an epoch, then half a cosine
        >>> [round(schedule.rate(step), 2) for step in range(6)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]

    References:
        Loshchilov, Hutter: "SGDR", ICLR 2017, eq. 5 (cosine, restarts); Goyal et al., arXiv 1706.02677 (warmup); Smith:
        "Cyclical learning rates", WACV 2017 (triangular); Smith, Topin: "Super-convergence", 2017 (one-cycle).
    """

    recipe: Recipe
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Steps of the linear rise: at most half the training; none where the schedule rises by itself."""
        if self.recipe.schedule in RISING:
            return 0
        return round(min(self.recipe.warmup_epochs, self.recipe.epochs / 2) * self.steps_per_epoch)

    def rate(self, step: int, scores: Sequence[float] = ()) -> float:
        """Give the learning rate at a step.

        Args:
            step: Optimizer step, counted from 0.
            scores: The monitored validation score of each epoch so far; what "plateau" goes by.
        """
        recipe = self.recipe
        if step < self.warmup_steps:
            return recipe.lr * (step + 1) / self.warmup_steps
        if recipe.schedule == "constant":
            return recipe.lr
        if recipe.schedule == "plateau":
            return max(recipe.lr * plateau_factor(recipe, scores), recipe.min_lr)
        factor, floor = _CURVES[recipe.schedule](self, step), recipe.min_lr
        return recipe.lr * factor if recipe.schedule in WITHOUT_FLOOR else floor + (recipe.lr - floor) * factor

    @property
    def gamma(self) -> float:
        """The factor of a drop, or of an epoch."""
        return self.recipe.gamma or 1.0

    @property
    def cycle_epochs(self) -> float:
        """Epochs of the first cycle of a triangular schedule."""
        return self.recipe.cycle_epochs or self.recipe.epochs / 2

    def epochs_after_warmup(self, step: int) -> float:
        """Give how far a step is from the end of the warmup, in epochs."""
        return (step - self.warmup_steps) / self.steps_per_epoch

    def progress(self, step: int) -> float:
        """Give the share of what follows the warmup that is done before a step."""
        return min((step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1), 1.0)


def _step(schedule: Schedule, step: int) -> float:
    """Torch's StepLR: times gamma every so many epochs, counted from the very start."""
    return schedule.gamma ** (step // ((schedule.recipe.step_epochs or 1) * schedule.steps_per_epoch))


def _multi_step(schedule: Schedule, step: int) -> float:
    """Times gamma after each milestone."""
    passed = sum(step >= milestone * schedule.steps_per_epoch for milestone in schedule.recipe.milestones)
    return schedule.gamma**passed


def _cosine(schedule: Schedule, step: int) -> float:
    """Half a cosine down; with ``cycle_epochs`` again and again, each cycle ``cycle_growth`` times as long."""
    recipe = schedule.recipe
    if recipe.cycle_epochs is None:
        return half_cosine(schedule.progress(step))
    return half_cosine(
        _place_in_cycle(schedule.epochs_after_warmup(step), recipe.cycle_epochs, recipe.cycle_growth or 1.0)
    )


def _place_in_cycle(epochs: float, first: float, growth: float) -> float:
    """Give how much of the cycle under way is done, by the sum of a geometric series."""
    if growth == 1:
        return epochs / first % 1
    number = math.floor(math.log(1 + epochs / first * (growth - 1), growth) + 1e-9)
    before = first * (growth**number - 1) / (growth - 1)
    return min(max((epochs - before) / (first * growth**number), 0.0), 1.0)


def _one_cycle(schedule: Schedule, step: int) -> float:
    """Up by a cosine, then down by a cosine, to far below the start (momentum stays as it is)."""
    share, start, end = ONE_CYCLE
    last = max(schedule.total_steps - 1, 1)
    peak = max(share * schedule.total_steps - 1, 1e-9)
    if step <= peak:
        return start + (1 - start) * (1 - half_cosine(step / peak))
    return end + (1 - end) * half_cosine(min((step - peak) / max(last - peak, 1e-9), 1.0))


def _triangular(schedule: Schedule, step: int) -> float:
    """Up and down between the least and the highest rate."""
    place = step / schedule.steps_per_epoch / schedule.cycle_epochs % 1
    return 1 - abs(2 * place - 1)


def _triangular2(schedule: Schedule, step: int) -> float:
    """Likewise, half as high with each cycle."""
    cycles = math.floor(step / schedule.steps_per_epoch / schedule.cycle_epochs)
    return _triangular(schedule, step) * 0.5**cycles


def _exp_range(schedule: Schedule, step: int) -> float:
    """Likewise, lower by ``gamma`` with each epoch."""
    return _triangular(schedule, step) * schedule.gamma ** (step / schedule.steps_per_epoch)


def _polynomial(schedule: Schedule, step: int) -> float:
    return (1 - schedule.progress(step)) ** (schedule.recipe.power or 1.0)


def _exponential(schedule: Schedule, step: int) -> float:
    return schedule.gamma ** schedule.epochs_after_warmup(step)


def plateau_factor(recipe: Recipe, scores: Sequence[float]) -> float:
    """Give gamma for each time that so many epochs in a row had brought nothing better.

    Args:
        recipe: ``plateau_epochs``, ``gamma`` and ``monitor``.
        scores: The monitored validation score of each epoch so far.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> plateau_factor(Recipe(schedule="plateau", plateau_epochs=2, gamma=0.5), [0.7, 0.8, 0.8, 0.79, 0.81])
        0.5
    """
    best, waited, times = None, 0, 0
    for score in scores:
        if is_better(score, best, monitor=recipe.monitor):
            best, waited = score, 0
        else:
            waited += 1
        if waited >= (recipe.plateau_epochs or 1):
            waited, times = 0, times + 1
    return (recipe.gamma or 1.0) ** times


Curve = Callable[[Schedule, int], float]

_CURVES: Final[dict[str, Curve]] = {
    "step": _step,
    "multi_step": _multi_step,
    "exponential": _exponential,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "one_cycle": _one_cycle,
    "triangular": _triangular,
    "triangular2": _triangular2,
    "exp_range": _exp_range,
}
