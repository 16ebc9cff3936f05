"""Several labels from the table to the bundle: heads, combinations, bins, and several labels in a cell."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

import headstart
from headstart import pipeline
from headstart.cli import main
from headstart.data.table import SampleTable
from headstart.deploy.label_predictor import LabelPredictor, MultiLabelPredictor
from headstart.errors import RecipeError, RunError, SourceError
from headstart.models.bundle import load_bundle
from headstart.preparation import reopen
from headstart.recipe import make_recipe, read_recipe
from headstart.samples import write_faces
from headstart.training.fit import make_fabric, samples_of
from headstart.training.history import read_history
from headstart.training.loop import FineTuning, TrainingData
from headstart.training.tasks import make_task
from labelled_photos import LabelledPhotos, write_labelled_photos
from small_run import SMALL_RUN

LEARNS = {"augment": "none", "probe_epochs": 100, "probe_lr": 3e-2, "epochs": 2, "lr": 1e-2, "ema_decay": 0.0}
"""What the tints are learned with in two seconds."""

SMALL = SMALL_RUN | LEARNS | {"group_column": "person"}
HEADS = {"label": "mask,gender,age", "label_bins": "age=40,65", "label_weights": "mask=1,age=2"}
JOINT = {"label": "mask+gender", "name_pattern": r"_(?P<age>\d+)_"}
MULTI = {"multi_label": "tags"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> LabelledPhotos:
    return write_labelled_photos(tmp_path_factory.mktemp("data") / "셋")


@pytest.fixture(scope="module")
def patchy(photos) -> Path:
    """The table with some cells empty."""
    return photos.without(photos.folder / "patchy.csv", mask=list(range(40)), age=list(range(30, 60)))


@pytest.fixture(scope="module")
def heads(patchy, tmp_path_factory):
    return headstart.train(patchy, out=tmp_path_factory.mktemp("runs") / "heads", **SMALL | HEADS)


@pytest.fixture(scope="module")
def joint(photos, tmp_path_factory):
    settings = SMALL | JOINT | {"epochs": 0}
    return headstart.train(photos.table, out=tmp_path_factory.mktemp("runs") / "joint", **settings)


@pytest.fixture(scope="module")
def multi(photos, tmp_path_factory):
    return headstart.train(photos.table, out=tmp_path_factory.mktemp("runs") / "multi", **SMALL | MULTI)


def metrics_of(run) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


def predictions_of(run) -> pl.DataFrame:
    return pl.read_parquet(run.path / "predictions.parquet")


def some_photos(photos: LabelledPhotos, count: int = 8) -> list[str]:
    return [str(photos.folder / path) for path in photos.rows["path"].head(count)]


# --- heads


def test_every_column_is_scored_and_all_at_once(heads):
    metrics = metrics_of(heads)
    assert metrics["task"] == "several labels"
    for split in ("validation", "test"):
        for name in ("mask.accuracy", "gender.macro_f1", "age.log_loss", "exact"):
            score = metrics[split][name]
            assert score["low"] <= score["value"] <= score["high"], (split, name)
    assert metrics["test"]["mask.accuracy"]["value"] > 0.8
    assert metrics["test"]["gender.accuracy"]["value"] > 0.8
    assert metrics["test"]["exact"]["value"] <= metrics["test"]["mask.accuracy"]["value"] + 0.1


def test_the_best_epoch_has_the_best_mean_over_columns(heads):
    history = read_history(heads.path).filter(stage="probe")
    mean = sum(history[f"validation_{name}.accuracy"] for name in ("mask", "gender", "age")) / 3
    assert history["validation_accuracy"].to_list() == pytest.approx(mean.to_list())
    stages = metrics_of(heads)["stages"]
    assert stages["probe"]["accuracy"] == pytest.approx(history["validation_accuracy"].max())


def test_predictions_hold_each_columns_answer_and_probabilities(heads):
    frame = predictions_of(heads)
    assert frame.columns[:8] == [
        "path", "split", "mask", "mask_predicted", "gender", "gender_predicted", "age", "age_predicted",
    ]  # fmt: skip
    assert frame.columns[8:] == [
        "mask=no", "mask=yes", "gender=f", "gender=m", "age=<40", "age=40–65", "age=≥65",
    ]  # fmt: skip
    assert np.allclose(frame.select(pl.sum_horizontal("^age=.*$")).to_series(), 1, atol=1e-6)
    test = frame.filter(split="test")
    known = test.drop_nulls("age")
    stated = metrics_of(heads)["test"]["age.accuracy"]["value"]
    assert (known["age"] == known["age_predicted"]).mean() == pytest.approx(stated)
    right = [(test[name] == test[f"{name}_predicted"]).fill_null(value=True) for name in ("mask", "gender", "age")]
    exact = (right[0] & right[1] & right[2]).mean()
    assert exact == pytest.approx(metrics_of(heads)["test"]["exact"]["value"])


def test_persons_stand_on_one_side_and_empty_cells_are_said(heads):
    table = SampleTable.load(heads.path / "table.parquet")
    assert table.kept.height == 160
    assert table.kept.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    page = (heads.path / "report.html").read_text(encoding="utf-8")
    for words in ("Cells without a label: 40 of", "All right at once", "mask", "40–65", "Most confused"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_bundle_answers_in_every_column_what_the_run_reported(heads, photos, tmp_path):
    shutil.copytree(heads.path / "bundle", tmp_path / "bundle")
    model = headstart.load(tmp_path / "bundle", device="cpu")
    assert isinstance(model, LabelPredictor)
    rows = predictions_of(heads).head(10)
    answers = model.predict([str(photos.folder / path) for path in rows["path"]], top_k=3)
    for row, answer in zip(rows.iter_rows(named=True), answers, strict=True):
        for name in ("mask", "gender", "age"):
            one = answer.columns[name]
            assert one.label == row[f"{name}_predicted"]
            assert one.probability == pytest.approx(row[f"{name}={one.label}"], abs=2e-3)
        assert answer.label == " + ".join(one.label for one in answer.columns.values())
        assert answer.probability == pytest.approx(np.prod([one.probability for one in answer.columns.values()]))
        assert len(answer.columns["age"].top) == 3
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in content["labels"]["columns"]] == ["mask", "gender", "age"]
    assert len(content["temperatures"]) == 3


def test_predict_writes_a_column_for_each_label_column(heads, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(heads.path), *some_photos(photos), str(tmp_path / "broken.jpg"), "--out", str(out)])
    assert stop.value.code == 1
    rows = pl.read_csv(out)
    assert rows.columns == [
        "path", "mask", "mask_probability", "gender", "gender_probability", "age", "age_probability", "error",
    ]  # fmt: skip
    assert rows["mask"].is_null().to_list() == [False] * 8 + [True]
    assert rows["error"].is_null().to_list() == [True] * 8 + [False]


def test_evaluating_again_gives_the_scores_of_the_run(heads, joint, multi):
    for run in (heads, joint, multi):
        again = headstart.evaluate(run.path).evaluations["test"].to_metrics_json()
        stated = metrics_of(run)["test"]
        assert again.keys() == stated.keys()
        for name, score in stated.items():
            assert again[name]["value"] == pytest.approx(score["value"], abs=5e-3), name


def test_other_photos_are_read_with_the_models_columns_and_bins(heads, tmp_path):
    other = write_labelled_photos(tmp_path / "other", count=40, seed=5)
    found = headstart.evaluate(heads.path, other.table, group_column="person").evaluations["test"]
    assert found.num_samples == 40
    assert found.columns["age"].class_names == ("<40", "40–65", "≥65")
    assert found.columns["mask"].scores["accuracy"].value > 0.7


@pytest.mark.parametrize("is_there", [True, False])
def test_photos_without_labels_in_one_column_score_the_others(heads, tmp_path, capsys, *, is_there):
    other = write_labelled_photos(tmp_path / "other", count=40, seed=5)
    whole = headstart.evaluate(heads.path, other.table, group_column="person").evaluations["test"]
    table = other.without(other.folder / "no_age.csv", age=list(range(40)))
    if not is_there:
        other.rows.drop("age").write_csv(table)
    found = headstart.evaluate(heads.path, table, group_column="person", out=tmp_path / "out").evaluations["test"]
    assert list(found.columns) == ["mask", "gender"]
    assert found.columns["mask"].scores == whole.columns["mask"].scores
    assert "No sample of this split has a label for age: nothing says what it is worth." in capsys.readouterr().out
    assert pl.read_parquet(tmp_path / "out/predictions.parquet")["age"].null_count() == 40


def test_photos_without_any_label_column_are_refused(heads, tmp_path):
    other = write_labelled_photos(tmp_path / "other", count=8)
    other.rows.select("path", "person").write_csv(other.table)
    with pytest.raises(SourceError, match=r"--label must be a column of labels.csv: path, person; got 'mask'"):
        headstart.evaluate(heads.path, other.table)


def test_photos_with_one_label_cannot_score_a_model_of_several(heads, photos):
    with pytest.raises(SourceError, match="labelled like the model's"):
        headstart.evaluate(heads.path, photos.table, label="mask")


def test_a_saved_recipe_repeats_the_run_to_the_bit(heads, tmp_path):
    recipe = make_recipe(read_recipe(heads.path / "recipe.toml"))
    again = headstart.train(out=tmp_path / "again", recipe=recipe)
    first, second = (load_file(run.path / "bundle" / "weights.safetensors") for run in (heads, again))
    assert all((first[name] == second[name]).all() for name in first)


def test_a_run_that_is_trained_on_ends_with_more_epochs(patchy, tmp_path):
    run = headstart.train(patchy, out=tmp_path / "run", **SMALL | HEADS | {"probe_epochs": 2})
    before = metrics_of(run)
    pipeline.resume(run.path, epochs=3)
    assert read_history(run.path).filter(stage="fine-tune").height == 3
    assert metrics_of(run).keys() == before.keys()


def test_another_run_goes_on_from_its_heads_and_knows_its_columns(heads, patchy, tmp_path):
    further = headstart.train(patchy, out=tmp_path / "further", from_run=str(heads.path), epochs=1, lr=1e-4)
    assert further.recipe.labels == heads.recipe.labels
    assert metrics_of(further)["stages"]["start"]["exact"] == pytest.approx(
        metrics_of(heads)["validation"]["exact"]["value"]
    )
    with pytest.raises(RunError, match="the data must be with the classes of the run"):
        headstart.train(patchy, out=tmp_path / "other", from_run=str(heads.path), label="gender,mask", **SMALL)


def test_three_columns_of_drawn_faces_are_learned_on_unseen_persons(tmp_path):
    write_faces(tmp_path / "faces", count=72)
    settings = SMALL | {"image_size": 48, "epochs": 0, "probe_epochs": 3, "label": "mask,gender,glasses"}
    run = headstart.train(tmp_path / "faces" / "labels.csv", out=tmp_path / "run", **settings)
    joint = settings | {"label": "mask+gender+glasses"}
    joined = headstart.train(tmp_path / "faces" / "labels.csv", out=tmp_path / "joint", **joint)
    for one in (run, joined):
        assert {"mask.accuracy", "gender.accuracy", "glasses.accuracy", "exact"} <= set(metrics_of(one)["test"])
        kept = SampleTable.load(one.path / "table.parquet").kept
        assert kept.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 6
    names = {"name_pattern": r"_(?P<person>\d+)_\d+_(?P<gender>[A-Z])_\d+_M(?P<mask>\d)_G(?P<glasses>\d)_"}
    del settings["group_column"]
    again = headstart.train(tmp_path / "faces" / "images", out=tmp_path / "again", **settings | names)
    first, second = (SampleTable.load(one.path / "table.parquet").kept for one in (run, again))
    columns = ["path", "label", "group", "split"]
    renamed = second.with_columns(pl.format("images/{}", "path").alias("path")).select(columns).sort("path")
    assert first.select(columns).sort("path").equals(renamed)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("label", ["mask,gender,age", "mask+gender+age"])
def test_mask_gender_and_age_of_drawn_faces_are_told_on_unseen_persons(real_data, tmp_path, monkeypatch, label):
    monkeypatch.setenv("HEADSTART_WEIGHTS", str(real_data / "weights"))
    write_faces(tmp_path / "faces", count=480)
    run = headstart.train(
        tmp_path / "faces" / "labels.csv", out=tmp_path / "run", store_dir=str(tmp_path / "store"), device="cpu",
        label=label, label_bins="age=40,55", group_column="person", backbone="mobilenetv2_100", image_size=160,
        epochs=3, ema_decay=0.0,
    )  # fmt: skip
    kept = SampleTable.load(run.path / "table.parquet").kept
    sides = kept.group_by("group").agg(pl.col("split").n_unique())["split"]
    assert sides.to_list() == [1] * 40
    test = metrics_of(run)["test"]
    assert test["mask.accuracy"]["value"] > 0.85
    assert test["exact"]["value"] > 2 / 12  # there are twelve combinations


# --- combinations


def test_combinations_are_one_classification_with_scores_of_each_column(joint):
    metrics = metrics_of(joint)
    assert metrics["task"] == "classification"
    test = metrics["test"]
    assert test["accuracy"] == test["exact"]
    assert test["mask.accuracy"]["value"] >= test["accuracy"]["value"]
    table = SampleTable.load(joint.path / "table.parquet")
    assert table.class_names == ("no + f", "no + m", "yes + f", "yes + m")
    assert load_bundle(joint.path).class_names == table.class_names


def test_a_columns_probability_is_the_sum_over_its_combinations(joint, photos):
    frame = predictions_of(joint)
    summed = frame.select(pl.col("yes + f") + pl.col("yes + m")).to_series()
    assert frame["mask=yes"].to_list() == pytest.approx(summed.to_list())
    answer = headstart.load(joint.path, device="cpu").predict(some_photos(photos, 1))[0]
    assert answer.label in ("no + f", "no + m", "yes + f", "yes + m")
    assert 0.25 <= answer.probability <= answer.columns["mask"].probability + answer.columns["gender"].probability
    page = (joint.path / "report.html").read_text(encoding="utf-8")
    assert "Combinations" in page
    assert "4 combinations of mask, gender" in page


def test_predict_writes_the_combination_and_its_columns(joint, photos, tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(joint.path), *some_photos(photos), "--out", str(out), "--top-k", "2"])
    assert not stop.value.code
    assert pl.read_csv(out).columns == [
        "path", "label", "probability", "mask", "mask_probability", "mask_top2", "mask_top2_probability",
        "gender", "gender_probability", "gender_top2", "gender_top2_probability", "error",
    ]  # fmt: skip


# --- bins of a single label


def test_bins_of_one_column_are_an_ordinary_classification(photos, tmp_path):
    settings = SMALL | {"label": "age", "label_bins": "age=40,65", "epochs": 0, "probe_epochs": 3}
    run = headstart.train(photos.table, out=tmp_path / "run", **settings)
    assert load_bundle(run.path).class_names == ("<40", "40–65", "≥65")
    again = headstart.evaluate(run.path, photos.table)
    assert again.evaluations["test"].class_names == ("<40", "40–65", "≥65")


# --- several labels in a cell


def test_several_labels_in_a_cell_are_scored_class_by_class(multi):
    metrics = metrics_of(multi)
    assert metrics["task"] == "multi-label"
    assert set(metrics["test"]) == {"mean_average_precision", "macro_f1", "micro_f1", "exact", "log_loss"}
    assert metrics["test"]["mean_average_precision"]["value"] > 0.8
    assert read_history(multi.path)["validation_mean_average_precision"].is_not_null().all()
    page = (multi.path / "report.html").read_text(encoding="utf-8")
    for words in ("Per class", "average precision", "3 classes of tags, several at once", "separated by"):
        assert words in page


def test_a_class_is_predicted_where_its_probability_reaches_a_half(multi, photos):
    frame = predictions_of(multi)
    assert frame.columns == ["path", "split", "labels", "predicted", "blue", "green", "red"]
    for row in frame.iter_rows(named=True):
        assert row["predicted"] == " + ".join(name for name in ("blue", "green", "red") if row[name] >= 0.5)
    model = headstart.load(multi.path, device="cpu")
    assert isinstance(model, MultiLabelPredictor)
    rows = frame.head(6)
    answers = model.predict([str(photos.folder / path) for path in rows["path"]])
    for row, answer in zip(rows.iter_rows(named=True), answers, strict=True):
        assert answer.probabilities["red"] == pytest.approx(row["red"], abs=2e-3)
        assert sorted(answer.labels) == [name for name in ("blue", "green", "red") if row[name] >= 0.5]
    assert len(model.predict(some_photos(photos, 1), threshold=1e-9)[0].labels) == 3
    with pytest.raises(RecipeError, match="threshold must be between 0 and 1"):
        model.predict(some_photos(photos, 1), threshold=1.0)


def test_predict_writes_the_labels_and_a_probability_for_each_class(multi, photos, tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit):
        main(["predict", str(multi.path), *some_photos(photos), "--out", str(out)])
    assert pl.read_csv(out).columns == ["path", "labels", "blue", "green", "red", "error"]


def test_flags_that_say_nothing_to_several_labels_are_refused(heads, photos, tmp_path, capsys):
    (tmp_path / "map.csv").write_text("label,text\nno,아니오\n")
    photo, out = some_photos(photos, 1)[0], str(tmp_path / "out.csv")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(heads.path), photo, "--out", out, "--label-map", str(tmp_path / "map.csv")])
    assert stop.value.code != 0
    assert "--label-map must be given to a model of one label a photo only" in capsys.readouterr().err


def test_check_counts_every_label_column(patchy, tmp_path, capsys):
    headstart.check(patchy, out=tmp_path / "check", **HEADS)
    said = capsys.readouterr().out
    assert "gender: 2 classes" in said
    assert "mask=yes" in (tmp_path / "check" / "check.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["heads", "multi"])
def test_training_that_was_stopped_goes_on_with_the_same_bits(form, request, tmp_path):
    run = request.getfixturevalue(form)
    recipe = run.recipe.updated(epochs=2)
    table = SampleTable.load(run.path / "table.parquet")
    store = reopen(table, recipe, image_size=(32, 32)).store
    task = make_task(recipe, table)
    data = TrainingData(store, *(samples_of(task, table, store, split) for split in ("train", "validation")))

    def tuning(folder: Path) -> FineTuning:
        network = load_bundle(run.path / "probe").network
        network.unfreeze(recipe.unfreeze)
        return FineTuning(make_fabric(recipe), network, data, task=task, recipe=recipe, folder=folder)

    whole, first = tuning(tmp_path / "whole"), tuning(tmp_path / "parts")
    whole.run()
    steps = iter(range(first.steps_per_epoch + 2))
    train_step = first.train_step

    def stop(batch) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        train_step(batch)

    first.train_step = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = tuning(tmp_path / "parts")
    second.run()
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(one.equal(other) for one, other in pairs)


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        ({"label": "mask,gender"}, {"cutmix": 0.5, "mixup": 0.5, "mix_per": "sample", "class_weights": "balanced"}),
        ({"label": "mask,gender"}, {"unfreeze": "none", "views": 2, "augment": "light", "loss": "focal"}),
        ({"label": "mask,gender"}, {"unfreeze": "1", "pooling": "both", "head_hidden": "8", "loss": "soft_f1"}),
        ({"label": "mask+gender"}, {"cutmix": 1.0, "class_weights": "effective"}),
        ({"multi_label": "tags"}, {"mixup": 1.0, "class_weights": "balanced", "stop_by": "log_loss"}),
    ],
)
def test_the_bench_serves_every_form_of_labels(photos, tmp_path, labels, settings):
    small = SMALL | {"epochs": 1, "probe_epochs": 2} | labels | settings
    run = headstart.train(photos.table, out=tmp_path / "run", **small)
    exact = metrics_of(run)["test"]["exact"]["value"]
    again = headstart.load(run.path, device="cpu").predict(some_photos(photos, 2))
    assert 0 <= exact <= 1
    assert all(answer.error is None for answer in again)
    assert (run.path / "report.html").exists()


def test_two_labels_in_a_cell_have_a_logit_each(tmp_path):
    photos = write_labelled_photos(tmp_path / "p", count=60)
    rows = photos.rows.with_columns(pl.col("tags").str.replace_all("; green|green; |green", "").replace("", "[]"))
    rows.write_csv(photos.table)
    run = headstart.train(photos.table, out=tmp_path / "run", **SMALL | MULTI | {"epochs": 0, "probe_epochs": 5})
    assert load_bundle(run.path).network.head.linear.out_features == 2
    assert predictions_of(run).columns[-2:] == ["blue", "red"]


SLOWER = {"epochs": 4, "lr": 1e-3, "probe_lr": 3e-3}
"""Soft F1 saturates at large steps."""


@pytest.mark.parametrize(
    "settings", [{"loss": "focal", "focal_gamma": 1.0, "focal_alpha": 0.4}, {"loss": "soft_f1"} | SLOWER]
)
def test_several_classes_at_once_are_learned_with_other_losses(photos, tmp_path, settings):
    run = headstart.train(photos.table, out=tmp_path / "run", **SMALL | MULTI | {"epochs": 1} | settings)
    assert metrics_of(run)["test"]["mean_average_precision"]["value"] > 0.8
    assert read_recipe(run.path / "recipe.toml")["loss"] == settings["loss"]


def test_a_weight_of_the_second_class_is_refused_where_there_are_more(photos, tmp_path):
    with pytest.raises(RecipeError, match=r"--focal-alpha must be left out for 4 classes"):
        headstart.train(photos.table, out=tmp_path / "run", label="mask+gender", loss="focal", focal_alpha=0.3)
