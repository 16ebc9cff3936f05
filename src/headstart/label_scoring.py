"""From a network of several labels to scores: logits of validation and test, temperatures, predictions.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_layout import JOIN, MISSING, LabelLayout, labels_of, with_own_names
from headstart.data.table import SampleTable
from headstart.evaluation.calibration import TemperatureFit, fit_presence_temperature, fit_temperature
from headstart.evaluation.intervals import Score, describe_basis
from headstart.evaluation.multi_label import MultiLabelEvaluation, evaluate_multi_label
from headstart.evaluation.several_labels import LabelsEvaluation, evaluate_labels
from headstart.models.inference import InferenceLog
from headstart.models.label_outputs import THRESHOLD, column_probabilities, output_probabilities
from headstart.scoring import logits_of

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.network import Network
    from headstart.training.features import FeatureCache


@dataclass(frozen=True)
class LabelScoring:
    """What a network of several labels said of some samples, and what that is worth.

    Attributes:
        layout: What the labels are.
        evaluations: One per split that has samples.
        rows: The samples scored: the table's rows, in the order of ``probabilities``.
        probabilities: Of each output, shape (n, outputs), temperatures applied.
        temperatures: Fitted on validation, or given: of heads one each, else one.
        notes: What the user should know, a sentence each.
        log: What running the network took.
    """

    layout: LabelLayout
    evaluations: dict[str, LabelsEvaluation | MultiLabelEvaluation]
    rows: pl.DataFrame
    probabilities: NDArray[np.float64]
    temperatures: tuple[float, ...]
    notes: tuple[str, ...]
    log: InferenceLog

    @property
    def temperature(self) -> float:
        """The one temperature; 1 where heads have one each."""
        return 1.0 if self.layout.form == "heads" else self.temperatures[0]

    @property
    def details(self) -> dict[str, Any]:
        """What else metrics.json says: how many samples each column's scores stand on."""
        found = {
            split: {name: {"num_samples": one.num_samples} for name, one in evaluation.columns.items()}
            for split, evaluation in self.evaluations.items()
            if isinstance(evaluation, LabelsEvaluation)
        }
        return {"details": found} if found else {}

    def describe(self) -> list[str]:
        """Say the scores of each split in lines for the terminal, the test last."""
        lines: list[str] = []
        for split, evaluation in self.evaluations.items():
            of = describe_basis(evaluation.num_samples, evaluation.num_units, noun="image")
            scores = evaluation.scores
            if isinstance(evaluation, LabelsEvaluation):
                shown = [f"{name} accuracy {_worded(scores[f'{name}.accuracy'])}" for name in evaluation.columns]
            else:
                names = ("mean_average_precision", "macro_f1", "micro_f1")
                shown = [f"{name.replace('_', ' ')} {_worded(scores[name])}" for name in names]
            words = ", ".join([*shown, f"all right at once {_worded(scores['exact'])}"])
            lines.append(f"{split}: {words}; 95 % intervals over {of}")
        return lines

    @property
    def predictions(self) -> pl.DataFrame:
        """Rows of predictions.parquet: path, split, the true and predicted labels, then a probability of each output.

        Of label columns: ``mask, mask_predicted, …`` and ``mask=no, mask=yes, …``; joint classes have ``label,
        predicted`` and a probability each before them, as any classification. Of several labels in a cell: ``labels,
        predicted`` (joined by ``" + "``) and a probability of each class.
        """
        return pl.DataFrame(with_own_names([*self.rows.select("path", "split"), *prediction_columns(self)]))

    def of_split(self, split: str) -> tuple[pl.DataFrame, NDArray[np.float64]]:
        """Give the rows and probabilities of one split."""
        chosen = (self.rows["split"] == split).to_numpy()
        return self.rows.filter(pl.lit(pl.Series(chosen))), self.probabilities[chosen]


def score_labels(
    network: Network,
    table: SampleTable,
    store: PixelStore,
    layout: LabelLayout,
    *,
    splits: tuple[str, ...] = ("validation", "test"),
    temperatures: tuple[float, ...] = (),
    features: FeatureCache | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> LabelScoring:
    """Run a network over the samples of some splits and score each split.

    Args:
        network: With its final weights.
        table: Checked and split; ``unit`` says what belongs together, for the intervals.
        store: The pixels.
        layout: What the table's labels are.
        splits: Which splits to score; one without samples is left out.
        temperatures: Taken as they are; without them they are fitted on validation (1 where there is none).
        features: Of some of the samples, by the network's own backbone; these are not run again.
        seed: Of the intervals' resampling.
        num_threads: Threads that prepare pixels.
    """
    rows = table.kept.filter(pl.col("split").is_in(list(splits)))
    log = InferenceLog()
    records = rows["record"].to_numpy()
    logits = logits_of(network, store, records, features=features, num_threads=num_threads, log=log)
    labels, notes = labels_of(rows), [log.note] if log.note else []
    if not temperatures:
        chosen = (rows["split"] == "validation").to_numpy()
        fits = fit_temperatures(logits[chosen], labels[chosen], layout)
        temperatures = tuple(fit.temperature for fit in fits)
        notes += label_notes(layout, fits)
    scoring = score_label_logits(logits, rows, layout, splits=splits, temperatures=temperatures, seed=seed)
    return replace(scoring, notes=tuple(notes), log=log)


def score_label_logits(
    logits: NDArray[np.floating],
    rows: pl.DataFrame,
    layout: LabelLayout,
    *,
    splits: tuple[str, ...],
    temperatures: tuple[float, ...],
    seed: int = 0,
) -> LabelScoring:
    """Score logits, shape (n, outputs), of the samples of ``rows``; see ``score_labels`` for the rest."""
    evaluations: dict[str, LabelsEvaluation | MultiLabelEvaluation] = {}
    labels = labels_of(rows)
    for split in splits:
        chosen = (rows["split"] == split).to_numpy()
        if chosen.any():
            units = rows["unit"].to_numpy()[chosen]
            evaluations[split] = _evaluate(logits[chosen], labels[chosen], layout, units, temperatures, seed=seed)
    probabilities = output_probabilities(logits, layout, temperatures)
    return LabelScoring(layout, evaluations, rows, probabilities, temperatures, (), InferenceLog())


def fit_temperatures(
    logits: NDArray[np.floating], labels: NDArray[np.int64], layout: LabelLayout
) -> list[TemperatureFit]:
    """Fit a temperature for each head, or one for joint classes or several classes at once, on validation samples."""
    if not len(labels):
        return [TemperatureFit(1.0)] * layout.num_temperatures
    if layout.form == "multi":
        return [fit_presence_temperature(logits, labels)]
    if layout.form == "joint":
        return [fit_temperature(logits, layout.combination_numbers(labels))]
    parts = zip(layout.slices, labels.T, strict=True)
    return [fit_temperature(logits[cells != MISSING][:, part], cells[cells != MISSING]) for part, cells in parts]


def label_notes(layout: LabelLayout, fits: Sequence[TemperatureFit]) -> list[str]:
    """Give what is to be said of fitted temperatures, of heads with the column's name."""
    heads = [f"{name}: " for name in layout.names] if layout.form == "heads" else [""]
    return [f"{head}{fit.note}" for head, fit in zip(heads, fits, strict=True) if fit.note]


def first_output(layout: LabelLayout) -> int:
    """Give the place of the first output's probability among the columns of predictions.parquet."""
    return 2 + (2 * len(layout.columns) if layout.form == "heads" else 2)  # path, split, pairs of true and predicted


def prediction_columns(scoring: LabelScoring) -> list[pl.Series]:
    """Give the true and predicted labels and the probabilities as columns, see ``LabelScoring.predictions``."""
    layout, table = scoring.layout, scoring.probabilities
    outputs = [pl.Series(name, table[:, place]) for place, name in enumerate(layout.output_names)]
    if layout.form == "multi":
        pairs = {"labels": labels_of(scoring.rows) == 1, "predicted": table >= THRESHOLD}
        names = np.array(layout.columns[0].class_names, object)
        first = [pl.Series(key, [JOIN.join(names[row]) for row in has], pl.String) for key, has in pairs.items()]
        return [*first, *outputs]
    first, marginals = _columns_of_labels(scoring)
    if layout.form == "heads":
        return [*first, *marginals]
    joint = pl.Series(layout.combination_names, dtype=pl.String)
    label = joint[scoring.rows["label"].to_numpy()].alias("label")
    return [label, joint[table.argmax(axis=1)].alias("predicted"), *outputs, *first, *marginals]


def _columns_of_labels(scoring: LabelScoring) -> tuple[list[pl.Series], list[pl.Series]]:
    """Give each label column's true and predicted classes, and its probabilities."""
    layout, labels = scoring.layout, labels_of(scoring.rows)
    columns: list[pl.Series] = []
    marginals: list[pl.Series] = []
    for place, (name, probabilities) in enumerate(column_probabilities(scoring.probabilities, layout).items()):
        class_names = pl.Series(layout.columns[place].class_names, dtype=pl.String)
        known = labels[:, place] != MISSING
        columns.append(class_names[labels[:, place].clip(0)].set(pl.Series(~known), None).alias(name))
        columns.append(class_names[probabilities.argmax(axis=1)].alias(f"{name}_predicted"))
        marginals += [pl.Series(f"{name}={one}", probabilities[:, at]) for at, one in enumerate(class_names)]
    return columns, marginals


def _evaluate(
    logits: NDArray[np.floating],
    labels: NDArray[np.int64],
    layout: LabelLayout,
    units: NDArray[np.integer],
    temperatures: tuple[float, ...],
    *,
    seed: int,
) -> LabelsEvaluation | MultiLabelEvaluation:
    if layout.form != "multi":
        return evaluate_labels(logits, labels, layout, units=units, temperatures=temperatures, seed=seed)
    names = layout.columns[0].class_names
    return evaluate_multi_label(logits, labels, names, units=units, temperature=temperatures[0], seed=seed)


def _worded(score: Score) -> str:
    return f"{score.value:.4f}" + (f" ({score.low:.4f} to {score.high:.4f})" if score.has_interval else "")
