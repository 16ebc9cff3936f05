"""``headstart demo``: the main job on a bundled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def demo(
    directory: Annotated[Path, Parameter(help="a new folder for the pictures and the run")] = Path("demo"), /
) -> None:
    """Run the main job on bundled handwritten digits; needs no network."""
    from headstart import pipeline

    pipeline.demo(directory)
