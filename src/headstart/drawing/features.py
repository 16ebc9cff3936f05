"""The face itself: skin and its shading, ears, eyes, brows, nose, mouth, lines of age."""

from __future__ import annotations

import numpy as np

from headstart.drawing import colours
from headstart.drawing.canvas import Canvas
from headstart.drawing.colours import darker, lighter, mix
from headstart.drawing.curves import Points, between, ellipse, moved, smooth, stroke
from headstart.drawing.faces import INNER_LIP, LEFT_EYE, OUTER_LIP, RIGHT_EYE, Head
from headstart.drawing.people import Person

_EAR = (
    (-0.02, -0.10),
    (0.06, -0.2),
    (0.16, -0.2),
    (0.22, -0.07),
    (0.18, 0.1),
    (0.11, 0.22),
    (0.07, 0.31),
    (-0.02, 0.28),
)

_SHUT = 0.2  # eyes that are less open than this are painted as lids alone


def paint_ears(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint both ears; the face is painted over what it hides of them."""
    unit = head.pose.scale
    for side in (-1, 1):
        u, v = np.array(_EAR).T
        along = np.stack([side * (0.985 * head.width + 0.62 * u), v + 0.12, -0.38 - 0.8 * u], axis=1)
        outline = smooth(head.project(along), is_closed=True)
        canvas.fill(outline, darker(person.skin, 0.13))
        middle = outline.mean(axis=0)
        canvas.fill(
            middle + (outline - middle) * (0.55, 0.62), darker(person.skin, 0.38), opacity=0.6, blur=0.03 * unit
        )


def skin_outline(head: Head, person: Person) -> Points:
    """Give the outline of all that is painted as face: of a bald person, with the crown."""
    if person.hair_style != "bald":
        return head.outline
    left, right = head.beside([-1], [-0.3]), head.beside([1], [-0.3])
    crown = head.dome(head.direction_of(right[0]), head.direction_of(left[0]))
    return np.concatenate([smooth(np.concatenate([left, head.jaw_points, right])), crown])


def paint_skin(canvas: Canvas, head: Head, person: Person, *, light_side: float) -> None:
    """Paint the face's skin, round through soft light and shade; to be cut to the face's outline."""
    outline = skin_outline(head, person)
    unit, away, strength = head.pose.scale, -np.sign(light_side), abs(light_side)
    canvas.fill(outline, person.skin)
    shade, light = darker(person.skin, 0.5), lighter(person.skin, 0.5)
    sides = smooth(
        np.concatenate([head.beside([-1, -1], [-0.7, -0.35]), head.jaw_points, head.beside([1, 1], [-0.35, -0.7])])
    )
    rim = stroke(sides, np.multiply((0, 1, 1, 1, 1, 1, 0), 0.34 * unit))
    canvas.fill(rim, shade, opacity=0.3, blur=0.13 * unit)
    far = head.beside(away * np.array([0.62, 1, 1, 0.85, 0.5, 0.75]), [-1.0, -0.9, 0.7, 1.3, 0.95, 0.2])
    canvas.fill(far, shade, opacity=0.34 * strength, blur=0.17 * unit)
    near = head.at(ellipse((-away * 0.5, -0.45), (0.45, 0.35)))
    canvas.fill(near, light, opacity=0.35 * strength, blur=0.2 * unit)
    cheek = mix(person.skin, (222, 92, 78), 0.42)
    for side in (-1, 1):
        canvas.fill(head.at(ellipse((side * 0.56, 0.5), (0.2, 0.15))), cheek, opacity=0.34, blur=0.12 * unit)
        socket = head.at(ellipse((side * 0.42, -0.06), (0.26, 0.16)))
        canvas.fill(socket, shade, opacity=0.26, blur=0.08 * unit)
        canvas.fill(head.at(ellipse((side * 0.6, 0.3), (0.14, 0.07))), light, opacity=0.3, blur=0.06 * unit)
    chin, lip = head.jaw[-1, 1], 1.09 + 0.42 * head.expression.mouth
    canvas.fill(head.at(ellipse((0, lip + 0.05), (0.2, 0.045))), shade, opacity=0.4, blur=0.05 * unit)
    canvas.fill(head.at(ellipse((0, chin - 0.15), (0.16, 0.07))), light, opacity=0.3, blur=0.06 * unit)
    canvas.fill(head.at(ellipse((0, 0.78), (0.05, 0.07))), shade, opacity=0.2, blur=0.03 * unit)


def paint_lines_of_age(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint folds from the nose to the mouth, lines on the forehead and beside the eyes; deeper with age."""
    depth = float(np.clip((person.age - 25) / 45, 0.0, 1)) + 0.35 * max(head.expression.smile, 0)
    unit, shade = head.pose.scale, darker(person.skin, 0.55)
    corner = 0.40 + 0.06 * head.expression.smile
    for side in (-1, 1):
        fold = smooth(head.at([(side * 0.25, 0.6), (side * 0.37, 0.72), (side * (corner + 0.06), 0.9)], lift=0.04))
        canvas.fill(stroke(fold, (0, 0.035 * unit, 0)), shade, opacity=min(0.6, 0.12 + 0.45 * depth), blur=0.012 * unit)
        bag = smooth(head.at([(side * 0.27, 0.1), (side * 0.42, 0.185), (side * 0.6, 0.12)]))
        canvas.fill(stroke(bag, (0, 0.03 * unit, 0)), shade, opacity=min(0.5, 0.1 + 0.4 * depth), blur=0.012 * unit)
        if person.age < 50:
            continue
        for drop in (-0.06, 0.02, 0.09):
            line = head.beside(side * np.array([0.74, 0.8, 0.86]), np.array([0, 0.3, 0.8]) * drop + drop * 0.5)
            canvas.fill(stroke(line, (0, 0.016 * unit, 0)), shade, opacity=0.4 * depth, blur=0.006 * unit)
    for height in (-0.55, -0.66, -0.78) if person.age >= 40 else ():
        line = smooth(head.at([(-0.45, height + 0.03), (-0.2, height), (0.2, height), (0.45, height + 0.03)]))
        canvas.fill(stroke(line, (0, 0.022 * unit, 0)), shade, opacity=0.42 * depth, blur=0.008 * unit)


def paint_eyes(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint both eyes, open, narrowed or shut."""
    both = (LEFT_EYE, 68, head.expression.left_eye), (RIGHT_EYE, 69, head.expression.right_eye)
    for place, pupil, openness in both:
        eye = head.points[place]
        upper, lower = smooth(eye[:4]), smooth(eye[[3, 4, 5, 0]])
        if openness > _SHUT:
            _paint_eyeball(canvas, head, person, upper=upper, lower=lower, pupil=head.points[pupil])
        _paint_lids(canvas, head, person, upper=upper, lower=lower, openness=openness)
        outwards = upper[::-1] if place == LEFT_EYE else upper
        _paint_lashes(canvas, head, person, lid=outwards, is_shut=openness <= _SHUT)


def _paint_eyeball(canvas: Canvas, head: Head, person: Person, *, upper: Points, lower: Points, pupil: Points) -> None:
    """Paint what is between the lids: white, iris, pupil, the light in it, the shadow of the upper lid."""
    unit = head.pose.scale * (1 + 0.09 * head.shape.eye_size)
    squeeze = (max(np.cos(np.deg2rad(head.pose.yaw)), 0.5), 1)  # an iris seen from the side is narrower
    aperture = np.concatenate([upper, lower[1:-1]])
    canvas.fill(aperture, mix((240, 236, 230), person.skin, 0.1))
    with canvas.within(aperture):
        canvas.fill(ellipse(pupil, np.multiply(squeeze, 0.132 * unit)), darker(person.iris, 0.72))
        canvas.fill(ellipse(pupil, np.multiply(squeeze, 0.111 * unit)), person.iris)
        glow = moved(pupil, 0, 0.045 * unit)
        canvas.fill(ellipse(glow, 0.05 * unit), lighter(person.iris, 0.45), opacity=0.6, blur=0.02 * unit)
        canvas.fill(ellipse(pupil, np.multiply(squeeze, 0.056 * unit)), (14, 11, 12))
        shadow = stroke(upper, 0.11 * unit)
        canvas.fill(shadow, darker(person.skin, 0.8), opacity=0.45, blur=0.022 * unit)
        for shift, size, opacity in (((-0.054, -0.054), 0.027, 0.95), ((0.05, 0.05), 0.013, 0.5)):
            canvas.fill(ellipse(pupil + np.multiply(shift, unit), size * unit), (255, 255, 255), opacity=opacity)


def _paint_lids(canvas: Canvas, head: Head, person: Person, *, upper: Points, lower: Points, openness: float) -> None:
    """Paint the crease above the eye, the edge of the lower lid, and the upper lid where it is shut."""
    unit, shade = head.pose.scale, darker(person.skin, 0.62)
    if openness <= _SHUT:
        bulge = np.sin(np.linspace(0, np.pi, len(upper)))[:, None]
        lid = np.concatenate([upper + head.up * 0.13 * unit * bulge, lower])
        canvas.fill(lid, darker(person.skin, 0.18), opacity=0.55, blur=0.02 * unit)
    crease = upper + head.up * (0.05 + 0.027 * openness) * unit
    canvas.fill(stroke(crease, (0, 0.02 * unit, 0.024 * unit, 0)), shade, opacity=0.6, blur=0.006 * unit)
    canvas.fill(stroke(lower, (0, 0.016 * unit, 0.012 * unit, 0)), shade, opacity=0.55, blur=0.004 * unit)


def _paint_lashes(canvas: Canvas, head: Head, person: Person, *, lid: Points, is_shut: bool) -> None:
    """Paint the lashes along the upper lid, given from its inner to its outer corner."""
    unit, colour = head.pose.scale, mix((26, 18, 18), person.hair, 0.15)
    width = (0.044 if person.gender == "F" else 0.032) * unit
    canvas.fill(stroke(lid, (0.4 * width, width, 1.15 * width, 0.8 * width)), colour)
    if person.gender == "M" and not is_shut:
        return
    along = lid[-1] - lid[-5]
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    tip = lid[-1] + (along + head.up * (0.1 if is_shut else 0.45)) * 0.07 * unit
    wing = smooth(np.stack([lid[-5], lid[-3], lid[-1], tip]))
    canvas.fill(stroke(wing, (0.7 * width, 0.9 * width, 0.8 * width, 0)), colour)


def paint_brows(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint the brows: hairy bands whose upper edges run through their points."""
    unit = head.pose.scale
    thick = (0.088 + 0.03 * head.shape.brow_thickness) * unit
    colour = mix(darker(person.hair, 0.25), person.skin, 0.12)
    for points, profile in (
        (head.points[17:22], (0.22, 0.62, 0.92, 1, 0.72)),
        (head.points[22:27], (0.72, 1, 0.92, 0.62, 0.22)),
    ):
        edge = smooth(points)
        depth = np.interp(np.linspace(0, 1, len(edge)), np.linspace(0, 1, 5), profile)[:, None]
        under = edge - head.up * thick * depth
        band = np.concatenate([edge, under[::-1]])
        canvas.fill(band, colour, opacity=0.35, blur=0.018 * unit)
        canvas.fill(band, colour, opacity=0.8, blur=0.007 * unit)
        for number in range(3, len(edge) - 2, 2):
            lean = 3 if points[0, 0] < head.points[27, 0] else -3
            root = under[np.clip(number + lean, 0, len(edge) - 1)]
            hair = np.linspace(root, edge[number], 4)
            canvas.fill(stroke(hair, (0.014 * unit, 0)), darker(person.hair, 0.6), opacity=0.35)


def paint_nose(canvas: Canvas, head: Head, person: Person, *, light_side: float) -> None:
    """Paint the nose: a lit ridge, a shaded side, the wings, the lower edge and the nostrils."""
    unit, points = head.pose.scale, head.points
    shade, light = darker(person.skin, 0.52), lighter(person.skin, 0.6)
    away = -np.sign(light_side)
    length = 1 + 0.07 * head.shape.nose_length
    wing = points[35] if away > 0 else points[31]
    side = head.at(np.array([(away * 0.13, -0.12), (away * 0.15, 0.2), (away * 0.2, 0.5 * length)]), lift=0.03)
    plane = np.concatenate([points[27:31], points[[33]], wing[None], side[::-1]])
    canvas.fill(plane, shade, opacity=0.32, blur=0.035 * unit)
    canvas.fill(stroke(smooth(points[27:31]), (0.03 * unit, 0.07 * unit)), light, opacity=0.42, blur=0.022 * unit)
    canvas.fill(ellipse(points[30], 0.06 * unit), light, opacity=0.4, blur=0.025 * unit)
    base = smooth(points[31:36])
    shadow = np.concatenate([base, base[::-1] - head.up * 0.09 * unit])
    canvas.fill(shadow, shade, opacity=0.42, blur=0.03 * unit)
    for tip, inward in ((points[31], points[32]), (points[35], points[34])):
        outward = (tip - inward) * 0.55
        curve = np.stack([tip + head.up * 0.14 * unit + outward * 0.2, tip + head.up * 0.07 * unit + outward, tip])
        canvas.fill(stroke(smooth(curve), (0, 0.026 * unit, 0.03 * unit)), shade, opacity=0.7, blur=0.006 * unit)
        nostril = between(tip[None], inward[None], 0.62)[0] + head.up * 0.012 * unit
        angle = float(np.arctan2(*(inward - tip)[::-1]))
        canvas.fill(
            ellipse(nostril, (0.062 * unit, 0.024 * unit), angle=angle), darker(person.skin, 0.86), opacity=0.85
        )
    canvas.fill(stroke(base, (0.012 * unit, 0.022 * unit, 0.012 * unit)), shade, opacity=0.65, blur=0.004 * unit)


def paint_mouth(canvas: Canvas, head: Head, person: Person) -> None:
    """Paint lips, and teeth and tongue where the mouth is open."""
    unit, outer, inner = head.pose.scale, head.points[OUTER_LIP], head.points[INNER_LIP]
    red = (176, 62, 70) if person.gender == "F" else (170, 88, 82)
    lip = mix(person.skin, red, 0.58 if person.gender == "F" else 0.36)
    is_round = head.expression.mouth > 0.4
    (upper, lower), (seam, under) = _halves(outer, is_round=is_round), _halves(inner, is_round=is_round)
    outline = np.concatenate([upper, lower[1:-1]])
    canvas.fill(outline, darker(lip, 0.06))
    with canvas.within(outline):
        canvas.fill(np.concatenate([upper, seam[::-1]]), darker(lip, 0.3), opacity=0.75, blur=0.012 * unit)
        glow = between(lower, under[np.linspace(0, len(under) - 1, len(lower)).astype(int)], 0.45)[8:-8]
        canvas.fill(stroke(glow, (0, 0.05 * unit, 0)), lighter(lip, 0.55), opacity=0.5, blur=0.018 * unit)
        edge = stroke(np.concatenate([outline, outline[:1]]), 0.03 * unit)
        canvas.fill(edge, darker(lip, 0.35), opacity=0.4, blur=0.012 * unit)
    hole = np.concatenate([seam, under[1:-1]])
    canvas.fill(hole, (62, 20, 24))
    if head.expression.mouth > 0.1:
        _paint_inside(canvas, head, seam=seam, under=under, hole=hole)
    line = darker(lip, 0.75)
    canvas.fill(stroke(seam, (0, 0.024 * unit, 0.018 * unit, 0.024 * unit, 0)), line)
    for corner in (outer[0], outer[6]):
        canvas.fill(ellipse(corner, 0.026 * unit), darker(person.skin, 0.6), opacity=0.45, blur=0.014 * unit)


def _halves(points: Points, *, is_round: bool) -> tuple[Points, Points]:
    """Give the upper and the lower line of a lip's outline, from the left corner and back to it."""
    half = len(points) // 2
    if not is_round:
        return smooth(points[: half + 1]), smooth(np.concatenate([points[half:], points[:1]]))
    around = smooth(points, is_closed=True)
    return around[: half * 6 + 1], np.concatenate([around[half * 6 :], around[:1]])


def _paint_inside(canvas: Canvas, head: Head, *, seam: Points, under: Points, hole: Points) -> None:
    unit, mouth = head.pose.scale, head.expression.mouth
    with canvas.within(hole):
        floor = under[::-1]
        tongue = between(seam, floor, 0.72)
        canvas.fill(np.concatenate([tongue, floor[::-1]]), (176, 76, 78), opacity=0.9, blur=0.02 * unit)
        depth = min(0.1, 0.35 * mouth) * unit * np.sin(np.linspace(0, np.pi, len(seam)))[:, None] ** 0.5
        canvas.fill(np.concatenate([seam, (seam - head.up * depth)[::-1]]), (236, 229, 218))
        if mouth > 0.6:
            low = floor + head.up * 0.6 * depth
            canvas.fill(np.concatenate([floor, low[::-1]]), (206, 190, 178), opacity=0.8, blur=0.01 * unit)
        canvas.fill(stroke(np.concatenate([hole, hole[:1]]), 0.06 * unit), (62, 20, 24), opacity=0.55, blur=0.02 * unit)
        canvas.fill(stroke(seam, 0.07 * unit), (62, 20, 24), opacity=0.4, blur=0.016 * unit)


def paint_beard(canvas: Canvas, head: Head, person: Person, draws: np.random.Generator) -> None:
    """Paint a beard: a soft shadow on the skin, and hairs on it unless it is stubble."""
    if not person.beard:
        return
    unit = head.pose.scale
    for area in _beard_areas(head, person):
        if person.beard == "stubble":
            canvas.fill(area, mix(person.hair, person.skin, 0.35), opacity=0.36, blur=0.06 * unit)
            continue
        canvas.fill(area, person.hair, opacity=0.62, blur=0.05 * unit)
        canvas.fill(area, person.hair, opacity=0.8, blur=0.02 * unit)
        low, high = area.min(axis=0), area.max(axis=0)
        with canvas.within(area):
            _paint_hairs(canvas, head, person, low + draws.random((90, 2)) * (high - low))


def _paint_hairs(canvas: Canvas, head: Head, person: Person, roots: Points) -> None:
    down = -head.up
    middle = head.points[51, 0]
    tones = (darker(person.hair, 0.5), colours.mix(person.hair, colours.GREY, 0.28))
    for number, root in enumerate(roots):
        drift = np.array([np.sign(root[0] - middle) * -0.3, 0.0])
        hair = np.linspace(root, root + (down + drift) * 0.12 * head.pose.scale, 3)
        canvas.fill(stroke(hair, (0.012 * head.pose.scale, 0)), tones[number % 2], opacity=0.55)


def _beard_areas(head: Head, person: Person) -> list[Points]:
    points, up, unit = head.points, head.up, head.pose.scale
    mouth = points[OUTER_LIP]
    lip = mouth[:7] - up * 0.004 * unit
    right, left = (mouth[6] - mouth[3]) * 0.1, (mouth[0] - mouth[3]) * 0.1
    below = -up * 0.06 * unit
    lower = (mouth[0] + below + left, mouth[0], *lip[1:6], mouth[6], mouth[6] + below + right)
    middle = points[33] - up * 0.05 * unit
    upper = (mouth[6] + right, (mouth[5] + points[35]) / 2, middle, (mouth[1] + points[31]) / 2, mouth[0] + left)
    moustache = smooth(np.stack([*lower, *upper]), is_closed=True, num_between=3)
    if person.beard == "moustache":
        return [moustache]
    under = mouth[[6, 7, 8, 9, 10, 11, 0]] - up * 0.05 * unit
    if person.beard == "goatee":
        chin = smooth(np.concatenate([under[1:6], points[6:11]]), is_closed=True, num_between=3)
        return [moustache, chin]
    jaw = points[1:16]
    cheek_right = head.beside([0.9, 0.74, 0.56], [0.42, 0.72, 0.86])
    cheek_left = head.beside([-0.56, -0.74, -0.9], [0.86, 0.72, 0.42])
    outline = np.concatenate([jaw, cheek_right, under, cheek_left])
    return [moustache, outline]
