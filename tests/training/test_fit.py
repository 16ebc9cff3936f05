"""Choosing devices, and choosing between probe and fine-tuning on validation."""

import json

import pytest
import torch

import headstart
from headstart.errors import RecipeError, TrainingError
from headstart.recipe import make_recipe
from headstart.training.fit import make_fabric
from headstart.training.history import read_history
from small_run import SMALL_RUN


def test_a_cpu_trains_in_full_precision():
    fabric = make_fabric(make_recipe({"device": "cpu"}))
    assert fabric.device.type == "cpu"
    assert fabric.strategy.precision.precision == "32-true"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(device: str):
    if getattr(torch, "cuda" if device == "cuda" else "mps").is_available():
        pytest.skip("it is there")
    with pytest.raises(TrainingError, match=f"device must be a device of this machine; got '{device}'"):
        make_fabric(make_recipe({"device": device}))


def test_a_batch_must_divide_among_devices():
    with pytest.raises(RecipeError, match="batch_size must be a multiple of num_devices; got 32 and 3"):
        make_recipe({"device": "cpu", "num_devices": 3})


def test_fine_tuning_that_spoils_the_probe_is_not_the_model(digits, tmp_path):
    settings = SMALL_RUN | {"lr": 100.0, "epochs": 1, "warmup_epochs": 0, "probe_epochs": 30, "ema_decay": 0}
    run = headstart.train(digits, out=tmp_path / "run", **settings)
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["chosen"] == "probe"
    assert metrics["validation"]["accuracy"]["value"] == pytest.approx(metrics["stages"]["probe"]["accuracy"])


@pytest.mark.slow
def test_two_processes_train_as_one_run(digits, tmp_path):
    run = headstart.train(digits, out=tmp_path / "run", **SMALL_RUN | {"num_devices": 2, "num_threads": 1})
    losses = read_history(run.path).filter(stage="fine-tune")["train_loss"].to_list()
    assert len(losses) == SMALL_RUN["epochs"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
