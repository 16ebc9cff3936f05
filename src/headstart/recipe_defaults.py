"""Defaults that follow from other settings: what one optimizer, schedule, loss or task needs is wrong for the next.

A recipe always says what will be done, so these are filled in when it is made, and saved with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

CLASSIFICATION_LOSSES: Final = ("cross_entropy", "focal", "soft_f1", "bce")
"""Losses of classes."""

DEFAULT_LOSSES: Final[dict[str, str]] = {"coordinates": "wing", "simcc": "simcc", "integral": "l1"}
"""The loss of each keypoint head where none is named."""

KEYPOINT_HEADS: Final = tuple(DEFAULT_LOSSES)
"""Heads that give points."""

MAP_HEADS: Final = ("simcc", "integral")
"""Heads that take the map of features, so that no probe on pooled features can train them."""

KEYPOINT_DEFAULTS: Final[dict[str, Any]] = {
    "fit": "letterbox",
    "head": "integral",
    "loss": DEFAULT_LOSSES["integral"],
    "monitor": "nme",
    "lr": 1e-3,
    "label_smoothing": 0.0,
}
"""What defaults are for keypoints where they differ: the whole face in the picture, and what won the benchmark."""

CLASS_DEFAULTS: Final[dict[str, Any]] = {"loss": "cross_entropy", "monitor": "accuracy"}
"""Loss and monitor of one label a photo, or of a head for each column."""

MULTI_DEFAULTS: Final[dict[str, Any]] = {"loss": "bce", "monitor": "mean_average_precision"}
"""The same of several labels in one cell: a yes or no for each class."""

_PLAIN: Final = ("sgd", "momentum", "nesterov", "sgdw", "nesterovw")

OPTIMIZER_LRS: Final[dict[str, float]] = {**dict.fromkeys(_PLAIN, 1e-3), "lion": 1e-4, "madgrad": 1e-4, "rmsprop": 3e-5}
"""Highest learning rates of fine-tuning where the one of Adam and its kin is wrong by far.

Tried on scenes for three epochs from a fresh head. At ten times these rates accuracy was 25 % and not 70 for sgd, 23
and not 78 for rmsprop; at three times 59 and not 75 for madgrad; at a third 56 and not 77 for lion.
"""

HEAD_LRS: Final[dict[str, float]] = {**dict.fromkeys(_PLAIN, 0.1), "lion": 3e-4}
"""Likewise of a head on cached features, where 3e-3 is the others'."""

DECOUPLED_DECAY: Final = 0.02
"""Weight decay of optimizers that subtract it from the weights themselves (AdamW and those named like it, Lion)."""

SCHEDULE_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "constant": {},
    "step": {"step_epochs": 3, "gamma": 0.1},
    "multi_step": {"milestones": (), "gamma": 0.1},
    "exponential": {"gamma": 0.9},
    "cosine": {"cycle_epochs": None, "cycle_growth": 1.0},
    "polynomial": {"power": 1.0},
    "one_cycle": {},
    "triangular": {"cycle_epochs": None},
    "triangular2": {"cycle_epochs": None},
    "exp_range": {"cycle_epochs": None, "gamma": 0.9},
    "plateau": {"plateau_epochs": 2, "gamma": 0.1},
}
"""Schedules, and the settings that each goes by with their defaults."""

RISING: Final = ("one_cycle", "triangular", "triangular2", "exp_range")
"""Schedules that begin low by themselves and have no warmup."""

WITHOUT_FLOOR: Final = ("constant", "step", "multi_step", "exponential", "one_cycle")
"""Schedules that do not run between ``min_lr`` and ``lr``: their factors are of the highest rate alone."""

FINE_TUNING: Final[dict[str, Any]] = {"epochs": 8, "batch_size": 32, "patience": 5}
"""What holds where more than a head on cached features trains."""

EMA_DECAY: Final = 0.998
"""Decay of the moving average of the weights, which fine-tuning keeps."""

PROBE_EPOCHS: Final = 60
"""Epochs of a head on cached features."""

BUDGET_EPOCHS: Final = 24
"""The most epochs under a budget: more than three times the default gained nothing that was measured."""

LOSS_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "cross_entropy": {"label_smoothing": 0.1},
    "focal": {"label_smoothing": 0.0, "focal_gamma": 2.0, "focal_alpha": None},
    "soft_f1": {"label_smoothing": 0.0},
    "bce": {"label_smoothing": 0.0},
}
"""Losses of classes, and the settings that each goes by with their defaults."""

COMPUTED_WEIGHTS: Final = ("balanced", "effective")
"""Class weights that follow from the number of training samples; anything else is a file."""

MIXING_SETTINGS: Final[dict[str, dict[str, Any]]] = {"cutmix": {"cutmix_alpha": 1.0}, "mixup": {"mixup_alpha": 0.2}}
"""Ways of mixing, and what each goes by where its probability is not 0: alpha as its paper has it."""

LABEL_SETTINGS: Final = ("label", "label_column", "multi_label")
"""Settings of which one names the labels."""

CAUSES: Final[dict[str, tuple[str, ...]]] = {
    "weight_decay": ("optimizer",),
    "lr": ("optimizer", "task", "unfreeze", "head", "from_run", "probe_lr"),
    "epochs": ("unfreeze", "head", "from_run", "probe_epochs"),
    "batch_size": ("unfreeze", "head", "from_run"),
    "patience": ("unfreeze", "head", "from_run", "probe_epochs", "epochs"),
    "warmup_epochs": ("schedule",),
    "loss": ("head", "task", *LABEL_SETTINGS),
    "monitor": LABEL_SETTINGS,
    "label_smoothing": ("loss", "class_weights", *LABEL_SETTINGS),
    "focal_gamma": ("loss", *LABEL_SETTINGS),
    **dict.fromkeys(("step_epochs", "gamma", "cycle_growth", "power", "plateau_epochs"), ("schedule",)),
    "cutmix_alpha": ("cutmix",),
    "mixup_alpha": ("mixup",),
}
"""Settings with a default that follows from others, and from which."""


def following_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give the defaults that follow from what is set, of settings that are not set.

    Examples:
        >>> following_defaults({"optimizer": "sgd", "lr": 0.1})["weight_decay"]
        0.0
        >>> following_defaults({"schedule": "step", "loss": "focal"})["step_epochs"]
        3
    """
    is_keypoints = settings.get("task") == "keypoints"
    found: dict[str, Any] = dict(KEYPOINT_DEFAULTS) if is_keypoints else {}
    optimizer = str(settings.get("optimizer", "adamw"))
    found["lr"] = OPTIMIZER_LRS.get(optimizer, 1e-3 if is_keypoints else 3e-4)
    found["weight_decay"] = DECOUPLED_DECAY if optimizer.endswith("w") or optimizer == "lion" else 0.0
    if trains_head_on_features(settings):
        found["epochs"] = epochs = settings.get("probe_epochs", PROBE_EPOCHS)
        found["lr"] = settings.get("probe_lr", HEAD_LRS.get(optimizer, 3e-3))
        found["patience"] = _every_one_of(epochs if settings.get("epochs") is None else settings["epochs"])
        found["batch_size"] = 128
    else:
        found |= FINE_TUNING | ({} if settings.get("budget") is None else {"epochs": BUDGET_EPOCHS})
    schedule = str(settings.get("schedule", "cosine"))
    found |= SCHEDULE_SETTINGS.get(schedule, {}) | {"warmup_epochs": 0.0 if schedule in RISING else 1.0}
    if is_keypoints:
        found["loss"] = DEFAULT_LOSSES.get(str(settings.get("head", found["head"])), found["loss"])
        if settings.get("nme_points"):
            found["nme_by"] = "points"
    else:
        found |= CLASS_DEFAULTS if settings.get("multi_label") is None else MULTI_DEFAULTS
        found |= LOSS_SETTINGS.get(str(settings.get("loss") or found["loss"]), {})
        if settings.get("class_weights") is not None:
            found["label_smoothing"] = 0.0  # a rare class that weighs fifty times would draw its share of all others
        for way, theirs in MIXING_SETTINGS.items():
            found |= theirs if settings.get(way) not in (None, 0, 0.0, "0") else {}
    return {name: value for name, value in found.items() if settings.get(name) is None}


def without_consequences(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings whose value only followed from others that are given anew.

    Examples:
        >>> without_consequences({"optimizer": "adamw", "weight_decay": 0.02}, {"optimizer": "sgd"})
        {'optimizer': 'adamw'}
        >>> without_consequences({"optimizer": "adamw", "weight_decay": 0.5}, {"optimizer": "sgd"})["weight_decay"]
        0.5
    """
    dropped = set()
    for name, causes in CAUSES.items():
        rest = {other: value for other, value in base.items() if other != name}
        if given.keys() & set(causes) and base.get(name) == following_defaults(rest).get(name):
            dropped.add(name)
    return {name: value for name, value in base.items() if name not in dropped or name in given}


def trains_head_on_features(settings: Mapping[str, Any]) -> bool:
    """Say whether the whole training is a head on cached features: larger steps, more of them, larger batches.

    Examples:
        >>> trains_head_on_features({"unfreeze": "none"}), trains_head_on_features({"unfreeze": "1"})
        (True, False)
    """
    is_pooled = settings.get("task") != "keypoints" or settings.get("head") == "coordinates"
    is_fresh = settings.get("from_run") is None and not settings.get("unfreeze_later")
    return is_pooled and is_fresh and settings.get("unfreeze") == "none"


def _every_one_of(epochs: object) -> int:
    """Give the patience that never ends a training of so many epochs: those of a head take no time."""
    try:
        return max(int(float(str(epochs))), 1)
    except (ValueError, OverflowError):
        return 1  # no number: refused by itself


def unheeded(settings: Mapping[str, Any]) -> dict[str, str]:
    """Give settings that the chosen schedule, loss or mixing has no use for, each with what would have.

    Examples:
        >>> unheeded({"schedule": "cosine", "milestones": (3,)})
        {'milestones': 'the schedule multi_step'}
    """
    chosen = {"schedule": SCHEDULE_SETTINGS}
    if settings.get("task") != "keypoints":
        chosen["loss"] = LOSS_SETTINGS
    found: dict[str, str] = {}
    for what, table in chosen.items():
        heeded = table.get(str(settings.get(what)))
        if heeded is None:  # a loss of points, say: that is refused by itself
            continue
        for name in {name for theirs in table.values() for name in theirs} - heeded.keys():
            if settings.get(name) not in (None, (), 0.0):
                users = " or ".join(user for user, theirs in table.items() if name in theirs)
                found[name] = f"the {what} {users}"
    found |= _unheeded_by_schedule(settings) | _unheeded_on_features(settings)
    if settings.get("loss") == "soft_f1" and settings.get("label_smoothing"):
        found["label_smoothing"] = "another loss"
    for way, theirs in MIXING_SETTINGS.items():
        found |= {name: f"--{way} above 0" for name in theirs if settings.get(name) and not settings.get(way)}
    return found


def without_unheeded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that have no effect beside the others.

    Examples:
        >>> without_unheeded({"schedule": "cosine", "milestones": (3,)})
        {'schedule': 'cosine'}
    """
    left = dict(settings)
    while idle := unheeded(left):
        left = {name: value for name, value in left.items() if name not in idle}
    return left


def _unheeded_on_features(settings: Mapping[str, Any]) -> dict[str, str]:
    """Give settings that a head on cached features has no use for."""
    if not trains_head_on_features(settings):
        return {}
    only = "fine-tuning: only a head on cached features is trained"
    found = {name: only for name in ("cutmix", "mixup", "layer_decay") if settings.get(name)}
    if settings.get("ema_decay") not in (None, 0, EMA_DECAY):
        found["ema_decay"] = only
    if settings.get("compile") == "on":
        found["compile"] = only
    return found


def _unheeded_by_schedule(settings: Mapping[str, Any]) -> dict[str, str]:
    """Give settings of several schedules that the chosen one has no use for."""
    schedule, found = settings.get("schedule"), dict[str, str]()
    if schedule in RISING and settings.get("warmup_epochs"):
        found["warmup_epochs"] = "a schedule that begins at its highest rate"
    if schedule in WITHOUT_FLOOR and settings.get("min_lr"):
        found["min_lr"] = "the schedule cosine, polynomial, plateau or a triangular one"
    if settings.get("cycle_growth") not in (None, 1.0) and settings.get("cycle_epochs") is None:
        found["cycle_growth"] = "cycle_epochs"
    return found
