"""Files that keypoint tests make: photos (of one byte: none is opened), annotations, and the table read of them."""

import json
from pathlib import Path

import polars as pl

from headstart.data.keypoints import KeypointLayout
from headstart.data.sources import read_source
from headstart.data.table import SampleTable
from headstart.recipe import make_recipe


def read(data: Path, **settings: object) -> SampleTable:
    recipe = make_recipe({"task": "keypoints", "data": str(data), **{k: str(v) for k, v in settings.items()}})
    table = read_source(recipe, unpack_dir=data.parent / "unpacked")
    assert table.frame.height == table.kept.height + sum(table.excluded_counts.values())
    assert table.frame.filter(pl.col("excluded").is_not_null() & pl.col("detail").is_null()).is_empty()
    return table


def photos(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(path: Path, content: object, *, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    return path


def details(table: SampleTable) -> dict[str, str]:
    rows = table.frame.filter(pl.col("excluded").is_not_null())
    return {
        path: f"{reason}: {detail}" for path, reason, detail in rows.select("path", "excluded", "detail").iter_rows()
    }


def driver(name: str, points: list[object], *, count: object = None, boxes: dict[str, object] | None = None) -> dict:
    face = {"isVisible": True, "Position": ["10", "20", "110", "220"]}
    eye = {"isVisible": True, "Opened": False, "Position": [30, 40, 50, 60]}
    return {
        "FileInfo": {"FileName": name, "Width": 800, "Height": 1280},
        "ObjectInfo": {
            "KeyPoints": {"Count": len(points) // 2 if count is None else count, "Points": points},
            "BoundingBox": boxes or {"Face": face, "Leye": eye, "Mouth": {**eye, "Opened": True}},
        },
    }


def seventy(start: float = 100.0) -> list[str]:
    return [f"{start + number / 4}" for number in range(140)]


def layout_of(table: SampleTable) -> KeypointLayout:
    assert table.keypoints is not None
    return table.keypoints
