"""From K finished folds to what they say together: scores out of fold, the temperature, suspect labels, the ensemble.

Each fold is a run whose test is what was held out from it. Its answers are read from its predictions, so a finished
fold is never run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from headstart.data.keypoints import point_columns
from headstart.data.table import SampleTable, layout_of
from headstart.ensemble_scoring import EnsembleScoring, score_points
from headstart.errors import RunError, must_be
from headstart.evaluation.calibration import apply_temperature, fit_temperature
from headstart.evaluation.classification import evaluate
from headstart.evaluation.folds import FoldScores, logits_from_probabilities, scores_from_json
from headstart.evaluation.suspects import find_suspects
from headstart.files import written_aside
from headstart.keypoint_scoring import KeypointScoring
from headstart.models.backbones import InputContract
from headstart.models.inference import InferenceLog
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
        suspects: ``row`` (of ``oof.rows``), ``suggested``, ``self_confidence``; None for keypoints.
        ensemble: What the folds together are worth on the test; None where there is no test.
    """

    folds: list[FoldScores]
    oof: Scoring | KeypointScoring
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


def score_out_of_fold(runs: Sequence[RunFolder], table: SampleTable, *, seed: int) -> Scoring:
    """Put the classifiers' answers out of fold together, fit one temperature on them, and score them.

    Args:
        runs: The folds, finished, in order.
        table: With ``fold``.
        seed: Of the intervals' resampling.
    """
    rows, parts = _rows_by_fold(runs, table)
    first = len(PREDICTION_COLUMNS)
    logits = np.concatenate(
        [
            logits_from_probabilities(part[:, first : first + len(table.class_names)].to_numpy(), _temperature(run))
            for run, part in zip(runs, parts, strict=True)
        ]
    )
    order = rows["sample_id"].arg_sort().to_numpy()
    rows, logits = rows[order], logits[order]
    labels = rows["label"].cast(pl.Int64).to_numpy()
    fitted = fit_temperature(logits, labels)
    evaluation = evaluate(
        logits, labels, class_names=table.class_names, units=rows["unit"].to_numpy(), temperature=fitted.temperature,
        seed=seed,
    )  # fmt: skip
    notes = (fitted.note.replace("validation", "out-of-fold"),) if fitted.note else ()
    probabilities = apply_temperature(logits, fitted.temperature)
    return Scoring(
        {"oof": evaluation}, rows, probabilities, fitted.temperature, notes, InferenceLog(), table.class_names
    )


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


def suspects_of(scoring: Scoring) -> pl.DataFrame:
    """Name the labels that are probably wrong; see ``evaluation.suspects.find_suspects``."""
    return find_suspects(scoring.probabilities, scoring.rows["label"].cast(pl.Int64).to_numpy())


def save_out_of_fold(scoring: Scoring | KeypointScoring, class_names: tuple[str, ...], path: Path) -> None:
    """Write oof.parquet: path, label, fold, predicted (class names), then one probability column per class.

    For keypoints: path, group, fold, nme (percent), then the predicted points as x1, y1, ….
    """
    rows = scoring.rows
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


def save_suspects(suspects: pl.DataFrame, rows: pl.DataFrame, class_names: tuple[str, ...], path: Path) -> None:
    """Write suspects.parquet: path, label, suggested (class names), self_confidence, the least credible first."""
    names = pl.Series(class_names, dtype=pl.String)
    named = rows[suspects["row"].to_numpy()]
    frame = named.select("path", names[named["label"].to_numpy()].alias("label")).with_columns(
        names[suspects["suggested"].to_numpy()].alias("suggested"), suspects["self_confidence"]
    )
    with written_aside(path) as aside:
        frame.write_parquet(aside)


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


def _held_out(predictions: pl.DataFrame) -> pl.DataFrame:
    return predictions.filter(pl.col("split") == "test")


def _temperature(run: RunFolder) -> float:
    return float(json.loads((run.path / "bundle" / "bundle.json").read_text(encoding="utf-8"))["temperature"])
