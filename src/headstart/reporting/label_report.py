"""The report of a run that gives several labels: one page, with a section for each label column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_layout import LabelLayout
from headstart.evaluation.classification import Evaluation
from headstart.evaluation.multi_label import THRESHOLD, MultiLabelEvaluation
from headstart.evaluation.several_labels import LabelsEvaluation
from headstart.reporting.concerns import (
    NO_SCORE,
    Concern,
    about_calibration,
    about_classes,
    about_exclusions,
    about_optimism,
    about_training,
    about_units,
)
from headstart.reporting.pages import write_page
from headstart.reporting.run_facts import RunFacts, stage_charts, time_rows
from headstart.reporting.run_report import Mistake, evaluation_context
from headstart.reporting.thumbnails import thumbnail

AnyEvaluation = LabelsEvaluation | MultiLabelEvaluation

JOINT = "Combinations"
"""What the section of joint classes is called."""


@dataclass(frozen=True)
class LabelResults:
    """Everything the report shows, as plain data.

    Attributes:
        run: What is told of any run.
        layout: What the labels are.
        test: The test split's scores, or None where there is no test split.
        validation: The validation split's scores, or None.
        split_counts: One row per class of each column: ``class_name, train, validation, test``.
        mistakes: The surest wrong answers on the test split, by section: a column's name, or ``JOINT``.
        contact_sheet: Augmented training images, row by row.
        contact_columns: Images in a row of the sheet.
    """

    run: RunFacts
    layout: LabelLayout
    test: AnyEvaluation | None
    validation: AnyEvaluation | None
    split_counts: pl.DataFrame
    mistakes: Mapping[str, Sequence[Mistake]] = field(default_factory=dict)
    contact_sheet: Sequence[NDArray[np.uint8]] = ()
    contact_columns: int = 6


def write_label_report(results: LabelResults, path: Path) -> None:
    """Write the report as one HTML file that needs nothing else.

    Args:
        results: What to show.
        path: Where to write; replaced in one step.
    """
    run, scored = results.run, results.test or results.validation
    context = {
        "results": results,
        "run": run,
        "scored": scored,
        "is_multi": results.layout.form == "multi",
        "threshold": THRESHOLD,
        "headline_name": headline_of(results.layout),
        "concerns": concerns_of_label_run(results),
        "sections": sections_of(scored, results.mistakes),
        "mistakes": [(one, thumbnail(one.image)) for one in results.mistakes.get("", ())],
        "stages": stage_charts(run),
        "times": time_rows(run.seconds),
        "contact_sheet": [thumbnail(image) for image in results.contact_sheet],
    }
    write_page("labels.html", context, path)


def concerns_of_label_run(results: LabelResults) -> list[Concern]:
    """List what to worry about, the gravest first; what concerns one column begins with its name."""
    run, scored = results.run, results.test or results.validation
    found = list(run.worries)
    if scored is None:
        found.append(NO_SCORE)
    else:
        found += about_labels(scored)
        if results.test is not None and results.validation is not None:
            found += about_optimism(scored.scores, results.validation.scores, headline_of(results.layout))
    return [*found, *about_exclusions(run.counts.get("excluded", {})), *about_training(run.history, run.monitor)]


def about_labels(scored: AnyEvaluation) -> list[Concern]:
    """Say what to worry about in the scores of one split; what concerns one column begins with its name."""
    found = [Concern("How to read the scores", note) for note in scored.notes]
    found += about_units(scored.num_samples, scored.num_units)
    for name, part in parts_of(scored).items():
        about = [*about_classes(part.per_class), *about_calibration(part.scores["calibration_error"])]
        found += [Concern(f"{name}: {one.title[0].lower()}{one.title[1:]}", one.text) for one in about]
    if isinstance(scored, MultiLabelEvaluation):
        found += about_classes(scored.per_class)
    return found


def headline_of(layout: LabelLayout) -> str:
    """Give the score that a page begins with."""
    return "mean_average_precision" if layout.form == "multi" else "exact"


def parts_of(scored: object) -> dict[str, Evaluation]:
    """Give the classifications of several labels that a page has a section for: joint classes, then each column."""
    if not isinstance(scored, LabelsEvaluation):
        return {}
    return {**({JOINT: scored.joint} if scored.joint else {}), **scored.columns}


def sections_of(scored: object, mistakes: Mapping[str, Sequence[Mistake]] | None = None) -> list[dict[str, Any]]:
    """Give what a page shows of several labels: a section for each of ``parts_of``, with wrong answers to look at.

    Args:
        scored: The evaluation.
        mistakes: By the sections' names; none are shown without it.

    Returns:
        Of each section ``name, scored, mistakes, joint`` and what ``evaluation_context`` gives. ``joint`` is what the
        probabilities of a column are summed from; None for a head, and for the combinations themselves.
    """
    joint = scored.joint if isinstance(scored, LabelsEvaluation) else None
    sections: list[dict[str, Any]] = []
    for name, part in parts_of(scored).items():
        shown = [(one, thumbnail(one.image)) for one in (mistakes or {}).get(name, ())]
        section = {"name": name, "scored": part, "mistakes": shown, "joint": None if part is joint else joint}
        sections.append(section | evaluation_context(part))
    return sections
