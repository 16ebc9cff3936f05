"""The report of a run: one page that gives the answer, what to worry about, the pictures, and every detail folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.evaluation.classification import Evaluation, most_confused_pairs
from headstart.reporting.concerns import concerns_of_run
from headstart.reporting.pages import write_page
from headstart.reporting.plots import MAX_CONFUSION_CLASSES, confusion_chart, reliability_chart
from headstart.reporting.run_facts import RunFacts, stage_charts, time_rows
from headstart.reporting.thumbnails import thumbnail


@dataclass(frozen=True)
class Mistake:
    """A wrong answer to look at: the image as stored, the class names, how sure the model was, and where it is."""

    image: NDArray[np.uint8]
    true: str
    predicted: str
    probability: float
    path: str


@dataclass(frozen=True)
class RunResults:
    """Everything the report shows, as plain data.

    Attributes:
        run: What is told of any run.
        class_names: Label i is ``class_names[i]``.
        test: The test split's scores, or None where there is no test split.
        validation: The validation split's scores, or None.
        split_counts: One row per class: ``class_name, train, validation, test`` (numbers of samples); or None.
        mistakes: The surest wrong answers on the test split.
        contact_sheet: Augmented training images, uint8 (height, width, 3), row by row.
        contact_columns: Images in a row of the sheet: draws of the same photo.
    """

    run: RunFacts
    class_names: tuple[str, ...]
    test: Evaluation | None
    validation: Evaluation | None
    split_counts: pl.DataFrame | None = None
    mistakes: Sequence[Mistake] = ()
    contact_sheet: Sequence[NDArray[np.uint8]] = ()
    contact_columns: int = 6


def write_run_report(results: RunResults, path: Path) -> None:
    """Write the report as one HTML file that needs nothing else.

    Args:
        results: What to show.
        path: Where to write; replaced in one step.
    """
    write_page("run.html", _context(results), path)


def _context(results: RunResults) -> dict[str, Any]:
    run, scored = results.run, results.test or results.validation
    return {
        "results": results,
        "run": run,
        "split_name": "test" if results.test else "validation",
        "scored": scored,
        "concerns": concerns_of_run(
            scored,
            results.validation if results.test else None,
            worries=run.worries,
            excluded=run.counts.get("excluded", {}),
            history=run.history,
            monitor=run.monitor,
        ),
        "stages": stage_charts(run),
        "times": time_rows(run.seconds),
        "mistakes": [(mistake, thumbnail(mistake.image)) for mistake in results.mistakes],
        "contact_sheet": [thumbnail(image) for image in results.contact_sheet],
    } | evaluation_context(scored)


def evaluation_context(evaluation: Evaluation | None) -> dict[str, Any]:
    """Give what a page shows of one classification: confusion, the most confused classes, reliability."""
    if evaluation is None:
        return {"confusion": None, "confused": [], "reliability": None}
    is_drawn = len(evaluation.class_names) <= MAX_CONFUSION_CLASSES
    bins_before = evaluation.bins_unscaled if evaluation.temperature != 1.0 else None
    return {
        "confusion": confusion_chart(evaluation.confusion, evaluation.class_names) if is_drawn else None,
        "confused": most_confused_pairs(evaluation, limit=8 if is_drawn else 30).to_dicts(),
        "reliability": reliability_chart(evaluation.bins, bins_before),
    }
