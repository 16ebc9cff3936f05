"""The keypoint predictor: photos → points in pixels of each photo, through the exact inverse of what training did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data import geometry
from headstart.data.keypoints import KeypointLayout
from headstart.deploy.ensemble_runner import make_runner
from headstart.deploy.face_boxes import check_boxes
from headstart.deploy.runner import AnsweredBatch, ImageInput, as_list
from headstart.models.ensemble import Ensemble
from headstart.models.network import Network


@dataclass(frozen=True)
class KeypointPrediction:
    """What the model says of one photo.

    Attributes:
        path: The photo's path; None where it was not given as one.
        points: (x, y) of each keypoint in pixels of the upright photo, float64, shape (num_keypoints, 2); None where
            the photo could not be read, or its box could not be used.
        size: (height, width) of the upright photo; None where there are no points.
        error: Why there are no points, else None.
    """

    path: str | None
    points: NDArray[np.float64] | None
    size: tuple[int, int] | None
    error: str | None


class KeypointPredictor:
    """A keypoint network, or an ensemble of them, ready for use.

    Args:
        network: Put into eval mode and moved to the device.
        layout: What the points are.
        crop: How training cut faces out of photos (``crop_to_box``, ``crop_to_points``), where it did.
        device: See ``runner.Runner``.
        num_threads: Threads that decode; all cores unless told.

    Examples:
        >>> from headstart.data.keypoints import numbered_layout
        >>> from headstart.models.network import new_network
        >>> from headstart.recipe import Recipe
        >>> network = new_network(Recipe(task="keypoints", backbone="test_resnet", weights="none"), 5)
        >>> predictor = KeypointPredictor(network, numbered_layout(5), device="cpu")
        >>> predictor.predict(np.zeros((90, 120, 3), np.uint8))[0].points.shape
        (5, 2)
    """

    def __init__(
        self,
        network: Network | Ensemble,
        layout: KeypointLayout,
        *,
        crop: Mapping[str, Any] | None = None,
        device: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        self.runner = make_runner(network, device=device, num_threads=num_threads)
        self.network, self.device = self.runner.network, self.runner.device
        self.layout = layout
        self.is_cropped = any(value is not None for value in (crop or {}).values())
        self.margin = float((crop or {}).get("crop_to_points") or 0.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how it runs, a sentence each."""
        return self.runner.notes

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, boxes: ArrayLike | None = None, batch_size: int = 32
    ) -> list[KeypointPrediction]:
        """Find the points of photos.

        Args:
            images: One photo or several: see ``runner.ImageInput``.
            boxes: The face in each photo (left, top, right, bottom in its pixels), shape (n, 4): for a model that was
                trained on faces cut out. One that was trained with ``crop_to_points`` takes boxes that are tight around
                the points, and adds its margin. Without boxes the whole photo is taken for the face.
            batch_size: Photos a forward pass.

        Returns:
            One prediction a photo, in order; one that cannot be read, or whose box lies outside of it, has an
            ``error`` and no points.

        Raises:
            RecipeError: ``batch_size`` is out of bounds; there is not one box a photo, or one has no area or is not in
                pixels.
            HeadstartError: Something is no photo at all.
        """
        return list(self.stream(as_list(images), boxes=boxes, batch_size=batch_size))

    def stream(
        self, images: Sequence[ImageInput], *, boxes: ArrayLike | None = None, batch_size: int = 32
    ) -> Iterator[KeypointPrediction]:
        """Find points one batch at a time, for more photos than memory holds answers for; see ``predict``."""
        parts = None if boxes is None else np.asarray(boxes, np.float64)
        if parts is not None:
            check_boxes(parts, len(images))
            parts = self._widened(parts)
        for batch in self.runner.run(images, batch_size=batch_size, boxes=parts):
            yield from self._word(batch)

    def _widened(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add the margin that training put around the points."""
        margin = self.margin * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
        return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)

    def _word(self, batch: AnsweredBatch) -> Iterator[KeypointPrediction]:
        view, frame = batch.view, np.array(self.network.contract.image_size[::-1])
        rows = iter(range(len(view.affine)))
        in_frame = batch.answers.double().numpy().reshape(-1, self.layout.num_keypoints, 2) * frame
        decoded = geometry.apply_to_points(geometry.invert(view.affine), in_frame)
        points = geometry.scale_points(decoded, 1 / view.scales)
        for path, error in zip(batch.paths, batch.errors, strict=True):
            if error is not None:
                yield KeypointPrediction(path, None, None, error)
                continue
            row = next(rows)
            height, width = view.sizes[row].tolist()
            yield KeypointPrediction(path, points[row], (height, width), None)
