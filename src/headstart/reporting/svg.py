"""Drawing in SVG: a scale, ticks and a few shapes, for ``plots.py``.

Plots are written by hand and not by matplotlib: text stays text in the reader's own fonts (any script), colours come
from the page's stylesheet and so follow light and dark, and a page of plots takes milliseconds.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

FONT_SIZE = 11.5
"""Size of text in a plot, in its own pixels: 10 px on a phone, where a plot of 380 px shrinks a little."""


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels along one axis.

    Examples:
        >>> Scale(0, 10, 100, 0).at(2.5)
        75.0
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Give the pixel of a value, rounded to a tenth."""
        share = (value - self.low) / (self.high - self.low or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def nice_ticks(low: float, high: float, *, target: int = 4, whole: bool = False) -> list[float]:
    """Give round numbers that span ``low`` to ``high``, about ``target`` steps of 1, 2 or 5 times a power of ten.

    Args:
        low: Smallest value to show.
        high: Largest value to show.
        target: Steps wanted.
        whole: Whole numbers only (epochs, counts).

    Examples:
        >>> nice_ticks(0.13, 0.94)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> nice_ticks(1, 3, whole=True)
        [1.0, 2.0, 3.0]
    """
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = (low, low + 1) if whole else (low - pad, high + pad)
    rough = (high - low) / target
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def tick_labels(ticks: Sequence[float], *, as_percent: bool = False) -> list[str]:
    """Word ticks with as many decimals as the finest needs; very small ones with an exponent.

    Examples:
        >>> tick_labels([0.0, 0.5, 1.0]), tick_labels([0.8, 0.9], as_percent=True), tick_labels([0.0, 2e-5])
        (['0', '0.5', '1.0'], ['80%', '90%'], ['0', '2e-5'])
    """
    values = [float(f"{tick * 100:.10g}") for tick in ticks] if as_percent else list(ticks)
    decimals = max(len(f"{value:.8f}".rstrip("0").partition(".")[2]) for value in values)
    if decimals > 4:
        return [f"{value:g}".replace("e-0", "e-") for value in values]
    return [f"{value:.{decimals if value else 0}f}{'%' if as_percent else ''}" for value in values]


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Estimate the width of text in pixels: wide letters (Korean, Chinese) take an em, others a little over half.

    Examples:
        >>> text_width("고양이", 10), text_width("cat", 10)
        (30.0, 17.4)
    """
    ems = sum(1.0 if letter in "%mwMW" or unicodedata.east_asian_width(letter) in "WF" else 0.58 for letter in text)
    return round(ems * size, 1)


def shortened(text: str, width: float, size: float = FONT_SIZE) -> str:
    """Cut text to a width in pixels, with an ellipsis where something is lost.

    Examples:
        >>> shortened("a very long class name", 60), shortened("cat", 60)
        ('a very l…', 'cat')
    """
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def element(name: str, attributes: Mapping[str, object], content: Markup | str = "") -> Markup:
    """Write one element; attribute values and plain text content are escaped.

    Args:
        name: E.g. ``"text"``.
        attributes: Those that are None are left out.
        content: Text (escaped) or markup (taken as it is).

    Examples:
        >>> str(element("text", {"x": 3, "class": "tick"}, "<b>"))
        '<text x="3" class="tick">&lt;b&gt;</text>'
    """
    written = [Markup(' {}="{}"').format(key, value) for key, value in attributes.items() if value is not None]
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(written), content)


def line(start: Point, end: Point, style: str) -> Markup:
    """Draw a straight line; ``style`` is its class in the stylesheet."""
    return element("line", {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1], "class": style})


def polyline(points: Sequence[Point], style: str) -> Markup:
    """Draw lines from point to point."""
    return element("polyline", {"points": " ".join(f"{x},{y}" for x, y in points), "class": style})


def circle(centre: Point, radius: float, style: str, *, tip: str = "") -> Markup:
    """Draw a dot; ``tip`` shows where a mouse rests on it."""
    content = element("title", {}, tip) if tip else ""
    return element("circle", {"cx": centre[0], "cy": centre[1], "r": radius, "class": style}, content)


def text(
    words: Markup | str,
    place: Point,
    style: str = "tick",
    *,
    anchor: Anchor = "start",
    turn: float | None = None,
    size: float | None = None,
) -> Markup:
    """Write words.

    Args:
        words: Plain text, or markup.
        place: Where the baseline starts, is centred, or ends.
        style: Class in the stylesheet.
        anchor: Which of these it is.
        turn: Degrees around the place, clockwise.
        size: Of the font, where the stylesheet's is not meant.
    """
    attributes = {
        "x": place[0],
        "y": place[1],
        "class": style,
        "text-anchor": None if anchor == "start" else anchor,
        "transform": None if turn is None else f"rotate({turn:g} {place[0]} {place[1]})",
        "font-size": size,
    }
    return element("text", attributes, words)


def picture(size: Point, shapes: Sequence[Markup], *, alt: str) -> Markup:
    """Frame shapes as one SVG image of a natural size (width, height), with its alternative text."""
    width, height = size
    frame = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "role": "img",
        "aria-label": alt,
        "class": "plot",
    }
    return element("svg", frame, Markup("").join(shapes))
