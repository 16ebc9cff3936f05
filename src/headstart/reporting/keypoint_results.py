"""Gathers what the report of a keypoint run shows: from the run folder, the scores and the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from headstart.ancestry import learned_by
from headstart.data.keypoint_check import word_crowding
from headstart.data.keypoints import Points, points_of, visible_of
from headstart.data.shapes import NoShapeError, mean_shape
from headstart.data.table import SPLITS, SampleTable, layout_of
from headstart.evaluation.keypoint_metrics import choose_examples
from headstart.evaluation.keypoints import SeenAgainstUnseen, seen_against_unseen
from headstart.keypoint_scoring import KeypointScoring
from headstart.reporting.concerns import CROWDING, Concern
from headstart.reporting.keypoint_report import FaceExample, KeypointResults, SheetImage
from headstart.reporting.run_results import NUM_SHEET_PHOTOS, draw_contact_sheet, gather_facts
from headstart.training.tasks import Keypoints

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.backbones import InputContract
    from headstart.recipe import Recipe
    from headstart.runs import RunFolder
    from headstart.training.fit import FitResult

NUM_FACES: Final = 4
"""Test faces of each kind: the worst, those in the middle, the best."""

_CROPPED: Final = (
    "Test faces were cut out by the box around their true points, which says where a face is and how large. In use a "
    "detector's box does that, less exactly: expect larger errors."
)


def gather_keypoint_results(
    run: RunFolder,
    table: SampleTable,
    store: PixelStore,
    *,
    fitted: FitResult,
    scoring: KeypointScoring,
    contract: InputContract,
) -> KeypointResults:
    """Put together everything the report shows; see ``run_results.gather_results`` for the arguments."""
    split = "test" if "test" in scoring.evaluations else "validation"
    chosen = np.flatnonzero((scoring.rows["split"] == split).to_numpy())
    train = table.kept.filter(pl.col("split") == "train")
    facts, rows = run.facts, scoring.rows[chosen]
    worries = [Concern("Cropped by the true points", _CROPPED)] if run.recipe.crop_to_points is not None else []
    crowding = word_crowding(table, layout_of(table), run.recipe)
    worries += [Concern(CROWDING, crowding)] if crowding else []
    return KeypointResults(
        run=gather_facts(run, table, fitted=fitted, scoring=scoring, worries=worries),
        layout=layout_of(table),
        test=scoring.evaluations.get("test"),
        validation=scoring.evaluations.get("validation"),
        seen_unseen=_seen_unseen(scoring, chosen, _groups_seen(run, train), seed=run.recipe.seed),
        group_name=run.recipe.group_column or ("person" if "person" in table.frame.columns else "group"),
        mean_face=_mean_face(train, seed=run.recipe.seed),
        faces=_faces(scoring, chosen, store),
        paths=rows["path"].to_list(),
        ancestry=facts.get("ancestry", [])[::-1],
        split_counts=count_by_split(table),
        contact_sheet=draw_keypoint_sheet(table, store, run.recipe, contract),
        contact_columns=NUM_SHEET_PHOTOS,
    )


def count_by_split(table: SampleTable) -> pl.DataFrame:
    """Count kept samples of each split: ``split, samples``, ``photos`` where some hold several, ``groups`` if any."""
    kept, rows = table.kept, []
    for split in SPLITS:
        part = kept.filter(pl.col("split") == split)
        num_groups = part["group"].drop_nulls().n_unique()
        rows.append({"split": split, "samples": part.height, "photos": part["path"].n_unique(), "groups": num_groups})
    counts = pl.DataFrame(rows)
    counts = counts.drop("photos") if counts["photos"].equals(counts["samples"]) else counts
    return counts if counts["groups"].sum() else counts.drop("groups")


def draw_keypoint_sheet(
    table: SampleTable, store: PixelStore, recipe: Recipe, contract: InputContract
) -> list[SheetImage]:
    """Draw the contact sheet with the points that training learns, row by row."""
    task = Keypoints(recipe, layout_of(table))
    sheet = draw_contact_sheet(task, table, store, contract)
    positions, frame = np.arange(len(sheet.images)), np.array(contract.image_size[::-1])
    targets = [task.targets(sheet.samples, positions, maps.affine, contract) for maps in sheet.draws]
    return [
        SheetImage(image, shares[row].numpy() * frame, counts[row].numpy())
        for row, images in enumerate(sheet.images)
        for image, (shares, counts) in zip(images, targets, strict=True)
    ]


def _mean_face(rows: pl.DataFrame, *, seed: int) -> Points | None:
    try:
        return mean_shape(points_of(rows), visible_of(rows), seed=seed)
    except NoShapeError:
        return None


def _groups_seen(run: RunFolder, train: pl.DataFrame) -> set[str]:
    """Give the groups that training has seen, that of the runs it goes on from included."""
    own = set(train["group"].drop_nulls().unique().to_list())
    return own | learned_by(run.facts.get("ancestors", [])).groups


def _seen_unseen(
    scoring: KeypointScoring, chosen: np.ndarray, known: set[str], *, seed: int
) -> SeenAgainstUnseen | None:
    rows = scoring.rows[chosen]
    if rows["group"].null_count() == rows.height:
        return None
    errors, units = scoring.sample_errors[chosen], rows["unit"].to_numpy()
    return seen_against_unseen(errors, rows["group"].to_list(), known, units=units, seed=seed)


def _faces(scoring: KeypointScoring, chosen: np.ndarray, store: PixelStore) -> list[FaceExample]:
    rows, samples, errors = scoring.rows, scoring.samples, scoring.sample_errors
    groups = rows["group"][chosen].fill_null(rows["path"][chosen])
    faces: list[FaceExample] = []
    for kind, positions in choose_examples(errors[chosen], groups=groups.to_numpy(), num_each=NUM_FACES).items():
        for position in chosen[positions].tolist():
            scale = samples.scales[position][::-1]
            faces.append(
                FaceExample(
                    kind,  # pyright: ignore[reportArgumentType] - the keys of choose_examples
                    image=store.read(int(samples.records[position])),
                    points=samples.original[position] * scale,
                    visible=samples.visible[position],
                    predicted=scoring.predicted[position] * scale,
                    nme=float(errors[position]),
                    path=rows["path"][position],
                    group=rows["group"][position] or "",
                )
            )
    return faces
