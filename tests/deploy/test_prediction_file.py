from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from headstart.deploy.prediction_file import PredictionSummary, read_label_map
from headstart.deploy.predictor import Predictor, write_predictions
from headstart.errors import RecipeError, SourceError
from headstart.models.network import new_network
from headstart.recipe import Recipe

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    network = new_network(Recipe(backbone="test_efficientnet", weights="none", image_size=(64, 64)), 3)
    return Predictor(network, NAMES, device="cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    given = [tmp_path / "사진, 하나.png", tmp_path / "missing.png", tmp_path / "b.png"]
    for number in (0, 2):
        Image.fromarray(np.full((80, 80, 3), 70 * number, np.uint8)).save(given[number])
    return [str(path) for path in given]


def written(predictor: Predictor, paths: list[str], folder: Path, **settings) -> tuple[pl.DataFrame, PredictionSummary]:
    summary = write_predictions(predictor, paths, folder / "out.csv", quiet=True, **settings)
    return pl.read_csv(folder / "out.csv", infer_schema_length=None), summary


def test_every_photo_has_a_row_and_the_summary_counts_them(predictor: Predictor, paths: list[str], tmp_path: Path):
    rows, summary = written(predictor, paths, tmp_path)
    assert rows.columns == ["path", "label", "display_name", "probability", "error"]
    assert rows["path"].to_list() == paths
    assert rows["error"].to_list() == [None, "missing: no such file", None]
    assert rows["label"].to_list()[1] is None
    assert summary == PredictionSummary(num_predicted=2, num_errors=1)


def test_the_rows_say_what_predict_says(predictor: Predictor, paths: list[str], tmp_path: Path):
    rows, _ = written(predictor, paths, tmp_path, top_k=3, batch_size=2)
    expected = predictor.predict(paths, top_k=3)[0]
    first = rows.row(0, named=True)
    assert list(first)[3:-1] == ["probability", "top2_label", "top2_probability", "top3_label", "top3_probability"]
    assert [first["label"], first["top2_label"], first["top3_label"]] == [name for name, _ in expected.top]
    assert first["top3_probability"] == pytest.approx(expected.top[2][1], abs=1e-5)


def test_more_rows_than_are_held_at_once_stay_in_order(predictor: Predictor, tmp_path: Path):
    paths = [str(tmp_path / f"{number}.jpg") for number in range(5000)]
    rows, summary = written(predictor, paths, tmp_path)
    assert rows["path"].to_list() == paths
    assert summary.num_errors == 5000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_a_label_map_gives_the_names_to_show(predictor: Predictor, paths: list[str], tmp_path: Path, encoding: str):
    label_map = tmp_path / "map.csv"
    label_map.write_text(
        "번호,label,이름 둘,display_name\n1,cat,x,고양이\n2,dog,x,개\n3,owl,x,올빼미\n", encoding=encoding
    )
    rows, _ = written(predictor, paths, tmp_path, label_map=label_map)
    shown = {"cat": "고양이", "dog": "개", "owl": "올빼미", None: None}
    assert [shown[label] for label in rows["label"]] == rows["display_name"].to_list()


def test_a_label_without_text_is_shown_by_its_own_name_and_said(
    predictor: Predictor, paths: list[str], tmp_path: Path, capsys
):
    (tmp_path / "map.csv").write_text("label,text\ncat,\ndog,\n", encoding="utf-8")
    write_predictions(predictor, paths, tmp_path / "out.csv", label_map=tmp_path / "map.csv")
    rows = pl.read_csv(tmp_path / "out.csv")
    assert rows["display_name"].to_list() == rows["label"].to_list()
    assert "map.csv has no text for cat, dog, owl" in capsys.readouterr().out


def test_a_label_map_may_lack_a_header(tmp_path: Path):
    (tmp_path / "map.csv").write_text("dog,개\ncat,고양이\n", encoding="utf-8")
    assert read_label_map(tmp_path / "map.csv", NAMES) == {"dog": "개", "cat": "고양이"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "label,text\ncta,고양이\nwolf,늑대\n",
            r"map\.csv: label must be one of the 3 classes \(cat, dog, owl\); got \['cta', 'wolf'\]\. Did you mean",
        ),
        ("label,text\ncat,a\ncat,b\n", r"there once each; got \['cat'\]"),
        ("label\ncat\n", r"a table with a label and a text in each row; got \['label'\]"),
    ],
)
def test_a_label_map_that_does_not_fit_is_refused_before_any_work(
    predictor: Predictor, tmp_path: Path, text: str, message: str
):
    (tmp_path / "map.csv").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        write_predictions(predictor, ["a.jpg"], tmp_path / "out.csv", label_map=tmp_path / "map.csv", quiet=True)
    assert not (tmp_path / "out.csv").exists()


def test_a_broken_off_file_is_not_left_behind(predictor: Predictor, paths: list[str], tmp_path: Path):
    with pytest.raises(RecipeError, match="top_k must be from 1 to 3"):
        write_predictions(predictor, paths, tmp_path / "out.csv", top_k=9, quiet=True)
    assert [path.name for path in tmp_path.iterdir() if "out.csv" in path.name] == []
