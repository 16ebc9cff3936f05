"""The report of a run: one page that gives the answer, what to worry about, the pictures, and every detail folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.evaluation.classification import Evaluation, most_confused_pairs
from headstart.reporting.concerns import Concern, concerns_of_run, is_low_better
from headstart.reporting.pages import score_name, write_page
from headstart.reporting.plots import MAX_CONFUSION_CLASSES, Series, confusion_chart, line_chart, reliability_chart
from headstart.reporting.thumbnails import thumbnail

STAGE_NAMES: Final = {"probe": "Linear probe", "fine-tune": "Fine-tuning", "finetune": "Fine-tuning"}
"""How stages of the history are called on the page; others keep their own name."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer to look at: the image as stored, the class names, how sure the model was, and where it is."""

    image: NDArray[np.uint8]
    true: str
    predicted: str
    probability: float
    path: str


@dataclass(frozen=True)
class RunResults:
    """Everything the report shows, as plain data.

    Attributes:
        title: The run's name.
        data: What it was trained on, as the user named it.
        backbone: Network's name.
        weights: One sentence: where pretrained weights came from, and what was loaded.
        class_names: Label i is ``class_names[i]``.
        test: The test split's scores, or None where there is no test split.
        validation: The validation split's scores, or None.
        monitor: The validation score that picked the epoch: ``history`` holds it as ``validation_<monitor>``.
        history: One row per epoch: ``stage, epoch, lr, train_loss, validation_loss, validation_<monitor>``, and what
            else there is. May be empty.
        counts: ``found, kept`` and ``excluded`` (reason → number), as in ``metrics.json``.
        account: Sentences on what was found.
        split: Sentences on how it was split, and why.
        split_counts: One row per class: ``class_name, train, validation, test`` (numbers of samples); or None.
        worries: Leaks, conflicting labels and the like, from the stages that saw them.
        seconds: Stage → ``total`` and, where known, ``num_images, decode, augment, step, wait``.
        mistakes: The surest wrong answers on the test split.
        contact_sheet: Augmented training images, uint8 (height, width, 3), row by row.
        contact_columns: Images in a row of the sheet: draws of the same photo.
        recipe: Every setting.
        versions: Library → version.
        hashes: What → hash: data, split, weights, bundle.
    """

    title: str
    data: str
    backbone: str
    weights: str
    class_names: tuple[str, ...]
    test: Evaluation | None
    validation: Evaluation | None
    monitor: str
    history: pl.DataFrame
    counts: Mapping[str, Any]
    account: Sequence[str] = ()
    split: Sequence[str] = ()
    split_counts: pl.DataFrame | None = None
    worries: Sequence[Concern] = ()
    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    contact_sheet: Sequence[NDArray[np.uint8]] = ()
    contact_columns: int = 6
    recipe: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)


def write_run_report(results: RunResults, path: Path) -> None:
    """Write the report as one HTML file that needs nothing else.

    Args:
        results: What to show.
        path: Where to write; replaced in one step.
    """
    write_page("run.html", _context(results), path)


def stage_charts(history: pl.DataFrame, monitor: str) -> list[tuple[str, list[Markup]]]:
    """Draw the curves of each stage: loss, the monitored score with its best epoch, and the learning rate.

    Args:
        history: As in ``RunResults``.
        monitor: Name of the score.

    Returns:
        A caption and its charts for each stage, in the order of the history.
    """
    charts: list[tuple[str, list[Markup]]] = []
    for stage in history["stage"].unique(maintain_order=True) if history.height else ():
        rows = history.filter(pl.col("stage") == stage)
        epochs = f"{rows.height} epoch{'s' if rows.height > 1 else ''}"
        charts.append((f"{stage_name(stage)}, {epochs}", _charts_of_stage(rows, monitor)))
    return charts


def stage_name(stage: str) -> str:
    """Word a stage's name.

    Examples:
        >>> stage_name("probe"), stage_name("evaluate")
        ('Linear probe', 'Evaluate')
    """
    return STAGE_NAMES.get(stage) or stage[:1].upper() + stage[1:]


def time_rows(seconds: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Give the table of where the time went: totals, share of the whole, and milliseconds an image.

    Examples:
        >>> row = time_rows({"probe": {"total": 2.0, "num_images": 1000, "decode": 1.0}})[0]
        >>> row["share"], row["images_per_second"], row["decode"], row["wait"]
        (1.0, 500.0, 1.0, None)
    """
    whole = sum(stage["total"] for stage in seconds.values()) or 1.0
    rows: list[dict[str, Any]] = []
    for name, stage in seconds.items():
        num_images = stage.get("num_images") or 0
        row: dict[str, Any] = {"name": stage_name(name), "total": stage["total"], "num_images": num_images}
        row["share"] = stage["total"] / whole
        row["images_per_second"] = num_images / stage["total"] if num_images and stage["total"] else None
        for part in ("decode", "augment", "step", "wait"):
            row[part] = stage[part] * 1000 / num_images if num_images and part in stage else None
        rows.append(row)
    return rows


def _context(results: RunResults) -> dict[str, Any]:
    scored = results.test or results.validation
    return {
        "results": results,
        "split_name": "test" if results.test else "validation",
        "scored": scored,
        "concerns": concerns_of_run(
            scored,
            results.validation if results.test else None,
            worries=results.worries,
            excluded=results.counts.get("excluded", {}),
            history=results.history,
            monitor=results.monitor,
        ),
        "stages": stage_charts(results.history, results.monitor),
        "times": time_rows(results.seconds),
        "mistakes": [(mistake, thumbnail(mistake.image)) for mistake in results.mistakes],
        "contact_sheet": [thumbnail(image) for image in results.contact_sheet],
    } | _evaluation_context(scored)


def _evaluation_context(evaluation: Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {"confusion": None, "confused": [], "reliability": None}
    is_drawn = len(evaluation.class_names) <= MAX_CONFUSION_CLASSES
    bins_before = evaluation.bins_unscaled if evaluation.temperature != 1.0 else None
    return {
        "confusion": confusion_chart(evaluation.confusion, evaluation.class_names) if is_drawn else None,
        "confused": most_confused_pairs(evaluation, limit=8 if is_drawn else 30).to_dicts(),
        "reliability": reliability_chart(evaluation.bins, bins_before),
    }


def _charts_of_stage(rows: pl.DataFrame, monitor: str) -> list[Markup]:
    epochs, score = rows["epoch"].to_list(), f"validation_{monitor}"
    columns = {name: rows[name].to_list() for name in rows.columns}
    losses = [Series("train", columns["train_loss"], "quiet")] if "train_loss" in columns else []
    if "validation_loss" in columns:
        losses.append(Series("validation", columns["validation_loss"]))
    charts = [line_chart("Loss", epochs, losses)]
    if score in columns:
        title = f"{score_name(monitor)} on validation"
        best = _best(rows, score, monitor)
        scores, is_share = Series(title, columns[score]), not is_low_better(monitor)
        charts.append(line_chart(title, epochs, [scores], as_percent=is_share, best=best))
    if "lr" in columns:
        rate = Series("learning rate", columns["lr"])
        charts.append(line_chart("Learning rate", epochs, [rate]))
    return [chart for chart in charts if chart]


def _best(rows: pl.DataFrame, score: str, monitor: str) -> int | None:
    return rows[score].arg_min() if is_low_better(monitor) else rows[score].arg_max()
