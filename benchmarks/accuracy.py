"""What the main path reaches on real photos: scenes with a given test folder, and faces of 118 persons.

Scenes: the fine-tuned network and the probe alone, each scored once on the given test folder; every choice (epochs,
learning rate) was made on validation. Faces (CK+): the same settings on a split by person and on a random split of
single images, whose leaks headstart reports; the difference is what a random split pretends.

Usage: HEADSTART_DATA=… python benchmarks/accuracy.py [--quick] [--record]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import headstart
from harness import Aim, data_folder, finish, parse_arguments

FACES: dict[str, Any] = {"image_size": 96, "lr": 5e-4, "epochs": 12}


def main() -> None:
    """Train, score, and print what was reached."""
    arguments = parse_arguments((__doc__ or "").splitlines()[0])
    data = data_folder()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = {"epochs": 1, "image_size": 96} if arguments.quick else {"epochs": 4, "warmup_epochs": 0.5}
        scenes = [
            train_once(data / "scenes_intel100", folder / name, folder, **settings, **changes)
            for name, changes in (("fine-tuned", {}), ("probe", {"unfreeze": "none"}))
        ]
        faces = by_person_and_random(data / "ck48_emotion_by_subject", folder, quick=arguments.quick)
    notes = [f"scenes, {name}: {line(scores)}" for name, scores in zip(("fine-tuned", "probe"), scenes, strict=True)]
    notes += [f"faces, {name}: {line(scores)}" for name, scores in faces.items()]
    values = [scores["test"]["accuracy"]["value"] for scores in (*scenes, *faces.values())]
    aims = [
        Aim("scenes-fine-tuned-accuracy", values[0], 0.89),
        Aim("scenes-gain-over-probe-points", 100 * (values[0] - values[1]), 0.0),
        Aim("faces-random-split-pretends-points", 100 * (values[3] - values[2]), 0.0),
    ]
    print(*notes, sep="\n")
    finish(aims, packages=("headstart", "torch", "timm", "openvino"), record=arguments.record, notes=notes)


def train_once(data: Path, out: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    """Train with MobileNetV2 and give the run's metrics."""
    run = headstart.train(data, out=out, store_dir=str(folder / "store"), backbone="mobilenetv2_100", **settings)
    return json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))


def by_person_and_random(data: Path, folder: Path, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Train on a split that keeps persons apart, and on a random one of single images with the same sizes."""
    rows = pl.read_csv(data / "labels.csv").with_columns(path=pl.lit(f"{data}/") + pl.col("file")).drop("file")
    shares = np.random.default_rng(0).permutation(rows.height) / rows.height
    names = np.array(["train", "validation", "test"])[np.digitize(shares, [0.7, 0.85])]
    rows.with_columns(split=pl.Series(names)).write_csv(folder / "random.csv")
    rows.write_csv(folder / "persons.csv")
    settings = {**FACES, "label_column": "label", **({"epochs": 1} if quick else {})}
    persons = train_once(folder / "persons.csv", folder / "persons", folder, group_column="subject", **settings)
    random = train_once(folder / "random.csv", folder / "random", folder, split_column="split", **settings)
    return {"persons apart": persons, "random images": random}


def line(scores: dict[str, Any]) -> str:
    """Say test and validation accuracy with the test's interval."""
    test, validation = scores["test"]["accuracy"], scores["validation"]["accuracy"]["value"]
    interval = f"{test['low']:.4f} to {test['high']:.4f}"
    return f"test {test['value']:.4f} ({interval}), validation {validation:.4f}, chosen: {scores['chosen']}"


if __name__ == "__main__":
    main()
