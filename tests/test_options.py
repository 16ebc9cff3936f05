"""Each option of the bench on real scenes, from pretrained weights: it runs end to end, and does what it says.

What it says is worked out anew from its published formula, beside what the training itself has used.
"""

import math
import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import headstart
from headstart.data.table import SampleTable
from headstart.models.backbones import scale_pixels
from headstart.models.bundle import load_bundle
from headstart.training import tasks
from headstart.training.history import read_history
from headstart.training.loop import FineTuning

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

CLASSES = {"buildings": 36, "forest": 24, "glacier": 16}
EPOCHS, LR = 3, 1e-3
PLAIN = {"warmup_epochs": 0.0, "label_smoothing": 0.0, "ema_decay": 0.0, "lr": LR}


@pytest.fixture(scope="module")
def scenes(real_data, tmp_path_factory):
    """Some scenes, fewer of each class than of the one before, and of the first two classes alone."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, count in CLASSES.items():
        pictures = sorted((real_data / "scenes_intel100" / "train" / name).iterdir())[:count]
        for place in ("three", "two") if name != "glacier" else ("three",):
            (folder / place / name).mkdir(parents=True)
            for picture in pictures:
                shutil.copy(picture, folder / place / name)
    return folder


@dataclass
class Seen:
    """What went through the steps of a fine-tuning, and what came of it.

    Attributes:
        rates: Of each step, the learning rate of each group.
        losses: Of each part of a step: logits, targets, and the loss.
        biases: Of the head's last layer, before the first step and after each.
        gradients: Its gradients in each step.
        norms: Of all gradients in each step.
        starts: The network's state at the start of each epoch.
    """

    rates: list[list[float]] = field(default_factory=list)
    losses: list[tuple[torch.Tensor, torch.Tensor, float]] = field(default_factory=list)
    biases: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    starts: list[dict[str, torch.Tensor]] = field(default_factory=list)
    tuning: Any = None
    run: Any = None
    said: str = ""

    @property
    def history(self):
        """The epochs of fine-tuning."""
        return read_history(self.run.path).filter(stage="fine-tune")

    @property
    def end(self):
        """The network's state after the last step."""
        tensors = load_file(self.run.path / "checkpoints" / "last.safetensors")
        return {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}

    @property
    def counts(self):
        """Training samples of each class."""
        train = SampleTable.load(self.run.path / "table.parquet").kept.filter(split="train")
        return np.bincount(train["label"].to_numpy())

    @property
    def steps(self):
        """Steps of an epoch."""
        return len(self.rates) // EPOCHS


@pytest.fixture
def watch(scenes, tmp_path, monkeypatch, capsys):
    """Train with some settings and give what was seen."""
    seen, take_step, loss_of, is_tuning = Seen(), FineTuning.train_step, tasks.classification_loss, []

    def train_step(self, batch):
        if not seen.biases:
            seen.tuning = self
            seen.biases.append(_bias(self))
        if self.counters.epoch == len(seen.starts):
            seen.starts.append({name: value.clone() for name, value in self.network.state_dict().items()})
        is_tuning.append(True)
        take_step(self, batch)
        is_tuning.pop()
        seen.rates.append([group["lr"] for group in self.optimizer.param_groups])
        seen.biases.append(_bias(self))
        seen.gradients.append(self.network.head.linear.bias.grad.double().clone())
        gradients = [one.grad for one in self.network.parameters() if one.grad is not None]
        seen.norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

    def classification_loss(name, logits, targets, **settings):
        value = loss_of(name, logits, targets, **settings)
        if is_tuning:
            seen.losses.append((logits.detach().double(), targets.clone(), float(value.detach())))
        return value

    monkeypatch.setattr(FineTuning, "train_step", train_step)
    monkeypatch.setattr(tasks, "classification_loss", classification_loss)

    def train(photos="three", **settings):
        base = {"image_size": 96, "epochs": EPOCHS, "probe_epochs": 10, "batch_size": 16, "patience": EPOCHS}
        base |= {"backbone": "mobilenetv2_100", "num_threads": 1, "device": "cpu", "store_dir": str(scenes / "store")}
        seen.run = headstart.train(scenes / photos, out=tmp_path / "run", **base | PLAIN | settings)
        seen.said = "".join(capsys.readouterr())
        accuracy = headstart.evaluate(seen.run.path).evaluations["test"].scores["accuracy"].value
        assert accuracy >= 0.5  # of three classes
        return seen

    return train


def _bias(tuning):
    return tuning.network.head.linear.bias.detach().double().clone()


@pytest.fixture(autouse=True)
def _weights(real_data, monkeypatch):
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(real_data / "weights"))


# --- losses


def _own(logits, targets):
    return logits.log_softmax(1)[torch.arange(len(targets)), targets]


def _weighted(weights):
    def loss(logits, targets):
        own = torch.as_tensor(weights, dtype=torch.float64)[targets]
        return -(own * _own(logits, targets)).sum() / own.sum()

    return loss


def _effective(counts):
    weights = (1 - 0.999) / (1 - 0.999 ** counts.astype(float))
    return weights * counts.sum() / (weights * counts).sum()


def _soft_f1(logits, targets):
    shares, scores = logits.softmax(1), []
    for number in targets.unique().tolist():
        hits = shares[targets == number, number].sum()
        scores.append(2 * hits / (shares[:, number].sum() + (targets == number).sum()))
    return 1 - torch.stack(scores).mean()


def _focal(gamma):
    return lambda logits, targets: (-((1 - _own(logits, targets).exp()) ** gamma) * _own(logits, targets)).mean()


def _smoothed(logits, targets):
    return -(0.8 * _own(logits, targets) + 0.2 * logits.log_softmax(1).mean(1)).mean()


def _questions(logits, targets):
    yes = F.one_hot(targets, logits.shape[1]).bool()
    return -torch.where(yes, F.logsigmoid(logits), F.logsigmoid(-logits)).mean()


LOSSES = {
    "plain": ({}, lambda _: lambda logits, targets: -_own(logits, targets).mean()),
    "balanced": ({"class_weights": "balanced"}, lambda counts: _weighted(counts.sum() / (len(counts) * counts))),
    "effective": ({"class_weights": "effective"}, lambda counts: _weighted(_effective(counts))),
    "from a file": ({"class_weights": "weights.csv"}, lambda _: _weighted([1.0, 2.0, 5.0])),
    "smoothed": ({"label_smoothing": 0.2}, lambda _: _smoothed),
    "focal": ({"loss": "focal"}, lambda _: _focal(2.0)),
    "focal, weakly": ({"loss": "focal", "focal_gamma": 0.5}, lambda _: _focal(0.5)),
    "soft F1": ({"loss": "soft_f1"}, lambda _: _soft_f1),
    "questions": ({"loss": "bce"}, lambda _: _questions),
}


@pytest.mark.parametrize("option", LOSSES)
def test_the_loss_of_every_step_is_its_formula(watch, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.csv").write_text("buildings,1\nforest,2\nglacier,5\n")
    settings, formula = LOSSES[option]
    seen = watch(**settings)
    assert len(seen.losses) == len(seen.rates) > 0
    for logits, targets, loss in seen.losses:
        assert loss == pytest.approx(float(formula(seen.counts)(logits, targets)), rel=1e-3, abs=1e-6)


def test_binary_cross_entropy_of_two_classes_trains_one_unit(watch):
    seen = watch("two", loss="bce")
    assert load_bundle(seen.run.path).network.head.linear.out_features == 1
    for logits, targets, loss in seen.losses:
        assert not logits[:, 0].any()
        signs = 1 - 2 * targets
        assert loss == pytest.approx(float(F.softplus(signs * logits[:, 1]).mean()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "varies"),
    [({"cutmix": 1.0, "mix_per": "sample"}, True), ({"cutmix": 1.0}, False), ({"mixup": 0.5, "cutmix": 0.5}, False)],
)
def test_mixed_photos_are_learned_with_shares_of_both_labels(watch, settings, varies):
    seen = watch(**settings)
    for logits, shares, loss in seen.losses:
        assert shares.sum(1).allclose(torch.ones(len(shares)))
        assert loss == pytest.approx(float(-(shares * logits.log_softmax(1)).sum(1).mean()), rel=1e-3)
    mixed = [shares.max(1).values[shares.max(1).values < 0.999].unique() for _, shares, _ in seen.losses]
    assert sum(len(own) > 0 for own in mixed) > len(mixed) / 2
    assert (max(map(len, mixed)) > 2) == varies  # one draw for a batch gives a share and what is left of it


# --- schedules


def _half_cosine(progress):
    return 0.5 * (1 + math.cos(math.pi * progress))


def _torch_one_cycle(step, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=EPOCHS * steps)
    for _ in range(step):
        optimizer.step()
        schedule.step()
    return optimizer.param_groups[0]["lr"] / LR


def _triangle(cycles):
    return 1 - abs(2 * (cycles % 1) - 1)


SCHEDULES = {
    "constant": ({"schedule": "constant"}, lambda step, steps: 1.0),
    "step": ({"schedule": "step", "step_epochs": 1, "gamma": 0.5}, lambda step, steps: 0.5 ** (step // steps)),
    "multi-step": (
        {"schedule": "multi_step", "milestones": "1,2", "gamma": 0.3},
        lambda step, steps: 0.3 ** (step // steps),
    ),
    "exponential": ({"schedule": "exponential", "gamma": 0.8}, lambda step, steps: 0.8 ** (step / steps)),
    "cosine": ({"schedule": "cosine"}, lambda step, steps: _half_cosine(step / (EPOCHS * steps))),
    "warm-up and cosine": (
        {"schedule": "cosine", "warmup_epochs": 1.0},
        lambda step, steps: (
            (step + 1) / steps if step < steps else _half_cosine((step - steps) / ((EPOCHS - 1) * steps))
        ),
    ),
    "restarts": ({"schedule": "cosine", "cycle_epochs": 1}, lambda step, steps: _half_cosine(step % steps / steps)),
    "one-cycle": ({"schedule": "one_cycle"}, _torch_one_cycle),
    "polynomial": (
        {"schedule": "polynomial", "power": 2.0},
        lambda step, steps: (1 - step / (EPOCHS * steps)) ** 2,
    ),
    "triangular": (
        {"schedule": "triangular", "cycle_epochs": 2, "min_lr": LR / 10},
        lambda step, steps: 0.1 + 0.9 * _triangle(step / steps / 2),
    ),
    "triangular2": (
        {"schedule": "triangular2", "cycle_epochs": 1},
        lambda step, steps: _triangle(step / steps) * 0.5 ** (step // steps),
    ),
    "exp-range": (
        {"schedule": "exp_range", "cycle_epochs": 1, "gamma": 0.9},
        lambda step, steps: _triangle(step / steps) * 0.9 ** (step / steps),
    ),
}


@pytest.mark.parametrize("option", SCHEDULES)
def test_the_rate_of_every_step_is_its_closed_form(watch, option):
    settings, factor = SCHEDULES[option]
    seen = watch(**settings)
    expected = [LR * factor(step, seen.steps) for step in range(EPOCHS * seen.steps)]
    assert [rates[0] for rates in seen.rates] == pytest.approx(expected, abs=1e-9)
    assert all(len(set(rates)) == 1 for rates in seen.rates)
    assert seen.history["lr"].to_list() == pytest.approx(expected[seen.steps - 1 :: seen.steps], abs=1e-9)


def test_plateau_lowers_the_rate_after_an_epoch_that_was_no_better(watch):
    lr = 1e-9  # no photo changes its class
    seen = watch(schedule="plateau", plateau_epochs=1, gamma=0.1, lr=lr)
    scores, expected = seen.history["validation_accuracy"].to_list(), [lr]
    for number in range(1, EPOCHS):
        is_better = number == 1 or scores[number - 1] > max(scores[: number - 1])
        expected.append(expected[-1] * (1.0 if is_better else 0.1))
    assert seen.history["lr"].to_list() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx([lr, lr, lr / 10])


# --- optimizers


def _sgd(gradients, rates, start, *, nesterov):
    value, speed = start, torch.zeros_like(start)
    for gradient, rate in zip(gradients, rates, strict=True):
        speed = 0.9 * speed + gradient
        value = value - rate * (gradient + 0.9 * speed if nesterov else speed)
        yield value


def _adam(gradients, rates, start):
    value, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value = value - rate * mean / (1 - 0.9**number) / ((square / (1 - 0.999**number)).sqrt() + 1e-8)
        yield value


def _rmsprop(gradients, rates, start):
    value, square, speed = start, torch.zeros_like(start), torch.zeros_like(start)
    for gradient, rate in zip(gradients, rates, strict=True):
        square = 0.9 * square + 0.1 * gradient**2
        speed = 0.9 * speed + gradient / (square.sqrt() + 1e-8)
        value = value - rate * speed
        yield value


def _madgrad(gradients, rates, start):
    value, total, squares = start, torch.zeros_like(start), torch.zeros_like(start)
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        weight = (rate + 1e-6) * math.sqrt(number)  # its own implementation adds that, too
        total, squares = total + weight * gradient, squares + weight * gradient**2
        value = 0.9 * value + 0.1 * (start - total / (squares.pow(1 / 3) + 1e-6))
        yield value


OPTIMIZERS = {
    "sgd": lambda *given: _sgd(*given, nesterov=False),
    "nesterov": lambda *given: _sgd(*given, nesterov=True),
    "adam": _adam,
    "adamw": _adam,  # a bias does not decay
    "rmsprop": _rmsprop,
    "madgrad": _madgrad,
}


@pytest.mark.parametrize("option", OPTIMIZERS)
def test_an_optimizer_moves_the_heads_bias_as_its_paper_says(watch, option):
    seen = watch(optimizer=option, weight_decay=0.05, schedule="constant", lr=1e-4)
    rates = [rates[0] for rates in seen.rates]
    expected = list(OPTIMIZERS[option](seen.gradients, rates, seen.biases[0]))
    assert (seen.biases[-1] - seen.biases[0]).abs().max() > 1e-5
    for found, wanted in zip(seen.biases[1:], expected, strict=True):
        assert found.allclose(wanted, rtol=0, atol=2e-6)
    for group in seen.tuning.optimizer.param_groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] == 0.05) for parameter in group["params"])
        assert group["weight_decay"] in (0.0, 0.05)


def test_each_block_learns_by_its_share_of_the_next_ones_rate(watch):
    seen = watch(layer_decay=0.7, schedule="constant")
    network, rates = seen.tuning.network, {}
    for group, rate in zip(seen.tuning.optimizer.param_groups, seen.rates[-1], strict=True):
        rates |= {id(parameter): rate for parameter in group["params"]}
    named = dict(network.backbone.named_parameters())
    for depth, block in enumerate(reversed(network.blocks), 1):
        assert [rates[id(named[name])] for name in block] == pytest.approx([LR * 0.7**depth] * len(block))
    assert {rates[id(parameter)] for parameter in network.head.parameters()} == {LR}


def test_gradients_are_clipped_at_the_norm(watch):
    seen = watch(clip_grad=0.05)
    assert max(seen.norms) == pytest.approx(0.05, rel=1e-3)


def test_accumulated_batches_make_one_step(watch):
    seen = watch(accumulate=2)
    num_samples, sizes = int(seen.counts.sum()), [len(logits) for logits, _, _ in seen.losses]
    assert max(sizes) == 16
    assert sum(sizes) == EPOCHS * num_samples
    assert seen.steps == -(-num_samples // 32) < -(-num_samples // 16)


def test_a_last_batch_that_is_not_full_is_left_out(watch):
    seen = watch(drop_last=True)
    assert {len(logits) for logits, _, _ in seen.losses} == {16}
    assert seen.steps == int(seen.counts.sum()) // 16


def test_the_moving_average_is_that_of_the_weights_after_each_step(watch):
    seen = watch(ema_decay=0.8)
    average = seen.biases[0]
    for step, bias in enumerate(seen.biases[1:]):
        decay = min(1 - (1 + step - 1) ** (-2 / 3), 0.8) if step > 1 else 0.0  # rises from 0
        average = decay * average + (1 - decay) * bias
    last = load_file(seen.run.path / "checkpoints" / "last.safetensors")
    assert last["ema.head.linear.bias"].double().allclose(average, rtol=0, atol=1e-6)
    assert not last["ema.head.linear.bias"].equal(last["network.head.linear.bias"])


# --- what trains


def _assert_moved(before, after, names, others):
    assert all(before[name].equal(after[name]) for name in others)
    assert names
    assert all(not before[name].equal(after[name]) for name in names if name.endswith("weight"))


def _trained(seen, what):
    """Names of the backbone's parameters that train, and of all else that it holds."""
    network = seen.tuning.network
    names = {f"backbone.{name}" for name in network.trainable_names(what)}
    return names, {name for name in seen.end if name.startswith("backbone.")} - names


@pytest.mark.parametrize("what", ["1", "2", r"^blocks\.6|conv_head|bn2"])
def test_only_what_is_unfrozen_moves_and_all_else_stays_to_the_bit(watch, what):
    seen = watch(unfreeze=what)
    _assert_moved(seen.starts[0], seen.end, *_trained(seen, what))


def test_stages_unfreeze_one_after_the_other(watch):
    seen = watch(unfreeze="1", unfreeze_later="2=3,3=all")
    for number, (what, end) in enumerate(zip(("1", "3", "all"), [*seen.starts[1:], seen.end], strict=True)):
        _assert_moved(seen.starts[number], end, *_trained(seen, what))


def test_frozen_blocks_run_once_where_photos_do_not_change(watch):
    seen = watch(unfreeze="1", unfreeze_later="2=2", augment="none")
    assert "kept the output of the frozen blocks" in seen.said
    _assert_moved(seen.starts[0], seen.end, *_trained(seen, "2"))


@pytest.mark.parametrize("batch_norm", ["trained", "frozen"])
def test_statistics_of_batch_norm_stand_still_where_they_are_frozen(watch, batch_norm):
    seen = watch(batch_norm=batch_norm)
    names = [name for name in seen.end if "running_mean" in name]
    assert len(names) > 50
    assert {seen.starts[0][name].equal(seen.end[name]) for name in names} == {batch_norm == "frozen"}


# --- heads


POOLED = {
    "average": lambda found: found.mean((2, 3)),
    "max": lambda found: found.amax((2, 3)),
    "both": lambda found: torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1),
    "flatten": lambda found: found.flatten(1),
}


@pytest.mark.parametrize("pooling", POOLED)
def test_a_head_takes_the_map_pooled_as_it_says(watch, pooling):
    seen = watch(pooling=pooling, head_norm=True, head_hidden="32", dropout=0.2)
    network = load_bundle(seen.run.path).network.eval()
    pixels = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network.backbone.forward_features(scale_pixels(pixels, network.scale, network.offset))
        assert network.features(pixels).allclose(POOLED[pooling](found), atol=1e-4)
    assert network.head.norm.num_features == POOLED[pooling](found).shape[1]
    assert network.head.linear.in_features == 32
    assert {one.p for one in network.head.modules() if isinstance(one, nn.Dropout)} == {0.2}


def test_a_head_alone_takes_the_augmented_views_in_turn(watch):
    seen = watch(unfreeze="none", views=2, epochs=4, lr=1e-3)
    history = read_history(seen.run.path)
    assert history["stage"].unique().to_list() == ["probe"]
    assert history.height == 4
    assert not seen.rates
    assert "view 2/2" in seen.said
