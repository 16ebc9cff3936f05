"""The cache of frozen features: a backbone that does not train is run once, whatever comes after.

Features lie beside the pixel store, named by everything they depend on (weights, input contract, store contents), so
other runs find them. They are written batch by batch; a pass that was cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import nn

from headstart.data.shards import NO_ROOM
from headstart.files import write_json
from headstart.models.inference import BATCH_SIZE, InferenceLog, MapsFor, iterate_outputs
from headstart.progress import track
from headstart.recipe import Recipe
from headstart.recipe_values import group_of

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.network import Network
    from headstart.training.tasks import Task

_VIEW_SETTINGS = {name for name, field in Recipe.model_fields.items() if group_of(field) == "Augmentation"} | {"seed"}
"""Settings that an augmented view depends on."""

SYNC_SECONDS = 10.0
"""Seconds of work between two points from which a broken pass goes on."""


@dataclass(frozen=True)
class View:
    """One fixed augmentation of each image of a list.

    Attributes:
        name: Everything that it depends on: policy, seed, number, samples. Caches are told apart by it.
        title: What the progress bar says.
        maps_for: Gives the maps of images, by their positions in the list.
    """

    name: str
    title: str
    maps_for: MapsFor


def num_fixed_views(recipe: Recipe, task: Task) -> int:
    """Give how many augmented views of a photo are kept: one is as good as many where nothing is augmented.

    Args:
        recipe: ``views``.
        task: Its policy says what is augmented.
    """
    return 0 if task.policy.is_identity else recipe.views


@dataclass(frozen=True)
class FeatureCache:
    """Features of stored images.

    Attributes:
        values: Shape (images, features), float32, memory-mapped; row i belongs to ``records[i]``.
        records: The store's rows, sorted.
        log: What the pass took; empty where the features were there already.
        boxes: The part of each image that the network looked at, shape (images, 4); None: all of it.
    """

    values: NDArray[np.float32]
    records: NDArray[np.int64]
    log: InferenceLog
    boxes: NDArray[np.float64] | None = None

    @cached_property
    def _places(self) -> dict[bytes, int]:
        """The row of each image that is told by its record and its box."""
        return {} if self.boxes is None else {key: row for row, key in enumerate(_keys(self.records, self.boxes))}

    def knows(self, records: NDArray[np.integer], boxes: NDArray[np.float64] | None = None) -> NDArray[np.bool_]:
        """Say which of these rows of the store (and boxes) it holds, shape (n,)."""
        if boxes is None:
            return np.isin(records, self.records)
        return np.array([key in self._places for key in _keys(records, boxes)], bool)

    def of(self, records: NDArray[np.integer], boxes: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
        """Give the features of these rows of the store (and boxes, where there are boxes), shape (n, features)."""
        if boxes is None:
            return np.asarray(self.values[np.searchsorted(self.records, records)])
        return np.asarray(self.values[[self._places[key] for key in _keys(records, boxes)]])


def view_of(samples: Any, recipe: Recipe, *, number: int, title: str, maps_for: MapsFor) -> View:
    """Name a view by all that it depends on.

    Args:
        samples: Whose photos are seen; drawn for by their numbers.
        recipe: Its augmentation and seed.
        number: Which draw it is; -1: as in use.
        title: What the progress bar says.
        maps_for: Gives the maps of samples, by their positions.
    """
    ids = hashlib.blake2b(samples.sample_ids.tobytes(), digest_size=8).hexdigest()
    settings = recipe.model_dump_json(include=_VIEW_SETTINGS) if number >= 0 else "as in use"
    return View(f"view {number} of {ids} by {settings}", title, maps_for)


def cache_features(
    network: Network,
    store: PixelStore,
    records: NDArray[np.integer],
    *,
    folder: Path,
    boxes: NDArray[np.float64] | None = None,
    view: View | None = None,
    part: nn.Module | None = None,
    num_threads: int | None = None,
) -> FeatureCache:
    """Give the backbone's features of stored images: from the cache where they are, else by one pass.

    Args:
        network: Its backbone is run as in use: eval mode, no augmentation.
        store: The pixels.
        records: Rows of the store; a row asked for twice is run once.
        folder: Where caches lie.
        boxes: The part of each image that the network looks at, shape (n, 4); all of it unless told.
        view: How the images are augmented; as the network sees them in use unless told.
        part: What is run in place of the whole backbone; its printed form tells caches apart.
        num_threads: Threads that prepare pixels; all cores unless told.
    """
    unique, parts = _unique(records, boxes) if view is None else (np.asarray(records, np.int64), boxes)
    name = ("" if view is None else view.name) + ("" if part is None else str(part))
    path = folder / f"features-{_fingerprint(network, store, unique, parts, name)}.npy"
    log = InferenceLog()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _fill(path, network, store, unique, boxes=parts, view=view, part=part, log=log, num_threads=num_threads)
    return FeatureCache(np.load(path, mmap_mode="r"), unique, log, parts)


def _unique(
    records: NDArray[np.integer], boxes: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Give each record (and box) once, sorted."""
    if boxes is None:
        return np.unique(np.asarray(records, np.int64)), None
    keys = np.unique(_joined(records, boxes), axis=0)
    return keys[:, 0].astype(np.int64), np.ascontiguousarray(keys[:, 1:])


def _joined(records: NDArray[np.integer], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give record and box of each image as one row, shape (n, 5)."""
    return np.concatenate([np.asarray(records, np.float64)[:, None], boxes], axis=1)


def _keys(records: NDArray[np.integer], boxes: NDArray[np.float64]) -> list[bytes]:
    """Give what tells images apart that may be parts of one record."""
    return [row.tobytes() for row in _joined(records, boxes)]


def _fingerprint(
    network: Network,
    store: PixelStore,
    records: NDArray[np.int64],
    boxes: NDArray[np.float64] | None,
    name: str,
) -> str:
    """Name everything the features depend on: weights, contract, pixels, and which rows in which order."""
    digest = hashlib.blake2b(digest_size=12)
    for key, tensor in sorted(network.backbone.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr(network.contract).encode())
    if network.pooling != "own":
        digest.update(network.pooling.encode())
    digest.update(store.fingerprint.encode())
    digest.update(records.tobytes())
    if boxes is not None:
        digest.update(boxes.tobytes())
    digest.update(name.encode())
    return digest.hexdigest()


def _fill(
    path: Path,
    network: Network,
    store: PixelStore,
    records: NDArray[np.int64],
    *,
    boxes: NDArray[np.float64] | None,
    view: View | None,
    part: nn.Module | None,
    log: InferenceLog,
    num_threads: int | None,
) -> None:
    partial, progress = path.with_suffix(".partial.npy"), path.with_suffix(".json")
    num_done = _num_batches_done(partial, progress, num_records=len(records))
    values: np.memmap | None = np.load(partial, mmap_mode="r+") if num_done else None
    passes = iterate_outputs(
        network, store, records, what="features", boxes=boxes, maps_for=None if view is None else view.maps_for,
        part=part, first_batch=num_done, num_threads=num_threads, log=log,
    )  # fmt: skip
    synced = time.monotonic()
    with track("computing features" if view is None else view.title, len(records)) as advance:
        advance(num_done * BATCH_SIZE)
        for batch, rows in enumerate(passes, num_done):
            if values is None:
                progress.unlink(missing_ok=True)
                values = _new_array(partial, (len(records), *rows.shape[1:]))
            values[batch * BATCH_SIZE : batch * BATCH_SIZE + len(rows)] = rows
            advance(len(rows))
            if time.monotonic() - synced > SYNC_SECONDS:
                values.flush()
                write_json(progress, {"batches": batch + 1, "records": len(records)})
                synced = time.monotonic()
    if values is not None:
        values.flush()
    os.replace(partial, path)  # noqa: PTH105 - the atomic call, by its own name
    progress.unlink(missing_ok=True)


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Make a file of zeros that has its room on the disk: a page that finds none later would end the process.

    Raises:
        OSError: The disk is too full.
    """
    values = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in NO_ROOM:
                path.unlink()
                raise
    return values


def _num_batches_done(partial: Path, progress: Path, *, num_records: int) -> int:
    if not (partial.exists() and progress.exists()):
        return 0
    state = json.loads(progress.read_text(encoding="utf-8"))
    return int(state["batches"]) if state["records"] == num_records else 0
