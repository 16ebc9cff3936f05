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
from headstart.evaluation.classification import Evaluation
from headstart.evaluation.intervals import Score
from headstart.evaluation.keypoints import KEYPOINT_SCORES, KeypointEvaluation
from headstart.reporting.concerns import Concern, concerns_of_keypoint_run, concerns_of_run
from headstart.reporting.keypoint_report import BESIDE_HEADLINE, headline_top
from headstart.reporting.pages import write_page
from headstart.reporting.run_facts import RunFacts, time_rows
from headstart.reporting.run_report import evaluation_context
from headstart.reporting.thumbnails import thumbnail

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
    """A label that looks wrong: the image as stored, class names, how credible the label is, and where it is."""

    image: NDArray[np.uint8]
    label: str
    suggested: str
    self_confidence: float
    path: str


@dataclass(frozen=True)
class EnsembleResults:
    """Everything the page shows, as plain data.

    Attributes:
        run: What is told of any run.
        members: One row each.
        class_names: Of a classifier.
        layout: What the points are; None for a classifier.
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
    test: Evaluation | KeypointEvaluation | None = None
    oof: Evaluation | KeypointEvaluation | None = None
    gain: str = ""
    spread: str = ""
    suspects: Sequence[SuspectPicture] = ()
    num_suspects: int = 0


def write_ensemble_report(results: EnsembleResults, path: Path) -> None:
    """Write the page as one HTML file; replaced in one step.

    Args:
        results: What to show.
        path: Where to write.
    """
    write_page("ensemble.html", _context(results), path)


def _context(results: EnsembleResults) -> dict[str, Any]:
    is_points, scored = results.layout is not None, results.test or results.oof
    headline = "nme" if is_points else "accuracy"
    classes = results.oof if isinstance(results.oof, Evaluation) else results.test
    return {
        "results": results,
        "run": results.run,
        "scored": scored,
        "is_folds": results.oof is not None,
        "headline_name": headline,
        "headline_top": headline_top(scored.scores["nme"]) if scored and is_points else None,
        "aside": BESIDE_HEADLINE if is_points else CLASS_SCORES[1:],
        "score_names": KEYPOINT_SCORES if is_points else CLASS_SCORES,
        "member_columns": (headline,) if is_points else (headline, "balanced_accuracy"),
        "concerns": _concerns(results, scored),
        "by_class": classes if isinstance(classes, Evaluation) else None,
        "times": time_rows(results.run.seconds),
        "suspects": [(suspect, thumbnail(suspect.image)) for suspect in results.suspects],
    } | evaluation_context(classes if isinstance(classes, Evaluation) else None)


def _concerns(results: EnsembleResults, scored: Evaluation | KeypointEvaluation | None) -> list[Concern]:
    run = results.run
    common: dict[str, Any] = {
        "worries": run.worries, "excluded": run.counts.get("excluded", {}), "history": pl.DataFrame()
    }  # fmt: skip
    if results.layout is not None:
        points = scored if isinstance(scored, KeypointEvaluation) else None
        return concerns_of_keypoint_run(points, None, layout=results.layout, **common)
    classes = scored if isinstance(scored, Evaluation) else None
    return concerns_of_run(classes, None, monitor=run.monitor, **common)
