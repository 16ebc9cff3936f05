"""Runs put together: the same classes by name, scored on what no member has seen, self-contained."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

import headstart
from headstart import pipeline
from headstart.ancestry import learned_by
from headstart.cli import main
from headstart.data.table import SampleTable
from headstart.errors import HeadstartError, RunError
from headstart.models.ensemble import load_model
from headstart.samples import write_faces
from small_run import SMALL_RUN

QUICK = SMALL_RUN | {"epochs": 0, "probe_epochs": 8}


@pytest.fixture(scope="module")
def runs(digits, tmp_path_factory):
    """Two runs with the same split: another network at another size, and another fit."""
    folder = tmp_path_factory.mktemp("members")
    first = headstart.train(digits, out=folder / "first", **QUICK)
    split = {"split": str(first.path / "split.parquet"), "image_size": 48, "fit": "stretch"}
    other = headstart.train(digits, out=folder / "other", **QUICK | split | {"backbone": "test_efficientnet"})
    return [first.path, other.path]


@pytest.fixture(scope="module")
def joint(runs, tmp_path_factory):
    return headstart.ensemble(*runs, out=tmp_path_factory.mktemp("joint") / "both", device="cpu")


def metrics_of(run) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


def test_an_ensemble_is_scored_on_the_common_test_beside_its_members(joint, runs):
    metrics = metrics_of(joint)
    rows = pl.read_parquet(joint.path / "predictions.parquet")
    assert metrics["test"]["accuracy"]["value"] == pytest.approx((rows["label"] == rows["predicted"]).mean())
    assert rows.height >= 44  # of the 45 that both were tested on; one is like a training photo by one table
    alone = [pl.read_parquet(run / "predictions.parquet").join(rows, on="path", how="semi") for run in runs]
    stated = [(one["label"] == one["predicted"]).mean() for one in alone]
    assert [one["value"] for one in metrics["vote"]["test"]["members"]] == pytest.approx(stated)
    assert [member["weight"] for member in metrics["members"]] == [0.5, 0.5]


def test_it_predicts_what_it_was_scored_on(joint, digits):
    rows = pl.read_parquet(joint.path / "predictions.parquet")
    answers = headstart.load(joint.path, device="cpu").predict([f"{digits}/{path}" for path in rows["path"]])
    stated = [row[row["predicted"]] for row in rows.iter_rows(named=True)]
    assert [answer.probability for answer in answers] == pytest.approx(stated, abs=2e-3)


def test_it_holds_all_that_it_needs(runs, digits, tmp_path):
    copies = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    made = headstart.ensemble(*copies, out=tmp_path / "both", device="cpu")
    for copy in copies:
        shutil.rmtree(copy)
    scores = headstart.evaluate(made.path, device="cpu")
    assert scores.evaluations["test"].scores["accuracy"].value == metrics_of(made)["test"]["accuracy"]["value"]
    with pytest.raises(RunError, match=r"got '\d+ of 300 photos that a member has learned from"):
        headstart.evaluate(made.path, digits)


def test_the_csv_for_a_submission_has_a_row_for_every_photo(joint, digits, tmp_path):
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(joint.path), str(digits / "3"), "--out", str(tmp_path / "out.csv")])
    frame = pl.read_csv(tmp_path / "out.csv")
    assert frame.height == 30
    assert frame["error"].null_count() == 30


def test_only_photos_that_no_member_has_seen_are_scored(runs, digits, tmp_path):
    stranger = headstart.train(digits, out=tmp_path / "stranger", **QUICK | {"seed": 7})
    made = headstart.ensemble(runs[0], stranger.path, out=tmp_path / "both", device="cpu")
    test = SampleTable.load(made.path / "table.parquet").kept.filter(pl.col("split") == "test")
    learned = [learned_by([str(run)]).hashes for run in (runs[0], stranger.path)]
    assert 0 < test.height < 40
    assert not set(test["content_hash"]) & (learned[0] | learned[1])
    assert learned_by([str(made.path)]).hashes == learned[0] | learned[1]


def test_where_every_photo_was_seen_it_is_made_and_the_reason_said(digits, tmp_path, capsys):
    settings = QUICK | {"folds": 2, "test_fraction": 0, "probe_epochs": 1}
    folds = [headstart.train(digits, out=tmp_path / f"fold-{n}", fold=n, **settings).path for n in (1, 2)]
    made = headstart.ensemble(*folds, out=tmp_path / "both", device="cpu")
    assert "Not scored: each labelled photo of its members was learned from" in capsys.readouterr().out
    assert "test" not in metrics_of(made)
    assert len(headstart.load(made.path, device="cpu").class_names) == 10
    with pytest.raises(RunError, match="an ensemble with test images; got 'none'"):
        headstart.evaluate(made.path)


def test_folds_trained_apart_are_scored_on_the_test_that_they_share(digits, tmp_path):
    folds = [
        headstart.train(digits, out=tmp_path / f"fold-{n}", folds=2, fold=n, **QUICK | {"probe_epochs": 1}).path
        for n in (1, 2)
    ]
    made = headstart.ensemble(*folds, out=tmp_path / "both", device="cpu")
    whole = headstart.train(digits, out=tmp_path / "whole", folds=2, **QUICK | {"probe_epochs": 1})
    assert pl.read_parquet(made.path / "predictions.parquet")["path"].equals(
        pl.read_parquet(whole.path / "predictions.parquet")["path"]
    )


def test_a_bundle_alone_may_join_but_then_nothing_is_scored(runs, tmp_path, capsys):
    lone = shutil.copytree(runs[1] / "bundle", tmp_path / "lone")
    made = headstart.ensemble(runs[0], lone, out=tmp_path / "both", device="cpu")
    assert f"Not scored: what {lone} has learned from is not known" in capsys.readouterr().out
    assert learned_by([str(made.path)]).unknown == (str(lone),)


def test_weights_are_fitted_on_validation_photos_that_no_member_trained_on(runs, tmp_path, capsys):
    made = headstart.ensemble(*runs, out=tmp_path / "both", weights="fitted", device="cpu")
    weights = [member["weight"] for member in metrics_of(made)["members"]]
    assert sum(weights) == pytest.approx(1)
    assert weights != [0.5, 0.5]
    assert load_model(made.path).weights == pytest.approx(weights)
    assert "weights fitted on 45 validation photos: " in capsys.readouterr().out


def test_weights_cannot_be_fitted_where_one_validates_with_what_another_learns_from(runs, digits, tmp_path):
    split = pl.read_parquet(runs[0] / "split.parquet")
    first_learned = (pl.col("split") == "train") & ((pl.col("split") == "train").cum_sum() <= 40)
    other = pl.when(first_learned).then(pl.lit("validation")).when(pl.col("split") != "test").then(pl.lit("train"))
    split.with_columns(split=other.otherwise("split")).write_parquet(tmp_path / "split.parquet")
    settings = QUICK | {"probe_epochs": 1, "split": str(tmp_path / "split.parquet")}
    turned = headstart.train(digits, out=tmp_path / "turned", **settings)
    with pytest.raises(RunError, match="no validation photos that no member trained on; got 'fitted, with none'"):
        headstart.ensemble(runs[0], turned.path, out=tmp_path / "both", weights="fitted", device="cpu")
    assert not (tmp_path / "both").exists()


def test_an_ensemble_in_an_ensemble_is_taken_apart(joint, runs, digits, tmp_path):
    third = headstart.train(
        digits, out=tmp_path / "third", split=str(runs[0] / "split.parquet"), **QUICK | {"image_size": 64}
    )
    made = headstart.ensemble(joint.path, third.path, out=tmp_path / "three", device="cpu")
    assert load_model(made.path).weights == (0.25, 0.25, 0.5)
    assert metrics_of(made)["test"]["accuracy"]["value"] > 0


def test_classes_in_another_order_go_together_and_others_are_refused(runs, digits, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(digits, photos)
    (photos / "9").rename(photos / "nine")
    other = headstart.train(photos, out=tmp_path / "other", **QUICK | {"probe_epochs": 1})
    with pytest.raises(HeadstartError, match="it lacks '9'; it alone has 'nine'"):
        headstart.ensemble(runs[0], other.path, out=tmp_path / "both")


@pytest.mark.parametrize(("number", "message"), [(1, "two or more models; got 1"), (2, "named once each; got ")])
def test_one_model_is_no_ensemble(runs, tmp_path, number, message):
    with pytest.raises(RunError, match=message):
        headstart.ensemble(*[runs[0]] * number, out=tmp_path / "both")


def test_an_ensemble_has_nothing_to_resume(joint):
    with pytest.raises(RunError, match="An ensemble has nothing to train"):
        pipeline.resume(joint.path)


def test_the_page_shows_members_and_weights(joint, runs):
    page = (joint.path / "report.html").read_text(encoding="utf-8")
    assert all(str(run) in page for run in runs)
    assert "0.500" in page
    assert "none of them has learned from" in page


def test_points_of_members_with_other_sizes_and_fits_are_averaged_in_the_photo(tmp_path):
    write_faces(tmp_path / "faces", count=60)
    places = {"annotations": str(tmp_path / "faces/labels"), "task": "keypoints", "head": "coordinates"}
    small = {name: value for name, value in QUICK.items() if name != "horizontal_flip"} | places
    first = headstart.train(tmp_path / "faces/images", out=tmp_path / "first", **small)
    split = {"split": str(first.path / "split.parquet"), "image_size": 48, "fit": "stretch", "seed": 3}
    other = headstart.train(tmp_path / "faces/images", out=tmp_path / "other", **small | split)
    made = headstart.ensemble(first.path, other.path, out=tmp_path / "both", device="cpu")
    rows = pl.read_parquet(made.path / "predictions.parquet")
    photos = [f"{tmp_path}/faces/images/{path}" for path in rows["path"]]
    both, *alone = (
        np.array([answer.points for answer in headstart.load(path, device="cpu").predict(photos)])
        for path in (made.path, first.path, other.path)
    )
    assert np.abs(both - (alone[0] + alone[1]) / 2).max() < 0.01
    stated = rows[:, 4:].to_numpy().reshape(both.shape)
    assert np.abs(both - stated).max() < 2  # pixels of photos 1,280 wide: the store keeps them smaller
    assert metrics_of(made)["test"]["nme"]["value"] == pytest.approx(rows["nme"].mean())


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Drawn faces, a model that looks at faces cut out of them, and settings to train others like it."""
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder / "faces", count=48)
    small = {name: value for name, value in QUICK.items() if name != "horizontal_flip"}
    small |= {"annotations": str(folder / "faces/labels"), "task": "keypoints", "head": "coordinates"}
    run = headstart.train(folder / "faces/images", out=folder / "cropped", crop_to_box="Face", **small)
    return folder / "faces/images", run.path, small | {"split": str(run.path / "split.parquet")}


@pytest.mark.parametrize(
    ("crop", "words"),
    [
        ({}, "one that looks at whole photos"),
        ({"crop_to_points": 0.25}, "one that looks at what --crop-to-points 0.25"),
    ],
)
def test_points_found_in_other_crops_are_refused(faces, tmp_path, crop, words):
    photos, cropped, settings = faces
    other = headstart.train(photos, out=tmp_path / "other", **settings | crop | {"probe_epochs": 1})
    expected = f"other must be a model that looks at what --crop-to-box Face cuts out, as .*cropped; got '{words}"
    with pytest.raises(RunError, match=expected):
        headstart.ensemble(cropped, other.path, out=tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_bundles_alone_are_scored_on_the_part_of_the_photos_that_they_look_at(faces, tmp_path):
    photos, cropped, settings = faces
    lone = [shutil.copytree(cropped / "bundle", tmp_path / name) for name in ("one", "two")]
    made = headstart.ensemble(*lone, out=tmp_path / "both", device="cpu")
    assert made.recipe.crop_to_box == "Face"
    read = {"annotations": settings["annotations"], "device": "cpu"}
    alone, both = (headstart.evaluate(path, photos, **read).evaluations["test"] for path in (cropped, made.path))
    assert both.scores["nme"].value == pytest.approx(alone.scores["nme"].value, rel=1e-4)
