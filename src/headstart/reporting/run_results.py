"""Gathers what a run's report shows: from the run folder, the scores and the pixels to ``RunResults``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.augmentation import Maps
from headstart.data.rendering import render
from headstart.data.store import PixelStore
from headstart.data.table import SPLITS, SampleTable
from headstart.evaluation.classification import most_confident_mistakes
from headstart.reporting.concerns import Concern
from headstart.reporting.mixed_sheet import mix_sheet
from headstart.reporting.run_facts import RunFacts
from headstart.reporting.run_report import Mistake, RunResults, write_run_report
from headstart.runs import RunFolder
from headstart.training.history import read_history
from headstart.training.probe_settings import probe_recipe
from headstart.training.schedule_preview import followed_rates
from headstart.training.tasks import Task, make_task
from headstart.wording import counted

if TYPE_CHECKING:
    from headstart.models.backbones import InputContract
    from headstart.recipe import Recipe
    from headstart.scoring import AnyScoring, Scoring
    from headstart.training.fit import FitResult
NUM_SHEET_PHOTOS = 6
"""Training photos on the contact sheet; each is shown in as many draws."""


def write_report(
    run: RunFolder,
    table: SampleTable,
    store: PixelStore,
    *,
    fitted: FitResult,
    scoring: AnyScoring,
    contract: InputContract,
) -> None:
    """Write a run's ``report.html``; see ``gather_results`` for the arguments."""
    common = {"fitted": fitted, "scoring": scoring, "contract": contract}
    if table.labels is not None:
        from headstart.reporting.label_report import write_label_report
        from headstart.reporting.label_results import gather_label_results

        write_label_report(gather_label_results(run, table, store, **common), run.path / "report.html")
        return
    if table.keypoints is None:
        write_run_report(gather_results(run, table, store, **common), run.path / "report.html")
        return
    from headstart.reporting.keypoint_report import write_keypoint_report
    from headstart.reporting.keypoint_results import gather_keypoint_results

    write_keypoint_report(gather_keypoint_results(run, table, store, **common), run.path / "report.html")


def gather_results(
    run: RunFolder,
    table: SampleTable,
    store: PixelStore,
    *,
    fitted: FitResult,
    scoring: Scoring,
    contract: InputContract,
) -> RunResults:
    """Put together everything the report shows.

    Args:
        run: The run folder, with history, bundle and facts in it.
        table: Checked and split.
        store: The pixels: thumbnails come from here, the user's files are not opened again.
        fitted: What training chose.
        scoring: Scores and probabilities.
        contract: How the network sees a photo.
    """
    sheet = draw_contact_sheet(make_task(run.recipe, table), table, store, contract)
    return RunResults(
        run=gather_facts(run, table, fitted=fitted, scoring=scoring),
        class_names=table.class_names,
        test=scoring.evaluations.get("test"),
        validation=scoring.evaluations.get("validation"),
        split_counts=count_by_class(table),
        mistakes=find_mistakes(scoring, table, store),
        contact_sheet=[image for row in mix_sheet(sheet.images, run.recipe) for image in row],
    )


def gather_facts(
    run: RunFolder,
    table: SampleTable,
    *,
    fitted: FitResult,
    scoring: AnyScoring,
    worries: Sequence[Concern] = (),
) -> RunFacts:
    """Put together what the report tells of a run of any task."""
    facts, history = run.facts, read_history(run.path)
    worries = [*worries, *(Concern("The given split leaks", line) for line in facts["leaks"])]
    extensions = [one for one in facts.get("extensions", []) if one.get("test")]
    worries += [Concern("Continued after its test", word_extension(one)) for one in extensions]
    worries += [Concern("Of the training", note) for note in (*fitted.notes, *scoring.notes)]
    return RunFacts(
        title=run.path.resolve().name,
        data=str(run.recipe.data),
        backbone=run.recipe.backbone,
        weights=" ".join([*(line.strip() for line in facts["weights"]), *_lineage(facts, table)]),
        monitor=run.recipe.monitor,
        history=history,
        rates=_followed_rates(run.recipe, history, table),
        counts={"found": table.frame.height, "kept": table.kept.height, "excluded": table.excluded_counts},
        account=facts["account"],
        split=facts["split"],
        training=facts.get("training", []),
        worries=worries,
        was_tested=bool(extensions),
        seconds=stage_seconds(facts["seconds"], fitted, scoring, num_files=table.frame.height),
        recipe=run.recipe.model_dump(mode="json"),
        repetition=run.describe_repetition(),
        versions=facts["versions"],
        hashes=hash_files(run.path, ("table.parquet", "split.parquet", "bundle/weights.safetensors")),
    )


def _followed_rates(
    recipe: Recipe, history: pl.DataFrame, table: SampleTable
) -> dict[str, tuple[list[float], list[float]]]:
    """Give the learning rate at each step of the stages whose curve is known."""
    num_samples = int((table.kept["split"] == "train").sum())
    probe = probe_recipe(recipe).model_copy(update={"epochs_before": ()})
    stages = {"probe": (probe, 1), "fine-tune": (recipe, recipe.num_devices)}
    found: dict[str, tuple[list[float], list[float]]] = {}
    for stage, (settings, num_devices) in stages.items():
        rows = history.filter(pl.col("stage") == stage).to_dicts()
        curve = followed_rates(settings, rows, num_samples, num_devices=num_devices) if rows else None
        if curve is not None:
            found[stage] = curve
    return found


def _lineage(facts: Mapping[str, Any], table: SampleTable) -> list[str]:
    """Say where the weights come from; the report of keypoints has a part of its own for it."""
    ancestry = facts.get("ancestry", [])
    return [f"Ancestry: {'; then '.join(ancestry)}."] if ancestry and table.keypoints is None else []


def word_extension(extension: Mapping[str, Any], what: str = "The test") -> str:
    """Say that a finished run was trained on: its test had been scored before.

    Args:
        extension: As ``RunFolder.extended`` notes it.
        what: What had been scored.

    Examples:
        >>> word_extension({"epochs": 5, "to": 9, "test": {"nme": {"value": 4.0}}})
        'The test was scored after 5 epochs (NME 4.00 %), then the run went on to 9: it is not untouched any more.'
    """
    scores = extension.get("test") or {}
    score = f"NME {scores['nme']['value']:.2f} %" if "nme" in scores else ""
    for name in ("accuracy", "exact", "mean_average_precision"):
        score = score or (f"{name.replace('_', ' ')} {scores[name]['value']:.4f}" if name in scores else "")
    before = f" ({score})" if score else ""
    after = f"{what} was scored after {counted(extension['epochs'], 'epoch')}{before}"
    return f"{after}, then the run went on to {extension['to']}: it is not untouched any more."


def count_by_class(table: SampleTable) -> pl.DataFrame:
    """Count the kept samples of each class in each split: ``class_name, train, validation, test``."""
    kept = table.kept
    columns: dict[str, Any] = {"class_name": pl.Series(table.class_names, dtype=pl.String)}
    for split in SPLITS:
        labels = kept.filter(pl.col("split") == split)["label"].to_numpy()
        columns[split] = np.bincount(labels, minlength=len(table.class_names))
    return pl.DataFrame(columns)


def stage_seconds(
    seconds: Mapping[str, float], fitted: FitResult, scoring: AnyScoring, *, num_files: int
) -> dict[str, dict[str, float]]:
    """Put seconds by stage, and by part where known, into the form of the report."""
    stages: dict[str, dict[str, float]] = {stage: {"total": total} for stage, total in seconds.items()}
    stages.get("pass over the files", {})["num_images"] = num_files
    stages.pop("training", None)
    for stage, parts in fitted.seconds.items():
        total = parts.get("total", 0.0) + parts.get("head", 0.0)
        total = total or sum(parts.get(part, 0.0) for part in ("step", "wait", "validation", "checkpoint"))
        stages[stage] = {**parts, "total": total, "num_images": fitted.num_images[stage]}
    stages.get("evaluation", {}).update(
        {part: value for part, value in scoring.log.seconds.items() if part != "total"},
        num_images=scoring.log.num_images,
    )
    return stages


def find_mistakes(scoring: Scoring, table: SampleTable, store: PixelStore) -> list[Mistake]:
    """Give the surest wrong answers on the test split (on validation where there is no test)."""
    rows, probabilities = scoring.of_split("test" if "test" in scoring.evaluations else "validation")
    if rows.is_empty():
        return []
    chosen = most_confident_mistakes(probabilities, rows["label"].to_numpy())
    names = table.class_names
    return [
        Mistake(
            image=store.read(int(rows["record"][index])),
            true=names[rows["label"][index]],
            predicted=names[int(probabilities[index].argmax())],
            probability=float(probabilities[index].max()),
            path=rows["path"][index],
        )
        for index in chosen.tolist()
    ]


@dataclass(frozen=True)
class ContactSheet:
    """Some training photos as the network sees them in its first epochs.

    Attributes:
        samples: As the task gives them; one a photo.
        draws: Their maps, for each epoch.
        images: uint8 (height, width, 3): a row a photo, a column an epoch.
    """

    samples: Any
    draws: list[Maps]
    images: list[list[NDArray[np.uint8]]]


def draw_contact_sheet(task: Task, table: SampleTable, store: PixelStore, contract: InputContract) -> ContactSheet:
    """Draw training photos, spread over the table, through the task's own augmentation."""
    train = table.kept.filter(pl.col("split") == "train")
    spread = np.unique(np.linspace(0, train.height - 1, NUM_SHEET_PHOTOS).astype(int))
    samples, positions = task.samples(train[spread], store), np.arange(len(spread))
    draws = [task.draw(samples, positions, contract, epoch=epoch) for epoch in range(NUM_SHEET_PHOTOS)]
    photos = [store.read(int(record)) for record in samples.records]
    images = [
        [render(photo, maps[slice(row, row + 1)], image_size=contract.image_size) for maps in draws]
        for row, photo in enumerate(photos)
    ]
    return ContactSheet(samples, draws, images)


def hash_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Give the SHA-256 of files that are there, by name."""
    hashes: dict[str, str] = {}
    for name in names:
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
