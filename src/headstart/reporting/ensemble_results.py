"""Gathers what the page of an ensemble shows: from folds, or members, their scores and the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from headstart.data.store import PixelStore
from headstart.data.table import SampleTable
from headstart.evaluation.folds import FoldScores, spread
from headstart.evaluation.intervals import Score
from headstart.reporting.concerns import Concern
from headstart.reporting.ensemble_report import (
    NUM_SUSPECTS,
    EnsembleResults,
    MemberRow,
    SuspectPicture,
    write_ensemble_report,
)
from headstart.reporting.pages import percent
from headstart.reporting.run_facts import RunFacts
from headstart.reporting.run_results import hash_files, word_extension
from headstart.runs import RunFolder

if TYPE_CHECKING:
    from headstart.ensemble_scoring import EnsembleScoring
    from headstart.fold_scoring import FoldsScoring
    from headstart.models.ensemble import Ensemble

_HASHED = ("table.parquet", "split.parquet", "oof.parquet", "bundle/bundle.json")


def write_fold_report(run: RunFolder, table: SampleTable, store: PixelStore, scoring: FoldsScoring) -> None:
    """Write the ``report.html`` of folds.

    Args:
        run: The folder of the whole, with its files in it.
        table: With ``fold``.
        store: The pixels: thumbnails come from here.
        scoring: What the folds are worth.
    """
    test = scoring.ensemble.vote.evaluations["test"] if scoring.ensemble else None
    plain = "exact" if table.labels is not None and not table.has_plain_classes else "accuracy"
    name = "nme" if table.keypoints is not None else plain
    results = EnsembleResults(
        run=gather_facts(run, table, notes=scoring.oof.notes),
        members=_fold_rows(scoring.folds, scoring.ensemble),
        class_names=table.output_names,
        layout=table.keypoints,
        labels=table.labels,
        test=test,
        oof=scoring.oof.evaluations["oof"],
        gain=scoring.ensemble.word_gain("test") if scoring.ensemble else "",
        spread=_word_spread(scoring.folds, name),
        suspects=_suspects(scoring, store),
        num_suspects=0 if scoring.suspects is None else scoring.suspects.height,
    )
    write_ensemble_report(results, run.path / "report.html")


def write_member_report(
    run: RunFolder,
    members: Sequence[Mapping[str, Any]],
    table: SampleTable | None,
    scoring: EnsembleScoring | None,
    *,
    ensemble: Ensemble,
    title: str,
) -> None:
    """Write the ``report.html`` of models that were put together.

    Args:
        run: The ensemble's folder, its bundle in it.
        members: Each one's ``from`` and ``weight``.
        table: What it was scored on; None where nothing was.
        scoring: The scores, likewise.
        ensemble: Its classes or points.
        title: The ensemble's name.
    """
    tests: Sequence[Score | None] = scoring.member_scores["test"] if scoring else [None] * len(members)
    rows = [
        MemberRow(name=one["from"], weight=one["weight"], test=test) for one, test in zip(members, tests, strict=True)
    ]
    results = EnsembleResults(
        run=replace(gather_facts(run, table), title=title),
        members=rows,
        class_names=ensemble.class_names,
        layout=ensemble.keypoints,
        labels=ensemble.labels,
        test=scoring.vote.evaluations["test"] if scoring else None,
        gain=scoring.word_gain("test") if scoring else "",
    )
    write_ensemble_report(results, run.path / "report.html")


def gather_facts(run: RunFolder, table: SampleTable | None, *, notes: Sequence[str] = ()) -> RunFacts:
    """Put together what the page tells of any run.

    Args:
        run: The run folder.
        table: What it was made from or scored on; None where there is none.
        notes: What else the reader should know of the scores.
    """
    facts, counts = run.facts, {"found": 0, "kept": 0, "excluded": {}}
    if table is not None:
        counts = {"found": table.frame.height, "kept": table.kept.height, "excluded": table.excluded_counts}
    title = "The split of a member leaks" if facts.get("kind") == "ensemble" else "The given split leaks"
    worries = [Concern(title, line) for line in facts.get("leaks", [])]
    tested = [one for one in facts.get("extensions", []) if one.get("test")]
    others = [one for one in facts.get("extensions", []) if not one.get("test")]
    worries += [Concern("Continued after its test", word_extension(one)) for one in tested]
    worries += [Concern("Continued after its scores", word_extension(one, "What was held out")) for one in others]
    worries += [Concern("Of the scores", note) for note in notes]
    seconds: dict[str, dict[str, float]] = {stage: {"total": total} for stage, total in facts["seconds"].items()}
    return RunFacts(
        title=run.path.resolve().name,
        data=str(run.recipe.data),
        backbone=run.recipe.backbone,
        weights=" ".join(line.strip() for line in facts.get("weights", [])),
        monitor=run.recipe.monitor,
        history=pl.DataFrame(),
        counts=counts,
        account=facts.get("account", []),
        split=facts.get("split", []),
        worries=worries,
        was_tested=bool(tested),
        seconds=seconds,
        recipe=run.recipe.model_dump(mode="json"),
        versions=facts["versions"],
        hashes=hash_files(run.path, _HASHED),
    )


def _fold_rows(folds: Sequence[FoldScores], ensemble: EnsembleScoring | None) -> list[MemberRow]:
    tests: Sequence[Score | None] = ensemble.member_scores["test"] if ensemble else [None] * len(folds)
    return [
        MemberRow(
            name=f"fold-{fold.fold}",
            page=f"fold-{fold.fold}/report.html",
            chosen=f"{fold.stage}, epoch {fold.epoch}",
            num_held_out=fold.num_held_out,
            scores=fold.scores,
            test=test,
        )
        for fold, test in zip(folds, tests, strict=True)
    ]


def _word_spread(folds: Sequence[FoldScores], name: str) -> str:
    found = spread(folds, name)
    if name == "nme":
        values = [f"{value:.2f} %" for value in (found.mean, found.deviation, found.lowest, found.highest)]
    else:
        values = [percent(value) for value in (found.mean, found.deviation, found.lowest, found.highest)]
    mean, deviation, lowest, highest = values
    words = f"Over folds: {mean} on average, standard deviation {deviation}, from {lowest} to {highest}."
    return f"{words} Models differ, and so do the parts they are scored on."


def _suspects(scoring: FoldsScoring, store: PixelStore) -> list[SuspectPicture]:
    if scoring.suspects is None:
        return []
    rows = scoring.oof.rows
    found: list[SuspectPicture] = []
    for suspect in scoring.suspects.head(NUM_SUSPECTS).iter_rows(named=True):
        row: dict[str, Any] = rows.row(suspect["row"], named=True)
        named = {name: value for name, value in suspect.items() if name != "row"}
        found.append(SuspectPicture(store.read(int(row["record"])), **named, path=row["path"]))
    return found
