"""Facial points on persons never seen: headstart's default against the diary's recipe, written plainly in PyTorch.

The recipe is what teams write first: MobileNetV2 with global pooling and one linear layer, mean squared error on
normalised coordinates, Adam at 1e-3, letterboxed faces of 224 pixels, flips with the pairs swapped, the epoch with the
lowest validation loss. Its pictures are decoded and letterboxed once and kept in memory. Both train on the same
persons for the same number of epochs from the same ImageNet weights, and are scored on the same persons, who are in
neither training nor validation. Errors are divided by the distance of the outer corners of the eyes.

The official split has every test person in training too; ``--official`` trains on it as well and prints what it
flatters.

Usage: HEADSTART_DATA=… python benchmarks/keypoints.py [--quick] [--epochs 8] [--official] [--record]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

import headstart
from harness import Aim, data_folder, finish
from headstart.data.keypoints import points_of
from headstart.data.table import SampleTable

SIZE = 224
EYE_CORNERS = (36, 45)
PAIRS = [
    *((i, 16 - i) for i in range(8)),
    *((17, 26), (18, 25), (19, 24), (20, 23), (21, 22), (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42)),
    *((40, 47), (41, 46), (48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
]
"""The left and right points of the 68-point layout, as a careful author of the recipe would type them."""
MIRRORED = np.arange(68)
for _left, _right in PAIRS:
    MIRRORED[_left], MIRRORED[_right] = _right, _left
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def main() -> None:
    """Train both, score both on the same persons, and print the gain."""
    arguments = _arguments()
    data = data_folder() / "face_keypoints_udacity"
    with tempfile.TemporaryDirectory() as scratch:
        ours = _train(data, "training", Path(scratch), "persons", arguments)
        table = SampleTable.load(ours["run"].path / "table.parquet")
        theirs = _diary(table, epochs=arguments.epochs, quick=arguments.quick)
        notes = [_compared(ours, theirs)]
        aims = _aims(ours, theirs)
        print(*notes, *(aim.line for aim in aims), sep="\n", flush=True)
        if arguments.official:
            notes.append(_official(data, Path(scratch), arguments, ours))
            print(notes[-1])
    finish(aims, packages=("headstart", "torch", "timm"), record=arguments.record, notes=notes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one epoch on few steps: to see that it runs")
    parser.add_argument("--record", action="store_true", help="append the result to benchmarks/RESULTS.md")
    parser.add_argument("--official", action="store_true", help="train on the official split, too")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    arguments.epochs = 1 if arguments.quick else arguments.epochs
    return arguments


def _train(data: Path, part: str, scratch: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with headstart's defaults; give the run, its seconds, and the test's rows."""
    settings: dict[str, Any] = {"validation_fraction": 0.15, "test_fraction": 0.25, "group_column": "person"}
    if name == "official":
        settings = {"split_column": "split"}  # without groups: every test person trains, which would be refused
    table = _table(data, part, scratch / f"{name}.csv")
    if arguments.quick:
        settings["image_size"] = 64
    start = time.perf_counter()
    run = headstart.train(
        table, out=scratch / name, task="keypoints", nme_points="36,45",
        epochs=arguments.epochs, store_dir=str(scratch / "store"), **settings,
    )  # fmt: skip
    rows = pl.read_parquet(run.path / "predictions.parquet").filter(split="test")
    metrics = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
    return {"run": run, "seconds": time.perf_counter() - start, "rows": rows, "metrics": metrics}


def _table(data: Path, part: str, path: Path) -> Path:
    """Write the official CSVs as one table with persons (and, for the official split, with that split)."""
    parts = {"training": "train", "test": "test"} if part == "both" else {"training": None}
    frames = []
    for name, split in parts.items():
        rows = pl.read_csv(data / f"{name}_frames_keypoints.csv")
        names = [f"{axis}{k}" for k in range(1, 69) for axis in "xy"]
        rows = rows.rename(dict(zip(rows.columns, ["file", *names], strict=True)))
        person = pl.col("file").str.extract(r"^(.*)_\d+\.jpg$", 1).alias("person")
        path_of = (pl.lit(f"{data / name}/") + pl.col("file")).alias("path")
        frames.append(rows.select(path_of, person, pl.lit(split, pl.String).alias("split"), *names))
    table = pl.concat(frames)
    (table if part == "both" else table.drop("split")).write_csv(path)
    return path


def _official(data: Path, scratch: Path, arguments: argparse.Namespace, ours: dict[str, Any]) -> str:
    """Say what the official split flatters: its NME beside that of new persons."""
    flattered = _train(data, "both", scratch, "official", arguments)["metrics"]["test"]["nme"]
    honest = ours["metrics"]["test"]["nme"]
    gap = honest["value"] - flattered["value"]
    return (
        f"official split (every test person in training too): NME {flattered['value']:.2f} % "
        f"({flattered['low']:.2f} to {flattered['high']:.2f}), {gap:.2f} points below that of new persons"
    )


def _diary(table: SampleTable, *, epochs: int, quick: bool) -> dict[str, Any]:
    """Train the plain recipe on headstart's split; give each test row's NME and the seconds."""
    start = time.perf_counter()
    splits = {}
    for split in ("train", "validation", "test"):
        rows = table.kept.filter(pl.col("split") == split)
        splits[split] = _letterboxed(table.absolute_paths(rows).to_list(), points_of(rows))
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_100", num_classes=0)
    weights = next((data_folder() / "weights").glob("mobilenetv2_100-*.safetensors"))
    network.load_state_dict(load_file(weights), strict=False)
    network = nn.Sequential(network, nn.Linear(1280, 2 * 68)).to(memory_format=torch.channels_last)
    optimizer, rng = torch.optim.Adam(network.parameters(), lr=1e-3), np.random.default_rng(0)
    best, state = float("inf"), network.state_dict()
    for epoch in range(epochs):
        loss = _diary_epoch(network, optimizer, splits["train"], rng, num_steps=4 if quick else None)
        found = _predicted(network, splits["validation"][0])
        validation = float(np.square(found - splits["validation"][1] / SIZE).mean())
        line = f"plain recipe, epoch {epoch + 1}/{epochs}: train MSE {loss:.5f}, validation MSE {validation:.5f}"
        print(line, flush=True)
        if validation < best:
            best, state = validation, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    images, points = splits["test"]
    distance = np.linalg.norm(_predicted(network, images) * SIZE - points, axis=2).mean(axis=1)
    eyes = np.linalg.norm(points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]], axis=1)
    return {"nme": 100 * distance / eyes, "seconds": time.perf_counter() - start}


def _letterboxed(paths: list[str], points: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    images = np.full((len(paths), SIZE, SIZE, 3), 128, np.uint8)
    moved = np.empty_like(points)
    for row, path in enumerate(paths):
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
        height, width = image.shape[:2]
        scale = SIZE / max(height, width)
        size = (round(width * scale), round(height * scale))
        left, top = (SIZE - size[0]) // 2, (SIZE - size[1]) // 2
        shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        images[row, top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=shrink)
        moved[row] = points[row] * [size[0] / width, size[1] / height] + [left, top]
    return images, moved


def _diary_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    samples: tuple[NDArray[np.uint8], NDArray[np.float64]],
    rng: np.random.Generator,
    *,
    num_steps: int | None,
) -> float:
    images, points = samples
    network.train()
    order, losses = rng.permutation(len(images)), []
    for start in range(0, len(order) - 31, 32)[:num_steps]:
        chosen = order[start : start + 32]
        batch, targets = images[chosen].copy(), points[chosen].copy()
        for row in np.flatnonzero(rng.random(len(chosen)) < 0.5):
            batch[row] = batch[row, :, ::-1]
            targets[row] = np.stack([SIZE - targets[row, :, 0], targets[row, :, 1]], 1)[MIRRORED]
        answers = network(_normalised(batch)).view(-1, 68, 2)
        loss = nn.functional.mse_loss(answers, torch.from_numpy(targets / SIZE).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _normalised(images: NDArray[np.uint8]) -> torch.Tensor:
    values = (images.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(values).permute(0, 3, 1, 2)  # channels last in memory, the faster layout


def _predicted(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    network.eval()
    with torch.inference_mode():
        parts = [network(_normalised(images[start : start + 64])) for start in range(0, len(images), 64)]
    return torch.cat(parts).view(-1, 68, 2).double().numpy()


def _by_person(rows: pl.DataFrame, nme: NDArray[np.float64]) -> dict[str, float]:
    frame = pl.DataFrame({"person": rows["group"], "nme": nme}).group_by("person").agg(pl.col("nme").mean())
    return dict(frame.sort("person").iter_rows())


def _quartile_gains(ours: dict[str, float], theirs: dict[str, float]) -> list[float]:
    """Give ours over theirs in each quarter of the persons, the easiest first by what both make of them together."""
    persons = sorted(ours, key=lambda name: ours[name] + theirs[name])
    quarters = np.array_split(np.array(persons), 4)
    return [float(np.mean([ours[p] for p in part]) / np.mean([theirs[p] for p in part])) for part in quarters]


def _compared(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    nme = ours["metrics"]["test"]["nme"]
    return (
        f"test persons: headstart NME {nme['value']:.2f} % ({nme['low']:.2f} to {nme['high']:.2f}) in "
        f"{ours['seconds']:.0f} s, the plain recipe {theirs['nme'].mean():.2f} % in {theirs['seconds']:.0f} s"
    )


def _aims(ours: dict[str, Any], theirs: dict[str, Any]) -> list[Aim]:
    lower = 100 * (1 - ours["rows"]["nme"].mean() / theirs["nme"].mean())
    quarters = _quartile_gains(
        _by_person(ours["rows"], ours["rows"]["nme"].to_numpy()), _by_person(ours["rows"], theirs["nme"])
    )
    return [
        Aim("keypoints-error-lower-percent", lower, 20.0),
        Aim("keypoints-worst-quarter-of-persons-ratio", max(quarters), 1.0, at_most=True),
        Aim("keypoints-time-ratio", ours["seconds"] / theirs["seconds"], 1.1, at_most=True),
    ]


if __name__ == "__main__":
    main()
