"""The run folder: nothing overwritten, one process at a time, seconds added up over sessions."""

import time

import pytest

from headstart.errors import RunError
from headstart.recipe import Recipe
from headstart.runs import RunFolder, versions


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(RunError, match="--out must be a folder"):
        RunFolder.create(tmp_path / "run", Recipe())


def test_seconds_add_up_over_sessions_and_survive_an_error(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe())
    for _ in range(2):
        with pytest.raises(TypeError), run.timed("training"):
            time.sleep(0.02 if run else None) or len(0)
    assert RunFolder.open(tmp_path / "run").facts["seconds"]["training"] >= 0.04


def test_a_run_is_held_by_one_process_at_a_time(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe())
    with run.held(), pytest.raises(RunError, match="Another process is training it"), run.held():
        pass


def test_ctrl_c_carries_the_way_to_resume(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe())
    with pytest.raises(KeyboardInterrupt, match="headstart train --resume"), run.held():
        raise KeyboardInterrupt


def test_versions_name_what_changes_numbers():
    assert {"python", "torch", "timm", "numpy"} <= set(versions())


def test_a_run_that_stopped_before_it_read_anything_can_be_started_anew(tmp_path):
    with RunFolder.create(tmp_path / "run", Recipe(data="typo")).held():
        pass
    assert RunFolder.create(tmp_path / "run", Recipe(data="photos")).recipe.data == "photos"
    assert RunFolder.open(tmp_path / "run").recipe.data == "photos"


def test_a_run_that_another_process_begins_is_not_started_anew(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe(data="photos"))
    with run.held(), pytest.raises(RunError, match="a new or empty folder"):
        RunFolder.create(tmp_path / "run", Recipe())
