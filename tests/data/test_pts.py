"""``.pts`` files: the half pixel, and what can be wrong with one."""

from pathlib import Path

import pytest

from annotated_photos import details, photos, read, write
from headstart.data.keypoints import points_of


def pts(*points: tuple[float, float], count: int | None = None) -> str:
    lines = "\n".join(f"{x} {y}" for x, y in points)
    return f"version: 1\nn_points: {len(points) if count is None else count}\n{{\n{lines}\n}}\n"


def test_pts_files_lose_the_half_pixel_of_matlab(tmp_path: Path) -> None:
    photos(tmp_path, "1.png")
    write(tmp_path / "1.pts", pts((1, 1), (100.5, 50)))
    table = read(tmp_path)
    assert points_of(table.kept).tolist() == [[[0.5, 0.5], [100, 49.5]]]
    assert any("0.5 was taken off" in note for note in table.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "3.pts has no points between { and }"),
        (pts((1, 2), (3, 4), count=68), "3.pts counts 68 points and lists 2"),
        (pts((1, 2)), "3.pts has 1 points, the others 2"),
        (pts((1, 2), (3, 4)).replace("3 4", "3"), "3.pts has 1 numbers in the line of point 1"),
        (pts((1, 2), (3, 4)).replace("3 4", "3 x"), '3.pts number 4 of 4 is "x"'),
        (pts((1, 2), (3, float("nan"))), "3.pts point 1 (counted from 0) is at (2.5, nan)"),
    ],
)
def test_a_bad_pts_file_is_excluded_and_says_why(tmp_path: Path, text: str, words: str) -> None:
    photos(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    for number in (1, 2):
        write(tmp_path / "points" / f"{number}.pts", pts((10, 20), (30, 40)))
    write(tmp_path / "points" / "3.pts", text)
    table = read(tmp_path / "images", annotations=tmp_path / "points")
    assert details(table) == {"3.jpg": details(table)["3.jpg"]}
    assert details(table)["3.jpg"].startswith(f"bad annotation: {words}")
