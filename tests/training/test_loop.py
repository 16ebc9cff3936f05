"""The fine-tuning loop: shares of ranks, frozen parts, early stopping, a loss that is no number."""

import numpy as np
import pytest
import torch

from headstart.data.store import PixelStore
from headstart.data.table import SampleTable
from headstart.errors import TrainingError
from headstart.models.bundle import load_bundle
from headstart.preparation import reopen
from headstart.training.fit import make_fabric, samples_of
from headstart.training.loop import FineTuning, TrainingData, share_of_rank
from headstart.training.tasks import Classification


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
    network.unfreeze(recipe.unfreeze)
    return FineTuning(make_fabric(recipe), network, data, task=Classification(recipe), recipe=recipe, folder=folder)


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
    with pytest.raises(TrainingError, match=r"training loss must be a finite number; got nan\. .*lower --lr"):
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
