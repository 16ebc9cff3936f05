"""The plots of the pages: curves over epochs, the confusion matrix, the reliability diagram. Each is inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.reporting.svg import (
    FONT_SIZE,
    Anchor,
    Point,
    Scale,
    circle,
    element,
    line,
    nice_ticks,
    picture,
    polyline,
    shortened,
    text,
    text_width,
    tick_labels,
)

MAX_CONFUSION_CLASSES: Final = 30
"""More classes than this make cells too small to read; pages list the most confused pairs instead."""

CHART_WIDTH, CHART_HEIGHT = 340.0, 220.0
"""Of a chart, in its own pixels: a third of a page, a phone."""

PLOT_TOP = 34.0
"""Where lines begin, below title and legend."""

_MAX_LABEL = 130.0  # width given to class names in the confusion matrix


@dataclass(frozen=True)
class Series:
    """One line of a chart: its name, its values (None or not a number leaves a gap), and how it stands out."""

    name: str
    values: Sequence[float | None]
    style: Literal["main", "quiet"] = "main"


def line_chart(
    title: str,
    x: Sequence[float],
    series: Sequence[Series],
    *,
    as_percent: bool = False,
    best: int | None = None,
) -> Markup:
    """Draw lines over epochs.

    Args:
        title: What is shown; stands above, and in the alternative text.
        x: Epochs, ascending.
        series: Lines; drawn in this order.
        as_percent: The values are shares.
        best: Index into ``x`` of the epoch to mark on the last line, and to name with its value.

    Returns:
        The SVG; empty where there is no value to draw.

    Examples:
        >>> "<svg" in line_chart("Loss", [1, 2], [Series("train", [1.0, 0.5])])
        True
    """
    drawn = [(one, _points(x, one)) for one in series if _points(x, one)]
    if not drawn:
        return Markup("")
    values = [value for _, points in drawn for _, value in points]
    ticks = nice_ticks(min(values), max(values))
    labels = tick_labels(ticks, as_percent=as_percent)
    left = max(text_width(label) for label in labels) + 8
    across = Scale(min(x), max(*x, min(x) + 1), left + 8, CHART_WIDTH - 12)
    down = Scale(ticks[0], ticks[-1], CHART_HEIGHT - 38, PLOT_TOP)
    value = None if best is None else series[-1].values[best]
    told = "" if value is None else f"best {_worded(value, as_percent=as_percent)}"
    room = CHART_WIDTH - text_width(told) - (12 if told else 0)
    shapes = [text(shortened(title, room), (0, 13), "plot-title"), *legend([one for one, _ in drawn])]
    shapes += grid_lines(ticks, labels, down, left=left)
    shapes += _epochs_below(x, across)
    for one, points in drawn:
        shapes += curve([(across.at(at), down.at(value)) for at, value in points], one.style)
    if best is not None and value is not None:
        shapes.append(circle((across.at(x[best]), down.at(value)), 4.5, "best"))
        shapes.append(text(told, (CHART_WIDTH, 13), "best-label", anchor="end"))
    return picture((CHART_WIDTH, CHART_HEIGHT), shapes, alt=_describe_lines(title, drawn, as_percent=as_percent))


def confusion_chart(confusion: NDArray[np.integer], class_names: Sequence[str]) -> Markup:
    """Draw the confusion matrix as a heat map: rows are true classes, shades are shares of the row, numbers counts.

    Args:
        confusion: Samples by true class (row) and predicted class (column); at most 30 classes read well.
        class_names: One per row.

    Returns:
        The SVG, at its natural size; wide ones want a box that scrolls.

    Examples:
        >>> "most often cat taken for dog 2 times" in confusion_chart(np.array([[5, 2], [1, 9]]), ["cat", "dog"])
        True
    """
    num_classes = len(class_names)
    cell = min(50.0, max(26.0, round(480 / num_classes)))
    label = min(_MAX_LABEL, max(64.0, *(text_width(name) for name in class_names))) + 10
    top = 0.72 * label + 34  # names of columns stand at 45 degrees
    shapes = [
        text("predicted →", (label - 6, 13), anchor="end"),
        text("true ↓", (label - 6, round(top - 7, 1)), anchor="end"),
    ]
    for position, name in enumerate(class_names):
        middle = (position + 0.5) * cell
        shapes.append(_class_name(name, (label - 6, round(top + middle + 4, 1)), anchor="end"))
        shapes.append(_class_name(name, (round(label + middle + 4, 1), round(top - 7, 1)), turn=-45))
    shapes += _cells(confusion, class_names, corner=(label, top), size=cell)
    reach = max(position * cell + 0.72 * min(text_width(name), _MAX_LABEL) for position, name in enumerate(class_names))
    width = label + max(num_classes * cell, reach + cell / 2 + 14)
    size = (round(width), round(top + num_classes * cell + 4))
    return picture(size, shapes, alt=_describe_confusion(confusion, class_names))


def reliability_chart(bins: pl.DataFrame, bins_unscaled: pl.DataFrame | None = None) -> Markup:
    """Draw how often answers are right (up) against how sure the model is (across); calibrated is on the diagonal.

    Args:
        bins: As ``calibration.calibration_bins`` gives them. Dots grow with the samples in the bin.
        bins_unscaled: The same before temperature scaling, drawn in the background.

    Returns:
        The SVG.
    """
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    labels = tick_labels(ticks, as_percent=True)
    across, down = Scale(0, 1, 48, CHART_WIDTH - 18), Scale(0, 1, CHART_WIDTH - 52, PLOT_TOP)
    shapes = [text("Share that is right", (0, 13), "plot-title")]
    shapes += grid_lines(ticks, labels, down, left=38)
    below = zip(ticks, labels, strict=True)
    shapes += [text(label, (across.at(tick), CHART_WIDTH - 32), anchor="middle") for tick, label in below]
    shapes.append(text("how sure the model is", (CHART_WIDTH, CHART_WIDTH - 14), anchor="end"))
    shapes.append(line((across.at(0), down.at(0)), (across.at(1), down.at(1)), "diagonal"))
    if bins_unscaled is not None:
        shapes += legend([Series("before", [], "quiet"), Series("after scaling", [])])
        shapes += _bin_curve(bins_unscaled, across, down, style="quiet")
    shapes += _bin_curve(bins, across, down, style="main")
    return picture((CHART_WIDTH, CHART_WIDTH - 8), shapes, alt=_describe_bins(bins))


def _points(x: Sequence[float], series: Series) -> list[Point]:
    pairs = zip(x, series.values, strict=True)
    return [(at, float(value)) for at, value in pairs if value is not None and math.isfinite(value)]


def grid_lines(ticks: Sequence[float], labels: Sequence[str], down: Scale, *, left: float) -> list[Markup]:
    """Draw a line across the chart at each tick, its label at the left."""
    shapes: list[Markup] = []
    for tick, label in zip(ticks, labels, strict=True):
        y = down.at(tick)
        shapes.append(line((left, y), (CHART_WIDTH, y), "grid"))
        shapes.append(text(label, (left - 6, y + 4), anchor="end"))
    return shapes


def _epochs_below(x: Sequence[float], across: Scale) -> list[Markup]:
    ticks = [tick for tick in nice_ticks(min(x), max(x), target=5, whole=True) if min(x) <= tick <= max(x)]
    shapes = [text(f"{tick:g}", (across.at(tick), CHART_HEIGHT - 20), anchor="middle") for tick in ticks]
    return [*shapes, text("epoch", (CHART_WIDTH, CHART_HEIGHT - 3), anchor="end")]


def legend(series: Sequence[Series]) -> list[Markup]:
    """Name the lines at the top right, where there is more than one."""
    if len(series) < 2:
        return []
    shapes: list[Markup] = []
    right = CHART_WIDTH
    for one in reversed(series):
        shapes.append(text(one.name, (right, 13), anchor="end"))
        right = round(right - text_width(one.name) - 6, 1)
        shapes.append(line((right - 16, 9), (right, 9), f"line {one.style}"))
        right -= 30
    return shapes


def curve(places: list[Point], style: str) -> list[Markup]:
    """Draw a line, with dots where they are few enough to tell apart."""
    shapes = [polyline(places, f"line {style}")] if len(places) > 1 else []
    return shapes + [circle(place, 2.6, f"dot {style}") for place in places if len(places) <= 12]


def _class_name(name: str, place: Point, *, anchor: Anchor = "start", turn: float | None = None) -> Markup:
    short = shortened(name, _MAX_LABEL)
    content = element("title", {}, name) + short if short != name else name
    return text(content, place, "name", anchor=anchor, turn=turn)


def _cells(confusion: NDArray[np.integer], class_names: Sequence[str], *, corner: Point, size: float) -> list[Markup]:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shapes: list[Markup] = []
    for (row, column), count in np.ndenumerate(confusion):
        true, predicted = class_names[row], class_names[column]
        tip = f"{true} → {predicted}: {count:,} ({shares[row, column]:.1%} of {true})"
        place = (corner[0] + column * size, corner[1] + row * size)
        shapes.append(_cell(place, size, int(count), share=float(shares[row, column]), tip=tip))
    return shapes


def _cell(place: Point, size: float, count: int, *, share: float, tip: str) -> Markup:
    x, y = (round(side + 1, 1) for side in place)
    side = round(size - 2, 1)
    look = {"class": "cell", "style": f"--share:{share:.3f}"}
    box = element("rect", {"x": x, "y": y, "width": side, "height": side, "rx": 3} | look)
    if not count:
        return element("g", {}, element("title", {}, tip) + box)
    font = round(min(FONT_SIZE + 1.5, 1.6 * size / max(len(str(count)), 2)), 1)
    middle = (round(x + side / 2, 1), round(y + side / 2 + font * 0.36, 1))
    words = text(str(count), middle, "count", anchor="middle", size=font)
    return element("g", {}, element("title", {}, tip) + box + words)


def _bin_curve(bins: pl.DataFrame, across: Scale, down: Scale, *, style: str) -> list[Markup]:
    filled = bins.filter(pl.col("count") > 0)
    total = max(int(filled["count"].sum()), 1)
    places = [(across.at(x), down.at(y)) for x, y in filled.select("confidence", "accuracy").iter_rows()]
    shapes = [polyline(places, f"line {style}")]
    for place, count in zip(places, filled["count"], strict=True):
        radius = round(2.5 + 8 * math.sqrt(count / total), 1)
        shapes.append(circle(place, radius, f"bubble {style}", tip=f"{count:,} images"))
    return shapes


def _worded(value: float, *, as_percent: bool) -> str:
    return f"{value:.1%}" if as_percent else f"{value:.3g}"


def _describe_lines(title: str, drawn: Sequence[tuple[Series, list[Point]]], *, as_percent: bool) -> str:
    parts: list[str] = []
    for one, points in drawn:
        first, last = (_worded(points[end][1], as_percent=as_percent) for end in (0, -1))
        parts.append(f"{one.name} from {first} to {last}")
    last = math.ceil(max(points[-1][0] for _, points in drawn))
    return f"{title} over {last} epochs: {'; '.join(parts)}."


def _describe_confusion(confusion: NDArray[np.integer], class_names: Sequence[str]) -> str:
    right = f"{np.trace(confusion):,} of {confusion.sum():,} images on the diagonal"
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    if not mistakes.any():
        return f"Confusion matrix of {len(class_names)} classes: {right}, no mistakes."
    row, column = divmod(int(mistakes.argmax()), len(class_names))
    worst = f"{class_names[row]} taken for {class_names[column]} {mistakes[row, column]:,} times"
    return f"Confusion matrix of {len(class_names)} classes: {right}; most often {worst}."


def _describe_bins(bins: pl.DataFrame) -> str:
    filled = bins.filter(pl.col("count") > 0).select("confidence", "accuracy")
    parts = [f"{sure:.0%} sure, {right:.0%} right" for sure, right in filled.iter_rows()]
    return f"Reliability diagram: {'; '.join(parts)}."
