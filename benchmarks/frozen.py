"""Training a classifier on a frozen MobileNetV2: 30 epochs with validation, everything charged.

headstart is the whole command, from reading the files to the report, each time with an empty cache, so that converting
the network is charged. Peers are whole processes too (imports, data, network, training): torchvision + Lightning,
eager, and Keras where it is installed. A peer runs two epochs once (with --quick one), because all thirty take hours;
the others are charged as the last of them, which starts no workers and traces no graph. Accuracies are of one
validation set: the peer's head runs its 30 epochs on features from its own network, which is what its frozen epochs
would compute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from harness import Aim, data_folder, finish, wait_passively

EPOCHS = 30
BATCH_SIZE = 64
SIZE = 224


def main() -> None:
    """Run the contestants in turn and print the ratios."""
    arguments = _arguments()
    if arguments.contestant:
        _CONTESTANTS[arguments.contestant](Path(arguments.folder), arguments.epochs)
        return
    wait_passively()
    data = data_folder()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _photos(data, Path(scratch), per_class=40 if arguments.quick else None)
        _compare(folder, Path(scratch), quick=arguments.quick, record=arguments.record)


def _compare(folder: Path, scratch: Path, *, quick: bool, record: bool) -> None:
    timed_epochs = 1 if quick else 2
    ours, lightning, keras = [], [], []
    scores: dict[str, float] = {}
    for number in range(1 if quick else 3):
        seconds, scores["headstart"] = _run_headstart(folder, scratch, number)
        ours.append(seconds)
        if number == 0:  # the peers take minutes; one round of two epochs each
            seconds, scores["lightning"] = _run_peer("lightning", folder, timed_epochs)
            lightning.append(seconds)
            keras.extend([_run_peer("keras", folder, timed_epochs)[0]] if _has_keras() else [])
        print(f"round {number + 1}: headstart {ours[-1]:.1f} s, Lightning {lightning[-1]:.0f} s, Keras {keras[-1:]}")
    base = statistics.median(ours)
    aims = [Aim("frozen-vs-lightning", statistics.median(lightning) / base, 40.0)]
    aims += [Aim("frozen-vs-keras", statistics.median(keras) / base, 60.0)] if keras else []
    gap = 100 * (scores["lightning"] - scores["headstart"])
    aims.append(Aim("frozen-accuracy-gap-points", gap, 0.3, at_most=True))
    num_images = sum(1 for _ in folder.rglob("*.jpg"))
    extended = f"timed once, on {timed_epochs} epochs, and extended by the last of them"
    notes = [
        f"{num_images:,} photos (train and validation), {EPOCHS} epochs; headstart {base:.1f} s for the whole command",
        f"Lightning {statistics.median(lightning):,.0f} s, {extended}",
        f"validation accuracy: headstart {scores['headstart']:.4f}, Lightning {scores['lightning']:.4f}",
    ]
    if keras:
        notes.append(f"Keras {statistics.median(keras):,.0f} s, {extended}; time only (no weights)")
    finish(aims, packages=("headstart", "torch", "torchvision", "lightning", "openvino"), record=record, notes=notes)


def _photos(data: Path, scratch: Path, *, per_class: int | None) -> Path:
    """Link the scenes photos into ``train`` and ``validation`` folders; the given test folder validates here."""
    folder = scratch / "photos"
    for source, split in (("train", "train"), ("test", "validation")):
        for class_folder in sorted((data / "scenes_intel100" / source).iterdir()):
            target = folder / split / class_folder.name
            target.mkdir(parents=True)
            for photo in sorted(class_folder.glob("*.jpg"))[:per_class]:
                (target / photo.name).symlink_to(photo)
    return folder


def _run_headstart(folder: Path, scratch: Path, number: int) -> tuple[float, float]:
    out, store = scratch / f"run-{number}", scratch / f"store-{number}"
    rows = pl.DataFrame({"path": sorted(str(path) for path in folder.rglob("*.jpg"))}).with_columns(
        label=pl.col("path").str.split("/").list.get(-2), split=pl.col("path").str.split("/").list.get(-3)
    )
    rows.write_csv(scratch / "photos.csv")
    flags = (
        f"--epochs 0 --probe-epochs {EPOCHS} --augment none --image-size {SIZE} --test-fraction 0 --split-column split"
    )
    command = [
        sys.executable,
        "-m",
        "headstart",
        "train",
        str(scratch / "photos.csv"),
        "--out",
        str(out),
        "--store-dir",
        str(store),
    ]
    empty = os.environ | {"HEADSTART_CACHE": str(scratch / f"cache-{number}")}
    start = time.perf_counter()
    subprocess.run([*command, *flags.split()], check=True, stdout=subprocess.DEVNULL, env=empty)
    seconds = time.perf_counter() - start
    return seconds, json.loads((out / "metrics.json").read_text())["validation"]["accuracy"]["value"]


def _run_peer(name: str, folder: Path, epochs: int) -> tuple[float, float]:
    """Time a peer's process, extended by its last epoch; its own print tells when epochs began, and its accuracy."""
    command = [sys.executable, __file__, "--contestant", name, "--folder", str(folder), "--epochs", str(epochs)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - start
    report = json.loads(done.stdout.strip().splitlines()[-1])
    charged = whole - report["uncharged_seconds"]
    return charged + (EPOCHS - epochs) * report["last_epoch_seconds"], report["accuracy"]


def _lightning(folder: Path, epochs: int) -> None:
    import lightning
    import torch
    from torch.utils.data import DataLoader
    from torchvision import models, transforms
    from torchvision.datasets import ImageFolder

    network = models.mobilenet_v2()
    weights = Path(os.environ["HEADSTART_WEIGHTS"]) / "mobilenet_v2-torchvision-imagenet1k.pth"
    network.load_state_dict(torch.load(weights, weights_only=True))
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    steps = [transforms.Resize(256), transforms.CenterCrop(SIZE), transforms.ToTensor(), normalise]
    sets = [ImageFolder(str(folder / split), transforms.Compose(steps)) for split in ("train", "validation")]
    loaders = [DataLoader(s, BATCH_SIZE, shuffle=s is sets[0], num_workers=2, persistent_workers=True) for s in sets]

    starts: list[float] = []

    class Frozen(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = network.features.requires_grad_(requires_grad=False)
            self.head = torch.nn.Linear(1280, len(sets[0].classes))

        def on_train_epoch_start(self) -> None:
            starts.append(time.perf_counter())

        def features(self, images: torch.Tensor) -> torch.Tensor:
            self.backbone.eval()
            with torch.no_grad():
                return self.backbone(images).mean((2, 3))

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.head(self.features(batch[0])), batch[1])

        def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
            self.log("accuracy", (self.head(self.features(batch[0])).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.head.parameters(), lr=1e-3)

    torch.manual_seed(0)
    module = Frozen()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet)
    trainer.fit(module, *loaders)
    end = time.perf_counter()
    accuracy = _all_epochs_of_the_head(module, loaders)
    _tell(end - starts[-1], uncharged=time.perf_counter() - end, accuracy=accuracy)


def _tell(last_epoch_seconds: float, *, uncharged: float, accuracy: float) -> None:
    report = {"last_epoch_seconds": last_epoch_seconds, "uncharged_seconds": uncharged, "accuracy": accuracy}
    print(json.dumps(report))


def _all_epochs_of_the_head(module, loaders) -> float:
    """Run the peer's recipe for all its epochs on its own frozen features, and give its best validation accuracy."""
    import torch

    module.eval()
    with torch.no_grad():
        pairs = [[(module.features(images), labels) for images, labels in loader] for loader in loaders]
    (train, train_labels), (held, held_labels) = [
        [torch.cat(column) for column in zip(*rows, strict=True)] for rows in pairs
    ]
    torch.manual_seed(0)
    head = torch.nn.Linear(train.shape[1], module.head.out_features)
    optimizer, best = torch.optim.Adam(head.parameters(), lr=1e-3), 0.0
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(train)).split(BATCH_SIZE):
            loss = torch.nn.functional.cross_entropy(head(train[chosen]), train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best = max(best, float((head(held).argmax(1) == held_labels).float().mean()))
    return best


def _keras(folder: Path, epochs: int) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    def photos(split: str) -> object:
        return keras.utils.image_dataset_from_directory(
            folder / split,
            image_size=(SIZE, SIZE),
            batch_size=BATCH_SIZE,
            shuffle=split == "train",
            verbose=False,
            follow_links=True,
        )

    backbone = keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3), include_top=False, pooling="avg", weights=None
    )
    backbone.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    features = backbone(keras.applications.mobilenet_v2.preprocess_input(inputs), training=False)
    model = keras.Model(inputs, keras.layers.Dense(6, activation="softmax")(features))
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    train, held = photos("train"), photos("validation")
    starts: list[float] = []
    mark = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: starts.append(time.perf_counter()))
    model.fit(train, validation_data=held, epochs=epochs, verbose=0, callbacks=[mark])
    _tell(time.perf_counter() - starts[-1], uncharged=0.0, accuracy=0.0)


def _has_keras() -> bool:
    from importlib.util import find_spec

    return find_spec("keras") is not None and find_spec("tensorflow") is not None


_CONTESTANTS = {"lightning": _lightning, "keras": _keras}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer photos, one round, within a few minutes")
    parser.add_argument("--record", action="store_true", help="append the result to benchmarks/RESULTS.md")
    parser.add_argument("--contestant", choices=_CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
