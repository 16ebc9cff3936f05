"""How long until the accuracy that a tutorial and fastai end at, and how much better at equal time.

All fine-tune MobileNetV2 from the same ImageNet weights on the scenes set, with the same photos for training and
validation, and are scored on the set's own test. The tutorial is plain PyTorch as it is taught (ImageFolder, random
resized crop and flip, AdamW at 1e-3 with a cosine, 6 epochs, all layers); fastai runs ``fine_tune(5)``. Every process
is charged whole: imports, data, network, training. A contestant's curve is its best validation accuracy by time; what
counts is the test accuracy of the weights that validation picked, if they stood when the better peer ended; else the
validation accuracy of what stood by then.

A seed takes about an hour on two cores. With ``--curves FOLDER`` every finished curve is kept there, and a run that
was cut off goes on after it.

Usage: HEADSTART_DATA=… python benchmarks/time_to_accuracy.py [--quick] [--seeds 3] [--curves FOLDER] [--record]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from harness import Aim, data_folder, finish, wait_passively

SIZE, BATCH_SIZE = 224, 64
WEIGHTS = "mobilenetv2_100-timm-imagenet1k.safetensors"
EPOCHS = {"tutorial": 6, "fastai": 5}
SPEED_AIM, GAIN_AIM = 3.0, 1.0


@dataclass(frozen=True)
class Curve:
    """What a contestant reached when.

    Attributes:
        points: Seconds since its start, and validation accuracy then.
        test: Test accuracy of what validation picked.
        seconds: Of the whole process.
    """

    points: list[tuple[float, float]]
    test: float
    seconds: float

    @property
    def best(self) -> float:
        """The best validation accuracy."""
        return max(accuracy for _, accuracy in self.points)

    def gain_at_equal_time(self, rival: Curve) -> tuple[float, str]:
        """Give how much more is right when the rival has ended, and on what.

        That is the test, where what is tested stood by then; else validation, of what stood by then.
        """
        if self.seconds_to(self.best) <= rival.seconds:
            return self.test - rival.test, "the test"
        by_then = (accuracy for seconds, accuracy in self.points if seconds <= rival.seconds)
        return max(by_then, default=0.0) - rival.best, "validation"

    def seconds_to(self, accuracy: float) -> float:
        """Give when it reached an accuracy; infinite where it never did."""
        return min((seconds for seconds, reached in self.points if reached >= accuracy), default=float("inf"))


def main() -> None:
    """Run the contestants and print the ratios."""
    arguments = _arguments()
    if arguments.contestant:
        _CONTESTANTS[arguments.contestant](Path(arguments.folder), arguments.epochs, arguments.seed)
        return
    wait_passively()
    data = data_folder()
    peers = ["tutorial", *(["fastai"] if find_spec("fastai") else [])]
    ratios, gains, notes = [], [], []
    for seed in range(1 if arguments.quick else arguments.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = _photos(data, Path(scratch), seed=seed, per_class=24 if arguments.quick else None)
            ours, *others = (
                _kept(arguments.curves, f"{name}-{seed}", partial(run, folder, seed=seed, is_quick=arguments.quick))
                for name, run in {"headstart": _headstart, **{name: partial(_peer, name) for name in peers}}.items()
            )
            theirs = dict(zip(peers, others, strict=True))
        better = max(theirs, key=lambda name: theirs[name].best)
        rival = theirs[better]
        ratios.append(rival.seconds_to(rival.best) / ours.seconds_to(rival.best))
        gain, measure = ours.gain_at_equal_time(rival)
        gains.append(100 * gain)
        told = [("headstart", ours), *theirs.items()]
        notes.append(f"seed {seed}: " + "; ".join(
            f"{name} validation {curve.best:.4f} after {curve.seconds_to(curve.best):.0f} s, test {curve.test:.4f}, "
            f"{curve.seconds:.0f} s in all" for name, curve in told
        ) + f"; the better peer is {better}, the gain is of {measure}")  # fmt: skip
        print(notes[-1], flush=True)
    aims = [
        Aim(
            "time-to-the-better-peers-accuracy", statistics.median(ratios), SPEED_AIM, spread=(min(ratios), max(ratios))
        ),
        Aim("gain-at-equal-time-points", statistics.median(gains), GAIN_AIM, spread=(min(gains), max(gains))),
    ]
    finish(aims, packages=("headstart", "torch", "timm"), record=arguments.record, notes=notes)


def _photos(data: Path, scratch: Path, *, seed: int, per_class: int | None) -> Path:
    """Link the photos into ``train``, ``validation`` (every seventh of train, another by seed) and ``test``."""
    folder = scratch / "photos"
    for source in ("train", "test"):
        for class_folder in sorted((data / "scenes_intel100" / source).iterdir()):
            for number, photo in enumerate(sorted(class_folder.glob("*.jpg"))[:per_class]):
                is_held = source == "train" and number % 7 == seed % 7
                target = folder / ("validation" if is_held else source) / class_folder.name
                target.mkdir(parents=True, exist_ok=True)
                (target / photo.name).symlink_to(photo)
    return folder


def _kept(curves: Path | None, name: str, run: Callable[[], Curve]) -> Curve:
    """Give a curve that an earlier run kept, or run the contestant and keep its."""
    if curves is None:
        return run()
    path = curves / f"{name}.json"
    if not path.exists():
        curve = run()
        curves.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(curve)), encoding="utf-8")
    return Curve(**json.loads(path.read_text(encoding="utf-8")))


def _headstart(folder: Path, *, seed: int, is_quick: bool) -> Curve:
    """Run the command with its defaults, and note when its lines came."""
    scratch = folder.parent
    rows = pl.DataFrame({"path": sorted(str(path) for path in folder.rglob("*.jpg"))})
    parts = pl.col("path").str.split("/")
    rows.with_columns(label=parts.list.get(-2), split=parts.list.get(-3)).write_csv(scratch / "photos.csv")
    out = scratch / "run"
    command = [sys.executable, "-m", "headstart", "train", str(scratch / "photos.csv"), "--out", str(out)]
    flags = ["--split-column", "split", "--store-dir", str(scratch / "store"), "--seed", str(seed)]
    flags += ["--backbone", "mobilenetv2_100", *(["--epochs", "1"] if is_quick else [])]
    points: list[tuple[float, float]] = []
    start = time.perf_counter()
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True, env=_environment(scratch)) as process:
        for line in process.stdout or ():
            found = re.search(r"^(?:probe: validation|epoch .*) accuracy (0\.\d+|1\.0+)", line)
            if found:
                points.append((time.perf_counter() - start, float(found[1])))
    if process.returncode:
        sys.exit("headstart failed")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return Curve(points, metrics["test"]["accuracy"]["value"], time.perf_counter() - start)


def _environment(scratch: Path) -> dict[str, str]:
    """Start with an empty cache: converting the network is charged."""
    return os.environ | {"HEADSTART_CACHE": str(scratch / "cache"), "PYTHONUNBUFFERED": "1"}


def _peer(name: str, folder: Path, *, seed: int, is_quick: bool) -> Curve:
    epochs = 1 if is_quick else EPOCHS[name]
    command = [sys.executable, __file__, "--contestant", name, "--folder", str(folder), "--epochs", str(epochs)]
    start = time.perf_counter()
    points: list[tuple[float, float]] = []
    test = 0.0
    with subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("validation "):
                points.append((time.perf_counter() - start, float(line.split()[1])))
            elif line.startswith("test "):
                test = float(line.split()[1])
    if process.returncode:
        sys.exit(f"{name} failed")
    return Curve(points, test, time.perf_counter() - start)


def _tutorial(folder: Path, epochs: int, seed: int) -> None:
    """Plain PyTorch, as tutorials have it."""
    import timm
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.manual_seed(seed)
    network = timm.create_model("mobilenetv2_100", num_classes=6)
    _load(network)
    normalise = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    changed = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *normalise]
    plain = [transforms.Resize(256), transforms.CenterCrop(SIZE), *normalise]
    sets = {part: ImageFolder(str(folder / part), transforms.Compose(changed if part == "train" else plain))
            for part in ("train", "validation", "test")}  # fmt: skip
    loaders = {
        part: DataLoader(photos, BATCH_SIZE, shuffle=part == "train", num_workers=2) for part, photos in sets.items()
    }
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loaders["train"]))
    best, kept = -1.0, network.state_dict()
    for _ in range(epochs):
        network.train()
        for images, labels in loaders["train"]:
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = _accuracy(network, loaders["validation"])
        print(f"validation {accuracy:.4f}", flush=True)
        if accuracy > best:
            best, kept = accuracy, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    print(f"test {_accuracy(network, loaders['test']):.4f}", flush=True)


def _load(network) -> None:
    from safetensors.torch import load_file

    state = load_file(Path(os.environ["HEADSTART_WEIGHTS"]) / WEIGHTS)
    missing = network.load_state_dict(
        {key: value for key, value in state.items() if "classifier" not in key}, strict=False
    )
    assert all("classifier" in key or key.startswith("1.") for key in missing.missing_keys), missing


def _accuracy(network, loader) -> float:
    import torch

    network.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def _fastai(folder: Path, epochs: int, seed: int) -> None:
    """``fine_tune``, as fastai's book has it."""
    import fastai.callback.schedule  # noqa: F401  # gives learners fine_tune
    from fastai.callback.core import Callback
    from fastai.callback.tracker import SaveModelCallback
    from fastai.data.transforms import Normalize
    from fastai.metrics import accuracy
    from fastai.torch_core import set_seed
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.core import imagenet_stats
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import vision_learner

    set_seed(seed)
    loaders = ImageDataLoaders.from_folder(
        folder, train="train", valid="validation", item_tfms=Resize(256), bs=BATCH_SIZE, num_workers=2,
        batch_tfms=[*aug_transforms(size=SIZE), Normalize.from_stats(*imagenet_stats)],
    )  # fmt: skip
    learner = vision_learner(loaders, "mobilenetv2_100", pretrained=False, metrics=accuracy)
    _load(learner.model[0].model)

    class Tell(Callback):
        order = 60  # after the recorder

        def after_epoch(self) -> None:
            print(f"validation {float(learner.recorder.values[-1][-1]):.4f}", flush=True)

    with learner.no_bar():
        learner.fine_tune(epochs, cbs=[Tell(), SaveModelCallback(monitor="accuracy")])
        test = loaders.test_dl(sorted((folder / "test").rglob("*.jpg")), with_labels=True)
        print(f"test {float(learner.validate(dl=test)[1]):.4f}", flush=True)


_CONTESTANTS = {"tutorial": _tutorial, "fastai": _fastai}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few photos, one epoch, one seed: to see that it runs")
    parser.add_argument("--record", action="store_true", help="append the result to benchmarks/RESULTS.md")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--curves", type=Path, help="folder that keeps finished curves: a run cut off goes on")
    parser.add_argument("--contestant", choices=_CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
