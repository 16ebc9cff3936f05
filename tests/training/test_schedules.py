"""Learning-rate schedules are pure functions of the step, equal to PyTorch's where it has them."""

import math
import warnings

import pytest
import torch

from headstart.errors import RecipeError
from headstart.recipe import make_recipe
from headstart.training.counters import Counters
from headstart.training.schedule_preview import followed_rates
from headstart.training.schedules import Schedule, is_better, plateau_factor

STEPS = 10  # an epoch
EPOCHS = 12


def _rates(**settings):
    recipe = make_recipe({"epochs": EPOCHS, "lr": 0.1, "warmup_epochs": 0} | settings)
    schedule = Schedule(recipe, STEPS)
    return [schedule.rate(step) for step in range(schedule.total_steps)]


def _torch_rates(make, *, every=1):
    """Step a scheduler of PyTorch after every ``every``-th optimizer step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler, found = make(optimizer), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(EPOCHS * STEPS):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if (step + 1) % every == 0:
                scheduler.step()
    return found


OF = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("settings", "make", "every"),
    [
        ({"schedule": "constant"}, lambda optimizer: OF.ConstantLR(optimizer, factor=1), STEPS),
        ({"schedule": "step", "step_epochs": 3}, lambda optimizer: OF.StepLR(optimizer, 3, gamma=0.1), STEPS),
        (
            {"schedule": "multi_step", "milestones": "4,9", "gamma": 0.5},
            lambda optimizer: OF.MultiStepLR(optimizer, [4, 9], gamma=0.5),
            STEPS,
        ),
        ({"schedule": "cosine"}, lambda optimizer: OF.CosineAnnealingLR(optimizer, EPOCHS * STEPS), 1),
        (
            {"schedule": "cosine", "min_lr": 0.01, "cycle_epochs": 3},
            lambda optimizer: OF.CosineAnnealingWarmRestarts(optimizer, 3 * STEPS, eta_min=0.01),
            1,
        ),
        (
            {"schedule": "cosine", "cycle_epochs": 2, "cycle_growth": 2},
            lambda optimizer: OF.CosineAnnealingWarmRestarts(optimizer, 2 * STEPS, T_mult=2),
            1,
        ),
        (
            {"schedule": "exponential", "gamma": 0.8},
            lambda optimizer: OF.ExponentialLR(optimizer, 0.8 ** (1 / STEPS)),
            1,
        ),
        (
            {"schedule": "polynomial", "power": 2},
            lambda optimizer: OF.PolynomialLR(optimizer, EPOCHS * STEPS, power=2),
            1,
        ),
        ({"schedule": "one_cycle"}, lambda optimizer: OF.OneCycleLR(optimizer, 0.1, EPOCHS * STEPS), 1),
        (
            {"schedule": "triangular", "min_lr": 0.001, "cycle_epochs": 4},
            lambda optimizer: OF.CyclicLR(optimizer, 0.001, 0.1, step_size_up=2 * STEPS),
            1,
        ),
        (
            {"schedule": "triangular2", "min_lr": 0.001, "cycle_epochs": 4},
            lambda optimizer: OF.CyclicLR(optimizer, 0.001, 0.1, step_size_up=2 * STEPS, mode="triangular2"),
            1,
        ),
        (
            {"schedule": "exp_range", "min_lr": 0.001, "cycle_epochs": 4, "gamma": 0.9},
            lambda optimizer: OF.CyclicLR(
                optimizer, 0.001, 0.1, step_size_up=2 * STEPS, mode="exp_range", gamma=0.9 ** (1 / STEPS)
            ),
            1,
        ),
    ],
    ids=lambda value: str(value.get("schedule")) if isinstance(value, dict) else "",
)
def test_a_schedule_follows_pytorchs_curve(settings, make, every):
    assert _rates(**settings) == pytest.approx(_torch_rates(make, every=every), rel=1e-6, abs=1e-9)


def test_the_rate_rises_in_the_warmup_and_falls_after_it():
    rates = _rates(warmup_epochs=1)
    assert rates[:10] == pytest.approx([0.01 * (step + 1) for step in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) > 0


def test_schedules_that_rise_by_themselves_have_no_warmup():
    assert make_recipe({"schedule": "one_cycle"}).warmup_epochs == 0
    assert make_recipe({}).updated(schedule="triangular").warmup_epochs == 0
    assert make_recipe({"schedule": "one_cycle"}).updated(schedule="step").warmup_epochs == 1


def _has_waited(scores, patience, monitor):
    recipe, counters = make_recipe({"monitor": monitor}), Counters()
    for counters.epoch, score in enumerate(scores, 1):
        counters.take_score(score, score, recipe)
    return counters.has_waited(patience)


def test_patience_counts_from_the_best_score():
    assert not _has_waited([0.5, 0.7, 0.6], 2, monitor="accuracy")
    assert _has_waited([0.5, 0.7, 0.6, 0.7], 2, monitor="accuracy")
    assert _has_waited([0.5, 0.7, 0.6, 0.7], 3, monitor="log_loss")
    assert _has_waited([math.nan, math.nan], 2, monitor="accuracy")


def test_the_rate_drops_after_a_plateau_and_not_below_the_least():
    recipe = make_recipe({"schedule": "plateau", "plateau_epochs": 2, "gamma": 0.5, "lr": 0.1, "min_lr": 0.03})
    rates = [Schedule(recipe, STEPS).rate(1000, [0.5] * epochs) for epochs in range(1, 8)]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03])


def test_a_plateau_of_errors_is_one_of_rising_errors():
    recipe = make_recipe({"schedule": "plateau", "plateau_epochs": 1, "gamma": 0.1, "monitor": "log_loss"})
    assert plateau_factor(recipe, [0.5, 0.4, 0.3]) == 1.0
    assert plateau_factor(recipe, [0.5, 0.6]) == pytest.approx(0.1)


def test_what_is_no_number_is_never_better():
    assert not is_better(math.nan, None, monitor="accuracy")
    assert not is_better(-math.inf, 0.3, monitor="log_loss")
    assert is_better(0.1, None, monitor="accuracy")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"milestones": "3"}, r"milestones must be left out without the schedule multi_step"),
        ({"schedule": "constant", "gamma": 0.5}, r"gamma must be left out without the schedule step or multi_step or"),
        ({"schedule": "multi_step"}, r"milestones must be given"),
        ({"min_lr": 0.1, "lr": 0.01}, r"min_lr must be at most lr"),
        ({"min_lr": 1e-6, "schedule": "step"}, r"min_lr must be left out without the schedule cosine, .*; got 1e-06"),
        (
            {"warmup_epochs": 3, "schedule": "one_cycle"},
            r"warmup_epochs must be left out without a schedule that",
        ),
        ({"cycle_growth": 2}, r"cycle_growth must be left out without cycle_epochs; got 2.0"),
    ],
)
def test_settings_that_the_schedule_has_no_use_for_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(settings)


def _followed(recipe, *, scores=None, num_epochs=None, scale_from=None):
    """Give rows of a training of 8 samples, two steps an epoch, as the loop writes them; and the rates it took."""
    schedule, rates, rows = Schedule(recipe, 2), [], []
    scores = scores or [0.5] * recipe.epochs
    for epoch in range(num_epochs or recipe.epochs):
        scale = 0.5 if scale_from is not None and epoch >= scale_from else 1.0
        rates += [schedule.rate(2 * epoch + step, scores[:epoch]) * scale for step in range(2)]
        rows.append({"epoch": epoch + 1, "lr": rates[-1], "validation_accuracy": scores[epoch]})
    return rows, rates


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"schedule": "cosine", "warmup_epochs": 1.0}, {}),
        ({"schedule": "one_cycle"}, {"scale_from": 3}),
        ({"schedule": "cosine", "warmup_epochs": 1.0}, {"scale_from": 0}),
        ({"schedule": "cosine", "warmup_epochs": 1.0}, {"scale_from": 0, "num_epochs": 1}),
        ({"schedule": "triangular", "cycle_epochs": 1}, {}),
        ({"schedule": "plateau", "plateau_epochs": 1}, {"scores": [0.5, 0.6, 0.6, 0.7, 0.7, 0.7]}),
        ({"schedule": "cosine"}, {"num_epochs": 3}),
    ],
)
def test_the_rates_that_a_run_followed_are_found_again_step_by_step(settings, more):
    recipe = make_recipe({"epochs": 6, "lr": 0.1, "batch_size": 4, **settings})
    rows, rates = _followed(recipe, **more)
    passed, found = followed_rates(recipe, rows, 8)
    assert found == pytest.approx(rates)
    assert passed == [(step + 1) / 2 for step in range(len(rates))]


def test_an_extended_run_followed_one_curve_after_the_other():
    first, whole = ({"epochs": epochs, "lr": 0.1, "batch_size": 4} for epochs in (2, 5))
    whole = make_recipe(whole | {"epochs_before": (2,)})
    rows, rates = _followed(whole)
    start, before = _followed(make_recipe(first))
    assert followed_rates(whole, start + rows[2:], 8)[1] == pytest.approx(before + rates[4:])


def test_an_epoch_that_a_budget_cut_off_ends_where_it_ended():
    recipe = make_recipe({"epochs": 6, "lr": 0.1, "batch_size": 4})
    rows, rates = _followed(recipe, num_epochs=3)
    rows[-1]["lr"] = rates[-2]
    assert followed_rates(recipe, rows, 8)[1] == pytest.approx(rates[:-1])


def test_rates_of_another_curve_are_not_explained():
    recipe = make_recipe({"epochs": 6, "lr": 0.1, "batch_size": 4})
    rows, _ = _followed(recipe)
    rows[2]["lr"] *= 0.9
    assert followed_rates(recipe, rows, 8) is None
    rows, _ = _followed(recipe, num_epochs=3)
    rows[1]["lr"] = Schedule(recipe, 2).rate(2)  # only the last epoch can have been cut off
    assert followed_rates(recipe, rows, 8) is None
