"""A run that is stopped anywhere and resumed ends with the bits of the run that was never stopped."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from conftest import SMALL_RUN


def _flags(settings):
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def _start(*arguments):
    command = [sys.executable, "-m", "headstart", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ.copy())


def _weights(run):
    return load_file(run / "bundle" / "weights.safetensors"), load_file(run / "checkpoints" / "last.safetensors")


def _run_killed_at(moments, digits, out, settings):
    """Train, kill after each of the moments (seconds), resume; the last session runs to its end."""
    process = _start(digits, "--out", out, *_flags(settings))
    for seconds in moments:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (out / "report.html").exists():
            break
        process = (
            _start("--resume", out)
            if (out / "recipe.toml").exists()
            else _start(digits, "--out", out, *_flags(settings))
        )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


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


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume_and_resuming_finishes(digits, tmp_path):
    process = _start(digits, "--out", tmp_path / "run", *_flags(SMALL_RUN | {"epochs": 300, "patience": 300}))
    while not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert f"headstart train --resume {tmp_path / 'run'}" in output
    assert "Traceback" not in output
