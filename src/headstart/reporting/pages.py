"""Turning results into one self-contained HTML file: Jinja2 templates, one stylesheet, and how numbers are worded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headstart.data.keypoints import COUNTED_FROM_ZERO
from headstart.evaluation.intervals import Score
from headstart.files import written_aside
from headstart.wording import counted

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING: Final = "–"
"""Stands where a value is undefined."""

_UNITS: Final = {
    "log_loss": "", "auc": "", "mae": "", "mse": "",
    "nme": "\N{NO-BREAK SPACE}%", "error_pixels": "\N{NO-BREAK SPACE}px",
}  # fmt: skip
"""What stands after a score that is not a share, by the beginning of its name; shares are shown in percent."""

_SMALL_SCORES: Final = ("mae", "mse")  # three digits that count, where others have as many decimals as they need

_SCORE_NAMES: Final = {
    "nme": "NME", "nme_median": "Median NME", "mae": "MAE", "mse": "MSE", "error_pixels": "Error in pixels",
    "auc_8": "AUC up to 8\N{NO-BREAK SPACE}%", "auc_10": "AUC up to 10\N{NO-BREAK SPACE}%",
    "exact": "All right at once",
    "failure_8": "Faces above 8\N{NO-BREAK SPACE}%", "failure_10": "Faces above 10\N{NO-BREAK SPACE}%",
}  # fmt: skip


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template; every value is escaped.

    Args:
        template: File name in ``templates/``.
        context: What the template names. A name that is missing is an error, not a blank.

    Returns:
        The HTML, with the stylesheet inside and no outside resource.
    """
    return _environment().get_template(template).render(context)


def write_page(template: str, context: Mapping[str, Any], path: Path) -> None:
    """Fill a template and write the page in one atomic step."""
    html = render(template, context)
    with written_aside(path) as aside:
        aside.write_text(html, encoding="utf-8")


def percent(share: float | None, digits: int = 1) -> str:
    r"""Word a share in percent.

    Examples:
        >>> percent(0.9318), percent(None)
        ('93.2\xa0%', '–')
    """
    return NOTHING if share is None or math.isnan(share) else f"{share * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """Word a count with thousands apart, or a fraction with four digits that count.

    Examples:
        >>> number(12345), number(0.123456), number(3e-4), number(None)
        ('12,345', '0.1235', '0.0003', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    r"""Word a time as people say it.

    Examples:
        >>> duration(12.3), duration(75), duration(3780)
        ('12.3\xa0s', '1\xa0min 15\xa0s', '1\xa0h 03\xa0min')
    """
    if seconds is None or math.isnan(seconds):
        return NOTHING
    if round(seconds, 1) < 60:
        return f"{seconds:.2f}\N{NO-BREAK SPACE}s" if seconds < 1 else f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\N{NO-BREAK SPACE}min {rest}\N{NO-BREAK SPACE}s"
    return f"{minutes // 60}\N{NO-BREAK SPACE}h {minutes % 60:02}\N{NO-BREAK SPACE}min"


def score_value(score: Score, name: str) -> str:
    r"""Word a score's value.

    Examples:
        >>> score_value(Score(0.93, 0.91, 0.95), "accuracy"), score_value(Score(0.2, 0.1, 0.3), "log_loss")
        ('93.0\xa0%', '0.200')
        >>> score_value(Score(3.417, 3.1, 3.8), "nme"), score_value(Score(0.000123, 0.0001, 0.0002), "mse")
        ('3.42\xa0%', '0.000123')
    """
    unit = _unit(name)
    return percent(score.value) if unit is None else f"{score.value:.{_decimals(score, name)}f}{unit}"


def score_interval(score: Score, name: str) -> str:
    r"""Word a score's interval.

    Examples:
        >>> score_interval(Score(0.93, 0.91, 0.95), "accuracy"), score_interval(Score(3.417, 3.1, 3.8), "nme")
        ('91.0 – 95.0\xa0%', '3.10 – 3.80\xa0%')
        >>> score_interval(Score.alone(3.4), "nme")
        'no interval'
    """
    if not score.has_interval:
        return "no interval"
    unit = _unit(name)
    if unit is None:
        return f"{score.low * 100:.1f} – {percent(score.high)}"
    decimals = _decimals(score, name)
    return f"{score.low:.{decimals}f} – {score.high:.{decimals}f}{unit}"


def score_name(name: str) -> str:
    """Word a score's name.

    Examples:
        >>> score_name("macro_f1"), score_name("calibration_error_unscaled"), score_name("nme")
        ('Macro F1', 'Calibration error before scaling', 'NME')
    """
    words = name.replace("_unscaled", " before scaling").replace("_f1", " F1").replace("_", " ")
    return _SCORE_NAMES.get(name) or words[0].upper() + words[1:]


def is_share(name: str) -> bool:
    """Say whether a score is a share of 1, shown in percent.

    Examples:
        >>> is_share("accuracy"), is_share("failure_8"), is_share("log_loss"), is_share("nme")
        (True, True, False, False)
    """
    return _unit(name) is None


def _unit(name: str) -> str | None:
    return next((unit for start, unit in _UNITS.items() if name.startswith(start)), None)


def _decimals(score: Score, name: str) -> int:
    if name.startswith(_SMALL_SCORES) and score.value > 0:
        return max(3, 2 - math.floor(math.log10(score.value)))
    return 2 if name.startswith(("nme", "error_pixels")) else 3


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (percent, number, counted, duration, score_value, score_interval, score_name)
    environment.filters.update({function.__name__: function for function in filters})
    environment.globals["counted_from_zero"] = COUNTED_FROM_ZERO
    return environment
