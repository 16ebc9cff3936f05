"""What the recipes fast, standard and best give and take: accuracy on the given test set, and time.

Each trains as ``headstart train --recipe NAME`` does, on the scenes at 112 px (the photos are 100 px wide), in turn, in
a process and with a pixel store of its own, everything charged. What is said of them in their first lines comes from
here.

Usage: HEADSTART_DATA=… python benchmarks/gallery.py [--quick] [--record]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Aim, data_folder, finish, parse_arguments

IMAGE_SIZE = 112
RECIPES = ("fast", "standard", "best")


@dataclass(frozen=True)
class Result:
    """What a recipe came to.

    Attributes:
        test: Scores of the test by name.
        seconds: Of the whole process.
        training: Seconds of training alone, without the pass over the files.
    """

    test: dict[str, dict[str, float]]
    seconds: float
    training: float

    def describe(self, name: str) -> str:
        """Say both in a line."""
        accuracy, loss = self.test["accuracy"], self.test["log_loss"]
        interval = f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}"
        of = f"log loss {loss['value']:.3f}, {self.seconds:.0f} s in all, {self.training:.0f} s of training"
        return f"{name}: accuracy {100 * accuracy['value']:.2f} % ({interval}), {of}"


def main() -> None:
    """Train by each recipe and print what it gives."""
    arguments = parse_arguments((__doc__ or "").splitlines()[0])
    photos = data_folder() / "scenes_intel100"
    with tempfile.TemporaryDirectory() as scratch:
        flags: dict[str, Any] = {"image-size": IMAGE_SIZE, "backbone": "mobilenetv2_100"}
        more = {"epochs": 1, "probe-epochs": 2} if arguments.quick else {}
        results: dict[str, Result] = {}
        for name in RECIPES:
            own = {} if name == "fast" else more
            results[name] = _train(photos, Path(scratch) / name, flags | own, recipe=name)
            print(results[name].describe(name), flush=True)
    values = {name: 100 * one.test["accuracy"]["value"] for name, one in results.items()}
    aims = [
        Aim("standard-gains-points-over-fast", values["standard"] - values["fast"], 0.0),
        Aim("best-gains-points-over-standard", values["best"] - values["standard"], 0.0),
    ]
    notes = [one.describe(name) for name, one in results.items()]
    ratios = [results[name].seconds / results["fast"].seconds for name in RECIPES[1:]]
    notes.append(f"standard takes {ratios[0]:.1f} times as long as fast, best {ratios[1]:.1f} times")
    finish(aims, packages=("headstart", "torch", "timm"), record=arguments.record, notes=notes)


def _train(photos: Path, out: Path, flags: dict[str, Any], *, recipe: str) -> Result:
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    words += ["--store-dir", f"{out}-store", "--recipe", recipe]
    start = time.perf_counter()
    command = [sys.executable, "-m", "headstart", "train", str(photos), "--out", str(out), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return Result(metrics["test"], seconds, metrics["seconds"]["training"])


if __name__ == "__main__":
    main()
