"""Flags made from the recipe: one definition gives the flag, its group, its help and its default."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter

from headstart.errors import did_you_mean, must_be
from headstart.gallery import find_recipe
from headstart.recipe import Recipe, make_recipe, read_recipe
from headstart.recipe_defaults import KEYPOINT_DEFAULTS
from headstart.recipe_values import group_of
from headstart.recipe_wording import flag_name
from headstart.resolution import completed


def with_recipe_flags(
    command: Callable[..., Any], *, groups: Sequence[str], leave_out: Sequence[str] = (), also: Sequence[str] = ()
) -> Callable[..., Any]:
    """Give the command every setting of some groups of the recipe as a flag.

    Values arrive in the command's ``**settings`` as text and are checked by the recipe, all at once; unknown flags
    arrive there too, so that they are named in the same message.

    Args:
        command: Has its own parameters and ``**settings``.
        groups: Groups of the recipe, in the order of the help.
        leave_out: Settings without a flag here.
        also: Settings of other groups with a flag, under the last of these groups.
    """
    own = [
        value
        for value in inspect.signature(command, eval_str=True).parameters.values()
        if value.kind is not value.VAR_KEYWORD
    ]
    fields: dict[str, Any] = dict(Recipe.model_fields)
    flags = [
        _flag(name, field, Group(group, sort_key=number))
        for number, group in enumerate(groups, 1)
        for name, field in fields.items()
        if (group_of(field) == group or (name in also and group == groups[-1])) and name not in (*leave_out, "data")
    ]
    rest = inspect.Parameter(
        "settings", inspect.Parameter.VAR_KEYWORD, annotation=Annotated[str, Parameter(show=False)]
    )
    command.__signature__ = inspect.Signature([*own, *flags, rest])  # type: ignore[attr-defined]
    command.__annotations__ = {value.name: value.annotation for value in [*own, *flags, rest]}
    return command


def recipe_from_flags(
    settings: Mapping[str, Any],
    *,
    command: Callable[..., Any],
    recipe_file: Path | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Recipe:
    """Resolve flags over a recipe file over the defaults.

    Args:
        settings: Flags by name, and what they were given; None where they were not.
        command: Whose flags they are; what it does not take is refused.
        recipe_file: Settings that the flags are laid over.
        fixed: Settings that the command itself decides.

    Raises:
        RecipeError: One message with every unknown flag, unknown key and bad value.
    """
    known = [name for name in inspect.signature(command).parameters if name != "settings"]
    given = {name.replace("-", "_"): value for name, value in settings.items() if value is not None}
    problems = [
        must_be(f"--{name.replace('_', '-')}", "a flag of this command", value, _near_flag(name, known))
        for name, value in given.items()
        if name not in known
    ]
    flags = {name: value for name, value in given.items() if name in known}
    base = read_recipe(find_recipe(recipe_file)) if recipe_file else {}
    resolved = completed({**(fixed or {}), **flags}, base)
    return make_recipe(resolved, flags=flags, problems=problems)


def _near_flag(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known).replace("_", "-").replace("'", "'--", 1)


def _flag(name: str, field: Any, group: Group) -> inspect.Parameter:
    is_switch = isinstance(field.default, bool)
    parameter = Parameter(name=flag_name(name), help=_help(name, field), group=group, show_default=False, negative="")
    annotation = Annotated[bool | None if is_switch else str | None, parameter]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(name: str, field: Any) -> str:
    """Say what the setting does, what it may be, and its default."""
    choices = [choice for part in (field.annotation, *get_args(field.annotation)) for choice in _choices(part)]
    facts = [" | ".join(choices)] if choices else []
    if field.default is not None and not isinstance(field.default, bool) and field.default != ():
        facts.append(f"default {field.default:,}" if isinstance(field.default, int) else f"default {field.default}")
    if name in KEYPOINT_DEFAULTS:
        facts.append(f"keypoints: {KEYPOINT_DEFAULTS[name]}")
    return f"{field.description} ({'; '.join(facts)})" if facts else field.description


def _choices(annotation: Any) -> list[str]:
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []
