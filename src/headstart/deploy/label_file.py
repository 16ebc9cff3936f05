"""Several labels → a CSV, written as they come: a column for each label column, or for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from headstart.data.label_layout import with_own_names
from headstart.deploy.prediction_file import PredictionSummary
from headstart.files import written_aside
from headstart.progress import say, track

if TYPE_CHECKING:
    from headstart.deploy.label_predictor import (
        LabelPrediction,
        LabelPredictor,
        MultiLabelPrediction,
        MultiLabelPredictor,
    )

_ROWS: Final = 4096  # held and written at a time
_SEPARATOR: Final = "; "  # between the labels of a cell; ``train`` reads it


def write_label_predictions(
    predictor: LabelPredictor | MultiLabelPredictor,
    paths: Sequence[str],
    out_csv: Path,
    *,
    top_k: int = 1,
    batch_size: int = 32,
    quiet: bool = False,
) -> PredictionSummary:
    """Label photos and write one row each.

    Of label columns: ``path, mask, mask_probability, mask_top2, mask_top2_probability, …, error``; joint classes have
    ``label, probability`` before them. Of several classes at once: ``path, labels`` (joined by ``"; "``), the
    probability of each class in a column of its name, ``error``.

    Args:
        predictor: The model.
        paths: The photos.
        out_csv: The CSV to write, in UTF-8; it appears when it is whole.
        top_k: Likeliest classes to write for each label column.
        batch_size: Photos a forward pass.
        quiet: Print nothing.

    Raises:
        RecipeError: ``top_k`` or ``batch_size`` is out of bounds.
    """
    from headstart.deploy.label_predictor import LabelPredictor

    num_errors, num_notes = 0, len(predictor.notes)
    is_columns = isinstance(predictor, LabelPredictor)
    options = {"top_k": top_k} if is_columns else {}
    predictions: Iterator[Any] = iter(predictor.stream(paths, batch_size=batch_size, **options))
    with (
        written_aside(Path(out_csv)) as aside,
        aside.open("wb") as file,
        track("labelling", len(paths), quiet=quiet) as advance,
    ):
        number = 0
        while rows := list(islice(predictions, _ROWS)):
            frame = _columns_frame(rows, predictor, top_k) if is_columns else _classes_frame(rows, predictor)
            frame.write_csv(file, include_header=number == 0)
            number, num_errors = number + 1, num_errors + sum(row.error is not None for row in rows)
            advance(len(rows))
    for note in () if quiet else predictor.notes[num_notes:]:
        say(note)
    return PredictionSummary(len(paths) - num_errors, num_errors)


def _columns_frame(rows: list[LabelPrediction], predictor: LabelPredictor, top_k: int) -> pl.DataFrame:
    layout = predictor.layout
    columns = [pl.Series("path", [row.path for row in rows], pl.String)]
    if layout.form == "joint":
        columns.append(pl.Series("label", [row.label for row in rows], pl.String))
        columns.append(pl.Series("probability", [row.probability for row in rows], pl.Float64))
    for column in layout.columns:
        tops = [row.columns[column.name].top if row.columns else () for row in rows]
        for place in range(min(top_k, len(column.class_names))):
            name = column.name if place == 0 else f"{column.name}_top{place + 1}"
            columns.append(pl.Series(name, [top[place][0] if top else None for top in tops], pl.String))
            values = [top[place][1] if top else None for top in tops]
            columns.append(pl.Series(f"{name}_probability", values, pl.Float64))
    return _frame([*columns, pl.Series("error", [row.error for row in rows], pl.String)])


def _classes_frame(rows: list[MultiLabelPrediction], predictor: MultiLabelPredictor) -> pl.DataFrame:
    columns = [
        pl.Series("path", [row.path for row in rows], pl.String),
        pl.Series("labels", [None if row.labels is None else _SEPARATOR.join(row.labels) for row in rows], pl.String),
    ]
    columns += [
        pl.Series(name, [row.probabilities.get(name) for row in rows], pl.Float64) for name in predictor.class_names
    ]
    return _frame([*columns, pl.Series("error", [row.error for row in rows], pl.String)])


def _frame(columns: list[pl.Series]) -> pl.DataFrame:
    return pl.DataFrame(with_own_names(columns)).with_columns(pl.selectors.float().round(6))
