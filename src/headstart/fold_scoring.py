"""From K finished folds to what they say together: scores out of fold, the temperature, suspect labels, the ensemble.

Each fold is a run whose test is what was held out from it. Its answers are read from its predictions, so a finished
fold is never run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.keypoints import point_columns
from headstart.data.label_layout import MISSING, LabelLayout, labels_of, with_own_names
from headstart.data.table import SampleTable, layout_of
from headstart.ensemble_scoring import EnsembleScoring, score_points
from headstart.errors import RunError, must_be
from headstart.evaluation.calibration import apply_temperature, fit_temperature
from headstart.evaluation.classification import evaluate
from headstart.evaluation.folds import FoldScores, logits_from_probabilities, scores_from_json
from headstart.evaluation.suspects import find_suspects
from headstart.files import written_aside
from headstart.keypoint_scoring import KeypointScoring
from headstart.label_scoring import (
    LabelScoring,
    first_output,
    fit_temperatures,
    label_notes,
    prediction_columns,
    score_label_logits,
)
from headstart.models.backbones import InputContract
from headstart.models.inference import InferenceLog
from headstart.models.label_outputs import column_probabilities
from headstart.preparation import PreparedData
from headstart.recipe import Recipe
from headstart.runs import RunFolder
from headstart.scoring import PREDICTION_COLUMNS, Scoring
from headstart.training.tasks import Keypoints

OOF_COLUMNS = ("path", "label", "fold", "predicted")
"""Columns of oof.parquet before the probabilities, one column per class, named like the class."""

_NUM_KEYPOINT_COLUMNS = 4  # of predictions.parquet before the points


@dataclass(frozen=True)
class FoldsScoring:
    """What folds are worth, each and together.

    Attributes:
        folds: Each one's scores on what was held out from it.
        oof: All answers out of fold, scored at once under the name ``oof``; its temperature is the ensemble's.
        suspects: ``row`` (of ``oof.rows``), of several labels ``column``, then ``label``, ``suggested`` (names) and
            ``self_confidence``; None for keypoints.
        ensemble: What the folds together are worth on the test; None where there is no test.
    """

    folds: list[FoldScores]
    oof: Scoring | KeypointScoring | LabelScoring
    suspects: pl.DataFrame | None
    ensemble: EnsembleScoring | None = None

    def describe(self) -> list[str]:
        """Say the scores in lines for the terminal, the test last."""
        lines = [line.replace("oof:", "out of fold:", 1) for line in self.oof.describe()]
        if self.suspects is not None:
            count = self.suspects.height
            lines.append(f"suspects: {count:,} label{'s look' if count != 1 else ' looks'} wrong")
        if self.ensemble is None:
            return lines
        return [*lines, *self.ensemble.describe()]


def read_fold_scores(runs: Sequence[RunFolder]) -> list[FoldScores]:
    """Read what each finished fold wrote down of itself."""
    found: list[FoldScores] = []
    for number, run in enumerate(runs, 1):
        metrics = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
        num_held_out = _held_out(pl.read_parquet(run.path / "predictions.parquet", columns=["split"])).height
        scores = scores_from_json(metrics["test"])
        found.append(FoldScores(number, num_held_out, metrics["chosen"], metrics["chosen_epoch"], scores))
    return found


def score_out_of_fold(runs: Sequence[RunFolder], table: SampleTable, *, seed: int) -> Scoring | LabelScoring:
    """Put the classifiers' answers out of fold together, fit one temperature on them (of heads one each), score them.

    Args:
        runs: The folds, finished, in order.
        table: With ``fold``.
        seed: Of the intervals' resampling.
    """
    if table.labels is not None:
        return _score_labels_out_of_fold(runs, table, table.labels, seed=seed)
    rows, logits = _logits_out_of_fold(runs, table)
    labels = rows["label"].cast(pl.Int64).to_numpy()
    fitted = fit_temperature(logits, labels)
    evaluation = evaluate(
        logits, labels, class_names=table.class_names, units=rows["unit"].to_numpy(), temperature=fitted.temperature,
        seed=seed,
    )  # fmt: skip
    notes = (_of_folds(fitted.note),) if fitted.note else ()
    probabilities = apply_temperature(logits, fitted.temperature)
    return Scoring(
        {"oof": evaluation}, rows, probabilities, fitted.temperature, notes, InferenceLog(), table.class_names
    )


def _score_labels_out_of_fold(
    runs: Sequence[RunFolder], table: SampleTable, layout: LabelLayout, *, seed: int
) -> LabelScoring:
    rows, logits = _logits_out_of_fold(runs, table)
    fits = fit_temperatures(logits, labels_of(rows), layout)
    temperatures = tuple(fit.temperature for fit in fits)
    scoring = score_label_logits(logits, rows, layout, splits=("oof",), temperatures=temperatures, seed=seed)
    return replace(scoring, notes=tuple(_of_folds(note) for note in label_notes(layout, fits)))


def score_points_out_of_fold(
    runs: Sequence[RunFolder], found: PreparedData, recipe: Recipe, contract: InputContract
) -> KeypointScoring:
    """Put the points that were found out of fold together, and score them.

    Args:
        runs: The folds, finished, in order.
        found: The table with ``fold``, and the pixels.
        recipe: What errors are divided by.
        contract: Of the folds' networks.
    """
    rows, parts = _rows_by_fold(runs, found.table)
    points = np.concatenate([part[:, _NUM_KEYPOINT_COLUMNS:].to_numpy() for part in parts])
    order = rows["sample_id"].arg_sort().to_numpy()
    rows, points = rows[order], points[order].reshape(rows.height, -1, 2)
    task = Keypoints(recipe, layout_of(found.table))
    return score_points(points, rows, task.samples(rows, found.store), task=task, contract=contract, splits=("oof",))


def suspects_of(scoring: Scoring | LabelScoring) -> pl.DataFrame:
    """Name the labels that are probably wrong, the least credible first; see ``evaluation.suspects.find_suspects``.

    Returns:
        ``row`` (of ``scoring.rows``), ``label`` and ``suggested`` (names), ``self_confidence``. Of heads and of several
        classes at once each column, or class, is looked at by itself: ``column`` names it, and a class is there or not
        (``yes``, ``no``).
    """
    if isinstance(scoring, Scoring) or scoring.layout.form == "joint":
        names = scoring.class_names if isinstance(scoring, Scoring) else scoring.layout.combination_names
        return _named_suspects(scoring.probabilities, scoring.rows["label"].cast(pl.Int64).to_numpy(), names)
    layout, table, labels = scoring.layout, scoring.probabilities, labels_of(scoring.rows)
    if layout.form == "multi":
        columns = {
            name: np.stack([1 - one, one], axis=1) for name, one in zip(layout.output_names, table.T, strict=True)
        }
        names_of = dict.fromkeys(columns, ("no", "yes"))
    else:
        columns = column_probabilities(table, layout)
        names_of = {column.name: column.class_names for column in layout.columns}
    found: list[pl.DataFrame] = []
    for (name, probabilities), numbers in zip(columns.items(), labels.T, strict=True):
        known = np.flatnonzero(numbers != MISSING)
        suspects = _named_suspects(probabilities[known], numbers[known], names_of[name])
        named = suspects.with_columns(row=pl.Series(known[suspects["row"].to_numpy()]), column=pl.lit(name))
        found.append(named.select("row", "column", "label", "suggested", "self_confidence"))
    return pl.concat(found).sort("self_confidence", maintain_order=True)


def save_out_of_fold(
    scoring: Scoring | KeypointScoring | LabelScoring, class_names: tuple[str, ...], path: Path
) -> None:
    """Write oof.parquet: path, label, fold, predicted (class names), then one probability column per class.

    For keypoints: path, group, fold, nme (percent), then the predicted points as x1, y1, …. Of several labels, after
    path and fold, the columns of predictions.parquet; see ``LabelScoring.predictions``.
    """
    rows = scoring.rows
    if isinstance(scoring, LabelScoring):
        _save_labels_out_of_fold(scoring, path)
        return
    if isinstance(scoring, KeypointScoring):
        frame = rows.select("path", "group", "fold").with_columns(nme=pl.Series(scoring.sample_errors))
        columns = point_columns(scoring.predicted)
    else:
        names = pl.Series(class_names, dtype=pl.String)
        frame = rows.select(
            "path", names[rows["label"].to_numpy()].alias("label"), "fold",
            names[scoring.probabilities.argmax(axis=1)].alias("predicted"),
        )  # fmt: skip
        columns = [
            pl.Series(f"{name} (class)" if name in OOF_COLUMNS else name, scoring.probabilities[:, number])
            for number, name in enumerate(class_names)
        ]
    with written_aside(path) as aside:
        frame.with_columns(columns).write_parquet(aside)


def save_suspects(suspects: pl.DataFrame, rows: pl.DataFrame, path: Path) -> None:
    """Write suspects.parquet: path, then what ``suspects_of`` gives, the least credible first."""
    frame = rows[suspects["row"].to_numpy()].select("path").with_columns(suspects.drop("row").get_columns())
    with written_aside(path) as aside:
        frame.write_parquet(aside)


def _named_suspects(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], class_names: Sequence[str]
) -> pl.DataFrame:
    if not len(labels):
        schema = {"row": pl.Int64, "label": pl.String, "suggested": pl.String, "self_confidence": pl.Float64}
        return pl.DataFrame(schema=schema)
    found, names = find_suspects(probabilities, labels), pl.Series(class_names, dtype=pl.String)
    rows = found["row"].to_numpy()
    label, suggested = names[labels[rows]].alias("label"), names[found["suggested"].to_numpy()].alias("suggested")
    return found.select("row", label, suggested, "self_confidence")


def _save_labels_out_of_fold(scoring: LabelScoring, path: Path) -> None:
    columns = prediction_columns(scoring)
    if scoring.layout.form == "joint":  # as of any classes: path, label, fold, predicted
        columns = [scoring.rows["path"], columns[0], scoring.rows["fold"], *columns[1:]]
    else:
        columns = [scoring.rows["path"], scoring.rows["fold"], *columns]
    with written_aside(path) as aside:
        pl.DataFrame(with_own_names(columns)).write_parquet(aside)


def _rows_by_fold(runs: Sequence[RunFolder], table: SampleTable) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Give the table's rows fold by fold, as split ``oof``, and the predictions of each fold in the same order.

    Raises:
        RunError: A fold speaks of other samples.
    """
    rows = [table.kept.filter(pl.col("fold") == number) for number in range(1, len(runs) + 1)]
    parts = [_held_out(pl.read_parquet(run.path / "predictions.parquet")) for run in runs]
    for run, own, part in zip(runs, rows, parts, strict=True):
        if own["path"].to_list() != part["path"].to_list():
            remedy = "Its folder was exchanged: remove it, and resume."
            raise RunError(must_be(str(run.path), "the run of this fold", f"{part.height:,} other samples", remedy))
    return pl.concat(rows).with_columns(split=pl.lit("oof")), parts


def _logits_out_of_fold(runs: Sequence[RunFolder], table: SampleTable) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Give all rows of the folds in the table's order, and the logits of the model that has not seen each."""
    layout, num_outputs = table.labels, len(table.output_names)
    first = len(PREDICTION_COLUMNS) if layout is None else first_output(layout)
    is_presence = layout is not None and layout.form == "multi"
    rows, parts = _rows_by_fold(runs, table)
    logits = [
        logits_from_probabilities(
            part[:, first : first + num_outputs].to_numpy(),
            _for_each_output(_temperatures(run), layout),
            is_presence=is_presence,
        )
        for run, part in zip(runs, parts, strict=True)
    ]
    order = rows["sample_id"].arg_sort().to_numpy()
    return rows[order], np.concatenate(logits)[order]


def _held_out(predictions: pl.DataFrame) -> pl.DataFrame:
    return predictions.filter(pl.col("split") == "test")


def _temperatures(run: RunFolder) -> tuple[float, ...]:
    content = json.loads((run.path / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    return tuple(content.get("temperatures") or [content["temperature"]])


def _for_each_output(temperatures: tuple[float, ...], layout: LabelLayout | None) -> NDArray[np.float64]:
    """Give the temperature of all outputs, or of heads each output its head's."""
    if layout is None or layout.form != "heads":
        return np.asarray(temperatures)
    return np.repeat(temperatures, [len(column.class_names) for column in layout.columns])


def _of_folds(note: str) -> str:
    return note.replace("validation", "out-of-fold")
