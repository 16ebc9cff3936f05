"""What a recipe says of labels: which columns, learned in which form, with which bins and weights.

``--label a`` is one label; ``--label a,b`` gives each column a head of its own; ``--label a+b`` learns their
combinations as classes; ``--multi-label a`` reads several labels from one cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from headstart.errors import RecipeError, must_be
from headstart.recipe_defaults import LABEL_SETTINGS

if TYPE_CHECKING:
    from headstart.recipe import Recipe

Form = Literal["single", "heads", "joint", "multi"]

MULTI_MONITORS: Final = ("mean_average_precision", "micro_f1")
"""Scores that only several labels in one cell have."""

MULTI_LOSSES: Final = ("bce", "focal", "soft_f1")
"""Losses of several labels in one cell."""

_NO_MULTI: Final = ("accuracy", "balanced_accuracy")
_NEEDS_NAMES: Final = "--label NAME"


@dataclass(frozen=True)
class LabelSettings:
    """What a recipe says of labels.

    Attributes:
        form: ``single``; ``heads``: one head a column; ``joint``: combinations as classes; ``multi``: several in one
            cell.
        names: The columns; none where the one column is to be guessed.
        flag: The flag that named them.
        bins: Edges for each column whose numbers are made classes.
        weights: Weight of each head's loss; 1 where none is named.
        separator: What stands between the labels of a cell; None: guessed.
    """

    form: Form
    names: tuple[str, ...] = ()
    flag: str = "--label"
    bins: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    separator: str | None = None

    def weight(self, name: str) -> float:
        """Give the weight of a column's loss."""
        return self.weights.get(name, 1.0)


def label_settings(recipe: Recipe) -> LabelSettings:
    """Give what a recipe says of labels.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> found = label_settings(Recipe(label="mask,age", label_bins="age=30,60"))
        >>> found.form, found.names, found.bins
        ('heads', ('mask', 'age'), {'age': (30.0, 60.0)})
    """
    bins, weights = parse_bins(recipe.label_bins or ""), parse_weights(recipe.label_weights or "")
    if recipe.multi_label is not None:
        return LabelSettings("multi", (recipe.multi_label,), "--multi-label", separator=recipe.label_separator)
    if recipe.label_column is not None:
        return LabelSettings("single", (recipe.label_column,), "--label-column", bins)
    form, names = parse_label(recipe.label or "")
    return LabelSettings(form, names, bins=bins, weights=weights)


def parse_label(text: str) -> tuple[Form, tuple[str, ...]]:
    """Read what ``--label`` says.

    Examples:
        >>> parse_label("mask"), parse_label("mask,age"), parse_label("mask + age")
        (('single', ('mask',)), ('heads', ('mask', 'age')), ('joint', ('mask', 'age')))

    Raises:
        ValueError: Commas stand beside pluses, a name is empty, or one stands there twice.
    """
    if not text.strip():
        return "single", ()
    if "," in text and "+" in text:
        raise ValueError("columns joined by commas (a head each) or by + (their combinations), not by both")
    sign, form = (",", "heads") if "," in text else ("+", "joint")
    names = tuple(name.strip() for name in text.split(sign))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("column names, each once, e.g. mask,gender")
    return ("single" if len(names) == 1 else form), names  # pyright: ignore[reportReturnType]


def parse_bins(text: str) -> dict[str, tuple[float, ...]]:
    """Read the edges of columns whose numbers are made classes.

    Examples:
        >>> parse_bins("age=30,60; height=150")
        {'age': (30.0, 60.0), 'height': (150.0,)}

    Raises:
        ValueError: It has another form, or edges do not rise.
    """
    found = {name: tuple(_number(part) for part in parts) for name, parts in _by_name(text, "age=30,60").items()}
    for edges in found.values():
        if not edges or any(low >= high for low, high in pairwise(edges)):
            raise ValueError("rising edges for each column, e.g. age=30,60")
    return found


def parse_weights(text: str) -> dict[str, float]:
    """Read the weights of columns.

    Examples:
        >>> parse_weights("mask=1,age=2")
        {'mask': 1.0, 'age': 2.0}

    Raises:
        ValueError: It has another form, or a weight is negative.
    """
    found: dict[str, float] = {}
    for name, parts in _by_name(text, "mask=1,age=2").items():
        if len(parts) != 1 or _number(parts[0]) < 0:
            raise ValueError("one weight, 0 or more, for each column, e.g. mask=1,age=2")
        found[name] = _number(parts[0])
    return found


PARSERS: Final = {"label": parse_label, "label_bins": parse_bins, "label_weights": parse_weights}
"""What reads each setting that has a form of its own."""


def as_text(value: object) -> object:
    """Give a mapping or a list (from Python, from TOML) in the form of the flag; leave text alone.

    Examples:
        >>> as_text({"mask": 1, "age": [30, 60]}), as_text(["mask", "age"]), as_text("mask")
        ('mask=1;age=30,60', 'mask,age', 'mask')
    """
    if isinstance(value, Mapping):
        return ";".join(f"{name}={as_text(one)}" for name, one in value.items())
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value if value is None else str(value)


def unfit_monitors(form: Form) -> tuple[str, ...]:
    """Give the scores that labels of this form do not have.

    Examples:
        >>> unfit_monitors("multi"), unfit_monitors("heads")
        (('accuracy', 'balanced_accuracy'), ('mean_average_precision', 'micro_f1'))
    """
    if form == "multi":
        return _NO_MULTI
    return MULTI_MONITORS if form == "heads" else (*MULTI_MONITORS, "exact")


def label_problems(recipe: Recipe) -> Iterator[str]:
    """Name settings of labels that do not go together, or say something about another task."""
    given = [name for name in LABEL_SETTINGS if getattr(recipe, name) is not None]
    if len(given) > 1:
        yield f"{given[1]} must be left out beside {given[0]}; got {getattr(recipe, given[1])!r}"
        return
    more = [name for name in ("label_bins", "label_weights", "label_separator") if getattr(recipe, name) is not None]
    if recipe.task == "keypoints":
        of_classes = [name for name in (*given, *more) if name != "label_column"]
        yield from (f"{name} must be left out for keypoints; got {getattr(recipe, name)!r}" for name in of_classes)
        return
    found = label_settings(recipe)
    if recipe.label_separator is not None and found.form != "multi":
        yield f"label_separator must be left out without multi_label; got {recipe.label_separator!r}"
    if recipe.label_weights is not None:
        yield from _weight_problems(recipe, found)
    if recipe.label_bins is not None:
        yield from _bin_problems(recipe, found)
    yield from _monitor_problems(recipe, found)
    yield from _training_problems(recipe, found)


def check_focal_alpha(recipe: Recipe, class_names: Sequence[str]) -> None:
    """Refuse a weight of the second class where there are more than two.

    Raises:
        RecipeError: It has no meaning there.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> check_focal_alpha(Recipe(loss="focal", focal_alpha=0.3), ("cat", "dog"))
    """
    if recipe.focal_alpha is None or recipe.multi_label is not None or len(class_names) == 2:
        return
    expected = f"left out for {len(class_names)} classes: it weighs the second of two"
    raise RecipeError(must_be("--focal-alpha", expected, recipe.focal_alpha, "Use --class-weights."))


def _training_problems(recipe: Recipe, found: LabelSettings) -> Iterator[str]:
    if found.form == "multi" and recipe.loss not in MULTI_LOSSES:
        yield f"loss must be {', '.join(MULTI_LOSSES[:-1])} or {MULTI_LOSSES[-1]} for multi_label; got {recipe.loss!r}"
    if found.form == "heads" and recipe.focal_alpha is not None:
        yield f"focal_alpha must be left out for several heads; got {recipe.focal_alpha:g}"


def _weight_problems(recipe: Recipe, found: LabelSettings) -> Iterator[str]:
    if found.form != "heads":
        yield f"label_weights must be left out where label does not name several heads (a,b); got {recipe.label!r}"
        return
    weights = parse_weights(recipe.label_weights or "")
    unknown = [name for name in weights if name not in found.names]
    if unknown:
        yield f"label_weights must name columns of label ({', '.join(found.names)}); got {unknown[0]!r}"
    elif not any(found.weight(name) for name in found.names):
        yield f"label_weights must leave a head with a weight above 0; got {recipe.label_weights!r}"


def _bin_problems(recipe: Recipe, found: LabelSettings) -> Iterator[str]:
    if found.form == "multi":
        yield f"label_bins must be left out beside multi_label; got {recipe.label_bins!r}"
        return
    unknown = [name for name in parse_bins(recipe.label_bins or "") if name not in found.names]
    if unknown:
        known = ", ".join(found.names) or f"none is named; say {_NEEDS_NAMES}"
        yield f"label_bins must name columns of label ({known}); got {unknown[0]!r}"


def _monitor_problems(recipe: Recipe, found: LabelSettings) -> Iterator[str]:
    what = {"multi": "multi_label", "heads": "several heads"}.get(found.form, "one label")
    for name in ("monitor", "stop_by"):
        if getattr(recipe, name) in unfit_monitors(found.form):
            yield f"{name} must be one for {what}; got {getattr(recipe, name)!r}"


def _by_name(text: str, example: str) -> dict[str, list[str]]:
    """Read ``a=1,2; b=3``: what follows each name."""
    found: dict[str, list[str]] = {}
    name = ""
    for part in filter(None, (part.strip() for part in re.split(r"[;,]", text))):
        start, sign, rest = part.rpartition("=")
        if sign:
            name, part = start.strip(), rest.strip()
            if not name or name in found:
                raise ValueError(f"names, each once, with numbers, e.g. {example}")
        if not name:
            raise ValueError(f"names with numbers, e.g. {example}")
        found.setdefault(name, []).append(part)
    return found


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"numbers after each name; {text!r} is none")
    return value
