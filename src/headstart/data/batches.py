"""Order + threads → batches: stored photos as the model sees them, ready before the training step asks for them.

On the path of a sample: reads the pixel store, renders through the maps of ``augmentation``, and hands over uint8
batches. Threads, not processes: OpenCV and the decoders leave Python's lock while they work, so two threads fill two
cores, and no picture is pickled from one process to another. On a GPU the threads only gather photos; the GPU renders.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from typing import Any, Final, Literal, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from headstart.data.augmentation import Maps
from headstart.data.geometry import Affines, Pixels, Windows, find_windows
from headstart.data.rendering import render_batch, render_images
from headstart.errors import HeadstartError, all_at_once, must_be

Produced = TypeVar("Produced")

PREFETCH: Final = 3
"""Batches under way or waiting. Two keep the threads busy; the third bridges a slow step."""

_LEAST_SLICE: Final = 4  # photos; smaller slices cost more in hand-over than they gain


class PixelSource(Protocol):
    """What a loader reads from: the ``PixelStore``, or anything that gives stored photos by number."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(height, width) of each record, shape (num_records, 2)."""
        ...

    def read(self, record: int) -> Pixels:
        """Give one record's RGB pixels, uint8, shape (height, width, 3). Called from several threads."""
        ...


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        pixels: Uint8, shape (n, height, width, 3), on the loader's device.
        positions: Which entries of the loader's ``records`` these are, int64, shape (n,).
        affine: How each stored photo was moved, for what moves with it; float64, shape (n, 2, 3).
    """

    pixels: torch.Tensor
    positions: NDArray[np.int64]
    affine: Affines

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(eq=False)
class BatchLoader:
    """Gives the batches of one epoch; may be iterated again. The batches do not depend on the number of threads.

    Threads live as long as an iteration and end with it, however it ends: at its last batch, on ``break``, on an error.

    Attributes:
        store: Where the photos are.
        records: Their records in the store, one per sample, shape (num_samples,).
        maps_for: Gives the maps of samples, named by their positions in ``records``. Called from a thread.
        image_size: (height, width) of the model's input.
        batch_size: Samples a batch; the last one may be smaller.
        order: Positions in ``records`` in the order of the epoch; all of them, as they stand, if not given.
        drop_last: Leave a last batch out that is not full.
        first_batch: Number of the batch to start at: how a resumed run skips what it has seen.
        num_threads: Threads that read and render; as many as there are CPU cores for this process if not given.
        device: Where the batches go, e.g. "cpu" or "cuda:0".
        render_on: "device" renders with torch where the batches go, "threads" with OpenCV on the CPU; "auto" takes the
            threads for a CPU and the device for anything else. Both show the same, to rounding.
        seconds: Time spent since the loader was made. ``decode`` (reading from the store) and ``augment`` (rendering;
            where the device renders: gathering) add up over the threads, ``wait`` is what the consumer waited for.

    Raises:
        HeadstartError: A setting is out of bounds; on making the loader.
    """

    store: PixelSource
    records: NDArray[np.integer]
    _: KW_ONLY
    maps_for: Callable[[NDArray[np.int64]], Maps]
    image_size: tuple[int, int]
    batch_size: int
    order: NDArray[np.integer] | None = None
    drop_last: bool = False
    first_batch: int = 0
    num_threads: int | None = None
    device: str | torch.device = "cpu"
    render_on: Literal["auto", "threads", "device"] = "auto"
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "augment": 0.0, "wait": 0.0})

    def __post_init__(self) -> None:
        problems = [
            must_be(f"BatchLoader.{name}", f"at least {least}", value)
            for name, value, least in (
                ("batch_size", self.batch_size, 1),
                ("first_batch", self.first_batch, 0),
                ("num_threads", self.threads, 1),
            )
            if value < least
        ]
        problems += self._order_problems()
        if problems:
            raise HeadstartError(all_at_once(problems))

    def _order_problems(self) -> list[str]:
        outside = self._order[(self._order < 0) | (self._order >= len(self.records))]
        expected = f"positions from 0 to {len(self.records) - 1}"
        return [must_be("BatchLoader.order", expected, int(outside[0]))] if len(outside) else []

    @property
    def _order(self) -> NDArray[np.int64]:
        return np.arange(len(self.records)) if self.order is None else np.asarray(self.order, np.int64)

    @property
    def num_batches(self) -> int:
        """Batches in the whole epoch, those before ``first_batch`` included."""
        whole, rest = divmod(len(self._order), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def threads(self) -> int:
        """Threads at work during an iteration."""
        return _num_cores() if self.num_threads is None else self.num_threads

    @property
    def device_renders(self) -> bool:
        """Whether torch renders on the device; else OpenCV does in the threads."""
        return self.render_on == "device" or (self.render_on == "auto" and torch.device(self.device).type != "cpu")

    def __len__(self) -> int:
        return max(self.num_batches - self.first_batch, 0)

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)  # our threads fill the cores; OpenCV's own inside each of them would only get in the way
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="headstart-batches")
        try:
            batches = self._batches(pool)
            batches = _ahead_on_device(batches) if torch.device(self.device).type == "cuda" else batches
            start = time.perf_counter()
            for batch in batches:
                self.seconds["wait"] += time.perf_counter() - start
                yield batch
                start = time.perf_counter()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        under_way: deque[_Work] = deque()
        order, starts = self._order, range(self.first_batch * self.batch_size, self._end, self.batch_size)
        work = (_Work(self, order[start : start + self.batch_size], pool) for start in starts)
        under_way.extend(islice(work, PREFETCH))
        while under_way:
            batch = self._finished(under_way.popleft())
            under_way.extend(islice(work, 1))
            yield batch

    @property
    def _end(self) -> int:
        return min(self.num_batches * self.batch_size, len(self._order))

    def _finished(self, work: _Work) -> Batch:
        pixels, decode, augment = work.result()
        affine = work.plan.result().maps.affine
        for stage, spent in (("decode", decode), ("augment", augment)):
            self.seconds[stage] += spent
        return Batch(pixels, work.positions, affine)


@dataclass(frozen=True)
class _Plan:
    """What the slices of one batch share: the maps, and the tensor that they write to."""

    maps: Maps
    pixels: torch.Tensor
    windows: Windows | None  # only where the device renders

    def fill(self, images: list[Pixels], rows: slice, image_size: tuple[int, int]) -> None:
        """Write one slice: rendered, or only gathered for the device to render."""
        target = self.pixels.numpy()
        if self.windows is None:
            render_images(images, self.maps[rows], image_size=image_size, out=target[rows])
            return
        for index, image in enumerate(images, rows.start):
            self.windows.place(image, index, target)


class _Work:
    """One batch under way: a plan, then slices that fill it. Slices wait for the plan, which was queued before them."""

    def __init__(self, loader: BatchLoader, positions: NDArray[np.int64], pool: ThreadPoolExecutor):
        self.loader = loader
        self.positions = positions
        self.plan: Future[_Plan] = pool.submit(self._make_plan)
        width = max(-(-len(positions) // loader.threads), _LEAST_SLICE)
        slices = [slice(start, min(start + width, len(positions))) for start in range(0, len(positions), width)]
        self.slices = [pool.submit(self._fill, rows) for rows in slices]

    def _make_plan(self) -> _Plan:
        loader, maps = self.loader, self.loader.maps_for(self.positions)
        if not loader.device_renders:
            return _Plan(maps, self._empty(*loader.image_size), None)
        sizes = loader.store.sizes[loader.records[self.positions]]
        windows = find_windows(maps.affine, sizes, image_size=loader.image_size, border=maps.border)
        height, width = windows.sizes.max(axis=0).tolist()
        return _Plan(maps, self._empty(height, width), windows)

    def _empty(self, height: int, width: int) -> torch.Tensor:
        """Give room for the batch, page-locked where a GPU will fetch it while the CPU goes on."""
        pinned = torch.device(self.loader.device).type == "cuda"
        return torch.empty((len(self.positions), height, width, 3), dtype=torch.uint8, pin_memory=pinned)

    def _fill(self, rows: slice) -> tuple[float, float]:
        plan = self.plan.result()
        start = time.perf_counter()
        read, records = self.loader.store.read, self.loader.records
        images = [read(int(records[position])) for position in self.positions[rows]]
        decoded = time.perf_counter()
        plan.fill(images, rows, self.loader.image_size)
        return decoded - start, time.perf_counter() - decoded

    def result(self) -> tuple[torch.Tensor, float, float]:
        """Wait for the slices; give the pixels on the loader's device, and the seconds of decoding and rendering."""
        spent = [each.result() for each in self.slices]
        plan = self.plan.result()
        pixels = plan.pixels.to(self.loader.device, non_blocking=True)
        if plan.windows is not None:
            maps = replace(plan.maps, affine=plan.windows.affine)
            pixels = render_batch(pixels, maps, sizes=plan.windows.sizes, image_size=self.loader.image_size)
        return pixels, sum(each[0] for each in spent), sum(each[1] for each in spent)


def _ahead_on_device(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Copy and render the next batch on a stream and in a thread of their own while the GPU trains on this one."""
    stream = torch.cuda.Stream()

    def prepared() -> tuple[Batch, Any] | None:
        with torch.cuda.stream(stream):
            batch = next(batches, None)
            return None if batch is None else (batch, stream.record_event())

    for batch, is_ready in one_ahead(prepared, thread_name="headstart-device"):
        current = torch.cuda.current_stream()
        current.wait_event(is_ready)
        batch.pixels.record_stream(current)  # else its memory could be given away while the step still reads it
        yield batch


def one_ahead(produce: Callable[[], Produced | None], *, thread_name: str) -> Iterator[Produced]:
    """Give what a function produces until it gives None; a thread produces the next while the last is in use.

    Examples:
        >>> numbers = iter(range(3))
        >>> list(one_ahead(lambda: next(numbers, None), thread_name="numbers"))
        [0, 1, 2]
    """
    with ThreadPoolExecutor(1, thread_name_prefix=thread_name) as thread:
        ahead = thread.submit(produce)
        while (found := ahead.result()) is not None:
            ahead = thread.submit(produce)
            yield found


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
