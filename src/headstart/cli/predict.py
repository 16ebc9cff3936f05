"""``headstart predict``: label photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headstart.errors import RunError, must_be


def predict(
    run: Annotated[Path, Parameter(help="a run folder or a bundle")],
    images: Annotated[list[str], Parameter(help="files, folders, globs, or tables with a path column", negative="")],
    *,
    out: Annotated[Path, Parameter(help="the CSV to write")],
    top_k: Annotated[int, Parameter(help="labels per photo")] = 1,
    label_map: Annotated[Path | None, Parameter(help="CSV of label and text to show, e.g. in Korean")] = None,
    batch_size: Annotated[int, Parameter(help="photos a forward pass")] = 32,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or mps")] = "auto",
) -> int:
    """Label photos with a trained model.

    A photo that cannot be read gets a row with the error instead of a label, and the exit code is 1.
    """
    from headstart.deploy.inputs import gather_inputs
    from headstart.progress import say

    if out.is_dir():
        raise RunError(must_be("--out", "a file to write", str(out), f"Name one in it: {out / 'predictions.csv'}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = gather_inputs(images)  # before torch is imported: a mistyped name is answered at once
    say(f"{len(paths):,} photos; loading {run}")
    from headstart.deploy.predictor import load, write_predictions

    predictor = load(run, device=device)
    summary = write_predictions(predictor, paths, out, top_k=top_k, label_map=label_map, batch_size=batch_size)
    say(f"{summary.num_predicted:,} photos labelled, {summary.num_errors:,} could not be read: {out}")
    return 1 if summary.num_errors else 0
