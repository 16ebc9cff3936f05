import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.evaluation.classification import Evaluation, evaluate
from headstart.reporting.concerns import Concern
from headstart.reporting.run_facts import RunFacts
from headstart.reporting.run_report import Mistake, RunResults, write_run_report

NAMES = ("건물", "glacier", "mountain", "바다", "street", "forest")
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a & b")
STAGES = ("probe", "fine-tune")


def split_scores(names: tuple[str, ...], num_samples: int, seed: int) -> Evaluation:
    random = np.random.default_rng(seed)
    labels = random.integers(len(names), size=num_samples)
    logits = random.normal(size=(num_samples, len(names))) * 2 + 5 * np.eye(len(names))[labels]
    units = np.arange(num_samples) // 3
    return evaluate(logits, labels, class_names=names, units=units, temperature=1.4, num_resamples=100)


def epochs(num_epochs: int) -> pl.DataFrame:
    rows = [
        {"stage": stage, "epoch": epoch + 1, "lr": 1e-3 / (epoch + 1), "train_loss": 1 / (epoch + 1),
         "validation_loss": 1.2 / (epoch + 1), "validation_accuracy": 0.9 - 0.3 / (epoch + 1), "seconds": 3.0}
        for stage in STAGES for epoch in range(num_epochs)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def made_up_results(names: tuple[str, ...] = NAMES, *, num_samples: int = 600, num_epochs: int = 30) -> RunResults:
    """A run as it might have been: numbers, pictures and words for every part of the page."""
    random = np.random.default_rng(0)
    image = random.integers(0, 255, size=(90, 120, 3), dtype=np.uint8)
    mistakes = [Mistake(image, names[0], names[-1], 0.987 - i / 100, f"{names[0]}/{i}.jpg") for i in range(12)]
    parts = {"total": 40.0, "num_images": 4000, "decode": 2.0, "augment": 3.0, "step": 30.0, "wait": 0.4}
    run = RunFacts(
        title="runs/first", data="photos/", backbone="mobilenetv2_100", weights="All 312 tensors loaded.",
        monitor="accuracy", history=epochs(num_epochs),
        counts={"found": 5758, "kept": 5741, "excluded": {"truncated": 12, "empty": 5}},
        account=["5,758 files in 6 folders."], split=["Stratified 70/15/15 over 5,102 groups."],
        worries=[Concern("Leak", "3 copies stand in train and test.")],
        seconds={"reading photos": {"total": 12.0}, "probe": parts, "fine-tune": parts},
        recipe={"lr": 3e-4, "backbone": "mobilenetv2_100"}, versions={"torch": "2.8.0"}, hashes={"weights": "9f" * 32},
    )  # fmt: skip
    return RunResults(
        run=run, class_names=names, test=split_scores(names, num_samples, 1),
        validation=split_scores(names, num_samples, 2),
        split_counts=pl.DataFrame({"class_name": names, "train": 100, "validation": 20, "test": 21}),
        mistakes=mistakes, contact_sheet=[image] * 12,
    )  # fmt: skip


def changed(results: RunResults, **changes: object) -> RunResults:
    """Change some fields, of the run's facts or of the results."""
    facts = {name: value for name, value in changes.items() if name in RunFacts.__dataclass_fields__}
    others = {name: value for name, value in changes.items() if name not in facts}
    return replace(results, run=replace(results.run, **facts), **others)  # type: ignore[arg-type]


def written(results: RunResults, folder: Path) -> str:
    write_run_report(results, folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    return page


def test_the_page_needs_nothing_from_outside(tmp_path):
    page = written(made_up_results(), tmp_path)
    assert not re.findall(r"https?://|//[a-z]+\.[a-z]|<script|<link|@import|url\(", page)
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', page))


def test_the_page_gives_the_answer_first(tmp_path):
    results = made_up_results()
    page = written(results, tmp_path)
    accuracy = results.test.scores["accuracy"]  # type: ignore[union-attr]
    assert f"{accuracy.value:.1%}".replace("%", "\xa0%") in page
    assert f"{accuracy.low * 100:.1f} – {accuracy.high * 100:.1f}\xa0%" in page
    order = ["Accuracy", "What to worry about", "Where it errs", "Most confident mistakes", "How it learned", "Details"]
    assert sorted(order, key=page.index) == order


@pytest.mark.parametrize(
    "words",
    [
        "3 copies stand in train and test.", "truncated (12), empty (5)", "resampled over 200 independent groups",
        "건물/0.jpg", "98.7\xa0%", "Linear probe, 30 epochs", "Fine-tuning, 30 epochs", "Learning rate", "5,758",
        "Stratified 70/15/15", "Temperature 1.40", "0.50\xa0ms", "7.50\xa0ms", "mobilenetv2_100", "2.8.0", "9f9f9f9f",
        "All 312 tensors loaded.", "augmented training image 12",
        "Reliability diagram", "Confusion matrix of 6 classes",
    ],
)  # fmt: skip
def test_every_part_is_on_the_page(words, tmp_path):
    assert words in written(made_up_results(), tmp_path)


def test_hostile_names_are_text(tmp_path):
    results = made_up_results(HOSTILE)
    results = changed(results, title=HOSTILE[0], recipe={"data": HOSTILE[1]}, account=[HOSTILE[0]])
    page = written(results, tmp_path)
    assert not re.findall(r"<script|<img src=x| onerror=alert\(1\)>\"", page)
    assert html.escape("<script>alert(1)</script>") in page
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    "change",
    [
        {"mistakes": ()}, {"contact_sheet": ()}, {"validation": None}, {"test": None},
        {"test": None, "validation": None},
        {"history": pl.DataFrame()}, {"history": epochs(1)}, {"history": epochs(1).drop("validation_accuracy", "lr")},
        {"seconds": {}}, {"seconds": {"check": {"total": 0.0, "num_images": 0}}}, {"split_counts": None},
        {"counts": {"found": 0, "kept": 0, "excluded": {}}}, {"worries": (), "account": (), "split": ()},
        {"monitor": "log_loss"},
    ],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_parts_that_are_missing_are_left_out(change, tmp_path):
    page = written(changed(made_up_results(), **change), tmp_path)
    assert "None" not in re.sub(r"<style>.*?</style>|base64,[^\"]*", "", page, flags=re.DOTALL)


def test_without_a_test_split_the_score_is_called_optimistic(tmp_path):
    page = written(changed(made_up_results(), test=None), tmp_path)
    assert "600 validation images" in page
    assert "optimistic" in page


def test_many_classes_are_a_list_of_confused_pairs_not_a_picture(tmp_path):
    names = tuple(f"class {number:03}" for number in range(300))
    page = written(made_up_results(names, num_samples=2000), tmp_path)
    assert "Confusion matrix" not in page
    assert "Most confused" in page
    assert "All 300 classes" in page


def test_thirty_classes_are_a_picture(tmp_path):
    names = tuple(f"class {number:03}" for number in range(30))
    assert "Confusion matrix of 30 classes" in written(made_up_results(names), tmp_path)


def test_no_mistake_is_said(tmp_path):
    perfect = evaluate(np.eye(6)[[0, 1, 2, 3, 4, 5]] * 9, range(6), class_names=NAMES, num_resamples=50)
    assert "Not one mistake" in written(changed(made_up_results(), test=perfect, mistakes=()), tmp_path)


def test_a_page_that_stands_is_replaced_whole(tmp_path):
    (tmp_path / "report.html").write_text("old " * 1_000_000)
    assert "old old" not in written(made_up_results(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_no_part_is_wider_than_the_window(width, tmp_path, measure_page):
    seen = measure_page(written(made_up_results(), tmp_path), width=width)
    assert seen["scroll_width"] == width
    assert (seen["num_images"], seen["broken_images"]) == (24, 0)


@pytest.mark.browser
def test_long_names_and_many_classes_fit_a_phone(tmp_path, measure_page):
    names = tuple(f"{'숲과 나무들이 우거진 아주 조용한 곳' * 3} {number}" for number in range(30))
    results = changed(made_up_results(names), title="a" * 200, recipe={"store_dir": "/home/" + "a" * 300})
    assert measure_page(written(results, tmp_path), width=390)["scroll_width"] == 390


@pytest.mark.browser
def test_the_page_follows_the_theme(tmp_path, measure_page):
    page = written(made_up_results(), tmp_path)
    light, dark = (measure_page(page, width=800, dark=dark)["background"] for dark in (False, True))
    assert (light, dark) == ("rgb(251, 251, 249)", "rgb(19, 21, 24)")


@pytest.mark.browser
def test_a_part_that_is_too_wide_would_be_noticed(tmp_path, measure_page):
    page = written(made_up_results(), tmp_path).replace("<footer>", '<footer style="width:600px">')
    assert measure_page(page, width=390)["scroll_width"] > 600
