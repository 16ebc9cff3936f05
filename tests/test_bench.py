"""The training bench end to end: every network, every recipe of the gallery, and options whose effect can be seen."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headstart
from headstart.errors import RecipeError
from headstart.gallery import FOLDER, describe_gallery, find_recipe, gallery
from headstart.models.bundle import load_bundle
from headstart.pipeline import resume
from headstart.recipe import make_recipe, read_recipe
from headstart.resolution import completed
from headstart.samples import write_faces
from headstart.training.history import read_history
from headstart.training.loop import FineTuning
from labelled_photos import write_labelled_photos
from small_run import SMALL_RUN

NETWORKS = [
    *("vgg16", "efficientnet_b0", "efficientnet_b4", "efficientnet_b2_pruned", "resnet18", "resnet50", "resnet101"),
    *("rexnet_100", "darknet53", "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv2_100"),
]
TINY = {"image_size": 64, "weights": "none", "num_threads": 1, "device": "cpu", "ema_decay": 0.0}


@pytest.fixture(scope="module")
def few_digits(digits, tmp_path_factory):
    """Three classes of 14 digits."""
    folder = tmp_path_factory.mktemp("few") / "digits"
    for name in "012":
        (folder / name).mkdir(parents=True)
        for picture in sorted((digits / name).iterdir())[:14]:
            shutil.copy(picture, folder / name)
    return folder


@pytest.fixture(scope="module")
def few_faces(tmp_path_factory):
    """40 drawn faces of five persons."""
    folder = tmp_path_factory.mktemp("faces") / "faces"
    write_faces(folder, count=40)
    return folder


def _metrics(run):
    return json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", NETWORKS)
def test_a_network_trains_its_last_block_from_kept_activations_and_resumes_with_the_same_bits(
    few_digits, tmp_path, monkeypatch, capsys, backbone
):
    settings = TINY | {"backbone": backbone, "unfreeze": "1", "augment": "none", "epochs": 2, "batch_size": 8}
    settings |= {"probe_epochs": 2, "monitor": "log_loss", "batch_norm": "frozen", "store_dir": str(tmp_path / "store")}
    whole = headstart.train(few_digits, out=tmp_path / "whole", **settings)
    assert "kept the output of the frozen blocks" in capsys.readouterr().out
    frozen = load_bundle(whole.path / "probe").network.state_dict()
    trained = load_file(whole.path / "checkpoints" / "last.safetensors")
    network = load_bundle(whole.path).network
    last_block = {f"backbone.{name}" for name in network.blocks[-1]}
    moved = {name for name in dict(network.named_parameters()) if not trained[f"network.{name}"].equal(frozen[name])}
    assert {name for name in moved if not name.startswith("head.")} <= last_block
    assert moved & last_block
    assert "head.linear.weight" in moved
    buffers = {name for name, _ in network.backbone.named_buffers()}
    assert all(trained[f"network.backbone.{name}"].equal(frozen[f"backbone.{name}"]) for name in buffers)
    assert all(value.isfinite().all() for value in trained.values())
    steps, take_step = iter(range(3)), FineTuning.train_step

    def interrupted(self, batch):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        take_step(self, batch)

    monkeypatch.setattr(FineTuning, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        headstart.train(few_digits, out=tmp_path / "cut", **settings)
    monkeypatch.undo()
    resumed = resume(tmp_path / "cut")
    for name in ("bundle/weights.safetensors", "checkpoints/last.safetensors"):
        ours, theirs = (load_file(run.path / name) for run in (whole, resumed))
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours)
    shutil.rmtree(tmp_path, ignore_errors=True)


SHORT = {"weights": "none", "epochs": 1, "batch_size": 8, "num_threads": 1, "device": "cpu", "image_size": 64}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in gallery() if "-rmsprop-1e" not in name])
def test_a_recipe_of_the_gallery_trains_an_epoch_evaluates_and_bundles(few_digits, few_faces, tmp_path, name):
    settings = read_recipe(find_recipe(FOLDER / f"{name}.toml"))
    short = SHORT | {"probe_epochs": min(settings.get("probe_epochs", 2), 2), "store_dir": str(tmp_path / "store")}
    short |= {"views": 1} if "views" in settings else {}
    if settings.get("task") == "keypoints":
        short |= {"data": str(few_faces / "images"), "annotations": str(few_faces / "labels")}
    else:
        short |= {"data": str(few_digits)}
    if "label" in settings:
        short |= {"data": str(write_labelled_photos(tmp_path / "labelled", count=60).table), "group_column": "person"}
    short |= {"folds": 2} if "folds" in settings else {}
    if settings.get("loss") == "bce":
        short |= {"data": str(_two_classes(few_digits, tmp_path / "two"))}
    recipe = make_recipe(completed(short, settings))
    assert recipe.epochs == 1
    run = headstart.train(out=tmp_path / "run", recipe=recipe)
    key = "nme" if recipe.task == "keypoints" else "exact" if recipe.label is not None else "accuracy"
    assert np.isfinite(_metrics(run)["test"][key]["value"])
    assert headstart.load(run.path) is not None
    shutil.rmtree(tmp_path, ignore_errors=True)


def _two_classes(photos, folder):
    for name in "01":
        shutil.copytree(photos / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["driver/v3l-aug-rmsprop-1e-7", "driver/v3l-aug-rmsprop-1e-3"])
def test_a_recipe_that_goes_on_from_a_run_does(few_faces, tmp_path, name):
    base = SHORT | {"data": str(few_faces / "images"), "annotations": str(few_faces / "labels")}
    base |= {"store_dir": str(tmp_path / "store")}
    parent = make_recipe(completed(base, read_recipe(find_recipe(FOLDER / "driver/v3l-aug.toml"))))
    first = headstart.train(out=tmp_path / "first", recipe=parent)
    settings = read_recipe(find_recipe(FOLDER / f"{name}.toml"))
    recipe = make_recipe(completed(base | {"from_run": str(first.path)}, settings))
    run = headstart.train(out=tmp_path / "second", recipe=recipe)
    assert (recipe.optimizer, recipe.schedule) == ("rmsprop", "constant")
    assert np.isfinite(_metrics(run)["test"]["nme"]["value"])


def test_every_recipe_says_what_it_teaches_and_is_valid():
    for name, line in gallery().items():
        assert line.endswith("."), name
        make_recipe(completed({}, read_recipe(find_recipe(FOLDER / f"{name}.toml"))))
    assert len(gallery()) >= 35
    assert all(line.startswith("scenes/") for line in describe_gallery("scenes"))
    with pytest.raises(RecipeError, match="Did you mean 'scenes/cutmix'"):
        find_recipe(Path("scenes/cutmx"))


def test_the_schedule_is_drawn_before_training_in_the_terminal_and_as_svg(finished_run, tmp_path):
    command = [sys.executable, "-m", "headstart", "schedule", "--schedule", "one_cycle", "--epochs", "5"]
    done = subprocess.run([*command, "--out", str(tmp_path / "curve.svg")], capture_output=True, text=True, check=True)
    assert "one-cycle: 5 epochs of 100 steps, adamw" in done.stdout
    assert "epoch 5  " in done.stdout
    assert (tmp_path / "curve.svg").read_text().startswith("<svg xmlns=")
    for flags, line in (
        (["--unfreeze", "none"], "after 1 epoch of warm-up: 60 epochs of 100 steps"),
        (["--budget", "5m"], "Drawn for 24 epochs; under --budget 5m there are as many as fit."),
    ):
        done = subprocess.run([*command[:4], *flags], capture_output=True, text=True, check=True)
        assert line in done.stdout
    of_run = [sys.executable, "-m", "headstart", "schedule", str(finished_run.path)]
    done = subprocess.run(of_run, capture_output=True, text=True, check=True)
    assert f"3 epochs of {-(-210 // SMALL_RUN['batch_size'])} steps" in done.stdout


def test_a_run_says_what_it_trains_and_where_an_epochs_time_went(finished_run):
    report = (finished_run.path / "report.html").read_text(encoding="utf-8")
    assert "Training the whole network: 373,658 of 373,658 parameters" in report
    assert "A median epoch: waiting for pixels" in report
    columns = read_history(finished_run.path).columns
    assert {"wait_seconds", "step_seconds", "augment_seconds", "validation_seconds", "checkpoint_seconds"} <= set(
        columns
    )


def test_mixed_photos_stand_on_the_contact_sheet_with_their_boxes():
    from headstart.reporting.mixed_sheet import mix_sheet

    grey = [[np.full((64, 64, 3), 20 * number, np.uint8) for _ in range(4)] for number in range(5)]
    assert mix_sheet(grey, make_recipe({})) is grey
    mixed = mix_sheet(grey, make_recipe({"cutmix": 1.0}))
    changed = [not np.array_equal(image, before[0]) for row, before in zip(mixed, grey, strict=True) for image in row]
    assert np.mean(changed) > 0.6
    assert any((image == 255).any() for row in mixed for image in row)


def test_compiling_is_left_where_it_cannot_repay_and_undone_where_it_fails():
    from headstart.models.network import new_network
    from headstart.training.compiling import try_compiling

    network = new_network(make_recipe({"backbone": "test_resnet", "weights": "none", "image_size": 32}), 3)
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    short = try_compiling(network, lambda: network(pixels), steps_left=10)
    assert not short.is_compiled
    assert "compiling alone about 80 s" in short.words

    def fails():
        if network._compiled_call_impl is not None:
            raise RuntimeError("no C++ compiler found\nat line 3")
        return network(pixels)

    failed = try_compiling(network, fails, steps_left=10**9)
    assert (failed.is_compiled, failed.words) == (False, "not compiled: no C++ compiler found")
    assert network._compiled_call_impl is None
