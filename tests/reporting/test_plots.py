import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from headstart.evaluation.calibration import calibration_bins
from headstart.reporting.plots import Series, confusion_chart, line_chart, reliability_chart

NAN = float("nan")


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(str(svg))
    assert root.get("role") == "img"
    assert root.get("aria-label")
    return root


def texts(root: ET.Element) -> list[str]:
    return ["".join(one.itertext()) for one in root.iter("text")]


def test_curves_have_a_line_each_and_name_them():
    series = [
        Series("train", list(np.linspace(1, 0, 30)), "quiet"),
        Series("validation", list(np.linspace(1, 0.3, 30))),
    ]
    root = parsed(line_chart("Loss", range(1, 31), series))
    assert len(list(root.iter("polyline"))) == 2
    assert {"Loss", "train", "validation", "epoch"} <= set(texts(root))
    assert root.get("aria-label") == "Loss over 30 epochs: train from 1 to 0; validation from 1 to 0.3."


def test_curves_stay_inside_their_frame():
    root = parsed(line_chart("Accuracy", range(1, 6), [Series("a", [0.2, 0.9, 0.4, 0.99, 0.5])], as_percent=True))
    for point in next(root.iter("polyline")).get("points", "").split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= 340
        assert 0 <= y <= 220


def test_one_epoch_is_a_dot():
    root = parsed(line_chart("Loss", [1], [Series("train", [0.5])]))
    assert not list(root.iter("polyline"))
    assert len(list(root.iter("circle"))) == 1


def test_the_best_epoch_is_marked_with_its_value():
    root = parsed(line_chart("Accuracy", [1, 2, 3], [Series("a", [0.5, 0.913, 0.8])], as_percent=True, best=1))
    assert "best 91.3%" in texts(root)


@pytest.mark.parametrize("values", [[None, 0.5, NAN, 0.4], [0.5, float("inf"), 0.2, None]])
def test_missing_values_are_left_out(values):
    points = next(parsed(line_chart("Loss", [1, 2, 3, 4], [Series("train", values)])).iter("polyline")).get(
        "points", ""
    )
    assert len(points.split()) == 2


def test_nothing_to_draw_is_nothing():
    assert line_chart("Loss", [1, 2], [Series("train", [None, NAN])]) == ""
    assert line_chart("Loss", [], []) == ""


def test_confusion_has_a_cell_a_count_and_a_tip_for_each_pair():
    confusion = np.array([[50, 2, 0], [1, 40, 3], [0, 0, 9]])
    root = parsed(confusion_chart(confusion, ["강아지", "고양이", "새"]))
    assert len(list(root.iter("rect"))) == 9
    assert {"50", "2", "1", "40", "3", "9", "강아지", "고양이", "새"} <= set(texts(root))
    assert "고양이 → 새: 3 (6.8% of 고양이)" in [one.text for one in root.iter("title")]
    assert root.get("aria-label", "").endswith(
        "99 of 105 images on the diagonal; most often 고양이 taken for 새 3 times."
    )


@pytest.mark.parametrize("num_classes", [1, 2, 30])
def test_confusion_of_few_and_many_classes_can_be_drawn(num_classes):
    names = [f"a class with a rather long name {number}" for number in range(num_classes)]
    root = parsed(confusion_chart(np.eye(num_classes, dtype=int) * 100_000, names))
    assert len(list(root.iter("rect"))) == num_classes**2
    assert "no mistakes" in root.get("aria-label", "")


def test_class_names_cannot_break_out_of_a_plot():
    svg = str(confusion_chart(np.array([[1, 1], [0, 1]]), ["</text><script>", '" onload="x']))
    assert "<script>" not in svg
    assert '" onload' not in svg


def test_reliability_draws_both_lines():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=300)
    bins = calibration_bins(probabilities, np.zeros(300, np.int64))
    root = parsed(reliability_chart(bins, bins))
    assert len(list(root.iter("polyline"))) == 2
    assert {"before", "after scaling"} <= set(texts(root))
    filled = bins.filter(pl.col("count") > 0).height
    assert len(list(root.iter("circle"))) == 2 * filled
