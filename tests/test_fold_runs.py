"""K folds from a folder of pictures to one model: honest scores, shared features, nothing repeated, the same bits."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

import headstart
from headstart import pipeline
from headstart.data.table import SampleTable
from headstart.errors import BundleError, RunError, SplitError
from headstart.evaluation.calibration import fit_temperature
from headstart.models.ensemble import load_model
from headstart.runs import RunFolder
from headstart.samples import write_faces
from renumbered_store import renumber_store
from small_run import SMALL_RUN

CLASSES = list(map(str, range(10)))
PROBE = SMALL_RUN | {"folds": 3, "unfreeze": "none"}
TUNED = SMALL_RUN | {"folds": 3, "epochs": 2, "probe_epochs": 2}
LONGER = TUNED | {"epochs": 6, "patience": 6, "checkpoint_seconds": 0.1}


@pytest.fixture(scope="module")
def probed(digits, tmp_path_factory) -> RunFolder:
    """Three folds of a probe, with a store of their own."""
    folder = tmp_path_factory.mktemp("folds")
    return headstart.train(digits, out=folder / "probed", store_dir=str(folder / "store"), **PROBE)


@pytest.fixture(scope="module")
def tuned(digits, tmp_path_factory) -> RunFolder:
    """Three folds that were fine-tuned."""
    return headstart.train(digits, out=tmp_path_factory.mktemp("folds") / "tuned", **TUNED)


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory) -> RunFolder:
    """Three longer folds that nobody stopped."""
    return headstart.train(digits, out=tmp_path_factory.mktemp("folds") / "undisturbed", **LONGER)


def metrics_of(run: RunFolder) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


def weights_of(run: Path) -> list[dict]:
    return [load_file(run / f"fold-{fold}" / "bundle" / "weights.safetensors") for fold in (1, 2, 3)]


def same_bits(first: Path, second: Path) -> bool:
    pairs = zip(weights_of(first), weights_of(second), strict=True)
    return all(one.keys() == other.keys() and all(one[n].equal(other[n]) for n in one) for one, other in pairs)


# --- what is left behind


@pytest.mark.parametrize("name", ["probed", "tuned"])
def test_folds_leave_every_file_that_they_promise(name, request):
    run = request.getfixturevalue(name)
    names = {path.name for path in run.path.iterdir()}
    promised = "recipe.toml table.parquet split.parquet oof.parquet suspects.parquet predictions.parquet metrics.json"
    assert {*promised.split(), "report.html", "bundle", "fold-1", "fold-2", "fold-3"} <= names
    assert {"history.csv", "report.html", "bundle", "metrics.json"} <= {p.name for p in (run.path / "fold-2").iterdir()}


def test_every_photo_outside_the_test_is_answered_once_out_of_fold(tuned):
    table = SampleTable.load(tuned.path / "table.parquet")
    oof = pl.read_parquet(tuned.path / "oof.parquet")
    assert oof.columns == ["path", "label", "fold", "predicted", *CLASSES]
    assert oof["path"].to_list() == table.kept.filter(pl.col("split") == "train")["path"].to_list()
    assert oof["fold"].to_list() == table.kept.drop_nulls("fold")["fold"].to_list()
    assert np.allclose(oof.select(CLASSES).to_numpy().sum(axis=1), 1)


def test_the_model_that_answers_for_a_photo_has_not_seen_it(tuned):
    table = SampleTable.load(tuned.path / "table.parquet")
    for fold in (1, 2, 3):
        own = SampleTable.load(tuned.path / f"fold-{fold}" / "table.parquet").kept
        learned = own.filter(pl.col("split").is_in(["train", "validation"]))["content_hash"]
        unseen = table.kept.filter((pl.col("fold") == fold) | (pl.col("split") == "test"))["content_hash"]
        assert not set(learned) & set(unseen)


def test_metrics_hold_the_names_that_other_tools_read(tuned):
    metrics = metrics_of(tuned)
    oof, test = (pl.read_parquet(tuned.path / name) for name in ("oof.parquet", "predictions.parquet"))
    assert metrics["task"] == "classification"
    assert metrics["oof"]["accuracy"]["value"] == pytest.approx((oof["label"] == oof["predicted"]).mean())
    assert metrics["test"]["accuracy"]["value"] == pytest.approx((test["label"] == test["predicted"]).mean())
    assert metrics["counts"] == {"found": 300, "kept": 300, "excluded": {}}
    assert [fold["fold"] for fold in metrics["folds"]] == [1, 2, 3]
    assert sum(fold["held_out"] for fold in metrics["folds"]) == oof.height


def test_each_fold_scores_as_its_part_of_the_whole(tuned):
    oof = pl.read_parquet(tuned.path / "oof.parquet")
    for fold in metrics_of(tuned)["folds"]:
        part = oof.filter(pl.col("fold") == fold["fold"])
        assert fold["scores"]["accuracy"]["value"] == pytest.approx((part["label"] == part["predicted"]).mean())


def test_the_temperature_fits_the_answers_out_of_fold_and_is_that_of_every_member(tuned):
    oof = pl.read_parquet(tuned.path / "oof.parquet")
    labels = oof["label"].cast(pl.Int64).to_numpy()
    assert fit_temperature(np.log(oof.select(CLASSES).to_numpy()), labels).temperature == pytest.approx(1, abs=0.01)
    members = load_model(tuned.path).members
    assert {member.temperature for member in members} == {metrics_of(tuned)["temperature"]}


def test_suspects_name_label_and_suggestion_the_least_credible_first(tuned):
    suspects = pl.read_parquet(tuned.path / "suspects.parquet")
    oof = pl.read_parquet(tuned.path / "oof.parquet")
    assert suspects.columns == ["path", "label", "suggested", "self_confidence"]
    assert suspects.height == metrics_of(tuned)["suspects"] > 0
    assert suspects["self_confidence"].is_sorted()
    joined = suspects.join(oof, on="path", how="left")
    assert (joined["suggested"] == joined["predicted"]).all()
    assert (joined["label"] != joined["suggested"]).all()


def test_the_page_shows_folds_spread_scores_and_suspects(tuned):
    page = (tuned.path / "report.html").read_text(encoding="utf-8")
    for words in (
        "Fold by fold",
        "Over folds:",
        "Out of fold",
        "Labels that look wrong",
        "fold-3/report.html",
        "The 3",
    ):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")


# --- one pass


def test_folds_of_a_probe_go_through_the_pixels_once(probed):
    store = next(Path(probed.recipe.store_dir).rglob("features"))
    assert len(list(store.glob("features-*.npy"))) == 1
    passes = [
        json.loads((probed.path / f"fold-{fold}/probe/probe.json").read_text())["num_images"] for fold in (1, 2, 3)
    ]
    assert passes == [300, 0, 0]


def test_the_bundle_of_probes_says_what_was_scored(probed, digits):
    rows = pl.read_parquet(probed.path / "predictions.parquet")
    answers = headstart.load(probed.path, device="cpu").predict([f"{digits}/{path}" for path in rows["path"]])
    assert [answer.label for answer in answers] == rows["predicted"].to_list()
    stated = [row[row["predicted"]] for row in rows.iter_rows(named=True)]
    assert [answer.probability for answer in answers] == pytest.approx(stated, abs=2e-3)


def test_folds_on_augmented_views_go_through_each_view_once(digits, tmp_path):
    views = PROBE | {"views": 2, "store_dir": str(tmp_path / "store"), "epochs": 1}
    run = headstart.train(digits, out=tmp_path / "run", **views)
    passes = [json.loads((run.path / f"fold-{fold}/probe/probe.json").read_text())["num_images"] for fold in (1, 2, 3)]
    assert passes == [300 + 2 * 255, 0, 0]


def test_frozen_blocks_run_once_for_all_folds_and_change_nothing(digits, tmp_path, capsys):
    settings = TUNED | {"folds": 2, "unfreeze": 1, "augment": "none", "store_dir": str(tmp_path / "store")}
    kept = headstart.train(digits, out=tmp_path / "kept", **settings)
    assert capsys.readouterr().out.count("the activations were there already") == 1  # in the second fold
    store = next((tmp_path / "store").rglob("features"))
    assert len(list(store.glob("features-*.npy"))) == 3  # of the probe, of training, as in use
    alone = headstart.train(digits, out=tmp_path / "alone", **settings | {"cache_gb": 1e-9})
    first, second = (pl.read_csv(run.path / "fold-2/history.csv")["train_loss"] for run in (kept, alone))
    assert first.to_numpy() == pytest.approx(second.to_numpy(), rel=1e-3)


# --- resuming


def test_a_fold_alone_is_the_fold_of_the_whole_to_the_bit(tuned, digits, tmp_path):
    alone = headstart.train(digits, out=tmp_path / "alone", fold=2, **TUNED)
    one, other = load_file(alone.path / "bundle/weights.safetensors"), weights_of(tuned.path)[1]
    assert all(one[name].equal(other[name]) for name in other)
    assert metrics_of(alone)["test"] == metrics_of(tuned)["folds"][1]["scores"]


def test_a_finished_fold_is_not_repeated(tuned, tmp_path):
    run = shutil.copytree(tuned.path, tmp_path / "run")
    shutil.rmtree(run / "fold-3")
    (run / "report.html").unlink()
    before = {path: path.stat().st_mtime_ns for path in (run / "fold-1").rglob("*") if path.is_file()}
    pipeline.resume(run)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert same_bits(run, tuned.path)
    assert pl.read_parquet(run / "oof.parquet").equals(pl.read_parquet(tuned.path / "oof.parquet"))


def test_folds_whose_store_was_renumbered_between_two_sessions_end_with_the_same_bits(tuned, tmp_path):
    run = shutil.copytree(tuned.path, tmp_path / "run")
    begun = {"recipe.toml", "run.json", "table.parquet", "split.parquet"}
    for folder, kept in ((run, {*begun, "fold-1", "fold-2", "fold-3"}), (run / "fold-2", {*begun, "probe"})):
        _remove_all_but(kept, folder)
    _remove_all_but(begun, run / "fold-3")
    before = SampleTable.load(run / "fold-3/table.parquet").frame["record"]
    renumber_store(run, tmp_path / "store")
    pipeline.resume(run)
    assert same_bits(run, tuned.path)
    found = [SampleTable.load(run / name / "table.parquet").frame["record"] for name in (".", "fold-2", "fold-3")]
    assert all(one.equals(found[0]) and not one.equals(before) for one in found)


def test_a_finished_whole_is_left_as_it_is(tuned, capsys):
    pipeline.resume(tuned.path)
    assert "This run is finished" in capsys.readouterr().out


def test_more_epochs_go_to_every_fold(tuned, tmp_path):
    run = RunFolder.open(Path(shutil.copytree(tuned.path, tmp_path / "run")))
    longer = pipeline.resume(run.path, epochs=3)
    counts = [
        pl.read_csv(longer.path / f"fold-{fold}/history.csv").filter(stage="fine-tune").height for fold in (1, 2, 3)
    ]
    assert counts == [3, 3, 3]
    assert longer.is_finished
    page = (longer.path / "report.html").read_text(encoding="utf-8")
    assert "Continued after its test" in page
    assert "test images, not for the first time: the run went on after its test" in page
    assert "test images that took part in no choice" not in page


def test_more_epochs_without_a_test_are_told_of_what_was_held_out(digits, tmp_path):
    settings = TUNED | {"folds": 2, "epochs": 1, "probe_epochs": 1, "test_fraction": 0}
    longer = pipeline.resume(headstart.train(digits, out=tmp_path / "run", **settings).path, epochs=2)
    page = (longer.path / "report.html").read_text(encoding="utf-8")
    assert "What was held out was scored after 1 epoch, then the run went on to 2" in page
    assert "There is no test" in page
    assert "The test was scored" not in page
    assert "Continued after its test" not in page


def test_folds_that_nobody_extended_have_an_untouched_test(tuned):
    page = (tuned.path / "report.html").read_text(encoding="utf-8")
    assert "test images that took part in no choice" in page
    assert "not for the first time" not in page


def _remove_all_but(names: set[str], folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _stop_in(run: Path, place: str, digits: Path, how: int, settings: dict) -> subprocess.Popen:
    """Start folds in a process of their own, and stop it once a file is there."""
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "headstart", "train", str(digits), "--out", str(run), *flags]
    with run.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    while not (run / place).exists():
        assert process.poll() is None, run.with_suffix(".log").read_text()
        time.sleep(0.02)
    process.send_signal(how)
    process.wait(timeout=60)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["fold-2/table.parquet", "fold-2/probe/probe.json", "fold-2/checkpoints/best.safetensors"]
)
def test_folds_killed_anywhere_end_with_the_same_bits(undisturbed, digits, tmp_path, place):
    _stop_in(tmp_path / "killed", place, digits, signal.SIGKILL, LONGER)
    assert not (tmp_path / "killed" / "report.html").exists()
    resumed = pipeline.resume(tmp_path / "killed")
    assert same_bits(resumed.path, undisturbed.path)
    assert pl.read_parquet(resumed.path / "oof.parquet").equals(pl.read_parquet(undisturbed.path / "oof.parquet"))


@pytest.mark.slow
def test_ctrl_c_in_a_fold_says_how_to_go_on_with_the_whole(digits, tmp_path):
    run = tmp_path / "run"
    settings = TUNED | {"epochs": 200, "patience": 200}
    process = _stop_in(run, "fold-1/checkpoints/last.safetensors", digits, signal.SIGINT, settings)
    assert process.returncode == 130
    assert f"headstart train --resume {run}\n" in run.with_suffix(".log").read_text()


# --- in use


def test_evaluating_again_gives_the_scores_of_the_test(tuned, tmp_path):
    again = headstart.evaluate(tuned.path, out=tmp_path / "scores")
    stated = metrics_of(tuned)["test"]["accuracy"]["value"]
    assert again.evaluations["test"].scores["accuracy"].value == pytest.approx(stated)
    assert json.loads((tmp_path / "scores/metrics.json").read_text())["vote"]["test"]["gain"]


def test_photos_that_a_fold_has_learned_from_are_refused(tuned, digits):
    with pytest.raises(RunError, match=r"no member of the ensemble has learned from; got '\d+ of 300 photos"):
        headstart.evaluate(tuned.path, digits)


def test_all_photos_serve_the_folds_where_no_test_is_asked_for(digits, tmp_path):
    run = headstart.train(digits, out=tmp_path / "run", **PROBE | {"test_fraction": 0, "probe_epochs": 2})
    metrics = metrics_of(run)
    assert "test" not in metrics
    assert pl.read_parquet(run.path / "oof.parquet").height == 300
    assert "There is no test" in (run.path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(RunError, match="an ensemble with test images"):
        headstart.evaluate(run.path)


def test_a_run_cannot_go_on_from_folds_but_from_one_of_them(tuned, digits, tmp_path):
    with pytest.raises(BundleError, match="a bundle of one network; got 'an ensemble'"):
        headstart.train(digits, out=tmp_path / "run", from_run=str(tuned.path), **SMALL_RUN)


def test_a_run_that_goes_on_from_a_fold_leaves_the_test_of_all_folds_aside(tuned, digits, tmp_path):
    fold = tuned.path / "fold-1"
    run = headstart.train(digits, out=tmp_path / "further", from_run=str(fold), **SMALL_RUN | {"epochs": 1})
    kept, theirs = (SampleTable.load(path / "table.parquet").kept for path in (run.path, fold))
    assert kept["split"].equals(theirs["split"])
    assert kept["split"].null_count() == pl.read_parquet(tuned.path / "predictions.parquet").height
    assert "samples take no part in that split" in (run.path / "report.html").read_text(encoding="utf-8")


def test_folds_that_go_on_from_a_run_say_that_it_has_seen_them(finished_run, digits, tmp_path, capsys):
    settings = SMALL_RUN | {"folds": 2, "epochs": 1}
    headstart.train(digits, out=tmp_path / "run", from_run=str(finished_run.path), **settings)
    assert "of the images in the folds; no score out of fold is honest" in capsys.readouterr().out


def test_too_many_folds_are_refused(digits, tmp_path):
    with pytest.raises(SplitError, match="--folds must be at most"):
        headstart.train(digits, out=tmp_path / "run", **PROBE | {"folds": 90, "test_fraction": 0.8})


# --- keypoints

FACES = {"crop_to_box": "Face", "image_size": 48, "batch_size": 8, "horizontal_flip": None}


@pytest.mark.parametrize("settings", [{"head": "coordinates", "epochs": 0, "probe_epochs": 3}, {"epochs": 1}])
def test_folds_of_keypoints_are_scored_out_of_fold_and_averaged_as_points(tmp_path, settings):
    write_faces(tmp_path / "faces", count=72)
    small = SMALL_RUN | FACES | {"folds": 3} | settings
    small = {name: value for name, value in small.items() if value is not None}
    run = headstart.train(
        tmp_path / "faces/images", out=tmp_path / "run", annotations=str(tmp_path / "faces/labels"), **small
    )
    metrics, oof = metrics_of(run), pl.read_parquet(run.path / "oof.parquet")
    assert metrics["oof"]["nme"]["value"] == pytest.approx(oof["nme"].mean())
    assert not (run.path / "suspects.parquet").exists()
    photo = next((tmp_path / "faces/images").rglob("*.jpg"))
    alone = [headstart.load(run.path / f"fold-{n}", device="cpu").predict(photo)[0].points for n in (1, 2, 3)]
    assert headstart.load(run.path, device="cpu").predict(photo)[0].points == pytest.approx(np.mean(alone, axis=0))
    again = headstart.evaluate(run.path)
    assert again.evaluations["test"].scores["nme"].value == pytest.approx(metrics["test"]["nme"]["value"], rel=1e-3)


# --- real faces


@pytest.mark.real_data
def test_folds_of_real_faces_keep_every_person_whole(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(real_data / "weights"))
    columns = {"path_column": "file", "label_column": "label", "group_column": "subject"}
    run = headstart.train(
        real_data / "ck48_emotion_by_subject/labels.csv", out=tmp_path / "run", store_dir=str(tmp_path / "store"),
        folds=5, unfreeze="none", image_size=64, probe_epochs=20, device="cpu", **columns,
    )  # fmt: skip
    table = SampleTable.load(run.path / "table.parquet").kept
    sides = table.with_columns(side=pl.col("fold").fill_null(0)).group_by("group").agg(pl.col("side").n_unique())
    assert sides.height == 118
    assert sides["side"].max() == 1
    assert table.drop_nulls("fold").group_by("fold", "label").len().height == 5 * 7  # every emotion in every fold
    metrics = metrics_of(run)
    assert metrics["oof"]["accuracy"]["low"] > 0.3  # the most frequent emotion makes up a quarter
    assert {"gain", "members"} == set(metrics["vote"]["test"])
