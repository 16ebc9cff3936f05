"""From a trained network to keypoint scores: answers for validation and test, intervals, predictions, metrics.json."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from headstart.data.keypoint_samples import KeypointSamples
from headstart.data.keypoints import Points, point_columns, points_of, visible_of
from headstart.data.table import SPLITS, SampleTable, layout_of
from headstart.errors import SplitError, must_be
from headstart.evaluation.keypoint_metrics import KeypointAnswers, normalisers
from headstart.evaluation.keypoints import KeypointEvaluation, evaluate_keypoints
from headstart.models.inference import InferenceLog, run_network
from headstart.training.tasks import Keypoints

if TYPE_CHECKING:
    from headstart.data.store import PixelStore
    from headstart.models.backbones import InputContract
    from headstart.models.network import Network
    from headstart.recipe import Recipe
    from headstart.training.features import FeatureCache


@dataclass(frozen=True)
class KeypointScoring:
    """What a network said of some samples, and what that is worth.

    Attributes:
        evaluations: One per split that has samples.
        rows: The samples scored: the table's rows.
        samples: Their points.
        predicted: The network's points in pixels of the originals, shape (n, K, 2).
        notes: What the user should know, a sentence each.
        log: What running the network took.
    """

    evaluations: dict[str, KeypointEvaluation]
    rows: pl.DataFrame
    samples: KeypointSamples
    predicted: Points
    notes: tuple[str, ...]
    log: InferenceLog
    temperature: float = 1.0

    @property
    def details(self) -> dict[str, Any]:
        """What else metrics.json says: what errors are divided by, and NME per point and per group of each split."""
        found: dict[str, Any] = {}
        for split, evaluation in self.evaluations.items():
            tables = {"per_point": evaluation.per_point.select("name", "nme"), "per_group": evaluation.per_group}
            named = {name: dict(table.select(pl.first(), "nme").iter_rows()) for name, table in tables.items()}
            found[split] = {"divided_by": evaluation.divided_by} | named
        return {"details": found}

    def describe(self) -> list[str]:
        """Say the scores of each split in lines for the terminal, the test last."""
        lines: list[str] = []
        for split, evaluation in self.evaluations.items():
            scores = evaluation.scores
            nme, failure = scores["nme"], 100 * scores["failure_8"].value
            interval = f" ({nme.low:.2f} to {nme.high:.2f})" if nme.has_interval else ""
            basis = f"95 % intervals over {evaluation.basis}"
            basis = basis if nme.has_interval else f"no interval: only {evaluation.basis}"
            lines.append(
                f"{split}: NME {nme.value:.2f} %{interval} of {evaluation.divided_by}; {failure:.1f} % of the samples "
                f"above 8 %, error {scores['error_pixels'].value:.2f} pixels; {basis}"
            )
        return lines

    @property
    def predictions(self) -> pl.DataFrame:
        """Rows of predictions.parquet: path, split, group, nme (percent), then the predicted points as x1, y1, …."""
        frame = self.rows.select("path", "split", "group").with_columns(pl.Series("nme", self.sample_errors))
        return frame.with_columns(point_columns(self.predicted))

    @property
    def sample_errors(self) -> NDArray[np.float64]:
        """Each row's NME in percent, shape (n,); not a number where a sample is not scored."""
        errors = np.full(len(self.samples), np.nan)
        for split, evaluation in self.evaluations.items():
            errors[(self.rows["split"] == split).to_numpy()] = evaluation.sample_errors
        return errors


def score_keypoints(
    network: Network,
    table: SampleTable,
    store: PixelStore,
    recipe: Recipe,
    *,
    splits: tuple[str, ...] = ("validation", "test"),
    features: FeatureCache | None = None,
) -> KeypointScoring:
    """Run a keypoint network over the samples of some splits and score each split.

    Args:
        network: With its final weights.
        table: Checked and split; ``unit`` says what belongs together, for the intervals.
        store: The pixels.
        recipe: Says what errors are divided by, and which part of a photo the network looks at.
        splits: Which splits to score; one without samples is left out.
        features: Of some of the samples, by the network's own backbone; these are not run again.
    """
    rows = table.kept.filter(pl.col("split").is_in(list(splits)))
    task, log = Keypoints(recipe, layout_of(table)), InferenceLog()
    samples, contract = task.samples(rows, store), network.contract
    coordinates = _answers(network, store, samples, recipe, features=features, log=log)
    return score_coordinates(coordinates, rows, samples, task=task, contract=contract, log=log, splits=splits)


def score_coordinates(
    coordinates: NDArray[np.floating],
    rows: pl.DataFrame,
    samples: KeypointSamples,
    *,
    task: Keypoints,
    contract: InputContract,
    log: InferenceLog,
    splits: tuple[str, ...] = ("validation", "test"),
) -> KeypointScoring:
    """Score answers that are at hand, each split by itself.

    Args:
        coordinates: As shares of the contract's frame, shape (n, K, 2).
        rows: The samples, with ``split``, ``unit`` and ``group``.
        samples: Their points.
        task: Says what errors are divided by.
        contract: Of the network that answered.
        log: What that took.
        splits: Which splits to score; one without samples is left out.
    """
    answers, units, groups = task.answers(coordinates, samples, contract), rows["unit"].to_numpy(), rows["group"]
    evaluations: dict[str, KeypointEvaluation] = {}
    for split in splits:
        chosen = np.flatnonzero((rows["split"] == split).to_numpy())
        if len(chosen):
            evaluations[split] = evaluate_keypoints(
                _part(answers, chosen), names=task.layout.names, units=units[chosen], groups=groups[chosen].to_list(),
                divided_by=task.divided_by, seed=task.recipe.seed,
            )  # fmt: skip
    notes = (log.note,) if log.note else ()
    return KeypointScoring(evaluations, rows, samples, np.asarray(answers.predicted), notes, log)


def _part(answers: KeypointAnswers, rows: NDArray[np.integer]) -> KeypointAnswers:
    return KeypointAnswers(**{field.name: np.asarray(getattr(answers, field.name))[rows] for field in fields(answers)})


def check_scorable(table: SampleTable, recipe: Recipe) -> None:
    """Refuse, before training, a split with no sample that can be scored.

    Args:
        table: Split, after the pass over the files.
        recipe: Says what errors are divided by.

    Raises:
        SplitError: A split has samples, but what errors are divided by is undefined for each of them.
    """
    for split in SPLITS[1:]:
        rows = table.kept.filter(pl.col("split") == split)
        if rows.is_empty():
            continue
        sizes = rows.select("height", "width").to_numpy()
        lengths = normalisers(points_of(rows), visible_of(rows), sizes, by=recipe.nme_by, pair=recipe.nme_pair)
        if not (np.isfinite(lengths) & visible_of(rows).any(axis=1)).any():
            remedy = "Name other points, or --nme-by image."
            expected = f"one that some {split} sample has (it is {recipe.nme_by!r})"
            raise SplitError(must_be("what errors are divided by", expected, "none", remedy))


def _answers(
    network: Network,
    store: PixelStore,
    samples: KeypointSamples,
    recipe: Recipe,
    *,
    features: FeatureCache | None,
    log: InferenceLog,
) -> NDArray[np.float64]:
    """Give coordinates as shares of the frame: by the head alone where features are known, else by the network."""
    known = features.knows(samples.records, samples.boxes) if features else np.zeros(len(samples), bool)
    answers = np.empty((len(samples), network.head.num_keypoints, 2))
    if features is not None and known.any():
        boxes = None if samples.boxes is None else samples.boxes[known]
        with torch.inference_mode():
            values = torch.from_numpy(np.array(features.of(samples.records[known], boxes)))
            values = values.to(next(network.parameters()).device)
            answers[known] = network.head.decode(network.answer(values)).float().cpu().numpy()
    if not known.all():
        boxes = None if samples.boxes is None else samples.boxes[~known]
        answers[~known] = run_network(
            network, store, samples.records[~known], boxes=boxes, num_threads=recipe.num_threads, log=log
        )
    return answers
