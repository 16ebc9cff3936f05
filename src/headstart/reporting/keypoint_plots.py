"""The cumulative error curve: which share of faces is off by at most so much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl
from markupsafe import Markup

from headstart.evaluation.keypoints import LIMITS
from headstart.reporting.plots import CHART_WIDTH, PLOT_TOP, Series, curve, grid_lines, legend
from headstart.reporting.svg import Scale, circle, line, picture, text, tick_labels

_HEIGHT: Final = 260.0
_SHORTEST: Final = 12.0  # percent NME that the curve shows at least: both limits, and what lies beyond
_BELOW: Final = (31, 17)  # how far below their dots the labels of the limits stand
_ENOUGH: Final = 0.995  # share of faces at which the rest of the curve is left out


def cumulative_chart(curves: Mapping[str, pl.DataFrame]) -> Markup:
    """Draw the share of faces (up) whose NME is at most so much (across); the limits of 8 and 10 % are marked.

    Args:
        curves: Name of a split → ``KeypointEvaluation.curve``. The last one stands out, and its shares are written.

    Returns:
        The SVG; empty where there is no curve.

    Examples:
        >>> from headstart.evaluation.keypoints import cumulative_curve
        >>> "test: 50 % of faces at most 8 % off" in cumulative_chart({"test": cumulative_curve([2.0, 11.0])})
        True
    """
    if not curves:
        return Markup("")
    end = max(_SHORTEST, *(_reach(one) for one in curves.values()))
    across, down = Scale(0, end, 46, CHART_WIDTH - 10), Scale(0, 1, _HEIGHT - 38, PLOT_TOP)
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    shapes = [text("Share of faces", (0, 13), "plot-title")]
    shapes += grid_lines(ticks, tick_labels(ticks, as_percent=True), down, left=38)
    steps = [float(tick) for tick in range(0, int(end) + 1, 2)]
    below = zip(steps, tick_labels(steps), strict=True)
    shapes += [text(label, (across.at(tick), _HEIGHT - 20), anchor="middle") for tick, label in below]
    shapes.append(text("NME of the face, %", (CHART_WIDTH, _HEIGHT - 3), anchor="end"))
    shapes += [line((across.at(limit), down.at(0)), (across.at(limit), down.at(1)), "diagonal") for limit in LIMITS]
    styles = ["quiet"] * (len(curves) - 1) + ["main"]
    shapes += legend([Series(name, (), style) for name, style in zip(curves, styles, strict=True)])  # type: ignore[arg-type]
    for one, style in zip(curves.values(), styles, strict=True):
        shown = one.filter(pl.col("threshold") <= end)
        shapes += curve([(across.at(x), down.at(y)) for x, y in shown.iter_rows()], style)
    shapes += _limits(list(curves.values())[-1], across, down)
    return picture((CHART_WIDTH, _HEIGHT), shapes, alt=_describe(curves))


def share_within(one: pl.DataFrame, limit: float) -> float:
    """Give the share of faces whose NME is at most a limit.

    Examples:
        >>> from headstart.evaluation.keypoints import cumulative_curve
        >>> share_within(cumulative_curve([2.0, 11.0]), 8)
        0.5
    """
    return float(one.filter(pl.col("threshold") <= limit + 1e-9)["share"][-1])


def _reach(one: pl.DataFrame) -> float:
    """Give the threshold, rounded up to an even number, at which nearly all faces are in."""
    enough = one.filter(pl.col("share") >= _ENOUGH)["threshold"]
    last = float(one["threshold"][-1])
    return min(last, 2.0 * -(-float(enough[0]) // 2)) if len(enough) else last


def _limits(one: pl.DataFrame, across: Scale, down: Scale) -> list[Markup]:
    """Mark the shares at the limits, labels below the curve: one below the other, as shares may be alike.

    Where the curve runs along the bottom, they stand above it, one at the left of its dot and one at the right.
    """
    shapes: list[Markup] = []
    for limit, below in zip(LIMITS, _BELOW, strict=True):
        share = share_within(one, limit)
        x, y = across.at(limit), down.at(share)
        is_low = y + below + 6 > down.at(0)
        is_left = is_low and limit == LIMITS[0]
        beside = (x - 7 if is_left else x + 7, y - 8 if is_low else y + below)
        shapes.append(circle((x, y), 4.5, "best", tip=f"{share:.1%} of faces at most {limit} % off"))
        shapes.append(text(f"{share:.1%}", beside, "best-label", anchor="end" if is_left else "start"))
    return shapes


def _describe(curves: Mapping[str, pl.DataFrame]) -> str:
    parts = [
        f"{name}: "
        + ", ".join(f"{100 * share_within(one, limit):.0f} % of faces at most {limit} % off" for limit in LIMITS)
        for name, one in curves.items()
    ]
    return f"Cumulative error curve. {'; '.join(parts)}."
