"""What a user reads when a command could not be carried out: one message in the house's form, never a traceback."""

from __future__ import annotations

import errno
from inspect import Parameter as Signature

from cyclopts import (
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnusedCliTokensError,
)

from headstart.errors import HeadstartError, must_be

_NO_SPACE = "No space left on device"


def word_failure(error: Exception) -> str:
    """Say in a sentence or two what went wrong and what to do.

    Args:
        error: Whatever a command raised.

    Examples:
        >>> word_failure(PermissionError(13, "Permission denied", "runs"))
        "runs must be a place that can be read and written; got 'Permission denied'. Name another one, or change it."
    """
    if isinstance(error, HeadstartError):
        return str(error)
    if isinstance(error, CycloptsError):
        return _word_usage(error)
    if getattr(error, "errno", None) == errno.ENOSPC or _NO_SPACE in str(error):
        remedy = "Free some space, or name a place on another disk (--out, --store-dir). What is done stays done."
        return must_be("the disk", "large enough for what is written", _NO_SPACE, remedy)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        remedy = "Try a smaller --batch-size or --image-size."
        return must_be("memory", "large enough", str(error).split(". ")[0] or "out of memory", remedy)
    if isinstance(error, FileNotFoundError):
        return must_be(str(error.filename), "a place that exists", error.strerror, "Check the path.")
    if isinstance(error, OSError):
        place, remedy = str(error.filename2 or error.filename or "a file"), "Name another one, or change it."
        return must_be(place, "a place that can be read and written", error.strerror or str(error), remedy)
    return (
        f"headstart itself failed: {type(error).__name__}: {error}\n"
        "The mistake is in it, not in what you typed. Please report it, with what the same command prints with --debug."
    )


def _word_usage(error: CycloptsError) -> str:
    command = " ".join(["headstart", *(error.command_chain or ())])
    return f"{_usage_problem(error, command)} See {command} --help."


def _usage_problem(error: CycloptsError, command: str) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _word_missing(error.argument, error.keyword, command)
    if isinstance(error, CoercionError) and error.target_type is int and error.token is not None:
        return must_be(error.token.keyword or "the number", "a whole number", error.token.value)
    if isinstance(error, UnusedCliTokensError):
        remedy = "Put a name with spaces into quotes."
        return must_be(command, "given no more than it takes", " ".join(error.unused_tokens or ()), remedy)
    if isinstance(error, RepeatArgumentError):
        return must_be(error.token.keyword or command, "given once", error.token.value, "It was given before.")
    return str(error)


def _word_missing(argument: Argument, keyword: str | None, command: str) -> str:
    """Tell a value that is missing after a flag from a flag that nobody knows and an argument left out."""
    kind, meaning = argument.field_info.kind, argument.parameter.help
    if kind is Signature.VAR_KEYWORD:
        return f"{keyword} must be a flag of {command}; got no value for it either."
    if keyword:
        return f"{keyword} must be followed by a value ({meaning}); got none."
    name = argument.name if kind is Signature.KEYWORD_ONLY else argument.name.lstrip("-").upper()
    return f"{command} must be given {name} ({meaning}); got none."
