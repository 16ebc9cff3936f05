"""Keypoints from annotation JSON to a bundle: drawn faces of many persons, three of them with broken labels."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import torch

import headstart
from headstart.cli import main
from headstart.data.table import SampleTable
from headstart.drawing.faces import FLIP_PAIRS
from headstart.errors import RecipeError, RunError
from headstart.models.bundle import load_bundle
from headstart.preparation import reopen
from headstart.recipe import make_recipe, read_recipe
from headstart.resolution import completed
from headstart.runs import weights_hash
from headstart.samples import write_faces
from headstart.training.fit import make_fabric, samples_of
from headstart.training.history import read_history
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.tasks import make_task

SMALL = {
    "backbone": "test_resnet",
    "weights": "none",
    "image_size": 48,
    "crop_to_box": "Face",
    "epochs": 2,
    "batch_size": 8,
    "lr": 3e-3,
    "num_threads": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """72 drawn faces of six persons as JSON files, three of them broken."""
    folder = tmp_path_factory.mktemp("data") / "얼굴"
    write_faces(folder, count=72, with_broken=True)
    return folder


def train(faces: Path, out: Path, **settings):
    places = {"annotations": str(faces / "labels")}
    return headstart.train(faces / "images", out=out, **places, **SMALL | settings)


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    return train(faces, tmp_path_factory.mktemp("runs") / "first")


def metrics_of(run) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


def test_broken_labels_are_left_out_by_name_and_the_rest_is_trained_on(run):
    table = SampleTable.load(run.path / "table.parquet")
    assert table.excluded_counts == {"bad annotation": 3}
    assert metrics_of(run)["counts"] == {"found": 72, "kept": 69, "excluded": {"bad annotation": 3}}
    assert table.frame["detail"].drop_nulls().len() == 3


def test_persons_stand_in_one_split_only(run):
    kept = SampleTable.load(run.path / "table.parquet").kept
    assert kept["group"].null_count() == 0
    assert kept.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1


def test_the_pairs_of_the_drawn_faces_are_found(run):
    table = SampleTable.load(run.path / "table.parquet")
    assert table.keypoints is not None
    assert set(map(frozenset, table.keypoints.flip_pairs)) == set(map(frozenset, FLIP_PAIRS))
    assert load_bundle(run.path).keypoints == table.keypoints


def test_metrics_and_predictions_say_the_same(run):
    metrics, rows = metrics_of(run), pl.read_parquet(run.path / "predictions.parquet")
    assert metrics["task"] == "keypoints"
    test = rows.filter(split="test")
    assert metrics["test"]["nme"]["value"] == pytest.approx(test["nme"].mean())
    assert {"x1", "y70"} <= set(rows.columns)
    assert len(metrics["details"]["test"]["per_point"]) == 70
    assert set(metrics["details"]["test"]["per_group"]) == set(test["group"])


def test_the_report_shows_faces_points_and_persons(run):
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for words in ("NME", "Known against new", "Worst", "Error of each point", "bad annotation"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_history_holds_the_error_of_every_epoch(run):
    history = read_history(run.path)
    assert history["stage"].to_list() == ["fine-tune"] * SMALL["epochs"]
    assert history["validation_nme"].is_not_null().all()


def test_a_bundle_gives_the_same_points_in_a_process_without_the_training_data(run, faces, tmp_path):
    shutil.copytree(run.path / "bundle", tmp_path / "bundle")
    photo = next((faces / "images").rglob("*.jpg"))
    here = headstart.load(run.path, device="cpu").predict(photo)[0].points
    code = (
        "import sys, json, headstart\n"
        "answer = headstart.load(sys.argv[1], device='cpu').predict(sys.argv[2])[0]\n"
        "print(json.dumps(answer.points.tolist()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "bundle"), str(photo)]
    there = json.loads(subprocess.run(command, capture_output=True, check=True, text=True, cwd=tmp_path).stdout)
    assert np.abs(np.array(there) - here).max() < 0.01


def test_points_follow_a_picture_of_another_size_and_shape(run, faces):
    """The same face, twice as large and beside a wide bar: the same box gives the same points, moved likewise."""
    photo = cv2.imread(str(next((faces / "images").rglob("*.jpg"))))[:, :, ::-1]
    box = np.array([[400.0, 100.0, 900.0, 650.0]])
    model = headstart.load(run.path, device="cpu")
    large = cv2.resize(np.ascontiguousarray(photo), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    moved = np.array([300.0, 0.0])
    beside = np.concatenate([np.zeros((len(photo), 300, 3), np.uint8), photo], axis=1)
    points = model.predict([photo], boxes=box)[0].points
    assert np.abs(model.predict([large], boxes=2 * box)[0].points / 2 - points).max() < 3
    answer = model.predict([beside], boxes=box + np.tile(moved, 2))[0].points
    assert np.abs(answer - moved - points).max() < 0.01


def test_predict_writes_points_and_draws_them(run, faces, tmp_path, capsys):
    photos = sorted(str(path) for path in (faces / "images").rglob("*.jpg"))[:3]
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    out, drawn = tmp_path / "points.csv", tmp_path / "그림"
    command = ["predict", str(run.path), *photos, str(tmp_path / "broken.jpg"), "--out", str(out), "--draw", str(drawn)]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 1
    assert "give --boxes" in capsys.readouterr().out
    rows = pl.read_csv(out)
    assert rows["error"].is_null().to_list() == [True, True, True, False]
    assert rows["x1"].is_null().to_list() == [False, False, False, True]
    pictures = [cv2.imread(str(path)) for path in sorted(drawn.iterdir())]
    assert [picture.shape for picture in pictures] == [(720, 1280, 3)] * 3


def test_a_photo_without_a_usable_box_is_a_row_with_the_error_and_the_rest_is_predicted(run, faces, tmp_path, capsys):
    photos = sorted(str(path) for path in (faces / "images").rglob("*.jpg"))[:4]
    sides = ("400,100,900,650", "2400,100,2900,650", "0.3,0.1,0.7,0.9")
    rows = [f"{photo},{four}" for photo, four in zip(photos, sides, strict=False)]
    (tmp_path / "boxes.csv").write_text("\n".join(["path,left,top,right,bottom", *rows]), encoding="utf-8")
    out = tmp_path / "points.csv"
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(run.path), *photos, "--out", str(out), "--boxes", str(tmp_path / "boxes.csv")])
    assert stop.value.code == 1
    found = pl.read_csv(out)
    assert found["x1"].is_null().to_list() == [False, True, True, True]
    reasons = ["box outside the photo: its middle is at x 2650, y 375 in a photo of 720", "bad box: ", "no box: "]
    assert all(row.startswith(words) for row, words in zip(found["error"][1:], reasons, strict=True))
    printed = capsys.readouterr().out
    assert "2 of them have no box that can be used" in printed
    assert "1 photos done, 3 could not be read or had no usable box" in printed


def test_points_in_a_photo_do_not_depend_on_the_boxes_of_others(run, faces):
    photos = sorted((faces / "images").rglob("*.jpg"))[:3]
    boxes = np.array([[400.0, 100.0, 900.0, 650.0], [9000.0, 100.0, 9900.0, 650.0], [380.0, 120.0, 880.0, 640.0]])
    model = headstart.load(run.path, device="cpu")
    first, outside, last = model.predict(photos, boxes=boxes)
    assert (outside.points, outside.size) == (None, None)
    alone = model.predict([photos[0], photos[2]], boxes=boxes[[0, 2]])
    for one, other in zip((first, last), alone, strict=True):
        assert np.abs(one.points - other.points).max() < 0.01


def test_a_prediction_that_broke_off_draws_again_into_its_folder(run, faces, tmp_path):
    photos = sorted(str(path) for path in (faces / "images").rglob("*.jpg"))[:2]
    command = ["predict", str(run.path), *photos, "--out", str(tmp_path / "a.csv"), "--draw", str(tmp_path / "drawn")]
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 0
        assert len(list((tmp_path / "drawn").iterdir())) == 2
        next((tmp_path / "drawn").iterdir()).write_bytes(b"")  # where it broke off


def test_flags_of_a_classifier_are_refused_for_points(run, faces, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["predict", str(run.path), str(faces / "images"), "--out", str(tmp_path / "a.csv"), "--top-k", "3"])
    assert "--top-k must be given to a classifier only; got 'a model of keypoints'" in capsys.readouterr().err


def test_evaluate_scores_the_test_again_and_other_faces(run, tmp_path):
    again = headstart.evaluate(run.path)
    assert again.evaluations["test"].scores["nme"].value == pytest.approx(
        metrics_of(run)["test"]["nme"]["value"], rel=1e-3
    )
    write_faces(tmp_path / "others", count=12, seed=5)
    others = {"annotations": str(tmp_path / "others" / "labels")}
    found = headstart.evaluate(run.path, tmp_path / "others" / "images", out=tmp_path / "scores", **others)
    assert found.evaluations["test"].num_samples == 12
    assert (tmp_path / "scores" / "metrics.json").exists()


def test_a_run_goes_on_from_another_with_its_own_settings(run, faces, tmp_path):
    places = {"annotations": str(faces / "labels"), "num_threads": 2, "device": "cpu", "batch_size": 8}
    further = headstart.train(
        faces / "images", out=tmp_path / "further", from_run=str(run.path), lr=1e-4, epochs=1, seed=9, **places
    )
    assert further.recipe.backbone == SMALL["backbone"]
    assert further.recipe.crop_to_box == "Face"
    splits = [SampleTable.load(one.path / "table.parquet").frame["split"] for one in (run, further)]
    assert splits[0].equals(splits[1], null_equal=True)
    metrics = metrics_of(further)
    start = metrics_of(run)["validation"]["nme"]["value"]
    assert metrics["stages"]["start"]["nme"] == pytest.approx(start, rel=1e-3)
    assert metrics["validation"]["nme"]["value"] <= start * 1.001
    assert str(run.path) in (further.path / "report.html").read_text(encoding="utf-8")
    third = train(faces, tmp_path / "third", from_run=str(further.path), epochs=1)
    assert len(third.facts["ancestry"]) == 2
    weights = [weights_hash(one.path) for one in (run, further)]
    assert [one.recipe.from_sha256 for one in (further, third)] == weights
    assert all(known[:12] in line for known, line in zip(weights, third.facts["ancestry"], strict=True))


def test_images_that_an_ancestor_was_trained_on_are_said(run, faces, tmp_path):
    other = train(faces, tmp_path / "other", from_run=str(run.path), epochs=1, resplit=True, seed=3)
    assert any(line.startswith(f"Leak from {run.path}") for line in other.facts["leaks"])
    assert "The given split leaks" in (other.path / "report.html").read_text(encoding="utf-8")


def test_a_run_of_another_head_or_image_size_cannot_be_gone_on_from(run, faces, tmp_path):
    with pytest.raises(
        RunError, match=r"(?s)head must be 'integral'.*got 'coordinates'.*image_size must be \(48, 48\)"
    ):
        train(faces, tmp_path / "other", from_run=str(run.path), head="coordinates", image_size=64)


def test_a_finished_run_is_extended_and_says_that_its_test_was_seen(faces, tmp_path):
    first = train(faces, tmp_path / "run", epochs=1)
    before = metrics_of(first)["test"]["nme"]["value"]
    headstart.pipeline.resume(first.path, epochs=2)
    history = read_history(first.path)
    assert history["epoch"].to_list() == [1, 2]
    page = (first.path / "report.html").read_text(encoding="utf-8")
    assert f"NME {before:.2f} %" in page
    assert "not for the first time: the run went on after its test" in page
    with pytest.raises(RunError, match="--epochs must be more than the run's 2; got 2"):
        headstart.pipeline.resume(first.path, epochs=2)


@pytest.mark.parametrize("head", ["coordinates", "integral", "simcc"])
def test_training_goes_on_from_any_step_with_the_same_bits(run, tmp_path, head):
    recipe = run.recipe.updated(head=head, loss={"simcc": "simcc"}.get(head, "l1"), epochs=2, image_size=(64, 64))
    table = SampleTable.load(run.path / "table.parquet")
    store = reopen(table, run.recipe, image_size=(48, 48)).store
    task = make_task(recipe, table)
    data = TrainingData(store, *(samples_of(task, table, store, split) for split in ("train", "validation")))

    def tuning(folder):
        from headstart.models.network import new_network

        network = new_network(recipe, 70)
        network.unfreeze("all")
        return FineTuning(make_fabric(recipe), network, data, task=task, recipe=recipe, folder=folder)

    whole, first = tuning(tmp_path / "whole"), tuning(tmp_path / "parts")
    whole.run()
    step, done = first.train_step, []

    def counted(batch):
        step(batch)
        done.append(batch)
        if len(done) == 3:
            raise KeyboardInterrupt

    first.train_step = counted
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = tuning(tmp_path / "parts")
    second.run()
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_probe_learns_coordinates_on_cached_features(faces, tmp_path):
    run = train(faces, tmp_path / "run", head="coordinates", epochs=0, probe_epochs=8)
    errors = read_history(run.path)["validation_nme"].to_list()
    assert metrics_of(run)["chosen"] == "probe"
    assert errors[-1] < errors[0]


def test_pixel_targets_are_learned_in_pixels_and_answered_in_shares(faces, tmp_path):
    run = train(faces, tmp_path / "run", head="coordinates", targets="pixels", epochs=1, probe_epochs=3, loss="mse")
    assert load_bundle(run.path).network.head.frame == (48, 48)
    assert metrics_of(run)["test"]["mae"]["value"] < 0.5  # shares of the frame, whatever training measured in


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "linear"}, "recipe.head must be one of coordinates, simcc, integral for keypoints; got 'linear'"),
        ({"loss": "cross_entropy"}, "loss must be one of mse, l1, .*, soft_wing for keypoints; got 'cross_entropy'"),
        ({"loss": "simcc"}, "loss must be one of mse, l1, .*, soft_wing for the head 'integral'; got 'simcc'"),
        ({"head": "simcc", "loss": "cross_entropy"}, "loss must be one of .*, soft_wing, simcc for keypoints"),
        ({"targets": "pixels"}, "targets must be 'normalised' for the head 'integral'; got 'pixels'"),
        ({"nme_by": "points"}, "nme_points must be given where nme_by is 'points', e.g. 36,45; got none"),
        ({"nme_by": "image", "nme_points": "3,4"}, "nme_by must be 'points' beside nme_points; got 'image'. Leave one"),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0 for keypoints: only classes are smoothed; got 0.1"),
        ({"crop_to_box": "Face", "crop_to_points": 0.1}, "crop_to_points must be left out beside crop_to_box"),
        ({"nme_points": "3,3"}, "recipe.nme_points must be two different point numbers from 0"),
        ({"epochs": 0}, "epochs must be at least 1 for the head 'integral'"),
        ({"name_pattern": "(x"}, "recipe.name_pattern must be a regular expression"),
        ({"name_pattern": "(x)"}, "recipe.name_pattern must be a regular expression with named groups"),
        ({"monitor": "accuracy"}, "monitor must be 'nme' for keypoints; got 'accuracy'"),
    ],
)
def test_settings_that_do_not_fit_keypoints_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe({"task": "keypoints"} | settings)


def test_several_faces_in_a_photo_are_a_concern_of_the_report_that_names_their_box(faces, tmp_path, capsys):
    photos = sorted((faces / "images").rglob("*.jpg"))[:24]
    images = [{"id": number, "file_name": photo.name} for number, photo in enumerate(photos)]
    spots = np.array([[500.0, 200, 2], [800, 200, 2], [650, 350, 2], [560, 480, 2], [740, 480, 2]])
    annotations = [
        {
            "image_id": number,
            "keypoints": (spots + np.array([shift, 0, 0])).ravel().tolist(),
            "bbox": [400, 100, 500, 500],
        }
        for number in range(len(photos))
        for shift in (0, 60)
    ]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-8")
    small = {name: value for name, value in SMALL.items() if name != "crop_to_box"} | {"epochs": 1}
    run = headstart.train(faces / "images", out=tmp_path / "run", annotations=tmp_path / "coco.json", **small)
    words = "24 photos hold several faces (48 samples), and the network sees each photo whole"
    assert f"Careful: {words}" in capsys.readouterr().out
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f"Several faces in a photo</b><span>{words}: it cannot know which face is meant. --crop-to-box bbox" in page


def test_a_flip_that_cannot_be_done_right_is_refused_before_the_pass(faces, tmp_path):
    (tmp_path / "pairs.csv").write_text("36,39\n42,45\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"--flip-pairs must be points that are .* got the pair 36, 39"):
        train(faces, tmp_path / "run", flip_pairs=str(tmp_path / "pairs.csv"))
    assert not (tmp_path / "run" / "table.parquet").exists()


def test_points_that_the_data_does_not_have_are_refused_before_the_pass(faces, tmp_path):
    with pytest.raises(ValueError, match=r"--nme-points must be two point numbers from 0 to 69; got \[36, 99\]"):
        train(faces, tmp_path / "run", nme_points="36,99")
    assert not (tmp_path / "run" / "table.parquet").exists()


def test_a_batch_of_broken_photos_alone_has_no_points(run):
    answers = headstart.load(run.path, device="cpu").predict([b"", b""])
    assert [(answer.points, answer.error) for answer in answers] == [(None, "empty: the file has no bytes")] * 2


def test_drawings_never_overwrite_photos(run, faces, tmp_path, capsys):
    shutil.copy(next((faces / "images").rglob("*.jpg")), tmp_path / "0.jpg")
    before = (tmp_path / "0.jpg").read_bytes()
    with pytest.raises(SystemExit):
        main(["predict", str(run.path), str(tmp_path), "--out", str(tmp_path / "a.csv"), "--draw", str(tmp_path)])
    assert "--draw must be a new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "0.jpg").read_bytes() == before


def test_results_are_not_written_over_photos_or_runs(run, faces, tmp_path, capsys):
    photo = next((faces / "images").rglob("*.jpg"))
    before = photo.read_bytes()
    with pytest.raises(SystemExit):
        main(["predict", str(run.path), str(photo), "--out", str(photo)])
    assert "--out must be the name of a CSV file" in capsys.readouterr().err
    assert photo.read_bytes() == before
    with pytest.raises(RunError, match="--out must be another folder than a run's"):
        headstart.evaluate(run.path, out=run.path)


def test_a_run_that_another_process_holds_is_not_changed_by_an_extension(run):
    recipe, report = (run.path / "recipe.toml").read_bytes(), (run.path / "report.html").read_bytes()
    with run.held(), pytest.raises(RunError, match="must be free"):
        headstart.pipeline.resume(run.path, epochs=9)
    assert ((run.path / "recipe.toml").read_bytes(), (run.path / "report.html").read_bytes()) == (recipe, report)


def test_what_follows_from_settings_follows_from_those_given_last(run):
    base = read_recipe(run.path / "recipe.toml")
    again = make_recipe(completed({"head": "simcc"}, base))
    assert (again.head, again.loss) == ("simcc", "simcc")
    assert make_recipe(completed({"nme_points": "36,45"}, base)).nme_by == "points"
    further = make_recipe(completed({"from_run": str(run.path), "crop_to_points": 0.2}, {}))
    assert (further.crop_to_box, further.crop_to_points) == (None, 0.2)


def test_scores_are_divided_by_what_evaluate_is_told(run):
    by_image = headstart.evaluate(run.path, nme_by="image").evaluations["test"].scores["nme"].value
    by_points = headstart.evaluate(run.path, nme_points="36,45").evaluations["test"].scores["nme"].value
    assert by_image < metrics_of(run)["test"]["nme"]["value"] < by_points


def test_a_score_says_what_it_is_divided_by_and_what_its_interval_is_over(run):
    (line,) = headstart.evaluate(run.path, nme_points="36,45").describe()
    assert re.fullmatch(
        r"test: NME [\d.]+ %( \([\d.]+ to [\d.]+\))? of the distance between the points 36 and 45; [\d.]+ % of the "
        r"samples above 8 %, error [\d.]+ pixels; (95 % intervals over|no interval: only) \d+ samples in \d+ groups?",
        line,
    )


def test_points_that_the_model_does_not_have_are_refused_by_flag_when_it_is_evaluated(run):
    with pytest.raises(ValueError, match=r"--nme-points must be two point numbers from 0 to 69; got \[70, 1\]"):
        headstart.evaluate(run.path, nme_points="70,1")


def test_a_split_that_cannot_be_scored_is_refused_before_training(faces, tmp_path):
    rows = [f"images/{path.relative_to(faces / 'images')},{10 + k},{20 + k}" for k, path in
            enumerate(sorted((faces / "images").rglob("*.jpg"))[:24])]  # fmt: skip
    (faces / "one.csv").write_text("\n".join(["path,x1,y1", *rows]), encoding="utf-8")
    settings = {name: value for name, value in SMALL.items() if name != "crop_to_box"}
    with pytest.raises(ValueError, match=r"what errors are divided by must be one that .* Name other points"):
        headstart.train(faces / "one.csv", out=tmp_path / "run", task="keypoints", **settings)


def test_settings_of_keypoints_are_refused_for_classes():
    with pytest.raises(RecipeError, match="annotations must be left out for classification; got 'labels'"):
        make_recipe({"annotations": "labels"})


@pytest.mark.slow
def test_a_network_from_scratch_finds_points_on_persons_never_seen(tmp_path):
    write_faces(tmp_path / "faces", count=240)
    settings = {"backbone": "resnet10t", "epochs": 12, "batch_size": 16, "lr": 2e-3, "image_size": 64}
    run = train(tmp_path / "faces", tmp_path / "run", **settings)
    assert metrics_of(run)["test"]["nme"]["value"] < 8


@pytest.mark.real_data
def test_the_udacity_table_trains_as_it_stands_and_names_points_outside(real_data, tmp_path, capsys):
    folder = real_data / "face_keypoints_udacity"
    table = tmp_path / "some.csv"
    rows = pl.read_csv(folder / "training_frames_keypoints.csv")
    outside = ["Mariana_Ohata_22", "Chris_Cooper_42", "Eliza_Dushku_22", "Eliza_Dushku_20", "Eliza_Dushku_21"]
    outside.append("Charlotte_Casiraghi_00")
    chosen = rows[:, 0].str.strip_suffix(".jpg").is_in(outside) | pl.Series(range(len(rows))).is_in(range(200))
    rows.filter(chosen).write_csv(table)
    settings = {"image_root": str(folder / "training"), "group_pattern": r"(.*)_\d+\.jpg", "nme_points": "36,45"}
    small = {name: value for name, value in SMALL.items() if name != "crop_to_box"}
    run = headstart.train(table, out=tmp_path / "run", **settings, **small | {"epochs": 1})
    said = capsys.readouterr().out
    assert "keypoints: 6 samples with points outside the picture" in said
    assert "29 left/right pairs found" in said
    assert metrics_of(run)["details"]["test"]["divided_by"] == "the distance between the points 36 and 45"
