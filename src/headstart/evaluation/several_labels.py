"""Everything there is to say about a model of several label columns on one split: each column, and all at once.

Columns come from heads of their own, or are the marginals of joint classes. A sample without a label in a column is
scored in the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data.label_layout import MISSING, LabelLayout
from headstart.evaluation.classification import Evaluation, evaluate
from headstart.evaluation.error_intervals import WeightedMean, means_with_intervals
from headstart.evaluation.intervals import Score, number_units, wilson
from headstart.models.label_outputs import THRESHOLD, column_probabilities, output_probabilities

_TINY: Final = 1e-300  # the smallest probability whose logarithm is taken


@dataclass(frozen=True)
class LabelsEvaluation:
    """What a model of several label columns is worth on one split.

    Attributes:
        columns: Each column's evaluation, over the samples that have a label there.
        exact: Share of samples whose labels are all right (all that are known).
        joint: For joint classes, the evaluation of the combinations.
        num_samples: Samples scored.
        num_units: Independent units among them.
        notes: What a reader must know to read the scores rightly, a sentence each.
    """

    columns: Mapping[str, Evaluation]
    exact: Score
    joint: Evaluation | None
    num_samples: int
    num_units: int
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> dict[str, Score]:
        """Every score by name: ``mask.accuracy``, …, ``exact``; of joint classes their own too."""
        own = {
            f"{name}.{measure}": one for name, found in self.columns.items() for measure, one in found.scores.items()
        }
        return {**(self.joint.scores if self.joint else {}), **own, "exact": self.exact}

    def to_metrics_json(self) -> dict[str, dict[str, float | None]]:
        """Give one split's part of ``metrics.json``: score name to value, low and high."""
        return {name: one.as_json() for name, one in self.scores.items()}


def all_right(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say of each sample whether every label that it has is answered rightly.

    Args:
        predicted: Class numbers, shape (n, columns).
        labels: Likewise, ``MISSING`` where there is none.

    Examples:
        >>> all_right(np.array([[0, 1], [0, 1], [0, 1]]), np.array([[0, 1], [0, 0], [0, -1]])).tolist()
        [True, False, True]
    """
    return ((predicted == labels) | (labels == MISSING)).all(axis=1)


def all_columns_right(columns: Mapping[str, NDArray[np.floating]], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say of each sample whether the likeliest class of every column is right; see ``all_right``.

    Args:
        columns: Each column's probabilities, shape (n, classes), in the order of the labels.
        labels: Class numbers, shape (n, columns), ``MISSING`` where there is none.

    Examples:
        >>> sure = np.array([[0.9, 0.1]])
        >>> all_columns_right({"mask": sure, "sex": sure}, np.array([[0, 1]])).tolist()
        [False]
    """
    return all_right(np.stack([one.argmax(axis=1) for one in columns.values()], axis=1), labels)


def right_at_once(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], layout: LabelLayout
) -> NDArray[np.bool_]:
    """Say of each sample whether a model gives all its labels rightly: its heads, its combination, or its classes.

    Args:
        probabilities: Of each output, shape (n, outputs).
        labels: Class numbers, shape (n, columns), ``MISSING`` where there is none; of several classes at once 0 and 1.
        layout: What the labels are.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> layout = LabelLayout("multi", (LabelColumn("tags", ("cat", "dog")),))
        >>> right_at_once(np.array([[0.9, 0.2], [0.6, 0.7]]), np.array([[1, 0], [1, 0]]), layout).tolist()
        [True, False]
    """
    if layout.form == "multi":
        return ((probabilities >= THRESHOLD) == (labels == 1)).all(axis=1)
    if layout.form == "joint":
        return all_right(np.array(layout.combinations)[probabilities.argmax(axis=1)], labels)
    return all_columns_right(column_probabilities(probabilities, layout), labels)


def of_truth(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], layout: LabelLayout
) -> NDArray[np.float64]:
    """Give the probability of every label that is known: one for each sample and head, combination or class.

    Args:
        probabilities: Of each output, shape (n, outputs).
        labels: As above.
        layout: What the labels are.

    Returns:
        Shape (known labels,), in an order that depends on labels and layout alone.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> layout = LabelLayout("heads", (LabelColumn("a", ("0", "1")), LabelColumn("b", ("x", "y"))))
        >>> of_truth(np.array([[0.9, 0.1, 0.3, 0.7]]), np.array([[0, MISSING]]), layout).tolist()
        [0.9]
    """
    table = np.asarray(probabilities, np.float64)
    if layout.form == "multi":
        return np.where(labels == 1, table, 1 - table).ravel()
    if layout.form == "joint":
        return table[np.arange(len(table)), layout.combination_numbers(labels)]
    parts: list[NDArray[np.float64]] = []
    for part, cells in zip(layout.slices, labels.T, strict=True):
        known = np.flatnonzero(cells != MISSING)
        parts.append(table[:, part][known, cells[known]])
    return np.concatenate(parts)


def evaluate_labels(
    logits: ArrayLike,
    labels: NDArray[np.integer],
    layout: LabelLayout,
    *,
    units: ArrayLike | None = None,
    temperatures: Sequence[float] = (),
    seed: int = 0,
) -> LabelsEvaluation:
    """Score a model of several label columns on one split, each score with its 95 % interval.

    Args:
        logits: Shape (n, outputs), not yet divided by the temperature.
        labels: Class numbers, shape (n, columns), ``MISSING`` where there is none.
        layout: What the labels are: heads or joint classes.
        units: What belongs together, shape (n,); None: every sample for itself.
        temperatures: Fitted on validation: of heads one each, of joint classes one.
        seed: Of the resampling.

    Returns:
        The evaluation. A column without any label in this split is not in it, and a note says so.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> layout = LabelLayout("heads", (LabelColumn("mask", ("no", "yes")), LabelColumn("sex", ("f", "m"))))
        >>> found = evaluate_labels([[2.0, 0, 0, 1], [0, 1, 3, 0]], np.array([[0, 1], [0, MISSING]]), layout)
        >>> found.columns["mask"].scores["accuracy"].value, found.columns["sex"].num_samples, found.exact.value
        (0.5, 1, 0.5)
    """
    table, numbers = np.asarray(logits, np.float64), number_units(units, len(labels))
    columns = column_probabilities(output_probabilities(table, layout, temperatures), layout)
    found: dict[str, Evaluation] = {}
    for place, column in enumerate(layout.columns):
        known = labels[:, place] != MISSING
        if known.any():
            is_head = layout.form == "heads"
            values = table[:, layout.slices[place]] if is_head else np.log(columns[column.name].clip(_TINY))
            found[column.name] = evaluate(
                values[known], labels[known, place], class_names=column.class_names, units=numbers[known],
                temperature=temperatures[place] if is_head and temperatures else 1.0, seed=seed,
            )  # fmt: skip
    joint = _evaluate_joint(table, labels, layout, units=numbers, temperatures=temperatures, seed=seed)
    is_right = all_columns_right(columns, labels)
    exact = joint.scores["accuracy"] if joint else share_with_interval(is_right, numbers, seed=seed)
    notes = _notes(labels, layout, found)
    return LabelsEvaluation(found, exact, joint, len(labels), int(numbers.max()) + 1, notes)


def share_with_interval(is_right: NDArray[np.bool_], units: NDArray[np.int64], *, seed: int = 0) -> Score:
    """Give the share of samples that are right with its 95 % interval; Wilson's where every sample is a unit.

    Examples:
        >>> share_with_interval(np.array([True, True, False, True]), np.arange(4)).value
        0.75
    """
    values = is_right.astype(np.float64)
    if int(units.max()) + 1 == len(values):
        share = float(values.mean())
        return Score(share, *wilson(share, len(values)))
    mean = WeightedMean(values, np.ones(len(values)), is_share=True)
    return means_with_intervals({"share": mean}, units, seed=seed)["share"]


def _evaluate_joint(
    logits: NDArray[np.float64],
    labels: NDArray[np.integer],
    layout: LabelLayout,
    *,
    units: NDArray[np.int64],
    temperatures: Sequence[float],
    seed: int,
) -> Evaluation | None:
    if layout.form != "joint":
        return None
    joint, temperature = layout.combination_numbers(labels), temperatures[0] if temperatures else 1.0
    return evaluate(
        logits, joint, class_names=layout.combination_names, units=units, temperature=temperature, seed=seed
    )


def _notes(labels: NDArray[np.integer], layout: LabelLayout, found: Mapping[str, Evaluation]) -> tuple[str, ...]:
    absent = [name for name in layout.names if name not in found]
    notes: list[str] = []
    if absent:
        notes.append(f"No sample of this split has a label for {', '.join(absent)}: nothing says what it is worth.")
    num_open = int((labels == MISSING).any(axis=1).sum())
    if num_open:
        words = f"{num_open:,} of {len(labels):,} samples lack some label"
        notes.append(f"{words}: they count in the other columns, and as all right where all known labels are.")
    return tuple(notes)
