"""COCO keypoints: every annotation is a sample, and one that is wrong is named."""

from pathlib import Path

import pytest

from annotated_photos import details, layout_of, photos, read, write
from headstart.data.keypoints import boxes_of, visible_of
from headstart.errors import SourceError


def coco(*annotations: dict[str, object]) -> dict[str, object]:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2, 3)]
    categories = [{"id": 1, "name": "face", "keypoints": ["eye", "nose"], "skeleton": [[1, 2]]}]
    return {"images": images, "annotations": list(annotations), "categories": categories}


def face(image: int, keypoints: list[float], **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": 1, "keypoints": keypoints, "bbox": [1, 2, 10, 20], **more}


def test_each_coco_annotation_is_a_sample_and_its_photo_the_group(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    whole = coco(face(1, [5, 6, 2, 7, 8, 1]), face(1, [9, 6, 2, 0, 0, 0]), face(2, [5, 6, 2, 7, 8, 2]))
    table = read(tmp_path / "images", annotations=write(tmp_path / "coco.json", whole))
    assert table.kept["path"].to_list() == ["1.jpg", "1.jpg", "2.jpg"]
    assert table.kept["group"].to_list() == ["1.jpg", "1.jpg", "2.jpg"]
    assert visible_of(table.kept).tolist() == [[True, True], [True, False], [True, True]]
    assert boxes_of(table.kept)[0].tolist() == [1, 2, 11, 22]
    assert layout_of(table).names == ("eye", "nose")
    assert layout_of(table).box_names == ("bbox",)
    assert details(table) == {"3.jpg": "no annotation: nothing annotates it"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (face(2, [0, 0, 0, 0, 0, 0]), "no annotation: coco.json annotation 2 marks no point"),
        (face(2, [1, 2, 2, 3, 4, 2], num_keypoints=0), "no annotation: coco.json annotation 2 marks no point"),
        ({"image_id": 2}, "no annotation: coco.json annotation 2 marks no point"),
        (face(2, [1, 2, 2, 3]), "bad annotation: coco.json annotation 2 has 4 numbers, which make no triples"),
        (face(2, [1, 2, 7, 3, 4, 2]), "bad annotation: coco.json annotation 2 has a v that is not 0, 1 or 2"),
        (face(2, [1, 2, 2, 3, 4, 2, 5, 6, 2]), "bad annotation: coco.json annotation 2 has 3 points, the others 2"),
        (face(2, [1, 2, 2, None, 4, 2]), "bad annotation: coco.json annotation 2 number 4 of 6 is null"),
        (
            face(2, [1, 2, 2, 3, 4, 2], bbox=[1, 2, 0, 4]),
            "bad annotation: coco.json annotation 2 box 'bbox' has no area",
        ),
    ],
)
def test_a_bad_coco_annotation_is_excluded_and_says_why(tmp_path: Path, entry: dict, reason: str) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    whole = coco(face(1, [5, 6, 2, 7, 8, 1]), entry, face(3, [5, 6, 2, 7, 8, 1]))
    table = read(tmp_path / "images", annotations=write(tmp_path / "coco.json", whole), crop_to_box="bbox")
    assert details(table)["2.jpg"].startswith(reason)


def test_a_coco_annotation_of_an_unknown_image_is_missing(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg")
    whole = coco(face(1, [5, 6, 2, 7, 8, 1]), face(77, [5, 6, 2, 7, 8, 1]))
    table = read(tmp_path / "images", annotations=write(tmp_path / "coco.json", whole))
    assert "missing: coco.json annotation 2 belongs to image '77', which has no file name" in details(table).values()


def test_two_coco_files_are_an_error_that_names_them(tmp_path: Path) -> None:
    photos(tmp_path / "images", "1.jpg")
    for name in ("train", "val"):
        write(tmp_path / "labels" / f"{name}.json", coco(face(1, [5, 6, 2, 7, 8, 1])))
    with pytest.raises(SourceError, match=r"one COCO file; got \['train.json', 'val.json'\]"):
        read(tmp_path / "images", annotations=tmp_path / "labels")
