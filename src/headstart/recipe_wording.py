"""Wording of what is wrong with a recipe's settings, each named as it was given: as a flag or in its file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from headstart.errors import did_you_mean, must_be


def flag_name(name: str) -> str:
    """Give a setting's flag.

    Examples:
        >>> flag_name("image_size"), flag_name("from_run")
        ('--image-size', '--from')
    """
    return "--from" if name == "from_run" else f"--{name.replace('_', '-')}"


def word_problems(
    settings: Mapping[str, Any],
    error: ValidationError,
    *,
    recipe: type[BaseModel],
    place: str,
    flags: Collection[str],
) -> list[str]:
    """Word what is wrong: each setting by itself, then those that do not go together; named as they were given.

    Args:
        settings: What was given.
        error: What pydantic said of it.
        recipe: The type that refused it.
        place: Where the settings come from, for the message.
        flags: Settings that came as flags; the message names them so.

    Returns:
        A line each.
    """

    def where(name: str) -> str:
        return flag_name(name) if name in flags else f"{place}.{name}"

    messages: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            continue
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            message = must_be(where(name), "a known setting", problem["input"], did_you_mean(name, recipe.model_fields))
        else:
            message = must_be(where(name), _expected(problem), problem["input"], _near_choice(problem))
        messages.setdefault(name, message)
    for misfit in _misfits(settings, error, recipe):
        name, _, rest = misfit.partition(" ")
        messages[misfit] = f"{where(name) if name in recipe.model_fields else name} {rest}."
    return list(messages.values())


def _misfits(settings: Mapping[str, Any], error: ValidationError, recipe: type[BaseModel]) -> list[str]:
    """Give what does not go together, a line each that begins with a setting's name; also beside what is wrong alone.

    Of settings that are wrong by themselves nothing more is said.
    """
    wrong = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
    if wrong:
        try:
            recipe(**{name: value for name, value in settings.items() if name not in wrong})
        except ValidationError as rest:
            error = rest
    texts = [problem["msg"].removeprefix("Value error, ") for problem in error.errors() if not problem["loc"]]
    lines = [line for text in texts for line in text.splitlines() if "task" not in wrong]
    return [line for line in lines if not wrong & set(re.findall(r"\w+", line))]


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
