import math
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from headstart.evaluation.intervals import Score
from headstart.reporting import pages

STYLE = (Path(pages.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)[number] for number in (0, 1))


def variable(theme: str, name: str) -> str:
    return re.findall(rf"--{name}: ([^;]+);", theme)[0]


def colour(theme: str, name: str) -> tuple[float, ...]:
    code = variable(theme, name).lstrip("#")
    return tuple(int(code[place : place + 2], 16) / 255 for place in (0, 2, 4))


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """WCAG 2 contrast ratio."""
    lights: list[float] = []
    for rgb in (first, second):
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
        lights.append(sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "surface"])
@pytest.mark.parametrize("ink", ["text", "muted", "accent"])
def test_text_has_the_contrast_of_aa(theme, ground, ink):
    assert contrast(colour(theme, ink), colour(theme, ground)) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 1])
def test_counts_can_be_read_on_every_shade_of_the_heat_map(theme, share):
    opacity = 0.045 + share * float(variable(theme, "heat"))
    pairs = zip(colour(theme, "accent"), colour(theme, "page"), strict=True)
    shade = tuple(opacity * accent + (1 - opacity) * page for accent, page in pairs)
    assert contrast(colour(theme, "text"), shade) >= 4.5


def test_a_name_that_the_template_misses_is_an_error():
    with pytest.raises(UndefinedError, match="run"):
        pages.render("run.html", {})


@pytest.mark.parametrize("word", [pages.percent, pages.number, pages.duration])
@pytest.mark.parametrize("value", [None, math.nan])
def test_what_is_undefined_is_a_dash(word, value):
    assert word(value) == "–"


@pytest.mark.parametrize(
    ("value", "words"), [(0.004, "0.00 s"), (59.94, "59.9 s"), (59.99, "1 min 0 s"), (3599.7, "1 h 00 min")]
)
def test_times_do_not_say_sixty(value, words):
    assert pages.duration(value).replace("\N{NO-BREAK SPACE}", " ") == words


def test_an_interval_names_its_unit_once():
    assert pages.score_interval(Score(0.5, 0.4, 0.6), "log_loss_unscaled") == "0.400 – 0.600"
    assert pages.score_interval(Score(0.5, 0.4, 1.0), "macro_f1").count("%") == 1
