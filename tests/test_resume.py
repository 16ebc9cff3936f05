"""A run that is stopped anywhere and resumed ends with the bits of the run that was never stopped."""

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from headstart import pipeline
from headstart.errors import TrainingError
from headstart.training.history import read_history
from headstart.training.loop import FineTuning, _DivergedError
from headstart.training.probe import _Probe
from renumbered_store import renumber_store
from small_run import SMALL_RUN


def _flags(settings):
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def _start(log, *arguments):
    """Start a training whose output goes to a file: a pipe would stay open when its writer is killed."""
    command = [sys.executable, "-m", "headstart", "train", *map(str, arguments)]
    with log.open("a") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def _weights(run):
    return load_file(run / "bundle" / "weights.safetensors"), load_file(run / "checkpoints" / "last.safetensors")


def _run_killed_at(moments, digits, out, settings):
    """Train, kill after each of the moments (seconds), resume; the last session runs to its end."""
    log, anew = out.with_suffix(".log"), (digits, "--out", out, *_flags(settings))
    process = _start(log, *anew)
    for seconds in moments:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process = _start(log, *(("--resume", out) if (out / "recipe.toml").exists() else anew))
    assert process.wait(timeout=300) == 0, log.read_text()


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bits(digits, tmp_path):
    settings = SMALL_RUN | {"epochs": 40, "patience": 40, "checkpoint_seconds": 0.2}
    start = time.monotonic()
    _run_killed_at([], digits, tmp_path / "whole", settings)
    seconds = time.monotonic() - start
    draw = random.Random(0)
    moments = [draw.uniform(0.3, 1.0) * seconds * 0.8 for _ in range(10)]
    _run_killed_at(moments, digits, tmp_path / "killed", settings)
    for whole, killed in zip(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"), strict=True):
        assert whole.keys() == killed.keys()
        assert all(whole[name].equal(killed[name]) for name in whole)


def test_a_run_whose_store_was_renumbered_between_two_sessions_ends_with_the_same_bits(finished_run, tmp_path):
    run = shutil.copytree(finished_run.path, tmp_path / "run")
    for name in ("checkpoints", "bundle"):
        shutil.rmtree(run / name)
    (run / "report.html").unlink()
    renumber_store(run, tmp_path / "store")
    pipeline.resume(run)
    for whole, resumed in zip(_weights(finished_run.path), _weights(run), strict=True):
        assert all(whole[name].equal(resumed[name]) for name in whole)


def test_a_run_that_was_stopped_in_its_head_goes_on_with_it(digits, tmp_path, monkeypatch):
    settings = SMALL_RUN | {"unfreeze": "none", "epochs": 6, "batch_size": 32}
    whole = pipeline.train(digits, out=tmp_path / "whole", **settings)
    run_epoch, epochs = _Probe.run_epoch, []

    def stopped(self, *data):
        epochs.append(self.counters.epoch)
        if len(epochs) == 4:
            raise KeyboardInterrupt
        return run_epoch(self, *data)

    monkeypatch.setattr(_Probe, "run_epoch", stopped)
    with pytest.raises(KeyboardInterrupt, match="Nothing is lost"):
        pipeline.train(digits, out=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "probe" / "last.safetensors").exists()
    run = pipeline.resume(tmp_path / "run")
    assert epochs == [0, 1, 2, 3, 3, 4, 5]
    assert not (tmp_path / "run" / "probe" / "last.safetensors").exists()
    ours, theirs = (load_file(one.path / "bundle" / "weights.safetensors") for one in (run, whole))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert read_history(run.path).height == 6


def test_a_run_that_diverged_for_good_ends_with_its_best_epoch_and_says_so(digits, tmp_path, monkeypatch, capsys):
    take_step, problem = FineTuning.train_step, "the loss was nan in epoch 2, step 1"

    def diverging(self, batch):
        if self.counters.epoch == 1:
            self._has_diverged = True
            raise _DivergedError(problem)
        take_step(self, batch)

    monkeypatch.setattr(FineTuning, "train_step", diverging)
    with pytest.raises(TrainingError, match=f"got '{problem}'.* --resume RUN it ends with the best epoch"):
        pipeline.train(digits, out=tmp_path / "run", **SMALL_RUN)
    monkeypatch.undo()
    capsys.readouterr()
    run = pipeline.resume(tmp_path / "run")
    note = f"Training diverged at half the learning rate, too, and was stopped: {problem}."
    assert note in capsys.readouterr().out
    assert note in (run.path / "report.html").read_text(encoding="utf-8")
    assert read_history(run.path).filter(stage="fine-tune").height == 1
    assert all(value.isfinite().all() for value in load_file(run.path / "bundle" / "weights.safetensors").values())


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume(digits, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    process = _start(log, digits, "--out", run, *_flags(SMALL_RUN | {"epochs": 300, "patience": 300}))
    while not (run / "checkpoints" / "last.safetensors").exists():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert f"headstart train --resume {run}" in log.read_text()
    assert "Traceback" not in log.read_text()
