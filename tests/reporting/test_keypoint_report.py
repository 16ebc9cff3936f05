import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.data.account import account
from headstart.data.keypoints import KeypointLayout, keypoint_columns
from headstart.data.table import SampleTable, table_from_keypoints
from headstart.evaluation.intervals import Score
from headstart.evaluation.keypoint_metrics import KeypointAnswers, choose_examples
from headstart.evaluation.keypoints import (
    KeypointEvaluation,
    SeenAgainstUnseen,
    evaluate_keypoints,
    seen_against_unseen,
)
from headstart.reporting.check_page import write_check_page
from headstart.reporting.concerns import Concern
from headstart.reporting.keypoint_report import (
    FaceExample,
    KeypointResults,
    SheetImage,
    word_gap,
    write_keypoint_report,
)
from headstart.reporting.keypoint_sheet import MAX_CARDS, KeypointFinding, keypoint_sheet
from headstart.reporting.run_facts import RunFacts

NAMES = ("왼눈", "오른눈", "nose", "left mouth", "right mouth")
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a & b", "</svg>")
PAIRS = ((0, 1), (3, 4))
FACE = np.array([[20.0, 20.0], [60.0, 20.0], [40.0, 45.0], [28.0, 65.0], [52.0, 65.0]])
IMAGE = np.random.default_rng(0).integers(0, 255, size=(90, 80, 3), dtype=np.uint8)
NUM_SAMPLES = 120


def persons(num_persons: int) -> list[str]:
    return [f"김 {number % num_persons:02}" for number in range(NUM_SAMPLES)]


def predicted(seed: int, *, error: float = 2.0) -> np.ndarray:
    return FACE + np.random.default_rng(seed).normal(scale=error, size=(NUM_SAMPLES, 5, 2))


def split_scores(seed: int, *, names=NAMES, groups: list[str] | None = None, error: float = 2.0) -> KeypointEvaluation:
    answers, points = predicted(seed, error=error), np.broadcast_to(FACE, (NUM_SAMPLES, 5, 2))
    visible = np.ones((NUM_SAMPLES, 5), bool)
    lengths = np.full(NUM_SAMPLES, 40.0)
    given = KeypointAnswers(answers, points, visible, lengths, answers / 90, points / 90)
    where = "the distance between the points 왼눈 and 오른눈"
    return evaluate_keypoints(given, names=names, units=groups, groups=groups, divided_by=where, num_resamples=100)


def epochs(num_epochs: int) -> pl.DataFrame:
    rows = [
        {"stage": "fine-tune", "epoch": epoch + 1, "lr": 1e-3, "train_loss": 1 / (epoch + 1),
         "validation_nme": 3 + abs(epoch - 5) / 3, "validation_mae": 0.1 / (epoch + 1), "validation_mse": 0.01}
        for epoch in range(num_epochs)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def example_faces(test: KeypointEvaluation, names: list[str]) -> list[FaceExample]:
    found, visible = choose_examples(test.sample_errors, groups=names), np.ones(5, bool)
    return [
        FaceExample(kind, IMAGE, FACE, visible, predicted(1)[at], float(test.sample_errors[at]), f"{at}.jpg", names[at])  # type: ignore[arg-type]
        for kind, positions in found.items()
        for at in positions
    ]


def made_up_results(names: tuple[str, ...] = NAMES, *, num_persons: int = 40) -> KeypointResults:
    """A run as it might have been: numbers, faces and words for every part of the page."""
    groups = persons(num_persons)
    test = split_scores(1, names=names, groups=groups)
    parts = {"total": 40.0, "num_images": 4000, "decode": 2.0, "augment": 3.0, "step": 30.0, "wait": 0.4}
    run = RunFacts(
        title="runs/faces", data="얼굴.csv", backbone="mobilenetv2_100", weights="All 312 tensors loaded.",
        monitor="nme", history=epochs(12), counts={"found": 245, "kept": 240, "excluded": {"no annotation": 5}},
        account=["245 images."], split=["Split by person."], worries=[Concern("Leak", "3 copies in train and test.")],
        seconds={"reading photos": {"total": 12.0}, "fine-tune": parts}, recipe={"head": "simcc"},
        versions={"torch": "2.8.0"}, hashes={"weights": "9f" * 32},
        repetition=["headstart train --recipe r.toml --out NEW"],
    )  # fmt: skip
    return KeypointResults(
        run=run, layout=KeypointLayout(names, PAIRS, "Inferred from the mean shape."), test=test,
        validation=split_scores(2, names=names, groups=groups), group_name="person", mean_face=FACE,
        seen_unseen=seen_against_unseen(test.sample_errors, groups, set(groups[:20]), num_resamples=100),
        faces=example_faces(test, groups), paths=[f"test/{number}.jpg" for number in range(NUM_SAMPLES)],
        ancestry=["Continued from run 얼굴-1 (Adam 1e-3, 20 epochs)."],
        split_counts=pl.DataFrame({"split": ["train", "validation", "test"], "samples": [200, 20, 20]}),
        contact_sheet=[SheetImage(IMAGE, FACE, np.arange(5) < 4)] * 12,
    )  # fmt: skip


def written(results: KeypointResults, folder: Path) -> str:
    write_keypoint_report(results, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory) -> str:
    return written(made_up_results(), tmp_path_factory.mktemp("page"))


def plain(page: str) -> str:
    return re.sub(r"<style>.*?</style>|base64,[^\"]*", "", page, flags=re.DOTALL)


def test_the_page_needs_nothing_from_outside(tmp_path):
    page = written(made_up_results(), tmp_path)
    assert not re.findall(r"https?://|<script|<link|@import|url\(", page)
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_the_page_gives_the_answer_first(tmp_path):
    results = made_up_results()
    page = written(results, tmp_path)
    score = results.test.scores["nme"]  # type: ignore[union-attr]
    assert f"{score.value:.2f}\xa0%" in page
    assert f"{score.low:.2f} – {score.high:.2f}\xa0%" in page
    order = [
        "NME", "the distance between the points 왼눈 and 오른눈", "What to worry about", "Known against new",
        "Faces of the test split", "Where it errs", "By person", "How it learned", "Ancestry", "The data",
        "What the network saw", "Where the time went", "Details",
    ]  # fmt: skip
    assert sorted(order, key=page.index) == order


@pytest.mark.parametrize(
    "words",
    [
        "3 copies in train and test.", "no annotation (5)", "resampled over 40 independent groups",
        "Groups seen in training", "60 samples of 20 groups", "points of NME", "true point",
        "of the distance between the points", "120 test samples that took part in no choice", "samples found",
        "Repeat this run", "headstart train --recipe r.toml --out NEW",
        "predicted point", "Worst", "In the middle", "Best", "test/",
        "Error of each point on the mean face: largest at", "Cumulative error curve. validation: ",
        "AUC up to 8", "Faces above 8", "Error in pixels", "5 points</small>", "2 pairs change places",
        "왼눈 ↔ 오른눈", "The other 25", "Fine-tuning, 12 epochs", "NME on validation", "MAE over 12 epochs",
        "MSE over 12 epochs", "best 3", "Continued from run 얼굴-1",
        "augmented training image 12 with its points", "point that does not count", "0.50\xa0ms", "simcc",
        "2.8.0", "9f9f9f9f", "All scores on validation", "Inferred from the mean shape.",
    ],
)  # fmt: skip
def test_every_part_is_on_the_page(words, whole_page):
    assert words in whole_page


def test_hostile_names_are_text(tmp_path):
    results = made_up_results(HOSTILE)
    faces = [replace(face, path=HOSTILE[0], group=HOSTILE[1]) for face in results.faces]
    results = replace(
        results, faces=faces, ancestry=[HOSTILE[0]], group_name=HOSTILE[1], paths=[HOSTILE[1]] * NUM_SAMPLES
    )
    page = written(results, tmp_path)
    assert not re.findall(r"<script|<img src=x", page)
    assert page.count("<svg") == page.count("</svg>")
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    "change",
    [
        {"test": None}, {"validation": None}, {"test": None, "validation": None, "faces": (), "seen_unseen": None},
        {"seen_unseen": None}, {"faces": ()}, {"mean_face": None}, {"paths": ()}, {"ancestry": ()},
        {"contact_sheet": ()}, {"split_counts": None}, {"test": split_scores(1)},
        {"layout": KeypointLayout(NAMES, None, "The mean shape is not symmetrical.")},
        {"layout": KeypointLayout(NAMES)},
    ],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_parts_that_are_missing_are_left_out(change, tmp_path):
    assert "None" not in plain(written(replace(made_up_results(), **change), tmp_path))


@pytest.mark.parametrize("history", [pl.DataFrame(), epochs(1), epochs(4).drop("validation_mae", "lr", "train_loss")])
def test_any_history_makes_a_page(history, tmp_path):
    results = made_up_results()
    results = replace(results, run=replace(results.run, history=history, seconds={}))
    assert "None" not in plain(written(results, tmp_path))


def test_one_person_is_warned_of(tmp_path):
    page = written(replace(made_up_results(num_persons=1), seen_unseen=None), tmp_path)
    assert "All samples scored belong to one group" in page
    assert "no interval: one group alone" in page
    assert "Intervals are" not in page
    assert "95\xa0% interval <b>" not in page
    assert "nan" not in plain(page)


def test_one_person_on_a_side_is_said_instead_of_an_interval(tmp_path):
    results, groups = made_up_results(), persons(40)
    found = seen_against_unseen(results.test.sample_errors, groups, {groups[0]}, num_resamples=50)  # type: ignore[union-attr]
    page = written(replace(results, seen_unseen=found), tmp_path)
    assert "3 samples of 1 group<" in page
    assert "no interval: one group alone" in page
    assert "points of NME may be chance: one side is one group alone." in page


def test_faces_of_one_person_stand_in_one_row(tmp_path):
    results = made_up_results(num_persons=1)
    page = written(results, tmp_path)
    assert page.count('<ul class="thumbs faces">') == 1
    assert all(f"{kind} <b>" in page for kind in ("Worst", "In the middle", "Best"))
    assert written(made_up_results(), tmp_path).count('<ul class="thumbs faces">') == 3


def test_one_side_alone_has_its_interval_in_the_headline_only(tmp_path):
    results = made_up_results()
    found = seen_against_unseen(results.test.sample_errors, persons(40), set(), num_resamples=50)  # type: ignore[union-attr]
    page = written(replace(results, seen_unseen=found), tmp_path)
    assert "the score above is that of new groups, as in use" in page
    assert "New groups</dt>" not in page
    assert page.count("95\xa0% interval <b>") == 1


def test_without_a_test_split_the_score_is_called_optimistic(tmp_path):
    page = written(replace(made_up_results(), test=None), tmp_path)
    assert "120 validation samples" in page
    assert "optimistic" in page


def test_pictures_that_were_never_mirrored_are_explained(tmp_path):
    layout = KeypointLayout(NAMES, None, "The mean shape is not symmetrical.")
    page = written(replace(made_up_results(), layout=layout), tmp_path)
    assert "The mean shape is not symmetrical. Pictures were never mirrored; --flip-pairs FILE names the pairs" in page
    assert page.count("The mean shape is not symmetrical") == 1
    assert "no pairs are known" in page


def test_pairs_that_do_not_fit_are_a_concern_of_the_report(tmp_path):
    layout = KeypointLayout(NAMES, PAIRS, "2 pairs from pairs.csv.", "The shapes have others.")
    page = written(replace(made_up_results(), layout=layout), tmp_path)
    assert "The pairs of --flip-pairs do not fit the points. The shapes have others. Look at them" in page


def test_only_known_persons_are_warned_of(tmp_path):
    results = made_up_results()
    groups = persons(40)
    found = seen_against_unseen(results.test.sample_errors, groups, set(groups), num_resamples=50)  # type: ignore[union-attr]
    page = written(replace(results, seen_unseen=found), tmp_path)
    assert "Every sample scored (120) is of a group that is in training too" in page
    assert "nothing says what new groups will cost" in page


def test_new_persons_that_score_worse_are_warned_of(tmp_path):
    found = SeenAgainstUnseen(Score(2.0, 1.8, 2.2), Score(3.5, 3.1, 3.9), Score(1.5, 1.1, 1.9), 60, 60, 20, 20)
    page = written(replace(made_up_results(), seen_unseen=found), tmp_path)
    assert "2.00\xa0% on groups that training has seen and 3.50\xa0% on new ones: expect 3.50\xa0% in use" in page


def test_validation_that_is_better_than_the_test_is_warned_of(tmp_path):
    page = written(replace(made_up_results(), validation=split_scores(2, error=0.5)), tmp_path)
    assert "Validation is optimistic" in page


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (Score(1.5, 1.1, 1.9), "New groups cost 1.50 points of NME"),
        (Score(0.2, -0.3, 0.7), "The difference of 0.20 points of NME may be chance (95\xa0% interval −0.30 – 0.70)."),
        (Score(-1.0, -1.5, -0.5), "New groups score better by 1.00 points"),
    ],
)
def test_the_gap_is_said_in_a_sentence(gap, words):
    side = Score(3.0, 2.0, 4.0)
    assert word_gap(SeenAgainstUnseen(side, side, gap, 9, 9, 3, 3)).startswith(words)


def test_a_large_error_stays_on_its_scale(tmp_path):
    page = written(replace(made_up_results(), test=split_scores(1, error=40.0)), tmp_path)
    shares = [float(share) for share in re.findall(r"--(?:low|high|value):([\d.]+)", page)]
    assert len(shares) == 9
    assert max(shares) <= 1


def keypoint_table(num_samples: int = 30) -> SampleTable:
    rows = pl.DataFrame({"path": [f"얼굴/{row}.jpg" for row in range(num_samples)]})
    points = np.broadcast_to(FACE, (num_samples, 5, 2))
    layout = KeypointLayout(NAMES, PAIRS)
    table = table_from_keypoints(rows.with_columns(keypoint_columns(points)), root=Path("/photos/여름"), layout=layout)
    numbers = pl.int_range(pl.len(), dtype=pl.UInt32)
    nothing = pl.lit(None, pl.UInt32)
    later = {"height": pl.lit(90, pl.UInt32), "width": pl.lit(80, pl.UInt32), "record": numbers, "copy_set": nothing}
    near = pl.when(numbers < 3).then(0).otherwise(None).cast(pl.UInt32)
    return replace(table, frame=table.frame.with_columns(**later, cluster=near))


class DrawnPixels:
    def read(self, record: int) -> np.ndarray:
        return np.full((60, 80, 3), (record * 37) % 256, np.uint8)


def check_page(folder: Path, findings: list[KeypointFinding], layout: KeypointLayout, **more) -> str:
    table, sheet = keypoint_table(), keypoint_sheet(findings, layout, mean_face=FACE, **more)
    write_check_page(account(table), table, DrawnPixels(), folder / "check.html", keypoints=sheet)
    return (folder / "check.html").read_text(encoding="utf-8")


FINDING = KeypointFinding(IMAGE, FACE - 30, np.arange(5) < 3, "2 points lie <outside> the picture.", "얼굴/3.jpg")


def test_the_check_page_shows_strange_faces_and_the_pairs(tmp_path):
    page = check_page(tmp_path, [FINDING] * 40, KeypointLayout(NAMES, PAIRS, "Inferred from the mean shape."))
    for words in ("Points to look at", "The first 24 of 40", "40 images have points", "2 points lie &lt;outside&gt;",
                  "얼굴/3.jpg", "Mean face with 2 left/right pairs", "왼눈 ↔ 오른눈", "Near-identical"):  # fmt: skip
        assert words in page, words
    assert page.count('class="face"') == MAX_CARDS
    assert "Classes</h2>" not in page
    assert ">classes<" not in page


def test_the_check_page_of_sound_points_has_no_worry(tmp_path):
    page = check_page(tmp_path, [], KeypointLayout(NAMES, PAIRS))
    assert "Nothing was found: every file can be read, and no copy stands in two splits." in page
    assert "Points to look at" not in page


def test_the_check_page_says_why_pictures_will_not_be_mirrored(tmp_path):
    page = check_page(tmp_path, [FINDING], KeypointLayout(NAMES, None, "The mean shape is not symmetrical."))
    assert "The mean shape is not symmetrical. Pictures will not be mirrored; --flip-pairs FILE names" in page
    assert page.count("The mean shape is not symmetrical") == 1
    assert "5 points; left/right pairs are not known. Points are counted from 0" in page


def test_the_check_page_says_what_could_not_be_examined(tmp_path):
    ordinary = replace(FINDING, caption="")
    note = "Shapes are not examined: they need 20 samples."
    page = check_page(tmp_path, [ordinary], KeypointLayout(NAMES, PAIRS), num_findings=0, notes=[note])
    assert "No points look wrong, as far as they could be examined." in page
    assert page.count(note) == 1
    assert "Nothing was found" not in page
    sound = check_page(tmp_path, [ordinary], KeypointLayout(NAMES, PAIRS), num_findings=0)
    assert "No points look wrong. Some samples" in sound


def test_the_check_page_warns_of_crowds_and_of_pairs_that_do_not_fit(tmp_path):
    layout = KeypointLayout(NAMES, PAIRS, "2 pairs from pairs.csv.", "The shapes have others.")
    page = check_page(tmp_path, [], layout, crowding="3 photos hold several faces. --crop-to-box bbox cuts them out.")
    assert "Several faces in a photo</b><span>3 photos hold several faces. --crop-to-box bbox" in page
    assert "The pairs of --flip-pairs do not fit the points. The shapes have others." in page


def test_the_check_page_shows_each_face_with_a_margin_and_a_spot_in_its_picture():
    wide = np.zeros((400, 800, 3), np.uint8)
    faces = [KeypointFinding(wide, points, np.ones(5, bool), "") for points in (FACE + 100, 0.1 * FACE + 200)]
    cards = keypoint_sheet(faces, KeypointLayout(NAMES, PAIRS)).cards
    views = [[float(side) for side in re.findall(r'viewBox="([^"]*)"', card[0])[0].split()] for card in cards]
    assert views[0][2:] == pytest.approx([64, 64], abs=2)
    assert views[1][2:] == [240, 120]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_no_part_is_wider_than_the_window(width, tmp_path, measure_page):
    page = written(made_up_results(), tmp_path)
    assert measure_page(page, width=width)["scroll_width"] == width
    sheet = check_page(tmp_path, [FINDING] * 3, KeypointLayout(NAMES, PAIRS))
    assert measure_page(sheet, width=width)["scroll_width"] == width


@pytest.mark.browser
def test_long_names_fit_a_phone(tmp_path, measure_page):
    names = tuple(f"{'숲과 나무들이 우거진 아주 조용한 곳' * 3} {number}" for number in range(5))
    results = replace(made_up_results(names), paths=["a" * 200] * NUM_SAMPLES, group_name="b" * 80)
    assert measure_page(written(results, tmp_path), width=390)["scroll_width"] == 390
