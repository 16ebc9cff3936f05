"""The run folder: nothing overwritten, one process at a time, seconds added up over sessions."""

import time

import pytest
import tomli_w

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


def test_a_run_whose_recipe_holds_what_it_never_heeded_is_opened(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe(schedule="one_cycle"))
    older = {"schedule": "one_cycle", "warmup_epochs": 1.0, "unfreeze": "none", "cutmix": 0.5, "cutmix_alpha": 1.0}
    (run.path / "recipe.toml").write_text(tomli_w.dumps(older))
    recipe = RunFolder.open(run.path).recipe
    assert (recipe.schedule, recipe.warmup_epochs, recipe.cutmix, recipe.cutmix_alpha) == ("one_cycle", 0, 0, None)


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


def test_a_recipe_of_an_extended_run_is_begun_with_its_first_part(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe(epochs=9, epochs_before=(3, 5)))
    assert (run.recipe.epochs, run.recipe.epochs_before, run.epochs_to_come) == (3, (), [5, 9])
    assert RunFolder.open(run.path).recipe.epochs == 3


def test_epochs_raised_before_training_began_leave_a_recipe_that_repeats_the_run(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe(epochs=3)).extended(5)
    assert (run.recipe.epochs, run.recipe.epochs_before) == (5, ())
    assert run.describe_unrepeatable() == []
    assert run.extended(5) is run  # the same command again goes on
    with pytest.raises(RunError, match="--epochs must be more than the run's 5; got 4"):
        run.extended(4)


def test_epochs_raised_in_the_middle_of_training_are_said_not_to_be_repeated(tmp_path):
    run = RunFolder.create(tmp_path / "run", Recipe(epochs=3))
    (run.path / "checkpoints").mkdir()
    run = run.extended(5)
    assert run.describe_repetition()[-1].startswith(f"The recipe does not repeat {run.path}: its epochs were raised")
    assert "from 3 to 5 in the middle of training" in run.describe_repetition()[-1]


def test_how_to_repeat_a_run_says_what_it_starts_from(tmp_path):
    recipe = Recipe(from_run="runs/first", from_sha256="0123456789abcdef")
    lines = RunFolder.create(tmp_path / "run", recipe).describe_repetition()
    assert f"headstart train --recipe {tmp_path / 'run' / 'recipe.toml'} --out NEW repeats the run" in lines[0]
    assert "weights that runs/first had (SHA-256 0123456789ab…); others are refused" in lines[1]
