"""Frozen features are computed once, found again, and continued where a pass was cut off."""

import errno
import os

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from headstart.files import write_json
from headstart.models.bundle import load_bundle
from headstart.models.inference import BATCH_SIZE, run_network
from headstart.training import features
from headstart.training.features import cache_features


def test_features_are_those_of_the_network(parts, tmp_path):
    network, store, records = parts
    cache = cache_features(network, store, records, folder=tmp_path)
    expected = run_network(network, store, records[:5], what="features", description="")
    assert np.allclose(cache.of(records[:5]), expected, atol=1e-4)


def test_a_second_call_reads_the_cache_and_runs_nothing(parts, tmp_path):
    network, store, records = parts
    first = cache_features(network, store, records, folder=tmp_path)
    second = cache_features(network, store, records, folder=tmp_path)
    assert (first.log.num_images, second.log.num_images) == (len(np.unique(records)), 0)
    assert np.array_equal(first.values, second.values)


def test_other_weights_have_other_features(parts, tmp_path, finished_run):
    network, store, records = parts
    cache_features(network, store, records, folder=tmp_path)
    other = load_bundle(finished_run.path).network
    next(other.backbone.parameters()).data.mul_(1.01)
    assert cache_features(other, store, records, folder=tmp_path).log.num_images > 0


def test_a_pass_that_was_cut_off_goes_on_where_it_stopped(parts, tmp_path):
    network, store, records = parts
    whole = cache_features(network, store, records, folder=tmp_path / "whole")
    name = next((tmp_path / "whole").glob("*.npy")).name
    partial = tmp_path / "cut" / name.replace(".npy", ".partial.npy")
    partial.parent.mkdir()
    values = open_memmap(partial, mode="w+", dtype=np.float32, shape=whole.values.shape)
    values[: 2 * BATCH_SIZE] = whole.values[: 2 * BATCH_SIZE]
    values.flush()
    write_json(tmp_path / "cut" / name.replace(".npy", ".json"), {"batches": 2, "records": len(whole.records)})
    resumed = cache_features(network, store, records, folder=tmp_path / "cut")
    assert resumed.log.num_images == len(whole.records) - 2 * BATCH_SIZE
    assert np.allclose(resumed.values, whole.values, atol=1e-5)


def test_a_pass_notes_where_it_stands_as_time_goes_by(parts, tmp_path, monkeypatch):
    network, store, records = parts
    iterate, pauses = features.iterate_outputs, iter((0, 2, 1))

    def slow(*arguments, **options):
        for rows in iterate(*arguments, **options):
            clock[0] += next(pauses) * features.SYNC_SECONDS
            yield rows
            if clock[0] > 2 * features.SYNC_SECONDS:
                raise KeyboardInterrupt

    clock = [0.0]
    monkeypatch.setattr(features.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(features, "iterate_outputs", slow)
    with pytest.raises(KeyboardInterrupt):
        cache_features(network, store, records, folder=tmp_path)
    monkeypatch.undo()
    resumed = cache_features(network, store, records, folder=tmp_path)
    assert resumed.log.num_images == len(np.unique(records)) - 2 * BATCH_SIZE
    whole = cache_features(network, store, records, folder=tmp_path / "whole")
    assert np.allclose(resumed.values, whole.values, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot claim room on a disk")
def test_a_full_disk_is_an_error_and_leaves_no_broken_pass(parts, tmp_path, monkeypatch):
    network, store, records = parts

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        cache_features(network, store, records, folder=tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.npy"))
    assert cache_features(network, store, records, folder=tmp_path).log.num_images == len(np.unique(records))
