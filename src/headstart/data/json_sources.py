"""JSON annotations, one file per photo or one file for all → ``Annotation``s.

What stands where is guessed from a sample of the documents, where only one answer is left, and said in a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from headstart.data.annotation_boxes import find_box, has_box, list_boxes, word_boxes
from headstart.data.annotation_json import KeyPath, find_points, parse_json, parse_key, points_at, values_at, word_key
from headstart.data.annotations import Annotation, BadAnnotation, PointSet, is_number, shown
from headstart.data.driver_state import POINTS_KEY, box_states, is_driver_state
from headstart.data.folders import IMAGE_SUFFIXES, some
from headstart.data.label_files import PATH_NAMES, plain_name
from headstart.errors import SourceError, must_be
from headstart.recipe import Recipe

NEARLY_ALL: Final = 0.9
"""Share of the documents that looked-at documents must agree in for a guess."""
_SAMPLE: Final = 100  # documents that guesses look at, spread over all
_POINT_WORDS: Final = re.compile(r"(?i)key_?points?|land_?marks?|^points?$|^pts$|특징점|키포인트")
_BOX_WORDS: Final = re.compile(r"(?i)box|bnd|rect|^position$|^roi$|polygon|segmentation|contour")
_COUNT_NAMES: Final = ("count", "num_points", "num_keypoints", "numpoints", "n_points")
_PHOTO_NAMES: Final = PATH_NAMES | {"name", "id", "image_id", "imagepath", "imagename", "imagefile"}
_IS_PHOTO: Final = re.compile(rf"(?i)\.({'|'.join(IMAGE_SUFFIXES)})$")
_MAX_COUNT: Final = 1e9
_LONGEST_TEXT: Final = 200  # longer texts (a picture in base64) are no column
_MAX_TEXTS: Final = 32


@dataclass(frozen=True)
class JsonShape:
    """What stands where in the JSON of one sample.

    Attributes:
        points: Key path of the points.
        photo: Key path of the photo's name; None where it is not stated.
        crop_to_box: The box to look for.
        has_states: Whether it is the driver-state layout.
        notes: What was guessed.
        box_names: The boxes that stand there, the most frequent first.
    """

    points: KeyPath
    photo: KeyPath | None
    crop_to_box: str | None
    has_states: bool = False
    notes: tuple[str, ...] = ()
    box_names: tuple[str, ...] = ()


def spread(items: Sequence[Any], count: int = _SAMPLE) -> list[Any]:
    """Give at most ``count`` items, evenly spread.

    Examples:
        >>> spread([0, 1, 2, 3, 4, 5], 3)
        [0, 2, 4]
    """
    return [items[number * len(items) // count] for number in range(count)] if len(items) > count else list(items)


def find_shape(documents: Sequence[Any], recipe: Recipe, *, place: str) -> JsonShape:
    """Find out what stands where, from a sample of the documents.

    Args:
        documents: JSON of some samples, read.
        recipe: Names the points' key, maybe, and the box.
        place: What they are, for messages.

    Raises:
        SourceError: No list of points, or several that could be meant; the key paths are named. Or the box asked for
            is in none of the documents; those that are there are named.
    """
    has_states = bool(documents) and sum(map(is_driver_state, documents)) >= NEARLY_ALL * len(documents)
    notes: list[str] = []
    if recipe.points_key is None and has_states:
        points = POINTS_KEY
        notes.append(f"{place} was read as driver-state data: points at {word_key(points)!r}.")
    elif recipe.points_key is not None:
        points = parse_key(recipe.points_key)
        _check_key(documents, points, recipe.points_key, place)
    else:
        points, number = _guess_points(documents, place)
        notes.append(f"The points of {place} were taken from {word_key(points)!r} ({number} points).")
    boxes = _name_boxes(documents, points, recipe.crop_to_box, place)
    return JsonShape(points, _guess_photo(documents), recipe.crop_to_box, has_states, tuple(notes), boxes)


def _name_boxes(documents: Sequence[Any], points: KeyPath, crop_to_box: str | None, place: str) -> tuple[str, ...]:
    """Name the boxes that stand in the documents, the most frequent first, and refuse one that is in none."""
    parts = [part for document in documents for part in _boxed_parts(document, points)]
    names = Counter(name for part in parts for name in list_boxes(part))
    there = tuple(name for name, _ in names.most_common() if name not in (word_key(points), _last_key(points)))
    if crop_to_box is not None and not any(has_box(part, crop_to_box) for part in parts):
        raise SourceError(must_be("--crop-to-box", f"a box of {place}", crop_to_box, word_boxes(crop_to_box, there)))
    return there


def _boxed_parts(document: Any, points: KeyPath) -> list[Any]:
    """Give the parts of a document in which boxes are looked for: all of it, and each sample of a list."""
    holders = [holder for _, holder in values_at(document, points)] if None in points else []
    return [document, *(holder for holder in holders if isinstance(holder, dict))]


def _check_key(documents: Sequence[Any], points: KeyPath, given: str, place: str) -> None:
    if any(True for document in documents for _ in values_at(document, points)):
        return
    seen = sorted({word_key(path) for document in documents for path in find_points(document)})
    remedy = f"Lists of points stand at {some(seen)}." if seen else "No list of points was found."
    raise SourceError(f"--points-key must be a key of {place}; got {given!r}. {remedy}")


def _guess_points(documents: Sequence[Any], place: str) -> tuple[KeyPath, int]:
    sizes: dict[KeyPath, Counter[int]] = {}
    for document in documents:
        for path, number in find_points(document).items():
            sizes.setdefault(path, Counter())[number] += 1
    usual = {path: counts.most_common(1)[0] for path, counts in sizes.items()}
    nearly_all = [path for path, (_, times) in usual.items() if times >= NEARLY_ALL * len(documents)]
    most = [path for path, counts in sizes.items() if counts.total() >= 0.5 * len(documents)]
    for candidates in (nearly_all, most):
        chosen = _narrowed(candidates, usual)
        if len(chosen) == 1:
            return chosen[0], usual[chosen[0]][0]
        if chosen:
            break
    raise SourceError(_word_candidates(usual, len(documents), place))


def _narrowed(candidates: list[KeyPath], usual: Mapping[KeyPath, tuple[int, int]]) -> list[KeyPath]:
    """Leave out boxes; among the rest prefer what is called points."""
    lists = [path for path in candidates if usual[path][0] > 2 and not _BOX_WORDS.search(_last_key(path))]
    lists = lists or [path for path in candidates if not _BOX_WORDS.search(_last_key(path))]
    named = [path for path in lists if _POINT_WORDS.search(_last_key(path))]
    return named if len(named) == 1 else lists


def _last_key(path: KeyPath) -> str:
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _word_candidates(usual: Mapping[KeyPath, tuple[int, int]], num_documents: int, place: str) -> str:
    if not usual:
        remedy = (
            "Points may be x1, y1, x2, y2, …, pairs [x, y], or objects with x and y; name the key with --points-key."
        )
        return f"{place} must be annotations with a list of points; got none in {num_documents:,} looked at. {remedy}"
    ordered = sorted(usual.items(), key=lambda item: (-item[1][1], -item[1][0], str(item[0])))
    lines = [
        f"{word_key(path)!r} ({number} points, in {times} of {num_documents})" for path, (number, times) in ordered
    ]
    got = "; ".join(lines[:12]) + (f"; and {len(lines) - 12} more" if len(lines) > 12 else "")
    remedy = f"Name the right one: --points-key {word_key(ordered[0][0])}."
    return f"{place} must be annotations with one list of points in nearly all; got {got}. {remedy}"


def _guess_photo(documents: Sequence[Any]) -> KeyPath | None:
    """Find where a photo's name stands: a text that ends like an image, or has a usual key."""
    times: Counter[KeyPath] = Counter()
    for document in documents:
        times.update(path for path, value in _texts(document) if _states_photo(path, value))
    likely = [path for path, number in times.items() if _photo_rank(path) or number >= 0.5 * len(documents)]
    in_order = sorted(likely, key=lambda path: (-_photo_rank(path), -times[path], len(path), str(path)))
    return in_order[0] if in_order else None


def _photo_rank(path: KeyPath) -> int:
    name = plain_name(_last_key(path)).replace("_", "")
    return ("filename" in name) * 2 + ("image" in name or "path" in name)


def _states_photo(path: KeyPath, value: str) -> bool:
    return bool(_IS_PHOTO.search(value)) or plain_name(_last_key(path)) in ("filename", "file_name")


def _texts(document: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(document, dict) and len(path) < 4:
        for key, value in document.items():
            if isinstance(value, str) and value:
                yield (*path, key), value
            else:
                yield from _texts(value, (*path, key))


def read_annotation_file(data: bytes | BadAnnotation, shape: JsonShape, *, place: str, stem: str) -> list[Annotation]:
    """Read the JSON of one photo; whatever is wrong with it is said in the annotation."""
    try:
        if isinstance(data, BadAnnotation):
            raise data
        document = parse_json(data)
    except BadAnnotation as problem:
        return [Annotation(place, stem=stem, problem=f"{place} {problem}", reason="bad annotation")]
    return read_document(document, shape, place=place, stem=stem)


def read_document(document: Any, shape: JsonShape, *, place: str, stem: str = "", photo: str = "") -> list[Annotation]:
    """Make annotations of the JSON of one sample: mostly one, several where the key path gives several.

    Args:
        document: The JSON.
        shape: What stands where.
        place: Where it stands, for messages.
        stem: The file's path without suffix, where it is a file.
        photo: The photo's name, where it stands outside the document.
    """
    stated = next((value for value, _ in values_at(document, shape.photo)), "") if shape.photo and not photo else photo
    texts = box_states(document) if shape.has_states and is_driver_state(document) else _own_texts(document, shape)
    whole = Annotation(place, stated if isinstance(stated, str) else "", stem, texts=texts)
    try:
        found = points_at(document, shape.points)
    except BadAnnotation as problem:
        return [whole.refused(f"{place} {problem}")]
    if not found:
        return [whole.refused(f"{place} has nothing at {word_key(shape.points)!r}", "no annotation")]
    whole = replace(whole, is_one_of_many=len(found) > 1)
    return [_with_box(_one(whole, points, holder), document, holder, shape) for points, holder in found]


def _one(whole: Annotation, points: PointSet | None, holder: Any) -> Annotation:
    number = len(points.points) if points else 0
    counted = _stated_count(holder)
    if counted not in (None, number, 2 * number):
        return whole.refused(f"{whole.place} counts {counted} points and lists {number}")
    if points is None or not points.visible.any():
        what = "marks no point as visible" if points else "has no points"
        return whole.refused(f"{whole.place} {what}", "no annotation")
    return replace(whole, content=points)


def _stated_count(holder: Any) -> int | None:
    """Give the number that stands beside the points as their count."""
    if not isinstance(holder, dict):
        return None
    stated = next((value for key, value in holder.items() if key.lower() in _COUNT_NAMES), None)
    if stated is None or not is_number(stated) or not abs(float(stated)) < _MAX_COUNT:
        return None
    return int(float(stated))


def _with_box(sample: Annotation, document: Any, holder: Any, shape: JsonShape) -> Annotation:
    """Add the box asked for: a sample of its own in a list has its own box."""
    if shape.crop_to_box is None or sample.reason is not None:
        return sample
    is_beside = sample.is_one_of_many or has_box(holder, shape.crop_to_box)
    try:
        return replace(sample, box=find_box(holder if is_beside else document, shape.crop_to_box))
    except BadAnnotation as problem:
        return sample.refused(f"{sample.place} {problem}")


def _own_texts(document: Any, shape: JsonShape) -> dict[str, str]:
    """Give the words and numbers that stand at the top of a sample's JSON as text columns."""
    if not isinstance(document, dict):
        return {}
    photo = shape.photo[0] if shape.photo and len(shape.photo) == 1 else None
    texts = {
        str(key): value if isinstance(value, str) else shown(value)
        for key, value in document.items()
        if isinstance(value, str | int | float) and key != photo and str(key).lower() not in _COUNT_NAMES
    }
    short = ((key, value) for key, value in texts.items() if len(value) <= _LONGEST_TEXT and key.strip())
    return dict(pair for pair, _ in zip(short, range(_MAX_TEXTS), strict=False))


def find_records(document: Any, *, names_photo: Callable[[str], bool]) -> list[tuple[str, Any]] | None:
    """Find the records of a JSON that annotates many photos, each with its photo's name where a key states it.

    Args:
        document: A list of records, an object keyed by file name, or an object that holds one of these.
        names_photo: Says whether a key is a photo's name.

    Returns:
        (photo's name or "", record); None where the document is none of these.

    Examples:
        >>> find_records({"1.jpg": [[1, 2], [3, 4]]}, names_photo=lambda name: name.endswith(".jpg"))
        [('1.jpg', [[1, 2], [3, 4]])]
    """
    inner = list(document.values()) if isinstance(document, dict) else []
    for candidate in (document, *(value for value in inner if isinstance(value, list | dict))):
        if isinstance(candidate, dict) and candidate:
            if sum(map(names_photo, map(str, candidate))) >= 0.5 * len(candidate):
                return [(str(key), value) for key, value in candidate.items()]
        elif isinstance(candidate, list) and _guess_photo(spread(candidate)) is not None:
            return [("", record) for record in candidate]
    return None
