"""Hair: what lies behind the head, what covers the forehead and sides, locks that fall in front."""

from __future__ import annotations

from typing import Final

import numpy as np

from headstart.drawing.canvas import Canvas
from headstart.drawing.colours import darker, lighter, mix
from headstart.drawing.curves import Points, between, ellipse, resample, smooth, stroke
from headstart.drawing.faces import Head
from headstart.drawing.people import HairStyle, Person

_HAIRLINES: Final[dict[HairStyle, tuple[tuple[float, float], ...]]] = {
    "short": ((-1, 0.12), (-0.97, -0.3), (-0.9, -0.58), (-0.62, -0.86), (0, -0.9), (0.62, -0.86), (0.9, -0.58),
              (0.97, -0.3), (1, 0.12)),
    "side": ((-1, 0.14), (-0.98, -0.3), (-0.86, -0.72), (-0.5, -0.96), (-0.1, -0.8), (0.5, -0.62), (0.86, -0.42),
             (0.97, -0.2), (1, 0.14)),
    "buzz": ((-1, 0.06), (-0.98, -0.34), (-0.94, -0.66), (-0.66, -0.8), (0, -0.92), (0.66, -0.8), (0.94, -0.66),
             (0.98, -0.34), (1, 0.06)),
    "fringe": ((-1, 0.1), (-0.98, -0.2), (-0.82, -0.44), (-0.42, -0.5), (0, -0.46), (0.42, -0.5), (0.82, -0.44),
               (0.98, -0.2), (1, 0.1)),
    "bob": ((-1, 0.2), (-0.97, -0.25), (-0.84, -0.56), (-0.4, -0.72), (0.2, -0.9), (0.6, -0.72), (0.88, -0.46),
            (0.97, -0.2), (1, 0.2)),
    "long": ((-1, 0.2), (-0.97, -0.3), (-0.82, -0.68), (-0.3, -0.98), (0, -1.1), (0.3, -0.98), (0.82, -0.68),
             (0.97, -0.3), (1, 0.2)),
    "bun": ((-1, 0.1), (-0.98, -0.35), (-0.88, -0.7), (-0.5, -0.95), (0, -1.0), (0.5, -0.95), (0.88, -0.7),
            (0.98, -0.35), (1, 0.1)),
    "curly": ((-1, 0.16), (-0.96, -0.26), (-0.86, -0.58), (-0.46, -0.76), (0, -0.7), (0.46, -0.78), (0.86, -0.58),
              (0.96, -0.26), (1, 0.16)),
}  # fmt: skip
"""Where hair begins: (share of the face's half width, y in the head's frame), from left to right."""
_GROWTH: Final[dict[HairStyle, float]] = {
    "bald": 1.0, "bob": 1.13, "bun": 1.05, "buzz": 1.015, "curly": 1.2, "fringe": 1.12, "long": 1.1, "short": 1.12,
    "side": 1.15,
}  # fmt: skip
"""How much larger than the skull the hair is."""


def paint_hair_behind(canvas: Canvas, head: Head, person: Person, *, has_cap: bool) -> None:
    """Paint the back of the head, and long hair that falls behind the neck."""
    colour = person.skin if person.hair_style == "bald" else person.hair
    back = head.dome(-np.pi, np.pi, growth=_growth(person, 96, is_pressed=has_cap), num_points=96)
    if person.hair_style == "bun" and not has_cap:
        knot = head.project([(0.0, -1.42, -0.6)])[0]
        canvas.fill(ellipse(knot, 0.42 * head.pose.scale), darker(person.hair, 0.1))
        canvas.fill(ellipse(knot - 0.1 * head.pose.scale, 0.16 * head.pose.scale), lighter(person.hair, 0.3),
                    opacity=0.3, blur=0.1 * head.pose.scale)  # fmt: skip
    if person.hair_style in ("long", "bob"):
        canvas.fill(_fall(head, person), darker(person.hair, 0.28))
    canvas.fill(back, darker(colour, 0.2))
    if person.hair_style == "bald":
        canvas.fill(head.dome(-np.pi / 2, np.pi / 2), person.skin)


def paint_hair(canvas: Canvas, head: Head, person: Person, draws: np.random.Generator, *, has_cap: bool) -> None:
    """Paint the hair over forehead and sides, strand by strand."""
    if person.hair_style == "bald":
        _paint_bald_top(canvas, head, person)
        return
    unit = head.pose.scale
    line = _hairline(head, person)
    arc = _arc(head, person, line, is_pressed=has_cap)
    area = np.concatenate([line, arc[::-1]])
    shadow = line - head.up * 0.07 * unit
    with canvas.within(head.outline):
        canvas.fill(np.concatenate([shadow, arc[::-1]]), darker(person.skin, 0.55), opacity=0.4, blur=0.05 * unit)
    is_buzz = person.hair_style == "buzz"
    canvas.fill(area, mix(person.hair, person.skin, 0.12), opacity=0.88 if is_buzz else 1, blur=0.02 * unit * is_buzz)
    with canvas.within(area):
        _paint_sheen(canvas, head, person, line=line, arc=arc)
        if not is_buzz:
            _paint_strands(canvas, head, person, draws, line=line, arc=arc)
    if person.hair_style in ("long", "bob"):
        _paint_locks(canvas, head, person)


def _growth(person: Person, num_points: int, *, is_pressed: bool = False) -> Points:
    """Give the hair's outline as factors on the skull's radius, all around; a cap presses it flat."""
    angle = np.linspace(-np.pi, np.pi, num_points)
    top = np.clip(np.cos(angle), 0, 1)
    extra = (_GROWTH[person.hair_style] - 1) * (1 + 0.25 * person.hair_volume)
    growth = 1 + extra * (0.35 + 0.8 * top + 0.35 * top * np.sin(angle) * person.parting)
    if person.hair_style in ("short", "side", "fringe", "bob"):
        growth += 0.006 * top * (np.sin(9 * angle + person.number) + np.sin(17 * angle))  # no head is a ball
    if person.hair_style == "curly":
        growth += 0.028 * np.abs(np.sin(10 * angle)) + 0.015 * np.sin(7 * angle + person.number)
    return np.minimum(growth, 1.03) if is_pressed else growth


def _hairline(head: Head, person: Person) -> Points:
    shares, heights = np.array(_HAIRLINES[person.hair_style]).T
    if person.parting < 0:
        shares, heights = -shares[::-1], heights[::-1]
    return resample(smooth(head.beside(shares, heights, lift=0.02)), 40)


def _arc(head: Head, person: Person, line: Points, *, is_pressed: bool) -> Points:
    """Give the outer edge of the hair from the left end of the hairline over the top to its right end."""
    start, end = head.direction_of(line[0]), head.direction_of(line[-1])
    angle = np.linspace(start, end, 80)
    growth = np.interp(angle, np.linspace(-np.pi, np.pi, 96), _growth(person, 96, is_pressed=is_pressed))
    return resample(head.dome(start, end, growth=growth, num_points=80), 40)


def _paint_sheen(canvas: Canvas, head: Head, person: Person, *, line: Points, arc: Points) -> None:
    """Paint light on the crown and shade at the roots and ends."""
    unit = head.pose.scale
    canvas.fill(stroke(arc, 0.3 * unit), darker(person.hair, 0.7), opacity=0.35, blur=0.09 * unit)
    band = between(line, arc, 0.55)[8:-8]
    canvas.fill(stroke(band, (0, 0.2 * unit, 0.24 * unit, 0.2 * unit, 0)), lighter(person.hair, 0.5), opacity=0.26,
                blur=0.07 * unit)  # fmt: skip
    ends = np.concatenate([line[:6], arc[5::-1]]), np.concatenate([line[-6:], arc[:-7:-1]])
    for end in ends:
        canvas.fill(end, darker(person.hair, 0.6), opacity=0.3, blur=0.06 * unit)


def _paint_strands(
    canvas: Canvas, head: Head, person: Person, draws: np.random.Generator, *, line: Points, arc: Points
) -> None:
    """Paint fine strands from the outer edge to the hairline, leaning towards the parting."""
    unit = head.pose.scale
    lean = {"side": 9, "bob": 5, "curly": 0}.get(person.hair_style, 3) * person.parting
    tones = (darker(person.hair, 0.45), lighter(person.hair, 0.2))
    for number, place in enumerate(draws.uniform(1, 38, 90 if person.hair_style == "curly" else 46)):
        root = int(np.clip(place + lean * np.sin(np.pi * place / 39), 0, 39))
        start, end = arc[root], line[int(place)]
        bend = np.array([draws.normal(0, 0.05), draws.normal(0, 0.03)]) * unit
        if person.hair_style == "curly":
            middle = between(start[None], end[None], float(draws.uniform(0.1, 0.9)))[0]
            curl = ellipse(middle, draws.uniform(0.05, 0.12) * unit, num_points=16)[: int(draws.integers(8, 14))]
            canvas.fill(stroke(curl, (0, 0.03 * unit, 0)), tones[number % 2], opacity=0.4)
            continue
        strand = smooth(np.stack([start, (start + end) / 2 + bend, end]), num_between=5)
        canvas.fill(stroke(strand, (0.004 * unit, 0.024 * unit, 0.004 * unit)), tones[number % 2], opacity=0.35)


def _fall(head: Head, person: Person) -> Points:
    """Give the outline of hair that falls behind the neck."""
    low = 2.25 + 0.25 * person.hair_volume if person.hair_style == "long" else 1.32 + 0.12 * person.hair_volume
    half = [(-0.9, -0.7, -0.4), (-1.04, -0.3, -0.4), (-1.1, 0.15, -0.4), (-1.23, 0.45 * low + 0.3, -0.35),
            (-1.29, low - 0.15, -0.3), (-0.75, low, -0.35)]  # fmt: skip
    left = np.array(half) * (head.width, 1, 1)
    right = (left * (-1, 1, 1))[::-1]
    return smooth(head.project(np.concatenate([left, right])), is_closed=True)


def _paint_locks(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint the locks that frame the face on both sides, just outside of the cheeks."""
    unit = head.pose.scale
    low = 2.2 + 0.25 * person.hair_volume if person.hair_style == "long" else 1.3 + 0.12 * person.hair_volume
    for side in (-1, 1):
        inner = head.beside(side * np.array([0.8, 0.97, 1, 1.0]), [-0.72, -0.4, 0.0, 0.35])
        jaw = [(side * 0.99 * head.width, 0.75, -0.2), (side * 0.9 * head.width, low - 0.1, -0.1)]
        outer = [(side * 1.26 * head.width, low - 0.2, -0.3), (side * 1.23 * head.width, 0.8, -0.35),
                 (side * 1.13 * head.width, 0.1, -0.32), (side * 1.03 * head.width, -0.45, -0.2),
                 (side * 0.86 * head.width, -0.8, -0.05)]  # fmt: skip
        lock = smooth(np.concatenate([inner, head.project([*jaw, *outer])]), is_closed=True)
        canvas.fill(lock, person.hair)
        with canvas.within(lock):
            edge = smooth(np.concatenate([inner, head.project(jaw)]))
            far = resample(smooth(head.project(outer[::-1])), len(edge))
            canvas.fill(stroke(far, 0.2 * unit), darker(person.hair, 0.6), opacity=0.4, blur=0.05 * unit)
            for number, share in enumerate(np.linspace(0.1, 0.9, 9)):
                tone = lighter(person.hair, 0.22) if number % 2 else darker(person.hair, 0.4)
                strand = between(edge, far, float(share))
                canvas.fill(stroke(strand, (0, 0.022 * unit, 0.016 * unit, 0)), tone, opacity=0.35)


def _paint_bald_top(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint a bare crown that shines, and short hair above the ears."""
    unit = head.pose.scale
    for side in (-1, 1):
        patch = head.beside(side * np.array([1, 0.99, 0.97]), [0.1, -0.15, -0.42])
        start = head.direction_of(patch[-1])
        outer = head.dome(start, head.direction_of(patch[0]), growth=1.01, num_points=12)
        canvas.fill(np.concatenate([patch, outer[::-1]]), person.hair, opacity=0.75, blur=0.03 * unit)
    top = head.dome(-np.pi / 2, np.pi / 2)
    with canvas.within(top):
        canvas.fill(stroke(top, 0.3 * unit), darker(person.skin, 0.5), opacity=0.35, blur=0.1 * unit)
        shine = head.at(ellipse((0.25 * person.parting, -1.02), (0.3, 0.14)))
        canvas.fill(shine, lighter(person.skin, 0.8), opacity=0.4, blur=0.09 * unit)
