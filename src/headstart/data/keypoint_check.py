"""What ``check`` and ``train`` do with a table of keypoints after the pass over the files: the doctor, and the pairs.

The left/right pairs that were found (or given) go into the table's layout, so that training, the report and the bundle
know them; what the doctor found is told, and nothing is changed or left out for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from headstart.data.flip_pairs import FlipPairs
from headstart.data.flip_pairs_file import read_flip_pairs
from headstart.data.keypoints import KeypointLayout, points_of, visible_of
from headstart.data.table import SampleTable

if TYPE_CHECKING:
    from headstart.data.keypoint_doctor import Examination
    from headstart.recipe import Recipe

_WORDS: Final = {
    "outside": "with points outside the picture",
    "collapsed": "whose points lie in one spot",
    "mirrored": "with left and right swapped",
    "turned": "turned against the others",
    "outlier": "of a shape unlike the others",
    "stray point": "with a stray point",
}


@dataclass(frozen=True)
class KeypointCheck:
    """What was found in the points of a table.

    Attributes:
        examination: The doctor's findings; ``row`` counts the table's kept rows.
        lines: What to say of them, one idea a line.
    """

    examination: Examination
    lines: tuple[str, ...]


def check_keypoints(
    table: SampleTable, layout: KeypointLayout, recipe: Recipe, *, num_examples: int = 8
) -> tuple[SampleTable, KeypointCheck]:
    """Examine the points of the kept samples and find left and right.

    Args:
        table: After the pass over the files, so that the sizes of the photos are known.
        layout: Of the table.
        recipe: Names a file of pairs (``flip_pairs``), which counts more than what the shapes say.
        num_examples: Samples named for each kind of finding.

    Returns:
        The table with pairs in its layout, and what was found.

    Raises:
        SourceError: The file of pairs cannot be used.
    """
    from headstart.data.keypoint_doctor import examine

    given = read_flip_pairs(Path(recipe.flip_pairs), layout.num_keypoints) if recipe.flip_pairs else None
    kept = table.kept
    sizes = kept.select("height", "width").to_numpy()
    found = examine(points_of(kept), visible_of(kept), sizes, given, seed=recipe.seed)
    note = _pairs_note(found.pairs, source=recipe.flip_pairs)
    pairs = given if given is not None else found.pairs.pairs if found.pairs.is_sure else None
    known = replace(layout, flip_pairs=pairs, flip_note=note)
    named = _finding_lines(found, kept["path"], num_examples)
    lines = (f"keypoints: {layout.num_keypoints} a sample. {note}", *named, *found.notes)
    return replace(table, keypoints=known), KeypointCheck(found, lines)


def _pairs_note(found: FlipPairs, *, source: str | None) -> str:
    fit = f"the mean shape differs from its mirror image by {100 * found.residual:.1f} % of its size"
    if source is not None:
        return f"{len(found.pairs)} left/right pairs from {source}{'' if found.is_sure else f'; {found.reason}'}."
    if found.is_sure:
        middle = f", {len(found.axis_points)} points on the axis" if found.axis_points else ""
        return f"{len(found.pairs)} left/right pairs found{middle}; {fit}."
    return f"Left and right could not be told apart, so no picture is mirrored: {found.reason.rstrip('.')}."


def _finding_lines(found: Examination, paths: pl.Series, num_examples: int) -> list[str]:
    lines = []
    for kind, words in _WORDS.items():
        of_kind = found.findings.filter(pl.col("kind") == kind)
        if of_kind.is_empty():
            continue
        lines.append(f"keypoints: {of_kind['row'].n_unique():,} samples {words}")
        shown = of_kind.head(num_examples)
        names = paths[shown["row"].to_numpy()].to_list()
        lines += [f"  {name}: {detail}" for name, detail in zip(names, shown["detail"], strict=True)]
        more = of_kind.height - shown.height
        lines += [f"  and {more:,} more"] if more else []
    return lines


def finding_rows(check: KeypointCheck, *, limit: int) -> list[tuple[int, str]]:
    """Give the samples to look at, the worst first: position among the kept rows, and what is wrong with it.

    A sample with several findings stands once, with all of them.
    """
    details: dict[int, list[str]] = {}
    for row, detail in check.examination.findings.select("row", "detail").iter_rows():
        details.setdefault(int(row), []).append(detail)
    return [(row, " ".join(texts)) for row, texts in list(details.items())[:limit]]


def num_samples_found(check: KeypointCheck) -> int:
    """Give how many samples the doctor found something wrong with."""
    return check.examination.findings["row"].n_unique()
