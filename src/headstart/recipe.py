"""Every setting, defined once: its CLI flag, TOML key, Python argument, bounds and help come from here.

A recipe is what a run was asked to do. ``headstart train`` resolves flags over ``--recipe FILE`` over these defaults,
refuses what it does not know before any work, and saves the result as ``RUN/recipe.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from headstart.data.label_settings import PARSERS, LabelSettings, label_settings
from headstart.errors import RecipeError, all_at_once, must_be
from headstart.files import written_aside
from headstart.recipe_defaults import (
    COMPUTED_WEIGHTS,
    EMA_DECAY,
    FINE_TUNING,
    PROBE_EPOCHS,
    following_defaults,
    without_consequences,
)
from headstart.recipe_problems import recipe_problems
from headstart.recipe_values import (
    Blocks,
    Budget,
    Factors,
    Fit,
    Fraction,
    GroupPattern,
    ImageSize,
    Monitor,
    NamePattern,
    Names,
    PointPair,
    Positive,
    Probability,
    Stages,
    Text,
    comma_separated,
)
from headstart.recipe_wording import word_problems


def _field(default: Any, help_text: str, *, group: str) -> Any:
    return Field(default=default, description=help_text, json_schema_extra={"group": group})


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
    label: Text | None = _field(
        None, "column with the labels [guessed]; a,b: a head for each column; a+b: their combinations as classes",
        group="Data",
    )  # fmt: skip
    label_column: str | None = _field(None, "as --label, for one column of any name", group="Data")
    label_bins: Text | None = _field(None, "make classes of a column's numbers, e.g. age=30,60", group="Data")
    multi_label: str | None = _field(None, "column with several labels in a cell", group="Data")
    label_separator: str | None = _field(
        None, "what stands between the labels of a cell [guessed: ; , | or space]", group="Data"
    )
    image_root: str | None = _field(None, "folder that the table's paths start from [the table's]", group="Data")
    group_column: str | None = _field(
        None, "table column that says what belongs together (person, place)", group="Data"
    )
    group_pattern: GroupPattern | None = _field(
        None, "regular expression on the path; its first capture is the group", group="Data"
    )
    task: Literal["classification", "keypoints"] = _field(
        "classification", "what is learned [keypoints where the data has points]", group="Data"
    )
    annotations: str | None = _field(
        None,
        "keypoints: a folder of JSON or .pts files, one JSON for all, or a CSV; faces.zip/labels is in an archive",
        group="Data",
    )
    points_key: str | None = _field(
        None, "keypoints: where a JSON holds the list of points, e.g. face.points [guessed]", group="Data"
    )
    name_pattern: NamePattern | None = _field(
        None, "regex on the file name; its named groups become columns (for --label), (?P<person>…) the group",
        group="Data",
    )  # fmt: skip
    flip_pairs: str | None = _field(
        None, "keypoints: CSV or JSON of left,right point numbers that change places in a mirror; x1, y1 is point 0 "
        "[inferred]",
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
    nme_points: PointPair = _field(
        (), "two point numbers whose distance errors are divided by, e.g. 36,45; x1, y1 is point 0", group="Data"
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
    augment: Literal["none", "light", "standard", "strong"] = _field(
        "standard", "preset; of a head on cached features only with --views", group="Augmentation"
    )
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
    brightness: Factors | None = _field(None, "factor 1 ± this, or from a to b: 0.7,1.3", group="Augmentation")
    contrast: Factors | None = _field(None, "factor 1 ± this, or from a to b: 0.7,1.3", group="Augmentation")
    saturation: Factors | None = _field(None, "factor 1 ± this, or from a to b: 0.7,2", group="Augmentation")
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = _field(
        None, "at most ± this share of a turn", group="Augmentation"
    )
    noise: Annotated[float, Field(ge=0, le=0.5)] | None = _field(
        None, "largest standard deviation of Gaussian noise (1 = full range)", group="Augmentation"
    )
    cutmix: Probability = _field(
        0.0, "share of the batches in which a box of each photo comes from another, its label with it",
        group="Augmentation",
    )  # fmt: skip
    cutmix_alpha: Positive | None = _field(
        None, "of the Beta that the box's area is drawn from [1]", group="Augmentation"
    )
    mixup: Probability = _field(
        0.0, "share of the batches in which each photo is blended with another, and its label", group="Augmentation"
    )
    mixup_alpha: Positive | None = _field(None, "of the Beta that the blend is drawn from [0.2]", group="Augmentation")
    mix_per: Literal["batch", "sample"] = _field("batch", "what CutMix and MixUp are drawn for", group="Augmentation")
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
    from_sha256: str | None = _field(
        None, "written by headstart: SHA-256 of the weights that from_run had; others are refused", group="Model"
    )
    head: Literal["linear", "coordinates", "simcc", "integral"] = _field(
        "linear", "what turns features into answers; the last three give keypoints", group="Model"
    )
    pooling: Literal["own", "average", "max", "both", "flatten"] = _field(
        "own", "features of a photo from the map of features; own: as the backbone does it", group="Model"
    )
    head_hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(comma_separated)] = _field(
        (), "units of hidden layers before the last one, e.g. 2048,2048", group="Model"
    )
    head_norm: bool = _field(False, "batch norm on the features, before the head's layers", group="Model")
    dropout: Fraction = _field(0.0, "dropout before the last layer, and after each hidden one", group="Model")
    unfreeze: Blocks = _field(
        "all",
        "what is fine-tuned: none, all, the last N blocks, or a regular expression on the parameters' names",
        group="Model",
    )
    unfreeze_later: Stages = _field(
        (), "what is fine-tuned instead from an epoch on, e.g. 3=4,6=all (from the third epoch the last 4 blocks)",
        group="Model",
    )  # fmt: skip
    batch_norm: Literal["auto", "frozen", "trained"] = _field(
        "auto", "batch norm statistics in fine-tuning; auto: frozen if pretrained", group="Model"
    )
    # --- training
    probe_epochs: Annotated[int, Field(ge=0)] = _field(
        PROBE_EPOCHS, "epochs of the head on cached features, before the rest; 0: none", group="Training"
    )
    epochs: Annotated[int, Field(ge=0)] = _field(
        FINE_TUNING["epochs"],
        "epochs of fine-tuning after the probe; under a budget at most 24; --unfreeze none: 60, of the head",
        group="Training",
    )
    epochs_before: tuple[Annotated[int, Field(ge=0)], ...] = _field(
        (), "written by headstart: epochs that a run was first trained for, before --resume extended it",
        group="Training",
    )  # fmt: skip
    batch_size: Annotated[int, Field(ge=1)] = _field(
        FINE_TUNING["batch_size"], "samples a step; --unfreeze none: 128", group="Training"
    )
    drop_last: bool = _field(False, "leave out a last batch that is not full", group="Training")
    accumulate: Annotated[int, Field(ge=1)] = _field(
        1,
        "batches whose gradients make one step: as if batches were so many times larger (what is weighed by class, or "
        "lacks labels, is averaged within each)",
        group="Training",
    )
    optimizer: str = _field(
        "adamw", "any of timm's: adamw, adam, sgd, nesterov, rmsprop, madgrad, lion, lamb, ...", group="Training"
    )
    momentum: Fraction = _field(0.9, "of sgd, nesterov, rmsprop, madgrad and their kin", group="Training")
    lr: Positive = _field(
        3e-4,
        "highest learning rate of fine-tuning; sgd: 0.001, lion and madgrad: 1e-4, rmsprop: 3e-5; --unfreeze none: "
        "3e-3, sgd: 0.1, lion: 3e-4",
        group="Training",
    )
    views: Annotated[int, Field(ge=0)] = _field(
        0,
        "augmented views of each training photo that are cached where the backbone is frozen; 0: as it is",
        group="Training",
    )
    cache_gb: Annotated[float, Field(ge=0)] = _field(
        4.0, "room for the output of frozen blocks, which then run once a photo (or view)", group="Training"
    )
    probe_lr: Positive = _field(3e-3, "highest learning rate of the probe", group="Training")
    weight_decay: Annotated[float, Field(ge=0)] = _field(
        0.02, "not on biases and norms; adam, sgd and others in which it is not decoupled: 0", group="Training"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = _field(
        None, "learning rate of each block as a share of the next one's", group="Training"
    )
    clip_grad: Positive | None = _field(None, "largest norm of the gradients", group="Training")
    schedule: Literal[
        "cosine", "constant", "step", "multi_step", "exponential", "polynomial", "one_cycle", "triangular",
        "triangular2", "exp_range", "plateau",
    ] = _field("cosine", "how the learning rate changes (headstart schedule draws it)", group="Training")  # fmt: skip
    warmup_epochs: Annotated[float, Field(ge=0)] = _field(
        1.0, "epochs of linear warmup before the schedule; not before one_cycle and triangular", group="Training"
    )
    min_lr: Annotated[float, Field(ge=0)] = _field(
        0.0, "least rate of cosine, polynomial, plateau and the triangular ones", group="Training"
    )
    step_epochs: Annotated[int, Field(ge=1)] | None = _field(None, "step: epochs between drops [3]", group="Training")
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(comma_separated)] = _field(
        (), "multi_step: epochs after which the rate drops, e.g. 30,60", group="Training"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] | None = _field(
        None, "factor of each drop [0.1]; an epoch's factor for exponential and exp_range [0.9]", group="Training"
    )
    cycle_epochs: Positive | None = _field(
        None, "cosine: restart after so many epochs; triangular: epochs up and down [half of all]", group="Training"
    )
    cycle_growth: Annotated[float, Field(ge=1)] | None = _field(
        None, "cosine: each cycle is so many times as long as the one before [1]", group="Training"
    )
    power: Positive | None = _field(None, "polynomial: its exponent [1]", group="Training")
    plateau_epochs: Annotated[int, Field(ge=1)] | None = _field(
        None, "plateau: epochs without a better score before a drop [2]", group="Training"
    )
    label_smoothing: Fraction = _field(
        0.1,
        "share of the target spread over all classes; 0 with other losses than cross_entropy, and with class_weights",
        group="Training",
    )
    class_weights: str | None = _field(
        None, "balanced, effective (number of samples), or a CSV of label,weight", group="Training"
    )
    focal_gamma: Annotated[float, Field(ge=0)] | None = _field(
        None, "focal: how much less counts what is told well already [2]", group="Training"
    )
    focal_alpha: Probability | None = _field(
        None,
        "focal: weight of the second of two classes (of several at once: of a yes); the other has the rest",
        group="Training",
    )
    label_weights: Text | None = _field(
        None, "weight of each head's loss where --label names several, e.g. mask=1,age=2 [1 each]", group="Training"
    )
    ema_decay: Fraction = _field(EMA_DECAY, "decay of the weights' moving average; 0 turns it off", group="Training")
    loss: Literal[
        "cross_entropy", "focal", "soft_f1", "bce", "mse", "l1", "smooth_l1", "wing", "soft_wing", "simcc"
    ] = _field(
        "cross_entropy",
        "what training minimises; from mse on for keypoints (coordinates: wing, simcc: simcc); --multi-label: bce",
        group="Training",
    )
    targets: Literal["normalised", "pixels"] = _field(
        "normalised",
        "keypoints: what the loss measures in: shares of the model's frame, or its pixels",
        group="Training",
    )
    budget: Budget | None = _field(
        None,
        "time for the whole run, e.g. 90s, 10m, 1.5h: chooses epochs, blocks and size that fit, within what is asked",
        group="Training",
    )
    patience: Annotated[int, Field(ge=1)] = _field(
        FINE_TUNING["patience"],
        "epochs without a better score before stopping; --unfreeze none: all there are",
        group="Training",
    )
    monitor: Monitor = _field(
        "accuracy",
        "validation score that picks the best epoch; of several heads the mean; --multi-label: mean_average_precision",
        group="Training",
    )
    stop_by: Monitor | None = _field(None, "validation score that patience goes by [the monitor]", group="Training")
    checkpoint_seconds: Positive = _field(60.0, "a checkpoint at least this often", group="Training")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = _field(
        0, "seed of split, order, augmentation and head", group="Training"
    )
    # --- machine
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda)$")] = _field(
        "auto", "auto (a CUDA GPU, else the CPU), cpu, cuda or mps", group="Machine"
    )
    num_devices: Annotated[int, Field(ge=1)] = _field(1, "devices to train on", group="Machine")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = _field(
        "auto", "auto: fp32 on a CPU, bf16 on a capable GPU", group="Machine"
    )
    compile: Literal["off", "auto", "on"] = _field(
        "off", "torch.compile in fine-tuning; auto: where a probe on the first batch says that it pays", group="Machine"
    )
    num_threads: Annotated[int, Field(ge=1)] | None = _field(None, "CPU threads [all]", group="Machine")

    @model_validator(mode="before")
    @classmethod
    def _fill_what_follows(cls, values: Any) -> Any:
        """Give what is not set the default that follows from the rest: a recipe always says what will be done."""
        return {**values, **following_defaults(values)} if isinstance(values, Mapping) else values

    @field_validator("label", "label_bins", "label_weights")
    @classmethod
    def _labels_can_be_read(cls, text: str | None, info: ValidationInfo) -> str | None:
        PARSERS[str(info.field_name)](text or "")
        return text

    @model_validator(mode="after")
    def _settings_fit_the_task(self) -> Self:
        problems = list(recipe_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def trains_at(self, epoch: int) -> str:
        """Give what is fine-tuned in an epoch, counted from 0: ``unfreeze``, or what ``unfreeze_later`` says.

        Examples:
            >>> recipe = Recipe(unfreeze="2", unfreeze_later="3=4,6=all")
            >>> [recipe.trains_at(epoch) for epoch in range(6)]
            ['2', '2', '4', '4', '4', 'all']
        """
        return ([self.unfreeze] + [what for first, what in self.later_stages if first <= epoch + 1])[-1]

    @property
    def trains_only_head(self) -> bool:
        """Whether nothing of the backbone is ever fine-tuned."""
        return self.unfreeze == "none" and not self.unfreeze_later

    @property
    def later_stages(self) -> tuple[tuple[int, str], ...]:
        """The epochs, counted from 1, from which on something else is fine-tuned, and what, in order."""
        stages = (stage.partition("=") for stage in self.unfreeze_later)
        return tuple(sorted((int(epoch), what) for epoch, _, what in stages))

    @property
    def stages(self) -> tuple[str, ...]:
        """What is fine-tuned at one time or another, in order."""
        return (self.unfreeze, *(what for _, what in self.later_stages))

    @model_validator(mode="after")
    def _fold_is_one_of_the_folds(self) -> Self:
        if self.fold is not None and self.fold > (self.folds or 0):
            raise ValueError(f"fold must be at most folds, the number of parts; got {self.fold} of {self.folds}")
        return self

    @property
    def num_runs(self) -> int:
        """How many runs it makes: one for each fold, else one."""
        return self.folds if self.folds is not None and self.fold is None else 1

    @property
    def labels(self) -> LabelSettings:
        """Which columns hold the labels, and in which form they are learned."""
        return label_settings(self)

    @property
    def nme_pair(self) -> tuple[int, int] | None:
        """The two points whose distance errors are divided by; None where none are named."""
        return (self.nme_points[0], self.nme_points[1]) if self.nme_points else None

    def updated(self, **settings: Any) -> Recipe:
        """Give a copy with some settings changed, checked like any other recipe."""
        return make_recipe(without_consequences(self.model_dump(), settings) | settings)

    def with_absolute_paths(self) -> Recipe:
        """Give a copy whose files and folders are named from the root, so that it holds in any working folder.

        Examples:
            >>> Path(Recipe(data="photos").with_absolute_paths().data).is_absolute()
            True
        """
        files = ("data", "annotations", "flip_pairs", "from_run", "image_root", "split", "store_dir")
        names = [name for name in files if getattr(self, name) is not None]
        names += ["weights"] if self.weights not in ("auto", "none") else []
        names += ["class_weights"] if self.class_weights not in (None, *COMPUTED_WEIGHTS) else []
        return self.model_copy(update={name: str(Path(getattr(self, name)).expanduser().absolute()) for name in names})

    def save(self, path: Path) -> None:
        """Write the recipe as TOML, with settings that are unset left out."""
        values = {name: value for name, value in self.model_dump(mode="json").items() if value is not None}
        with written_aside(path) as aside:
            aside.write_text(tomli_w.dumps(values), encoding="utf-8")


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
        own = word_problems(settings, error, recipe=Recipe, place=place, flags=flags)
        raise RecipeError(all_at_once([*problems, *own])) from None
    if problems:
        raise RecipeError(all_at_once(problems))
    return recipe


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
