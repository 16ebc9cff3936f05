"""Files to labels on a CPU: ``headstart predict`` against the plain PyTorch script that a user would write.

Both label the same JPEGs (480 px short side, made by enlarging photos) with the same MobileNetV2 and its ImageNet head.
The script opens each with Pillow, resizes its short side to 256, cuts out the centre 224, and runs batches of 32 in
eager PyTorch, channels last (the faster of its memory formats wherever both were measured). Charged on both sides:
building the network, reading its weights, decoding, running, and for headstart the CSV. Not charged: imports. headstart
runs twice: with an empty cache, so that the conversion of the network is charged (it weighs more on fewer photos), and
as every later time, with the converted network in the cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from harness import Aim, data_folder, finish, interleaved, parse_arguments, ratio
from headstart.deploy.predictor import load, write_predictions
from headstart.models.bundle import save_bundle
from headstart.models.network import pretrained_classifier

NAME = "mobilenetv2_100"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def main() -> None:
    """Label the photos in turn with each side and print the ratio of their times."""
    arguments = parse_arguments((__doc__ or "").splitlines()[0])
    data = data_folder()
    num_photos, rounds = (600, 1) if arguments.quick else (2000, 2)
    with tempfile.TemporaryDirectory() as scratch:
        paths = _make_photos(data, Path(scratch) / "photos", num_photos)
        names = [f"{number:03d}" for number in range(1000)]
        save_bundle(Path(scratch) / "run", pretrained_classifier(NAME, names), class_names=names)
        weights = next((data / "weights").glob(f"{NAME}-*.safetensors"))
        labels: dict[str, list[str]] = {}
        contestants = {
            "eager PyTorch": lambda: labels.update(eager=_label_plainly(weights, paths)),
            "headstart, first time": lambda: _label_with_headstart(Path(scratch), paths, empty_cache=True),
            "headstart": lambda: labels.update(headstart=_label_with_headstart(Path(scratch), paths)),
        }
        seconds = interleaved(contestants, rounds=rounds)
        note = _print_details(seconds, labels, num_photos)
    aims = []
    for name, contestant in (("first-time", "headstart, first time"), ("converted", "headstart")):
        value, spread = ratio(seconds["eager PyTorch"], seconds[contestant])
        aims.append(Aim(f"predict-{name}-vs-eager-pillow", value, 2.5, spread=spread))
    finish(aims, packages=("headstart", "torch", "timm", "openvino", "pillow"), record=arguments.record, notes=[note])


def _make_photos(data: Path, folder: Path, count: int) -> list[str]:
    folder.mkdir()
    sources = sorted((data / "scenes_intel100" / "test").rglob("*.jpg"))
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for source, path in zip(sources[:: max(1, len(sources) // count)], paths, strict=False):
        Image.open(source).convert("RGB").resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return [str(path) for path in paths]


def _label_plainly(weights: Path, paths: list[str]) -> list[str]:
    network = timm.create_model(NAME)
    network.load_state_dict(load_file(weights), strict=False)
    network.eval().to(memory_format=torch.channels_last)
    labels: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            batch = torch.stack([_open_with_pillow(path) for path in paths[start : start + 32]])
            found = network(batch.to(memory_format=torch.channels_last)).softmax(1).argmax(1)
            labels += [f"{number:03d}" for number in found.tolist()]
    return labels


def _open_with_pillow(path: str) -> torch.Tensor:
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    return (torch.from_numpy(pixels).permute(2, 0, 1) - MEAN) / STD


def _label_with_headstart(scratch: Path, paths: list[str], *, empty_cache: bool = False) -> list[str]:
    os.environ["HEADSTART_CACHE"] = str(scratch / "cache")
    if empty_cache:
        shutil.rmtree(scratch / "cache", ignore_errors=True)
    predictor = load(scratch / "run", device="cpu")
    write_predictions(predictor, paths, scratch / "out.csv", quiet=True)
    if predictor.notes:
        print(*predictor.notes)
    return pl.read_csv(scratch / "out.csv", schema_overrides={"label": pl.String})["label"].to_list()


def _print_details(seconds: dict[str, list[float]], labels: dict[str, list[str]], num_photos: int) -> str:
    print(f"{'':<24}{'seconds':>9}{'images/s':>10}")
    for name, values in seconds.items():
        median = float(np.median(values))
        print(f"{name:<24}{median:>9.2f}{num_photos / median:>10.0f}")
    agreement = float(np.mean([a == b for a, b in zip(labels["eager"], labels["headstart"], strict=True)]))
    note = f"same label for {agreement:.1%} of {num_photos} photos"
    print(note)
    return note


if __name__ == "__main__":
    main()
