"""What a reader of a run report should worry about, worked out from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from headstart.evaluation.classification import Evaluation, listed
from headstart.reporting.pages import percent, score_interval, score_name, score_value

FEW_SAMPLES: Final = 30
"""With fewer samples of a class, the 95 % interval of its recall is wider than about ± 18 points."""

FEW_UNITS: Final = 30
"""With fewer independent groups, an interval rests on few persons or places."""

LARGE_CALIBRATION_ERROR: Final = 0.05
"""Probabilities that are off by five points mislead whoever sets a threshold on them."""


@dataclass(frozen=True)
class Concern:
    """One thing to worry about: a few words, and a sentence that says how much and what to do."""

    title: str
    text: str


def is_low_better(score: str) -> bool:
    """Say whether a score is better low: losses and errors are.

    Examples:
        >>> is_low_better("log_loss"), is_low_better("accuracy")
        (True, False)
    """
    return score.startswith(("log_loss", "calibration_error"))


def concerns_of_run(
    scored: Evaluation | None,
    validation: Evaluation | None,
    *,
    worries: Sequence[Concern],
    excluded: Mapping[str, int],
    history: pl.DataFrame,
    monitor: str,
) -> list[Concern]:
    """List what to worry about, the gravest first.

    Args:
        scored: The split that the page's headline stands on; None where nothing was scored.
        validation: The validation split, where another is the headline.
        worries: What earlier stages saw: leaks, conflicting labels.
        excluded: Reason → number of samples left out.
        history: One row per epoch.
        monitor: The score that picked the epoch.

    Returns:
        The concerns; none where all is well.
    """
    found = list(worries)
    if scored is None:
        found.append(
            Concern("No score", "There is neither a test nor a validation split: nothing says what it is worth.")
        )
    else:
        found += _about_scores(scored, validation, monitor)
    found += _about_exclusions(excluded)
    return found + _about_training(history, monitor)


def _about_scores(scored: Evaluation, validation: Evaluation | None, monitor: str) -> list[Concern]:
    found = [Concern("How to read the scores", note) for note in scored.notes]
    found += _about_classes(scored.per_class)
    if scored.num_units < min(FEW_UNITS, scored.num_samples):
        text = f"The {scored.num_samples:,} images come from {scored.num_units} independent groups only."
        found.append(Concern("Few groups", f"{text} The intervals rest on these groups."))
    error = scored.scores["calibration_error"]
    if error.low > LARGE_CALIBRATION_ERROR:
        interval = score_interval(error, "calibration_error")
        text = f"Probabilities are off by {percent(error.value)} on average ({interval})."
        found.append(Concern("Calibration", f"{text} Do not set thresholds on them without checking."))
    if validation is not None:
        found += _about_optimism(scored, validation, monitor)
    return found


def _about_classes(per_class: pl.DataFrame) -> list[Concern]:
    found: list[Concern] = []
    small = per_class.filter(pl.col("support").is_between(1, FEW_SAMPLES - 1)).sort("support")
    if small.height:
        named = listed([f"{name} ({count})" for name, count in small.select("class_name", "support").iter_rows()])
        found.append(Concern("Classes with few images", f"{named}: their scores are rough, see their intervals below."))
    never = per_class.filter((pl.col("predicted") == 0) & (pl.col("support") > 0))["class_name"].to_list()
    if never:
        found.append(Concern("Classes never predicted", f"{listed(never)}: not one image was said to be of them."))
    return found


def _about_optimism(scored: Evaluation, validation: Evaluation, monitor: str) -> list[Concern]:
    """Tell of a validation score outside the test's interval, on the better side."""
    ours, theirs = scored.scores[monitor], validation.scores[monitor]
    is_optimistic = theirs.value < ours.low if is_low_better(monitor) else theirs.value > ours.high
    if not is_optimistic:
        return []
    text = f"{score_name(monitor)} is {score_value(theirs, monitor)} on validation, which picked the epoch, and "
    text += f"{score_value(ours, monitor)} ({score_interval(ours, monitor)}) on the test. Trust the test."
    return [Concern("Validation is optimistic", text)]


def _about_exclusions(excluded: Mapping[str, int]) -> list[Concern]:
    if not excluded:
        return []
    total = sum(excluded.values())
    named = ", ".join(f"{reason} ({count:,})" for reason, count in excluded.items())
    files = "1 file is" if total == 1 else f"{total:,} files are"
    return [Concern("Files left out", f"{files} left out: {named}. The run's table.parquet names each.")]


def _about_training(history: pl.DataFrame, monitor: str) -> list[Concern]:
    """Tell of a last stage whose best epoch is its last: it was still improving."""
    score = f"validation_{monitor}"
    if score not in history.columns or history.height < 3:
        return []
    values = history.filter(pl.col("stage") == history["stage"][-1])[score]
    best = values.arg_min() if is_low_better(monitor) else values.arg_max()
    if len(values) < 3 or best != len(values) - 1:
        return []
    text = "The last epoch scored best on validation: more epochs may score higher."
    return [Concern("Still improving", text)]
