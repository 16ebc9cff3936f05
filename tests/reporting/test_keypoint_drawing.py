import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from headstart.deploy.point_drawing import draw_points
from headstart.errors import HeadstartError
from headstart.reporting.keypoint_drawing import FACE_SIDE, PREDICTED_COLOUR, TRUE_COLOUR, draw_points_svg

GREY = np.full((300, 400, 3), 128, np.uint8)
YELLOW = (240, 228, 66)


def starts(svg: str, colour: str) -> np.ndarray:
    """Where the dots of a colour are."""
    paths = re.findall(rf'd="([^"]*)" fill="none" stroke="{colour}"', svg)
    return np.array(
        [[float(side) for side in place] for place in re.findall(r"M([\d.-]+) ([\d.-]+)h0", "".join(paths))]
    )


def view(svg: str) -> list[float]:
    return [float(number) for number in re.findall(r'viewBox="([^"]*)"', svg)[0].split()]


def picture_of(svg: str) -> np.ndarray:
    encoded = re.findall(r'href="data:image/jpeg;base64,([^"]*)"', svg)[0]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_points_are_where_they_are_in_the_thumbnail():
    svg = draw_points_svg(GREY, [[0, 0], [200, 150], [400, 300]], alt="face")
    assert view(svg) == [0, 0, FACE_SIDE, 0.75 * FACE_SIDE]
    assert starts(svg, TRUE_COLOUR).tolist() == [[0, 0], [120, 90], [240, 180]]


def test_a_margin_cuts_to_the_points_and_keeps_them_on_the_same_pixel():
    image = GREY.copy()
    image[100:110, 180:190] = 0
    svg = draw_points_svg(image, [[185, 105], [215, 105], [200, 135]], alt="face", margin=0.5)
    x, y = starts(svg, TRUE_COLOUR)[0]
    picture = picture_of(svg)
    assert view(svg)[2] < 100
    assert picture[int(y), int(x)].max() < 30
    assert picture[-1, -1].min() > 100


def test_predictions_are_dots_in_the_rings_of_the_truth():
    points = np.array([[100.0, 100], [200, 100], [150, 200]])
    svg = draw_points_svg(GREY, points, [True, True, False], points + 5, alt="face")
    dots = starts(svg, PREDICTED_COLOUR)
    assert dots.tolist() == [[63, 63], [123, 63]]
    assert len(starts(svg, TRUE_COLOUR)) == 0
    assert re.findall(rf'd="([^"]*)" fill="none" stroke="{TRUE_COLOUR}"', svg)[0].count("M") == 2


def test_points_that_are_not_visible_are_hollow():
    svg = draw_points_svg(GREY, [[100, 100], [200, 100]], [True, False], alt="face")
    assert starts(svg, TRUE_COLOUR).tolist() == [[60, 60]]
    assert svg.count(f'stroke="{TRUE_COLOUR}"') == 2


def test_points_outside_the_picture_are_seen():
    left, top, width, height = view(draw_points_svg(GREY, [[-40, 100], [200, 330]], alt="face"))
    assert left < -24 < 0 < left + width == pytest.approx(240)
    assert (top, height > 198) == (0, True)


def test_points_very_far_away_do_not_shrink_the_picture():
    _, _, width, _ = view(draw_points_svg(GREY, [[100, 100], [1e6, 100]], alt="face"))
    assert width == FACE_SIDE * 1.5


def test_a_point_that_is_not_a_number_is_left_out():
    svg = draw_points_svg(GREY, [[np.nan, 3], [40, 30]], [False, True], alt="face")
    assert "nan" not in svg.lower().split("base64")[0] + svg.split("<path", 1)[1]


def test_no_visible_point_is_still_a_picture():
    svg = draw_points_svg(GREY, [[1, 2]], [False], [[3, 4]], alt="face", margin=0.2)
    assert view(svg) == [0, 0, 240, 180]


def test_the_alternative_text_is_text():
    assert "<b>" not in draw_points_svg(GREY, [[1, 2]], alt='<b>"얼굴"')
    assert 'aria-label="&lt;b&gt;&#34;얼굴&#34;"' in draw_points_svg(GREY, [[1, 2]], alt='<b>"얼굴"')


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": [1, 2]}, r"points must be of shape \(keypoints, 2\); got \(2,\)"),
        ({"visible": [True, False]}, r"visible must be of shape \(1,\); got \(2,\)"),
        ({"predicted": [[1, 2], [3, 4]]}, r"predicted must be of shape \(1, 2\); got \(2, 2\)"),
        ({"image": np.zeros((3, 3))}, "image must be uint8 .* got 'float64 of shape"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(HeadstartError, match=message):
        draw_points_svg(**{"image": GREY, "points": [[1, 2]]} | given, alt="face")


@pytest.mark.parametrize("place", [(50.5, 80.5), (51.0, 80.0), (320.25, 200.75)])
def test_a_drawn_point_is_centred_on_its_place(place):
    drawn = draw_points(GREY, [place])
    weights = np.abs(drawn.astype(float) - GREY).sum(axis=2)
    rows, columns = np.indices(weights.shape) + 0.5
    centre = (columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()
    assert centre == pytest.approx(place, abs=0.1)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_a_drawn_point_stands_out_of_any_picture(tone):
    drawn = draw_points(np.full((400, 400, 3), tone, np.uint8), [[200.5, 200.5]])
    assert drawn[200, 200].tolist() == list(YELLOW)
    assert drawn[200, 190:211].min(axis=0).max() < 90  # the dark edge


def test_marks_grow_with_the_picture_and_not_into_each_other():
    def touched(side: int, points: list[list[float]]) -> int:
        image = np.full((side, side, 3), 128, np.uint8)
        return int((draw_points(image, points) != image).any(axis=2).sum())

    assert touched(2000, [[1000, 1000]]) > 50 * touched(200, [[100, 100]])
    assert touched(2000, [[1000, 1000], [1020, 1000]]) < touched(2000, [[1000, 1000]])


def test_hidden_points_are_drawn_hollow():
    drawn = draw_points(GREY, [[200.5, 150.5]], visible=[False])
    assert drawn[150, 200].tolist() == [128, 128, 128]
    assert (drawn == YELLOW).all(axis=2).any()


def test_the_given_picture_stays_as_it_is():
    before = GREY.copy()
    assert (draw_points(GREY, [[20, 30], [-5000, 1], [np.nan, 1]]) != before).any()
    assert (before == GREY).all()
