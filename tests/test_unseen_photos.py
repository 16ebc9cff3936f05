"""What an ensemble is scored on: whole persons and bursts that no member has learned from, by the table of any."""

import json
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

import headstart
from headstart.data.table import SampleTable
from headstart.errors import RunError
from labelled_photos import LabelledPhotos, write_labelled_photos
from small_run import SMALL_RUN

QUICK = SMALL_RUN | {"epochs": 0, "probe_epochs": 2, "augment": "none", "label": "mask"}
NUM_WHOLE = 3  # persons whom the run without persons leaves in its test, all of them


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> LabelledPhotos:
    return write_labelled_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory) -> list[Path]:
    """Two runs on the same photos: one keeps persons together, the other was told of none and tears them."""
    folder = tmp_path_factory.mktemp("runs")
    knows = headstart.train(photos.table, out=folder / "knows", group_column="person", **QUICK)
    split = SampleTable.load(knows.path / "table.parquet").kept.select("path", "group", "split")
    number = pl.col("group").rank("dense").over("split")  # of the person
    is_torn = (pl.col("split") != "train") & (pl.int_range(pl.len()).over("group") == 0)
    is_torn &= (pl.col("split") == "validation") | (number > NUM_WHOLE)
    torn = split.select("path", split=pl.when(is_torn).then(pl.lit("train")).otherwise("split"))
    torn.write_parquet(folder / "torn.parquet")
    does_not = headstart.train(photos.table, out=folder / "does_not", split=str(folder / "torn.parquet"), **QUICK)
    return [knows.path, does_not.path]


def kept_test(run: Path) -> pl.DataFrame:
    return SampleTable.load(run / "table.parquet").kept.filter(pl.col("split") == "test")


def persons(photos: LabelledPhotos, rows: pl.DataFrame) -> set[str]:
    return set(rows.join(photos.rows.select("path", "person"), on="path")["person"])


@pytest.mark.parametrize("order", [1, -1])
def test_persons_of_whom_a_member_has_seen_one_photo_are_left_out_whole(runs, photos, tmp_path, capsys, order):
    made = headstart.ensemble(*runs[::order], out=tmp_path / "both", device="cpu")
    learned = [SampleTable.load(run / "table.parquet").kept.filter(pl.col("split") != "test") for run in runs]
    test, torn = kept_test(made.path), kept_test(runs[1]).height
    assert test.height == 4 * NUM_WHOLE < torn
    assert test["unit"].n_unique() == NUM_WHOLE
    assert not persons(photos, test) & (persons(photos, learned[0]) | persons(photos, learned[1]))
    assert "are left out: members learned from others of the same group" in capsys.readouterr().out


def test_an_ensemble_in_an_ensemble_still_knows_who_belongs_together(runs, photos, tmp_path):
    both = headstart.ensemble(*runs, out=tmp_path / "both", device="cpu")
    third = headstart.train(photos.table, out=tmp_path / "third", split=str(runs[0] / "split.parquet"), **QUICK)
    made = headstart.ensemble(third.path, both.path, out=tmp_path / "all", device="cpu")
    assert kept_test(made.path)["path"].sort().equals(kept_test(both.path)["path"].sort())
    assert kept_test(made.path).height == 4 * NUM_WHOLE


def test_weights_are_not_fitted_on_persons_whom_a_member_trained_on(runs, tmp_path):
    with pytest.raises(RunError, match="no validation photos that no member trained on; got 'fitted, with none'"):
        headstart.ensemble(*runs, out=tmp_path / "both", weights="fitted", device="cpu")


@pytest.fixture(scope="module")
def leaking(tmp_path_factory) -> list[Path]:
    """Two runs with a given split where a near-identical photo of a training photo is in the test."""
    folder = tmp_path_factory.mktemp("leaking")
    photos = write_labelled_photos(folder / "photos", count=80)
    first = photos.rows.row(0, named=True)
    pixels = cv2.imdecode(np.fromfile(photos.folder / first["path"], np.uint8), cv2.IMREAD_COLOR)
    (photos.folder / "near.png").write_bytes(cv2.imencode(".png", cv2.add(pixels, (5.0, 5.0, 5.0, 0.0)))[1].tobytes())
    rows = pl.concat([photos.rows, pl.DataFrame([first | {"path": "near.png", "person": "nobody"}])])
    rows.write_csv(photos.table)
    names = ["train", "train", "train", "validation", "test"]
    split = rows.select("path", split=pl.Series([names[number // 4 % 5] for number in range(80)] + ["test"]))
    split.write_parquet(folder / "split.parquet")
    how = QUICK | {"split": str(folder / "split.parquet")}
    return [headstart.train(photos.table, out=folder / f"seed-{n}", **how | {"seed": n}).path for n in (1, 2)]


def test_what_leaks_in_a_members_split_is_not_scored_and_stands_on_the_page(leaking, tmp_path):
    assert "near.png" in kept_test(leaking[0])["path"].to_list()
    made = headstart.ensemble(*leaking, out=tmp_path / "both", device="cpu")
    assert kept_test(made.path).height == kept_test(leaking[0]).height - 1
    assert "near.png" not in kept_test(made.path)["path"].to_list()
    (leak,) = json.loads((made.path / "run.json").read_text())["leaks"]
    assert leak.startswith(f"{leaking[0]}, {leaking[1]}: Leak between train and test through near-identical photos: 1 ")
    page = (made.path / "report.html").read_text(encoding="utf-8")
    assert "The split of a member leaks" in page
    assert "Nothing was found" not in page
