"""The predictor: photos → labels, with the pixels, geometry and network of training, on any machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headstart.deploy.ensemble_runner import make_runner
from headstart.deploy.inputs import gather_inputs
from headstart.deploy.keypoint_predictor import KeypointPredictor
from headstart.deploy.label_predictor import LabelPredictor, MultiLabelPredictor
from headstart.deploy.prediction_file import PredictionSummary, write_predictions
from headstart.deploy.runner import WORTH_COMPILING, AnsweredBatch, ImageInput, as_list
from headstart.errors import RecipeError, must_be
from headstart.models.ensemble import Ensemble, load_model
from headstart.models.network import Network

__all__ = [
    "WORTH_COMPILING",
    "ImageInput",
    "Prediction",
    "PredictionSummary",
    "Predictor",
    "gather_inputs",
    "load",
    "write_predictions",
]


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


class Predictor:
    """A network, or an ensemble of them, ready for use.

    Args:
        network: Put into eval mode and moved to the device. An ensemble's logits are the logarithms of its votes.
        class_names: Name of each logit.
        temperature: What logits are divided by before the softmax.
        device: ``"auto"`` (a CUDA GPU if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        num_threads: Threads that decode; all cores unless told.

    Attributes:
        notes: What the user should know of how it runs, a sentence each.

    Raises:
        RecipeError: The device is not there, or names and logits do not match.

    Examples:
        >>> import numpy as np
        >>> from headstart.models.network import new_network
        >>> from headstart.recipe import Recipe
        >>> network = new_network(Recipe(backbone="test_resnet", weights="none"), 2)
        >>> predictor = Predictor(network, ["cat", "dog"], device="cpu")
        >>> sum(probability for _, probability in predictor.predict(np.zeros((9, 9, 3), np.uint8), top_k=2)[0].top)
        1.0
    """

    def __init__(
        self,
        network: Network | Ensemble,
        class_names: Sequence[str],
        *,
        temperature: float = 1.0,
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        num_classes = len(network.class_names) if isinstance(network, Ensemble) else network.head.num_classes
        if len(class_names) != num_classes:
            raise RecipeError(must_be("class_names", f"{num_classes} names, one a logit", list(class_names)))
        self.runner = make_runner(network, device=device, num_threads=num_threads)
        self.network, self.device = self.runner.network, self.runner.device
        self.class_names = tuple(class_names)
        self.temperature = float(temperature)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how it runs, a sentence each."""
        return self.runner.notes

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
        return list(self.stream(as_list(images), top_k=top_k, batch_size=batch_size))

    def stream(self, images: Sequence[ImageInput], *, top_k: int = 1, batch_size: int = 32) -> Iterator[Prediction]:
        """Label photos one batch at a time, for more of them than memory holds answers for; see ``predict``."""
        if not 1 <= top_k <= len(self.class_names):
            raise RecipeError(must_be("top_k", f"from 1 to {len(self.class_names)}, the number of classes", top_k))
        for batch in self.runner.run(images, batch_size=batch_size):
            yield from self._word(batch, top_k)

    def _word(self, batch: AnsweredBatch, top_k: int) -> Iterator[Prediction]:
        rows = iter(self._likeliest(batch.answers, top_k))
        for path, error in zip(batch.paths, batch.errors, strict=True):
            if error is not None:
                yield Prediction(path, None, None, (), error)
                continue
            top = next(rows)
            yield Prediction(path, top[0][0], top[0][1], top, None)

    def _likeliest(self, logits: Tensor, top_k: int) -> list[tuple[tuple[str, float], ...]]:
        if not len(logits):
            return []
        probabilities = torch.softmax(logits.double() / self.temperature, dim=1)
        values, indices = (tensor.tolist() for tensor in probabilities.topk(top_k, dim=1))
        return [
            tuple((self.class_names[index], value) for value, index in zip(*row, strict=True))
            for row in zip(values, indices, strict=True)
        ]


def load(
    path: str | Path, *, device: str = "auto"
) -> Predictor | KeypointPredictor | LabelPredictor | MultiLabelPredictor:
    """Load a trained model for use: a classifier, or what its task needs.

    A ``LabelPredictor`` answers in several label columns, a ``MultiLabelPredictor`` gives several classes at once, a
    ``KeypointPredictor`` points.

    Args:
        path: A run folder or a bundle, of one network or of an ensemble.
        device: See ``Predictor``.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        RecipeError: The device is not there.
    """
    model = load_model(path)
    network = model if isinstance(model, Ensemble) else model.network
    if model.keypoints is not None:
        crop = model.metadata.get("extra", {}).get("crop", {})
        return KeypointPredictor(network, model.keypoints, crop=crop, device=device)
    if model.labels is not None:
        if model.labels.form == "multi":
            return MultiLabelPredictor(network, model.labels, temperature=model.temperature, device=device)
        return LabelPredictor(network, model.labels, temperatures=model.temperatures, device=device)
    return Predictor(network, model.class_names, temperature=model.temperature, device=device)
