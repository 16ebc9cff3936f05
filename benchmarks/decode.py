"""JPEG → RGB array of the stored size (short side 256) on one thread, against Pillow, OpenCV and torchvision.

The photos are enlarged to 720×1280 and to 12 megapixels and saved at quality 90. The others decode in full and shrink
with antialiasing: Pillow with its bilinear filter (reducing first where that helps), OpenCV by area, torchvision
bilinear. Then the pixels are compared with Pillow's (full decoding, antialiased bilinear), also of the photos as they
are.

Usage: HEADSTART_DATA=… python benchmarks/decode.py [--quick] [--record]
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize

from harness import Aim, data_folder, finish, interleaved, parse_arguments, ratio
from headstart.data.decoding import CoverRule, decode

COVER = CoverRule((224, 224))
SIZES = {"720p": (720, 1280), "12mp": (3000, 4000)}
PILLOW_AIMS = {"720p": 3.5, "12mp": 5.0}
BEST_AIM = 1.3
ROUNDS = {"720p": 25, "12mp": 9}
QUICK_ROUNDS = {"720p": 9, "12mp": 2}

Size = tuple[int, int]
Decoder = Callable[[bytes, Size], NDArray[np.uint8]]


def main() -> None:
    """Time the decoders in turn, compare pixels, and print the ratios."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    originals = {path.name: path.read_bytes() for path in sorted((data_folder() / "sample_photos").glob("*.jpg"))}
    aims: list[Aim] = []
    found: list[float] = []
    for name, size in SIZES.items():
        photos = [enlarged(data, size) for data in originals.values()]
        aims += speed_aims(name, photos, rounds=(QUICK_ROUNDS if arguments.quick else ROUNDS)[name])
        found += [psnr_to_pillow(data) for data in photos]
    found += [psnr_to_pillow(data) for data in originals.values()]
    aims += [
        Aim("decode-psnr-median", statistics.median(found), 42.0, spread=(min(found), max(found))),
        Aim("decode-psnr-least", min(found), 38.0),
    ]
    notes = [f"{len(originals)} photos, enlarged and as they are; one thread; medians of ratios photo by photo"]
    packages = ("headstart", "simplejpeg", "pillow", "opencv-python-headless", "torchvision")
    finish(aims, packages=packages, record=arguments.record, notes=notes)


def speed_aims(name: str, photos: list[bytes], *, rounds: int) -> list[Aim]:
    """Time all decoders on each photo in turn, print a row for each, and give the two ratios that are promised."""
    decoders: dict[str, Decoder] = {
        "headstart": by_headstart,
        "Pillow": by_pillow,
        "OpenCV": by_opencv,
        "torchvision": by_torchvision,
    }
    seconds: dict[str, list[float]] = {decoder: [] for decoder in decoders}
    for data in photos:
        target = COVER.stored_size(size_of(data))
        contestants = {decoder: partial(run, data, target) for decoder, run in decoders.items()}
        assert {run().shape for run in contestants.values()} == {(*target, 3)}
        for decoder, times in interleaved(contestants, rounds=rounds).items():
            seconds[decoder] += times
    ours = seconds["headstart"]
    print(f"\n{name}: {len(photos)} photos, {statistics.mean(map(len, photos)) / 1e3:.0f} kB each")
    for decoder, times in seconds.items():
        middle, (low, high) = ratio(times, ours)
        milliseconds = statistics.median(times) * 1e3
        print(f"{decoder:12} {milliseconds:8.2f} ms; headstart is {middle:.2f}× as fast ({low:.2f} to {high:.2f})")
    best = min((decoder for decoder in seconds if decoder != "headstart"), key=lambda d: statistics.median(seconds[d]))
    against = {"pillow": ("Pillow", PILLOW_AIMS[name]), f"best-full-{best.lower()}": (best, BEST_AIM)}
    return [
        Aim(f"decode-{name}-vs-{rival}", *(found := ratio(seconds[decoder], ours))[:1], aim, spread=found[1])
        for rival, (decoder, aim) in against.items()
    ]


def by_headstart(data: bytes, _: Size) -> NDArray[np.uint8]:
    """Decode as the pass over the files does: header, EXIF, bound on pixels and all."""
    return decode(data, cover=COVER, max_pixels=200_000_000).pixels


def by_pillow(data: bytes, target: Size) -> NDArray[np.uint8]:
    """Decode in full, then shrink with antialiasing; far reductions begin with a reduction by a whole number."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(target[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0))


def by_opencv(data: bytes, target: Size) -> NDArray[np.uint8]:
    """Decode in full, then shrink by area; BGR, as OpenCV likes it."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_AREA)


def by_torchvision(data: bytes, target: Size) -> NDArray[np.uint8]:
    """Decode in full, then shrink with antialiasing."""
    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return resize(pixels, list(target), antialias=True).permute(1, 2, 0).numpy()


def enlarged(data: bytes, size: Size) -> bytes:
    """Give the photo enlarged to the size (turned where it is upright), as a JPEG of quality 90."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    is_upright = pixels.shape[0] > pixels.shape[1]
    width_and_height = size if is_upright else size[::-1]
    larger = cv2.resize(pixels, width_and_height, interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", larger, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def size_of(data: bytes) -> Size:
    """Give (height, width)."""
    with Image.open(io.BytesIO(data)) as image:
        return image.height, image.width


def psnr_to_pillow(data: bytes) -> float:
    """Compare with Pillow's full decoding and antialiased bilinear shrink; at most 99 dB."""
    pixels = by_headstart(data, (0, 0))
    image = Image.open(io.BytesIO(data)).convert("RGB")
    expected = np.asarray(image.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))
    error = np.mean((pixels.astype(np.float64) - expected) ** 2)
    return min(99.0, float(10 * np.log10(255**2 / max(error, 1e-9))))


if __name__ == "__main__":
    main()
