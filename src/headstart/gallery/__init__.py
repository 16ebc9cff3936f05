"""The gallery: experiments that teams really ran, as recipes, and three of our own.

``headstart recipes`` lists them; ``headstart train … --recipe scenes/cutmix`` uses one, and flags are laid over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.errors import RecipeError, did_you_mean, must_be

FOLDER = Path(__file__).parent


def gallery() -> dict[str, str]:
    """Give each recipe's name and the line that says what it teaches.

    Examples:
        >>> gallery()["scenes/adam"]
        'As scenes/sgd, with Adam: faster at first, and a rate ten times smaller.'
    """
    files = sorted(FOLDER.rglob("*.toml"), key=lambda file: (file.parent != FOLDER, file))
    return {name_of(file): file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for file in files}


def name_of(file: Path) -> str:
    """Give the name of a recipe of the gallery."""
    return file.relative_to(FOLDER).with_suffix("").as_posix()


def find_recipe(name: Path) -> Path:
    """Give the file of a recipe: the one of this name, else the gallery's.

    Raises:
        RecipeError: There is neither.

    Examples:
        >>> find_recipe(Path("scenes/adam")).name
        'adam.toml'
    """
    file = FOLDER / name.with_name(f"{name.name}.toml")
    if name.exists() or name.is_absolute() or not file.exists():
        if name.exists():
            return name
        remedy = did_you_mean(name.as_posix(), list(gallery())) or "headstart recipes lists those that come with it."
        raise RecipeError(must_be("--recipe", "a recipe file, or the name of a recipe", str(name), remedy))
    return file


def describe_gallery(wanted: str = "") -> Sequence[str]:
    """Give the lines of ``headstart recipes``: every recipe whose name begins so, with what it teaches.

    Raises:
        RecipeError: No recipe's name begins so.
    """
    found = {name: line for name, line in gallery().items() if name.startswith(wanted)}
    if not found:
        names = list(gallery())
        groups = sorted({name.partition("/")[0] for name in names})
        raise RecipeError(must_be("NAME", "the beginning of a recipe's name", wanted, did_you_mean(wanted, groups)))
    width = max(map(len, found))
    return [f"{name:{width}}  {line}" for name, line in found.items()]
