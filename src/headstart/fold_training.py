"""K folds: each is a run of its own below the one asked for, and together they are a model with an honest score.

``pipeline.train`` comes here with data and network at hand, where a recipe has ``folds``. Every fold shares the pixel
store and the cache of features; a finished fold is not repeated when the whole is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final, Protocol

import polars as pl

from headstart.data.folds import describe_fold, table_of_fold
from headstart.data.splits import save_split
from headstart.data.table import SampleTable
from headstart.ensemble_scoring import EnsembleScoring, ask_members, score_votes
from headstart.evaluation.ensembles import equal_weights
from headstart.fold_scoring import (
    FoldsScoring,
    read_fold_scores,
    save_out_of_fold,
    save_suspects,
    score_out_of_fold,
    score_points_out_of_fold,
    suspects_of,
)
from headstart.keypoint_scoring import check_scorable
from headstart.label_scoring import LabelScoring
from headstart.models.ensemble import MemberSource, load_ensemble, save_ensemble
from headstart.models.network import Network
from headstart.preparation import PreparedData, renew_records
from headstart.progress import say
from headstart.runs import RunFolder
from headstart.scoring import save_metrics, save_predictions
from headstart.training.budgeting import deadline_of_fold
from headstart.training.fit import choose_device, probe_features


class TrainOne(Protocol):
    """Fits, scores and publishes one run; gives what training chose, and the scores."""

    def __call__(
        self, run: RunFolder, network: Network, found: PreparedData, /, *, deadline: float | None = None
    ) -> tuple[Any, Any]:
        """Train; under a budget, fine-tuning is done by the deadline."""
        ...


_FACTS: Final = ("weights", "training", "leaks", "account", "ancestors", "ancestry", "store_size")
"""What a fold has in common with the whole."""


def train_folds(
    run: RunFolder, network: Network, found: PreparedData, *, train_one: TrainOne, end: float | None = None
) -> None:
    """Train every fold that is not finished, then score, report and bundle them together.

    Args:
        run: Held by this process; its recipe has ``folds``.
        network: As each fold starts from it.
        found: The table with ``fold``, and the pixels.
        train_one: What a fold is trained with: as any run.
        end: When all folds have to be finished, on ``time.monotonic``'s clock; None where there is no budget.
    """
    runs = _open_folds(run, found.table)
    for number, fold_run in enumerate(runs, 1):
        if fold_run.is_finished:
            say(f"fold {number}/{len(runs)} is finished: {fold_run.path}")
            continue
        file = fold_run.path / "table.parquet"
        own = renew_records(SampleTable.load(file), found.table, file)
        say(describe_fold(own, number, len(runs)))
        with run.timed(f"fold {number}"), fold_run.held():
            deadline = None if end is None else deadline_of_fold(run, fold_run, end, num_left=len(runs) - number + 1)
            fitted, scoring = train_one(fold_run, deepcopy(network), replace(found, table=own), deadline=deadline)
        for note in fitted.notes:
            say(note)
        say(scoring.describe()[-1].replace("test:", f"fold {number}/{len(runs)}, held out:", 1))
    with run.timed("evaluation"):
        scoring = _score(run, runs, network, found)
    with run.timed("report"):
        _publish(run, found, scoring)
    for line in scoring.describe():
        say(line)
    say(f"report: {run.path / 'report.html'}")


def _open_folds(run: RunFolder, table: SampleTable) -> list[RunFolder]:
    """Give the folds' runs, made where they are missing, with more epochs where the whole has been given more."""
    recipe = run.recipe
    tables = [table_of_fold(table, number, recipe) for number in range(1, (recipe.folds or 0) + 1)]
    if table.keypoints is not None:
        for own in tables:
            check_scorable(own, recipe)
    runs: list[RunFolder] = []
    for number, own in enumerate(tables, 1):
        path = run.path / f"fold-{number}"
        is_begun = (path / "recipe.toml").exists()
        fold_run = RunFolder.open(path) if is_begun else RunFolder.create(path, recipe.updated(fold=number))
        if not (path / "table.parquet").exists():
            _begin(fold_run, own, run)
        runs.append(fold_run if fold_run.recipe.epochs >= recipe.epochs else fold_run.extended(recipe.epochs))
    return runs


def _begin(fold_run: RunFolder, own: SampleTable, run: RunFolder) -> None:
    """Write down what a fold shares with the whole; its table comes last, and says that it may be taken up."""
    facts, recipe = run.facts, fold_run.recipe
    line = describe_fold(own, recipe.fold or 0, recipe.folds or 0)
    fold_run.note(**{name: facts[name] for name in _FACTS if name in facts}, split=[*facts["split"], line])
    save_split(own, fold_run.path / "split.parquet")
    own.save(fold_run.path / "table.parquet")


def _score(run: RunFolder, runs: Sequence[RunFolder], network: Network, found: PreparedData) -> FoldsScoring:
    """Score all answers out of fold, bundle the folds as an ensemble, and score that on the test where there is one."""
    recipe, table = run.recipe, found.table
    folds = read_fold_scores(runs)
    if table.keypoints is None:
        oof = score_out_of_fold(runs, table, seed=recipe.seed)
        suspects = suspects_of(oof)
        temperatures = oof.temperatures if isinstance(oof, LabelScoring) else (oof.temperature,)
    else:
        oof = score_points_out_of_fold(runs, found, recipe, network.contract)
        suspects, temperatures = None, ()
    weights = equal_weights(len(runs)).tolist()
    members = [
        MemberSource(one.path / "bundle", weight, temperatures, one.path.name)
        for one, weight in zip(runs, weights, strict=True)
    ]
    save_ensemble(
        run.path / "bundle", members, class_names=table.output_names, keypoints=table.keypoints, labels=table.labels,
        extra={"crop": recipe.model_dump(include={"crop_to_box", "crop_to_points"}), "versions": run.facts["versions"]},
    )  # fmt: skip
    is_probe = all(fold.stage == "probe" for fold in folds)
    return FoldsScoring(folds, oof, suspects, _score_test(run, network, found, weights, is_probe=is_probe))


def _score_test(
    run: RunFolder, network: Network, found: PreparedData, weights: Sequence[float], *, is_probe: bool
) -> EnsembleScoring | None:
    if not found.table.kept["split"].eq("test").any():
        return None
    recipe, ensemble = run.recipe, load_ensemble(run.path / "bundle")
    for joint in ensemble.joints:
        joint.to(choose_device(recipe))
    features = probe_features(network, found.table, found.store, recipe) if is_probe else None
    said = ask_members(
        ensemble, [found] * len(ensemble.joints), recipe, chosen=lambda rows: rows.filter(pl.col("split") == "test"),
        features=features,
    )  # fmt: skip
    return score_votes(said, weights, found.table, recipe, splits=("test",))


def _publish(run: RunFolder, found: PreparedData, scoring: FoldsScoring) -> None:
    """Write oof.parquet, suspects.parquet, predictions.parquet, the report and metrics.json."""
    from headstart.reporting.ensemble_results import write_fold_report

    table, oof, names = found.table, scoring.oof, found.table.class_names
    save_out_of_fold(oof, names, run.path / "oof.parquet")
    if scoring.suspects is not None:
        save_suspects(scoring.suspects, oof.rows, run.path / "suspects.parquet")
    vote = scoring.ensemble.vote if scoring.ensemble else None
    if vote is not None:
        save_predictions(vote, run.path / "predictions.parquet")
    write_fold_report(run, table, found.store, scoring)
    more: dict[str, Any] = {"oof": oof.evaluations["oof"].to_metrics_json(), "chosen": "ensemble"}
    more["folds"] = [fold.as_dict() for fold in scoring.folds]
    if scoring.ensemble is not None:
        more |= scoring.ensemble.to_metrics_json()
    if scoring.suspects is not None:
        more |= {"temperature": oof.temperature, "suspects": scoring.suspects.height}
        more |= {"temperatures": list(oof.temperatures)} if isinstance(oof, LabelScoring) else {}
    save_metrics(vote or oof, table, run.path / "metrics.json", seconds=run.facts["seconds"], **more)
    run.note(is_extending=False)
