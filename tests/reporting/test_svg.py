from itertools import pairwise

import pytest

from headstart.reporting.svg import Scale, element, nice_ticks, shortened, text_width, tick_labels


@pytest.mark.parametrize(
    ("low", "high"), [(0.13, 0.94), (1, 60), (3e-6, 3e-4), (0.9981, 0.9993), (-2, 7), (5, 5), (0, 0)]
)
def test_ticks_span_the_values_in_few_even_steps(low, high):
    ticks = nice_ticks(low, high)
    steps = [later - earlier for earlier, later in pairwise(ticks)]
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 9
    assert max(steps) == pytest.approx(min(steps))


def test_whole_ticks_are_whole():
    assert all(tick.is_integer() for tick in nice_ticks(1, 2, whole=True))


def test_ticks_have_the_decimals_they_need():
    assert tick_labels([0.85, 0.9], as_percent=True) == ["85%", "90%"]
    assert tick_labels([0.995, 1.0], as_percent=True) == ["99.5%", "100.0%"]


def test_a_scale_maps_its_ends():
    scale = Scale(2, 4, 10, 110)
    assert (scale.at(2), scale.at(4)) == (10, 110)


def test_a_scale_of_one_value_does_not_divide_by_zero():
    assert Scale(3, 3, 10, 110).at(3) == 10


def test_korean_letters_are_wide():
    assert text_width("가나다") > text_width("abc") * 1.5


def test_shortened_text_fits():
    long = "숲과 나무들이 우거진 아주 조용한 곳"
    assert text_width(shortened(long, 100)) <= 100
    assert shortened(long, 100).endswith("…")


def test_attributes_and_text_are_escaped():
    assert str(element("text", {"class": '"><script>'}, "<script>")) == (
        '<text class="&#34;&gt;&lt;script&gt;">&lt;script&gt;</text>'
    )
