"""The report of a run that learned keypoints: the answer, what to worry about, the faces, and every detail folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.data.keypoints import KeypointLayout
from headstart.evaluation.intervals import Score
from headstart.evaluation.keypoints import KEYPOINT_SCORES, KeypointEvaluation, SeenAgainstUnseen
from headstart.reporting.concerns import concerns_of_keypoint_run
from headstart.reporting.keypoint_drawing import (
    FACE_MARGIN,
    PREDICTED_COLOUR,
    TRUE_COLOUR,
    draw_mark,
    draw_points_svg,
)
from headstart.reporting.keypoint_plots import cumulative_chart
from headstart.reporting.mean_face import error_face
from headstart.reporting.pages import write_page
from headstart.reporting.run_facts import RunFacts, stage_charts, time_rows

FaceKind = Literal["worst", "median", "best"]

GROUPS_SHOWN: Final = 15
"""Rows of the table of groups before the rest is folded."""

_SHEET_SIDE: Final = 150
BESIDE_HEADLINE: Final = ("failure_8", "auc_8", "nme_median", "error_pixels")
_KIND_WORDS: Final = {"worst": "Worst", "median": "In the middle", "best": "Best"}


@dataclass(frozen=True)
class FaceExample:
    """A scored face to look at.

    Attributes:
        kind: Why it is shown; see ``keypoint_metrics.choose_examples``.
        image: As stored, uint8 of shape (height, width, 3).
        points: The truth, in pixels of ``image``, shape (num_keypoints, 2).
        visible: Shape (num_keypoints,).
        predicted: In pixels of ``image``, shape (num_keypoints, 2).
        nme: Of this face, in percent.
        path: Where it is.
        group: Whose face it is; empty where not known.
    """

    kind: FaceKind
    image: NDArray[np.uint8]
    points: NDArray[np.float64]
    visible: NDArray[np.bool_]
    predicted: NDArray[np.float64]
    nme: float
    path: str
    group: str = ""


@dataclass(frozen=True)
class SheetImage:
    """An augmented training image: uint8 pixels, its points in these pixels, and which of them count."""

    image: NDArray[np.uint8]
    points: NDArray[np.float64]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class KeypointResults:
    """Everything the report shows, as plain data.

    Attributes:
        run: What is told of any run; its monitor is ``nme``, and its history holds, where known, ``validation_mae``,
            ``validation_mse`` and the same of ``train``.
        layout: What the points are.
        test: The test split's scores, or None where there is no test split.
        validation: The validation split's scores, or None.
        seen_unseen: Groups that training has seen against new ones, on the split of the headline (test, or else
            validation); None where groups are not known.
        group_name: How a group is called: the name of the column (``person``).
        mean_face: ``shapes.mean_shape`` of the training points, shape (num_keypoints, 2); None leaves the drawing
            out.
        faces: Worst, median and best faces of the split of the headline.
        paths: Of that split's samples, in the order of its arrays, to name each group's worst sample; may be empty.
        ancestry: Sentences on what the run goes on from, the nearest first.
        split_counts: One row per split: ``split, samples`` and maybe ``photos``, ``groups``; or None.
        contact_sheet: Augmented training images, row by row.
        contact_columns: Images in a row of the sheet: draws of the same photo.
    """

    run: RunFacts
    layout: KeypointLayout
    test: KeypointEvaluation | None
    validation: KeypointEvaluation | None
    seen_unseen: SeenAgainstUnseen | None = None
    group_name: str = "group"
    mean_face: NDArray[np.float64] | None = None
    faces: Sequence[FaceExample] = ()
    paths: Sequence[str] = ()
    ancestry: Sequence[str] = ()
    split_counts: pl.DataFrame | None = None
    contact_sheet: Sequence[SheetImage] = ()
    contact_columns: int = 6


def write_keypoint_report(results: KeypointResults, path: Path) -> None:
    """Write the report as one HTML file that needs nothing else.

    Args:
        results: What to show.
        path: Where to write; replaced in one step.
    """
    write_page("keypoints.html", _context(results), path)


def word_gap(found: SeenAgainstUnseen) -> str:
    r"""Say in a sentence what new groups cost.

    Examples:
        >>> word_gap(SeenAgainstUnseen(Score(2, 1.8, 2.2), Score(3, 2.7, 3.3), Score(1, 0.7, 1.3), 90, 60, 9, 6))
        'New groups cost 1.00 points of NME (95\xa0% interval 0.70 – 1.30): what to expect in use is the second number.'
        >>> word_gap(SeenAgainstUnseen(None, Score(3, 2.7, 3.3), None, 0, 60, 0, 6))
        'No sample scored is of a group that training has seen: the score above is that of new groups, as in use.'
    """
    if found.unseen is None:
        return "Every sample scored is of a group that training has seen: nothing says what new groups will cost."
    if found.seen is None:
        return (
            "No sample scored is of a group that training has seen: the score above is that of new groups, as in use."
        )
    if found.gap is None:
        return ""
    if not found.gap.has_interval:
        return f"The difference of {_signed(found.gap.value)} points of NME may be chance: one side is one group alone."
    interval = f"95\N{NO-BREAK SPACE}% interval {_signed(found.gap.low)} – {_signed(found.gap.high)}"
    if found.gap.low > 0:
        cost = f"New groups cost {found.gap.value:.2f} points of NME ({interval})"
        return f"{cost}: what to expect in use is the second number."
    if found.gap.high < 0:
        return (
            f"New groups score better by {-found.gap.value:.2f} points of NME ({interval}): their samples are easier."
        )
    return f"The difference of {_signed(found.gap.value)} points of NME may be chance ({interval})."


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _context(results: KeypointResults) -> dict[str, Any]:
    run, scored = results.run, results.test or results.validation
    return {
        "results": results,
        "run": run,
        "scored": scored,
        "split_name": "test" if results.test else "validation",
        "aside": BESIDE_HEADLINE,
        "groups_shown": GROUPS_SHOWN,
        "score_names": KEYPOINT_SCORES,
        "concerns": concerns_of_keypoint_run(
            scored,
            results.validation if results.test else None,
            worries=run.worries,
            excluded=run.counts.get("excluded", {}),
            history=run.history,
            layout=results.layout,
            seen_unseen=results.seen_unseen,
        ),
        "marks": {"ring": draw_mark("ring", TRUE_COLOUR), "dot": draw_mark("dot", PREDICTED_COLOUR)},
        "sheet_marks": {"dot": draw_mark("dot", TRUE_COLOUR), "ring": draw_mark("ring", TRUE_COLOUR)},
        "faces": _faces(results.faces),
        "stages": stage_charts(run, also=("mae", "mse")),
        "times": time_rows(run.seconds),
        "contact_sheet": [_sheet_image(one, number) for number, one in enumerate(results.contact_sheet, 1)],
        "pairs": [(results.layout.names[left], results.layout.names[right]) for left, right in _pairs(results.layout)],
        "sides": _sides(results.seen_unseen),
        "gap": word_gap(results.seen_unseen) if results.seen_unseen else "",
    } | _evaluation_context(results, scored)


def _evaluation_context(results: KeypointResults, scored: KeypointEvaluation | None) -> dict[str, Any]:
    if scored is None:
        return {"curve": "", "error_face": "", "groups": [], "headline_top": 10.0}
    curves = {"validation": results.validation.curve} if results.test and results.validation else {}
    face = "" if results.mean_face is None else error_face(results.mean_face, scored.per_point)
    groups = scored.per_group.to_dicts()
    for row in groups:
        row["path"] = results.paths[row["worst_sample"]] if results.paths else ""
    return {
        "curve": cumulative_chart(curves | {"test" if results.test else "validation": scored.curve}),
        "error_face": face,
        "extremes": _extremes(scored.per_point),
        "groups": groups,
        "headline_top": headline_top(scored.scores["nme"]),
    }


def _extremes(per_point: pl.DataFrame) -> str:
    known = per_point.filter(pl.col("nme").is_not_null()).sort("nme", descending=True)
    worst, least = known.row(0, named=True), known.row(-1, named=True)
    low, high = (f"{row['nme']:.2f}\N{NO-BREAK SPACE}% at point {row['name']}" for row in (least, worst))
    return f"From {low} to {high}."


def _faces(faces: Sequence[FaceExample]) -> list[tuple[str, list[tuple[str, FaceExample, Markup]]]]:
    """Give rows of faces under a heading each; one row without a heading where no kind has more than one."""
    drawn = [(words, face, _face(face)) for kind, words in _KIND_WORDS.items() for face in faces if face.kind == kind]
    by_kind = [(words, [one for one in drawn if one[0] == words]) for words in _KIND_WORDS.values()]
    if all(len(of_kind) <= 1 for _, of_kind in by_kind):
        return [("", drawn)] if drawn else []
    return [(words, of_kind) for words, of_kind in by_kind if of_kind]


def _face(face: FaceExample) -> Markup:
    alt = f"{face.path}: {int(np.sum(face.visible))} true points and where they were predicted, NME {face.nme:.2f} %"
    return draw_points_svg(face.image, face.points, face.visible, face.predicted, alt=alt, margin=FACE_MARGIN)


def _sheet_image(one: SheetImage, number: int) -> Markup:
    alt = f"augmented training image {number} with its points"
    return draw_points_svg(one.image, one.points, one.visible, alt=alt, longest_side=_SHEET_SIDE)


def _pairs(layout: KeypointLayout) -> tuple[tuple[int, int], ...]:
    return layout.flip_pairs or ()


def _sides(found: SeenAgainstUnseen | None) -> list[dict[str, Any]]:
    """Give the rows of known and new groups: words, score, and its place on one common scale.

    None where one side is empty: the other is then what the headline says, and has its interval there.
    """
    if found is None or found.seen is None or found.unseen is None:
        return []
    rows = [
        ("Groups seen in training", found.seen, found.num_seen, found.num_seen_groups),
        ("New groups", found.unseen, found.num_unseen, found.num_unseen_groups),
    ]
    top = max([headline_top(score) for _, score, _, _ in rows if score] or [10.0])
    return [
        {"name": name, "score": score, "num_samples": samples, "num_groups": groups, "top": top}
        for name, score, samples, groups in rows
    ]


def headline_top(score: Score) -> float:
    """Give the end of the scale that a score in percent is shown on: 10, or as many tens as it takes."""
    return max(10.0, 10.0 * -(-(score.high if score.has_interval else score.value) // 10))
