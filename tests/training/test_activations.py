"""Training from kept activations is training: the same weights as with the frozen blocks run in every epoch."""

import numpy as np
import pytest
import torch

from headstart.data.store import PixelStore
from headstart.data.table import SampleTable
from headstart.models.bundle import load_bundle
from headstart.preparation import reopen
from headstart.training.activations import ActivationLoader, keep_activations
from headstart.training.fit import make_fabric, samples_of
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.tasks import make_task

SETTINGS = {"unfreeze": "1", "augment": "none", "epochs": 3, "ema_decay": 0.9, "lr": 1e-3, "monitor": "log_loss"}


@pytest.fixture(scope="module")
def found(finished_run):
    table = SampleTable.load(finished_run.path / "table.parquet")
    store: PixelStore = reopen(table, finished_run.recipe, image_size=(32, 32)).store
    return table, store


def _parts(finished_run, found, **settings):
    table, store = found
    recipe = finished_run.recipe.updated(**(SETTINGS | settings))
    task = make_task(recipe, table)
    network = load_bundle(finished_run.path / "probe").network
    network.freeze_statistics()
    network.unfreeze(recipe.unfreeze)
    samples = [samples_of(task, table, store, split) for split in ("train", "validation")]
    return recipe, task, network, samples, store


def _trained(finished_run, found, folder, *, is_kept, **settings):
    recipe, task, network, samples, store = _parts(finished_run, found, **settings)
    kept = keep_activations(network, samples, store, recipe, task=task) if is_kept else None
    assert (kept is not None) == is_kept
    data = TrainingData(store, *samples, kept=kept)
    tuning = FineTuning(make_fabric(recipe), network, data, task=task, recipe=recipe, folder=folder)
    tuning.run()
    return tuning


def test_kept_activations_train_the_weights_that_whole_passes_train(finished_run, found, tmp_path):
    whole = _trained(finished_run, found, tmp_path / "whole", is_kept=False)
    kept = _trained(finished_run, found, tmp_path / "kept", is_kept=True)
    ours, theirs = kept.network.state_dict(), whole.network.state_dict()
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-4) for name in ours)
    assert kept.counters.best_score == pytest.approx(whole.counters.best_score, abs=1e-3)


def test_the_frozen_blocks_run_once_and_are_found_again(finished_run, found, capsys):
    recipe, task, network, samples, store = _parts(finished_run, found, epochs=9)
    keep_activations(network, samples, store, recipe, task=task)
    capsys.readouterr()
    kept = keep_activations(network, samples, store, recipe, task=task)
    assert kept is not None
    assert "they run once a photo instead of 9; the activations were there already" in capsys.readouterr().out
    assert kept.train.values[0].shape == (len(samples[0].records), *kept.cut.shape)


def test_views_are_taken_in_turn_by_the_epochs(finished_run, found, tmp_path):
    tuning = _trained(finished_run, found, tmp_path, is_kept=True, augment="standard", views=2)
    loaders = [tuning._loader(epoch, first_batch=0) for epoch in range(3)]
    assert [loader.view for loader in loaders] == [0, 1, 0]
    first, second = tuning.data.kept.train.values
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_what_is_frozen_in_all_stages_is_kept_through_them(finished_run, found, tmp_path):
    stages = {"unfreeze": "none", "unfreeze_later": "2=1,3=2", "batch_norm": "frozen"}
    whole = _trained(finished_run, found, tmp_path / "whole", is_kept=False, **stages)
    kept = _trained(finished_run, found, tmp_path / "kept", is_kept=True, **stages)
    ours, theirs = kept.network.state_dict(), whole.network.state_dict()
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-4) for name in ours)
    before = load_bundle(finished_run.path / "probe").network.state_dict()
    blocks = [f"backbone.{block[0]}" for block in kept.network.blocks]
    assert [ours[name].equal(before[name]) for name in blocks[-3:]] == [True, False, False]


def test_stages_that_come_to_the_whole_network_keep_nothing(finished_run, found):
    recipe, task, network, samples, store = _parts(finished_run, found, unfreeze_later="2=all")
    assert keep_activations(network, samples, store, recipe, task=task) is None


def test_one_pass_is_enough_where_no_view_differs(finished_run, found):
    recipe, task, network, samples, store = _parts(finished_run, found, views=4)
    kept = keep_activations(network, samples, store, recipe, task=task)
    assert kept is not None
    assert len(kept.train.values) == 1


def test_a_frozen_network_runs_once_where_its_head_goes_on_from_a_run(finished_run, found, tmp_path):
    settings = {"unfreeze": "none", "from_run": str(finished_run.path)}
    whole = _trained(finished_run, found, tmp_path / "whole", is_kept=False, **settings)
    kept = _trained(finished_run, found, tmp_path / "kept", is_kept=True, **settings)
    ours, theirs = kept.network.head.state_dict(), whole.network.head.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": "light"}, "--views 4 would keep four"),
        ({"cache_gb": 1e-6}, "are over --cache-gb 1e-06"),
        ({"unfreeze": "all"}, ""),
        ({"cutmix": 0.5}, ""),
    ],
)
def test_activations_are_not_kept_where_they_would_not_do_and_it_is_said(
    finished_run, found, capsys, settings, message
):
    recipe, task, network, samples, store = _parts(finished_run, found, **settings)
    assert keep_activations(network, samples, store, recipe, task=task) is None
    assert message in capsys.readouterr().out


def test_batches_come_in_order_and_from_where_they_are_asked(finished_run, found):
    recipe, task, network, samples, store = _parts(finished_run, found)
    kept = keep_activations(network, samples, store, recipe, task=task)
    order = np.arange(len(samples[0].records))[::-1].copy()
    batches = list(ActivationLoader(kept.train, 0, order, 50, first_batch=2))
    assert np.concatenate([batch.positions for batch in batches]).tolist() == order[100:].tolist()
    assert torch.equal(batches[0].pixels, torch.from_numpy(kept.train.values[0][order[100:150]]))
