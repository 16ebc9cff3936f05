"""The main path, from a folder of pictures to a report and a bundle."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import headstart
from headstart import pipeline
from headstart.errors import HeadstartError, RunError
from headstart.models.bundle import load_bundle, save_bundle
from headstart.recipe import make_recipe, read_recipe
from headstart.resolution import completed
from headstart.runs import RunFolder
from headstart.training.history import read_history
from small_run import SMALL_RUN


def test_a_run_leaves_every_file_that_it_promises(finished_run):
    names = {path.name for path in finished_run.path.iterdir()}
    promised = "recipe.toml table.parquet split.parquet history.csv tensorboard bundle predictions.parquet metrics.json"
    assert {*promised.split(), "report.html"} <= names


def test_metrics_hold_the_names_that_other_tools_read(finished_run):
    metrics = json.loads((finished_run.path / "metrics.json").read_text())
    assert metrics["task"] == "classification"
    for split in ("test", "validation"):
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error"):
            score = metrics[split][name]
            assert score["low"] <= score["value"] <= score["high"], (split, name)
    assert metrics["counts"] == {"found": 300, "kept": 300, "excluded": {}}
    assert {"source", "training", "evaluation"} <= set(metrics["seconds"])


def test_predictions_hold_every_test_and_validation_probability(finished_run):
    frame = pl.read_parquet(finished_run.path / "predictions.parquet")
    assert frame.columns == ["path", "split", "label", "predicted", *map(str, range(10))]
    assert set(frame["split"].unique()) == {"validation", "test"}
    sums = frame.select(pl.sum_horizontal(map(str, range(10)))).to_series()
    assert np.allclose(sums, 1, atol=1e-5)


def test_the_reported_accuracy_is_that_of_the_predictions(finished_run):
    frame = pl.read_parquet(finished_run.path / "predictions.parquet").filter(split="test")
    metrics = json.loads((finished_run.path / "metrics.json").read_text())
    assert (frame["label"] == frame["predicted"]).mean() == pytest.approx(metrics["test"]["accuracy"]["value"])


def test_the_bundle_predicts_what_the_run_reported(finished_run):
    rows = pl.read_parquet(finished_run.path / "predictions.parquet").head(12)
    table = pl.read_parquet(finished_run.path / "table.parquet")
    root = make_recipe(read_recipe(finished_run.path / "recipe.toml")).data
    answers = headstart.load(finished_run.path).predict([f"{root}/{path}" for path in rows["path"]])
    assert [answer.label for answer in answers] == rows["predicted"].to_list()
    stated = [row[row["predicted"]] for row in rows.iter_rows(named=True)]
    assert [answer.probability for answer in answers] == pytest.approx(stated, abs=2e-3)
    assert table.height == 300


def test_a_saved_recipe_repeats_the_run_to_the_bit(finished_run, tmp_path):
    recipe = make_recipe(read_recipe(finished_run.path / "recipe.toml"))
    again = headstart.train(out=tmp_path / "again", recipe=recipe)
    first, second = (load_file(run.path / "bundle" / "weights.safetensors") for run in (finished_run, again))
    assert all((first[name] == second[name]).all() for name in first)


def test_a_saved_split_can_be_given_to_another_run(finished_run, digits, tmp_path):
    settings = SMALL_RUN | {"epochs": 0, "probe_epochs": 1, "seed": 5}
    other = headstart.train(digits, out=tmp_path / "other", split=str(finished_run.path / "split.parquet"), **settings)
    first, second = (pl.read_parquet(run.path / "table.parquet")["split"] for run in (finished_run, other))
    assert first.equals(second)


def test_a_folder_that_holds_a_run_is_not_overwritten(finished_run, digits):
    with pytest.raises(RunError, match=r"a new or empty folder; got .*first.*Name another one"):
        headstart.train(digits, out=finished_run.path, **SMALL_RUN)


def test_resuming_a_finished_run_changes_nothing(finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.path.rglob("*") if path.is_file()}
    pipeline.resume(finished_run.path)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(RunError, match=r"lacks recipe\.toml"):
        pipeline.resume(tmp_path)


def test_evaluating_again_gives_the_scores_of_the_run(finished_run):
    again = headstart.evaluate(finished_run.path)
    stated = json.loads((finished_run.path / "metrics.json").read_text())["test"]["accuracy"]
    assert again.evaluations["test"].scores["accuracy"].value == pytest.approx(stated["value"])


def test_evaluating_on_training_photos_says_so_and_counts_those_that_are_scored(finished_run, digits, tmp_path, capsys):
    shutil.copytree(digits, tmp_path / "photos")
    (tmp_path / "photos" / "3" / "broken.png").write_bytes(b"no photo")
    headstart.evaluate(finished_run.path, tmp_path / "photos")
    known = pl.read_parquet(finished_run.path / "table.parquet").filter(pl.col("split") != "test").height
    said = capsys.readouterr().out
    assert f"Careful: {known} photos were trained on or validated with, of the 300 that are scored" in said


def test_the_recipe_of_an_extended_run_repeats_it_to_the_bit(digits, tmp_path):
    first = headstart.train(digits, out=tmp_path / "first", **SMALL_RUN | {"epochs": 1})
    first = pipeline.resume(first.path, epochs=2)
    assert (first.recipe.epochs_before, first.recipe.epochs) == ((1,), 2)
    assert "It trains 1, then on to 2 epochs" in (first.path / "report.html").read_text(encoding="utf-8")
    begun = RunFolder.create(tmp_path / "again", make_recipe(read_recipe(first.path / "recipe.toml")))
    again = pipeline.resume(begun.path)  # as after a kill in its first part
    assert again.recipe == first.recipe
    both = [load_file(run.path / "bundle" / "weights.safetensors") for run in (first, again)]
    assert all((both[0][name] == both[1][name]).all() for name in both[0])


def test_stages_that_begin_with_the_head_alone_are_trained_after_the_probe(digits, tmp_path):
    stages = {"unfreeze": "none", "unfreeze_later": "2=1,3=all"}
    run = headstart.train(digits, out=tmp_path / "run", **SMALL_RUN | stages)
    assert read_history(run.path).filter(stage="fine-tune")["epoch"].to_list() == [1, 2, 3]
    probe, last = (load_file(run.path / name) for name in ("probe/weights.safetensors", "checkpoints/last.safetensors"))
    assert not last["network.backbone.conv1.0.weight"].equal(probe["backbone.conv1.0.weight"])


def test_a_run_goes_on_with_the_head_of_its_parent_and_with_no_other(digits, tmp_path):
    head = {"head_hidden": (16, 16), "head_norm": True, "pooling": "max", "dropout": 0.25}
    parent = headstart.train(digits, out=tmp_path / "parent", **SMALL_RUN | head | {"epochs": 0})
    small = {name: value for name, value in SMALL_RUN.items() if name not in ("backbone", "weights", "image_size")}
    child = headstart.train(digits, out=tmp_path / "child", from_run=str(parent.path), **small | {"epochs": 1})
    assert [getattr(child.recipe, name) for name in head] == list(head.values())
    settings = small | {"epochs": 1, "dropout": 0.5}
    child = headstart.train(digits, out=tmp_path / "dropout", from_run=str(parent.path), **settings)
    built = load_bundle(child.path).network.head
    assert [module.p for module in built.modules() if isinstance(module, torch.nn.Dropout)] == [0.5, 0.5]
    other = small | {"from_run": str(parent.path), "head_hidden": (8,), "pooling": "own", "head_norm": False}
    with pytest.raises(RunError, match=r"(?s)pooling must be 'max', as in .*head_hidden must be .*16.*head_norm"):
        headstart.train(digits, out=tmp_path / "other", **other)


def test_a_recipe_is_refused_once_its_parent_was_trained_on(finished_run, digits, tmp_path):
    shutil.copytree(finished_run.path, tmp_path / "parent")
    given = {"from_run": str(tmp_path / "parent"), "data": str(digits), "epochs": 1, "device": "cpu"}
    recipe = make_recipe(completed(given))
    bundle = load_bundle(tmp_path / "parent")
    with torch.no_grad():
        next(bundle.network.parameters()).add_(0.01)
    save_bundle(tmp_path / "parent" / "bundle", bundle.network, class_names=bundle.class_names)
    with pytest.raises(RunError, match=r"weights that the recipe's run started from .*It was trained on since"):
        headstart.train(out=tmp_path / "child", recipe=recipe)
    assert not (tmp_path / "child" / "table.parquet").exists()
    again = completed({"from_run": given["from_run"]}, recipe.model_dump(exclude_unset=True))
    assert again["from_sha256"] not in (None, recipe.from_sha256)


def test_an_unknown_setting_is_refused_before_any_work(tmp_path):
    with pytest.raises(HeadstartError, match="Did you mean 'epochs'"):
        headstart.train(tmp_path, out=tmp_path / "run", epoch=3)
    assert not (tmp_path / "run").exists()


def test_check_accounts_for_every_file_and_writes_its_page(digits, tmp_path):
    found = headstart.check(digits, out=tmp_path / "check")
    assert found.num_found == found.num_kept == 300
    assert (tmp_path / "check" / "check.html").stat().st_size > 5_000
    assert pl.read_parquet(tmp_path / "check" / "check.parquet").height == 300


def test_more_blocks_than_there_are_is_refused_before_the_photos_are_read(digits, tmp_path):
    with pytest.raises(HeadstartError, match="unfreeze must be from 1 to"):
        headstart.train(digits, out=tmp_path / "run", **SMALL_RUN | {"unfreeze": 99})
    assert not (tmp_path / "run" / "table.parquet").exists()
