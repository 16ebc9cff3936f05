"""The probe learns what features hold, keeps its best epoch, and repeats to the bit."""

import numpy as np
import pytest
import torch

from headstart.errors import TrainingError
from headstart.models.backbones import InputContract
from headstart.models.heads import ClassificationHead
from headstart.recipe import make_recipe
from headstart.training.probe import TargetFeatures, fit_probe
from headstart.training.probe_settings import probe_recipe
from headstart.training.schedules import is_better
from headstart.training.tasks import Classification, LabelledRecords

CONTRACT = InputContract((32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _features(num_samples, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_samples)
    features = rng.normal(size=(num_samples, 8)) + 3 * np.eye(3, 8)[labels]
    numbers = np.arange(num_samples)
    samples = LabelledRecords(numbers, labels, numbers, np.full((num_samples, 2), 32))
    return TargetFeatures.from_arrays(features.astype(np.float32), (torch.from_numpy(labels),), samples)


def _fit(make_task=Classification, checkpoint=None, on_epoch=lambda _: None, **settings):
    torch.manual_seed(0)
    recipe = make_recipe({"probe_epochs": 15, "probe_lr": 0.03} | settings)
    layers = {"hidden": recipe.head_hidden, "norm": recipe.head_norm, "dropout": recipe.dropout}
    head = ClassificationHead(8, 3, **layers)
    return head, fit_probe(
        head, [_features(300, 1)], _features(200, 2), probe_recipe(recipe), task=make_task(recipe), contract=CONTRACT,
        checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip


def test_the_probe_learns_separable_classes():
    assert _fit()[1].scores["accuracy"] > 0.9


def test_the_head_is_left_at_its_best_epoch():
    head, result = _fit(monitor="log_loss")
    losses = [row["validation_loss"] for row in result.rows]
    assert result.epoch == int(np.argmin(losses)) + 1
    assert all(torch.equal(head.state_dict()[name], value) for name, value in result.head.items())


def test_the_same_seed_gives_the_same_bits():
    first, second = _fit()[0], _fit()[0]
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_another_seed_gives_another_order():
    assert not torch.equal(_fit(seed=1)[0].linear.weight, _fit(seed=2)[0].linear.weight)


@pytest.mark.parametrize(("monitor", "better"), [("accuracy", True), ("log_loss", False), ("nme", False)])
def test_more_is_better_unless_it_is_a_loss(monitor, better):
    assert is_better(0.9, 0.8, monitor=monitor) is better
    assert is_better(0.1, None, monitor=monitor)


def test_the_recipes_own_training_is_followed_where_nothing_else_trains():
    settings = {"unfreeze": "none", "optimizer": "sgd", "schedule": "constant", "lr": 0.25, "epochs": 7}
    rows = _fit(**settings)[1].rows
    assert [row["lr"] for row in rows] == [0.25] * 7


def test_a_head_stops_after_patience_epochs_without_gain_by_the_score_that_was_asked():
    settings = {"unfreeze": "none", "lr": 1e-12, "schedule": "constant", "warmup_epochs": 0, "epochs": 9}
    assert len(_fit(**settings)[1].rows) == 9
    rows = _fit(**settings, patience=2)[1].rows
    scores = [row["validation_accuracy"] for row in rows]
    assert len(rows) == scores.index(max(scores)) + 1 + 2 < 9
    assert len(_fit(**settings | {"lr": 0.01}, patience=2, stop_by="log_loss")[1].rows) == 9


def test_a_probe_before_fine_tuning_takes_no_heed_of_patience():
    assert len(_fit(patience=1)[1].rows) == 15


def test_weights_that_the_last_step_spoils_are_trained_again(capsys):
    class Spoiling(Classification):
        steps = 0

        def loss(self, head, outputs, targets):
            self.steps += 1
            value = super().loss(head, outputs, targets)
            return value + _WithoutGradient.apply(head.linear.bias) if self.steps == 3 else value

    settings = {"unfreeze": "none", "lr": 0.2, "epochs": 3, "batch_size": 100, "optimizer": "sgd"}
    torch.manual_seed(0)
    head, recipe = ClassificationHead(8, 3), make_recipe(settings)
    result = fit_probe(head, [_features(300, 1)], _features(200, 2), recipe, task=Spoiling(recipe), contract=CONTRACT)
    assert "epoch 1: it is done again at half the learning rate" in "".join(capsys.readouterr())
    assert result.scores["accuracy"] > 0.9
    assert result.rows[0]["lr"] == pytest.approx(0.1)


STOPPED = {
    "unfreeze": "none",
    "epochs": 12,
    "lr": 0.01,
    "head_hidden": "6",
    "head_norm": True,
    "dropout": 0.3,
    "batch_size": 64,
    "monitor": "log_loss",
}
"""A head with all that has a state: norm, moments, the draws of dropout."""


def _without_times(rows):
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def _assert_same(first, second):
    (head, result), (other_head, other) = first, second
    assert _without_times(result.rows) == _without_times(other.rows)
    assert (result.epoch, result.scores) == (other.epoch, other.scores)
    pairs = zip(head.state_dict().values(), other_head.state_dict().values(), strict=True)
    assert all(torch.equal(one, same) for one, same in pairs)


class _Stopping(Classification):
    """Interrupts training in the loss of one step, which may have been no number in another."""

    def __init__(self, recipe, at=None, nan_at=None):
        super().__init__(recipe)
        self.at, self.nan_at, self.steps = at, nan_at, 0

    def loss(self, head, outputs, targets):
        self.steps += 1
        if self.steps == self.at:
            raise KeyboardInterrupt
        return super().loss(head, outputs, targets) * (float("nan") if self.steps == self.nan_at else 1.0)


def _noted(tasks):
    """Make a task that only counts its steps, and note it."""

    def make(recipe):
        tasks.append(_Stopping(recipe))
        return tasks[-1]

    return make


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "schedule": "plateau", "patience": 2}])
def test_ctrl_c_in_the_middle_of_an_epoch_of_the_head_loses_no_earlier_one(tmp_path, changes):
    whole, file, seen = _fit(**STOPPED | changes), tmp_path / "last.safetensors", []
    with pytest.raises(KeyboardInterrupt):
        _fit(lambda recipe: _Stopping(recipe, at=5 * 6 + 3), checkpoint=file, on_epoch=seen.append, **STOPPED | changes)
    assert len(seen) == 6
    tasks = []
    again = _fit(_noted(tasks), checkpoint=file, on_epoch=seen.append, **STOPPED | changes)
    _assert_same(whole, again)
    assert tasks[0].steps == 5 * (len(again[1].rows) - 6)
    assert _without_times(seen[6:]) == _without_times(whole[1].rows)


def test_a_kill_in_the_head_goes_on_from_the_last_epoch_that_was_written_down(tmp_path):
    class Killed(Exception):  # noqa: N818 - it stands for a signal that nothing can catch
        pass

    def killed(row):
        if row["epoch"] == 8:
            raise Killed

    settings, file = STOPPED | {"checkpoint_seconds": 1e-9}, tmp_path / "last.safetensors"
    with pytest.raises(Killed):
        _fit(checkpoint=file, on_epoch=killed, **settings)
    tasks = []
    _assert_same(_fit(**settings), _fit(_noted(tasks), checkpoint=file, **settings))
    assert tasks[0].steps == 5 * (12 - 8)


def test_ctrl_c_while_a_diverged_epoch_is_done_again_loses_no_bit(tmp_path):
    file, tasks = tmp_path / "last.safetensors", []
    whole = _fit(lambda recipe: _Stopping(recipe, nan_at=5 * 4 + 2), **STOPPED)
    with pytest.raises(KeyboardInterrupt):
        _fit(lambda recipe: _Stopping(recipe, nan_at=5 * 4 + 2, at=5 * 4 + 2 + 4), checkpoint=file, **STOPPED)
    _assert_same(whole, _fit(_noted(tasks), checkpoint=file, **STOPPED))
    assert tasks[0].steps == 5 * (12 - 4)


def test_a_head_that_trains_for_seconds_writes_nothing_down(tmp_path):
    _fit(checkpoint=tmp_path / "last.safetensors", **STOPPED)
    assert not list(tmp_path.iterdir())


class _WithoutGradient(torch.autograd.Function):
    """A loss of 0 whose gradient is no number."""

    @staticmethod
    def forward(ctx, values):
        return values.sum() * 0

    @staticmethod
    def backward(ctx, *gradients):
        return torch.full((3,), float("nan"))


def test_a_head_that_diverges_is_trained_again_at_half_the_rate_then_given_up(capsys):
    class Diverging(Classification):
        def loss(self, head, outputs, targets):
            return super().loss(head, outputs, targets) * float("nan")

    head, recipe = ClassificationHead(8, 3), probe_recipe(make_recipe({"probe_epochs": 3}))
    with pytest.raises(TrainingError, match=r"epoch 1 of the head, again after .* halved.*--probe-lr"):
        fit_probe(head, [_features(50, 1)], _features(20, 2), recipe, task=Diverging(recipe), contract=CONTRACT)
    assert "half the learning rate" in "".join(capsys.readouterr())
