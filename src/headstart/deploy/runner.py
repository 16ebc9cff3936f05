"""Photos → a network's answers, whatever it was trained for: decoding in threads while the network runs.

The pixels and the geometry are those of training. On a CPU the network runs compiled (OpenVINO, held to PyTorch's
answer) where there are enough photos to repay the second that compiling takes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from headstart.data.decoding import CoverRule, StoredImage, decode, from_pixels
from headstart.data.geometry import Affines
from headstart.data.headers import DecodeFailure
from headstart.data.rendering import render_images
from headstart.deploy.face_boxes import word_outside
from headstart.errors import HeadstartError, RecipeError, must_be
from headstart.models.compiled import CompiledForward, compile_forward
from headstart.models.ensemble import JointNetwork
from headstart.models.inference import Answers
from headstart.models.network import Network
from headstart.recipe import Recipe

ImageInput = str | Path | bytes | Image | NDArray[np.generic]
"""A path, a file's bytes, a Pillow image, or an RGB (grey, RGBA) array of uint8 or uint16."""

WORTH_COMPILING: Final = 150
"""Photos from which on compiling pays (measured on 2 cores: 1.0-1.5 s of it, then 230 images/s instead of 60)."""

_MAX_PIXELS: Final[int] = Recipe.model_fields["max_pixels"].default
_CHUNK: Final = 8  # photos a thread takes at a time: their geometry is worked out at once
_BYTES_AHEAD: Final = 64 * 2**20  # of pixels, decoded while the network is compiled or runs


@dataclass(frozen=True)
class View:
    """How the photos of a batch that could be read met the network.

    Attributes:
        affine: From the decoded photo to the model's frame, shape (n, 2, 3).
        scales: (y, x) factors from the original's coordinates to the decoded photo's, shape (n, 2).
        sizes: (height, width) of the originals, shape (n, 2).
    """

    affine: Affines
    scales: NDArray[np.float64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch of photos and what the network says of those that could be read.

    Attributes:
        images: As they were given.
        errors: Why there is no answer for a photo (it cannot be read, say), else None; one a photo.
        answers: One row for each photo without an error, in order.
        view: Of the same photos.
    """

    images: list[ImageInput]
    errors: list[str | None]
    answers: Tensor
    view: View

    @property
    def paths(self) -> list[str | None]:
        """Each photo's path; None where it was not given as one."""
        return [str(image) if isinstance(image, str | Path) else None for image in self.images]


@dataclass(frozen=True)
class _Decoded:
    """Some photos as the network sees them, and why the others are missing."""

    pixels: NDArray[np.uint8]
    errors: list[str | None]
    view: View


class Runner:
    """A network ready for use.

    Args:
        network: Put into eval mode and moved to the device.
        device: ``"auto"`` (a CUDA GPU if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        num_threads: Threads that decode; all cores unless told.

    Attributes:
        notes: What the user should know of how it runs, a sentence each.

    Raises:
        RecipeError: The device is not there.
    """

    def __init__(
        self, network: Network | JointNetwork, *, device: str = "auto", num_threads: int | None = None
    ) -> None:
        self.device = _choose_device(device)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.num_threads = num_threads or os.cpu_count() or 1
        self.notes: tuple[str, ...] = ()
        self._part = Answers(self.network).eval()
        self._cover = CoverRule(network.contract.image_size, network.contract.fit)
        self._compiled: CompiledForward | None = None
        self._num_eager = 0
        self._lock = threading.Lock()

    def run(
        self, images: Sequence[ImageInput], *, batch_size: int, boxes: NDArray[np.float64] | None = None
    ) -> Iterator[AnsweredBatch]:
        """Run the network over photos and give its answers batch by batch.

        Args:
            images: The photos.
            batch_size: Photos a forward pass.
            boxes: The part of each photo that the network looks at (left, top, right, bottom in pixels of the
                original), shape (n, 4); all of it unless told. A photo whose box lies outside gets an error.

        Raises:
            RecipeError: ``batch_size`` is out of bounds.
            HeadstartError: Something is no photo at all: another type, or an array of another shape.
        """
        if batch_size < 1:
            raise RecipeError(must_be("batch_size", "at least 1", batch_size))
        num_left = len(images)
        for batch, decoded in self._decoded_batches(images, batch_size, boxes):
            answers = self._answers(decoded.pixels, num_left=num_left, batch_size=batch_size)
            num_left -= len(batch)
            yield AnsweredBatch(batch, decoded.errors, answers, decoded.view)

    def _decoded_batches(
        self, images: Sequence[ImageInput], batch_size: int, boxes: NDArray[np.float64] | None
    ) -> Iterator[tuple[list[ImageInput], _Decoded]]:
        """Give batches in order, with the next ones being decoded meanwhile."""
        source = iter(range(len(images)))
        height, width = self.network.contract.image_size
        num_ahead = max(2, _BYTES_AHEAD // (batch_size * height * width * 3))
        waiting: deque[tuple[list[ImageInput], list[Future[_Decoded]]]] = deque()
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode")
        try:
            while True:
                while len(waiting) <= num_ahead and (batch := list(islice(source, batch_size))):
                    width = _CHUNK if boxes is None else 1  # whole photos are large: one at a time in each thread
                    chunks = [batch[start : start + width] for start in range(0, len(batch), width)]
                    parts = [
                        pool.submit(self._decode, [images[row] for row in rows], None if boxes is None else boxes[rows])
                        for rows in chunks
                    ]
                    waiting.append(([images[row] for row in batch], parts))
                if not waiting:
                    return
                batch, parts = waiting.popleft()
                yield batch, _join([part.result() for part in parts])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, images: list[ImageInput], boxes: NDArray[np.float64] | None) -> _Decoded:
        stored: list[StoredImage] = []
        errors: list[str | None] = []
        cover = self._cover if boxes is None else None  # a part of a photo is cut from all of its pixels
        for number, image in enumerate(images):
            try:
                photo = _read(image, cover or _WHOLE)
            except DecodeFailure as failure:
                errors.append(str(failure))
                continue
            errors.append(None if boxes is None else word_outside(boxes[number], photo.original_size))
            stored += [photo] if errors[-1] is None else []
        contract = self.network.contract
        scales = np.array([photo.scale for photo in stored], np.float64).reshape(-1, 2)
        is_read = np.array([error is None for error in errors], bool)
        maps = contract.view(
            np.array([photo.pixels.shape[:2] for photo in stored]).reshape(-1, 2),
            boxes=None if boxes is None else boxes[is_read] * np.tile(scales[:, ::-1], 2),
        )
        pixels = render_images([photo.pixels for photo in stored], maps, image_size=contract.image_size)
        sizes = np.array([photo.original_size for photo in stored], np.int64).reshape(-1, 2)
        return _Decoded(pixels, errors, View(maps.affine, scales, sizes))

    def _answers(self, pixels: NDArray[np.uint8], *, num_left: int, batch_size: int) -> Tensor:
        if not len(pixels):
            return torch.empty(0, 0)
        with self._lock, torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            return self._run(torch.from_numpy(pixels), num_left=num_left, batch_size=batch_size)

    def _run(self, pixels: Tensor, *, num_left: int, batch_size: int) -> Tensor:
        is_worth_it = self._num_eager + num_left >= WORTH_COMPILING
        if self._compiled is None and self.device.type == "cpu" and is_worth_it:
            example = pixels[torch.arange(batch_size) % len(pixels)]  # a whole batch, whatever could be read of it
            self._compiled = compile_forward(self._part, example)
            self.notes += (self._compiled.note,) if self._compiled.note else ()
        if self._compiled is not None:
            return self._compiled(pixels)
        self._num_eager += len(pixels)
        return self._part(pixels.to(self.device)).float().cpu()


_WHOLE: Final = CoverRule((4096, 4096), "crop")
"""Keeps photos as they are, up to the largest image size there is."""


def as_list(images: ImageInput | Iterable[ImageInput]) -> list[ImageInput]:
    """Give one photo or several as a list."""
    return [images] if _is_one(images) else list(images)  # pyright: ignore[reportReturnType, reportArgumentType]


def _choose_device(device: str) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(device):
        options = ", ".join(["auto", *(name for name, is_there in available.items() if is_there)])
        raise RecipeError(must_be("device", f"one of {options} on this machine", device))
    return torch.device(device)


def _is_one(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim < 4 and images.dtype != object
    return isinstance(images, str | Path | bytes | Image)


def _join(parts: list[_Decoded]) -> _Decoded:
    views = [part.view for part in parts]
    return _Decoded(
        np.concatenate([part.pixels for part in parts]),
        [error for part in parts for error in part.errors],
        View(
            np.concatenate([view.affine for view in views]),
            np.concatenate([view.scales for view in views]),
            np.concatenate([view.sizes for view in views]),
        ),
    )


def _read(image: ImageInput, cover: CoverRule) -> StoredImage:
    if isinstance(image, str | Path):
        return decode(_read_file(Path(image)), cover=cover, max_pixels=_MAX_PIXELS)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), cover=cover, max_pixels=_MAX_PIXELS)
    if isinstance(image, Image | np.ndarray):
        return from_pixels(image, cover=cover)
    expected = "a path, bytes, a Pillow image or a NumPy array"
    raise HeadstartError(must_be("image", expected, type(image).__name__, "Convert it to one of these."))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DecodeFailure("missing", "no such file") from None
    except OSError as error:
        raise DecodeFailure("unreadable", str(error.strerror or error)) from None
