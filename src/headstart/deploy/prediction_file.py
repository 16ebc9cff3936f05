"""Predictions → a CSV, written as they come, with names to show (in Korean, say) where a label map is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from headstart.data.label_files import LABEL_NAMES, open_label_file
from headstart.errors import SourceError, did_you_mean, must_be
from headstart.files import written_aside
from headstart.progress import say, track

if TYPE_CHECKING:
    from headstart.deploy.predictor import Prediction, Predictor

_ROWS: Final = 4096  # held and written at a time
_TEXT_NAMES: Final = ("display_name", "display", "text", "name", "title", "translation")


@dataclass(frozen=True)
class PredictionSummary:
    """How many photos got a label, and how many a row with an error instead."""

    num_predicted: int
    num_errors: int


def write_predictions(
    predictor: Predictor,
    paths: Sequence[str],
    out_csv: Path,
    *,
    top_k: int = 1,
    label_map: Path | None = None,
    batch_size: int = 32,
    quiet: bool = False,
) -> PredictionSummary:
    """Label photos and write one row each: path, label, display_name, probability, top2_label, …, error.

    Args:
        predictor: The model.
        paths: The photos.
        out_csv: The CSV to write, in UTF-8; it appears when it is whole.
        top_k: Likeliest classes to write.
        label_map: Table with a label and the text to show for it in each row.
        batch_size: Photos a forward pass.
        quiet: Print nothing.

    Raises:
        SourceError: The label map cannot be read, or names a label that the model does not know.
        RecipeError: ``top_k`` or ``batch_size`` is out of bounds.
    """
    names, notes = _display_names(label_map, predictor.class_names)
    num_errors, num_notes = 0, len(predictor.notes)
    predictions = predictor.stream(paths, top_k=top_k, batch_size=batch_size)
    with (
        written_aside(Path(out_csv)) as aside,
        aside.open("wb") as file,
        track("labelling", len(paths), quiet=quiet) as advance,
    ):
        for number, rows in enumerate(_chunks(predictions, advance)):
            _frame(rows, names, top_k).write_csv(file, include_header=number == 0)
            num_errors += sum(row.error is not None for row in rows)
    for note in () if quiet else (*notes, *predictor.notes[num_notes:]):
        say(note)
    return PredictionSummary(len(paths) - num_errors, num_errors)


def read_label_map(path: Path, class_names: Sequence[str]) -> dict[str, str]:
    """Read the text to show for labels.

    Args:
        path: CSV or TSV (UTF-8, UTF-16 or cp949) or Parquet. Its columns are told by their names, else the first holds
            labels and the second text. The first row may be a label already.
        class_names: The labels that the model knows.

    Raises:
        SourceError: It cannot be read, has one column, or a label is unknown or stands there twice.
    """
    file = open_label_file(path)
    rows = file.rows.collect().select(pl.all().cast(pl.String).str.strip_chars())
    if rows.width < 2:
        raise SourceError(must_be(str(path), "a table with a label and a text in each row", rows.columns))
    label, text = _columns(rows.columns)
    pairs = rows.select(label=label, text=text).drop_nulls("label").filter(pl.col("label") != "")
    if label.strip() in class_names:  # no header: what was taken for one is the first row
        pairs = pl.concat([pl.DataFrame({"label": [label.strip()], "text": [text.strip()]}), pairs])
    _check_labels(pairs["label"], path, class_names)
    shown = pairs.drop_nulls("text").filter(pl.col("text") != "")
    return dict(zip(shown["label"], shown["text"], strict=True))


def _columns(names: Sequence[str]) -> tuple[str, str]:
    plain = {name.strip().lower(): name for name in names}
    label = next((plain[name] for name in plain if name in LABEL_NAMES), names[0])
    text = next((plain[name] for name in _TEXT_NAMES if plain.get(name, label) != label), None)
    return label, text or next(name for name in names if name != label)


def _check_labels(labels: pl.Series, path: Path, class_names: Sequence[str]) -> None:
    unknown = labels.filter(~labels.is_in(list(class_names))).unique(maintain_order=True).to_list()
    if unknown:
        known = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
        remedy = did_you_mean(unknown[0], class_names) or "Mend these cells."
        raise SourceError(
            must_be(f"{path}: label", f"one of the {len(class_names)} classes ({known})", unknown, remedy)
        )
    twice = labels.filter(labels.is_duplicated()).unique(maintain_order=True).to_list()
    if twice:
        raise SourceError(must_be(f"{path}: label", "there once each", twice, "Remove the rows that are too many."))


def _display_names(label_map: Path | None, class_names: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    if label_map is None:
        return {}, ()
    names = read_label_map(Path(label_map), class_names)
    bare = [name for name in class_names if name not in names]
    note = f"{Path(label_map).name} has no text for {', '.join(bare)}: shown by their own names."
    return names, (note,) if bare else ()


def _chunks(predictions: Iterator[Prediction], advance: Any) -> Iterator[list[Prediction]]:
    while True:
        rows: list[Prediction] = []
        for row in islice(predictions, _ROWS):
            rows.append(row)
            advance(1)
        if not rows:
            return
        yield rows


def _frame(rows: list[Prediction], names: Mapping[str, str], top_k: int) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "path": [row.path for row in rows],
        "label": [row.label for row in rows],
        "display_name": [names.get(row.label, row.label) if row.label is not None else None for row in rows],
        "probability": [row.probability for row in rows],
    }
    for place in range(1, top_k):
        columns[f"top{place + 1}_label"] = [row.top[place][0] if row.top else None for row in rows]
        columns[f"top{place + 1}_probability"] = [row.top[place][1] if row.top else None for row in rows]
    columns["error"] = [row.error for row in rows]
    types = {name: pl.Float64 if name.endswith("probability") else pl.String for name in columns}
    return pl.DataFrame(columns, schema=types).with_columns(pl.selectors.float().round(6))
