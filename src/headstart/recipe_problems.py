"""Settings that do not go together, a line each that begins with the name of a setting; ``recipe.py`` words them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

from headstart.data.label_settings import label_problems, unfit_monitors
from headstart.recipe_defaults import CLASSIFICATION_LOSSES, MAP_HEADS, unheeded

if TYPE_CHECKING:
    from headstart.recipe import Recipe


def recipe_problems(recipe: Recipe) -> Iterator[str]:
    """Name every setting that does not go together with another, or would not be heeded.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> list(recipe_problems(Recipe()))
        []
    """
    for problems in (_task_problems, _training_problems, _freezing_problems, _model_problems, _other_problems):
        yield from problems(recipe)


def recipe_field(recipe: Recipe, name: str) -> Any:
    """Give a setting's definition."""
    return type(recipe).model_fields[name]


def _task_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings that say something about the other task: nothing of them would be heeded."""
    is_keypoints = recipe.task == "keypoints"
    for name in ("head", "loss", "monitor"):
        if _is_of_keypoints(name, getattr(recipe, name)) != is_keypoints:
            yield f"{name} must be {_choices(name, recipe)} for {recipe.task}; got {getattr(recipe, name)!r}"
    yield from label_problems(recipe)
    if is_keypoints:
        yield from _keypoint_problems(recipe)
        return
    if recipe.cutmix + recipe.mixup > 1:
        yield f"cutmix + mixup must be at most 1; got {recipe.cutmix + recipe.mixup:g}"
    only = ("annotations", "points_key", "flip_pairs", "crop_to_box", "crop_to_points", "nme_points")
    for name in (*only, "nme_by", "max_lost_points", "targets"):
        if getattr(recipe, name) != recipe_field(recipe, name).default:
            yield f"{name} must be left out for classification; got {getattr(recipe, name)!r}"


def _is_of_keypoints(name: str, value: str) -> bool:
    return value == "nme" if name == "monitor" else value not in ("linear", *CLASSIFICATION_LOSSES)


def _choices(name: str, recipe: Recipe) -> str:
    """Word the values of a setting that serve the recipe's task (and, of losses, its head)."""
    is_keypoints, every = recipe.task == "keypoints", get_args(recipe_field(recipe, name).annotation)
    values = [value for value in every if _is_of_keypoints(name, value) == is_keypoints]
    values = [value for value in values if (name, value) != ("loss", "simcc") or recipe.head == "simcc"]
    values = [value for value in values if name != "monitor" or value not in unfit_monitors(recipe.labels.form)]
    return f"one of {', '.join(values)}" if len(values) > 1 else repr(values[0])


def _training_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of training that would not be heeded, or do not go together."""
    for name, user in sorted(unheeded(recipe.model_dump()).items()):
        yield f"{name} must be left out without {user}; got {getattr(recipe, name)!r}"
    if recipe.schedule == "multi_step" and not recipe.milestones:
        yield "milestones must be given for the schedule multi_step; got none"
    if recipe.epochs == recipe.probe_epochs == 0:
        yield "epochs and probe_epochs must not both be 0: nothing would be trained"
    if recipe.min_lr > recipe.lr:
        yield f"min_lr must be at most lr, {recipe.lr:g}; got {recipe.min_lr:g}"


def _freezing_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings that do not go together with what is frozen."""
    if recipe.unfreeze_later and recipe.budget is not None:
        yield f"unfreeze_later must be left out beside budget; got {', '.join(recipe.unfreeze_later)}"
    if recipe.unfreeze_later and recipe.num_devices > 1:
        yield f"unfreeze_later must be left out on several devices; got {', '.join(recipe.unfreeze_later)}"


def _model_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of the model, and of several models, that do not go together."""
    if recipe.pooling != "own" and recipe.head in MAP_HEADS:
        yield f"pooling must be 'own' for the head {recipe.head!r}, which takes the map; got {recipe.pooling!r}"
    if (recipe.head_hidden or recipe.head_norm) and recipe.head in MAP_HEADS:
        yield f"head_hidden and head_norm must be left out for the head {recipe.head!r}"


def _keypoint_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of keypoints that do not go together."""
    for name in ("class_weights", "cutmix", "mixup"):
        if getattr(recipe, name):
            yield f"{name} must be left out for keypoints; got {getattr(recipe, name)!r}"
    if recipe.loss == "simcc" and recipe.head != "simcc":
        yield f"loss must be {_choices('loss', recipe)} for the head {recipe.head!r}; got 'simcc'"
    if recipe.targets == "pixels" and recipe.head != "coordinates":
        yield f"targets must be 'normalised' for the head {recipe.head!r}; got 'pixels'"
    if recipe.head in MAP_HEADS and recipe.epochs == 0:
        yield f"epochs must be at least 1 for the head {recipe.head!r}, which is not probed; got 0"
    yield from _measuring_problems(recipe)


def _measuring_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of what is looked at and how points are measured that contradict each other, or are not heeded."""
    if recipe.crop_to_box is not None and recipe.crop_to_points is not None:
        yield f"crop_to_points must be left out beside crop_to_box; got {recipe.crop_to_points!r}"
    if recipe.nme_by == "points" and not recipe.nme_points:
        yield "nme_points must be given where nme_by is 'points', e.g. 36,45; got none"
    if recipe.nme_points and recipe.nme_by != "points":
        yield f"nme_by must be 'points' beside nme_points; got {recipe.nme_by!r}. Leave one of the two out"
    if recipe.label_smoothing:
        yield f"label_smoothing must be 0 for keypoints: only classes are smoothed; got {recipe.label_smoothing:g}"


def _other_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of any task that do not go together."""
    if recipe.batch_size % recipe.num_devices:
        yield f"batch_size must be a multiple of num_devices; got {recipe.batch_size} and {recipe.num_devices}"
    if recipe.validation_fraction + recipe.test_fraction >= 1:
        shares = f"{recipe.validation_fraction:g} and {recipe.test_fraction:g}"
        yield f"validation_fraction must be below 1 with test_fraction, or nothing is left to train on; got {shares}"
    if any(later <= earlier for earlier, later in pairwise([*recipe.epochs_before, recipe.epochs])):
        before = ", ".join(map(str, recipe.epochs_before))
        yield f"epochs_before must be rising numbers below epochs, {recipe.epochs}; got {before}"
    if recipe.from_sha256 is not None and recipe.from_run is None:
        yield f"from_sha256 must be left out without from_run; got {recipe.from_sha256!r}"
