"""From the user's files to a checked table and its pixels: what ``check``, ``train`` and ``evaluate`` begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headstart.data.account import Account, account, describe
from headstart.data.duplicates import find_duplicates
from headstart.data.keypoint_check import KeypointCheck, check_keypoints
from headstart.data.keypoint_samples import image_size_to_store
from headstart.data.store import PixelStore, fill_store, plan_store
from headstart.data.table import SampleTable
from headstart.errors import SourceError, must_be
from headstart.progress import say
from headstart.recipe import Recipe

_PLACES: Final = ("record", "height", "width")
"""Columns that say where a photo's pixels stand in the store, and how large they were."""


@dataclass(frozen=True)
class PreparedData:
    """A table after the pass over the files, the pixels, the account of both, and what the points are like."""

    table: SampleTable
    store: PixelStore
    account: Account
    keypoints: KeypointCheck | None = None


def prepare(
    table: SampleTable, recipe: Recipe, *, image_size: tuple[int, int], with_splits: bool = True
) -> PreparedData:
    """Read every file once, find copies, and say what was found.

    Args:
        table: From the source.
        recipe: How to store, and how near is near-identical.
        image_size: Height and width of the network's input; the store keeps a little more.
        with_splits: Say what is wrong with given splits; not needed where the split is described next.

    Raises:
        SourceError: No file can be used.
    """
    for note in table.notes:
        say(note)
    table, store = _filled(table, recipe, image_size)
    if table.kept.is_empty():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in table.excluded_counts.items())
        place = recipe.data or str(table.root)
        raise SourceError(must_be(place, "data with at least one usable image", counts, "Mend the files."))
    table = find_duplicates(table, store, max_distance=recipe.duplicate_distance)
    found = account(table)
    for line in describe(found, with_splits=with_splits):
        say(line)
    if table.keypoints is None:
        return PreparedData(table, store, found)
    table, checked = check_keypoints(table, table.keypoints, recipe, num_examples=8 if with_splits else 3)
    for line in checked.lines:
        say(line)
    return PreparedData(table, store, found, checked)


def reopen(table: SampleTable, recipe: Recipe, *, image_size: tuple[int, int]) -> PreparedData:
    """Take up a table that was prepared and split before; its pixels are found, or read again where they are gone.

    Raises:
        SourceError: Files have changed since: the table no longer speaks of them.
    """
    again, store = _filled(table, recipe, image_size)
    changed = again.frame.filter(~again.frame["content_hash"].eq_missing(table.frame["content_hash"]))
    if not changed.is_empty():
        remedy = f"{changed.height:,} files have changed since the run began. Start a new run."
        raise SourceError(must_be(str(table.root), "as the run found it", changed["path"][0], remedy))
    return PreparedData(again, store, account(again))


def renew_records(saved: SampleTable, now: SampleTable, file: Path) -> SampleTable:
    """Give a saved table with the records that its photos have now, and save it so where they were others.

    A record is but a place in the store: what is damaged or removed there is read again to another place, and pixels
    found by the old number would be those of another photo.

    Args:
        saved: From an earlier session.
        now: The same samples, as ``reopen`` gives them.
        file: Where the table was saved.
    """
    keys = ["sample_id", "content_hash"]
    places = now.frame.select(*keys, *_PLACES)
    frame = saved.frame.drop(*_PLACES).join(places, on=keys, how="left", maintain_order="left")
    table = saved.with_frame(frame.select(saved.frame.columns))
    if not table.frame.select(*_PLACES).equals(saved.frame.select(*_PLACES)):
        table.save(file)
    return table


def _filled(table: SampleTable, recipe: Recipe, image_size: tuple[int, int]) -> tuple[SampleTable, PixelStore]:
    image_size = image_size_to_store(table, recipe, image_size)
    settings, directory = plan_store(recipe, table, image_size=image_size, source=Path(recipe.data or table.root))
    return fill_store(table, settings, directory, num_threads=recipe.num_threads)
