"""The set on the disk: twin trees, names, labels, broken files; the same bytes for the same seed."""

import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from headstart.drawing.face_set import COLUMNS, broken_faces
from headstart.errors import HeadstartError
from headstart.samples import write_faces

COUNT, SEED = 14, 3
NAME = re.compile(
    r"(?P<look>[RI])_(?P<person>\d{3})_(?P<age>\d0)_(?P<gender>[MF])_\d\d"
    r"_M(?P<mask>[01])_G(?P<glasses>[01])_C(?P<cap>[01])_\d\d"
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A set of two persons, with three broken label files, in a Korean folder."""
    folder = tmp_path_factory.mktemp("sets") / "운전자 얼굴"
    assert write_faces(folder, count=COUNT, seed=SEED, with_broken=True) == COUNT
    return folder


@pytest.fixture(scope="module")
def labels(faces):
    """The label files that are whole, by path."""
    broken = broken_faces(count=COUNT, seed=SEED)
    files = [path for path in sorted(faces.glob("labels/*/*.json")) if path.relative_to(faces).as_posix() not in broken]
    return {path: json.loads(path.read_text()) for path in files}


def rows_of(faces):
    with (faces / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_pictures_and_labels_stand_in_twin_trees(faces):
    pictures, labels = (sorted(faces.glob(pattern)) for pattern in ("images/*/*.jpg", "labels/*/*.json"))
    assert len(pictures) == COUNT
    assert [(p.parent.name, p.stem) for p in pictures] == [(p.parent.name, p.stem) for p in labels]
    assert [path.name for path in sorted(faces.iterdir())] == ["images", "labels", "labels.csv"]


def test_names_say_what_the_table_says(faces):
    rows = rows_of(faces)
    assert tuple(rows[0]) == COLUMNS
    assert sorted(row["path"] for row in rows) == [
        p.relative_to(faces).as_posix() for p in sorted(faces.glob("images/*/*"))
    ]
    for row in rows:
        folder, name = row["path"].removesuffix(".jpg").split("/")[1:]
        said = NAME.fullmatch(name).groupdict()
        assert said | {"look": {"R": "light", "I": "infrared"}[said["look"]]} == {key: row[key] for key in COLUMNS[1:]}
        assert folder == row["person"]


def test_a_label_file_has_the_driver_state_layout(faces, labels):
    assert len(labels) == COUNT - 3
    for path, label in labels.items():
        info, points = label["FileInfo"], label["ObjectInfo"]["KeyPoints"]
        with Image.open(faces / "images" / path.parent.name / info["FileName"]) as picture:
            assert picture.size == (info["Width"], info["Height"]) == (1280, 720)
            assert picture.mode == ("L" if path.name.startswith("I") else "RGB")
        assert points["Count"] == 70
        assert len(points["Points"]) == 140
        assert all(re.fullmatch(r"\d+\.\d\d", number) for number in points["Points"])


def test_boxes_hold_their_points_and_the_left_eye_is_the_persons(labels):
    parts = {"Leye": slice(42, 48), "Reye": slice(36, 42), "Mouth": slice(48, 68), "Face": slice(0, 70)}
    for label in labels.values():
        points = np.array(label["ObjectInfo"]["KeyPoints"]["Points"], float).reshape(70, 2)
        for name, place in parts.items():
            left, top, right, bottom = label["ObjectInfo"]["BoundingBox"][name]["Position"]
            assert (points[place] > (left - 5, top - 5)).all()
            assert (points[place] < (right + 5, bottom + 5)).all()


def test_opened_agrees_with_the_points(labels):
    for label in labels.values():
        points = np.array(label["ObjectInfo"]["KeyPoints"]["Points"], float).reshape(70, 2)
        width = np.linalg.norm(points[45] - points[36])
        boxes = label["ObjectInfo"]["BoundingBox"]
        for name, upper, lower, least in (("Leye", 43, 47, 0.03), ("Reye", 38, 40, 0.03), ("Mouth", 62, 66, 0.04)):
            assert boxes[name]["Opened"] == (np.linalg.norm(points[upper] - points[lower]) / width > least)


def test_a_masked_mouth_is_not_visible(labels):
    said = {
        "_M1_" in path.name: label["ObjectInfo"]["BoundingBox"]["Mouth"]["isVisible"] for path, label in labels.items()
    }
    assert said == {True: False, False: True}


def test_three_label_files_are_broken_as_said(faces):
    broken = {damage: (faces / path).read_text() for path, damage in broken_faces(count=COUNT, seed=SEED).items()}
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken["cut off"])
    short, holes = (
        json.loads(broken[kind])["ObjectInfo"]["KeyPoints"] for kind in ("one point missing", "a number missing")
    )
    assert (short["Count"], len(short["Points"])) == (70, 138)
    assert len(holes["Points"]) == 140
    assert "" in holes["Points"]
    assert "NaN" in holes["Points"]


def test_a_smaller_set_drawn_by_one_thread_is_the_start_of_the_larger_one(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    write_faces(tmp_path / "few", count=3, seed=SEED)
    few, many = contents(tmp_path / "few"), contents(faces)
    del few["labels.csv"]
    broken = broken_faces(count=COUNT, seed=SEED)
    assert len(few) == 6
    assert all(many[path] == content for path, content in few.items() if path not in broken)


def test_another_seed_gives_other_faces(faces, tmp_path):
    write_faces(tmp_path / "other", count=1, seed=SEED + 1)
    assert not set(contents(tmp_path / "other").values()) & set(contents(faces).values())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(HeadstartError, match="DIR must be a new or empty folder; got "):
        write_faces(tmp_path, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "--count must be at least 1; got 0."),
        ({"count": 2, "with_broken": True}, "--count must be at least 3 with --broken; got 2."),
        ({"seed": -1}, "--seed must be 0 or more; got -1."),
        ({"count": -5, "seed": -1}, "2 problems:"),
    ],
)
def test_settings_out_of_bounds_are_refused_before_any_work(tmp_path, settings, message):
    with pytest.raises(HeadstartError, match=re.escape(message)):
        write_faces(tmp_path / "faces", **settings)
    assert not any(tmp_path.iterdir())


def test_half_a_set_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("simplejpeg.encode_jpeg", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_faces(tmp_path / "faces", count=2)
    assert not any(tmp_path.iterdir())
