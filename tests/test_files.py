"""A crash while writing leaves the old file."""

import json

import pytest

from headstart.files import write_json, written_aside


def test_an_error_while_writing_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "scores.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), written_aside(target) as aside:
        aside.write_text((tmp_path / "not there").read_text())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_finished_write_replaces_the_file_and_makes_its_folder(tmp_path):
    target = tmp_path / "new" / "scores.txt"
    with written_aside(target) as aside:
        aside.write_text("whole")
    assert target.read_text() == "whole"


def test_json_keeps_any_script_readable(tmp_path):
    write_json(tmp_path / "names.json", {"고양이": 1})
    text = (tmp_path / "names.json").read_text(encoding="utf-8")
    assert "고양이" in text
    assert json.loads(text) == {"고양이": 1}
