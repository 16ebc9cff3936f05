"""Running a network over stored images without augmentation: features for the probe, logits for the scores.

On a CPU the network runs compiled (OpenVINO, checked against PyTorch on the first batch); on a GPU it runs as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.data.augmentation import Maps
from headstart.data.batches import BatchLoader
from headstart.models.backbones import scale_pixels
from headstart.models.compiled import compile_forward
from headstart.models.heads import Pooling, Takes
from headstart.models.network import backbone_features
from headstart.progress import track

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.ensemble import JointNetwork
    from headstart.models.network import Network

BATCH_SIZE = 64
"""Images a forward pass: enough to fill the cores, little enough for a laptop's memory."""

WORTH_COMPILING = 256
"""Fewer images than this are done sooner in PyTorch than compiling takes (measured: 2-4 s for small networks)."""

MapsFor = Callable[[NDArray[np.int64]], Maps]

What = Literal["features", "answers"]


@dataclass
class InferenceLog:
    """What a pass over the store took and how it ran.

    Attributes:
        note: Why it did not run compiled where that was expected, else None.
        seconds: By part: ``decode`` and ``augment`` (summed over threads), ``wait``, ``step``, ``total``.
        num_images: Images done.
    """

    note: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    num_images: int = 0


class _Features(nn.Module):
    """The part of a network before its head, so that what is compiled does not depend on the head's weights."""

    scale: Tensor
    offset: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.num_features = network.num_features
        self.takes: Takes = network.head.takes
        self.pooling: Pooling = network.pooling
        self.register_buffer("scale", network.scale)
        self.register_buffer("offset", network.offset)

    def forward(self, pixels: Tensor) -> Tensor:
        return backbone_features(
            self.backbone,
            scale_pixels(pixels, self.scale, self.offset),
            num_features=self.num_features,
            takes=self.takes,
            pooling=self.pooling,
        )

    def extra_repr(self) -> str:
        """Tell what the modules do not: compiled graphs are found again by it."""
        return f"takes={self.takes}, pooling={self.pooling}"


class Answers(nn.Module):
    """The whole network and what its outputs mean: logits, or coordinates."""

    def __init__(self, network: Network | JointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Give what is of use for pixels (n, H, W, 3)."""
        return self.network.answers(pixels)


def iterate_outputs(
    network: Network | JointNetwork,
    store: PixelStore,
    records: NDArray[np.integer],
    *,
    what: What = "answers",
    boxes: NDArray[np.float64] | None = None,
    maps_for: MapsFor | None = None,
    part: nn.Module | None = None,
    first_batch: int = 0,
    num_threads: int | None = None,
    log: InferenceLog | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Run a network over stored images and give its outputs batch by batch, in the order asked for.

    Args:
        network: Put into eval mode here. Several that look at the same pixels may run as one ``JointNetwork``.
        store: The pixels.
        records: Rows of the store, shape (n,).
        what: Pooled features of the backbone, or the head's answers: logits, or coordinates as shares of the frame.
        boxes: The part of each stored photo that the network looks at, shape (n, 4); all of it unless told.
        maps_for: How images are changed, by their positions; as the network sees them in use unless told.
        part: What is run in place of ``what``, as it is; takes pixels.
        first_batch: Batch of ``BATCH_SIZE`` to start with (to go on after a break).
        num_threads: Threads that prepare pixels; all cores unless told.
        log: Filled with notes and seconds where given.

    Yields:
        Float32 arrays of shape (batch, features or classes), or (batch, keypoints, 2).
    """
    log = log if log is not None else InferenceLog()
    device = next(network.parameters()).device
    loader = evaluation_loader(
        network, store, records, boxes=boxes, maps_for=maps_for, first_batch=first_batch, num_threads=num_threads
    )
    forward: Callable[[Tensor], Tensor] | None = None
    start, step_seconds = time.perf_counter(), 0.0
    network.eval()
    if part is None:
        part = (_Features(cast("Network", network)) if what == "features" else Answers(network)).eval()
    else:
        forward = part
    for batch in loader:
        step_start = time.perf_counter()
        with torch.inference_mode():  # not around the loop: the caller would inherit it between two batches
            pixels = batch.pixels.to(device, non_blocking=True)
            if forward is None:
                forward = _choose_forward(part, pixels, num_images=len(records), log=log)
            values = forward(pixels).float().cpu().numpy()
        step_seconds += time.perf_counter() - step_start
        log.num_images += len(values)
        yield values
    total = time.perf_counter() - start
    log.seconds = {**loader.seconds, "step": step_seconds, "total": total}


def run_network(
    network: Network | JointNetwork,
    store: PixelStore,
    records: NDArray[np.integer],
    *,
    what: What = "answers",
    boxes: NDArray[np.float64] | None = None,
    description: str = "scoring",
    num_threads: int | None = None,
    log: InferenceLog | None = None,
) -> NDArray[np.float32]:
    """Run a network over stored images and give all outputs at once, shape (n, …).

    See ``iterate_outputs`` for the arguments; ``description`` names the progress bar (empty: none).
    """
    outputs: list[NDArray[np.float32]] = []
    with track(description, len(records), quiet=not description) as advance:
        for values in iterate_outputs(
            network, store, records, what=what, boxes=boxes, num_threads=num_threads, log=log
        ):
            outputs.append(values)
            advance(len(values))
    return np.concatenate(outputs) if outputs else np.empty((0, 0), np.float32)


def evaluation_loader(
    network: Network | JointNetwork,
    store: PixelStore,
    records: NDArray[np.integer],
    *,
    boxes: NDArray[np.float64] | None = None,
    maps_for: MapsFor | None = None,
    batch_size: int = BATCH_SIZE,
    first_batch: int = 0,
    num_threads: int | None = None,
) -> BatchLoader:
    """Give batches of stored images as the network sees them in use, unless other maps are given."""
    contract = network.contract
    sizes = np.asarray(store.sizes)[np.asarray(records)]

    def seen_in_use(positions: NDArray[np.integer]) -> Maps:
        return contract.view(sizes[positions], boxes=None if boxes is None else boxes[positions])

    return BatchLoader(
        store,
        records,
        maps_for=maps_for or seen_in_use,
        image_size=contract.image_size,
        batch_size=batch_size,
        first_batch=first_batch,
        num_threads=num_threads,
        device=str(next(network.parameters()).device),
    )


def _choose_forward(
    part: nn.Module, pixels: Tensor, *, num_images: int, log: InferenceLog
) -> Callable[[Tensor], Tensor]:
    if pixels.device.type != "cpu" or num_images < WORTH_COMPILING:
        return part
    if len(pixels) < BATCH_SIZE:  # what is left of a broken pass runs as the unbroken pass would have run it
        pixels = torch.cat([pixels, pixels.new_zeros(BATCH_SIZE - len(pixels), *pixels.shape[1:])])
    compiled = compile_forward(part, pixels)
    log.note = compiled.note
    return compiled
