"""What is learned: the targets of a batch, the loss, and the scores that pick the best epoch.

The loop, the probe and the checkpoints are the same for every task; what differs is here, behind one contract.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data import geometry
from headstart.data.augmentation import AugmentationPolicy, Maps, draw_maps, draw_maps_for_points, policy_from_recipe
from headstart.data.flip_checks import refuse_flips
from headstart.data.geometry import Affines
from headstart.data.keypoint_samples import KeypointSamples, keypoint_samples
from headstart.data.keypoints import KeypointLayout
from headstart.errors import RecipeError, must_be
from headstart.evaluation.keypoint_metrics import (
    KeypointAnswers,
    describe_normaliser,
    keypoint_scores,
    normalisers,
)
from headstart.evaluation.metrics import classification_scores
from headstart.training.class_weights import class_weights
from headstart.training.losses import as_shares, classification_loss, coordinate_loss, simcc_loss

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.data.table import SampleTable
    from headstart.models.backbones import InputContract
    from headstart.recipe import Recipe
    from headstart.training.mixing import Mixing


class Samples(Protocol):
    """The samples of one split, as arrays."""

    @property
    def records(self) -> NDArray[np.int64]:
        """Rows of the store, shape (n,)."""
        ...

    @property
    def sample_ids(self) -> NDArray[np.int64]:
        """The numbers that augmentation is drawn for, shape (n,)."""
        ...

    @property
    def stored_sizes(self) -> NDArray[np.integer]:
        """(height, width) of the stored photos, shape (n, 2)."""
        ...

    @property
    def boxes(self) -> NDArray[np.float64] | None:
        """The part of each stored photo that the model looks at, shape (n, 4); None: all of it."""
        ...


@dataclass(frozen=True)
class LabelledRecords:
    """Samples with one label each, or several.

    Attributes:
        records: Rows of the store, shape (n,).
        labels: Class numbers, shape (n,); of several label columns (n, columns), ``MISSING`` where there is none; of
            several classes at once 0 and 1, shape (n, classes).
        sample_ids: The samples' numbers in the table, shape (n,).
        stored_sizes: (height, width) of the stored photos, shape (n, 2).
        boxes: None: whole photos.
    """

    records: NDArray[np.int64]
    labels: NDArray[np.int64]
    sample_ids: NDArray[np.int64]
    stored_sizes: NDArray[np.integer]
    boxes: None = None

    def __len__(self) -> int:
        return len(self.records)


class Task(Protocol):
    """What the loop and the probe ask of a task. ``Any`` stands for the task's own kind of samples.

    Targets are tensors with one row a sample; a loss takes the head, its outputs and the targets.
    """

    @property
    def policy(self) -> AugmentationPolicy:
        """How training photos are changed."""
        ...

    @property
    def score_names(self) -> tuple[str, ...]:
        """The validation scores, in the order of the history's columns."""
        ...

    def samples(self, rows: pl.DataFrame, store: PixelStore) -> Any:
        """Give the samples of kept rows."""
        ...

    def draw(self, samples: Any, positions: NDArray[np.integer], contract: InputContract, *, epoch: int) -> Maps:
        """Draw the augmentation of some samples, named by their positions."""
        ...

    def targets(
        self, samples: Any, positions: NDArray[np.integer], affine: Affines, contract: InputContract
    ) -> tuple[Tensor, ...]:
        """Give the targets of some samples whose photos were moved by these maps."""
        ...

    def mixed(self, head: Any, targets: tuple[Tensor, ...], mixing: Mixing) -> tuple[Tensor, ...]:
        """Give the targets of photos that are mixed with others of their batch."""
        ...

    def loss(self, head: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Give the loss of a batch."""
        ...

    def scores(self, answers: Tensor, samples: Any, contract: InputContract) -> dict[str, float]:
        """Score decoded outputs for all samples, in their order, as the network gives them in use."""
        ...


class WholePhotos:
    """What tasks that label whole photos have in common: their samples, and how these are changed.

    Args:
        recipe: The settings.
        weights: Of the outputs in the loss, shape (outputs,); equal unless told.
    """

    def __init__(self, recipe: Recipe, weights: Tensor | None = None) -> None:
        self.recipe, self.weights = recipe, weights
        self._policy = policy_from_recipe(recipe)

    @property
    def policy(self) -> AugmentationPolicy:
        """How training photos are changed."""
        return self._policy

    def loss_settings(self, device: torch.device) -> dict[str, Any]:
        """Give what the recipe says of the loss, as losses of classes take it."""
        recipe = self.recipe
        return {
            "weights": None if self.weights is None else self.weights.to(device),
            "smoothing": recipe.label_smoothing,
            "gamma": 2.0 if recipe.focal_gamma is None else recipe.focal_gamma,
            "alpha": recipe.focal_alpha,
        }

    def labels_of(self, rows: pl.DataFrame) -> NDArray[np.int64]:
        """Give what is known of kept rows: one class number each."""
        return rows["label"].cast(pl.Int64).to_numpy()

    def samples(self, rows: pl.DataFrame, store: PixelStore) -> LabelledRecords:
        """Give the samples of kept rows."""
        records, sample_ids = (rows[name].cast(pl.Int64).to_numpy() for name in ("record", "sample_id"))
        return LabelledRecords(records, self.labels_of(rows), sample_ids, np.asarray(store.sizes)[records])

    def draw(
        self, samples: LabelledRecords, positions: NDArray[np.integer], contract: InputContract, *, epoch: int
    ) -> Maps:
        """Draw the augmentation of some samples."""
        return draw_maps(
            self.policy,
            seed=self.recipe.seed,
            epoch=epoch,
            sample_ids=samples.sample_ids[positions],
            sizes=samples.stored_sizes[positions],
            image_size=contract.image_size,
            fit=contract.fit,
            crop_fraction=contract.crop_fraction,
        )


class Classification(WholePhotos):
    """One label a sample, one logit a class; see ``WholePhotos``."""

    score_names = ("loss", "accuracy", "balanced_accuracy", "macro_f1")

    def targets(
        self, samples: LabelledRecords, positions: NDArray[np.integer], affine: Affines, contract: InputContract
    ) -> tuple[Tensor, ...]:
        """Give the labels."""
        return (torch.from_numpy(samples.labels[positions]),)

    def mixed(self, head: Any, targets: tuple[Tensor, ...], mixing: Mixing) -> tuple[Tensor, ...]:
        """Give shares of the classes instead of labels."""
        return (mixing.mixed_shares(as_shares(targets[0], head.num_classes)),)

    def loss(self, head: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Give the loss that the recipe names."""
        return classification_loss(self.recipe.loss, outputs, targets[0], **self.loss_settings(outputs.device))

    def scores(self, answers: Tensor, samples: LabelledRecords, contract: InputContract) -> dict[str, float]:
        """Give the classification scores of logits, shape (n, classes)."""
        scores = classification_scores(torch.softmax(answers.double(), dim=1).numpy(), samples.labels)
        return {"loss": scores["log_loss"]} | scores


class Keypoints:
    """Points of a picture: losses in the model's frame, scores in pixels of the original.

    Args:
        recipe: The settings.
        layout: What the points are.
    """

    score_names = ("nme", "mae", "mse")

    def __init__(self, recipe: Recipe, layout: KeypointLayout) -> None:
        self.recipe, self.layout = recipe, layout
        self._mirrored = np.arange(layout.num_keypoints) if layout.flip_pairs is None else layout.mirrored_order()
        self._policy: AugmentationPolicy | None = None

    @property
    def policy(self) -> AugmentationPolicy:
        """How training photos are changed; made when first drawn from, as scoring needs none."""
        if self._policy is None:
            self._policy = keypoint_policy(self.recipe, self.layout)
        return self._policy

    def samples(self, rows: pl.DataFrame, store: PixelStore) -> KeypointSamples:
        """Give the samples of kept rows."""
        return keypoint_samples(rows, store, self.recipe)

    def draw(
        self, samples: KeypointSamples, positions: NDArray[np.integer], contract: InputContract, *, epoch: int
    ) -> Maps:
        """Draw the augmentation of some samples, such that their points stay in the picture."""
        return draw_maps_for_points(
            self.policy,
            points=samples.stored[positions],
            visible=samples.visible[positions],
            max_lost=self.recipe.max_lost_points,
            seed=self.recipe.seed,
            epoch=epoch,
            sample_ids=samples.sample_ids[positions],
            sizes=samples.stored_sizes[positions],
            boxes=None if samples.boxes is None else samples.boxes[positions],
            image_size=contract.image_size,
            fit=contract.fit,
            crop_fraction=contract.crop_fraction,
        )

    def targets(
        self, samples: KeypointSamples, positions: NDArray[np.integer], affine: Affines, contract: InputContract
    ) -> tuple[Tensor, ...]:
        """Give coordinates as shares of the frame (n, K, 2), and which of them count (n, K).

        What the maps mirror has its left and right points swapped; a point outside the frame does not count.
        """
        points = geometry.apply_to_points(affine, samples.stored[positions])
        visible = samples.visible[positions]
        swap = geometry.mirrored(affine)
        points[swap], visible[swap] = points[swap][:, self._mirrored], visible[swap][:, self._mirrored]
        counts = visible & geometry.is_inside(points, contract.image_size)
        shares = points / np.array(contract.image_size[::-1])
        return torch.from_numpy(shares.astype(np.float32)), torch.from_numpy(counts)

    def mixed(self, head: Any, targets: tuple[Tensor, ...], mixing: Mixing) -> tuple[Tensor, ...]:
        """Refuse: half of one face's points and half of another's are no face."""
        raise RecipeError(must_be("cutmix and mixup", "0 for keypoints", self.recipe.cutmix + self.recipe.mixup))

    def loss(self, head: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Give the loss that the recipe names."""
        coordinates, visible = targets
        if self.recipe.loss == "simcc":
            return simcc_loss(head, outputs, coordinates, visible)
        answers = head.decode(outputs.float())
        if self.recipe.targets == "pixels":
            size = coordinates.new_tensor(head.frame[::-1])
            return coordinate_loss(self.recipe.loss, answers * size, coordinates * size, visible, in_pixels=True)
        return coordinate_loss(self.recipe.loss, answers, coordinates, visible)

    def scores(self, answers: Tensor, samples: KeypointSamples, contract: InputContract) -> dict[str, float]:
        """Give NME (percent), and MAE and MSE as shares of the frame, of coordinates (n, K, 2)."""
        return keypoint_scores(self.answers(answers.numpy(), samples, contract))

    def answers(
        self, coordinates: NDArray[np.floating], samples: KeypointSamples, contract: InputContract
    ) -> KeypointAnswers:
        """Put the network's coordinates (n, K, 2), shares of the frame, beside the truth, in every unit."""
        affine = contract.view(samples.stored_sizes, boxes=samples.boxes).affine
        return KeypointAnswers(
            predicted=samples.to_original(coordinates, affine, image_size=contract.image_size),
            points=samples.original,
            visible=samples.visible,
            normaliser=self.normalisers(samples),
            predicted_model=coordinates,
            points_model=geometry.apply_to_points(affine, samples.stored) / np.array(contract.image_size[::-1]),
        )

    @property
    def divided_by(self) -> str:
        """Words for what errors are divided by."""
        return describe_normaliser(self.recipe.nme_by, pair=self.recipe.nme_pair, names=self.layout.names)

    def normalisers(self, samples: KeypointSamples) -> NDArray[np.float64]:
        """Give what each sample's errors are divided by, in pixels of the original, shape (n,)."""
        sizes = samples.original_sizes
        return normalisers(samples.original, samples.visible, sizes, by=self.recipe.nme_by, pair=self.recipe.nme_pair)


def finite_scores(task: Task, answers: Tensor, samples: Any, contract: InputContract) -> dict[str, float]:
    """Score answers; a network that gives what is no number scores none, whatever argmax would make of it."""
    if not answers.isfinite().all():
        return dict.fromkeys(task.score_names, math.nan)
    return task.scores(answers, samples, contract)


def mean_targets(coordinates: Tensor, visible: Tensor) -> Tensor:
    """Give the mean place of each point over the samples where it counts, shape (K, 2); the middle where it never does.

    Examples:
        >>> both = torch.tensor([[[0.2, 0.2]], [[0.4, 0.8]]])
        >>> mean_targets(both, torch.tensor([[True], [False]])).tolist()
        [[0.20000000298023224, 0.20000000298023224]]
    """
    counts = visible.sum(0)[:, None]
    means = (coordinates * visible[..., None]).sum(0) / counts.clamp_min(1)
    return torch.where(counts > 0, means, torch.full_like(means, 0.5))


def keypoint_policy(recipe: Recipe, layout: KeypointLayout) -> AugmentationPolicy:
    """Give the augmentation of keypoint training: never mirrored where the pairs are not known.

    Raises:
        RecipeError: Mirroring is asked for, and the pairs are not known.
    """
    policy = policy_from_recipe(recipe)
    if layout.flip_pairs is not None or not (policy.horizontal_flip or policy.vertical_flip):
        return policy
    refuse_flips(recipe, layout.flip_note)
    return replace(policy, horizontal_flip=0.0, vertical_flip=0.0)


def make_task(recipe: Recipe, table: SampleTable) -> Task:
    """Give the task of a run."""
    if table.keypoints is not None:
        return Keypoints(recipe, table.keypoints)
    weights = class_weights(recipe, table)
    if table.labels is None or table.has_plain_classes:
        return Classification(recipe, weights)
    from headstart.training.label_tasks import MultiLabel, SeveralLabels

    return (MultiLabel if table.labels.form == "multi" else SeveralLabels)(recipe, table.labels, weights)
