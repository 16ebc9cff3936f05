"""Predictors of several labels: photos → a label in each column, or several classes at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headstart.data.label_layout import JOIN, LabelLayout
from headstart.deploy.ensemble_runner import make_runner
from headstart.deploy.runner import AnsweredBatch, ImageInput, as_list
from headstart.errors import RecipeError, must_be
from headstart.models.ensemble import Ensemble
from headstart.models.label_outputs import THRESHOLD, column_probabilities, output_probabilities
from headstart.models.network import Network


@dataclass(frozen=True)
class Answer:
    """What the model says in one label column.

    Attributes:
        label: The likeliest class.
        probability: Its calibrated probability.
        top: The likeliest classes with their probabilities, likeliest first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class LabelPrediction:
    """What a model of several label columns says of one photo.

    Attributes:
        path: The photo's path; None where it was not given as one.
        label: The likeliest combination, its labels joined by " + "; None where the photo could not be read.
        probability: Its probability; of heads, which answer each for itself, the product of theirs.
        columns: The answer in each label column; of joint classes from the sums over combinations. Empty where the
            photo could not be read.
        error: Why there is no label, else None.
    """

    path: str | None
    label: str | None
    probability: float | None
    columns: Mapping[str, Answer] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class MultiLabelPrediction:
    """What a model of several classes at once says of one photo.

    Attributes:
        path: The photo's path; None where it was not given as one.
        labels: The classes with a probability of at least the threshold, likeliest first; maybe none. None where the
            photo could not be read.
        probabilities: Of every class; empty where the photo could not be read.
        error: Why there are no labels, else None.
    """

    path: str | None
    labels: tuple[str, ...] | None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


class LabelPredictor:
    """A network of several label columns, heads or joint classes, or an ensemble of them, ready for use.

    Args:
        network: Put into eval mode and moved to the device. An ensemble's logits are the logarithms of its votes.
        layout: What the labels are.
        temperatures: Of heads one each, of joint classes one; 1 where there are none.
        device: See ``runner.Runner``.
        num_threads: Threads that decode; all cores unless told.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> from headstart.models.network import new_network
        >>> from headstart.recipe import Recipe
        >>> layout = LabelLayout("heads", (LabelColumn("mask", ("no", "yes")), LabelColumn("sex", ("f", "m"))))
        >>> network = new_network(Recipe(backbone="test_resnet", weights="none"), 4)
        >>> answer = LabelPredictor(network, layout, device="cpu").predict(np.zeros((9, 9, 3), np.uint8))[0]
        >>> list(answer.columns), answer.label.count(" + ")
        (['mask', 'sex'], 1)
    """

    def __init__(
        self,
        network: Network | Ensemble,
        layout: LabelLayout,
        *,
        temperatures: Sequence[float] = (),
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        _check_outputs(network, layout)
        self.runner = make_runner(network, device=device, num_threads=num_threads)
        self.network, self.device = self.runner.network, self.runner.device
        self.layout, self.temperatures = layout, tuple(temperatures)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how it runs, a sentence each."""
        return self.runner.notes

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, top_k: int = 1, batch_size: int = 32
    ) -> list[LabelPrediction]:
        """Label photos.

        Args:
            images: One photo or several: see ``runner.ImageInput``.
            top_k: Likeliest classes to give in each column (all, where a column has fewer).
            batch_size: Photos a forward pass.

        Returns:
            One prediction a photo, in order; one that cannot be read has an ``error`` and no label.

        Raises:
            RecipeError: ``top_k`` or ``batch_size`` is out of bounds.
            HeadstartError: Something is no photo at all.
        """
        return list(self.stream(as_list(images), top_k=top_k, batch_size=batch_size))

    def stream(
        self, images: Sequence[ImageInput], *, top_k: int = 1, batch_size: int = 32
    ) -> Iterator[LabelPrediction]:
        """Label photos one batch at a time; see ``predict``."""
        most = max(len(column.class_names) for column in self.layout.columns)
        if not 1 <= top_k <= most:
            raise RecipeError(must_be("top_k", f"from 1 to {most}, the most classes of a column", top_k))
        for batch in self.runner.run(images, batch_size=batch_size):
            yield from self._word(batch, top_k)

    def _word(self, batch: AnsweredBatch, top_k: int) -> Iterator[LabelPrediction]:
        rows = iter(self._answers(batch, top_k))
        for path, error in zip(batch.paths, batch.errors, strict=True):
            if error is not None:
                yield LabelPrediction(path, None, None, {}, error)
                continue
            label, probability, columns = next(rows)
            yield LabelPrediction(path, label, probability, columns)

    def _answers(self, batch: AnsweredBatch, top_k: int) -> list[tuple[str, float, dict[str, Answer]]]:
        if not len(batch.answers):
            return []
        outputs = output_probabilities(batch.answers.numpy(), self.layout, self.temperatures)
        tables = column_probabilities(outputs, self.layout)
        columns = {
            column.name: _likeliest(tables[column.name], column.class_names, top_k) for column in self.layout.columns
        }
        rows = [{name: answers[row] for name, answers in columns.items()} for row in range(len(outputs))]
        if self.layout.form == "heads":
            return [(*_joined(one), one) for one in rows]
        best, names = outputs.argmax(axis=1), self.layout.combination_names
        return [(names[best[row]], float(outputs[row, best[row]]), one) for row, one in enumerate(rows)]


class MultiLabelPredictor:
    """A network of several classes at once, or an ensemble of them, ready for use.

    Args:
        network: Put into eval mode and moved to the device. An ensemble's logits are those of its votes.
        layout: What the labels are.
        temperature: What logits are divided by before the sigmoid.
        device: See ``runner.Runner``.
        num_threads: Threads that decode; all cores unless told.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> from headstart.models.network import new_network
        >>> from headstart.recipe import Recipe
        >>> layout = LabelLayout("multi", (LabelColumn("tags", ("cat", "dog")),))
        >>> network = new_network(Recipe(backbone="test_resnet", weights="none"), 2)
        >>> answer = MultiLabelPredictor(network, layout, device="cpu").predict(np.zeros((9, 9, 3), np.uint8))[0]
        >>> list(answer.probabilities)
        ['cat', 'dog']
    """

    def __init__(
        self,
        network: Network | Ensemble,
        layout: LabelLayout,
        *,
        temperature: float = 1.0,
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        _check_outputs(network, layout)
        self.runner = make_runner(network, device=device, num_threads=num_threads)
        self.network, self.device = self.runner.network, self.runner.device
        self.layout, self.temperature = layout, float(temperature)
        self.class_names = layout.columns[0].class_names

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how it runs, a sentence each."""
        return self.runner.notes

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, threshold: float = THRESHOLD, batch_size: int = 32
    ) -> list[MultiLabelPrediction]:
        """Give the classes of photos.

        Args:
            images: One photo or several: see ``runner.ImageInput``.
            threshold: The least probability of a class that is given.
            batch_size: Photos a forward pass.

        Returns:
            One prediction a photo, in order; one that cannot be read has an ``error`` and no labels.

        Raises:
            RecipeError: ``threshold`` or ``batch_size`` is out of bounds.
            HeadstartError: Something is no photo at all.
        """
        return list(self.stream(as_list(images), threshold=threshold, batch_size=batch_size))

    def stream(
        self, images: Sequence[ImageInput], *, threshold: float = THRESHOLD, batch_size: int = 32
    ) -> Iterator[MultiLabelPrediction]:
        """Give the classes of photos one batch at a time; see ``predict``."""
        if not 0 < threshold < 1:
            raise RecipeError(must_be("threshold", "between 0 and 1", threshold))
        for batch in self.runner.run(images, batch_size=batch_size):
            yield from self._word(batch, threshold)

    def _word(self, batch: AnsweredBatch, threshold: float) -> Iterator[MultiLabelPrediction]:
        values = batch.answers.numpy().reshape(-1, len(self.class_names))
        rows = iter(output_probabilities(values, self.layout, (self.temperature,)))
        for path, error in zip(batch.paths, batch.errors, strict=True):
            if error is not None:
                yield MultiLabelPrediction(path, None, {}, error)
                continue
            found = next(rows)
            given = [place for place in np.argsort(-found, kind="stable").tolist() if found[place] >= threshold]
            labels = tuple(self.class_names[place] for place in given)
            yield MultiLabelPrediction(path, labels, dict(zip(self.class_names, found.tolist(), strict=True)))


def _check_outputs(network: Network | Ensemble, layout: LabelLayout) -> None:
    num_outputs = len(network.class_names) if isinstance(network, Ensemble) else network.head.num_classes
    if len(layout.output_names) != num_outputs:
        expected = f"of {num_outputs} outputs, as the network has"
        raise RecipeError(must_be("layout", expected, len(layout.output_names)))


def _likeliest(table: NDArray[np.float64], class_names: tuple[str, ...], top_k: int) -> list[Answer]:
    order = np.argsort(-table, axis=1, kind="stable")[:, :top_k]
    answers: list[Answer] = []
    for row, places in zip(table, order, strict=True):
        top = tuple((class_names[place], float(row[place])) for place in places.tolist())
        answers.append(Answer(top[0][0], top[0][1], top))
    return answers


def _joined(columns: Mapping[str, Answer]) -> tuple[str, float]:
    answers = columns.values()
    return JOIN.join(one.label for one in answers), float(np.prod([one.probability for one in answers]))
