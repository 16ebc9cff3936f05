"""A time budget: what is given up and in which order, what is measured, and that it holds, resumed too."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import headstart
from headstart import pipeline
from headstart.data.table import SampleTable
from headstart.errors import RecipeError
from headstart.files import write_json
from headstart.preparation import reopen
from headstart.recipe import make_recipe, read_recipe
from headstart.runs import RunFolder
from headstart.training import budget, budgeting
from headstart.training.budget import LEAST_EPOCHS, Measured, Workload, choose_plan, measure, smaller_sizes
from headstart.training.budgeting import deadline_of_fold, resumed_deadline
from headstart.training.checkpoints import save_checkpoint
from headstart.training.counters import Counters
from headstart.training.fit import samples_of
from headstart.training.tasks import make_task
from small_run import SMALL_RUN

MEASURED = Measured(step=0.05, last_step=0.02, forward=0.01, smaller={(192, 192): 0.037, (160, 160): 0.026})
WORK = Workload(num_train=1000, num_validation=200, num_others=400, image_size=(224, 224))
BUDGETED = {name: value for name, value in SMALL_RUN.items() if name not in ("epochs", "patience")} | {"num_threads": 1}


def test_less_time_gives_up_epochs_then_pixels_then_blocks_then_fine_tuning():
    plans = [choose_plan(seconds, MEASURED, WORK).settings for seconds in (5000, 400, 205, 150, 110, 60)]
    assert [plan["unfreeze"] for plan in plans] == ["all", "all", "all", "all", "2", "none"]
    assert [plan.get("image_size") for plan in plans] == [None, None, (192, 192), (160, 160), None, None]
    assert plans[0]["epochs"] > plans[1]["epochs"] > LEAST_EPOCHS
    assert plans[-1]["epochs"] == 0


def test_what_was_left_out_is_said_with_what_would_have_fitted():
    chosen, left_out = choose_plan(150, MEASURED, WORK).words
    assert chosen.startswith("budget: all layers at 160×160, 3 epochs (the step takes 50 ms an image here")
    assert left_out.startswith("left out: all layers at 224×224 (fits 1 epochs); all layers at 192×192 (fits 2 epochs)")


def test_a_plan_never_takes_longer_than_what_is_left():
    for seconds in range(60, 1000, 20):
        settings = choose_plan(seconds, MEASURED, WORK).settings
        if settings["epochs"] == 0:
            continue
        step = MEASURED.smaller.get(settings.get("image_size"), 0.05) if settings["unfreeze"] == "all" else 0.02
        took = settings["epochs"] * (1000 * step + 200 * 0.01 * step / 0.05) + 1400 * 0.01 + 400 * 0.01
        assert took < seconds


def test_a_budget_keeps_within_what_is_asked_for():
    one = replace(WORK, what="1")
    assert choose_plan(5000, MEASURED, replace(WORK, most_epochs=5)).settings == {"unfreeze": "all", "epochs": 5}
    assert choose_plan(5000, MEASURED, replace(WORK, most_epochs=1)).settings == {"unfreeze": "all", "epochs": 1}
    assert choose_plan(5000, MEASURED, one).settings == {"unfreeze": "1", "epochs": 24}
    assert choose_plan(60, MEASURED, one).settings == {"unfreeze": "none", "epochs": 0}
    assert "the last 1 blocks at 224×224" in choose_plan(5000, MEASURED, one).words[0]
    assert choose_plan(110, MEASURED, replace(WORK, what="4")).settings["unfreeze"] == "2"
    for as_it_is in (replace(WORK, what="none"), replace(WORK, most_epochs=0)):
        assert choose_plan(5000, MEASURED, as_it_is).settings == {}


def test_a_head_that_goes_on_from_a_run_is_trained_for_what_fits():
    work = replace(WORK, what="none", can_probe=False)
    assert choose_plan(400, MEASURED, work).settings == {"unfreeze": "none", "epochs": 6}


def test_views_take_their_passes():
    plain, views = (choose_plan(190, MEASURED, replace(WORK, what="2", num_views=number)) for number in (0, 10))
    assert plain.settings == {"unfreeze": "2", "image_size": (192, 192), "epochs": 3}
    assert views.settings == {"unfreeze": "none", "epochs": 0}


def test_without_a_probe_the_least_is_an_epoch_of_the_last_blocks():
    assert choose_plan(20, MEASURED, replace(WORK, can_probe=False)).settings == {"unfreeze": "2", "epochs": 1}


def test_smaller_pictures_keep_their_shape():
    assert smaller_sizes((280, 210)) == [(224, 168), (192, 144), (160, 120)]
    assert smaller_sizes((380, 380))[0] == (288, 288)


def test_a_budget_that_cannot_be_kept_says_what_it_would_take():
    late = "too short: what cannot be left out takes about 24 s, and 9 s are left"
    shared = replace(WORK, num_folds=5)
    assert "takes about 64 s, and 45 s are left" in choose_plan(9, MEASURED, shared).words[-1]  # one pass for all five
    for work in (WORK, replace(WORK, what="none")):
        assert choose_plan(9, MEASURED, work).words[-1] == late
        assert not any("too short" in line for line in choose_plan(60, MEASURED, work).words)


def test_measuring_leaves_the_network_as_it_was_and_times_every_size(finished_run, monkeypatch):
    from headstart.models.bundle import load_bundle

    timed = []

    def spied(network, pixels, targets, recipe, task, what, autocast):
        timed.append((tuple(pixels.shape[1:3]), what))
        seconds = step_seconds(network, pixels, targets, recipe, task, what, autocast)
        return seconds + (1000 if len(timed) > 1 else 0)  # a hiccup of the machine: all but the first are slow

    step_seconds = budget._step_seconds
    monkeypatch.setattr(budget, "_step_seconds", spied)
    recipe = finished_run.recipe
    network = load_bundle(finished_run.path).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    found = reopen(
        SampleTable.load(finished_run.path / "table.parquet"), recipe, image_size=network.contract.image_size
    )
    task = make_task(recipe, found.table)
    measured = measure(
        network, samples_of(task, found.table, found.store, "train"), found.store, recipe, task=task, sizes=[(16, 16)]
    )
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert wanted == [parameter.requires_grad for parameter in network.parameters()]
    assert timed == [(network.contract.image_size, "all"), ((16, 16), "all"), (network.contract.image_size, "2")]
    assert 0 < measured.smaller[16, 16] == measured.last_step == measured.step
    assert measured.forward > 0
    assert not network.training


def test_a_run_ends_inside_its_budget_and_its_recipe_says_what_was_chosen(digits, tmp_path, capsys):
    start = time.monotonic()
    run = headstart.train(digits, out=tmp_path / "run", budget="40s", **BUDGETED)
    assert time.monotonic() - start <= 40 * 1.05
    recipe = read_recipe(run.path / "recipe.toml")
    plan = run.facts["plan"]
    assert "budget" not in recipe
    assert recipe["epochs"] == plan["settings"]["epochs"]
    assert plan["words"][0] in capsys.readouterr().out
    assert json.loads((run.path / "metrics.json").read_text())["test"]["accuracy"]["value"] > 0.1


def test_a_measure_that_was_too_hopeful_ends_training_in_time(digits, tmp_path):
    """The plan is of a machine a hundred times as fast; the deadline in the loop holds all the same."""
    settings = BUDGETED | {"data": str(digits), "budget": "25s", "patience": 10_000}
    run = RunFolder.create(tmp_path / "run", make_recipe(settings))
    run.note(
        plan={"settings": {"unfreeze": "all", "epochs": 10_000}, "words": ["budget: 10,000 epochs"], "seconds": 18}
    )
    start = time.monotonic()
    pipeline.resume(run.path)
    assert read_recipe(run.path / "recipe.toml")["epochs"] == 10_000
    assert time.monotonic() - start <= 25 * 1.05


@pytest.mark.parametrize(
    "settings",
    [
        {
            "budget": "1s",
            "probe_epochs": 0,
            "cutmix": 0.5,
            "cutmix_alpha": 0.3,
            "layer_decay": 0.7,
            "optimizer": "madgrad",
        },
        {"budget": "60s", "unfreeze": "none", "optimizer": "sgd", "lr": 0.1, "epochs": 30},
    ],
    ids=["too little for fine-tuning", "the head was asked for"],
)
def test_a_budget_that_comes_down_to_the_head_leaves_a_run_that_can_be_used(digits, tmp_path, settings):
    run = headstart.train(digits, out=tmp_path / "run", **BUDGETED | settings)
    recipe = RunFolder.open(run.path).recipe
    assert recipe.trains_only_head
    assert recipe.epochs == settings.get("epochs", 0)
    assert json.loads((run.path / "metrics.json").read_text())["test"]["accuracy"]["value"] > 0.1
    assert headstart.evaluate(run.path).evaluations["test"].scores["accuracy"].value > 0.1
    assert run.facts["training"][0].startswith("budget: the head alone")


def test_pictures_are_not_shrunk_for_a_network_that_takes_one_size(finished_run):
    from headstart.models.bundle import load_bundle
    from headstart.models.network import new_network

    network = load_bundle(finished_run.path).network
    assert budgeting._can_shrink(network, finished_run.recipe)
    assert not budgeting._can_shrink(network, finished_run.recipe.model_copy(update={"from_run": "first"}))
    vit = make_recipe({"backbone": "test_vit", "weights": "none"})
    assert not budgeting._can_shrink(new_network(vit, 3), vit)


@pytest.mark.slow
def test_folds_share_a_budget_and_end_inside_it(digits, tmp_path):
    start = time.monotonic()
    run = headstart.train(digits, out=tmp_path / "run", budget="75s", folds=3, **BUDGETED)
    assert time.monotonic() - start <= 75 * 1.05
    recipes = [read_recipe(run.path / name / "recipe.toml") for name in (".", "fold-1", "fold-3")]
    assert len({recipe["epochs"] for recipe in recipes}) == 1
    assert not any("budget" in recipe for recipe in recipes)
    assert json.loads((run.path / "metrics.json").read_text())["oof"]["accuracy"]["value"] > 0.1


def test_each_fold_gets_an_equal_share_of_the_time_that_is_left(tmp_path):
    run, fold = (RunFolder.create(tmp_path / name, make_recipe({"data": str(tmp_path)})) for name in ("whole", "fold"))
    run.note(plan={"closing": 4.0})
    now = time.monotonic()
    assert deadline_of_fold(run, fold, now + 90, num_left=3) == pytest.approx(now + 26, abs=0.1)
    fold.note(seconds={"network": 1.5, "training": 30.0})
    assert deadline_of_fold(run, fold, now + 90, num_left=3) == pytest.approx(now + 25, abs=0.1)


def seconds_until_killed(run: Path, place: str, *arguments: str, more: float) -> float:
    """Train in a process of its own, and kill it some seconds after a file is there."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "headstart", "train", *arguments])
    while not (run / place).exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(more)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    return time.monotonic() - start


@pytest.mark.slow
def test_a_run_that_was_killed_under_a_budget_ends_inside_it_all_told(digits, tmp_path):
    run = tmp_path / "run"
    settings = BUDGETED | {"budget": "40s", "checkpoint_seconds": 0.5, "patience": 10_000}
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    before = seconds_until_killed(run, "checkpoints/last.safetensors", str(digits), "--out", str(run), *flags, more=3)
    again = time.monotonic()
    pipeline.resume(run)
    assert before + time.monotonic() - again <= 40 * 1.05 + 0.5 + 1  # what was done after the last checkpoint is lost


def killed_fold(whole: RunFolder, number: int) -> RunFolder:
    """A fold that was killed after 6 seconds of a probe and 20 of fine-tuning, as its own files say."""
    fold = RunFolder.create(whole.path / f"fold-{number}", whole.recipe.updated(fold=number))
    parts = {"decode": 9.0, "wait": 1.0, "step": 4.0, "total": 5.0, "head": 1.0}
    write_json(fold.path / "probe/probe.json", {"seconds": parts})
    counters = Counters(seconds={"step": 19.0, "augment": 30.0, "validation": 1.0})
    save_checkpoint(fold.path / "checkpoints/last.safetensors", {}, {"counters": asdict(counters)})
    return fold


def test_what_killed_folds_have_spent_counts_for_the_whole(tmp_path):
    run = RunFolder.create(tmp_path / "run", make_recipe({"data": str(tmp_path), "folds": 3}))
    run.note(plan={"seconds": 90.0, "closing": 4.0}, seconds={"source": 4.0, "fold 1": 31.0})
    killed_fold(run, 1)  # resumed and finished since
    assert resumed_deadline(run, started=100.0) == pytest.approx(100 + 90 - 4 - 31)
    killed_fold(run, 2)
    assert resumed_deadline(run, started=100.0) == pytest.approx(100 + 90 - 4 - 31 - 26)


def test_a_killed_fold_has_what_is_left_of_its_share_and_the_others_lose_nothing(tmp_path):
    run = RunFolder.create(tmp_path / "run", make_recipe({"data": str(tmp_path), "folds": 3}))
    run.note(plan={"closing": 4.0})
    now, share = time.monotonic(), (60 + 26) / 2
    deadline = deadline_of_fold(run, killed_fold(run, 2), now + 60, num_left=2)
    assert deadline == pytest.approx(now + share - 4 - 6, abs=0.1)  # the checkpoint takes off its 20 itself


def test_what_a_cut_off_run_has_spent_is_taken_off_its_budget(tmp_path):
    run = RunFolder.create(tmp_path / "run", make_recipe({"data": str(tmp_path)}))
    assert resumed_deadline(run, started=100.0) is None
    run.note(plan={"seconds": 50.0, "settings": {}, "words": []}, seconds={"source": 4.0, "training": 30.0})
    (run.path / "probe").mkdir()
    (run.path / "probe/probe.json").write_text(json.dumps({"seconds": {"decode": 9.0, "total": 5.0, "head": 1.0}}))
    assert resumed_deadline(run, started=100.0) == pytest.approx(140.0)
    run.note(raised_midway=[{"epochs": 3, "to": 9}])
    assert resumed_deadline(run, started=100.0) is None


@pytest.mark.parametrize("text", ["ten minutes", "-5m", "0", "5x", ""])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(RecipeError, match="budget"):
        make_recipe({"budget": text})
