"""What settings follow from others before they are checked: the task from the data, the network from an ancestor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headstart.data.label_settings import parse_label
from headstart.data.sources import guess_task
from headstart.recipe import Recipe
from headstart.recipe_defaults import DEFAULT_LOSSES, KEYPOINT_DEFAULTS, LABEL_SETTINGS, without_consequences
from headstart.runs import RunFolder, weights_hash

_INHERITED: Final = (
    "task", "backbone", "head", "pooling", "head_hidden", "head_norm", "dropout", "targets", "image_size", "fit",
    "crop_to_box", "crop_to_points", "nme_by", "nme_points",
)  # fmt: skip
"""What a run takes over from the one that it goes on from, where it does not say otherwise: what the weights need."""

_LABEL_FORM: Final = (*LABEL_SETTINGS, "label_bins", "label_separator", "label_weights")
"""What a run takes over of several labels, or of bins: its heads need the same classes."""

_DATA: Final = ("data", "annotations", "image_root")


_SPLITTING: Final = (
    "resplit", "split_column", "validation_fraction", "test_fraction", "group_column", "group_pattern", "name_pattern",
)  # fmt: skip
"""Settings that ask for another split than the ancestor's."""


def completed(given: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give settings with what follows from them.

    Args:
        given: Settings as the user gave them.
        base: Settings that they are laid over: of a recipe file, say. What followed there from settings that are given
            anew does not hold any more.

    Examples:
        >>> completed({"data": "photos", "annotations": "labels"})["task"]
        'keypoints'
        >>> completed({"epochs": 20}, {"epochs": 9, "epochs_before": [5]})
        {'epochs': 20}
        >>> completed({"head": "simcc"}, {"task": "keypoints", "head": "integral", "loss": "l1"}).get("loss") is None
        True
    """
    below = _still_valid(base or {}, given)
    inherited = _still_valid(inherited_settings({**below, **given}), {**below, **given})
    found = {**inherited, **below, **given}
    return found | guess_task(found) | _parent_weights(found)


_FOLLOWING: Final = {"from_run": "from_sha256", "epochs": "epochs_before", "nme_points": "nme_by"}
"""What was but the consequence of a setting: where that is given anew, it does not hold any more."""


def _still_valid(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that were but the consequence of others which are given anew."""
    dropped = {name for name in ("crop_to_box", "crop_to_points") if given.keys() & {"crop_to_box", "crop_to_points"}}
    dropped |= {follower for name, follower in _FOLLOWING.items() if name in given}
    if given.get("nme_by") in ("box", "image"):
        dropped.add("nme_points")
    tasks = {given.get("task"), base.get("task")} - {None}
    if len(tasks) > 1:
        dropped |= _defaults_of_task(base)
    kept = {name: value for name, value in base.items() if name not in dropped or name in given}
    found = without_consequences(kept, given)
    return found if not any(given.get(name) is not None for name in LABEL_SETTINGS) else _without_labels(found, given)


def _without_labels(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out how labels were read: they are named anew."""
    return {name: value for name, value in base.items() if name not in _LABEL_FORM or name in given}


def _defaults_of_task(base: Mapping[str, Any]) -> set[str]:
    """Name settings that are but the defaults of the task: another task has its own."""
    defaults = {name: Recipe.model_fields[name].default for name in KEYPOINT_DEFAULTS}
    if base.get("task") == "keypoints":
        defaults = KEYPOINT_DEFAULTS | {"loss": DEFAULT_LOSSES.get(str(base.get("head")))}
    return {name for name, value in defaults.items() if name in base and base[name] == value}


def _parent_weights(settings: Mapping[str, Any]) -> dict[str, str]:
    """Give the hash of the weights that a run starts from, so that its recipe starts from no others."""
    if settings.get("from_run") is None or settings.get("from_sha256") is not None:
        return {}
    found = weights_hash(Path(str(settings["from_run"])).expanduser())
    return {} if found is None else {"from_sha256": found}


def inherited_labels(theirs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a model's labels are read with: nothing where the user says it anew, or where each photo has one.

    Args:
        theirs: The settings of the run that learned the labels.
        settings: What is set already.

    Examples:
        >>> inherited_labels({"label": "mask,age", "label_bins": "age=30"}, {"data": "more.csv"})
        {'label': 'mask,age', 'label_bins': 'age=30'}
        >>> inherited_labels({"label": "mask,age"}, {"label": "mask"}), inherited_labels({"label": "mask"}, {})
        ({}, {})
    """
    is_several = theirs.get("multi_label") or theirs.get("label_bins") or set(str(theirs.get("label"))) & {",", "+"}
    if not is_several or any(settings.get(name) is not None for name in LABEL_SETTINGS):
        return {}
    names = [*_LABEL_FORM, *(["name_pattern"] if _is_in_names(theirs) else [])]
    return {name: theirs[name] for name in names if theirs.get(name) is not None and not settings.get(name)}


def _is_in_names(settings: Mapping[str, Any]) -> bool:
    """Say whether a label column is a group of the pattern on file names."""
    groups = re.compile(str(settings.get("name_pattern") or "")).groupindex
    return any(name in groups for name in parse_label(str(settings.get("label") or ""))[1])


def inherited_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a run takes over from the one that it goes on from: the network's shape, on the same data the split.

    Args:
        settings: What is set already; ``from_run`` names the run. A bundle without a recipe gives nothing.
    """
    path = Path(str(settings.get("from_run"))).expanduser()
    if settings.get("from_run") is None or not (path / "recipe.toml").exists():
        return {}
    theirs = RunFolder.open(path).recipe.model_dump(exclude_none=True)
    found = {name: theirs[name] for name in _INHERITED if theirs.get(name) not in (None, ())}
    found |= inherited_labels(theirs, settings)
    ours = {name: str(Path(str(settings[name])).expanduser().absolute()) for name in _DATA if settings.get(name)}
    is_same_data = ours == {name: theirs[name] for name in _DATA if name in theirs}
    if is_same_data and not any(settings.get(name) for name in _SPLITTING) and (path / "split.parquet").exists():
        found["split"] = str(path / "split.parquet")
    return {name: value for name, value in found.items() if settings.get(name) is None}
