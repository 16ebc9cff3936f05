"""Tasks of several labels a sample: a head for each column, or several classes at once.

Combinations as classes (``--label a+b``) are an ordinary classification and need no task of their own. Pictures are
drawn as for any classifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data.geometry import Affines
from headstart.data.label_layout import MISSING, LabelLayout, labels_of
from headstart.evaluation.metrics import classification_scores
from headstart.evaluation.multi_label import multi_label_scores
from headstart.evaluation.several_labels import all_columns_right
from headstart.models.label_outputs import column_probabilities, output_probabilities
from headstart.training.losses import as_shares, classification_loss, presence_loss
from headstart.training.tasks import LabelledRecords, WholePhotos

if TYPE_CHECKING:
    from headstart.models.backbones import InputContract
    from headstart.recipe import Recipe
    from headstart.training.mixing import Mixing

_SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
_NEARLY_ALL = 1 - 1e-4  # of a mixed photo's label, where both photos have one; shares are rounded


class ManyLabels(WholePhotos):
    """What tasks of several labels have in common: see ``WholePhotos``.

    Args:
        recipe: The settings.
        layout: What the labels are.
        weights: Of the outputs in the loss, shape (outputs,); equal unless told.
    """

    def __init__(self, recipe: Recipe, layout: LabelLayout, weights: Tensor | None = None) -> None:
        super().__init__(recipe, weights)
        self.layout = layout

    def labels_of(self, rows: pl.DataFrame) -> NDArray[np.int64]:
        """Give what is known of kept rows, in each column or of each class."""
        return labels_of(rows)


class SeveralLabels(ManyLabels):
    """A head for each label column; a sample without a label in a column counts in no loss and no score of it."""

    @property
    def column_weights(self) -> tuple[float, ...]:
        """Of the columns' losses."""
        return tuple(self.recipe.labels.weight(name) for name in self.layout.names)

    @property
    def score_names(self) -> tuple[str, ...]:
        """Means over the columns, all right at once, and the accuracy of each column."""
        return ("loss", *_SCORES, "exact", *(f"{name}.accuracy" for name in self.layout.names))

    def targets(
        self, samples: LabelledRecords, positions: NDArray[np.integer], affine: Affines, contract: InputContract
    ) -> tuple[Tensor, ...]:
        """Give the labels, shape (n, columns)."""
        return (torch.from_numpy(samples.labels[positions]),)

    def mixed(self, head: Any, targets: tuple[Tensor, ...], mixing: Mixing) -> tuple[Tensor, ...]:
        """Give shares of all heads' classes, shape (n, outputs); 0 where a photo has no label in a column."""
        columns = []
        for place, column in enumerate(self.layout.columns):
            labels = targets[0][:, place]
            shares = as_shares(labels.clamp_min(0), len(column.class_names))
            columns.append(shares * (labels != MISSING)[:, None])
        return (mixing.mixed_shares(torch.cat(columns, 1)),)

    def loss(self, head: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Give the weighted mean of the columns' losses, each over the samples that have a label there.

        A mixed photo counts where both photos that it is made of have a label.
        """
        outputs = outputs.float()
        total = outputs.sum() * 0.0  # keeps the graph where a batch has no label at all
        for place, weight in enumerate(self.column_weights):
            part, known = self._known(targets[0], place)
            if weight and bool(known.any()):
                total = total + weight * self._column_loss(outputs[known, part], targets[0][known], place)
        return total / sum(self.column_weights)

    def _known(self, targets: Tensor, place: int) -> tuple[slice, Tensor]:
        """Give a column's outputs, and which samples have a label there."""
        part = self.layout.slices[place]
        if targets.is_floating_point():
            return part, targets[:, part].sum(1) > _NEARLY_ALL
        return part, targets[:, place] != MISSING

    def _column_loss(self, logits: Tensor, targets: Tensor, place: int) -> Tensor:
        """Give the loss that the recipe names, of one column's logits, for labels or shares of all columns."""
        settings, part = self.loss_settings(logits.device), self.layout.slices[place]
        if settings["weights"] is not None:
            settings["weights"] = settings["weights"][part]
        theirs = targets[:, part] if targets.is_floating_point() else targets[:, place]
        return classification_loss(self.recipe.loss, logits, theirs, **settings)

    def scores(self, answers: Tensor, samples: LabelledRecords, contract: InputContract) -> dict[str, float]:
        """Give the mean of each score over the columns, each column's own, and the share with all labels right."""
        columns = column_probabilities(output_probabilities(answers.numpy(), self.layout), self.layout)
        found: dict[str, dict[str, float]] = {}
        for place, (name, probabilities) in enumerate(columns.items()):
            has_label = samples.labels[:, place] != MISSING
            if has_label.any():
                found[name] = classification_scores(probabilities[has_label], samples.labels[has_label, place])
        measures = next(iter(found.values()))
        scores = {measure: float(np.mean([one[measure] for one in found.values()])) for measure in measures}
        own = {f"{name}.{measure}": value for name, one in found.items() for measure, value in one.items()}
        exact = float(all_columns_right(columns, samples.labels).mean())
        return {"loss": scores["log_loss"]} | scores | {"exact": exact} | own


class MultiLabel(ManyLabels):
    """Several classes at once, each with a logit of its own; weights say how much a class's yes counts against a no."""

    score_names = ("loss", "mean_average_precision", "macro_f1", "micro_f1", "exact")

    def targets(
        self, samples: LabelledRecords, positions: NDArray[np.integer], affine: Affines, contract: InputContract
    ) -> tuple[Tensor, ...]:
        """Give 0 or 1 for each class, shape (n, classes)."""
        return (torch.from_numpy(samples.labels[positions]).float(),)

    def mixed(self, head: Any, targets: tuple[Tensor, ...], mixing: Mixing) -> tuple[Tensor, ...]:
        """Give each class's share."""
        return (mixing.mixed_shares(targets[0]),)

    def loss(self, head: Any, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Give the loss that the recipe names."""
        return presence_loss(self.recipe.loss, outputs, targets[0], **self.loss_settings(outputs.device))

    def scores(self, answers: Tensor, samples: LabelledRecords, contract: InputContract) -> dict[str, float]:
        """Give the scores of logits, shape (n, classes)."""
        scores = multi_label_scores(answers.numpy(), samples.labels)
        return {"loss": scores["log_loss"]} | scores
