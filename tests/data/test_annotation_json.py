"""JSON that is damaged, or made to do harm: whatever stands in it, a sample is left out with words, never a crash."""

import contextlib
import copy
import json

import numpy as np
import pytest

from annotated_photos import driver, seventy
from headstart.data.annotation_boxes import find_box
from headstart.data.annotation_files import PhotoNames
from headstart.data.annotation_json import find_points, parse_json, parse_key, values_at, word_key
from headstart.data.annotation_table import rows_of
from headstart.data.annotations import Annotation, BadAnnotation
from headstart.data.coco import is_coco, read_coco
from headstart.data.json_sources import find_records, find_shape, read_annotation_file, read_document
from headstart.errors import SourceError
from headstart.recipe import Recipe

HOSTILE = [
    *(None, True, False, 0, -1, 10**400, 1e308, float("nan"), float("inf"), "", "x", "1e999", "null", "가" * 500),
    *(
        [],
        {},
        [[]],
        [{}],
        [None],
        [[1]],
        [[1, 2, 3, 4]],
        [1, [2]],
        {"x": 1},
        {"x": None, "y": []},
        {"": ""},
        [[[[1, 2]]]],
    ),
    *([True, False], ["a", "b"], [{"x": 1, "y": 2}, 3], {"x": {"x": 1}, "y": 2}, [10**400] * 140, [float("nan")] * 140),
]
RECIPE = Recipe(task="keypoints", crop_to_box="Face")


def places(document: object, path: tuple = ()) -> list[tuple]:
    """Give the key path of every node."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(found for key, value in list(inner)[:6] for found in places(value, (*path, key)))]


def damaged(document: object, path: tuple, value: object) -> object:
    """Give a copy with another value at one place."""
    if not path:
        return value
    whole = copy.deepcopy(document)
    holder = whole
    for key in path[:-1]:
        holder = holder[key]  # type: ignore[index]
    holder[path[-1]] = value  # type: ignore[index]
    return whole


def dumped(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:24])
def test_one_bad_value_anywhere_in_a_driver_state_file_harms_that_file_only(value: object) -> None:
    good = driver("1.jpg", seventy())
    shape = find_shape([good] * 3, RECIPE, place="labels")
    for path in places(good):
        found = read_annotation_file(dumped(damaged(good, path, value)), shape, place="1.json", stem="1")
        found += read_annotation_file(dumped(good), shape, place="2.json", stem="2")
        frame, _, _ = rows_of(found, PhotoNames(["1.jpg", "2.jpg"]), {}, place="labels")
        assert frame.filter(path="2.jpg")["excluded"].to_list() == [None]
        assert frame.height >= 2


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:24])
def test_one_bad_value_anywhere_in_a_coco_file_is_an_error_or_an_exclusion(value: object) -> None:
    entry = {"image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1], "bbox": [1, 2, 3, 4], "num_keypoints": 2}
    categories = [{"id": 1, "keypoints": ["a", "b"]}]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    good = {"images": images, "annotations": [entry, {**entry, "image_id": 2}], "categories": categories}
    photos = PhotoNames(["1.jpg", "2.jpg"])
    for path in places(good):
        document = damaged(good, path, value)
        if is_coco(document):
            found = read_coco(document, place="coco.json", needs_box=True)  # type: ignore[arg-type]
            assert len(found) == len(document["annotations"])  # type: ignore[index]
            with contextlib.suppress(SourceError):  # where no annotation is left that can be used
                assert rows_of(found, photos, {}, place="coco.json")[0].height >= len(found)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:24])
def test_guesses_never_fail_but_by_their_own_error(value: object) -> None:
    good = {
        "file": "1.jpg",
        "faces": [{"name": "a", "points": [[1, 2], [3, 4], [5, 6]]}],
        "deep": {"er": {"size": [1, 2]}},
    }
    for path in places(good):
        document = damaged(good, path, value)
        find_points(document)
        find_records(document, names_photo=lambda name: name.endswith(".jpg"))
        try:
            shape = find_shape([document], Recipe(task="keypoints"), place="labels")
        except SourceError:
            continue
        assert read_document(document, shape, place="1.json")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is broken JSON at line 1, column 2"),
        (b'{"a": 1}\n{"b": 2}', "is broken JSON at line 2, column 1: Extra data"),
        (b"[" * 200_000, "is nested too deeply"),
        (b"1" * 5000, "cannot be read: Exceeds the limit"),
        (b'{"a": "\xff\xfe\xff"}', "text in no known encoding"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is broken JSON|no known encoding"),
    ],
)
def test_what_is_no_json_says_where_it_breaks(data: bytes, words: str) -> None:
    with pytest.raises(BadAnnotation, match=words):
        parse_json(data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16", "utf-32"])
def test_json_in_any_usual_encoding_is_read(encoding: str) -> None:
    assert parse_json('{"이름": "각"}'.encode(encoding)) == {"이름": "각"}


@pytest.mark.parametrize("text", ["a", "a.b", "a[0].b", "faces[].points", "a[][1]", ".", "얼굴.점"])
def test_a_key_path_is_written_as_it_is_read(text: str) -> None:
    assert word_key(parse_key(text)) == text


@pytest.mark.parametrize("text", ["a..b", "a[x]", "a[", "a]b", "a[-1]"])
def test_what_is_no_key_path_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="--points-key must be keys with dots between"):
        parse_key(text)


def test_a_key_path_gives_what_stands_there_and_nothing_else() -> None:
    document = {"a": [{"b": 1}, {"c": 2}, {"b": [3]}], "d": 4}
    assert [value for value, _ in values_at(document, parse_key("a[].b"))] == [1, [3]]
    assert [value for value, _ in values_at(document, parse_key("a[2].b[0]"))] == [3]
    assert not list(values_at(document, parse_key("d.b"))) + list(values_at(document, parse_key("a[9].b")))


@pytest.mark.parametrize(
    ("boxes", "name", "words"),
    [
        (
            {"a": {"face": [1, 2, 3, 4]}, "b": {"face": [1, 2, 3, 4]}},
            "face",
            "has 2 boxes 'face'; name one by its whole",
        ),
        ({"face": [1, 2, 3]}, "face", r"box 'face' is not four numbers: \[1, 2, 3\]"),
        ({"face": [3, 2, 1, 4]}, "face", "box 'face' has no area: 3.0, 2.0, 1.0, 4.0"),
        ({"face": [1, 2, 3, "nan"]}, "face", "box 'face' is not in a photo: 1.0, 2.0, 3.0, nan"),
        ({"face": {"Position": [1, 2, 3, None]}}, "face", "box 'face' number 4 of 4 is null"),
    ],
)
def test_a_box_that_is_none_says_why(boxes: dict, name: str, words: str) -> None:
    with pytest.raises(BadAnnotation, match=words):
        find_box(boxes, name)


def test_a_box_may_be_written_by_sides_or_by_size() -> None:
    for box in (
        {"left": 1, "top": 2, "right": 4, "bottom": 6},
        {"x": 1, "y": 2, "w": 3, "h": 4},
        {"bbox": [1, 2, 4, 6]},
    ):
        assert find_box({"face": box}, "face") == (1, 2, 4, 6)


def test_pairing_agrees_with_the_names_of_ten_thousand_photos() -> None:
    """Twin trees in which every name occurs in every folder: each annotation finds the photo of its own folder."""
    draw = np.random.default_rng(0)
    paths = sorted({f"images/p{folder}/{name}.jpg" for folder, name in draw.integers(0, 100, (10_000, 2)).tolist()})
    photos = PhotoNames(paths)
    for number, path in enumerate(paths):
        stem = path.replace("images", "labels").removesuffix(".jpg")
        assert photos.match(Annotation(stem, stem=stem)).photo == number
