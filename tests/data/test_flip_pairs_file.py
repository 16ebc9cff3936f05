import re

import pytest

from headstart.data.flip_pairs_file import read_flip_pairs
from headstart.errors import SourceError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.csv", "4,3\n0,1\n"),
        ("header.csv", "left,right\n0,1\n3,4\n"),
        ("korean.csv", "왼쪽,오른쪽\n0,1\n\n3,4\n"),
        ("semicolon.csv", "left;right\r\n0; 1\r\n3; 4\r\n"),
        ("tab.tsv", "0\t1\n3\t4"),
        ("mark.csv", "\ufeff0,1\n3,4\n"),
        ("list.json", "[[1, 0], [3, 4]]"),
    ],
)
def test_pairs_are_read_from_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_flip_pairs(tmp_path / name, 5) == ((0, 1), (3, 4))


def test_a_header_in_cp949_is_no_obstacle(tmp_path):
    (tmp_path / "pairs.csv").write_bytes("왼쪽,오른쪽\n0,1\n".encode("cp949"))
    assert read_flip_pairs(tmp_path / "pairs.csv", 5) == ((0, 1),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "0,1\n2,5\n", "a.csv row 2, right must be a point index from 0 to 4; got '5'."),
        ("a.csv", "0,1\n-1,4\n", "a.csv row 2, left must be a point index from 0 to 4; got '-1'."),
        ("a.csv", "left,right\n0,1\nnose,4\n", "a.csv row 3, left must be a point index from 0 to 4; got 'nose'."),
        ("a.csv", "0,1.0\n", "a.csv row 1, right must be a point index from 0 to 4; got '1.0'."),
        ("a.csv", "0,1,2\n", "a.csv row 1 must be two point indices; got ['0', '1', '2']."),
        ("a.csv", "0,1\n3,1\n", "row 2 must be two points that stand in no other pair; got 1. Point 1 stands in "),
        ("a.csv", "2,2\n", "got 2. Point 2 stands in the same pair too."),
        ("a.csv", "left,right\n", "a.csv must be a list of pairs, one at least; got 'none'. Write one pair a line"),
        ("a.json", "[[0, true]]", "a.json pair 1, right must be a point index from 0 to 4; got True."),
        ("a.json", '[[0, "x"], 7]', "a.json pair 2 must be two point indices; got [7]."),
        ("a.json", '{"0": 1}', "a.json must be a list of pairs; got 'dict'. Write [[left, right], …]."),
        ("a.json", "[[0, 1]", "a.json must be JSON; got "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=re.escape(message)):
        read_flip_pairs(tmp_path / name, 5)


def test_all_problems_are_reported_together(tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{row},x\n" for row in range(20)))
    with pytest.raises(SourceError, match="11 problems") as caught:
        read_flip_pairs(tmp_path / "a.csv", 20)
    assert "row 1, right" in str(caught.value)
    assert "and 10 more." in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"--flip-pairs must be a file that can be read; got '.*lost.csv'"):
        read_flip_pairs(tmp_path / "lost.csv", 5)
