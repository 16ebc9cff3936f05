"""Policy + draws → one affine and one colour map per sample.

On the path of a sample: ``draw_maps`` turns (seed, epoch, sample number) into ``Maps``, through which ``rendering``
gives the pixels that the network sees. ``evaluation_maps`` gives the maps of validation, test and use.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.data import geometry
from headstart.data.geometry import Affines, Border, Fit
from headstart.randomness import uniforms

if TYPE_CHECKING:
    from headstart.recipe import Recipe

Crop = Literal["random-resized", "random", "center"]
Factors = float | tuple[float, float]
"""Factors that a colour change draws from: 1 ± a number, or from the first to the second."""

CROP_ASPECT: Final = 4 / 3
"""A random resized crop is at most this much wider or narrower than the model's input (Inception's 3/4 … 4/3)."""

RANDOM_CROP_FRACTION: Final = 7 / 8
"""A random crop is cut from a photo resized to at least 8/7 of the input (256 → 224), so that it can move."""

MID_GREY: Final = 127.5
"""Contrast pulls colours towards this constant, not towards the photo's mean: so one matrix serves all photos."""

NOISE_TILE: Final = 512
"""Noise is read from one tile of this side: 262,144 places to read it from."""

_SINGLES: Final = (
    *("apply", "area", "aspect", "horizontal_flip", "vertical_flip", "rotation", "scale"),
    *("brightness", "contrast", "saturation", "hue", "noise"),
)
_PAIRS: Final = ("position", "shift", "noise_offset")
"""All numbers are drawn, in this order, used or not: turning one setting on leaves what the others draw."""

_MILDER: Final = (0.5, 0.25, 0.0)
"""What is left of a draw's moves when it is drawn again, and again."""

_RGB_TO_YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_LUMA: Final = np.broadcast_to(_RGB_TO_YIQ[0], (3, 3))
_CHROMA: Final = np.eye(3) - _LUMA
_QUARTER_TURN: Final = np.linalg.inv(_RGB_TO_YIQ) @ np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _RGB_TO_YIQ


@dataclass(frozen=True)
class AugmentationPolicy:
    """How training photos are changed. The defaults change nothing.

    Attributes:
        probability: Share of the samples that are changed; the others get the evaluation map.
        crop: "random-resized" takes a part of random size and aspect, "random" resizes and then cuts at a random
            place, "center" takes what evaluation takes.
        crop_scale: Smallest share of the photo's area that "random-resized" takes.
        horizontal_flip: Probability of a left-right flip.
        vertical_flip: Probability of a top-bottom flip.
        rotation: At most ± degrees.
        scale: Magnification 1 ± this.
        shift: At most ± this share of the width and height.
        brightness: Factor 1 ± this, or from the first to the second.
        contrast: Likewise, about mid-grey.
        saturation: Likewise, about the luma (0.299 R + 0.587 G + 0.114 B).
        hue: At most ± this share of a turn of the colour circle.
        noise: Largest standard deviation of Gaussian noise; 1 is the full range.
    """

    probability: float = 1.0
    crop: Crop = "center"
    crop_scale: float = 1.0
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: Factors = 0.0
    contrast: Factors = 0.0
    saturation: Factors = 0.0
    hue: float = 0.0
    noise: float = 0.0

    def milder(self, factor: float) -> AugmentationPolicy:
        """Give the policy with what moves pixels lessened by a factor; flips and colours stay.

        Examples:
            >>> AugmentationPolicy(rotation=20, horizontal_flip=0.5).milder(0.5).rotation
            10.0
        """
        crop_scale = 1 - factor * (1 - self.crop_scale)
        moves = {name: factor * getattr(self, name) for name in ("rotation", "scale", "shift")}
        return replace(self, crop="center" if factor == 0 else self.crop, crop_scale=crop_scale, **moves)

    @property
    def is_identity(self) -> bool:
        """Whether the policy changes nothing, so that training sees what evaluation sees."""
        nothing = AugmentationPolicy(probability=self.probability, crop_scale=self.crop_scale)
        return self.probability == 0 or self == nothing


PRESETS: Final[dict[str, AugmentationPolicy]] = {
    "none": AugmentationPolicy(),
    "light": AugmentationPolicy(crop="random-resized", crop_scale=0.7, horizontal_flip=0.5),
    "standard": AugmentationPolicy(
        crop="random-resized",
        crop_scale=0.35,
        horizontal_flip=0.5,
        rotation=10,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.02,
    ),
    "strong": AugmentationPolicy(
        crop="random-resized",
        crop_scale=0.2,
        horizontal_flip=0.5,
        rotation=20,
        scale=0.1,
        shift=0.05,
        brightness=0.4,
        contrast=0.4,
        saturation=0.5,
        hue=0.05,
        noise=0.04,
    ),
}
"""``light``: mild crop and flip; for tasks where colour and tilt carry meaning. ``standard``: the crop and flip that
pretrained backbones were trained with, milder, a small tilt and mild colour. ``strong``: more of all, and noise."""


def policy_from_recipe(recipe: Recipe) -> AugmentationPolicy:
    """Give the preset that a recipe names, with the settings that the recipe sets itself in place of the preset's.

    Warns:
        UserWarning: ``crop_scale`` is set, but the crop is not "random-resized", so it has no effect.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> policy = policy_from_recipe(Recipe(augment="light", rotation=5))
        >>> policy.rotation, policy.crop_scale
        (5.0, 0.7)
    """
    settings = {field.name: getattr(recipe, _recipe_name(field.name)) for field in fields(AugmentationPolicy)}
    chosen = {name: value for name, value in settings.items() if value is not None}
    policy = replace(PRESETS[recipe.augment], **chosen)
    if recipe.crop_scale is not None and policy.crop != "random-resized":
        warnings.warn(
            f"crop_scale = {recipe.crop_scale} has no effect with crop = {policy.crop!r}. "
            "Set crop to 'random-resized', or leave crop_scale out.",
            stacklevel=2,
        )
    return policy


def _recipe_name(name: str) -> str:
    return "augment_probability" if name == "probability" else name


@dataclass(frozen=True)
class Maps:
    """What happens to each of n samples. Rows are independent: ``maps[3:5]`` and ``maps[order]`` are maps again.

    Attributes:
        affine: Stored photo → model, continuous coordinates, float64, shape (n, 2, 3).
        colour: ``out = colour[:, :3] @ rgb + colour[:, 3]`` on 0 … 255, float32, shape (n, 3, 4).
        noise: Standard deviation of the Gaussian noise, in 0 … 255, float32, shape (n,).
        noise_offset: (row, column) of the noise tile that is read, int32, shape (n, 2).
        border: What lies outside the photo: its mirror image, or grey.
    """

    affine: Affines
    colour: NDArray[np.float32]
    noise: NDArray[np.float32]
    noise_offset: NDArray[np.int32]
    border: Border

    def __len__(self) -> int:
        return len(self.affine)

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> Maps:
        return Maps(self.affine[rows], self.colour[rows], self.noise[rows], self.noise_offset[rows], self.border)

    def with_rows(self, rows: NDArray[np.integer], others: Maps) -> Maps:
        """Give the maps with those of some samples replaced."""
        parts = {name: getattr(self, name).copy() for name in ("affine", "colour", "noise", "noise_offset")}
        for name, values in parts.items():
            values[rows] = getattr(others, name)
        return replace(self, **parts)

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """Which samples are mirrored, so that their left and right keypoints swap; shape (n,)."""
        return geometry.mirrored(self.affine)


def evaluation_maps(
    sizes: ArrayLike,
    *,
    image_size: tuple[int, int],
    fit: Fit,
    crop_fraction: float,
    boxes: ArrayLike | None = None,
) -> Maps:
    """Give the maps of validation, test and use: nothing random, colours as they are.

    Args:
        sizes: (height, width) of the stored photos, shape (n, 2).
        image_size: (height, width) of the model's input.
        fit: How a photo meets the input. "crop" resizes so that ``image_size / crop_fraction`` is covered and cuts the
            centre out, as timm does; "letterbox" and "stretch" show the whole photo, so ``crop_fraction`` is not used.
        crop_fraction: The backbone's ``crop_pct``.
        boxes: The part of each stored photo (left, top, right, bottom) that stands for the whole, shape (n, 4).

    Examples:
        >>> maps = evaluation_maps([[200, 100]], image_size=(100, 100), fit="letterbox", crop_fraction=0.875)
        >>> maps.affine[0].tolist()
        [[0.5, 0.0, 25.0], [0.0, 0.5, 0.0]]
    """
    fraction = crop_fraction if fit == "crop" else 1.0
    to_part, sizes = geometry.parts(sizes, boxes)
    affine = geometry.resize_and_crop(sizes, image_size=image_size, fit=fit, crop_fraction=fraction)
    affine = _from_photo(to_part, affine)
    num_samples = len(affine)
    return Maps(
        affine,
        np.repeat(np.eye(3, 4, dtype=np.float32)[None], num_samples, axis=0),
        np.zeros(num_samples, np.float32),
        np.zeros((num_samples, 2), np.int32),
        "fill" if fit == "letterbox" else "reflect",
    )


def draw_maps(
    policy: AugmentationPolicy,
    *,
    seed: int,
    epoch: int,
    sample_ids: ArrayLike,
    sizes: ArrayLike,
    image_size: tuple[int, int],
    fit: Fit,
    crop_fraction: float,
    boxes: ArrayLike | None = None,
) -> Maps:
    """Draw the maps of training samples: a pure function, in which each row depends on its own sample only.

    Args:
        policy: What may happen.
        seed: The run's seed.
        epoch: Epoch number; each epoch draws anew.
        sample_ids: The samples' numbers in the table, shape (n,).
        sizes: (height, width) of their stored photos, shape (n, 2).
        image_size: (height, width) of the model's input.
        fit: How a photo meets the input; see ``evaluation_maps``.
        crop_fraction: The backbone's ``crop_pct``.
        boxes: As in ``evaluation_maps``.

    Returns:
        Maps of the n samples, in their order.

    Examples:
        >>> common = dict(seed=1, epoch=0, image_size=(224, 224), fit="crop", crop_fraction=0.875)
        >>> both = draw_maps(PRESETS["standard"], sample_ids=[5, 9], sizes=[[256, 300], [256, 256]], **common)
        >>> alone = draw_maps(PRESETS["standard"], sample_ids=[9], sizes=[[256, 256]], **common)
        >>> bool((both[1:].affine == alone.affine).all())
        True
    """
    evaluation = evaluation_maps(sizes, image_size=image_size, fit=fit, crop_fraction=crop_fraction, boxes=boxes)
    to_part, sizes = geometry.parts(sizes, boxes)
    if policy.is_identity:
        return evaluation
    drawn = _draw(seed, epoch, sample_ids)
    applied = drawn["apply"] < policy.probability
    affine = evaluation.affine
    if policy.crop == "random":
        fraction = min(crop_fraction, RANDOM_CROP_FRACTION)
        cropped = geometry.resize_and_crop(
            sizes, image_size=image_size, fit=fit, crop_fraction=fraction, position=drawn["position"]
        )
        affine = _from_photo(to_part, cropped)
    elif policy.crop == "random-resized":
        frames = geometry.frames(sizes, image_size=image_size, fit=fit)
        affine = _from_photo(to_part, _random_resized(policy, drawn, frames, image_size))
    affine = geometry.compose(affine, *_moves(policy, drawn, image_size))
    return Maps(
        np.where(applied[:, None, None], affine, evaluation.affine),
        np.where(applied[:, None, None], _colours(policy, drawn), evaluation.colour),
        np.where(applied, 255 * policy.noise * drawn["noise"], 0).astype(np.float32),
        (drawn["noise_offset"] * NOISE_TILE).astype(np.int32),
        evaluation.border,
    )


def _from_photo(to_part: Affines | None, affine: Affines) -> Affines:
    """Let maps that begin at parts of photos begin at the photos."""
    return affine if to_part is None else geometry.compose(to_part, affine)


def draw_maps_for_points(
    policy: AugmentationPolicy,
    *,
    points: NDArray[np.float64],
    visible: NDArray[np.bool_],
    max_lost: float,
    sizes: ArrayLike,
    image_size: tuple[int, int],
    sample_ids: ArrayLike,
    boxes: ArrayLike | None = None,
    **common: Any,
) -> Maps:
    """Draw maps that leave the points in the picture: what loses too many of them is drawn again, milder.

    A draw is made milder by halving what it moves, twice, and then by moving nothing; flips and colours stay as drawn.
    Points that the whole photo does not show either are no loss. A pure function, like ``draw_maps``.

    Args:
        policy: What may happen.
        points: (x, y) in the stored photos, shape (n, num_points, 2).
        visible: Which of them are marked, shape (n, num_points).
        max_lost: Largest share of a sample's points that may leave the picture.
        sizes: As in ``draw_maps``, and so are the others.
        image_size: See ``sizes``.
        sample_ids: See ``sizes``.
        boxes: See ``sizes``.
        **common: ``seed, epoch, fit, crop_fraction`` of ``draw_maps``.

    Examples:
        >>> corners = np.array([[[5.0, 5.0], [95.0, 95.0]]])
        >>> common = dict(seed=1, epoch=0, sample_ids=[0], sizes=[[100, 100]], image_size=(64, 64), fit="letterbox")
        >>> maps = draw_maps_for_points(AugmentationPolicy(rotation=180, scale=0.5), points=corners,
        ...     visible=np.ones((1, 2), bool), max_lost=0.0, crop_fraction=1.0, **common)
        >>> bool(geometry.is_inside(geometry.apply_to_points(maps.affine, corners), (64, 64)).all())
        True
    """
    sizes, ids = np.asarray(sizes), np.asarray(sample_ids)
    boxes = None if boxes is None else np.asarray(boxes)
    common = common | {"image_size": image_size}
    maps = draw_maps(policy, sample_ids=ids, sizes=sizes, boxes=boxes, **common)
    whole = evaluation_maps(
        sizes, image_size=image_size, fit=common["fit"], crop_fraction=common["crop_fraction"], boxes=boxes
    )
    counts = visible & geometry.is_inside(geometry.apply_to_points(whole.affine, points), image_size)
    for factor in _MILDER:
        inside = geometry.is_inside(geometry.apply_to_points(maps.affine, points), image_size)
        lost = (counts & ~inside).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
        rows = np.flatnonzero(lost > max_lost)
        if not len(rows):
            break
        of_rows = None if boxes is None else boxes[rows]
        again = draw_maps(policy.milder(factor), sample_ids=ids[rows], sizes=sizes[rows], boxes=of_rows, **common)
        maps = maps.with_rows(rows, again)
    return maps


def _draw(seed: int, epoch: int, sample_ids: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Draw every number a sample may need, by name: uniform on [0, 1), shape (n,), or (n, 2) for pairs."""
    count = len(_SINGLES) + 2 * len(_PAIRS)
    numbers = uniforms(seed, stream="augmentation", epoch=epoch, indices=sample_ids, count=count)
    drawn = dict(zip(_SINGLES, numbers.T, strict=False))
    pairs = numbers[:, len(_SINGLES) :].reshape(len(numbers), len(_PAIRS), 2)
    return drawn | {name: pairs[:, place] for place, name in enumerate(_PAIRS)}


def _around(middle: float, spread: float, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    return middle + spread * (2 * uniform - 1)


def _random_resized(
    policy: AugmentationPolicy,
    drawn: dict[str, NDArray[np.float64]],
    frames: NDArray[np.float64],
    image_size: tuple[int, int],
) -> Affines:
    """Draw the aspect first, then the area among those that fit: what Inception's crop gives, without its retries.

    Boxes are rounded to whole pixels, so that a crop that is not turned can be resized instead of warped.
    """
    width, height, frame_aspect = frames[:, 2], frames[:, 3], frames[:, 4]
    aspect = frame_aspect * np.exp(_around(0, np.log(CROP_ASPECT), drawn["aspect"]))
    most_width = np.minimum(width, height * aspect)
    most_area = most_width * most_width / (aspect * width * height)
    least_area = np.minimum(policy.crop_scale, most_area)
    area = least_area + (most_area - least_area) * drawn["area"]
    crop_width = most_width * np.sqrt(area / most_area)
    crop = np.stack([crop_width, crop_width / aspect], axis=1)
    corner = frames[:, :2] + (frames[:, 2:4] - crop) * drawn["position"]
    low, high = np.rint(corner), np.maximum(np.rint(corner + crop), np.rint(corner) + 1)
    return geometry.boxes_to_frame(np.concatenate([low, high - low], axis=1), image_size=image_size)


def _moves(
    policy: AugmentationPolicy, drawn: dict[str, NDArray[np.float64]], image_size: tuple[int, int]
) -> list[Affines]:
    """Give the flips and turns that follow the crop, leaving out what the policy has none of."""
    moves = []
    if policy.horizontal_flip or policy.vertical_flip:
        across, down = drawn["horizontal_flip"] < policy.horizontal_flip, drawn["vertical_flip"] < policy.vertical_flip
        moves.append(geometry.flips(across, down, image_size=image_size))
    if policy.rotation or policy.scale or policy.shift:
        degrees = _around(0, policy.rotation, drawn["rotation"])
        scale = _around(1, policy.scale, drawn["scale"])
        moves.append(geometry.turns(degrees, scale, _around(0, policy.shift, drawn["shift"]), image_size=image_size))
    return moves


def _colours(policy: AugmentationPolicy, drawn: dict[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    return colour_maps(
        brightness=_factor(policy.brightness, drawn["brightness"]),
        contrast=_factor(policy.contrast, drawn["contrast"]),
        saturation=_factor(policy.saturation, drawn["saturation"]),
        hue=_around(0, policy.hue, drawn["hue"]),
    )


def _factor(factors: Factors, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = factors if isinstance(factors, tuple) else (1 - factors, 1 + factors)
    return low + (high - low) * drawn


def colour_maps(
    *, brightness: ArrayLike, contrast: ArrayLike, saturation: ArrayLike, hue: ArrayLike
) -> NDArray[np.float32]:
    """Join four colour changes, in the order of the arguments, into one matrix per sample; clipping comes after.

    Args:
        brightness: Factor on all channels, shape (n,).
        contrast: Factor on the distance from mid-grey (127.5), shape (n,).
        saturation: Factor on the distance from the pixel's own grey, shape (n,).
        hue: Rotation of the chroma plane of YIQ, as a share of a full turn, shape (n,). Luma stays as it is.

    Returns:
        Shape (n, 3, 4), for RGB in 0 … 255.

    Examples:
        >>> darker = colour_maps(brightness=[0.5], contrast=[1], saturation=[1], hue=[0])
        >>> (darker[0] @ [200, 100, 50, 1]).round().tolist()
        [100.0, 50.0, 25.0]
    """
    turn = 2 * np.pi * np.asarray(hue, np.float64)
    saturation = np.asarray(saturation, np.float64)
    contrast = np.asarray(contrast, np.float64)
    factor = contrast * np.asarray(brightness, np.float64)
    kept, turned = (factor * saturation * np.cos(turn)), (factor * saturation * np.sin(turn))
    parts = np.stack([factor, kept, turned], axis=1) @ np.stack([_LUMA, _CHROMA, _QUARTER_TURN]).reshape(3, 9)
    maps = np.empty((len(turn), 3, 4), np.float32)
    maps[:, :, :3] = parts.reshape(-1, 3, 3)
    maps[:, :, 3] = (MID_GREY * (1 - contrast))[:, None]
    return maps
