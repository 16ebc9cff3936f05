"""What a reader of a run report should worry about, worked out from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from headstart.data.keypoints import NOT_LOOKED_FOR, KeypointLayout
from headstart.evaluation.classification import Evaluation, listed
from headstart.evaluation.intervals import Score
from headstart.evaluation.keypoints import KeypointEvaluation, SeenAgainstUnseen
from headstart.reporting.pages import percent, score_interval, score_name, score_value
from headstart.wording import counted

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


SIDES: Final = "Left and right"
"""Title of what is said of left/right pairs."""

CROWDING: Final = "Several faces in a photo"
"""Title of what is said of photos with several faces of which none is cut out."""

NO_SCORE: Final = Concern("No score", "There is neither a test nor a validation split: nothing says what it is worth.")
"""Where nothing was scored."""


def is_low_better(score: str) -> bool:
    """Say whether a score is better low: losses and errors are.

    Examples:
        >>> is_low_better("log_loss"), is_low_better("accuracy"), is_low_better("nme")
        (True, False, True)
    """
    return score.startswith(("log_loss", "calibration_error", "nme", "mae", "mse", "error", "failure"))


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
    about_scores = [NO_SCORE] if scored is None else _about_scores(scored, validation, monitor)
    return [*worries, *about_scores, *about_exclusions(excluded), *about_training(history, monitor)]


def concerns_of_keypoint_run(
    scored: KeypointEvaluation | None,
    validation: KeypointEvaluation | None,
    *,
    worries: Sequence[Concern],
    excluded: Mapping[str, int],
    history: pl.DataFrame,
    layout: KeypointLayout,
    seen_unseen: SeenAgainstUnseen | None = None,
) -> list[Concern]:
    """List what to worry about in a run that learned keypoints, the gravest first; arguments as ``concerns_of_run``.

    Args:
        scored: The split that the page's headline stands on; None where nothing was scored.
        validation: The validation split, where another is the headline.
        worries: What earlier stages saw.
        excluded: Reason → number of samples left out.
        history: One row per epoch; the monitor is ``nme``.
        layout: Names and left/right pairs of the points.
        seen_unseen: Of the scored split, where groups are known.
    """
    found = list(worries)
    if scored is None:
        found.append(NO_SCORE)
    else:
        found += _about_strangers(seen_unseen)
        found += [Concern("How to read the scores", note) for note in scored.notes]
        if scored.num_units > 1:  # of one alone, a note says so
            found += about_units(scored.num_samples, scored.num_units, noun="sample")
        if validation is not None:
            found += about_optimism(scored.scores, validation.scores, "nme")
    if layout.flip_doubt:
        found.append(Concern(SIDES, word_doubt(layout)))
    if layout.flip_pairs is None:
        why = layout.flip_note or NOT_LOOKED_FOR
        text = "Pictures were never mirrored; --flip-pairs FILE names the pairs and doubles the poses seen."
        found.append(Concern(SIDES, f"{why} {text}"))
    return [*found, *about_exclusions(excluded, noun="sample"), *about_training(history, "nme")]


def word_doubt(layout: KeypointLayout) -> str:
    """Say what speaks against pairs that the user gave.

    Examples:
        >>> word_doubt(KeypointLayout(("a", "b"), ((0, 1),), flip_doubt="The shapes have others."))
        'The pairs of --flip-pairs do not fit the points. The shapes have others. Look at them on the mean face.'
    """
    return f"The pairs of --flip-pairs do not fit the points. {layout.flip_doubt} Look at them on the mean face."


def about_units(num_samples: int, num_units: int, *, noun: str = "image") -> list[Concern]:
    """Tell of intervals that rest on few independent groups."""
    if num_units >= min(FEW_UNITS, num_samples):
        return []
    text = f"The {counted(num_samples, noun)} come from {counted(num_units, 'independent group')} only."
    rest = "that group" if num_units == 1 else "these groups"
    return [Concern("Few groups", f"{text} The intervals rest on {rest}.")]


def about_optimism(ours: Mapping[str, Score], theirs: Mapping[str, Score], monitor: str) -> list[Concern]:
    """Tell of a validation score outside the test's interval, on the better side; where there is one."""
    test, validation = ours[monitor], theirs[monitor]
    is_optimistic = validation.value < test.low if is_low_better(monitor) else validation.value > test.high
    if not is_optimistic:
        return []
    text = f"{score_name(monitor)} is {score_value(validation, monitor)} on validation, which picked the epoch, and "
    text += f"{score_value(test, monitor)} ({score_interval(test, monitor)}) on the test. Trust the test."
    return [Concern("Validation is optimistic", text)]


def about_exclusions(excluded: Mapping[str, int], *, noun: str = "file") -> list[Concern]:
    """Tell how many files (or samples) were left out, and why."""
    if not excluded:
        return []
    total = sum(excluded.values())
    named = ", ".join(f"{reason} ({count:,})" for reason, count in excluded.items())
    files = counted(total, f"{noun} is", f"{noun}s are")
    title = f"{noun.capitalize()}s left out"
    return [Concern(title, f"{files} left out: {named}. The run's table.parquet names each.")]


def about_training(history: pl.DataFrame, monitor: str) -> list[Concern]:
    """Tell of a last stage whose best epoch is its last: it was still improving."""
    score = f"validation_{monitor}"
    if score not in history.columns or history.height < 3:
        return []
    values = history.filter(pl.col("stage") == history["stage"][-1])[score]
    best = values.arg_min() if is_low_better(monitor) else values.arg_max()
    if len(values) < 3 or best != len(values) - 1:
        return []
    text = "The last epoch scored best on validation: more epochs may score better still."
    return [Concern("Still improving", text)]


def _about_strangers(found: SeenAgainstUnseen | None) -> list[Concern]:
    """Tell of a score that says little, or something else, about groups that training has not seen."""
    if found is None or not found.num_seen:
        return []
    if found.unseen is None:
        scored = f"Every sample scored ({found.num_seen:,}) is of a group that is in training too"
        text = f"{scored}: nothing says how well it does on new ones."
        return [Concern("Only known groups", f"{text} --resplit puts each group on one side.")]
    if found.gap is None or not found.gap.low > 0:  # an interval, and above 0
        return []
    seen, unseen = (score_value(score, "nme") for score in (found.seen, found.unseen) if score)
    text = f"NME is {seen} on groups that training has seen and {unseen} on new ones: expect {unseen} in use."
    return [Concern("Worse on new groups", text)]


def _about_scores(scored: Evaluation, validation: Evaluation | None, monitor: str) -> list[Concern]:
    found = [Concern("How to read the scores", note) for note in scored.notes]
    found += about_classes(scored.per_class)
    found += about_units(scored.num_samples, scored.num_units)
    found += about_calibration(scored.scores["calibration_error"])
    if validation is not None:
        found += about_optimism(scored.scores, validation.scores, monitor)
    return found


def about_calibration(error: Score) -> list[Concern]:
    """Tell of probabilities that do not mean what they say."""
    if error.low <= LARGE_CALIBRATION_ERROR:
        return []
    interval = score_interval(error, "calibration_error")
    text = f"Probabilities are off by {percent(error.value)} on average ({interval})."
    return [Concern("Calibration", f"{text} Do not set thresholds on them without checking.")]


def about_classes(per_class: pl.DataFrame) -> list[Concern]:
    """Tell of classes with few images, and of those never predicted."""
    found: list[Concern] = []
    small = per_class.filter(pl.col("support").is_between(1, FEW_SAMPLES - 1)).sort("support")
    if small.height:
        named = listed([f"{name} ({count})" for name, count in small.select("class_name", "support").iter_rows()])
        found.append(Concern("Classes with few images", f"{named}: their scores are rough, see their intervals below."))
    never = per_class.filter((pl.col("predicted") == 0) & (pl.col("support") > 0))["class_name"].to_list()
    if never:
        found.append(Concern("Classes never predicted", f"{listed(never)}: not one image was said to be of them."))
    return found
