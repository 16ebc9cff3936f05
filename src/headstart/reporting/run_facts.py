"""What every run's report tells whatever was learned: where the data came from, how it was split, learned and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl
from markupsafe import Markup

from headstart.reporting.concerns import Concern, is_low_better
from headstart.reporting.pages import is_share, score_name
from headstart.reporting.plots import Series, line_chart
from headstart.wording import counted

STAGE_NAMES: Final = {"probe": "Linear probe", "fine-tune": "Fine-tuning", "finetune": "Fine-tuning"}
"""How stages of the history are called on the page; others keep their own name."""


@dataclass(frozen=True)
class RunFacts:
    """What is told of a run of any task, as plain data.

    Attributes:
        title: The run's name.
        data: What it was trained on, as the user named it.
        backbone: Network's name.
        weights: One sentence: where pretrained weights came from, and what was loaded.
        monitor: The validation score that picked the epoch: ``history`` holds it as ``validation_<monitor>``.
        history: One row per epoch: ``stage, epoch, lr, train_loss, validation_loss, validation_<monitor>``, and what
            else there is. May be empty.
        counts: ``found, kept`` and ``excluded`` (reason → number), as in ``metrics.json``.
        account: Sentences on what was found.
        split: Sentences on how it was split, and why.
        training: What of the network was trained, a line each.
        worries: Leaks, conflicting labels and the like, from the stages that saw them.
        rates: Of each stage, epochs passed and the learning rate then, step by step; what the history has of a stage
            that is not there.
        was_tested: Whether the test had been scored before: the run was extended after its end.
        seconds: Stage → ``total`` and, where known, ``num_images, decode, augment, step, wait``.
        recipe: Every setting.
        repetition: Sentences on how to repeat it, and what is not repeated.
        versions: Library → version.
        hashes: What → hash: data, split, weights, bundle.
    """

    title: str
    data: str
    backbone: str
    weights: str
    monitor: str
    history: pl.DataFrame
    counts: Mapping[str, Any]
    account: Sequence[str] = ()
    split: Sequence[str] = ()
    training: Sequence[str] = ()
    worries: Sequence[Concern] = ()
    rates: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    was_tested: bool = False
    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)
    repetition: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def epoch_time(self) -> str:
        """A sentence on where the time of fine-tuning's epochs went."""
        return epoch_words(self.history.filter(pl.col("stage") == "fine-tune")) if self.history.height else ""


def stage_charts(run: RunFacts, *, also: Sequence[str] = ()) -> list[tuple[str, list[Markup]]]:
    """Draw the curves of each stage: loss, the monitored score with its best epoch, and the learning rate.

    Args:
        run: Its history, the monitored score, and rates.
        also: Further scores to draw, each ``validation_<name>`` and, where there is one, ``train_<name>``.

    Returns:
        A caption and its charts for each stage, in the order of the history.
    """
    charts, history = list[tuple[str, list[Markup]]](), run.history
    for stage in history["stage"].unique(maintain_order=True) if history.height else ():
        rows = history.filter(pl.col("stage") == stage)
        epochs = counted(rows.height, "epoch")
        drawn = _charts_of_stage(rows, run.monitor, also)
        by_epoch = (rows["epoch"].to_list(), rows["lr"].to_list()) if "lr" in rows.columns else ((), ())
        passed, rates = run.rates.get(stage, by_epoch)
        drawn.append(line_chart("Learning rate", passed, [Series("learning rate", rates)]))
        charts.append((f"{stage_name(stage)}, {epochs}", [chart for chart in drawn if chart]))
    return charts


def stage_name(stage: str) -> str:
    """Word a stage's name.

    Examples:
        >>> stage_name("probe"), stage_name("evaluate")
        ('Linear probe', 'Evaluate')
    """
    return STAGE_NAMES.get(stage) or stage[:1].upper() + stage[1:]


def epoch_words(rows: pl.DataFrame) -> str:
    """Say where the time of a stage's epochs went, by the medians; nothing where that was not measured.

    Examples:
        >>> parts = {"wait": 0.1, "step": 8.0, "augment": 6.0, "validation": 1.0, "checkpoint": 0.2}
        >>> words = epoch_words(pl.DataFrame({f"{part}_seconds": [seconds] for part, seconds in parts.items()}))
        >>> words[:62]
        'A median epoch: waiting for pixels 0.1 s, forward and backward'
    """
    names = {"wait": "waiting for pixels", "step": "forward and backward", "validation": "validation"}
    names |= {"checkpoint": "checkpoint", "augment": ""}
    if not {f"{part}_seconds" for part in names} <= set(rows.columns):
        return ""
    medians = {part: rows[f"{part}_seconds"].cast(pl.Float64).median() for part in names}
    if None in medians.values():
        return ""
    told = ", ".join(f"{name} {medians[part]:.1f} s" for part, name in names.items() if name)
    return f"A median epoch: {told}. Threads prepared pixels for {medians['augment']:.1f} s meanwhile."


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


def _charts_of_stage(rows: pl.DataFrame, monitor: str, also: Sequence[str]) -> list[Markup]:
    epochs, score = rows["epoch"].to_list(), f"validation_{monitor}"
    columns = {name: rows[name].to_list() for name in rows.columns}
    charts = [line_chart("Loss", epochs, _train_and_validation(columns, "loss"))]
    if score in columns:
        title = f"{score_name(monitor)} on validation"
        best = rows[score].arg_min() if is_low_better(monitor) else rows[score].arg_max()
        scores = Series(title, columns[score])
        charts.append(line_chart(title, epochs, [scores], as_percent=is_share(monitor), best=best))
    return charts + [line_chart(score_name(name), epochs, _train_and_validation(columns, name)) for name in also]


def _train_and_validation(columns: Mapping[str, list[Any]], name: str) -> list[Series]:
    """Give the two lines of a measure, those that the history has."""
    series = [Series("train", columns.get(f"train_{name}", ()), "quiet")]
    series.append(Series("validation", columns.get(f"validation_{name}", ())))
    return [one for one in series if len(one.values)]
