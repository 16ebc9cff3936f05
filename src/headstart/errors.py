"""The exception types users meet, and the functions that word their messages.

Every message has the same shape: *place* must be *expected*; got *value*. *What to do.*
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadstartError(ValueError):
    """Something the user can mend: bad data, a bad setting, a missing file. Base of all others."""


class RecipeError(HeadstartError):
    """A setting that is unknown or out of bounds."""


class SourceError(HeadstartError):
    """The data given cannot be read as a set of labelled images."""


class StoreError(HeadstartError):
    """The pixel store is damaged or does not belong to this data."""


class SplitError(HeadstartError):
    """The samples cannot be split as asked."""


class WeightsError(HeadstartError):
    """Pretrained weights cannot be had or do not fit the network."""


class BundleError(HeadstartError):
    """A bundle cannot be written or loaded."""


class RunError(HeadstartError):
    """A run folder cannot be made, opened or worked on."""


class TrainingError(HeadstartError):
    """Training cannot start, go on or resume."""


def must_be(place: str, expected: str, got: object, remedy: str = "") -> str:
    """Word one problem in the house's form.

    Args:
        place: Where it is: a setting's name, or a file with row and column.
        expected: What would have been right.
        got: What was found; shown with ``repr``.
        remedy: What the user can do, a whole sentence.

    Returns:
        The message.

    Examples:
        >>> must_be("train.lr", "greater than 0", -1, "Try 1e-4.")
        'train.lr must be greater than 0; got -1. Try 1e-4.'
    """
    message = f"{place} must be {expected}; got {got!r}."
    return f"{message} {remedy}" if remedy else message


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Give "Did you mean 'x'?" where an option is near the name, else an empty string.

    Examples:
        >>> did_you_mean("cosin", ["constant", "cosine"])
        "Did you mean 'cosine'?"
        >>> did_you_mean("zzz", ["constant", "cosine"])
        ''
    """
    near = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""


def all_at_once(problems: Iterable[str]) -> str:
    """Join several problems into one message: one as it is, more as a numbered list.

    Examples:
        >>> print(all_at_once(["a is wrong.", "b is wrong."]))
        2 problems:
          1. a is wrong.
          2. b is wrong.
    """
    listed = list(problems)
    if len(listed) == 1:
        return listed[0]
    lines = [f"  {number}. {problem}" for number, problem in enumerate(listed, 1)]
    return "\n".join([f"{len(listed)} problems:", *lines])
