"""The predictor: photos → labels, with the pixels, geometry and network of training, on any machine.

Photos are read and decoded in threads while the network runs. On a CPU the network runs compiled (OpenVINO, held to
PyTorch's answer) where there are enough photos to repay the second that compiling takes.
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

from headstart.data.augmentation import evaluation_maps, render_images
from headstart.data.decoding import CoverRule, StoredImage, decode, from_pixels
from headstart.data.headers import DecodeFailure
from headstart.deploy.inputs import gather_inputs
from headstart.deploy.prediction_file import PredictionSummary, write_predictions
from headstart.errors import HeadstartError, RecipeError, must_be
from headstart.models.bundle import load_bundle
from headstart.models.compiled import CompiledForward, compile_forward
from headstart.models.network import Network
from headstart.recipe import Recipe

__all__ = ["Prediction", "PredictionSummary", "Predictor", "gather_inputs", "load", "write_predictions"]

ImageInput = str | Path | bytes | Image | NDArray[np.generic]
"""A path, a file's bytes, a Pillow image, or an RGB (grey, RGBA) array of uint8 or uint16."""

WORTH_COMPILING: Final = 150
"""Photos from which on compiling pays (measured on 2 cores: 1.0-1.5 s of it, then 230 images/s instead of 60)."""

_MAX_PIXELS: Final[int] = Recipe.model_fields["max_pixels"].default
_CHUNK: Final = 8  # photos a thread takes at a time: their geometry is worked out at once
_BYTES_AHEAD: Final = 64 * 2**20  # of pixels, decoded while the network is compiled or runs


@dataclass(frozen=True)
class Prediction:
    """What the model says of one photo.

    Attributes:
        path: The photo's path; None where it was not given as one.
        label: The likeliest class; None where the photo could not be read.
        probability: Its calibrated probability.
        top: The likeliest classes with their probabilities, likeliest first.
        error: Why there is no label, else None.
    """

    path: str | None
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...]
    error: str | None


@dataclass(frozen=True)
class _Decoded:
    """Some photos as the network sees them, and why the others are missing."""

    pixels: NDArray[np.uint8]
    errors: list[str | None]


class Predictor:
    """A network ready for use.

    Args:
        network: Put into eval mode and moved to the device.
        class_names: Name of each logit.
        temperature: What logits are divided by before the softmax.
        device: ``"auto"`` (a CUDA GPU if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        num_threads: Threads that decode; all cores unless told.

    Attributes:
        notes: What the user should know of how it runs, a sentence each.

    Raises:
        RecipeError: The device is not there, or names and logits do not match.

    Examples:
        >>> from headstart.models.network import new_network
        >>> network = new_network(Recipe(backbone="test_resnet", weights="none"), 2)
        >>> predictor = Predictor(network, ["cat", "dog"], device="cpu")
        >>> sum(probability for _, probability in predictor.predict(np.zeros((9, 9, 3), np.uint8), top_k=2)[0].top)
        1.0
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        *,
        temperature: float = 1.0,
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        if len(class_names) != network.head.num_classes:
            raise RecipeError(
                must_be("class_names", f"{network.head.num_classes} names, one a logit", list(class_names))
            )
        self.device = _choose_device(device)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.class_names = tuple(class_names)
        self.temperature = float(temperature)
        self.num_threads = num_threads or os.cpu_count() or 1
        self.notes: tuple[str, ...] = ()
        self._cover = CoverRule(network.contract.image_size, network.contract.fit)
        self._compiled: CompiledForward | None = None
        self._num_eager = 0
        self._lock = threading.Lock()

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, top_k: int = 1, batch_size: int = 32
    ) -> list[Prediction]:
        """Label photos.

        Args:
            images: One photo or several: see ``ImageInput``.
            top_k: Likeliest classes to give.
            batch_size: Photos a forward pass.

        Returns:
            One prediction a photo, in order; one that cannot be read has an ``error`` and no label.

        Raises:
            RecipeError: ``top_k`` or ``batch_size`` is out of bounds.
            HeadstartError: Something is no photo at all: another type, or an array of another shape.
        """
        listed = [images] if _is_one(images) else list(images)  # pyright: ignore[reportArgumentType]
        return list(self.stream(listed, top_k=top_k, batch_size=batch_size))  # pyright: ignore[reportArgumentType]

    def stream(self, images: Sequence[ImageInput], *, top_k: int = 1, batch_size: int = 32) -> Iterator[Prediction]:
        """Label photos one batch at a time, for more of them than memory holds answers for; see ``predict``."""
        if not 1 <= top_k <= len(self.class_names):
            raise RecipeError(must_be("top_k", f"from 1 to {len(self.class_names)}, the number of classes", top_k))
        if batch_size < 1:
            raise RecipeError(must_be("batch_size", "at least 1", batch_size))
        num_left = len(images)
        for batch, decoded in self._decoded_batches(images, batch_size):
            probabilities = self._probabilities(decoded.pixels, num_left=num_left, batch_size=batch_size)
            num_left -= len(batch)
            yield from self._word(batch, decoded.errors, probabilities, top_k)

    def _decoded_batches(
        self, images: Sequence[ImageInput], batch_size: int
    ) -> Iterator[tuple[list[ImageInput], _Decoded]]:
        """Give batches in order, with the next ones being decoded meanwhile."""
        source = iter(images)
        height, width = self.network.contract.image_size
        num_ahead = max(2, _BYTES_AHEAD // (batch_size * height * width * 3))
        waiting: deque[tuple[list[ImageInput], list[Future[_Decoded]]]] = deque()
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode")
        try:
            while True:
                while len(waiting) <= num_ahead and (batch := list(islice(source, batch_size))):
                    chunks = (batch[start : start + _CHUNK] for start in range(0, len(batch), _CHUNK))
                    waiting.append((batch, [pool.submit(self._decode, chunk) for chunk in chunks]))
                if not waiting:
                    return
                batch, parts = waiting.popleft()
                yield batch, _join([part.result() for part in parts])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, images: list[ImageInput]) -> _Decoded:
        stored: list[NDArray[np.uint8]] = []
        errors: list[str | None] = []
        for image in images:
            try:
                stored.append(_read(image, self._cover).pixels)
                errors.append(None)
            except DecodeFailure as failure:
                errors.append(str(failure))
        contract = self.network.contract
        maps = evaluation_maps(
            np.array([pixels.shape[:2] for pixels in stored]).reshape(-1, 2),
            image_size=contract.image_size,
            fit=contract.fit,
            crop_fraction=contract.crop_fraction,
        )
        return _Decoded(render_images(stored, maps, image_size=contract.image_size), errors)

    def _probabilities(self, pixels: NDArray[np.uint8], *, num_left: int, batch_size: int) -> Tensor:
        if not len(pixels):
            return torch.empty(0, len(self.class_names))
        with self._lock, torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            logits = self._logits(torch.from_numpy(pixels), num_left=num_left, batch_size=batch_size)
        return torch.softmax(logits.double() / self.temperature, dim=1)

    def _logits(self, pixels: Tensor, *, num_left: int, batch_size: int) -> Tensor:
        is_worth_it = self._num_eager + num_left >= WORTH_COMPILING
        if self._compiled is None and self.device.type == "cpu" and is_worth_it:
            example = pixels[torch.arange(batch_size) % len(pixels)]  # a whole batch, whatever could be read of it
            self._compiled = compile_forward(self.network, example)
            self.notes += (self._compiled.note,) if self._compiled.note else ()
        if self._compiled is not None:
            return self._compiled(pixels)
        self._num_eager += len(pixels)
        return self.network(pixels.to(self.device)).float().cpu()

    def _word(
        self, images: list[ImageInput], errors: list[str | None], probabilities: Tensor, top_k: int
    ) -> Iterator[Prediction]:
        values, indices = (tensor.tolist() for tensor in probabilities.topk(top_k, dim=1))
        rows = iter(zip(values, indices, strict=True))
        for image, error in zip(images, errors, strict=True):
            path = str(image) if isinstance(image, str | Path) else None
            if error is not None:
                yield Prediction(path, None, None, (), error)
                continue
            top = tuple((self.class_names[index], value) for value, index in zip(*next(rows), strict=True))
            yield Prediction(path, top[0][0], top[0][1], top, None)


def load(path: str | Path, *, device: str = "auto") -> Predictor:
    """Load a trained model for use.

    Args:
        path: A run folder or a bundle.
        device: See ``Predictor``.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        RecipeError: The device is not there.
    """
    bundle = load_bundle(Path(path))
    return Predictor(bundle.network, bundle.class_names, temperature=bundle.temperature, device=device)


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
    return _Decoded(np.concatenate([part.pixels for part in parts]), [error for part in parts for error in part.errors])


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
