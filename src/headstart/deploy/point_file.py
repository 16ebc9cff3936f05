"""Points → a CSV with a row a photo, and pictures with the points drawn on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from headstart.data.keypoints import KeypointLayout, point_columns
from headstart.deploy.drawings import check_drawing_folder, drawn_names, write_drawing
from headstart.deploy.face_boxes import FaceBoxes
from headstart.deploy.keypoint_predictor import KeypointPrediction, KeypointPredictor
from headstart.deploy.prediction_file import PredictionSummary
from headstart.files import written_aside
from headstart.progress import say, track

_ROWS: Final = 1024  # held and written at a time


def write_points(
    predictor: KeypointPredictor,
    paths: Sequence[str],
    out_csv: Path,
    *,
    boxes: FaceBoxes | None = None,
    draw: Path | None = None,
    batch_size: int = 32,
    quiet: bool = False,
) -> PredictionSummary:
    """Find points and write one row a photo: path, x1, y1, …, xK, yK (pixels of the upright photo), error.

    Args:
        predictor: The model.
        paths: The photos.
        out_csv: The CSV to write, in UTF-8; it appears when it is whole. ``train`` and ``convert`` read it.
        boxes: The face in each photo (``face_boxes.read_boxes``); see ``KeypointPredictor.predict``. A photo without a
            box that can be used gets a row with the error.
        draw: Folder for a JPEG of each photo with its points drawn on it: new, empty, or with earlier drawings alone.
        batch_size: Photos a forward pass.
        quiet: Print nothing.

    Raises:
        RunError: The folder to draw in holds something else than drawings: nothing is overwritten.
        RecipeError: ``batch_size`` is out of bounds.
    """
    note = check_drawing_folder(draw, paths) if draw is not None else ""
    if note and not quiet:
        say(note)
    num_errors, names = 0, drawn_names(paths)
    predictions = _predictions(predictor, paths, boxes, batch_size)
    with (
        written_aside(Path(out_csv)) as aside,
        aside.open("wb") as file,
        track("finding points", len(paths), quiet=quiet) as advance,
    ):
        for number, rows in enumerate(_chunks(predictions)):
            _frame(rows, predictor.layout).write_csv(file, include_header=number == 0)
            num_errors += sum(row.error is not None for row in rows)
            for row, name in zip(rows, islice(names, len(rows)), strict=True):
                write_drawing(row, draw / name) if draw is not None else None
                advance(1)
    for note in () if quiet else predictor.notes:
        say(note)
    return PredictionSummary(len(paths) - num_errors, num_errors)


def _predictions(
    predictor: KeypointPredictor, paths: Sequence[str], boxes: FaceBoxes | None, batch_size: int
) -> Iterator[KeypointPrediction]:
    """Give a prediction a photo; one without a box that can be used is not run, and says why."""
    if boxes is None:
        yield from predictor.stream(paths, batch_size=batch_size)
        return
    usable = [row for row, problem in enumerate(boxes.problems) if problem is None]
    found = predictor.stream([paths[row] for row in usable], boxes=boxes.sides[usable], batch_size=batch_size)
    for path, problem in zip(paths, boxes.problems, strict=True):
        yield next(found) if problem is None else KeypointPrediction(path, None, None, problem)


def _chunks(predictions: Iterator[KeypointPrediction]) -> Iterator[list[KeypointPrediction]]:
    while rows := list(islice(predictions, _ROWS)):
        yield rows


def _frame(rows: list[KeypointPrediction], layout: KeypointLayout) -> pl.DataFrame:
    nothing = np.full((layout.num_keypoints, 2), np.nan)
    points = np.stack([nothing if row.points is None else row.points for row in rows])
    columns = [column.fill_nan(None).round(3) for column in point_columns(points)]
    path, error = (pl.Series(name, [getattr(row, name) for row in rows], pl.String) for name in ("path", "error"))
    return pl.DataFrame([path, *columns, error])
