"""What a person wears: clothes and belt, glasses, mask, cap."""

from __future__ import annotations

import numpy as np

from headstart.drawing.canvas import Canvas
from headstart.drawing.colours import Colour, darker, lighter, mix
from headstart.drawing.curves import Points, between, ellipse, moved, smooth, stroke
from headstart.drawing.faces import Head
from headstart.drawing.moments import Scene
from headstart.drawing.people import Person

_LENSES = {
    "round": ((-0.95, 0.0), (-0.7, -0.72), (0, -0.98), (0.7, -0.72), (0.95, 0.0), (0.7, 0.78), (0, 1.05), (-0.7, 0.78)),
    "rectangle": ((-1.02, -0.3), (-0.86, -0.72), (0, -0.76), (0.86, -0.74), (1.06, -0.34), (0.92, 0.58), (0, 0.76),
                  (-0.88, 0.6)),
}  # fmt: skip
_MASK = ((0.0, 0.2), (0.2, 0.26), (0.5, 0.4), (0.8, 0.44), (0.965, 0.46))


def paint_torso(canvas: Canvas, head: Head, person: Person, scene: Scene) -> None:
    """Paint neck, shoulders, collar and the belt. They stay upright whatever the head does."""
    unit = head.pose.scale
    base = np.array([head.pose.x, head.pose.y])
    thick = 0.6 if person.gender == "M" else 0.52
    jaw = head.project([(-thick, 0.7, -0.35), (thick, 0.7, -0.35)])
    root = base + np.array([(thick, 0.55), (thick + 0.05, 1.2), (-thick - 0.05, 1.2), (-thick, 0.55)]) * unit
    neck = np.concatenate([jaw[[0]], jaw[[1]], root])
    canvas.fill(neck, darker(person.skin, 0.16))
    canvas.fill(stroke(neck[[5, 4]], 0.2 * unit), darker(person.skin, 0.5), opacity=0.3, blur=0.08 * unit)
    under = moved(head.jaw_points[2:15], 0, 0.2 * unit)
    with canvas.within(neck):
        shadow = np.concatenate([head.jaw_points[2:15], under[::-1]])
        canvas.fill(shadow, darker(person.skin, 0.75), opacity=0.6, blur=0.09 * unit)
    wide = 2.35 if person.gender == "M" else 2.05
    half = np.array([(thick - 0.04, 0.66), (thick + 0.3, 0.84), (wide * 0.72, 1.12), (wide, 1.6), (wide + 0.32, 2.6),
                     (wide + 0.4, 9)])  # fmt: skip
    right = smooth(half * unit)
    left = right * (-1, 1)
    dip = smooth(np.array([(-thick + 0.04, 0.66), (-0.3, 0.98), (0, 1.06), (0.3, 0.98), (thick - 0.04, 0.66)]) * unit)
    body = base + np.concatenate([dip, right, left[::-1]])
    canvas.fill(body, scene.clothes)
    with canvas.within(body):
        _paint_cloth(canvas, base, unit, scene, dip=dip, wide=wide)


def _paint_cloth(canvas: Canvas, base: Points, unit: float, scene: Scene, *, dip: Points, wide: float) -> None:
    dark, away = darker(scene.clothes, 0.55), -np.sign(scene.light_side)
    side = np.array([(away * wide * 0.75, 0.9), (away * (wide + 0.6), 0.9), (away * (wide + 0.6), 9), (away * 1.2, 9)])
    canvas.fill(base + side * unit, dark, opacity=0.4, blur=0.3 * unit)
    for start, middle, end in (((-1.5, 1.3), (-1.25, 2.0), (-1.35, 3)), ((1.4, 1.3), (1.2, 2.1), (1.3, 3)),
                               ((0.5, 1.3), (0.15, 1.8), (0.2, 2.6))):  # fmt: skip
        fold = base + smooth(np.array([start, middle, end]) * unit)
        canvas.fill(stroke(fold, (0, 0.12 * unit, 0)), dark, opacity=0.35, blur=0.05 * unit)
    canvas.fill(base + stroke(dip, 0.2 * unit), darker(scene.clothes, 0.3))
    canvas.fill(base + stroke(moved(dip, 0, 0.1 * unit), 0.02 * unit), dark, opacity=0.6)
    over = 1 if scene.interior % 2 else -1
    belt = np.array([(over * 1.75, 0.9), (over * 1.25, 1.3), (over * 0.2, 2.6), (-over * 0.9, 4.0)]) * unit
    strap = base + stroke(smooth(belt), 0.34 * unit)
    canvas.fill(moved(strap, 0, 0.06 * unit), (8, 8, 10), opacity=0.35, blur=0.06 * unit)
    canvas.fill(strap, (44, 45, 50))
    for shift in (-0.12, 0.12):
        canvas.fill(base + stroke(moved(smooth(belt), shift * unit, 0), 0.018 * unit), (84, 86, 92), opacity=0.7)


def paint_glasses(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint glasses: temples, tinted lenses with a reflection, frame and bridge."""
    unit = head.pose.scale
    outlines = [_lens(head, person, side) for side in (-1, 1)]
    for side, (lens, hinge) in zip((-1, 1), outlines, strict=True):
        ear = (side * 1.04 * head.width, -0.05, -0.42)
        temple = np.concatenate([hinge, head.project([(side * 1.02 * head.width, -0.06, 0.1), ear])])
        if side * head.pose.yaw < 12:  # on the other side the cheek hides it
            canvas.fill(stroke(temple, 0.05 * unit), darker(person.frame, 0.2))
        canvas.fill(moved(lens, 0, 0.05 * unit), darker(person.skin, 0.6), opacity=0.16, blur=0.04 * unit)
        canvas.fill(lens, (226, 234, 240), opacity=0.1)
        with canvas.within(lens):
            middle = lens.mean(axis=0)
            glare = middle + np.array([(-0.3, 0.4), (-0.12, 0.4), (0.22, -0.4), (0.04, -0.4)]) * unit * 0.9
            canvas.fill(glare, (255, 255, 255), opacity=0.13, blur=0.012 * unit)
        rim = np.concatenate([lens, lens[:2]])
        width = 0.05 if person.glasses == "rectangle" else 0.038
        canvas.fill(stroke(rim, width * unit), person.frame)
        canvas.fill(stroke(rim[: len(rim) // 2], 0.012 * unit), lighter(person.frame, 0.5), opacity=0.5)
    nose = head.project([(-0.14, -0.05, 0.88), (0, -0.11, 0.92), (0.14, -0.05, 0.88)])
    canvas.fill(stroke(smooth(nose), 0.045 * unit), person.frame)


def _lens(head: Head, person: Person, side: int) -> tuple[Points, Points]:
    """Give the outline of a lens and where its temple is fixed."""
    inner, outer = head.eye_box(side)
    centre = (inner + outer) / 2 + (0, 0.05)
    radius = (0.345, 0.3) if person.glasses == "rectangle" else (0.315, 0.3)
    flat = np.array(_LENSES[person.glasses]) * (side * radius[0], radius[1]) + centre
    depth = 0.86 - 0.42 * (np.abs(flat[:, 0]) - 0.14) ** 2  # bent around the face a little
    lens = smooth(head.project(np.column_stack([flat, depth])), is_closed=True)
    hinge = (centre[0] + side * radius[0], centre[1] - 0.12, 0.62)
    return lens, head.project([hinge])


def paint_mask(canvas: Canvas, head: Head, colour: Colour) -> None:
    """Paint a mask over nose, mouth and chin, with its pleats and loops."""
    unit, points = head.pose.scale, head.points
    shares, heights = np.array(_MASK).T
    lift = np.array([0.24, 0.16, 0.07, 0.03, 0.01])
    right, left = head.beside(shares, heights, lift=lift), head.beside(-shares, heights, lift=lift)
    down = -head.up * 0.05 * unit
    lower = points[13:2:-1] + down * np.sin(np.linspace(0, np.pi, 11))[:, None] * 1.6
    outline = np.concatenate([smooth(np.concatenate([left[:0:-1], right])), smooth(lower)])
    for edge, side in ((right[-1], 1), (left[-1], -1)):
        ear = head.project([(side * 1.06 * head.width, 0.0, -0.42), (side * 1.04 * head.width, 0.4, -0.4)])
        corner = points[13] if side > 0 else points[3]
        for start, end in ((edge, ear[0]), (corner, ear[1])):
            canvas.fill(stroke(np.stack([start, end]), 0.026 * unit), mix(colour, (120, 120, 124), 0.25))
    canvas.fill(outline - down * 1.2, (30, 16, 12), opacity=0.22, blur=0.05 * unit)
    canvas.fill(outline, colour)
    with canvas.within(outline):
        _paint_pleats(canvas, head, colour, outline=outline)


def _paint_pleats(canvas: Canvas, head: Head, colour: Colour, *, outline: Points) -> None:
    unit, dark = head.pose.scale, mix(colour, (40, 46, 60), 0.5)
    away = 1 if head.pose.yaw < 0 else -1
    canvas.fill(stroke(np.concatenate([outline, outline[:1]]), 0.3 * unit), dark, opacity=0.28, blur=0.12 * unit)
    ridge = smooth(head.at([(0, 0.25), (0, 0.55), (0, 0.95)], lift=[0.26, 0.34, 0.16]))
    canvas.fill(stroke(ridge, (0.1 * unit, 0.3 * unit, 0.2 * unit)), (255, 255, 255), opacity=0.3, blur=0.1 * unit)
    canvas.fill(head.at(ellipse((away * 0.5, 0.9), (0.25, 0.3))), dark, opacity=0.16, blur=0.12 * unit)
    sides = np.array([-0.97, -0.6, 0, 0.6, 0.97])
    for height, sag in ((0.66, 0.05), (0.84, 0.08), (1.02, 0.12)):
        drop = 0.2 * head.expression.mouth * (height - 0.5)
        fold = smooth(head.beside(sides, height + drop + sag * (1 - sides**2), lift=0.12 * (1 - sides**2)))
        canvas.fill(stroke(fold, (0.012 * unit, 0.026 * unit, 0.012 * unit)), dark, opacity=0.45, blur=0.006 * unit)
        canvas.fill(stroke(fold + head.up * 0.03 * unit, 0.03 * unit), (255, 255, 255), opacity=0.2, blur=0.01 * unit)
    hem = outline[: len(outline) // 2] - head.up * 0.04 * unit
    canvas.fill(stroke(hem, 0.012 * unit), dark, opacity=0.35)


def paint_cap(canvas: Canvas, head: Head, person: Person, cap: str) -> None:
    """Paint a baseball cap or a knitted beanie."""
    if cap == "beanie":
        _paint_beanie(canvas, head, person.cap_colour)
    else:
        _paint_baseball_cap(canvas, head, person.cap_colour)


def _crown(head: Head, band: Points, growth: float) -> tuple[Points, Points]:
    """Give the outline of a cap above its lower edge, and its upper part alone."""
    arc = head.dome(head.direction_of(band[0]), head.direction_of(band[-1]), growth=growth)
    return np.concatenate([band, arc[::-1]]), arc


def _paint_beanie(canvas: Canvas, head: Head, colour: Colour) -> None:
    unit = head.pose.scale
    band = head.ring(-0.40, growth=1.10, bend=0.1)
    upper = head.ring(-0.72, growth=1.13, bend=0.1)
    outline, arc = _crown(head, band, 1.11)
    canvas.fill(outline, colour)
    with canvas.within(outline):
        canvas.fill(stroke(arc, 0.4 * unit), darker(colour, 0.6), opacity=0.4, blur=0.12 * unit)
        top = head.dome(0, 0, growth=1.11, num_points=1)[0]
        for place in range(1, 24, 2):
            rib = smooth(
                np.stack([band[place], between(upper, arc[np.linspace(0, 47, 25).astype(int)], 0.45)[place], top])
            )
            canvas.fill(stroke(rib, (0.02 * unit, 0.03 * unit, 0)), darker(colour, 0.4), opacity=0.4, blur=0.008 * unit)
        fold = np.concatenate([band, upper[::-1]])
        canvas.fill(fold + head.up * -0.03 * unit, darker(colour, 0.7), opacity=0.3, blur=0.04 * unit)
        canvas.fill(fold, lighter(colour, 0.1))
        for start, end in zip(band, upper, strict=True):
            canvas.fill(stroke(np.stack([start, end]), 0.02 * unit), darker(colour, 0.35), opacity=0.45)


def _paint_baseball_cap(canvas: Canvas, head: Head, colour: Colour) -> None:
    unit = head.pose.scale
    band = head.ring(-0.48, growth=1.09, bend=0.12)
    outline, arc = _crown(head, band, 1.09)
    canvas.fill(outline, colour)
    with canvas.within(outline):
        canvas.fill(stroke(arc, 0.36 * unit), darker(colour, 0.6), opacity=0.4, blur=0.12 * unit)
        button = head.dome(0, 0, growth=1.1, num_points=1)[0]
        for place in (4, 12, 20):
            bend = (band[place] + button) / 2 + (band[place] - band[12]) * 0.25
            canvas.fill(
                stroke(smooth(np.stack([band[place], bend, button])), 0.018 * unit), darker(colour, 0.5), opacity=0.6
            )
        shine = head.project([(0.45, -1.0, 0.4)])[0]
        canvas.fill(ellipse(shine, 0.22 * unit), lighter(colour, 0.5), opacity=0.3, blur=0.12 * unit)
    t = np.linspace(-1.2, 1.2, 25)
    root = head.ring(-0.48, growth=1.09, bend=0.12, around=t)
    reach = np.stack([0.06 * np.sin(t), 0.08 + 0.1 * np.sin(t) ** 2, 0.66 * np.cos(t) - 0.1], axis=1)
    rim = root + (reach @ head.rotation.T)[:, :2] * unit
    brim = np.concatenate([root, rim[::-1]])
    with canvas.within(head.outline):
        canvas.fill(brim - head.up * 0.12 * unit, (26, 14, 12), opacity=0.4, blur=0.06 * unit)
    canvas.fill(brim, darker(colour, 0.22))
    canvas.fill(stroke(rim, 0.05 * unit), lighter(colour, 0.12))
    canvas.fill(stroke(between(root, rim, 0.72), 0.012 * unit), lighter(colour, 0.4), opacity=0.4)
