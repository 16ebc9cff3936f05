"""``headstart predict``: label photos, or find points in them."""

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
    draw: Annotated[
        Path | None,
        Parameter(help="keypoints: folder for the photos with their points drawn, new or of earlier drawings"),
    ] = None,
    boxes: Annotated[
        Path | None,
        Parameter(help="keypoints: table of path, left, top, right, bottom (pixels): the face in each photo"),
    ] = None,
    batch_size: Annotated[int, Parameter(help="photos a forward pass")] = 32,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or mps")] = "auto",
) -> int:
    """Label photos, or find points in them, with a trained model.

    A photo that cannot be read, or whose box cannot be used, gets a row with the error instead of an answer, and the
    exit code is 1. Columns x1, y1 of a CSV of points are what flags and reports call point 0.
    """
    from headstart.deploy.face_boxes import read_boxes
    from headstart.deploy.inputs import gather_inputs
    from headstart.progress import say

    _check_out(out)
    paths = gather_inputs(images)  # before torch is imported: a mistyped name is answered at once
    faces = None if boxes is None else read_boxes(boxes, paths)
    say(f"{len(paths):,} photos; loading {run}")
    if faces is not None and faces.num_unusable:
        say(f"{faces.num_unusable:,} of them have no box that can be used: their rows say why.")
    from headstart.deploy.label_predictor import LabelPredictor, MultiLabelPredictor
    from headstart.deploy.predictor import Predictor, load, write_predictions

    predictor = load(run, device=device)
    if isinstance(predictor, Predictor):
        _refuse({"--draw": draw, "--boxes": boxes}, "a model of keypoints", "classes")
        summary = write_predictions(predictor, paths, out, top_k=top_k, label_map=label_map, batch_size=batch_size)
        done, not_done = "labelled", "could not be read"
    elif isinstance(predictor, LabelPredictor | MultiLabelPredictor):
        from headstart.deploy.label_file import write_label_predictions

        _refuse({"--draw": draw, "--boxes": boxes}, "a model of keypoints", "classes")
        _refuse({"--label-map": label_map}, "a model of one label a photo", "several labels")
        if isinstance(predictor, MultiLabelPredictor):
            _refuse({"--top-k": top_k if top_k != 1 else None}, "a model of one class at once", "several at once")
        summary = write_label_predictions(predictor, paths, out, top_k=top_k, batch_size=batch_size)
        done, not_done = "labelled", "could not be read"
    else:
        from headstart.deploy.point_file import write_points

        _refuse({"--top-k": top_k if top_k != 1 else None, "--label-map": label_map}, "a classifier", "keypoints")
        if faces is None and predictor.is_cropped:
            say("Careful: this model was trained on faces cut out of their photos; give --boxes, or photos of faces.")
        summary = write_points(predictor, paths, out, boxes=faces, draw=draw, batch_size=batch_size)
        done, not_done = "done", "could not be read" if faces is None else "could not be read or had no usable box"
    say(f"{summary.num_predicted:,} photos {done}, {summary.num_errors:,} {not_done}: {out}")
    return 1 if summary.num_errors else 0


def _check_out(out: Path) -> None:
    """Make the folder of the CSV, and refuse what is no name of one, before any work."""
    if out.is_dir():
        raise RunError(must_be("--out", "a file to write", str(out), f"Name one in it: {out / 'predictions.csv'}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() != ".csv":
        remedy = f"Try {out.with_suffix('.csv')}."
        raise RunError(must_be("--out", "the name of a CSV file", str(out), remedy))


def _refuse(flags: dict[str, object], kind: str, got: str) -> None:
    """Refuse flags that say something to another kind of model only."""
    for flag, value in flags.items():
        if value is not None:
            raise RunError(must_be(flag, f"given to {kind} only", f"a model of {got}", f"Leave {flag} out."))
