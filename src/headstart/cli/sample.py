"""``headstart sample``: write a bundled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def sample(
    name: Annotated[Literal["digits"], Parameter(help="which data set")],
    directory: Annotated[Path, Parameter(help="a new folder")],
    /,
) -> None:
    """Write a bundled data set: real handwritten digits (from scikit-learn) as class folders of PNG."""
    from headstart.progress import say
    from headstart.samples import write_digits

    say(f"{name}: {write_digits(directory):,} pictures in {directory}")
