"""History of a run: one row per epoch, as CSV (flushed at once) and TensorBoard events."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import polars as pl

COLUMNS = (
    "stage", "epoch", "lr", "train_loss", "validation_loss", "validation_accuracy", "validation_balanced_accuracy",
    "validation_macro_f1", "images_per_second", "seconds", "wait_seconds",
)  # fmt: skip
"""Columns of history.csv, in order."""

Row = Mapping[str, str | int | float]


class History:
    """Rows of one run, kept on disk as they come.

    Args:
        folder: The run folder: ``history.csv`` and ``tensorboard/`` lie in it.
        rows: Rows of an earlier session, from its checkpoint; the files are rewritten to hold exactly these.
    """

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        # RecordWriter, not EventFileWriter: that one imports TensorFlow where it is installed.
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.rows: list[Row] = []
        self._path = folder / "history.csv"
        folder.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(COLUMNS)
        self._events_file = _new_events_file(folder / "tensorboard")
        self._events = RecordWriter(self._events_file)
        self._write_event(file_version="brain.Event:2")
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Add an epoch: to the CSV (synced to disk before this returns) and to the events."""
        self.rows.append(dict(row))
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([row.get(name, "") for name in COLUMNS])
            file.flush()
            os.fsync(file.fileno())
        self._add_events(row)

    def close(self) -> None:
        """End the events file."""
        self._events_file.close()

    def _add_events(self, row: Row) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        numbers = {
            name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "epoch"
        }
        values = [Summary.Value(tag=f"{row['stage']}/{name}", simple_value=value) for name, value in numbers.items()]
        self._write_event(step=int(row["epoch"]), summary=Summary(value=values))

    def _write_event(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self._events.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._events_file.flush()


def _new_events_file(folder: Path) -> BinaryIO:
    """Open the one events file of a run; an earlier session's is replaced, as its rows are written again."""
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("events.*"):
        stale.unlink()
    return (folder / f"events.out.tfevents.{int(time.time())}.headstart").open("wb")


def read_history(folder: Path) -> pl.DataFrame:
    """Read a run's history.csv as a DataFrame, one row per epoch."""
    import polars as pl

    return pl.read_csv(folder / "history.csv", infer_schema_length=None)
