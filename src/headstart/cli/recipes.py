"""``headstart recipes``: the recipes that come with headstart, and what each teaches."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def recipes(
    name: Annotated[str, Parameter(help="show those whose names begin so; the whole name shows the file")] = "",
) -> None:
    """List the recipes, or show one."""
    from pathlib import Path

    from headstart.gallery import describe_gallery, find_recipe, gallery
    from headstart.progress import say

    for line in find_recipe(Path(name)).read_text(encoding="utf-8").splitlines() if name in gallery() else ():
        say(line)
    if name not in gallery():
        for line in describe_gallery(name):
            say(line)
