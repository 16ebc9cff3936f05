"""The report of several models that answer as one: K folds, or members that were put together.

One page: what the vote is worth, what to worry about, each member beside the others, the score out of fold with its
confusion, the labels that look wrong as pictures, and every detail folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.keypoints import KeypointLayout
from headstart.data.label_layout import LabelLayout
from headstart.evaluation.classification import Evaluation
from headstart.evaluation.intervals import Score
from headstart.evaluation.keypoints import KEYPOINT_SCORES, KeypointEvaluation
from headstart.evaluation.multi_label import MULTI_SCORES, MultiLabelEvaluation
from headstart.evaluation.several_labels import LabelsEvaluation
from headstart.models.label_outputs import THRESHOLD
from headstart.reporting.concerns import (
    NO_SCORE,
    Concern,
    about_exclusions,
    concerns_of_keypoint_run,
    concerns_of_run,
)
from headstart.reporting.keypoint_report import BESIDE_HEADLINE, headline_top
from headstart.reporting.label_report import about_labels, headline_of, sections_of
from headstart.reporting.pages import write_page
from headstart.reporting.run_facts import RunFacts, time_rows
from headstart.reporting.run_report import evaluation_context
from headstart.reporting.thumbnails import thumbnail
from headstart.wording import counted

CLASS_SCORES: Final = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")

NUM_SUSPECTS: Final = 36
"""Suspect labels shown as pictures: the least credible; the file names all."""


@dataclass(frozen=True)
class MemberRow:
    """One line of the table of members.

    Attributes:
        name: Its folder, below the run or where it came from.
        page: Its own report, relative to this page; empty where there is none.
        chosen: What training chose.
        num_held_out: Samples that were held out from it; None where it is no fold.
        scores: Of what was held out.
        test: Its headline score on the test; None where it was not scored.
        weight: Of its vote.
    """

    name: str
    page: str = ""
    chosen: str = ""
    num_held_out: int | None = None
    scores: Mapping[str, Score] | None = None
    test: Score | None = None
    weight: float | None = None


@dataclass(frozen=True)
class SuspectPicture:
    """A label that looks wrong: the image as stored, class names, how credible the label is, and where it is.

    Of several labels, ``column`` says which one.
    """

    image: NDArray[np.uint8]
    label: str
    suggested: str
    self_confidence: float
    path: str
    column: str = ""


AnyEvaluation = Evaluation | KeypointEvaluation | LabelsEvaluation | MultiLabelEvaluation


@dataclass(frozen=True)
class EnsembleResults:
    """Everything the page shows, as plain data.

    Attributes:
        run: What is told of any run.
        members: One row each.
        class_names: Of a classifier.
        layout: What the points are; None for a classifier.
        labels: What several labels a photo are; None where it gets one.
        test: What the vote is worth on the test; None where nothing could be scored.
        oof: All answers out of fold; None where the members are no folds.
        gain: What the vote gains over one member, a sentence; empty where it was not measured.
        spread: How far the folds lie apart, a sentence.
        suspects: The least credible labels.
        num_suspects: How many there are in all.
    """

    run: RunFacts
    members: Sequence[MemberRow]
    class_names: tuple[str, ...] = ()
    layout: KeypointLayout | None = None
    labels: LabelLayout | None = None
    test: AnyEvaluation | None = None
    oof: AnyEvaluation | None = None
    gain: str = ""
    spread: str = ""
    suspects: Sequence[SuspectPicture] = ()
    num_suspects: int = 0

    @property
    def num_voting(self) -> int:
        """Members whose vote counts: the others say nothing, and are counted nowhere else on the page."""
        return sum(one.weight is None or one.weight > 0 for one in self.members)

    @property
    def models(self) -> str:
        """Words for members that are no folds."""
        one_or_more = counted(self.num_voting, "model that answers alone", "models that answer as one")
        num_silent = len(self.members) - self.num_voting
        return one_or_more + (f" ({counted(num_silent, 'other has', 'others have')} no vote)" if num_silent else "")


def write_ensemble_report(results: EnsembleResults, path: Path) -> None:
    """Write the page as one HTML file; replaced in one step.

    Args:
        results: What to show.
        path: Where to write.
    """
    write_page("ensemble.html", _context(results), path)


def _context(results: EnsembleResults) -> dict[str, Any]:
    is_points, scored = results.layout is not None, results.test or results.oof
    names, member_columns = _score_names(results)
    classes = results.oof or results.test  # out of fold there are more images
    return {
        "results": results,
        "run": results.run,
        "scored": scored,
        "is_folds": results.oof is not None,
        "headline_name": names[0],
        "is_multi": results.labels is not None and results.labels.form == "multi",
        "threshold": THRESHOLD,
        "headline_top": headline_top(scored.scores["nme"]) if scored and is_points else None,
        "aside": BESIDE_HEADLINE if is_points else names[1:],
        "score_names": names,
        "member_columns": member_columns,
        "member_score": member_columns[0],
        "concerns": _concerns(results, scored),
        "by_class": classes if isinstance(classes, Evaluation) else None,
        "by_label": classes if isinstance(classes, LabelsEvaluation | MultiLabelEvaluation) else None,
        "sections": sections_of(classes),
        "times": time_rows(results.run.seconds),
        "suspects": [(suspect, thumbnail(suspect.image)) for suspect in results.suspects],
    } | evaluation_context(classes if isinstance(classes, Evaluation) else None)


def _score_names(results: EnsembleResults) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the scores to show, the headline first, and those of each member, first the one that it has on the test."""
    if results.layout is not None:
        return KEYPOINT_SCORES, ("nme",)
    if results.labels is None:
        return CLASS_SCORES, CLASS_SCORES[:2]
    form, headline = results.labels.form, headline_of(results.labels)
    if form == "multi":
        return MULTI_SCORES, ("exact", headline)
    return (headline,), (("accuracy", headline) if form == "joint" else (headline,))


def _concerns(results: EnsembleResults, scored: AnyEvaluation | None) -> list[Concern]:
    run = results.run
    if results.labels is not None:
        is_scored = isinstance(scored, LabelsEvaluation | MultiLabelEvaluation)
        about = about_labels(scored) if is_scored else [NO_SCORE]
        return [*run.worries, *about, *about_exclusions(run.counts.get("excluded", {}))]
    common: dict[str, Any] = {
        "worries": run.worries, "excluded": run.counts.get("excluded", {}), "history": pl.DataFrame()
    }  # fmt: skip
    if results.layout is not None:
        points = scored if isinstance(scored, KeypointEvaluation) else None
        return concerns_of_keypoint_run(points, None, layout=results.layout, **common)
    classes = scored if isinstance(scored, Evaluation) else None
    return concerns_of_run(classes, None, monitor=run.monitor, **common)
