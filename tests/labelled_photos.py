"""Small photos with several labels: tints that a tiny network learns in seconds, on textures that no two share."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import polars as pl


@dataclass(frozen=True)
class LabelledPhotos:
    """A folder of photos with ``labels.csv``: mask (yes, no), gender (f, m), age (a number), tags, person."""

    folder: Path
    rows: pl.DataFrame

    @property
    def table(self) -> Path:
        return self.folder / "labels.csv"

    def without(self, path: Path, **cells: list[int]) -> Path:
        """Write the table again with some cells of some columns emptied."""
        number = pl.int_range(pl.len())
        emptied = [
            pl.when(number.is_in(rows)).then(None).otherwise(pl.col(name)).alias(name) for name, rows in cells.items()
        ]
        self.rows.with_columns(emptied).write_csv(path)
        return path


def write_labelled_photos(folder: Path, *, count: int = 160, per_person: int = 4, seed: int = 0) -> LabelledPhotos:
    """Write the photos: a mask tints red, a man blue, years brighten the green."""
    draw = np.random.default_rng(seed)
    (folder / "사진").mkdir(parents=True)
    rows = []
    for number in range(count):
        mask, man = draw.random(2) < 0.5
        age = int(draw.integers(18, 85))
        texture = cv2.resize(draw.uniform(30, 90, (7, 7)).astype(np.float32), (40, 40), interpolation=cv2.INTER_CUBIC)
        tint = np.array([120.0 * man, 1.8 * (age - 18), 120.0 * mask])  # blue, green, red
        pixels = np.clip(texture[:, :, None] + tint + draw.normal(0, 4, (40, 40, 3)), 0, 255).astype(np.uint8)
        person = f"P{seed}{number // per_person:03}"
        name = f"R_{person}_{age}_{'m' if man else 'f'}_M{int(mask)}_{number:04}.png"
        (folder / "사진" / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        tags = [tag for tag, has in (("red", mask), ("blue", man), ("green", age >= 50)) if has]
        rows.append(
            {
                "path": f"사진/{name}", "person": person, "mask": "yes" if mask else "no",
                "gender": "m" if man else "f", "age": str(age), "tags": "; ".join(tags) or "[]",
            }
        )  # fmt: skip
    frame = pl.DataFrame(rows)
    frame.write_csv(folder / "labels.csv")
    return LabelledPhotos(folder, frame)
