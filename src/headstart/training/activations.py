"""Kept activations: where the first blocks of a network are frozen, they run once for each photo, or for each view.

Fine-tuning of the last blocks then starts from what the frozen part gave, on disk beside the pixel store. It is done
by itself where the photos that training sees are known beforehand (no augmentation, or some fixed views of each) and
the activations fit a stated budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.data.augmentation import Maps
from headstart.data.batches import Batch, one_ahead
from headstart.models.inference import InferenceLog
from headstart.models.trunk import Cut, Trunk, find_cut
from headstart.progress import say
from headstart.training.features import View, cache_features, num_fixed_views, view_of

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.backbones import InputContract
    from headstart.models.network import Network
    from headstart.recipe import Recipe
    from headstart.training.tasks import Task


@dataclass(frozen=True)
class Kept:
    """Activations of one split.

    Attributes:
        values: One array for each view, float32, shape (samples that were run, *cut.shape), memory-mapped.
        maps_for: Gives the maps of some of these samples in a view: targets move with them.
        rows: Where the samples of the split stand among those that were run.
    """

    values: Sequence[NDArray[np.float32]]
    maps_for: Sequence[Callable[[NDArray[np.integer]], Maps]]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class KeptActivations:
    """Where the network is cut, and what the trunk gave for the photos of training and validation."""

    cut: Cut
    train: Kept
    validation: Kept


def keep_activations(
    network: Network, samples: Sequence[Any], store: PixelStore, recipe: Recipe, *, task: Task, among: Any = None
) -> KeptActivations | None:
    """Run the frozen part of a network once, where that can stand for running it in every epoch.

    Args:
        network: Unfrozen as it will train.
        samples: Of training and of validation, as the task gives them.
        store: The pixels.
        recipe: ``stages``, ``views``, the augmentation, ``cache_gb``, ``epochs``.
        task: Draws the views.
        among: Samples that are run in place of both splits, with theirs among them: with folds all that are in some
            fold, so that all folds share what is kept.

    Returns:
        None where the network trains from its first block on, where photos change with every epoch, or where the
        activations would not fit; said where a setting would change that.
    """
    if "all" in recipe.stages or recipe.num_devices > 1 or recipe.cutmix or recipe.mixup:
        return None
    if not (recipe.views or task.policy.is_identity):
        say("The frozen blocks run in every epoch, as photos are augmented anew; --views 4 would keep four of each.")
        return None
    network.unfreeze(*recipe.stages)  # kept is what is frozen in all of them
    cut = find_cut(network)
    network.unfreeze(recipe.unfreeze)
    if cut is None:
        return None
    num_views = max(num_fixed_views(recipe, task), 1)
    train, validation = samples if among is None else (among, among)
    num_images = len(train.records) * num_views + len(validation.records)
    gigabytes = num_images * cut.bytes_per_image / 1e9
    if gigabytes > recipe.cache_gb:
        say(f"The frozen blocks' output is not kept: its {gigabytes:.1f} GB are over --cache-gb {recipe.cache_gb:g}.")
        return None
    logs: list[InferenceLog] = []
    keep = partial(_keep, network, cut, store, recipe, logs=logs)
    train_maps = [partial(task.draw, train, contract=network.contract, epoch=view) for view in range(num_views)]
    kept = KeptActivations(
        cut,
        keep(train, train_maps, "train", own=samples[0]),
        keep(validation, [_in_use(validation, network.contract)], "validation", own=samples[1]),
    )
    say(_saving(logs, recipe, num_views=num_views, num_train=len(samples[0].records), gigabytes=gigabytes, at=cut.at))
    return kept


def _in_use(samples: Any, contract: InputContract) -> Callable[[NDArray[np.integer]], Maps]:
    def maps_for(positions: NDArray[np.integer]) -> Maps:
        boxes = None if samples.boxes is None else samples.boxes[positions]
        return contract.view(samples.stored_sizes[positions], boxes=boxes)

    return maps_for


def _keep(
    network: Network,
    cut: Cut,
    store: PixelStore,
    recipe: Recipe,
    samples: Any,
    maps: Sequence[Callable[[NDArray[np.integer]], Maps]],
    split: str,
    *,
    own: Any,
    logs: list[InferenceLog],
) -> Kept:
    values = []
    for number, maps_for in enumerate(maps):
        title = f"frozen blocks, {split}" + (f", view {number + 1}/{len(maps)}" if len(maps) > 1 else "")
        view: View = view_of(samples, recipe, number=number if split == "train" else -1, title=title, maps_for=maps_for)
        cache = cache_features(
            network, store, samples.records, folder=store.directory / "features", boxes=samples.boxes, view=view,
            part=Trunk(network, cut), num_threads=recipe.num_threads,
        )  # fmt: skip
        values.append(cache.values)
        logs.append(cache.log)
    return Kept(values, maps, np.searchsorted(samples.sample_ids, own.sample_ids))


def _saving(
    logs: Sequence[InferenceLog], recipe: Recipe, *, num_views: int, num_train: int, gigabytes: float, at: str
) -> str:
    times = "once" if num_views == 1 else f"{num_views} times"
    words = f"kept the output of the frozen blocks (up to {at}, {gigabytes:.2f} GB): they run {times} a photo"
    words += f" instead of {recipe.epochs}"
    done = sum(log.num_images for log in logs)
    if not done:
        return f"{words}; the activations were there already"
    an_image = sum(log.seconds.get("step", 0.0) for log in logs) / done
    saved = an_image * num_train * max(recipe.epochs - num_views, 0)
    return f"{words}, which saves about {saved:,.0f} s of their forward passes alone"


@dataclass
class ActivationLoader:
    """Gives an epoch's batches of kept activations, as ``BatchLoader`` gives photos; read ahead by a thread.

    Attributes:
        kept: The split.
        view: Which of its views.
        order: Positions in the order of the epoch.
        batch_size: Samples a batch.
        first_batch: Number of the batch to start at.
        seconds: ``wait``: what the consumer waited for; the parts of photos are 0.
    """

    kept: Kept
    view: int
    order: NDArray[np.int64]
    batch_size: int
    first_batch: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "augment": 0.0, "wait": 0.0})

    def __iter__(self) -> Iterator[Batch]:
        starts = range(self.first_batch * self.batch_size, len(self.order), self.batch_size)
        parts = [self.order[start : start + self.batch_size] for start in starts]
        batches = map(self._batch, parts)
        start = time.perf_counter()
        for batch in one_ahead(lambda: next(batches, None), thread_name="headstart-activations"):
            self.seconds["wait"] += time.perf_counter() - start
            yield batch
            start = time.perf_counter()

    def _batch(self, positions: NDArray[np.int64]) -> Batch:
        rows = self.kept.rows[positions]
        values = torch.from_numpy(np.ascontiguousarray(self.kept.values[self.view][rows]))
        affine = self.kept.maps_for[self.view](rows).affine
        return Batch(values.contiguous(memory_format=_layout(values)), positions, affine)


def _layout(values: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if values.ndim == 4 else torch.contiguous_format
