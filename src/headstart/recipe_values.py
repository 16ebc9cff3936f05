"""What a setting's value may be and how text becomes it: the types of the recipe's fields."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from headstart.data.label_settings import as_text

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


def comma_separated(value: object) -> object:
    """Read ``"280,210"`` or ``"a,b"`` (a flag) as a list; leave lists (TOML, Python) alone."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _size(value: object) -> object:
    """Read one number as a square: ``224`` → (224, 224)."""
    value = [value] if isinstance(value, int) else comma_separated(value)
    if not isinstance(value, list | tuple) or len(value) not in (1, 2):
        raise ValueError("one number, or height and width")
    return [*value, *value][:2]


def _factors(value: object) -> object:
    """Read ``0.2`` as 1 ± 0.2, and ``"0.7,2"`` as the factors from 0.7 to 2."""
    value = comma_separated(value)
    if not isinstance(value, list | tuple):
        return value
    try:
        numbers = [float(part) for part in value]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 2 and 0 <= numbers[0] <= numbers[1]:
        return tuple(numbers)
    if len(numbers) != 1:
        raise ValueError("one number below 1 for factors 1 ± it, or the least and the largest factor, e.g. 0.7,2")
    return numbers[0]


def read_budget(text: str) -> float:
    """Read a time: seconds, or a number with s, m or h.

    Raises:
        ValueError: It is none, or not above 0.

    Examples:
        >>> read_budget("10m"), read_budget("1.5h"), read_budget("90")
        (600.0, 5400.0, 90.0)
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    seconds = float(text[:-1]) * unit if unit else float(text)
    if not seconds > 0:
        raise ValueError
    return seconds


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"a regular expression; {error}") from None


def _names_columns(pattern: str) -> str:
    if not _compiled(pattern).groupindex:
        raise ValueError("a regular expression with named groups, e.g. '(?P<person>\\d+)_'")
    return pattern


def _has_a_capture(pattern: str) -> str:
    if not _compiled(pattern).groups:
        raise ValueError("a regular expression with a capture in parentheses, e.g. '(person\\d+)_'")
    return pattern


def _says_what_trains(what: str) -> str:
    _compiled(what)
    return what


def _are_stages(stages: tuple[str, ...]) -> tuple[str, ...]:
    for stage in stages:
        epoch, _, what = stage.partition("=")
        if not (epoch.isdecimal() and int(epoch) > 1 and what):
            raise ValueError("stages EPOCH=WHAT, with epochs from 2 on, e.g. 3=4,6=all")
        _compiled(what)
    return stages


def _are_two(points: tuple[int, ...]) -> tuple[int, ...]:
    if points and (len(points) != 2 or points[0] == points[1] or min(points) < 0):
        raise ValueError("two different point numbers from 0, e.g. 36,45")
    return points


def _is_time(text: str) -> str:
    try:
        read_budget(text)
    except ValueError:
        raise ValueError("a time above 0 in seconds, minutes or hours, e.g. 90s, 10m, 1.5h") from None
    return text


ImageSize = Annotated[
    tuple[Annotated[int, Field(ge=16, le=4096)], Annotated[int, Field(ge=16, le=4096)]], BeforeValidator(_size)
]
Factors = Annotated[Annotated[float, Field(ge=0, le=1)] | tuple[float, float], BeforeValidator(_factors)]
Fit = Literal["crop", "letterbox", "stretch"]
Names = Annotated[tuple[str, ...], BeforeValidator(comma_separated)]
Text = Annotated[str, BeforeValidator(as_text)]
Monitor = Literal[
    "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "exact", "mean_average_precision", "micro_f1", "nme"
]
NamePattern = Annotated[str, AfterValidator(_names_columns)]
GroupPattern = Annotated[str, AfterValidator(_has_a_capture)]
Blocks = Annotated[str, BeforeValidator(str), AfterValidator(_says_what_trains)]
Stages = Annotated[Names, AfterValidator(_are_stages)]
PointPair = Annotated[tuple[int, ...], BeforeValidator(comma_separated), AfterValidator(_are_two)]
Budget = Annotated[str, AfterValidator(_is_time)]


def group_of(field: Any) -> str:
    """Give the group of settings that a field of ``Recipe`` belongs to."""
    return field.json_schema_extra["group"]
