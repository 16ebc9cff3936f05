"""A pixel store that was removed between two sessions and filled anew from the last photo to the first."""

from pathlib import Path

import polars as pl

from headstart.data.table import SampleTable
from headstart.preparation import reopen
from headstart.runs import RunFolder


def renumber_store(run: Path, store: Path) -> None:
    """Give a run (and its folds) a new store below a folder, where no photo has the record that the tables name."""
    for folder in (run, *run.glob("fold-*")):
        RunFolder.open(folder).recipe.updated(store_dir=str(store)).save(folder / "recipe.toml")
    table = SampleTable.load(run / "table.parquet")
    backwards = table.frame.reverse().with_columns(sample_id=pl.int_range(pl.len(), dtype=pl.UInt32))
    reopen(table.with_frame(backwards), RunFolder.open(run).recipe, image_size=(32, 32))
