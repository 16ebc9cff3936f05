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
