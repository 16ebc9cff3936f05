"""``headstart ensemble``: several models answer as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def ensemble(
    runs: Annotated[list[Path], Parameter(help="run folders, bundles or ensembles, two or more", negative="")],
    *,
    out: Annotated[Path, Parameter(help="the ensemble's folder, new or empty")],
    weights: Annotated[
        Literal["equal", "fitted"],
        Parameter(help="equal votes, or fitted on validation photos that no member trained on"),
    ] = "equal",
    device: Annotated[str, Parameter(help="auto, cpu, cuda or mps")] = "auto",
    num_threads: Annotated[int | None, Parameter(help="CPU threads [all]")] = None,
) -> None:
    """Let several trained models with the same classes, in any order, answer as one.

    It is scored on the photos that none of them has learned from, and predicts like a single run.
    """
    from headstart import pipeline

    pipeline.ensemble(*runs, out=out, weights=weights, device=device, num_threads=num_threads)
