"""Photos → an ensemble's answers: each photo is decoded once for all members that look at the same pixels.

Members with other image sizes or fits have a runner of their own. The runners go through the photos in step, and what
their members say of a batch is put to the vote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data import geometry
from headstart.deploy.runner import AnsweredBatch, ImageInput, Runner, View
from headstart.evaluation.ensembles import vote_logits
from headstart.models.ensemble import Ensemble, JointNetwork
from headstart.models.network import Network


class RunsPhotos(Protocol):
    """What a predictor asks of a runner."""

    device: torch.device

    @property
    def network(self) -> Network | JointNetwork:
        """What runs; its contract names the frame of points."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how it runs, a sentence each."""
        ...

    def run(
        self, images: Sequence[ImageInput], *, batch_size: int, boxes: NDArray[np.float64] | None = None
    ) -> Iterator[AnsweredBatch]:
        """Give answers batch by batch."""
        ...


def make_runner(network: Network | Ensemble, *, device: str = "auto", num_threads: int | None = None) -> RunsPhotos:
    """Give what runs a network, or an ensemble of them, over photos; see ``runner.Runner``."""
    if isinstance(network, Ensemble):
        return EnsembleRunner(network, device=device, num_threads=num_threads)
    return Runner(network, device=device, num_threads=num_threads)


class EnsembleRunner:
    """An ensemble ready for use.

    Args:
        ensemble: Its networks are put into eval mode and moved to the device.
        device: See ``runner.Runner``.
        num_threads: Threads that decode; all cores unless told.
    """

    def __init__(self, ensemble: Ensemble, *, device: str = "auto", num_threads: int | None = None) -> None:
        self.runners = [Runner(joint, device=device, num_threads=num_threads) for joint in ensemble.joints]
        self.device = self.runners[0].device
        self.is_classifier = ensemble.keypoints is None
        self._is_presence = ensemble.labels is not None and ensemble.labels.form == "multi"
        self._weights = [
            torch.tensor([ensemble.weights[number] for number in numbers], dtype=torch.float64)
            for numbers in ensemble.groups
        ]

    @property
    def network(self) -> Network | JointNetwork:
        """The first joint network: points are answered in its frame."""
        return self.runners[0].network

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how it runs, a sentence each."""
        return tuple(dict.fromkeys(note for runner in self.runners for note in runner.notes))

    def run(
        self, images: Sequence[ImageInput], *, batch_size: int, boxes: NDArray[np.float64] | None = None
    ) -> Iterator[AnsweredBatch]:
        """Run the members over photos and give their vote batch by batch; see ``runner.Runner.run``.

        A vote on classes is given as logits; one on points as shares of the frame of ``network``.
        """
        runs = [runner.run(images, batch_size=batch_size, boxes=boxes) for runner in self.runners]
        for batches in zip(*runs, strict=True):
            yield self._vote([_only_read_by_all(batch, batches) for batch in batches])

    def _vote(self, batches: Sequence[AnsweredBatch]) -> AnsweredBatch:
        first = batches[0]
        if not len(first.view.sizes):
            return first
        votes = torch.zeros(())
        for batch, weights, runner in zip(batches, self._weights, self.runners, strict=True):
            answers = batch.answers.double()
            if not self.is_classifier:
                frames = [one.network.contract.image_size for one in (runner, self.runners[0])]
                answers = _in_frame_of(answers, batch.view, first.view, *frames)
            votes = votes + torch.tensordot(answers.movedim(1, -1), weights, dims=1)
        if self.is_classifier:
            votes = torch.from_numpy(vote_logits(votes.numpy(), is_presence=self._is_presence))
        return replace(first, answers=votes)


def _only_read_by_all(batch: AnsweredBatch, batches: Sequence[AnsweredBatch]) -> AnsweredBatch:
    """Leave out photos that some runner could not read: all of them vote on a photo, or none does."""
    errors = [
        next((error for error in of_one if error), None) for of_one in zip(*(b.errors for b in batches), strict=True)
    ]
    is_kept = np.array([both is None for own, both in zip(batch.errors, errors, strict=True) if own is None], bool)
    if is_kept.all():
        return replace(batch, errors=errors)
    view = View(batch.view.affine[is_kept], batch.view.scales[is_kept], batch.view.sizes[is_kept])
    return replace(batch, errors=errors, answers=batch.answers[torch.from_numpy(is_kept)], view=view)


def _in_frame_of(
    answers: Tensor, view: View, other: View, image_size: tuple[int, int], other_size: tuple[int, int]
) -> Tensor:
    """Bring points (n, members, K, 2) from the frame of one view of the photos to that of another, as shares of it."""
    if image_size == other_size and np.array_equal(view.affine, other.affine):
        return answers
    num_photos, num_members, num_points, _ = answers.shape
    in_frame = answers.numpy().reshape(num_photos, num_members * num_points, 2) * np.array(image_size[::-1])
    decoded = geometry.apply_to_points(geometry.invert(view.affine), in_frame)
    original = geometry.scale_points(decoded, 1 / view.scales)
    moved = geometry.apply_to_points(other.affine, geometry.scale_points(original, other.scales))
    return torch.from_numpy(moved / np.array(other_size[::-1])).reshape(answers.shape)
