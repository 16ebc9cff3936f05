"""History of a run: one row per epoch, as CSV (flushed at once) and TensorBoard events."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, str | int | float]

PARTS: Final = ("wait", "step", "augment", "validation", "checkpoint")
"""What an epoch's seconds are told by: waiting for pixels, forward and backward, preparing pixels (threads do that
meanwhile), scoring validation, and writing checkpoints (the one that ended the epoch before)."""


def history_columns(score_names: Sequence[str]) -> tuple[str, ...]:
    """Give the columns of history.csv, in order.

    Examples:
        >>> history_columns(["nme"])[:6]
        ('stage', 'epoch', 'lr', 'train_loss', 'validation_nme', 'images_per_second')
    """
    scores = (f"validation_{name}" for name in score_names)
    times = (f"{part}_seconds" for part in PARTS)
    return ("stage", "epoch", "lr", "train_loss", *scores, "images_per_second", "seconds", *times)


def epoch_row(
    stage: str, epoch: int, *, lr: float, train_loss: float, scores: Mapping[str, float], seconds: float, num: int
) -> dict[str, str | int | float]:
    """Put one epoch into the form of history.csv.

    Args:
        stage: "probe" or "fine-tune".
        epoch: Counted from 1.
        lr: Learning rate of its last step.
        train_loss: Mean over its samples.
        scores: Of validation, by name.
        seconds: Of training.
        num: Samples trained on.
    """
    row: dict[str, str | int | float] = {"stage": stage, "epoch": epoch, "lr": lr, "train_loss": train_loss}
    row |= {f"validation_{name}": value for name, value in scores.items()}
    return row | {"images_per_second": num / max(seconds, 1e-9), "seconds": seconds, "wait_seconds": 0.0}


class History:
    """Rows of one run, kept on disk as they come.

    Args:
        folder: The run folder: ``history.csv`` and ``tensorboard/`` lie in it.
        score_names: The validation scores that rows hold, in the order of the columns.
        rows: Rows of an earlier session, from its checkpoint; the files are rewritten to hold exactly these.
    """

    def __init__(self, folder: Path, score_names: Sequence[str], rows: Sequence[Row] = ()) -> None:
        # RecordWriter, not EventFileWriter: that one imports TensorFlow where it is installed.
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.rows: list[Row] = []
        self._columns = history_columns(score_names)
        self._path = folder / "history.csv"
        folder.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(self._columns)
        self._events_file = _new_events_file(folder / "tensorboard")
        self._events = RecordWriter(self._events_file)
        self._write_event(file_version="brain.Event:2")
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Add an epoch: to the CSV (synced to disk before this returns) and to the events."""
        self.rows.append(dict(row))
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([row.get(name, "") for name in self._columns])
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
