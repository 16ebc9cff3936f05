"""What settings follow from others before they are checked: the task from the data, the network from an ancestor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headstart.data.sources import guess_task
from headstart.runs import RunFolder

_INHERITED: Final = (
    "task", "backbone", "head", "targets", "image_size", "fit", "crop_to_box", "crop_to_points", "nme_by", "nme_points",
)  # fmt: skip
"""What a run takes over from the one that it goes on from, where it does not say otherwise: what the weights need."""

_DATA: Final = ("data", "annotations", "image_root")


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings with what follows from them.

    Examples:
        >>> completed({"data": "photos", "annotations": "labels"})["task"]
        'keypoints'
    """
    found = {**inherited_settings(settings), **settings}
    return found | guess_task(found)


def inherited_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a run takes over from the one that it goes on from: the network's shape, on the same data the split.

    Args:
        settings: What is set already; ``from_run`` names the run. A bundle without a recipe gives nothing.
    """
    path = Path(str(settings.get("from_run"))).expanduser()
    if settings.get("from_run") is None or not (path / "recipe.toml").exists():
        return {}
    theirs = RunFolder.open(path).recipe.model_dump(exclude_none=True)
    found = {name: theirs[name] for name in _INHERITED if name in theirs}
    ours = {name: str(Path(str(settings[name])).expanduser().absolute()) for name in _DATA if settings.get(name)}
    is_same_data = ours == {name: theirs[name] for name in _DATA if name in theirs}
    if is_same_data and not settings.get("resplit") and (path / "split.parquet").exists():
        found["split"] = str(path / "split.parquet")
    return {name: value for name, value in found.items() if settings.get(name) is None}
