"""Every setting, defined once: its CLI flag, TOML key, Python argument, bounds and help come from here.

A recipe is what a run was asked to do. ``headstart train`` resolves flags over ``--recipe FILE`` over these defaults,
refuses what it does not know before any work, and saves the result as ``RUN/recipe.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from headstart.errors import RecipeError, all_at_once, did_you_mean, must_be
from headstart.files import written_aside

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


def _comma_separated(value: object) -> object:
    """Read ``"280,210"`` or ``"a,b"`` (a flag) as a list; leave lists (TOML, Python) alone."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _size(value: object) -> object:
    """Read one number as a square: ``224`` → (224, 224)."""
    value = [value] if isinstance(value, int) else _comma_separated(value)
    if not isinstance(value, list | tuple) or len(value) not in (1, 2):
        raise ValueError("one number, or height and width")
    return [*value, *value][:2]


ImageSize = Annotated[
    tuple[Annotated[int, Field(ge=16, le=4096)], Annotated[int, Field(ge=16, le=4096)]], BeforeValidator(_size)
]
Fit = Literal["crop", "letterbox", "stretch"]
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]


def _field(default: Any, help_text: str, *, group: str) -> Any:
    return Field(default=default, description=help_text, json_schema_extra={"group": group})


DEFAULT_LOSSES: dict[str, str] = {"coordinates": "wing", "simcc": "simcc", "integral": "l1"}
"""The loss of each keypoint head where none is named."""

KEYPOINT_HEADS = tuple(DEFAULT_LOSSES)
"""Heads that give points."""

MAP_HEADS = ("simcc", "integral")
"""Heads that take the map of features, so that no probe on pooled features can train them."""

KEYPOINT_DEFAULTS: dict[str, Any] = {
    "fit": "letterbox",
    "head": "integral",
    "loss": DEFAULT_LOSSES["integral"],
    "monitor": "nme",
    "lr": 1e-3,
}
"""What defaults are for keypoints where they differ: the whole face in the picture, and what won the benchmark."""


class Recipe(BaseModel):
    """All settings of a run. Field names are TOML keys and Python arguments; with dashes they are flags.

    Examples:
        >>> Recipe(lr="5e-6", image_size="280,210").image_size
        (280, 210)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    # --- data
    data: str | None = _field(None, "the photos: a folder, a table, or an archive of either", group="Data")
    path_column: str | None = _field(None, "table column with the image paths [guessed]", group="Data")
    label_column: str | None = _field(None, "table column with the labels [guessed]", group="Data")
    image_root: str | None = _field(None, "folder that the table's paths start from [the table's]", group="Data")
    group_column: str | None = _field(
        None, "table column that says what belongs together (person, place)", group="Data"
    )
    group_pattern: str | None = _field(
        None, "regular expression on the path; its first capture is the group", group="Data"
    )
    task: Literal["classification", "keypoints"] = _field(
        "classification", "what is learned [keypoints where the data has points]", group="Data"
    )
    annotations: str | None = _field(
        None, "keypoints: a folder of JSON or .pts files, one JSON for all, or a CSV", group="Data"
    )
    points_key: str | None = _field(
        None, "keypoints: where a JSON holds the list of points, e.g. face.points [guessed]", group="Data"
    )
    name_pattern: str | None = _field(
        None, "keypoints: regex on the file name; its named groups become columns, (?P<person>…) the group",
        group="Data",
    )  # fmt: skip
    flip_pairs: str | None = _field(
        None, "keypoints: CSV or JSON of left,right point numbers that change places in a mirror [inferred]",
        group="Data",
    )  # fmt: skip
    crop_to_box: str | None = _field(
        None, "keypoints: crop to this box first: four table columns, or a box's name in the JSON", group="Data"
    )
    crop_to_points: Annotated[float, Field(ge=0, le=5)] | None = _field(
        None, "keypoints: crop to the points first, with this margin (share of their extent)", group="Data"
    )
    nme_by: Literal["points", "box", "image"] = _field(
        "box", "what errors are divided by: a distance of two points, the points' box, or the image (diagonals)",
        group="Data",
    )  # fmt: skip
    nme_points: Annotated[tuple[int, ...], BeforeValidator(_comma_separated)] = _field(
        (), "two point numbers from 0 whose distance errors are divided by, e.g. 36,45", group="Data"
    )
    max_pixels: int = _field(200_000_000, "exclude images with more pixels than this, before decoding", group="Data")
    max_archive_gb: Positive = _field(50.0, "refuse archives that unpack to more than this", group="Data")
    duplicate_distance: Annotated[int, Field(ge=0, le=16)] = _field(
        8, "bits (of 64) two perceptual hashes may differ by to be compared as near-identical", group="Data"
    )
    # --- splits
    split_column: str | None = _field(None, "table column with train, validation or test", group="Split")
    split: str | None = _field(None, "take the split from this file (RUN/split.parquet of another run)", group="Split")
    resplit: bool = _field(False, "split anew, even where the data brings its own split", group="Split")
    validation_fraction: Fraction = _field(0.15, "share of the samples for validation", group="Split")
    test_fraction: Fraction = _field(0.15, "share of the samples for the test", group="Split")
    folds: Annotated[int, Field(ge=2, le=100)] | None = _field(
        None, "train so many models, each on all but one part of what is not test; they answer together", group="Split"
    )
    fold: Annotated[int, Field(ge=1)] | None = _field(
        None, "train this one of the folds alone, as a run of its own (from 1)", group="Split"
    )
    # --- pixels
    image_size: ImageSize | None = _field(None, "224, or 280,210 as height,width [the backbone's own]", group="Pixels")
    fit: Fit = _field("crop", "how a photo meets the image size: fill and crop, pad, or stretch", group="Pixels")
    store: Literal["auto", "raw", "jpeg"] = _field("auto", "how decoded photos are kept [by free disk]", group="Pixels")
    store_dir: str | None = _field(None, "where decoded photos are kept [HEADSTART_CACHE or ~/.cache]", group="Pixels")
    # --- augmentation
    augment: Literal["none", "light", "standard", "strong"] = _field("standard", "preset", group="Augmentation")
    augment_probability: Probability | None = _field(
        None, "share of the samples that are augmented", group="Augmentation"
    )
    crop: Literal["random-resized", "random", "center"] | None = _field(
        None, "which part of the photo is taken (random: resize, then crop)", group="Augmentation"
    )
    crop_scale: Annotated[float, Field(gt=0, le=1)] | None = _field(
        None, "smallest share of the area that random-resized takes", group="Augmentation"
    )
    horizontal_flip: Probability | None = _field(None, "probability of a left-right flip", group="Augmentation")
    vertical_flip: Probability | None = _field(None, "probability of a top-bottom flip", group="Augmentation")
    rotation: Annotated[float, Field(ge=0, le=180)] | None = _field(None, "at most ± degrees", group="Augmentation")
    scale: Annotated[float, Field(ge=0, lt=1)] | None = _field(None, "at most ± this share", group="Augmentation")
    shift: Annotated[float, Field(ge=0, lt=1)] | None = _field(None, "at most ± this share", group="Augmentation")
    brightness: Annotated[float, Field(ge=0, lt=1)] | None = _field(None, "factor 1 ± this", group="Augmentation")
    contrast: Annotated[float, Field(ge=0, lt=1)] | None = _field(None, "factor 1 ± this", group="Augmentation")
    saturation: Annotated[float, Field(ge=0, le=1)] | None = _field(None, "factor 1 ± this", group="Augmentation")
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = _field(
        None, "at most ± this share of a turn", group="Augmentation"
    )
    noise: Annotated[float, Field(ge=0, le=0.5)] | None = _field(
        None, "largest standard deviation of Gaussian noise (1 = full range)", group="Augmentation"
    )
    max_lost_points: Fraction = _field(
        0.1, "keypoints: a draw that moves more of the points out of the picture is drawn again, milder",
        group="Augmentation",
    )  # fmt: skip
    # --- model
    backbone: str = _field("mobilenetv2_100", "any timm network by name", group="Model")
    weights: str = _field("auto", "auto, none, or a .safetensors/.pth file", group="Model")
    allow_partial_weights: Names = _field((), "backbone tensors (name or prefix.*) that may stay random", group="Model")
    from_run: str | None = _field(
        None,
        "start from the weights of this run (--from RUN), with this recipe's optimizer and schedule",
        group="Model",
    )
    head: Literal["linear", "coordinates", "simcc", "integral"] = _field(
        "linear", "what turns features into answers; the last three give keypoints", group="Model"
    )
    dropout: Fraction = _field(0.0, "dropout before the last layer", group="Model")
    unfreeze: Annotated[str, Field(pattern=r"^(none|all|[1-9]\d*)$"), BeforeValidator(str)] = _field(
        "all", "what is fine-tuned: none, all, or the last N blocks", group="Model"
    )
    batch_norm: Literal["auto", "frozen", "trained"] = _field(
        "auto", "batch norm statistics in fine-tuning; auto: frozen if pretrained", group="Model"
    )
    # --- training
    probe_epochs: Annotated[int, Field(ge=1)] = _field(
        60, "epochs of the linear probe on cached features", group="Training"
    )
    epochs: Annotated[int, Field(ge=0)] = _field(8, "epochs of fine-tuning after the probe", group="Training")
    batch_size: Annotated[int, Field(ge=1)] = _field(32, "samples a step", group="Training")
    lr: Positive = _field(3e-4, "highest learning rate of fine-tuning (AdamW)", group="Training")
    probe_lr: Positive = _field(3e-3, "highest learning rate of the probe", group="Training")
    weight_decay: Annotated[float, Field(ge=0)] = _field(
        0.02, "AdamW weight decay (not on biases and norms)", group="Training"
    )
    warmup_epochs: Annotated[float, Field(ge=0)] = _field(
        1.0, "epochs of linear warmup before the cosine", group="Training"
    )
    label_smoothing: Fraction = _field(0.1, "share of the target spread over all classes", group="Training")
    ema_decay: Fraction = _field(0.998, "decay of the weights' moving average; 0 turns it off", group="Training")
    loss: Literal["cross_entropy", "mse", "l1", "smooth_l1", "wing", "soft_wing", "simcc"] = _field(
        "cross_entropy", "what training minimises; all but cross_entropy are for keypoints", group="Training"
    )
    targets: Literal["normalised", "pixels"] = _field(
        "normalised",
        "keypoints: what the loss measures in: shares of the model's frame, or its pixels",
        group="Training",
    )
    patience: Annotated[int, Field(ge=1)] = _field(5, "epochs without a better score before stopping", group="Training")
    monitor: Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "nme"] = _field(
        "accuracy", "validation score that picks the best epoch", group="Training"
    )
    checkpoint_seconds: Positive = _field(60.0, "a checkpoint at least this often", group="Training")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = _field(
        0, "seed of split, order, augmentation and head", group="Training"
    )
    # --- machine
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda)$")] = _field(
        "auto", "auto, cpu, cuda or mps", group="Machine"
    )
    num_devices: Annotated[int, Field(ge=1)] = _field(1, "devices to train on", group="Machine")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = _field(
        "auto", "auto: fp32 on a CPU, bf16 on a capable GPU", group="Machine"
    )
    num_threads: Annotated[int, Field(ge=1)] | None = _field(None, "CPU threads [all]", group="Machine")

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults_of_task(cls, values: Any) -> Any:
        """Give what is not set the default of the task: a recipe always says what will be done."""
        if not isinstance(values, Mapping) or values.get("task") != "keypoints":
            return values
        filled = {**KEYPOINT_DEFAULTS, **values}
        if values.get("nme_points") and "nme_by" not in values:
            filled["nme_by"] = "points"
        if "loss" not in values:
            filled["loss"] = DEFAULT_LOSSES.get(str(filled["head"]), filled["loss"])
        return filled

    @field_validator("nme_points")
    @classmethod
    def _two_points(cls, points: tuple[int, ...]) -> tuple[int, ...]:
        if points and (len(points) != 2 or points[0] == points[1] or min(points) < 0):
            raise ValueError("two different point numbers from 0, e.g. 36,45")
        return points

    @field_validator("name_pattern")
    @classmethod
    def _pattern_names_columns(cls, pattern: str | None) -> str | None:
        if pattern is not None and not _compiled(pattern).groupindex:
            raise ValueError("a regular expression with named groups, e.g. '(?P<person>\\d+)_'")
        return pattern

    @model_validator(mode="after")
    def _settings_fit_the_task(self) -> Self:
        problems = list(_task_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @field_validator("group_pattern")
    @classmethod
    def _pattern_has_a_capture(cls, pattern: str | None) -> str | None:
        if pattern is not None and not _compiled(pattern).groups:
            raise ValueError("a regular expression with a capture in parentheses, e.g. '(person\\d+)_'")
        return pattern

    @model_validator(mode="after")
    def _batch_divides_among_devices(self) -> Self:
        if self.batch_size % self.num_devices:
            raise ValueError(
                f"batch_size must be a multiple of num_devices; got {self.batch_size} and {self.num_devices}"
            )
        return self

    @model_validator(mode="after")
    def _split_leaves_training(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must be below 1, or nothing is left to train on")
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_the_folds(self) -> Self:
        if self.fold is not None and self.fold > (self.folds or 0):
            raise ValueError(f"fold must be at most folds, the number of parts; got {self.fold} of {self.folds}")
        return self

    @property
    def nme_pair(self) -> tuple[int, int] | None:
        """The two points whose distance errors are divided by; None where none are named."""
        return (self.nme_points[0], self.nme_points[1]) if self.nme_points else None

    def updated(self, **settings: Any) -> Recipe:
        """Give a copy with some settings changed, checked like any other recipe."""
        return make_recipe(self.model_dump() | settings)

    def with_absolute_paths(self) -> Recipe:
        """Give a copy whose files and folders are named from the root, so that it holds in any working folder.

        Examples:
            >>> Path(Recipe(data="photos").with_absolute_paths().data).is_absolute()
            True
        """
        files = ("data", "annotations", "flip_pairs", "from_run", "image_root", "split", "store_dir")
        names = [name for name in files if getattr(self, name) is not None]
        names += ["weights"] if self.weights not in ("auto", "none") else []
        return self.model_copy(update={name: str(Path(getattr(self, name)).expanduser().absolute()) for name in names})

    def save(self, path: Path) -> None:
        """Write the recipe as TOML, with settings that are unset left out."""
        values = {name: value for name, value in self.model_dump(mode="json").items() if value is not None}
        with written_aside(path) as aside:
            aside.write_text(tomli_w.dumps(values), encoding="utf-8")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"a regular expression; {error}") from None


def _task_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings that say something about the other task: nothing of them would be heeded."""
    is_keypoints = recipe.task == "keypoints"
    of_keypoints = {
        "head": recipe.head != "linear",
        "loss": recipe.loss != "cross_entropy",
        "monitor": recipe.monitor == "nme",
    }
    for name, is_theirs in of_keypoints.items():
        if is_theirs != is_keypoints:
            yield f"{name} must be one for {recipe.task}; got {getattr(recipe, name)!r}"
    if is_keypoints:
        yield from _keypoint_problems(recipe)
        return
    only = ("annotations", "points_key", "name_pattern", "flip_pairs", "crop_to_box", "crop_to_points", "nme_points")
    for name in only:
        if getattr(recipe, name) not in (None, ()):
            yield f"{name} must be left out for classification; got {getattr(recipe, name)!r}"


def _keypoint_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of keypoints that do not go together."""
    if recipe.loss == "simcc" and recipe.head != "simcc":
        yield f"loss must be one for the head {recipe.head!r}; got 'simcc'"
    if recipe.crop_to_box is not None and recipe.crop_to_points is not None:
        yield f"crop_to_points must be left out beside crop_to_box; got {recipe.crop_to_points!r}"
    if recipe.targets == "pixels" and recipe.head != "coordinates":
        yield f"targets must be 'normalised' for the head {recipe.head!r}; got 'pixels'"
    if recipe.head in MAP_HEADS and recipe.epochs == 0:
        yield f"epochs must be at least 1 for the head {recipe.head!r}, which is not probed; got 0"
    if recipe.nme_by == "points" and not recipe.nme_points:
        yield "nme_points must be given where nme_by is 'points'; got none"


def make_recipe(
    settings: Mapping[str, Any], *, place: str = "recipe", flags: Collection[str] = (), problems: Sequence[str] = ()
) -> Recipe:
    """Check settings and give the recipe, or one error that names every problem.

    Args:
        settings: Setting names and values; text is read as numbers where a number is meant.
        place: Where the settings come from, for the message.
        flags: Settings that came as flags; the message names them so.
        problems: What is wrong besides, to be said in the same message.

    Raises:
        RecipeError: A setting is unknown or its value is not allowed. All problems stand in one message.

    Examples:
        >>> make_recipe({"epochs": "3"}).epochs
        3
        >>> make_recipe({"epoch": 3})
        Traceback (most recent call last):
        headstart.errors.RecipeError: recipe.epoch must be a known setting; got 3. Did you mean 'epochs'?
    """
    try:
        recipe = Recipe(**settings)
    except ValidationError as error:
        raise RecipeError(all_at_once([*problems, *_word_problems(error, place, flags)])) from None
    if problems:
        raise RecipeError(all_at_once(problems))
    return recipe


def flag_name(name: str) -> str:
    """Give a setting's flag.

    Examples:
        >>> flag_name("image_size"), flag_name("from_run")
        ('--image-size', '--from')
    """
    return "--from" if name == "from_run" else f"--{name.replace('_', '-')}"


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file's settings, unchecked.

    Raises:
        RecipeError: The file is missing, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(must_be("--recipe", "a recipe file", str(path), "No such file.")) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(must_be("--recipe", "a TOML file", str(path), f"{error}.")) from None


def _word_problems(error: ValidationError, place: str, flags: Collection[str]) -> list[str]:
    messages: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        where = flag_name(name) if name in flags else f"{place}.{name}"
        if problem["type"] == "extra_forbidden":
            message = must_be(where, "a known setting", problem["input"], _near_setting(name))
        elif name == "settings":
            message = problem["msg"].removeprefix("Value error, ") + "."
        else:
            message = must_be(where, _expected(problem), problem["input"], _near_choice(problem))
        messages.setdefault(f"{name}{problem['type'] if name == 'settings' else ''}", message)
    return list(messages.values())


def _near_setting(name: str) -> str:
    return did_you_mean(name, Recipe.model_fields)


def _near_choice(problem: Any) -> str:
    choices = re.findall(r"'([^']+)'", str(problem.get("ctx", {}).get("expected", "")))
    return did_you_mean(str(problem["input"]), choices)


def _expected(problem: Any) -> str:
    """Turn pydantic's "Input should be …" into the words after "must be"."""
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    text = text.replace("a valid number, unable to parse string as a number", "a number")
    text = text.replace("a valid integer, unable to parse string as an integer", "a whole number")
    if "pattern" in problem.get("ctx", {}):
        choices = (
            problem["ctx"]["pattern"].strip("^$()").replace("|", ", ").replace(r"[1-9]\d*", "or a number of blocks")
        )
        return f"one of {choices}"
    return text[0].lower() + text[1:]
