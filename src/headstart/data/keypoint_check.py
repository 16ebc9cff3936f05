"""What ``check`` and ``train`` do with a table of keypoints after the pass over the files: the doctor, and the pairs.

The left/right pairs that were found (or given) go into the table's layout, so that training, the report and the bundle
know them; what the doctor found is told, and nothing is changed or left out for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from headstart.data.flip_checks import word_unsure
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
_FACE_BOX: Final = re.compile(r"(?i)face|b(nd)?_?box|^box|person|head|얼굴")
"""What the box of a whole face is called, rather than that of an eye."""


@dataclass(frozen=True)
class KeypointCheck:
    """What was found in the points of a table.

    Attributes:
        examination: The doctor's findings; ``row`` counts the table's kept rows.
        lines: What to say of them, one idea a line.
        crowding: What to say of photos with several faces that are not cut out; empty where there are none.
    """

    examination: Examination
    lines: tuple[str, ...]
    crowding: str = ""


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
    pairs = given if given is not None else found.pairs.pairs if found.pairs.is_sure else None
    known = replace(
        layout,
        flip_pairs=pairs,
        flip_note=_pairs_note(found.pairs, source=recipe.flip_pairs),
        flip_doubt=found.pairs.reason if given is not None else "",
    )
    named, crowding = _finding_lines(found, kept["path"], num_examples), word_crowding(table, layout, recipe)
    lines = (_pairs_line(known), *named, *found.notes, *([f"Careful: {crowding}"] if crowding else []))
    return replace(table, keypoints=known), KeypointCheck(found, lines, crowding)


def word_crowding(table: SampleTable, layout: KeypointLayout, recipe: Recipe) -> str:
    """Say that photos hold several faces of which the network sees all at once, and what to do.

    Args:
        table: Kept samples of one photo have one path.
        layout: Names the boxes that samples have.
        recipe: Says whether faces are cut out.

    Returns:
        Two sentences; empty where each photo has one sample, or faces are cut out.
    """
    several = table.kept["path"].filter(table.kept["path"].is_duplicated())
    if several.is_empty() or recipe.crop_to_box is not None or recipe.crop_to_points is not None:
        return ""
    num_photos = several.n_unique()
    photos = "1 photo holds" if num_photos == 1 else f"{num_photos:,} photos hold"
    what = f"{photos} several faces ({len(several):,} samples), and the network sees each photo whole"
    remedy = "--crop-to-points 0.2 cuts each face out by its points."
    if layout.box_names:
        likely = next((name for name in layout.box_names if _FACE_BOX.search(name)), layout.box_names[0])
        remedy = f"--crop-to-box {likely} cuts each face out by its box."
    return f"{what}: it cannot know which face is meant. {remedy}"


def _pairs_line(layout: KeypointLayout) -> str:
    line = f"keypoints: {layout.num_keypoints} a sample. {layout.flip_note}"
    if layout.flip_pairs is None:
        return f"{line} No picture is mirrored; --flip-pairs FILE names the pairs."
    return f"{line} Careful: {layout.flip_doubt}" if layout.flip_doubt else line


def _pairs_note(found: FlipPairs, *, source: str | None) -> str:
    fit = f"the mean shape differs from its mirror image by {100 * found.residual:.1f} % of its size"
    if source is not None:
        return f"{len(found.pairs)} left/right pairs from {source}."
    if found.is_sure:
        middle = f", {len(found.axis_points)} points on the axis" if found.axis_points else ""
        return f"{len(found.pairs)} left/right pairs found{middle}; {fit}."
    return word_unsure(found.reason)


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
