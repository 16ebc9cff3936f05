"""From an ensemble to scores: what every member says of some samples, their vote, and what the vote gains over one.

Pixels are gone through once for all members that look at the same ones; members with another image size or fit have a
pixel store of their own, filled just as for a single run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from headstart.data.label_layout import LabelLayout, labels_of
from headstart.data.table import SampleTable, layout_of
from headstart.evaluation.classification import evaluate
from headstart.evaluation.ensembles import gain_in_accuracy, gain_in_error, gain_in_hits, vote, vote_logits
from headstart.evaluation.intervals import Score, number_units, score_with_intervals
from headstart.evaluation.several_labels import right_at_once, share_with_interval
from headstart.keypoint_scoring import KeypointScoring, score_coordinates
from headstart.label_scoring import LabelScoring, score_label_logits
from headstart.models.backbones import InputContract
from headstart.models.ensemble import Ensemble, JointNetwork
from headstart.models.inference import InferenceLog, run_network
from headstart.preparation import PreparedData, reopen
from headstart.recipe import Recipe
from headstart.scoring import Scoring
from headstart.training.features import FeatureCache
from headstart.training.tasks import Keypoints


@dataclass(frozen=True)
class MemberAnswers:
    """What members say of some samples.

    Attributes:
        rows: The samples, in order: rows of the table.
        answers: Calibrated probabilities, shape (members, n, outputs), or points in pixels of the originals, shape
            (members, n, keypoints, 2).
        log: What running the networks took.
        contract: Of the first member: the frame in which errors of points are measured, too.
        samples: The points of the samples; None for classes.
    """

    rows: pl.DataFrame
    answers: NDArray[np.float64]
    log: InferenceLog
    contract: InputContract
    samples: Any = None


@dataclass(frozen=True)
class EnsembleScoring:
    """What a vote is worth, and its members.

    Attributes:
        vote: The scores of the ensemble.
        member_scores: A score of each member on the same samples, with its interval, in the order of members; by split.
            Accuracy, NME, or of several labels the share of samples with all of them right. None for a member without
            a vote, which is not run.
        gain: By how much the vote is better in it than the mean of its members, with the interval of the difference: a
            share, or NME in percent; by split.
    """

    vote: Scoring | KeypointScoring | LabelScoring
    member_scores: Mapping[str, Sequence[Score | None]]
    gain: dict[str, Score]

    def describe(self) -> list[str]:
        """Say the scores of the vote, and its gain, in lines for the terminal."""
        return [*self.vote.describe(), *map(self.word_gain, self.gain)]

    def to_metrics_json(self) -> dict[str, Any]:
        """Give what ``metrics.json`` says beside the scores of the vote: those of members, and the gain."""
        as_dict = {
            split: {"gain": self.gain[split].as_json(), "members": [one and one.as_json() for one in scores]}
            for split, scores in self.member_scores.items()
        }
        return {"vote": as_dict}

    def word_gain(self, split: str) -> str:
        """Say by how much the vote is better than the mean of its members."""
        gain, num_voting = self.gain[split], sum(one is not None for one in self.member_scores[split])
        if num_voting == 1:
            return "One member alone has a vote: nothing is gained over it."
        is_points = isinstance(self.vote, KeypointScoring)
        value, low, high = ((1 if is_points else 100) * one for one in (gain.value, gain.low, gain.high))
        interval = f"gain {low:.2f} to {high:.2f}" if gain.has_interval else "all of one group: no interval"
        is_exact = isinstance(self.vote, LabelScoring) and self.vote.layout.form != "joint"
        words = _word_exact_gain(value) if is_exact else _word_gain(value, "NME" if is_points else "accuracy")
        return f"The {num_voting} together {words} one of them ({interval})."


def _word_gain(points: float, score: str) -> str:
    """Word a gain, to stand before "one of them".

    Examples:
        >>> _word_gain(1.9, "accuracy"), _word_gain(-0.5, "NME"), _word_gain(0.0, "accuracy")
        ('are 1.90 points of accuracy better than', 'are 0.50 points of NME worse than', 'are level in accuracy with')
    """
    if f"{abs(points):.2f}" == "0.00":
        return f"are level in {score} with"
    return f"are {abs(points):.2f} points of {score} {'better' if points > 0 else 'worse'} than"


def _word_exact_gain(points: float) -> str:
    """Likewise, of the photos that have all labels right."""
    if f"{abs(points):.2f}" == "0.00":
        return "have all labels right on as many of the photos as"
    return f"have all labels right on {abs(points):.2f} points {'more' if points > 0 else 'less'} of the photos than"


def open_views(ensemble: Ensemble, table: SampleTable, recipe: Recipe) -> list[PreparedData]:
    """Give the table and its pixels once for each kind of pixels that members look at.

    Args:
        ensemble: Says which kinds.
        table: After the pass over the files, or before it.
        recipe: Where the data lies, and which part of a photo is looked at.
    """
    contracts = [joint.contract for joint in ensemble.joints]
    return [reopen(table, recipe.updated(fit=one.fit), image_size=one.image_size) for one in contracts]


def ask_members(
    ensemble: Ensemble,
    views: Sequence[PreparedData],
    recipe: Recipe,
    *,
    chosen: Callable[[pl.DataFrame], pl.DataFrame],
    features: FeatureCache | None = None,
) -> MemberAnswers:
    """Run every member over some samples.

    Members whose vote counts nothing are not run: their answers are not a number.

    Args:
        ensemble: On its device.
        views: As ``open_views`` gives them.
        recipe: Threads, and for keypoints which part of a photo is looked at.
        chosen: Takes the rows that are kept and gives those to run.
        features: Of all of them, by the one backbone that all members share; the pixels are not gone through then.
    """
    log = InferenceLog()
    answers: dict[int, NDArray[np.float64]] = {}
    for numbers, joint, view in zip(ensemble.groups, ensemble.joints, views, strict=True):
        rows = chosen(view.table.kept)
        said, samples = _run(joint, view, rows, recipe, features=features, log=log)
        answers |= {number: said[:, place] for place, number in enumerate(numbers)}
    first = views[0]
    rows = chosen(first.table.kept)
    like = next(iter(answers.values()))
    stacked = np.stack([answers.get(number, np.full_like(like, np.nan)) for number in range(len(ensemble.members))])
    samples = None if first.table.keypoints is None else _keypoints(first, recipe).samples(rows, first.store)
    return MemberAnswers(rows, stacked, log, ensemble.joints[0].contract, samples)


def score_votes(
    found: MemberAnswers, weights: Sequence[float], table: SampleTable, recipe: Recipe, *, splits: tuple[str, ...]
) -> EnsembleScoring:
    """Put what members say to the vote, and score each split.

    Args:
        found: As ``ask_members`` gives it, its classes in the order of the table's.
        weights: Of the vote.
        table: Gives the class names, or what the points are.
        recipe: The seed of intervals, and what errors of points are divided by.
        splits: Which splits to score; one without samples is left out.
    """
    voting = [number for number, weight in enumerate(weights) if weight > 0]
    answers, shares = found.answers[voting], np.asarray(weights)[voting]
    if table.keypoints is not None:
        scoring = _score_points(found, answers, shares, table, recipe, splits)
    elif table.labels is not None:
        scoring = _score_labels(found, answers, shares, table.labels, recipe, splits)
    else:
        scoring = _score_classes(found, answers, shares, table, recipe, splits)
    of_voting = {split: dict(zip(voting, scores, strict=True)) for split, scores in scoring.member_scores.items()}
    of_all = {split: [scores.get(number) for number in range(len(weights))] for split, scores in of_voting.items()}
    return replace(scoring, member_scores=of_all)


def _score_classes(
    found: MemberAnswers,
    answers: NDArray[np.float64],
    shares: NDArray[np.float64],
    table: SampleTable,
    recipe: Recipe,
    splits: tuple[str, ...],
) -> EnsembleScoring:
    rows, labels, voted = found.rows, found.rows["label"].cast(pl.Int64).to_numpy(), vote(answers, shares)
    notes = (found.log.note,) if found.log.note else ()
    scoring = Scoring({}, rows, voted, 1.0, notes, found.log, table.class_names)
    members: dict[str, list[Score]] = {}
    gains: dict[str, Score] = {}
    for split in splits:
        here = (rows["split"] == split).to_numpy()
        if not here.any():
            continue
        units, truth = rows["unit"].to_numpy()[here], labels[here]
        scoring.evaluations[split] = evaluate(
            vote_logits(voted[here]), truth, class_names=table.class_names, units=units, seed=recipe.seed
        )
        members[split] = [
            score_with_intervals(one[here], truth, units=units, seed=recipe.seed)["accuracy"] for one in answers
        ]
        gains[split] = gain_in_accuracy(answers[:, here], shares, truth, units=units, seed=recipe.seed)
    return EnsembleScoring(scoring, members, gains)


def _score_labels(
    found: MemberAnswers,
    answers: NDArray[np.float64],
    shares: NDArray[np.float64],
    layout: LabelLayout,
    recipe: Recipe,
    splits: tuple[str, ...],
) -> EnsembleScoring:
    rows, labels, voted = found.rows, labels_of(found.rows), vote(answers, shares)
    logits, ones = vote_logits(voted, is_presence=layout.form == "multi"), (1.0,) * layout.num_temperatures
    scoring = score_label_logits(logits, rows, layout, splits=splits, temperatures=ones, seed=recipe.seed)
    scoring = replace(scoring, notes=(found.log.note,) if found.log.note else (), log=found.log)
    of_vote = right_at_once(voted, labels, layout)
    of_members = np.stack([right_at_once(one, labels, layout) for one in answers])
    members: dict[str, list[Score]] = {}
    gains: dict[str, Score] = {}
    for split in scoring.evaluations:
        here = (rows["split"] == split).to_numpy()
        units = rows["unit"].to_numpy()[here]
        numbers = number_units(units, len(units))
        members[split] = [share_with_interval(hits[here], numbers, seed=recipe.seed) for hits in of_members]
        gains[split] = gain_in_hits(of_members[:, here], of_vote[here], units=units, seed=recipe.seed)
    return EnsembleScoring(scoring, members, gains)


def _score_points(
    found: MemberAnswers,
    answers: NDArray[np.float64],
    shares: NDArray[np.float64],
    table: SampleTable,
    recipe: Recipe,
    splits: tuple[str, ...],
) -> EnsembleScoring:
    task = Keypoints(recipe, layout_of(table))

    def scored(points: NDArray[np.float64]) -> KeypointScoring:
        return score_points(points, found.rows, found.samples, task=task, contract=found.contract, splits=splits)

    notes = (found.log.note,) if found.log.note else ()
    vote_scoring = replace(scored(vote(answers, shares)), log=found.log, notes=notes)
    of_members = [scored(points) for points in answers]
    members: dict[str, list[Score]] = {}
    gains: dict[str, Score] = {}
    for split, evaluation in vote_scoring.evaluations.items():
        members[split] = [one.evaluations[split].scores["nme"] for one in of_members]
        errors = np.stack([one.evaluations[split].sample_errors for one in of_members])
        units = found.rows.filter(pl.col("split") == split)["unit"].to_numpy()
        gains[split] = gain_in_error(errors, evaluation.sample_errors, units=units, seed=recipe.seed)
    return EnsembleScoring(vote_scoring, members, gains)


def score_points(
    points: NDArray[np.float64],
    rows: pl.DataFrame,
    samples: Any,
    *,
    task: Keypoints,
    contract: InputContract,
    splits: tuple[str, ...],
) -> KeypointScoring:
    """Score points in pixels of the originals, shape (n, K, 2); see ``keypoint_scoring.score_coordinates``."""
    affine = contract.view(samples.stored_sizes, boxes=samples.boxes).affine
    shares = samples.to_frame(points, affine, image_size=contract.image_size)
    return score_coordinates(shares, rows, samples, task=task, contract=contract, log=InferenceLog(), splits=splits)


def _run(
    joint: JointNetwork,
    view: PreparedData,
    rows: pl.DataFrame,
    recipe: Recipe,
    *,
    features: FeatureCache | None,
    log: InferenceLog,
) -> tuple[NDArray[np.float64], Any]:
    """Give what the networks of a joint say, shape (n, networks, …)."""
    if view.table.keypoints is None:
        records, boxes, samples = rows["record"].to_numpy(), None, None
    else:
        samples = _keypoints(view, recipe).samples(rows, view.store)
        records, boxes = samples.records, samples.boxes
    if features is not None:
        answers = _from_features(joint, features.of(records, boxes))
    else:
        answers = run_network(joint, view.store, records, boxes=boxes, num_threads=recipe.num_threads, log=log)
    if samples is None:
        return answers.astype(np.float64), None
    contract = joint.contract
    affine = contract.view(samples.stored_sizes, boxes=samples.boxes).affine
    points = [
        samples.to_original(answers[:, place], affine, image_size=contract.image_size)
        for place in range(answers.shape[1])
    ]
    return np.stack(points, axis=1), samples


def _from_features(joint: JointNetwork, features: NDArray[np.float32]) -> NDArray[np.float32]:
    joint.eval()
    with torch.inference_mode():
        values = torch.from_numpy(np.array(features)).to(next(joint.parameters()).device)
        said = [joint.answer_of(number, values) for number in range(len(joint.networks))]
        return torch.stack(said, dim=1).float().cpu().numpy()


def _keypoints(view: PreparedData, recipe: Recipe) -> Keypoints:
    return Keypoints(recipe, layout_of(view.table))
