"""Folds and ensembles of models that give several labels: heads, combinations, several classes at once."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

import headstart
from headstart.cli import main
from headstart.data.label_layout import MISSING
from headstart.data.table import SampleTable
from headstart.deploy.label_predictor import LabelPredictor, MultiLabelPredictor
from headstart.ensembling import make_ensemble
from headstart.errors import BundleError, RunError
from headstart.evaluation.calibration import fit_temperature
from headstart.models.ensemble import load_model
from labelled_photos import LabelledPhotos, write_labelled_photos
from small_run import SMALL_RUN

LEARNS = {"augment": "none", "probe_epochs": 60, "probe_lr": 3e-2, "epochs": 0, "ema_decay": 0.0}
SMALL = SMALL_RUN | LEARNS | {"group_column": "person"}
HEADS = {"label": "mask,gender,age", "label_bins": "age=40,65"}
OUTPUTS = ["mask=no", "mask=yes", "gender=f", "gender=m", "age=<40", "age=40–65", "age=≥65"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> LabelledPhotos:
    return write_labelled_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def heads(photos, tmp_path_factory):
    """Two folds of three heads; some masks are not labelled, and one that is looks wrong."""
    patchy = photos.without(photos.folder / "patchy.csv", mask=list(range(30)))
    return headstart.train(patchy, out=tmp_path_factory.mktemp("runs") / "heads", **SMALL | HEADS | {"folds": 2})


@pytest.fixture(scope="module")
def multi(photos, tmp_path_factory):
    settings = SMALL | {"multi_label": "tags", "folds": 2}
    return headstart.train(photos.table, out=tmp_path_factory.mktemp("runs") / "multi", **settings)


@pytest.fixture(scope="module")
def joint(photos, tmp_path_factory):
    settings = SMALL | {"label": "mask+gender", "folds": 2}
    return headstart.train(photos.table, out=tmp_path_factory.mktemp("runs") / "joint", **settings)


@pytest.fixture(scope="module")
def pair(photos, tmp_path_factory):
    """Two runs on the same split whose columns are named in another order, with other networks."""
    folder = tmp_path_factory.mktemp("pair")
    first = headstart.train(photos.table, out=folder / "first", label="mask,gender", **SMALL)
    how = SMALL | {"split": str(first.path / "split.parquet"), "backbone": "test_efficientnet"}
    other = headstart.train(photos.table, out=folder / "other", label="gender,mask", **how)
    return [first.path, other.path]


def metrics_of(run) -> dict:
    return json.loads((run.path / "metrics.json").read_text())


def some_photos(photos: LabelledPhotos, count: int = 8) -> list[str]:
    return [str(photos.folder / path) for path in photos.rows["path"].head(count)]


# --- folds of heads


def test_every_photo_is_answered_in_every_column_out_of_fold(heads, photos):
    oof = pl.read_parquet(heads.path / "oof.parquet")
    pairs = [name for column in ("mask", "gender", "age") for name in (column, f"{column}_predicted")]
    assert oof.columns == ["path", "fold", *pairs, *OUTPUTS]
    table = SampleTable.load(heads.path / "table.parquet").kept
    assert oof["path"].to_list() == table.filter(pl.col("split") == "train")["path"].to_list()
    persons = oof.join(photos.rows.select("path", "person"), on="path")
    assert persons.group_by("person").agg(pl.col("fold").n_unique())["fold"].max() == 1
    for name in ("mask", "gender", "age"):
        known = oof.drop_nulls(name)
        stated = metrics_of(heads)["oof"][f"{name}.accuracy"]["value"]
        assert (known[name] == known[f"{name}_predicted"]).mean() == pytest.approx(stated)
    assert metrics_of(heads)["oof"]["mask.accuracy"]["value"] > 0.8


def test_each_head_has_the_temperature_that_fits_its_answers_out_of_fold(heads):
    oof, metrics = pl.read_parquet(heads.path / "oof.parquet"), metrics_of(heads)
    known = oof.drop_nulls("mask")
    labels = known["mask"].replace_strict({"no": 0, "yes": 1}).to_numpy()
    assert fit_temperature(np.log(known.select(OUTPUTS[:2]).to_numpy()), labels).temperature == pytest.approx(
        1, abs=0.05
    )
    members = load_model(heads.path).members
    assert len(metrics["temperatures"]) == 3
    assert {member.temperatures for member in members} == {tuple(metrics["temperatures"])}


def test_the_folds_of_heads_answer_with_the_mean_of_their_probabilities(heads, photos):
    model = headstart.load(heads.path, device="cpu")
    assert isinstance(model, LabelPredictor)
    paths = some_photos(photos)
    alone = [headstart.load(heads.path / f"fold-{n}", device="cpu").predict(paths, top_k=3) for n in (1, 2)]
    temperatures = [member.temperatures for member in load_model(heads.path).members]
    own = [headstart.load(heads.path / f"fold-{n}", device="cpu").temperatures for n in (1, 2)]
    for place, answer in enumerate(model.predict(paths, top_k=3)):
        for column, name in enumerate(("mask", "gender", "age")):
            said = [
                _retempered(dict(answers[place].columns[name].top), own[n][column] / temperatures[n][column])
                for n, answers in enumerate(alone)
            ]
            mean = {label: np.mean([one[label] for one in said]) for label in said[0]}
            assert dict(answer.columns[name].top) == pytest.approx(mean, abs=2e-3)


def _retempered(probabilities: dict[str, float], factor: float) -> dict[str, float]:
    values = {name: value**factor for name, value in probabilities.items()}
    return {name: value / sum(values.values()) for name, value in values.items()}


def test_suspects_name_the_column_that_looks_wrong(tmp_path):
    photos = write_labelled_photos(tmp_path / "photos")
    wrong = photos.rows["path"].to_list()[10:14]
    flipped = pl.when(pl.col("path").is_in(wrong)).then(pl.col("mask").replace({"no": "yes", "yes": "no"}))
    photos.rows.with_columns(mask=flipped.otherwise("mask")).write_csv(photos.table)
    settings = SMALL | {"label": "mask,gender", "folds": 2, "test_fraction": 0}
    run = headstart.train(photos.table, out=tmp_path / "run", **settings)
    suspects = pl.read_parquet(run.path / "suspects.parquet")
    assert suspects.columns == ["path", "column", "label", "suggested", "self_confidence"]
    assert suspects["self_confidence"].is_sorted()
    found = suspects.filter(column="mask")
    assert len(set(wrong) & set(found["path"])) >= 3
    assert (found["label"] != found["suggested"]).all()
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "mask: " in page
    assert "There is no test" in page


def test_the_page_of_heads_has_a_section_for_each_column(heads):
    page = (heads.path / "report.html").read_text(encoding="utf-8")
    for words in (
        "Fold by fold",
        "All right at once",
        "mask, out of fold",
        "age, out of fold",
        "together have all labels right on",
    ):
        assert words in page
    places = [page.index(f"<h2>{name}, out of fold") for name in ("mask", "gender", "age")]
    assert all(one < other for one, other in pairwise(places))


def test_folds_of_heads_are_scored_again_as_they_were(heads, tmp_path):
    again = headstart.evaluate(heads.path, out=tmp_path / "scores", device="cpu")
    stated = metrics_of(heads)["test"]
    assert again.evaluations["test"].scores["exact"].value == pytest.approx(stated["exact"]["value"])
    assert again.evaluations["test"].scores["age.accuracy"].value == pytest.approx(stated["age.accuracy"]["value"])


def test_the_csv_of_a_vote_has_each_columns_answer(heads, photos, tmp_path):
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(heads.path), str(photos.folder / "사진"), "--out", str(tmp_path / "out.csv")])
    frame = pl.read_csv(tmp_path / "out.csv")
    assert frame.height == photos.rows.height
    assert {"mask", "mask_probability", "gender", "age", "age_probability", "error"} <= set(frame.columns)
    assert frame["age"].is_in(["<40", "40–65", "≥65"]).all()


# --- several classes at once, and combinations


def test_folds_of_several_classes_at_once_are_scored_and_answer(multi, photos):
    oof, metrics = pl.read_parquet(multi.path / "oof.parquet"), metrics_of(multi)
    assert oof.columns[:4] == ["path", "fold", "labels", "predicted"]
    assert (oof["labels"] == oof["predicted"]).mean() == pytest.approx(metrics["oof"]["exact"]["value"])
    assert metrics["oof"]["mean_average_precision"]["value"] > 0.8
    model = headstart.load(multi.path, device="cpu")
    assert isinstance(model, MultiLabelPredictor)
    rows = pl.read_parquet(multi.path / "predictions.parquet")
    answers = model.predict([str(photos.folder / path) for path in rows["path"]])
    for row, answer in zip(rows.iter_rows(named=True), answers, strict=True):
        assert dict(answer.probabilities) == pytest.approx({name: row[name] for name in answer.probabilities}, abs=2e-3)
    assert "Per class, out of fold" in (multi.path / "report.html").read_text(encoding="utf-8")
    suspects = pl.read_parquet(multi.path / "suspects.parquet")
    assert set(suspects["label"]) | set(suspects["suggested"]) <= {"yes", "no"}


def test_folds_of_combinations_vote_on_the_combination_and_on_each_column(joint, photos):
    oof = pl.read_parquet(joint.path / "oof.parquet")
    assert oof.columns[:8] == ["path", "label", "fold", "predicted", "no + f", "no + m", "yes + f", "yes + m"]
    metrics = metrics_of(joint)
    assert (oof["label"] == oof["predicted"]).mean() == pytest.approx(metrics["oof"]["accuracy"]["value"])
    assert (oof["mask"] == oof["mask_predicted"]).mean() == pytest.approx(metrics["oof"]["mask.accuracy"]["value"])
    answer = headstart.load(joint.path, device="cpu").predict(some_photos(photos, 1))[0]
    assert answer.label in oof["label"].unique().to_list()
    assert set(answer.columns) == {"mask", "gender"}


def test_a_bundle_of_combinations_from_before_layouts_were_kept_still_answers(joint, photos, tmp_path):
    path = joint.path / "bundle" / "bundle.json"
    content = path.read_text(encoding="utf-8")
    try:
        path.write_text(json.dumps({name: one for name, one in json.loads(content).items() if name != "labels"}))
        assert set(headstart.load(joint.path, device="cpu").predict(some_photos(photos, 1))[0].columns) == {
            "mask",
            "gender",
        }
        path.write_text(json.dumps(json.loads(content) | {"labels": {"form": "joint"}}))
        with pytest.raises(BundleError, match="labels must be form, columns and combinations"):
            load_model(joint.path)
    finally:
        path.write_text(content, encoding="utf-8")


# --- ensembles


def test_an_ensemble_of_combinations_scores_other_photos(joint, tmp_path):
    both = headstart.ensemble(joint.path / "fold-1", joint.path / "fold-2", out=tmp_path / "both", device="cpu")
    other = write_labelled_photos(tmp_path / "other", count=40, seed=5)
    found = headstart.evaluate(both.path, other.table, group_column="person", device="cpu").evaluations["test"]
    assert found.joint.class_names == ("no + f", "no + m", "yes + f", "yes + m")
    assert found.scores["accuracy"].value > 0.5
    assert found.columns["mask"].scores["accuracy"].value > 0.5


def test_heads_in_another_order_vote_on_the_same_columns(pair, photos, tmp_path):
    both = headstart.ensemble(*pair, out=tmp_path / "both", device="cpu")
    metrics, rows = metrics_of(both), pl.read_parquet(both.path / "predictions.parquet")
    assert metrics["task"] == "several labels"
    for name in ("mask", "gender"):
        assert (rows[name] == rows[f"{name}_predicted"]).mean() == pytest.approx(
            metrics["test"][f"{name}.accuracy"]["value"]
        )
    assert metrics["test"]["exact"]["value"] > 0.6
    stated = [json.loads((run / "metrics.json").read_text())["test"]["exact"]["value"] for run in pair]
    assert [one["value"] for one in metrics["vote"]["test"]["members"]] == pytest.approx(stated)
    paths = [str(photos.folder / path) for path in rows["path"]]
    alone = [headstart.load(run, device="cpu").predict(paths, top_k=2) for run in pair]
    for place, answer in enumerate(headstart.load(both.path, device="cpu").predict(paths, top_k=2)):
        for name in ("mask", "gender"):
            said = [dict(answers[place].columns[name].top) for answers in alone]
            mean = {label: np.mean([one[label] for one in said]) for label in said[0]}
            assert dict(answer.columns[name].top) == pytest.approx(mean, abs=2e-3)


def test_a_member_that_knows_nothing_gets_no_vote_among_heads(pair, photos, tmp_path, capsys):
    split = {"split": str(pair[0] / "split.parquet"), "probe_epochs": 1, "probe_lr": 1e-6}
    idle = headstart.train(photos.table, out=tmp_path / "idle", label="mask,gender", **SMALL | split)
    both = make_ensemble([pair[0], idle.path], out=tmp_path / "both", weights="fitted", device="cpu")
    weights = [member["weight"] for member in metrics_of(both)["members"]]
    assert weights[0] > 0.9
    assert "weights fitted on" in capsys.readouterr().out


def test_missing_labels_count_in_no_vote(heads):
    table = SampleTable.load(heads.path / "table.parquet")
    lacking = table.kept.filter(pl.col("labels").arr.first() == MISSING)["path"]
    suspects = pl.read_parquet(heads.path / "suspects.parquet").filter(column="mask")
    assert lacking.len() == 30
    assert not set(suspects["path"]) & set(lacking)


def test_models_of_another_form_are_refused_with_both_forms(pair, joint, multi, tmp_path):
    with pytest.raises(
        RunError, match=r"a model of a head for each column .*; got 'a model of several classes at once"
    ):
        headstart.ensemble(pair[0], multi.path, out=tmp_path / "both")
    with pytest.raises(RunError, match="a model of combinations as classes"):
        headstart.ensemble(joint.path, pair[0], out=tmp_path / "both")
