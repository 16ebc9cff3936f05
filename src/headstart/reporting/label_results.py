"""Gathers what the report of a run of several labels shows: from the run folder, the scores and the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_layout import JOIN, MISSING, NO_LABEL, LabelLayout, labels_of, output_counts
from headstart.data.table import SPLITS, SampleTable
from headstart.evaluation.classification import most_confident_mistakes
from headstart.label_scoring import LabelScoring
from headstart.models.label_outputs import THRESHOLD, column_probabilities
from headstart.reporting.label_report import JOINT, LabelResults
from headstart.reporting.mixed_sheet import mix_sheet
from headstart.reporting.run_report import Mistake
from headstart.reporting.run_results import count_by_class, draw_contact_sheet, gather_facts
from headstart.training.tasks import make_task

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.backbones import InputContract
    from headstart.runs import RunFolder
    from headstart.training.fit import FitResult

NUM_MISTAKES: Final = 6
"""Wrong answers shown for each label column."""


def gather_label_results(
    run: RunFolder,
    table: SampleTable,
    store: PixelStore,
    *,
    fitted: FitResult,
    scoring: LabelScoring,
    contract: InputContract,
) -> LabelResults:
    """Put together everything the report shows; see ``run_results.gather_results`` for the arguments."""
    sheet = draw_contact_sheet(make_task(run.recipe, table), table, store, contract)
    layout = scoring.layout
    return LabelResults(
        run=gather_facts(run, table, fitted=fitted, scoring=scoring),
        layout=layout,
        test=scoring.evaluations.get("test"),
        validation=scoring.evaluations.get("validation"),
        split_counts=count_by_class(table) if layout.form == "joint" else count_by_output(table, layout),
        mistakes=find_label_mistakes(scoring, store),
        contact_sheet=[image for row in mix_sheet(sheet.images, run.recipe) for image in row],
    )


def count_by_output(table: SampleTable, layout: LabelLayout) -> pl.DataFrame:
    """Count the kept samples of each class of each column in each split: ``class_name, train, validation, test``."""
    parts = {split: table.kept.filter(pl.col("split") == split) for split in SPLITS}
    counts = {split: list(output_counts(rows, layout).values()) for split, rows in parts.items()}
    return pl.DataFrame({"class_name": pl.Series(layout.output_names, dtype=pl.String), **counts})


def find_label_mistakes(scoring: LabelScoring, store: PixelStore) -> dict[str, list[Mistake]]:
    """Give the surest wrong answers on the test split (on validation where there is no test).

    Returns:
        By section of the page: of heads each column's; of joint classes the combinations'; of several classes at once
        under the empty name, photos whose surest wrong class is surest.
    """
    rows, probabilities = scoring.of_split("test" if "test" in scoring.evaluations else "validation")
    layout = scoring.layout
    if rows.is_empty():
        return {}
    labels = labels_of(rows)
    if layout.form == "multi":
        return {"": _wrong_sets(rows, labels, probabilities, layout.output_names, store)}
    if layout.form == "joint":
        joint = rows["label"].cast(pl.Int64).to_numpy()
        return {JOINT: _wrong(rows, joint, probabilities, layout.combination_names, store, limit=12)}
    found: dict[str, list[Mistake]] = {}
    for place, (name, table) in enumerate(column_probabilities(probabilities, layout).items()):
        known = labels[:, place] != MISSING
        if known.any():
            chosen = rows.filter(pl.Series(known))
            names = layout.columns[place].class_names
            found[name] = _wrong(chosen, labels[known, place], table[known], names, store, limit=NUM_MISTAKES)
    return found


def _wrong(
    rows: pl.DataFrame,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    names: tuple[str, ...],
    store: PixelStore,
    *,
    limit: int,
) -> list[Mistake]:
    return [
        Mistake(
            image=store.read(int(rows["record"][index])),
            true=names[labels[index]],
            predicted=names[int(probabilities[index].argmax())],
            probability=float(probabilities[index].max()),
            path=rows["path"][index],
        )
        for index in most_confident_mistakes(probabilities, labels, limit=limit).tolist()
    ]


def _wrong_sets(
    rows: pl.DataFrame,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    names: tuple[str, ...],
    store: PixelStore,
    *,
    limit: int = 12,
) -> list[Mistake]:
    """Give photos with a class too many or too few, that of the surest wrong answer first."""
    given = probabilities >= THRESHOLD
    sureness = np.where(given == (labels == 1), 0.0, np.where(given, probabilities, 1 - probabilities)).max(axis=1)
    chosen = [index for index in np.argsort(-sureness, kind="stable").tolist() if sureness[index] > 0][:limit]

    def worded(row: NDArray[np.bool_]) -> str:
        return JOIN.join(name for name, has in zip(names, row, strict=True) if has) or NO_LABEL

    return [
        Mistake(
            image=store.read(int(rows["record"][index])),
            true=worded(labels[index] == 1),
            predicted=worded(given[index]),
            probability=float(sureness[index]),
            path=rows["path"][index],
        )
        for index in chosen
    ]
