"""Points → a CSV with a row a photo, and pictures with the points drawn on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.data.decoding import CoverRule, decode
from headstart.data.keypoints import KeypointLayout, point_columns
from headstart.data.label_files import open_label_file
from headstart.deploy.point_drawing import draw_points
from headstart.deploy.prediction_file import PredictionSummary
from headstart.errors import RunError, SourceError, must_be
from headstart.files import written_aside
from headstart.progress import say, track

if TYPE_CHECKING:
    from headstart.deploy.keypoint_predictor import KeypointPrediction, KeypointPredictor

_ROWS: Final = 1024  # held and written at a time
_QUALITY: Final = 92  # of the drawn JPEGs
_SIDES: Final = ("left", "top", "right", "bottom")
_LARGEST: Final = CoverRule((4096, 4096), "crop")


def write_points(
    predictor: KeypointPredictor,
    paths: Sequence[str],
    out_csv: Path,
    *,
    boxes: ArrayLike | None = None,
    draw: Path | None = None,
    batch_size: int = 32,
    quiet: bool = False,
) -> PredictionSummary:
    """Find points and write one row a photo: path, x1, y1, …, xK, yK (pixels of the upright photo), error.

    Args:
        predictor: The model.
        paths: The photos.
        out_csv: The CSV to write, in UTF-8; it appears when it is whole. ``train`` and ``convert`` read it.
        boxes: The face in each photo; see ``KeypointPredictor.predict``.
        draw: Folder for a JPEG of each photo with its points drawn on it.
        batch_size: Photos a forward pass.
        quiet: Print nothing.

    Raises:
        RunError: The folder to draw in holds something already: nothing is overwritten.
        RecipeError: ``batch_size`` is out of bounds, or there is not one box a photo.
    """
    if draw is not None and draw.exists() and (not draw.is_dir() or any(draw.iterdir())):
        raise RunError(must_be("--draw", "a new or empty folder", str(draw), "Name another one."))
    num_errors, names = 0, drawn_names(paths)
    predictions = iter(predictor.stream(paths, boxes=boxes, batch_size=batch_size))
    with (
        written_aside(Path(out_csv)) as aside,
        aside.open("wb") as file,
        track("finding points", len(paths), quiet=quiet) as advance,
    ):
        for number, rows in enumerate(_chunks(predictions)):
            _frame(rows, predictor.layout).write_csv(file, include_header=number == 0)
            num_errors += sum(row.error is not None for row in rows)
            for row, name in zip(rows, islice(names, len(rows)), strict=True):
                _draw(row, draw / name) if draw is not None else None
                advance(1)
    for note in () if quiet else predictor.notes:
        say(note)
    return PredictionSummary(len(paths) - num_errors, num_errors)


def drawn_names(paths: Sequence[str]) -> Iterator[str]:
    """Give each photo's drawing a name: its own where no other has the same, else with a number.

    Examples:
        >>> list(drawn_names(["a/1.jpg", "b/1.png", "c/2.bmp"]))
        ['1.jpg', '1-2.jpg', '2.jpg']
    """
    used: set[str] = set()
    for path in paths:
        stem = Path(path).stem
        numbered = (f"{stem}-{number}.jpg" for number in count(2))
        name = next(name for name in chain([f"{stem}.jpg"], numbered) if name not in used)
        used.add(name)
        yield name


def read_boxes(table: Path, paths: Sequence[str]) -> NDArray[np.float64]:
    """Read the face in each photo from a table of path, left, top, right, bottom.

    Args:
        table: CSV, TSV or Parquet; a photo is found by its path, as given or from the table's folder, or by
            its file name where one row and one photo have it.
        paths: The photos.

    Returns:
        Shape (n, 4), in pixels of the photos.

    Raises:
        SourceError: The table cannot be read, lacks a column, or has no box for a photo.
    """
    rows = open_label_file(table).rows.collect()
    missing = [name for name in ("path", *_SIDES) if name not in rows.columns]
    if missing:
        expected = "a table with the columns path, left, top, right, bottom"
        raise SourceError(must_be(str(table), expected, rows.columns, f"It lacks {', '.join(missing)}."))
    sides = rows.select(pl.col(_SIDES).cast(pl.Float64, strict=False)).to_numpy()
    whole = {path: row for row, path in enumerate(rows["path"].to_list())}
    names = rows["path"].str.split("/").list.last().to_list()
    counts = Counter(names)
    by_name = {name: row for row, name in enumerate(names) if counts[name] == 1}
    alike = Counter(Path(path).name for path in paths)
    by_name = {name: row for name, row in by_name.items() if alike[name] == 1}
    whole |= {str(table.parent / path): row for path, row in whole.items()}
    found = [whole.get(path, by_name.get(Path(path).name)) for path in paths]
    lost = [path for path, row in zip(paths, found, strict=True) if row is None or not _is_box(sides[row])]
    if lost:
        raise SourceError(must_be(str(table), "a table with a box for each photo", lost[0], f"{len(lost):,} lack one."))
    return sides[[row for row in found if row is not None]]


def _is_box(sides: NDArray[np.float64]) -> bool:
    left, top, right, bottom = sides.tolist()
    return bool(np.isfinite(sides).all() and left < right and top < bottom)


def _chunks(predictions: Iterator[KeypointPrediction]) -> Iterator[list[KeypointPrediction]]:
    while rows := list(islice(predictions, _ROWS)):
        yield rows


def _frame(rows: list[KeypointPrediction], layout: KeypointLayout) -> pl.DataFrame:
    nothing = np.full((layout.num_keypoints, 2), np.nan)
    points = np.stack([nothing if row.points is None else row.points for row in rows])
    columns = [column.fill_nan(None).round(3) for column in point_columns(points)]
    path, error = (pl.Series(name, [getattr(row, name) for row in rows], pl.String) for name in ("path", "error"))
    return pl.DataFrame([path, *columns, error])


def _draw(row: KeypointPrediction, place: Path) -> None:
    """Write the upright photo with its points; a photo that cannot be read has none."""
    if row.points is None or row.path is None:
        return
    photo = decode(Path(row.path).read_bytes(), cover=_LARGEST, max_pixels=2**31)
    scale = np.array(photo.scale[::-1])
    drawn = draw_points(photo.pixels, row.points * scale)
    place.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(drawn[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    place.write_bytes(encoded.tobytes())
