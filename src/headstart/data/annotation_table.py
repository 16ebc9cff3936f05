"""Annotations paired with photos → rows with points: one per annotation, and one per photo that has none.

What contradicts the others (another number of points, two annotations that differ about one photo) is found here, where
all annotations are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from headstart.data.annotation_files import Match, PhotoNames
from headstart.data.annotations import Annotation, PointSet
from headstart.data.folders import some
from headstart.data.keypoints import NOT_LOOKED_FOR, KeypointLayout, keypoint_columns, numbered_layout
from headstart.data.name_columns import text_name
from headstart.errors import SourceError


def rows_of(
    annotations: Sequence[Annotation], photos: PhotoNames, unusable: Mapping[str, str], *, place: str
) -> tuple[pl.DataFrame, KeypointLayout, list[str]]:
    """Pair annotations with photos and make the rows of the table.

    Args:
        annotations: Everything that was read.
        photos: The photos of the folder.
        unusable: Photos that cannot be opened, and why.
        place: What the annotations are, for messages.

    Returns:
        The rows (``table_from_keypoints`` takes them), sorted by path; the layout; notes.

    Raises:
        SourceError: No annotation has points.
    """
    layout = _usual_layout(annotations, place)
    matches = [photos.match(annotation) for annotation in annotations]
    pairs = [
        (_checked(annotation, match, layout), match) for annotation, match in zip(annotations, matches, strict=True)
    ]
    judged = _without_contradictions(pairs, photos)
    claimed = {match.photo for match in matches}
    bare = [photos.paths[number] for number in range(len(photos.paths)) if number not in claimed]
    frame = pl.concat([_frame(judged, matches, photos, layout), _bare_frame(bare)], how="diagonal")
    frame, several = _grouped_by_photo(_refuse_unusable(frame, unusable).sort("path", maintain_order=True), judged)
    return frame, layout, _match_notes(annotations, matches, photos) + several


def _usual_layout(annotations: Sequence[Annotation], place: str) -> KeypointLayout:
    """Give the layout that most annotations have."""
    sizes = Counter((len(found.content.points), found.content.names) for found in annotations if found.content)
    if not sizes:
        problems = [annotation.problem for annotation in annotations if annotation.problem]
        got = "; ".join(problems[:3]) or "none"
        more = f" (and {len(problems) - 3:,} more)" if len(problems) > 3 else ""
        raise SourceError(f"{place} must be annotations with points; got none that can be used: {got}{more}.")
    totals = Counter[int]()
    for (number, _), times in sizes.items():
        totals[number] += times
    num_keypoints = totals.most_common(1)[0][0]
    named = Counter({names: times for (number, names), times in sizes.items() if number == num_keypoints})
    names = named.most_common(1)[0][0]
    return KeypointLayout(names, flip_note=NOT_LOOKED_FOR) if names else numbered_layout(num_keypoints)


def _checked(annotation: Annotation, match: Match, layout: KeypointLayout) -> Annotation:
    """Refuse an annotation without a photo, or with other points than the rest."""
    if annotation.content is None:
        return annotation
    if match.rivals:
        rivals = " and ".join(repr(path) for path in match.rivals[:2])
        more = f" and {len(match.rivals) - 2} more" if len(match.rivals) > 2 else ""
        return annotation.refused(f"{annotation.place} fits several photos alike: {rivals}{more}", "missing")
    if match.photo is None:
        stated = f" {annotation.photo!r}" if annotation.photo else ""
        return annotation.refused(f"{annotation.place}: its photo{stated} is not here", "missing")
    number = len(annotation.content.points)
    if number != layout.num_keypoints:
        return annotation.refused(f"{annotation.place} has {number} points, the others {layout.num_keypoints}")
    return _in_order(annotation, annotation.content, layout)


def _in_order(annotation: Annotation, content: PointSet, layout: KeypointLayout) -> Annotation:
    """Bring named points into the order of the layout."""
    if content.names in ((), layout.names) or layout.names == numbered_layout(layout.num_keypoints).names:
        return annotation
    if set(content.names) != set(layout.names):
        absent = next(name for name in layout.names if name not in content.names)
        return annotation.refused(f"{annotation.place} has no point {absent!r}")
    order = [content.names.index(name) for name in layout.names]
    return replace(annotation, content=PointSet(content.points[order], content.visible[order], layout.names))


def _without_contradictions(pairs: Sequence[tuple[Annotation, Match]], photos: PhotoNames) -> list[Annotation]:
    """Of annotations that say the same of one photo keep the first; of those that differ keep none."""
    judged = [annotation for annotation, _ in pairs]
    by_photo: dict[int, list[int]] = {}
    for number, (annotation, match) in enumerate(pairs):
        if annotation.content and match.photo is not None and not annotation.is_one_of_many:
            by_photo.setdefault(match.photo, []).append(number)
    for photo, numbers in by_photo.items():
        if len(numbers) > 1:
            _judge(judged, numbers, photos.paths[photo])
    return judged


def _judge(judged: list[Annotation], numbers: list[int], photo: str) -> None:
    first = judged[numbers[0]]
    agree = all(_same(first, judged[number]) for number in numbers[1:])
    for number in numbers[1:] if agree else numbers:
        own = judged[number]
        other = first if number != numbers[0] else judged[numbers[1]]
        words = f"says the same of {photo!r} as" if agree else f"gives other points for {photo!r} than"
        judged[number] = own.refused(f"{own.place} {words} {other.place}")


def _same(one: Annotation, other: Annotation) -> bool:
    if one.content is None or other.content is None:
        return False
    return np.array_equal(one.content.points, other.content.points, equal_nan=True) and np.array_equal(
        one.content.visible, other.content.visible
    )


def _frame(
    annotations: Sequence[Annotation], matches: Sequence[Match], photos: PhotoNames, layout: KeypointLayout
) -> pl.DataFrame:
    """Make columns of annotations."""
    count, num_keypoints = len(annotations), layout.num_keypoints
    points = np.full((count, num_keypoints, 2), np.nan)
    visible = np.zeros((count, num_keypoints), bool)
    boxes = np.full((count, 4), np.nan, np.float32)
    for number, annotation in enumerate(annotations):
        if annotation.content:
            points[number], visible[number] = annotation.content.points, annotation.content.visible
        if annotation.box:
            boxes[number] = annotation.box
    paths = [
        annotation.photo or annotation.place if match.photo is None else photos.paths[match.photo]
        for annotation, match in zip(annotations, matches, strict=True)
    ]
    frame = pl.DataFrame(
        {
            "path": pl.Series(paths, dtype=pl.String),
            "excluded": pl.Series([annotation.reason for annotation in annotations], dtype=pl.String),
            "detail": pl.Series([annotation.problem or None for annotation in annotations], dtype=pl.String),
        }
    )
    frame = frame.with_columns(
        points_or_null(points, visible, [annotation.content is not None for annotation in annotations])
    )
    if any(annotation.box for annotation in annotations):
        frame = frame.with_columns(box_or_null(boxes))
    return frame.with_columns(_text_columns(annotations))


def points_or_null(points: np.ndarray, visible: np.ndarray, has_points: Sequence[bool] | np.ndarray) -> list[pl.Series]:
    """Give the columns ``keypoints`` and ``visible``, null where a sample has no points."""
    columns = keypoint_columns(points, visible)
    mask = pl.Series("mask", np.asarray(has_points, bool))
    nulls = pl.DataFrame([*columns, mask])
    return [nulls.select(pl.when("mask").then(column.name).alias(column.name)).to_series() for column in columns]


def box_or_null(boxes: np.ndarray) -> pl.Series:
    """Give the column ``box``, null where a box has a number that is none."""
    column = pl.Series("box", np.nan_to_num(boxes.astype(np.float32)), pl.Array(pl.Float32, 4))
    frame = pl.DataFrame([column, pl.Series("mask", np.asarray(np.isfinite(boxes).all(axis=1)))])
    return frame.select(pl.when("mask").then("box").alias("box")).to_series()


def _text_columns(annotations: Sequence[Annotation]) -> list[pl.Series]:
    names = dict.fromkeys(name for annotation in annotations for name in annotation.texts)
    return [
        pl.Series(text_name(name), [annotation.texts.get(name) for annotation in annotations], pl.String)
        for name in names
    ]


def _bare_frame(paths: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"path": paths, "excluded": ["no annotation"] * len(paths), "detail": ["nothing annotates it"] * len(paths)},
        schema={"path": pl.String, "excluded": pl.String, "detail": pl.String},
    )


def _refuse_unusable(frame: pl.DataFrame, unusable: Mapping[str, str]) -> pl.DataFrame:
    if not unusable:
        return frame
    why = pl.col("path").replace_strict(dict(unusable), default=None, return_dtype=pl.String)
    is_hit = why.is_not_null() & pl.col("excluded").is_null()
    return frame.with_columns(
        excluded=pl.when(is_hit).then(pl.lit("unreadable")).otherwise("excluded"),
        detail=pl.when(is_hit).then(why).otherwise("detail"),
    )


def _grouped_by_photo(frame: pl.DataFrame, judged: Sequence[Annotation]) -> tuple[pl.DataFrame, list[str]]:
    """Keep the samples of one photo together."""
    if not any(annotation.is_one_of_many and annotation.content for annotation in judged):
        return frame, []
    kept = frame.filter(pl.col("excluded").is_null())
    several = kept.filter(pl.col("path").is_duplicated())
    note = f"{several['path'].n_unique():,} photos hold several samples ({several.height:,}); each photo is a group."
    return frame.with_columns(group=pl.col("path")), [note] if several.height else []


def _match_notes(annotations: Sequence[Annotation], matches: Sequence[Match], photos: PhotoNames) -> list[str]:
    notes: list[str] = []
    ways = Counter(match.how for match in matches if match.how)
    if ways.keys() - {"place"}:
        said = ", ".join(f"{ways[how]:,} by {how}" for how in ("place", "stated name", "own name") if ways[how])
        notes.append(f"Annotations were paired with photos: {said}.")
    differing = [
        annotation.place
        for annotation, match in zip(annotations, matches, strict=True)
        if match.how == "place" and match.photo is not None and photos.states_another(annotation, match.photo)
    ]
    if differing:
        beside = some(differing[:5], count=len(differing))
        said = f"{len(differing):,} annotations state another photo than the one in their place: {beside}"
        notes.append(f"{said}; the place counted.")
    return notes
