"""Where a sample with points begins: photos and their annotations, in any usual form → ``SampleTable``.

``read_keypoint_source`` looks at what it was given: a table (``points_tables.py``), one JSON per photo or one for all
(``json_sources.py``, ``coco.py``), or ``.pts`` files (``pts.py``). No photo is opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from headstart.data.annotation_files import PhotoNames, read_files, without_suffix
from headstart.data.annotation_json import parse_json
from headstart.data.annotation_table import rows_of
from headstart.data.annotations import Annotation, BadAnnotation
from headstart.data.coco import is_coco, read_coco
from headstart.data.folders import FolderListing, has_image_suffix, some
from headstart.data.groups import take_groups
from headstart.data.json_sources import JsonShape, find_records, find_shape, read_annotation_file, read_document, spread
from headstart.data.keypoint_guess import num_points, word_broken
from headstart.data.keypoints import KeypointLayout, points_of, visible_of
from headstart.data.label_files import clean_groups, clean_splits, image_root_of, is_label_file
from headstart.data.name_columns import take_name_columns
from headstart.data.places import Place, find_place, named_as_given, with_names_as_given
from headstart.data.points_tables import read_points_table
from headstart.data.pts import SHIFT, read_pts
from headstart.data.table import SampleTable, table_from_keypoints
from headstart.errors import SourceError, all_at_once, did_you_mean, must_be
from headstart.progress import track
from headstart.recipe import Recipe

Form = Literal["table", "json", "coco", "pts"]

_KINDS: Final = "a folder of photos, a table of points, or an archive of either"
_ANNOTATION_KINDS: Final = "a folder of JSON or .pts files, one JSON for all, a table of points, or an archive of these"
_NOT_HEEDED: Final[dict[Form, tuple[str, ...]]] = {
    "table": ("points_key",),
    "json": ("path_column",),
    "coco": ("path_column", "points_key"),
    "pts": ("path_column", "points_key", "crop_to_box"),
}
"""Settings that say nothing about a form of annotations; taking them silently would mislead."""
_FORM_NAMES: Final[dict[Form, str]] = {
    "table": "a table",
    "json": "JSON annotations",
    "coco": "COCO keypoints",
    "pts": ".pts files",
}
_SUFFIXES: Final[dict[str, Form]] = {".json": "json", ".pts": "pts"}
_FEW_FILES: Final = 2000  # below which reading is not worth a line
_MANY_WHOLE: Final = 16  # files that may each hold all annotations of a split


@dataclass(frozen=True)
class _Read:
    """What was read, before file names, groups and splits are looked at."""

    frame: pl.DataFrame
    layout: KeypointLayout
    root: Path
    place: Path
    notes: tuple[str, ...]
    is_driver_state: bool = False


@dataclass(frozen=True)
class _Found:
    """Annotations that were read from files.

    Attributes:
        annotations: All of them, also those that cannot be used.
        notes: What was guessed.
        box_names: The boxes that samples have.
        is_driver_state: Whether they have that layout.
    """

    annotations: list[Annotation]
    notes: tuple[str, ...]
    box_names: tuple[str, ...] = ()
    is_driver_state: bool = False

    @classmethod
    def of(cls, annotations: list[Annotation], shape: JsonShape) -> _Found:
        return cls(annotations, shape.notes, shape.box_names, shape.has_states)


@dataclass(frozen=True)
class _Files:
    """Annotation files of one form, and the photos they may belong to."""

    form: Form
    folder: Path
    names: tuple[str, ...]
    photos: Path
    photo_listing: FolderListing


def read_keypoint_source(recipe: Recipe, *, unpack_dir: Path) -> SampleTable:
    r"""List the samples of ``recipe.data`` with their points, boxes, text columns, groups and given splits.

    Args:
        recipe: Says where photos and annotations are, and what means what.
        unpack_dir: Where an archive is unpacked (below it, in a folder of its own).

    Returns:
        The table: one row per annotation, and one per photo without any; notes on what was guessed or noticed.

    Raises:
        SourceError: Nothing can be used, or what was given can mean several things; the message says what to do.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for name in ("1.jpg", "2.jpg"):
        ...         _ = (Path(place) / name).write_bytes(b"")
        ...     _ = (Path(place) / "points.csv").write_text("path,x1,y1,x2,y2\n1.jpg,10,11,20,21\n2.jpg,5,6,,8\n")
        ...     recipe = Recipe(task="keypoints", data=f"{place}/points.csv")
        ...     table = read_keypoint_source(recipe, unpack_dir=Path(place))
        >>> table.frame.height, table.excluded_counts, table.keypoints.num_keypoints
        (2, {'bad annotation': 1}, 2)
    """
    if recipe.label_column is not None:
        raise SourceError(must_be("--label-column", "left out for keypoints", recipe.label_column, "Leave it out."))
    places = [find_place(recipe.data, recipe, unpack_dir=unpack_dir, kinds=_KINDS)]
    if recipe.annotations is not None:
        places.append(
            find_place(
                recipe.annotations, recipe, unpack_dir=unpack_dir, kinds=_ANNOTATION_KINDS, setting="--annotations"
            )
        )
    with named_as_given(*places):
        read = _read_place(places[0].path, places[1].path if recipe.annotations is not None else None, recipe)
        table = _completed(read, recipe, _notes_of(places))
        _refuse_empty(table, read.place)
        _refuse_normalised(table, read.place)
    return with_names_as_given(table, *places)


def _notes_of(places: Sequence[Place]) -> tuple[str, ...]:
    """Give the notes of places, those of one archive that holds both photos and annotations once."""
    is_same = len({place.unpacked for place in places}) < len(places)
    return places[0].notes if is_same else tuple(note for place in places for note in place.notes)


def _read_place(data: Path, annotations: Path | None, recipe: Recipe) -> _Read:
    place = annotations or data
    own_root = data if data.is_dir() and recipe.image_root is None else None
    if place.is_dir():
        return _read_folder(place, own_root if annotations else None, _photo_folder(data, recipe), recipe)
    if is_label_file(place):
        return _read_table(place, own_root, recipe)
    if place.suffix.lower() != ".json":
        setting, kinds = ("--annotations", _ANNOTATION_KINDS) if annotations else ("data", _KINDS)
        raise SourceError(must_be(setting, kinds, str(place), "Give the folder, where it is one of many files."))
    photos = _photo_folder(data, recipe)
    return _read_files(_Files("json", place.parent, (place.name,), photos, FolderListing(photos)), recipe)


def _read_folder(place: Path, root: Path | None, photos: Path, recipe: Recipe) -> _Read:
    """Read the one form of annotations that lies in a folder: a table of points at its top, or files anywhere below."""
    listing = FolderListing(place)
    names = listing.paths
    tables = [name for name in names.filter(~names.str.contains("/")) if is_label_file(Path(name))]
    chosen = [name for name in tables if num_points(place / name, is_known=True)]
    files = {suffix: names.filter(names.str.to_lowercase().str.ends_with(suffix)) for suffix in _SUFFIXES}
    present = [*chosen, *(f"{len(found):,} {suffix} files" for suffix, found in files.items() if len(found))]
    if len(present) != 1:
        raise SourceError(_word_choice(place, present, tables))
    if chosen:
        return _read_table(place / chosen[0], root, recipe)
    suffix = next(suffix for suffix, found in files.items() if len(found))
    own = listing if photos == place else FolderListing(photos)
    return _read_files(_Files(_SUFFIXES[suffix], place, tuple(files[suffix]), photos, own), recipe)


def _photo_folder(data: Path, recipe: Recipe) -> Path:
    return image_root_of(data, recipe) if data.is_file() or recipe.image_root is not None else data


def _word_choice(place: Path, present: list[str], tables: list[str]) -> str:
    if present:
        remedy = f"Name the one to use, e.g. --annotations {place / present[0]}."
        if present[0].endswith(" files"):
            remedy = "Name the ones to use with --annotations, or move the others away."
        return must_be(str(place), "a folder with one form of annotations", present, remedy)
    remedy = "Name them: --annotations FOLDER_OR_FILE."
    got = f"tables without points: {some(tables)}" if tables else "none"
    return f"{place} must be a folder with annotations (a table of points, JSON or .pts files); got {got}. {remedy}"


def _read_table(path: Path, root: Path | None, recipe: Recipe) -> _Read:
    root = root or image_root_of(path, recipe)
    _refuse_unheeded(recipe, "table")
    frame, layout, notes = read_points_table(path, recipe, root=root)
    return _Read(frame, layout, root, path, tuple(notes))


def _read_files(files: _Files, recipe: Recipe) -> _Read:
    """Read JSON or .pts files and pair them with the photos."""
    paths = files.photo_listing.paths
    photos = PhotoNames(paths.to_frame().filter(has_image_suffix(pl.col("path")))["path"].to_list())
    place = files.folder / files.names[0] if len(files.names) == 1 else files.folder
    if not photos.paths:
        raise SourceError(must_be(str(files.photos), "a folder of photos", "no image", "Name it: --image-root FOLDER."))
    _refuse_unheeded(recipe, files.form)
    found = _read_pts_files(files) if files.form == "pts" else _read_json_files(files, photos, recipe, place)
    frame, layout, pairing = rows_of(found.annotations, photos, files.photo_listing.unusable, place=str(place))
    layout = replace(layout, box_names=found.box_names)
    loops = files.photo_listing.loops
    loop_notes = [f"Links to folders that hold them were not followed: {some(loops)}."] if loops else []
    notes = (*found.notes, *pairing, *loop_notes)
    return _Read(frame, layout, files.photos, place, notes, found.is_driver_state)


def _refuse_unheeded(recipe: Recipe, form: Form) -> None:
    problems = [
        must_be(f"--{name.replace('_', '-')}", f"left out for {_FORM_NAMES[form]}", value, "Leave it out.")
        for name in _NOT_HEEDED[form]
        if (value := getattr(recipe, name)) is not None
    ]
    if form == "coco" and recipe.crop_to_box not in (None, "bbox"):
        problems.append(must_be("--crop-to-box", "bbox, the box that COCO has", recipe.crop_to_box, "Give bbox."))
    if problems:
        raise SourceError(all_at_once(problems))


def _pts_note() -> str:
    return f"Coordinates of .pts files count the first pixel's centre as 1; {-SHIFT} was taken off."


def _read_pts_files(files: _Files) -> _Found:
    paths = [files.folder / name for name in files.names]
    with track("reading annotations", len(paths), unit="files", quiet=len(paths) < _FEW_FILES) as advance:
        found: list[Annotation] = []
        for name, data in zip(files.names, read_files(paths), strict=True):
            found.append(read_pts(data, place=name, stem=without_suffix(name)))
            advance(1)
    return _Found(found, (_pts_note(),))


def _read_json_files(files: _Files, photos: PhotoNames, recipe: Recipe, place: Path) -> _Found:
    """Read one JSON for all, where it is one, else one per photo."""
    if len(files.names) <= _MANY_WHOLE:
        whole = [(name, _parsed(files.folder / name)) for name in files.names]
        coco = [name for name, document in whole if is_coco(document)]
        if len(coco) > 1:
            remedy = f"Name the one to use: --annotations {files.folder / coco[0]}."
            raise SourceError(must_be(str(files.folder), "a folder with one COCO file", coco, remedy))
        if coco and len(whole) == 1:
            _refuse_unheeded(recipe, "coco")
            found = read_coco(whole[0][1], place=coco[0], needs_box=recipe.crop_to_box is not None)
            has_boxes = any(annotation.box for annotation in found)
            return _Found(found, (_coco_note(coco[0]),), ("bbox",) if has_boxes else ())
        records = find_records(whole[0][1], names_photo=photos.__contains__) if len(whole) == 1 else None
        if records is not None:
            return _read_records(records, recipe, place)
    return _read_single_files(files, recipe, place)


def _coco_note(name: str) -> str:
    return f"{name} was read as COCO keypoints; each annotation is a sample."


def _parsed(path: Path) -> Any:
    """Read a JSON for a look at it; None where it is broken, which is said when it is read as an annotation."""
    try:
        return parse_json(path.read_bytes())
    except (BadAnnotation, OSError):
        return None


def _read_records(records: Sequence[tuple[str, Any]], recipe: Recipe, place: Path) -> _Found:
    shape = find_shape([record for _, record in spread(records)], recipe, place=place.name)
    found = [
        annotation
        for number, (photo, record) in enumerate(records, 1)
        for annotation in read_document(
            record, shape, place=f"{place.name} {repr(photo) if photo else f'record {number}'}", photo=photo
        )
    ]
    return _Found.of(found, shape)


def _read_single_files(files: _Files, recipe: Recipe, place: Path) -> _Found:
    shape = _shape_of_files(files, recipe, place)
    paths = [files.folder / name for name in files.names]
    found: list[Annotation] = []
    with track("reading annotations", len(paths), unit="files", quiet=len(paths) < _FEW_FILES) as advance:
        for name, data in zip(files.names, read_files(paths), strict=True):
            found += read_annotation_file(data, shape, place=name, stem=without_suffix(name))
            advance(1)
    return _Found.of(found, shape)


def _shape_of_files(files: _Files, recipe: Recipe, place: Path) -> JsonShape:
    """Find out what stands where from some of the files; the broken ones are left to the reading of all."""
    documents, problems = _parsed_files(files.folder, spread(files.names))
    if not documents and len(problems) < len(files.names):
        documents, problems = _parsed_files(files.folder, files.names)
    if not documents:
        raise SourceError(word_broken(str(place), problems))
    return find_shape(spread(documents), recipe, place=place.name)


def _parsed_files(folder: Path, names: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Read JSON files; give the documents, and what is wrong with the others."""
    documents: list[Any] = []
    problems: list[str] = []
    for name, data in zip(names, read_files([folder / name for name in names]), strict=True):
        try:
            if isinstance(data, BadAnnotation):
                raise data
            documents.append(parse_json(data))
        except BadAnnotation as problem:
            problems.append(f"{name} {problem}")
    return documents, problems


def _completed(read: _Read, recipe: Recipe, notes: tuple[str, ...]) -> SampleTable:
    """Add what file names say, groups and splits, and make the table."""
    frame, name_notes = take_name_columns(read.frame, recipe, is_driver_state=read.is_driver_state)
    for meaning, column in (("group", recipe.group_column), ("split", recipe.split_column)):
        if column is not None and (meaning not in frame.columns or column in frame.columns):
            frame = frame.with_columns(_asked_column(frame, column, meaning).alias(meaning))
    frame = clean_groups(frame)
    split_column = recipe.split_column or ("split" if "split" in frame.columns else None)
    frame, split_notes = clean_splits(frame, read.place, split_column)
    frame, group_notes = take_groups(frame, recipe)
    said = (*notes, *read.notes, *name_notes, *split_notes, *group_notes)
    return table_from_keypoints(frame, root=read.root, layout=read.layout, notes=said)


def _asked_column(frame: pl.DataFrame, column: str, meaning: str) -> pl.Series:
    texts = [
        name
        for name, dtype in frame.schema.items()
        if dtype == pl.String and name not in ("path", "excluded", "detail")
    ]
    if column not in texts:
        got = f"a text column: {', '.join(texts) or 'there is none'}"
        raise SourceError(must_be(f"--{meaning}-column", got, column, did_you_mean(column, texts)))
    return frame[column]


def _refuse_empty(table: SampleTable, place: Path) -> None:
    if table.kept.height:
        return
    counts = "; ".join(f"{number:,} × {reason}" for reason, number in table.excluded_counts.items()) or "no sample"
    examples = table.frame["detail"].drop_nulls().head(3).to_list()
    said = f" ({'; '.join(examples)})" if examples else ""
    remedy = "If the photos lie elsewhere, give --image-root." if "missing" in table.excluded_counts else ""
    raise SourceError(
        f"{place} must be annotations of which at least one can be used; got {counts}{said}. {remedy}".rstrip()
    )


def _refuse_normalised(table: SampleTable, place: Path) -> None:
    """Refuse shares of width and height: how large a photo is, nothing says here."""
    points = points_of(table.kept)[visible_of(table.kept)]
    if points.min() < 0 or points.max() > 1:
        return
    remedy = "Multiply x by each photo's width and y by its height."
    raise SourceError(
        f"{place} must be points in pixels; all coordinates lie between 0 and 1: they look normalised. {remedy}"
    )
