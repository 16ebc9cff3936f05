"""From a trained network to scores: logits of validation and test, temperature, evaluations, predictions.parquet.

The temperature is fitted on validation; the test is looked at once, after every choice is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from headstart.data.table import SampleTable
from headstart.evaluation.calibration import apply_temperature, fit_temperature
from headstart.evaluation.classification import Evaluation, evaluate
from headstart.evaluation.intervals import describe_basis
from headstart.files import write_json, written_aside
from headstart.models.inference import InferenceLog, run_network

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.keypoint_scoring import KeypointScoring
    from headstart.label_scoring import LabelScoring
    from headstart.models.network import Network
    from headstart.training.features import FeatureCache

PREDICTION_COLUMNS = ("path", "split", "label", "predicted")
"""Columns of predictions.parquet before the probabilities, one column per class, named like the class."""


@dataclass(frozen=True)
class Scoring:
    """What a network said of some samples, and what that is worth.

    Attributes:
        evaluations: One per split that has samples.
        rows: The samples scored: the table's rows, in the order of ``probabilities``.
        probabilities: Shape (n, classes), temperature applied.
        temperature: Fitted on validation, or given.
        notes: What the user should know, a sentence each.
        log: What running the network took.
        class_names: Name of each column of ``probabilities``.
    """

    evaluations: dict[str, Evaluation]
    rows: pl.DataFrame
    probabilities: NDArray[np.float64]
    temperature: float
    notes: tuple[str, ...]
    log: InferenceLog
    class_names: tuple[str, ...]

    @property
    def details(self) -> dict[str, Any]:
        """What else metrics.json says: nothing."""
        return {}

    def describe(self) -> list[str]:
        """Say the scores of each split in lines for the terminal, the test last."""
        lines: list[str] = []
        for split, evaluation in self.evaluations.items():
            scores = evaluation.scores
            shown = ", ".join(
                f"{name.replace('_', ' ')} {scores[name].value:.4f} ({scores[name].low:.4f} to {scores[name].high:.4f})"
                for name in ("accuracy", "balanced_accuracy", "macro_f1")
            )
            of = describe_basis(evaluation.num_samples, evaluation.num_units, noun="image")
            lines.append(f"{split}: {shown}; 95 % intervals over {of}")
        return lines

    @property
    def predictions(self) -> pl.DataFrame:
        """Rows of predictions.parquet: path, split, label, predicted (class names), then a probability of each class.

        A class that is named like one of the first columns has " (class)" added to its column's name.
        """
        names = pl.Series(self.class_names, dtype=pl.String)
        frame = self.rows.select("path", "split").with_columns(
            names[self.rows["label"].to_numpy()].alias("label"),
            names[self.probabilities.argmax(axis=1)].alias("predicted"),
        )
        columns = [
            pl.Series(f"{name} (class)" if name in PREDICTION_COLUMNS else name, self.probabilities[:, number])
            for number, name in enumerate(self.class_names)
        ]
        return frame.with_columns(columns)

    def of_split(self, split: str) -> tuple[pl.DataFrame, NDArray[np.float64]]:
        """Give the rows and probabilities of one split."""
        chosen = (self.rows["split"] == split).to_numpy()
        return self.rows.filter(pl.lit(pl.Series(chosen))), self.probabilities[chosen]


if TYPE_CHECKING:
    AnyScoring = Scoring | KeypointScoring | LabelScoring


def score(
    network: Network,
    table: SampleTable,
    store: PixelStore,
    *,
    splits: tuple[str, ...] = ("validation", "test"),
    temperature: float | None = None,
    features: FeatureCache | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> Scoring:
    """Run a network over the samples of some splits and score each split.

    Args:
        network: With its final weights.
        table: Checked and split; ``unit`` says what belongs together, for the intervals.
        store: The pixels.
        splits: Which splits to score; one without samples is left out.
        temperature: Taken as it is; None fits it on validation (1 where there is none).
        features: Of some of the samples, by the network's own backbone; these are not run again.
        seed: Of the intervals' resampling.
        num_threads: Threads that prepare pixels.
    """
    rows = table.kept.filter(pl.col("split").is_in(list(splits)))
    log = InferenceLog()
    logits = logits_of(network, store, rows["record"].to_numpy(), features=features, num_threads=num_threads, log=log)
    labels = rows["label"].cast(pl.Int64).to_numpy()
    notes: tuple[str, ...] = (log.note,) if log.note else ()
    if temperature is None:
        fitted = _fit_on_validation(logits, labels, (rows["split"] == "validation").to_numpy())
        temperature, notes = fitted[0], notes + fitted[1]
    evaluations: dict[str, Evaluation] = {}
    for split in splits:
        chosen = (rows["split"] == split).to_numpy()
        if chosen.any():
            evaluations[split] = evaluate(
                logits[chosen], labels[chosen], class_names=table.class_names,
                units=rows["unit"].to_numpy()[chosen], temperature=temperature, seed=seed,
            )  # fmt: skip
    probabilities = apply_temperature(logits, temperature)
    return Scoring(evaluations, rows, probabilities, temperature, notes, log, table.class_names)


def save_predictions(scoring: AnyScoring, path: Path) -> None:
    """Write predictions.parquet: what the network said of each sample scored."""
    with written_aside(path) as aside:
        scoring.predictions.write_parquet(aside)


def save_metrics(
    scoring: AnyScoring, table: SampleTable, path: Path, *, seconds: Mapping[str, float], **more: Any
) -> None:
    """Write metrics.json: task, scores with intervals by split, counts, seconds by stage, and what else is given."""
    counts = {
        "found": table.frame.height,
        "kept": table.kept.height,
        "excluded": table.excluded_counts,
    }
    content: dict[str, Any] = {"task": table.task}
    content |= {split: evaluation.to_metrics_json() for split, evaluation in scoring.evaluations.items()}
    content |= scoring.details
    write_json(path, content | {"counts": counts, "seconds": dict(seconds)} | more)


def logits_of(
    network: Network,
    store: PixelStore,
    records: NDArray[np.integer],
    *,
    features: FeatureCache | None,
    num_threads: int | None,
    log: InferenceLog,
) -> NDArray[np.float32]:
    """Give logits, shape (n, classes): by the head alone where features are known, else by the whole network."""
    known = np.isin(records, features.records) if features else np.zeros(len(records), bool)
    logits = np.empty((len(records), network.head.num_classes), np.float32)
    if features:
        with torch.inference_mode():
            device = next(network.head.parameters()).device
            values = torch.from_numpy(np.array(features.of(records[known]))).to(device)
            logits[known] = network.answer(values).float().cpu().numpy()
    if not known.all():
        logits[~known] = run_network(network, store, records[~known], num_threads=num_threads, log=log)
    return logits


def _fit_on_validation(
    logits: NDArray[np.float32], labels: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[float, tuple[str, ...]]:
    if not chosen.any():
        return 1.0, ()
    fitted = fit_temperature(logits[chosen], labels[chosen])
    return fitted.temperature, (fitted.note,) if fitted.note else ()
