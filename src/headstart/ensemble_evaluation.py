"""``headstart evaluate`` on an ensemble: its own test images again, or other photos that no member has learned from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from headstart.ancestry import ancestors_of, learned_by
from headstart.data.table import SampleTable
from headstart.ensemble_scoring import ask_members, open_views, score_votes
from headstart.errors import RunError, must_be
from headstart.keypoint_scoring import KeypointScoring
from headstart.label_scoring import LabelScoring
from headstart.models.ensemble import Ensemble
from headstart.preparation import PreparedData, reopen
from headstart.progress import say
from headstart.recipe import Recipe
from headstart.reevaluation import notes_of, other_photos, reading_recipe, save_scores, scoring_recipe
from headstart.runs import RunFolder
from headstart.scoring import Scoring
from headstart.training.fit import choose_device
from headstart.wording import counted


def evaluate_ensemble(
    run: RunFolder, ensemble: Ensemble, recipe: Recipe, *, out: Path | None = None
) -> Scoring | KeypointScoring | LabelScoring:
    """Score an ensemble on its test images, or on ``recipe.data`` where that is set; print and save the scores.

    Args:
        run: Of the ensemble.
        ensemble: Its bundle.
        recipe: How to read the photos; ``data`` says which.
        out: Folder for metrics.json and predictions.parquet, which is there.

    Raises:
        RunError: There are no test images, or a member has learned from some of the photos.
        SourceError: The photos are of another task, or have other classes or points.
    """
    for joint in ensemble.joints:
        joint.to(choose_device(recipe))
    if recipe.data is None:
        views = open_views(ensemble, _own_test(run), run.recipe)
    else:
        with tempfile.TemporaryDirectory(prefix="headstart-") as unpacked:
            views = _other_views(run, ensemble, recipe, out / "unpacked" if out else Path(unpacked))
    num_keypoints = ensemble.keypoints.num_keypoints if ensemble.keypoints else None
    how, table = scoring_recipe(run, recipe, num_keypoints=num_keypoints), views[0].table
    said = ask_members(ensemble, views, how, chosen=lambda rows: rows.filter(pl.col("split") == "test"))
    scoring = score_votes(said, ensemble.weights, table, how, splits=("test",))
    for line in (*scoring.describe(), *notes_of(scoring.vote)):
        say(line)
    if out:
        save_scores(scoring.vote, table, out, **scoring.to_metrics_json())
    return scoring.vote


def refuse_what_was_learned(run: RunFolder, table: SampleTable) -> None:
    """Refuse photos that a member of an ensemble has learned from, or others that belong together with such.

    Args:
        run: Of the ensemble.
        table: After the pass over the files.

    Raises:
        RunError: There are some; they are counted.
    """
    learned, kept = learned_by(ancestors_of(run.path)), table.kept
    for place in learned.unknown:
        say(f"Careful: what {place} has learned from is not known. If it was these photos, they flatter the score.")
    num_photos = int(kept["content_hash"].is_in(list(learned.hashes)).sum())
    num_seen = int(learned.joined(kept)[1].sum())
    if not num_seen:
        return
    got = f"{num_photos:,} of {kept.height:,} photos that a member has learned from"
    if num_seen > num_photos:
        got += f", and {counted(num_seen - num_photos, 'other')} of the same groups, bursts or sets of copies"
    remedy = "Score it on other photos; without DATA, it is scored on those that no member has learned from."
    raise RunError(must_be("DATA", "photos that no member of the ensemble has learned from", got, remedy))


def _own_test(run: RunFolder) -> SampleTable:
    table = SampleTable.load(run.path / "table.parquet") if (run.path / "table.parquet").exists() else None
    if table is None or not table.kept["split"].eq("test").any():
        remedy = "Name other labelled photos: headstart evaluate RUN DATA."
        raise RunError(must_be(str(run.path), "an ensemble with test images", "none", remedy))
    return table


def _other_views(run: RunFolder, ensemble: Ensemble, recipe: Recipe, unpack_dir: Path) -> Sequence[PreparedData]:
    """Give other photos once for each kind of pixels that members look at."""
    first, *others = (joint.contract for joint in ensemble.joints)
    found = other_photos(run, ensemble, recipe, unpack_dir, contract=first)
    refuse_what_was_learned(run, found.table)
    more = [
        reopen(found.table, reading_recipe(run, recipe, contract), image_size=contract.image_size)
        for contract in others
    ]
    return [found, *more]
