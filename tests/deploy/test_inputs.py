from pathlib import Path

import polars as pl
import pytest

from headstart.deploy.inputs import gather_inputs
from headstart.errors import SourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "하위/깊이/c.webp", ".hidden.jpg", "Thumbs.db", "notes.txt", "하위/labels.csv"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"path\nx.jpg\n" if name.endswith(".csv") else b"x")
    return tmp_path / "photos"


def names(paths: list[str], folder: Path) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_every_image_in_it_and_below_in_order(folder: Path):
    assert names(gather_inputs([str(folder)]), folder) == ["a.png", "b.JPG", "하위/깊이/c.webp"]


def test_files_are_taken_as_named_and_in_the_order_named(folder: Path):
    given = [str(folder / "notes.txt"), str(folder / "b.JPG"), str(folder / "missing.jpg"), str(folder / "b.JPG")]
    assert gather_inputs(given) == given[:3]


def test_globs_go_through_folders(folder: Path):
    assert names(gather_inputs([str(folder / "*.png")]), folder) == ["a.png"]
    assert names(gather_inputs([str(folder / "**" / "*.webp")]), folder) == ["하위/깊이/c.webp"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path):
    (folder / "odd[1].jpg").touch()
    assert names(gather_inputs([str(folder / "odd[1].jpg")]), folder) == ["odd[1].jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_a_table_gives_its_paths_from_its_own_folder(folder: Path, encoding: str):
    table = folder / "목록.csv"
    table.write_text("번호,image,label\n1,하위/깊이/c.webp,고양이\n2, /elsewhere/d.jpg,개\n3,,개\n", encoding=encoding)
    assert gather_inputs([str(table)]) == [str(folder / "하위/깊이/c.webp"), "/elsewhere/d.jpg"]


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_other_tables_are_read_too(folder: Path, suffix: str):
    frame = pl.DataFrame({"file": ["a.png", "b.JPG"], "n": [1, 2]})
    table = folder / f"list{suffix}"
    frame.write_parquet(table) if suffix == ".parquet" else frame.write_csv(table, separator="\t")
    assert names(gather_inputs([str(table)]), folder) == ["a.png", "b.JPG"]


def test_a_named_column_decides_between_several(folder: Path):
    (folder / "two.csv").write_text("left,right\na.png,b.JPG\n")
    with pytest.raises(
        SourceError, match=r"two\.csv must be a table with one column of image paths; got \['left', 'right'\]"
    ):
        gather_inputs([str(folder / "two.csv")])
    assert names(gather_inputs([str(folder / "two.csv")], path_column="right"), folder) == ["b.JPG"]
    with pytest.raises(SourceError, match="must be one of left, right; got 'middle'"):
        gather_inputs([str(folder / "two.csv")], path_column="middle")


def test_a_folder_or_glob_without_photos_is_refused(folder: Path, tmp_path: Path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(SourceError, match=r"images must be a folder with photos .* got '.*bare'"):
        gather_inputs([str(tmp_path / "bare")])
    with pytest.raises(SourceError, match=r"images must be a pattern that matches files; got '.*\*\.gif'"):
        gather_inputs([str(folder / "*.gif")])


def test_nothing_named_is_refused():
    with pytest.raises(SourceError, match=r"images must be files, folders, globs or tables; got \[\]"):
        gather_inputs([])
