"""The fine-tuning loop: shares of ranks, frozen parts, early stopping, a loss that is no number."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from headstart.data.store import PixelStore
from headstart.data.table import SampleTable
from headstart.errors import TrainingError
from headstart.models.bundle import load_bundle
from headstart.preparation import reopen
from headstart.training.checkpoints import load_checkpoint
from headstart.training.fit import make_fabric, samples_of
from headstart.training.history import History
from headstart.training.loop import FineTuning, TrainingData, share_of_rank
from headstart.training.tasks import Classification, make_task


@pytest.fixture(scope="module")
def data(finished_run) -> TrainingData:
    """The finished run's samples and pixels."""
    table = SampleTable.load(finished_run.path / "table.parquet")
    store: PixelStore = reopen(table, finished_run.recipe, image_size=(32, 32)).store
    task = Classification(finished_run.recipe)
    return TrainingData(store, *(samples_of(task, table, store, split) for split in ("train", "validation")))


def _tuning(finished_run, data, folder, **settings):
    recipe = finished_run.recipe.updated(**settings)
    network = load_bundle(finished_run.path / "probe").network
    task = make_task(recipe, SampleTable.load(finished_run.path / "table.parquet"))
    return FineTuning(make_fabric(recipe), network, data, task=task, recipe=recipe, folder=folder)


def test_ranks_share_an_epoch_without_overlap():
    shares = [share_of_rank(np.arange(11), rank=rank, world_size=3) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(9))
    assert {len(share) for share in shares} == {3}


def test_frozen_blocks_keep_weights_and_statistics(finished_run, data, tmp_path):
    tuning = _tuning(finished_run, data, tmp_path, unfreeze="1", epochs=1)
    before = {name: value.clone() for name, value in tuning.network.backbone.state_dict().items()}
    tuning.run()
    after = tuning.network.backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trainable = {name for block in tuning.network.blocks[-1:] for name in block}
    owners = {name.rsplit(".", 1)[0] for name in trainable}
    assert changed
    assert {name.rsplit(".", 1)[0] for name in changed} <= owners


def test_training_stops_after_patience_epochs_without_gain(finished_run, data, tmp_path):
    counters = _tuning(finished_run, data, tmp_path, lr=1e-12, ema_decay=0, epochs=9, patience=2).run()
    assert counters.epoch == counters.best_epoch + 2 < 9


def test_a_loss_that_is_no_number_stops_with_the_cause(finished_run, data, tmp_path):
    tuning = _tuning(finished_run, data, tmp_path, epochs=1)
    torch.nn.init.constant_(next(tuning.network.head.parameters()), float("nan"))
    with pytest.raises(TrainingError, match=r"a finite number; got 'the loss was nan in epoch 1, step 1'.*lower --lr"):
        tuning.run()


def test_steps_go_on_from_any_step_with_the_same_bits(finished_run, data, tmp_path):
    whole = _tuning(finished_run, data, tmp_path / "whole", epochs=2)
    whole.run()
    first = _tuning(finished_run, data, tmp_path / "parts", epochs=2)
    _stop_after(first, 3)
    second = _tuning(finished_run, data, tmp_path / "parts", epochs=2)
    second.run()
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_stop_between_the_last_step_and_validation_adds_no_step(finished_run, data, tmp_path):
    settings = {"epochs": 1, "batch_size": 11}  # 210 samples: 19 steps, and one sample that is left out
    whole = _tuning(finished_run, data, tmp_path / "whole", **settings)
    first = _tuning(finished_run, data, tmp_path / "parts", **settings)
    _stop_after(first, first.steps_per_epoch)
    second = _tuning(finished_run, data, tmp_path / "parts", **settings)
    assert whole.run().num_images == second.run().num_images == 209
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_kill_in_validation_loses_no_step_where_validation_takes_long(finished_run, data, tmp_path):
    def killed():
        raise RuntimeError("killed")

    settings = {"epochs": 2, "checkpoint_seconds": 100}
    whole = _tuning(finished_run, data, tmp_path / "whole", **settings)
    whole.run()
    first = _tuning(finished_run, data, tmp_path / "parts", **settings)
    first._validation_seconds, first._validate = 101.0, killed
    with pytest.raises(RuntimeError, match="killed"):
        first.run()
    second = _tuning(finished_run, data, tmp_path / "parts", **settings)
    second._restore()
    assert second.counters.step == second.steps_per_epoch
    second.run()
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def _stop_after(tuning, num_steps):
    """Interrupt a training after some steps, as Ctrl-C does."""
    step, done = tuning.train_step, []

    def counted(batch):
        step(batch)
        done.append(batch)
        if len(done) == num_steps:
            raise KeyboardInterrupt

    tuning.train_step = counted
    with pytest.raises(KeyboardInterrupt):
        tuning.run()


def test_a_run_that_diverged_for_good_is_taken_up_at_its_best_epoch(finished_run, data, tmp_path):
    class Diverging(Classification):
        steps = 0

        def loss(self, head, outputs, targets):
            self.steps += 1
            return super().loss(head, outputs, targets) * (float("nan") if self.steps > 9 else 1.0)

    first = _tuning(finished_run, data, tmp_path, epochs=3)
    first.task = Diverging(first.recipe)
    with pytest.raises(TrainingError, match=r"clip-grad 1\. With headstart train --resume RUN it ends"):
        first.run()
    counters = _tuning(finished_run, data, tmp_path, epochs=3).run()
    assert (counters.finished, counters.best_epoch, counters.epoch) == (True, 1, 1)
    assert counters.stopped == "the loss was nan in epoch 2, step 1"
    best = load_checkpoint(tmp_path / "checkpoints" / "best.safetensors")[0]
    assert all(value.isfinite().all() for value in best.values())
    longer = _tuning(finished_run, data, tmp_path, epochs=4)
    longer.task = Diverging(longer.recipe)
    longer.task.steps = 9
    with pytest.raises(TrainingError, match="With headstart train --resume RUN it ends with the best epoch"):
        longer.run()
    counters = _tuning(finished_run, data, tmp_path, epochs=4).run()
    assert (counters.finished, counters.epoch, counters.stopped[:12]) == (True, 1, "the loss was")
    counters = _tuning(finished_run, data, tmp_path, epochs=5).run()
    assert (counters.finished, counters.epoch, counters.stopped) == (True, 5, "")


def test_a_loss_that_diverges_once_goes_on_from_the_epochs_start_at_half_the_rate(finished_run, data, tmp_path):
    class DivergesOnce(Classification):
        steps = 0

        def loss(self, head, outputs, targets):
            self.steps += 1
            return super().loss(head, outputs, targets) * (float("nan") if self.steps == 9 else 1.0)

    settings = {"epochs": 2, "schedule": "constant", "warmup_epochs": 0, "lr": 1e-3}
    tuning = _tuning(finished_run, data, tmp_path / "diverging", **settings)
    tuning.task, rows = DivergesOnce(tuning.recipe), []
    tuning.on_epoch, tuning.history = rows.append, History(tmp_path / "diverging", tuning.task.score_names)
    assert tuning.steps_per_epoch == 7  # the ninth step is the second of the second epoch
    counters = tuning.run()
    tuning.history.close()
    assert counters.finished
    assert counters.lr_scale == 0.5
    assert [row["lr"] for row in rows] == [1e-3, 5e-4]
    assert all(value.isfinite().all() for value in tuning.network.state_dict().values())


def test_weights_that_an_epochs_last_step_spoils_are_not_where_it_goes_back_to(finished_run, data, tmp_path, capsys):
    tuning = _tuning(finished_run, data, tmp_path, epochs=2, ema_decay=0)
    take_step, steps = tuning.train_step, []

    def spoiling(batch):
        take_step(batch)
        steps.append(batch)
        if len(steps) == tuning.steps_per_epoch:
            torch.nn.init.constant_(next(tuning.network.head.parameters()), float("inf"))

    tuning.train_step = spoiling
    counters = tuning.run()
    assert "there were weights that are no numbers after epoch 1" in "".join(capsys.readouterr())
    assert counters.finished
    assert counters.lr_scale == 0.5
    assert len(steps) == 3 * tuning.steps_per_epoch
    assert all(value.isfinite().all() for value in tuning.network.parameters())


def test_an_extended_training_that_diverges_at_once_still_trains_its_epochs(finished_run, data, tmp_path):
    _tuning(finished_run, data, tmp_path, epochs=1).run()
    tuning = _tuning(finished_run, data, tmp_path, epochs=3)
    take_step, steps = tuning.train_step, []

    def diverging(batch):
        steps.append(batch)
        if len(steps) == 1:
            torch.nn.init.constant_(next(tuning.network.head.parameters()), float("nan"))
        take_step(batch)

    tuning.train_step = diverging
    assert tuning.run().epoch == 3
    assert len(steps) == 1 + 2 * tuning.steps_per_epoch


def test_a_stage_that_comes_with_more_epochs_finds_its_moments(finished_run, data, tmp_path):
    stages = {"unfreeze": "1", "unfreeze_later": "3=all", "checkpoint_seconds": 1e-9, "ema_decay": 0}
    first = _tuning(finished_run, data, tmp_path / "extended", epochs=1, **stages, schedule="constant")
    first.run()
    moments = {name: first.optimizer.state[value]["exp_avg"].clone() for name, value in _of_last_block(first)}
    extended = _tuning(finished_run, data, tmp_path / "extended", epochs=4, **stages, schedule="constant")
    extended._restore()
    assert all(
        extended.optimizer.state[value]["exp_avg"].equal(moments[name]) for name, value in _of_last_block(extended)
    )
    assert extended.run().epoch == 4


def _of_last_block(tuning):
    names = set(tuning.network.blocks[-1])
    return [(name, value) for name, value in tuning.network.backbone.named_parameters() if name in names]


def test_weights_that_give_no_numbers_are_never_the_best(finished_run, data, tmp_path):
    tuning = _tuning(finished_run, data, tmp_path, epochs=1, ema_decay=0)
    torch.nn.init.constant_(next(tuning.network.head.parameters()), float("nan"))
    assert np.isnan(tuning._validate()["accuracy"])
    assert not tuning.counters.take_score(float("nan"), float("nan"), tuning.recipe)


def test_parts_of_a_batch_add_up_to_the_step_of_the_whole(finished_run, data, tmp_path):
    settings = {"epochs": 1, "ema_decay": 0, "batch_norm": "frozen", "optimizer": "sgd", "lr": 0.01}
    whole = _tuning(finished_run, data, tmp_path / "whole", batch_size=32, **settings)
    parts = _tuning(finished_run, data, tmp_path / "parts", batch_size=8, accumulate=4, **settings)
    for tuning in (whole, parts):
        tuning.network.freeze_statistics()
        tuning.run()
    assert whole.steps_per_epoch == parts.steps_per_epoch
    ours, theirs = whole.network.state_dict(), parts.network.state_dict()
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-5) for name in ours)


def test_a_batch_that_memory_does_not_hold_is_split_and_said(finished_run, data, tmp_path, capsys):
    tuning = _tuning(finished_run, data, tmp_path, epochs=1, batch_size=32)
    original, sizes = tuning.task.loss, []

    def loss(head, outputs, targets):
        if len(outputs) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        sizes.append(len(outputs))
        return original(head, outputs, targets)

    tuning.task.loss = loss
    counters = tuning.run()
    assert counters.finished
    assert counters.num_parts == 4
    assert set(sizes) == {6, 8}  # the last step has 18 samples
    assert "each batch of 32 now goes through the network in parts of 8" in "".join(capsys.readouterr())


def test_memory_that_does_not_hold_two_samples_ends_training_with_a_way_out(finished_run, data, tmp_path):
    tuning = _tuning(finished_run, data, tmp_path, epochs=1)

    def loss(head, outputs, targets):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    tuning.task.loss = loss
    with pytest.raises(TrainingError, match=r"memory must be enough for a step.*--image-size"):
        tuning.run()


def test_what_is_unfrozen_later_stands_still_before_and_moves_after(finished_run, data, tmp_path):
    tuning = _tuning(finished_run, data, tmp_path, unfreeze="none", unfreeze_later="2=1,3=all", epochs=3, ema_decay=0)
    weights = [{name: value.clone() for name, value in tuning.network.backbone.named_parameters()}]
    tuning.on_epoch = lambda _: weights.append(
        {name: value.clone() for name, value in tuning.network.backbone.named_parameters()}
    )
    tuning.history = History(tmp_path, tuning.task.score_names)
    tuning.run()
    tuning.history.close()
    moved = [{name for name in now if not now[name].equal(before[name])} for before, now in pairwise(weights)]
    last_block = set(tuning.network.blocks[-1])
    assert moved[0] == set()
    assert moved[1] == last_block
    assert moved[2] > last_block


def test_a_pattern_chooses_what_trains(finished_run, data, tmp_path):
    tuning = _tuning(finished_run, data, tmp_path, unfreeze=r"layer4\..*conv", epochs=1, ema_decay=0)
    before = {name: value.clone() for name, value in tuning.network.backbone.named_parameters()}
    tuning.run()
    moved = {name for name, value in tuning.network.backbone.named_parameters() if not value.equal(before[name])}
    assert moved == {name for name in before if name.startswith("layer4.") and "conv" in name}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "madgrad", "schedule": "exp_range", "clip_grad": 1.0},
        {"optimizer": "lamb", "cutmix": 0.5, "mixup": 0.5, "mix_per": "sample", "layer_decay": 0.7},
        {"loss": "focal", "schedule": "cosine", "cycle_epochs": 1, "class_weights": "balanced"},
        {"loss": "soft_f1", "unfreeze": "none", "unfreeze_later": "2=all", "accumulate": 2},
        {"optimizer": "rmsprop", "schedule": "plateau", "plateau_epochs": 1, "stop_by": "log_loss"},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_an_interrupted_training_goes_on_with_the_same_bits(finished_run, data, tmp_path, settings):
    settings = {"epochs": 3, "checkpoint_seconds": 1e-9, "lr": 1e-3, **settings}
    whole = _tuning(finished_run, data, tmp_path / "whole", **settings)
    whole.run()
    cut = _tuning(finished_run, data, tmp_path / "cut", **settings)
    steps, take_step = iter(range(10)), cut.train_step

    def interrupted(batch):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        take_step(batch)

    cut.train_step = interrupted
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = _tuning(finished_run, data, tmp_path / "cut", **settings)
    resumed.run()
    ours, theirs = whole.network.state_dict(), resumed.network.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in ours)
