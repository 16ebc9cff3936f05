"""``headstart evaluate``: a finished run, scored on its own test images again or on other labelled photos."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from headstart.ancestry import ancestors_of, learned_by
from headstart.data.label_matching import with_classes_of
from headstart.data.sources import check_nme_points, read_source
from headstart.data.stratification import join_units
from headstart.data.table import SampleTable
from headstart.errors import RunError, SourceError, must_be
from headstart.evaluation.several_labels import LabelsEvaluation
from headstart.keypoint_scoring import score_keypoints
from headstart.label_scoring import score_labels
from headstart.models.backbones import InputContract
from headstart.models.bundle import Bundle
from headstart.models.ensemble import Ensemble, load_model
from headstart.preparation import PreparedData, prepare, reopen
from headstart.progress import say
from headstart.recipe import Recipe
from headstart.resolution import inherited_labels
from headstart.runs import RunFolder
from headstart.scoring import save_metrics, save_predictions, score
from headstart.training.fit import choose_device
from headstart.wording import counted

if TYPE_CHECKING:
    from headstart.scoring import AnyScoring

_CROPS: Final = ("crop_to_box", "crop_to_points")
_NORMALISERS: Final = ("nme_by", "nme_points")


def evaluate_run(run: RunFolder, recipe: Recipe, *, out: Path | None = None) -> AnyScoring:
    """Score a run's bundle on its test images, or on ``recipe.data`` where that is set; print and save the scores.

    Args:
        run: With a bundle.
        recipe: How to read the photos; ``data`` says which.
        out: Folder for metrics.json and predictions.parquet.

    Raises:
        SourceError: The photos are of another task, none of their labels is one of the model's classes, or they have
            other points.
    """
    if out and (out / "recipe.toml").exists():
        raise RunError(must_be("--out", "another folder than a run's", str(out), "Its own scores would be lost."))
    if out:
        out.mkdir(parents=True, exist_ok=True)  # before the work: a place that cannot be written is said at once
    bundle = load_model(run.path)
    if isinstance(bundle, Ensemble):
        from headstart.ensemble_evaluation import evaluate_ensemble

        return evaluate_ensemble(run, bundle, recipe, out=out)
    bundle.network.to(choose_device(recipe))
    if recipe.data is None:
        table = SampleTable.load(run.path / "table.parquet")
        found = reopen(table, run.recipe, image_size=bundle.network.contract.image_size)
    else:
        with tempfile.TemporaryDirectory(prefix="headstart-") as unpacked:
            unpack_dir = out / "unpacked" if out else Path(unpacked)
            found = other_photos(run, bundle, recipe, unpack_dir, contract=bundle.network.contract)
        _say_overlap(run, found.table.frame)
    scoring = _scored(run, bundle, recipe, found)
    for line in (*scoring.describe(), *notes_of(scoring)):
        say(line)
    if out:
        save_scores(scoring, found.table, out)
    return scoring


def _scored(run: RunFolder, bundle: Bundle, recipe: Recipe, found: PreparedData) -> AnyScoring:
    how = scoring_recipe(run, recipe, num_keypoints=bundle.keypoints.num_keypoints if bundle.keypoints else None)
    if bundle.keypoints is not None:
        return score_keypoints(bundle.network, found.table, found.store, how, splits=("test",))
    if bundle.labels is not None:
        return score_labels(
            bundle.network, found.table, found.store, bundle.labels, splits=("test",),
            temperatures=bundle.temperatures, seed=how.seed, num_threads=how.num_threads,
        )  # fmt: skip
    return score(
        bundle.network, found.table, found.store, splits=("test",), temperature=bundle.temperature,
        seed=how.seed, num_threads=how.num_threads,
    )  # fmt: skip


def notes_of(scoring: AnyScoring) -> tuple[str, ...]:
    """Give what a reader must know of the scores of several label columns: which have none, say."""
    evaluation = scoring.evaluations.get("test")
    return evaluation.notes if isinstance(evaluation, LabelsEvaluation) else ()


def scoring_recipe(run: RunFolder, recipe: Recipe, *, num_keypoints: int | None) -> Recipe:
    """Give the run's recipe with what the user named anew: how errors of points are measured, which part is seen."""
    asked = {name: getattr(recipe, name) for name in _NORMALISERS} if _names_normaliser(recipe) else {}
    asked |= {name: getattr(recipe, name) for name in _CROPS} if _names_crop(recipe) else {}
    how = run.recipe.model_copy(update={"num_threads": recipe.num_threads, **asked})
    if num_keypoints is not None:
        check_nme_points(how, num_keypoints)
    return how


def save_scores(scoring: AnyScoring, table: SampleTable, out: Path, **more: Any) -> None:
    """Write metrics.json, with what else is given, and predictions.parquet into a folder, and say so."""
    save_predictions(scoring, out / "predictions.parquet")
    save_metrics(scoring, table, out / "metrics.json", seconds={"scoring": scoring.log.seconds["total"]}, **more)
    say(f"saved: {out / 'metrics.json'}, {out / 'predictions.parquet'}")


def other_photos(
    run: RunFolder, bundle: Bundle | Ensemble, recipe: Recipe, unpack_dir: Path, *, contract: InputContract
) -> PreparedData:
    """Read other photos as one test set, with the model's classes or points.

    Args:
        run: Of the model: its task, and which part of a photo it looks at.
        bundle: Its classes or points.
        recipe: How to read the photos.
        unpack_dir: Where an archive goes.
        contract: How the network sees a photo.

    Raises:
        SourceError: The photos are of another task, none of their labels is one of the model's classes, or they have
            other points.
    """
    task = run.recipe.task
    if recipe.task != task:
        remedy = f"Say --task {task} and where its labels are." if task == "keypoints" else "Give labelled photos."
        raise SourceError(must_be(str(recipe.data), f"data of the model's task, {task}", recipe.task, remedy))
    may_lack = _labels_to_do_without(run, bundle, recipe)
    recipe = reading_recipe(run, recipe, contract)
    table = read_source(recipe, unpack_dir=unpack_dir, min_classes=1, may_lack=may_lack)
    table = with_labels_of(bundle, table) if table.keypoints is None else _with_points_of(bundle, table)
    found = prepare(table, recipe, image_size=contract.image_size)
    kept = found.table.kept
    units = pl.DataFrame({"sample_id": kept["sample_id"], "unit": join_units(kept)})
    frame = found.table.frame.drop("unit", strict=False).join(units, on="sample_id", how="left", maintain_order="left")
    is_kept = pl.col("excluded").is_null()
    frame = frame.with_columns(split=pl.when(is_kept).then(pl.lit("test")))
    return replace(found, table=found.table.with_frame(frame))


def reading_recipe(run: RunFolder, recipe: Recipe, contract: InputContract) -> Recipe:
    """Give a recipe to read other photos by: the part of them that the model looks at, at its fit."""
    crops = {} if _names_crop(recipe) else {name: getattr(run.recipe, name) for name in _CROPS}
    return recipe.updated(fit=contract.fit, **crops, **_labels_of(run, recipe))


def with_labels_of(bundle: Bundle | Ensemble, table: SampleTable) -> SampleTable:
    """Number the labels as the model does: of one label a photo, or of several."""
    if bundle.labels is not None:
        return with_classes_of(bundle.labels, bundle.class_names, table)
    if table.labels is not None and not table.has_plain_classes:
        got = ", ".join(table.labels.names)
        raise SourceError(must_be(str(table.root), "labelled with one label a photo", got, "Name one with --label."))
    return _with_classes(bundle.class_names, table)


def _with_classes(class_names: tuple[str, ...], table: SampleTable) -> SampleTable:
    """Number the labels as the model does; photos of classes it does not know are left out by name."""
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in table.class_names if name not in numbers]
    if len(unknown) == len(table.class_names):
        expected = f"labelled with the model's classes ({', '.join(class_names)})"
        raise SourceError(must_be(str(table.root), expected, ", ".join(unknown), "Rename the folders or the labels."))
    names = pl.Series(table.class_names, dtype=pl.String)
    old = pl.DataFrame({"label": pl.Series(range(len(names)), dtype=pl.Int32), "name": names})
    old = old.with_columns(new=pl.col("name").replace_strict(numbers, default=None, return_dtype=pl.Int32))
    frame = table.frame.join(old, on="label", how="left", maintain_order="left")
    is_unknown = pl.col("new").is_null() & pl.col("label").is_not_null()
    frame = frame.with_columns(
        excluded=pl.when(is_unknown).then(pl.lit("no label")).otherwise("excluded"),
        detail=pl.when(is_unknown).then(pl.lit("not one of the model's classes")).otherwise("detail"),
        label="new",
    ).drop("name", "new")
    notes = (f"Left out, because the model does not know these classes: {', '.join(unknown)}.",) if unknown else ()
    return SampleTable(frame, table.root, class_names, table.notes + notes)


def _labels_of(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Give how the model's several labels are read, where the user does not say it."""
    found = inherited_labels(run.recipe.model_dump(exclude_none=True), recipe.model_dump(exclude_none=True))
    found.pop("label_weights", None)
    followers = ("monitor", "loss", "label_smoothing", "focal_gamma", "focal_alpha")
    return found | {name: getattr(run.recipe, name) for name in followers} if found else {}


def _labels_to_do_without(run: RunFolder, bundle: Bundle | Ensemble, recipe: Recipe) -> tuple[str, ...]:
    """Name the label columns that other photos may lack: those of heads, where the user names none."""
    has_heads = bundle.labels is not None and bundle.labels.form == "heads"
    return bundle.labels.names if bundle.labels and has_heads and _labels_of(run, recipe) else ()


def _names_crop(recipe: Recipe) -> bool:
    """Say whether the user named which part of the photos the model shall look at: boxes may be called otherwise."""
    return any(getattr(recipe, name) is not None for name in _CROPS)


def _names_normaliser(recipe: Recipe) -> bool:
    """Say whether the user named what errors shall be divided by; else the run's own length holds."""
    return any(name in recipe.model_fields_set for name in _NORMALISERS)


def _with_points_of(bundle: Bundle | Ensemble, table: SampleTable) -> SampleTable:
    """Refuse photos with other points than the model's; points are matched by their order."""
    ours = table.keypoints.num_keypoints if table.keypoints else 0
    theirs = bundle.keypoints.num_keypoints if bundle.keypoints else 0
    if ours != theirs:
        raise SourceError(must_be(str(table.root), f"annotated with the model's {theirs} points", ours))
    return table


def _say_overlap(run: RunFolder, frame: pl.DataFrame) -> None:
    """Say how many of the photos scored the run has learned from: they flatter the score."""
    seen, scored = learned_by(ancestors_of(run.path)).hashes, frame.filter(pl.col("excluded").is_null())
    num_known = scored.filter(pl.col("content_hash").is_in(list(seen)))["path"].n_unique()
    if num_known:
        known = counted(num_known, "photo was", "photos were")
        of = f"of the {scored['path'].n_unique():,} that are scored"
        say(f"Careful: {known} trained on or validated with, {of}: that flatters the score.")
