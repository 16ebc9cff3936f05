"""Geometry: a head as a stack of horizontal half ellipses, and the 70 points on it, in any pose.

The head has its own frame: x to the right of the picture, y down, z towards the camera; the eyes lie at y = 0, the
chin near y = 1.5, the face is about 2 wide. It is seen from far away (orthographic), as long lenses see it.
The 70 points: 0–16 jaw, 17–21 and 22–26 brows, 27–30 bridge of the nose, 31–35 nostrils, 36–41 and 42–47 eyes,
48–59 outer and 60–67 inner lip, 68 and 69 pupils; "left" is the left of the picture.

References:
    C. Sagonas and others: "300 Faces in-the-Wild Challenge", ICCV workshops 2013 (the first 68 points).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.drawing.curves import Points, smooth
from headstart.drawing.moments import Expression, Pose
from headstart.drawing.people import Shape

NUM_POINTS: Final = 70
FLIP_PAIRS: Final = (
    *((point, 16 - point) for point in range(8)),
    *((17 + point, 26 - point) for point in range(5)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (58, 56), (59, 55)),
    *((60, 64), (61, 63), (67, 65)),
    (68, 69),
)
"""Points that change places when a picture is mirrored. Those not named lie on the middle line."""

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
OUTER_LIP, INNER_LIP = slice(48, 60), slice(60, 68)
PIVOT: Final = (0.0, 0.85, -0.4)
"""Where the head turns: the top of the neck."""
SKULL_CENTRE: Final = (0.0, -0.2, -0.3)
SKULL_RADII: Final = (1.05, 1.26, 1.03)

_JAW = np.array(  # x, y, z of the points 16 … 8: from the ear to the chin
    [
        (1.00, -0.05, -0.38), (0.995, 0.22, -0.36), (0.965, 0.49, -0.28), (0.90, 0.75, -0.16), (0.795, 0.99, 0.00),
        (0.635, 1.19, 0.18), (0.43, 1.345, 0.35), (0.215, 1.44, 0.46), (0.0, 1.47, 0.50),
    ]
)  # fmt: skip
_FOREHEAD = np.array([(0.985, -0.35, -0.36), (0.92, -0.68, -0.32), (0.76, -0.98, -0.25), (0.42, -1.2, -0.12)])
_PROFILE = ((-1.3, -1.0, -0.6, -0.1, 0.5, 0.9, 1.2, 1.5, 1.9), (0.2, 0.5, 0.66, 0.68, 0.72, 0.76, 0.7, 0.56, 0.5))
_JAW_DROPS = np.array([0, 0.02, 0.1, 0.28, 0.52, 0.78, 0.95, 1, 1])  # how much each jaw point follows the chin
_BROW = ((0.80, -0.22), (0.685, -0.315), (0.53, -0.36), (0.365, -0.345), (0.20, -0.285))
_LIDS = ((0.36, 0.80), (0.68, 0.86))  # (place from the inner to the outer corner, share of the lid's height)


@dataclass(frozen=True)
class Head:
    """A head with an expression, in a pose.

    Attributes:
        shape: Whose head.
        expression: What the face does.
        pose: Where it is and looks.
    """

    shape: Shape
    expression: Expression
    pose: Pose

    @cached_property
    def jaw(self) -> Points:
        """Give the right half of the jaw line in the head's frame, from ear to chin, shape (9, 3)."""
        jaw = _JAW.copy()
        bulge = np.array([0, 0.02, 0.045, 0.075, 0.1, 0.1, 0.075, 0.035, 0])  # what a broad jaw adds
        jaw[:, 0] = (jaw[:, 0] + bulge * self.shape.jaw) * self.width
        lower = np.clip(jaw[:, 1] / 1.47, 0, None) ** 2
        jaw[:, 1] += lower * 0.09 * self.shape.chin + _JAW_DROPS * 0.30 * self.expression.mouth
        return jaw

    @cached_property
    def width(self) -> float:
        """Give the factor on all widths."""
        return 1 + 0.06 * self.shape.face_width

    @cached_property
    def rotation(self) -> NDArray[np.float64]:
        """Give the matrix from the head's frame to the picture's axes, shape (3, 3)."""
        yaw, pitch, roll = np.deg2rad((self.pose.yaw, self.pose.pitch, self.pose.roll))
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        return tilt @ nod @ turn

    @property
    def up(self) -> Points:
        """Give the head's "up" in the picture, of length 1."""
        roll = np.deg2rad(self.pose.roll)
        return np.array([np.sin(roll), -np.cos(roll)])

    def project(self, points: ArrayLike) -> Points:
        """Take points of the head's frame, shape (n, 3), to pixels."""
        turned = (np.asarray(points, np.float64) - PIVOT) @ self.rotation.T
        return turned[:, :2] * self.pose.scale + (self.pose.x, self.pose.y)

    def at(self, points: ArrayLike, *, lift: ArrayLike = 0.0) -> Points:
        """Take points (x, y) on the face's surface to pixels; ``lift`` raises them towards the camera."""
        return self.project(self.on_surface(points, lift=lift))

    def on_surface(self, points: ArrayLike, *, lift: ArrayLike = 0.0) -> Points:
        """Give the face's surface at (x, y) in the head's frame, shape (n, 3)."""
        x, y = np.asarray(points, np.float64).T
        half, back, front = self.section(y)
        depth = np.sqrt(np.clip(1 - (x / np.maximum(half, 1e-6)) ** 2, 0, 1))
        return np.stack([x, y, back + (front - back) * depth + lift], axis=1)

    def beside(self, shares: ArrayLike, y: ArrayLike, *, lift: ArrayLike = 0.0) -> Points:
        """Take points given as a share of the face's half width (−1 left edge, 1 right edge) to pixels.

        The edge is what the camera sees of it: on the side that turns away, the farthest visible line of the cheek.
        """
        share, heights = np.broadcast_arrays(np.asarray(shares, np.float64), np.asarray(y, np.float64))
        half, back, front = self.section(heights)
        angle = np.arcsin(np.clip(share, -1, 1))
        limit = _edge_angle(half, front - back, self.pose.yaw * np.sign(share))
        angle = np.sign(angle) * np.minimum(np.abs(angle), limit)
        depth = back + (front - back) * np.cos(angle) + np.asarray(lift)
        turned = np.stack([half * np.sin(angle), heights, depth], axis=1)
        return self.project(turned)

    def section(self, y: ArrayLike) -> tuple[Points, Points, Points]:
        """Give the half ellipse at a height: its half width, the z of its ends, and the z of its front."""
        rows = np.concatenate([_FOREHEAD[::-1] * (self.width, 1, 1), self.jaw])
        heights = np.asarray(y, np.float64)
        half, back = (np.interp(heights, rows[:, 1], rows[:, axis]) for axis in (0, 2))
        return half, back, np.maximum(np.interp(heights, *_PROFILE), back)

    @cached_property
    def jaw_points(self) -> Points:
        """Give the points 0 … 16 in pixels."""
        rows = np.concatenate([self.jaw, self.jaw[7::-1]])
        sides = np.sign(np.arange(17) - 8.0)
        depth = np.maximum(np.interp(rows[:, 1], *_PROFILE) - rows[:, 2], 0)
        angle = _edge_angle(rows[:, 0], depth, self.pose.yaw * sides)
        x = sides * rows[:, 0] * np.sin(angle)
        return self.project(np.stack([x, rows[:, 1], rows[:, 2] + depth * np.cos(angle) * (sides != 0)], axis=1))

    @cached_property
    def outline(self) -> Points:
        """Give the outline of the face in pixels: through the jaw points, and over the forehead."""
        heights = _FOREHEAD[:, 1]
        right, left = self.beside(np.ones(4), heights), self.beside(-np.ones(4), heights[::-1])
        top = self.at([(0.0, -1.3)])
        return smooth(np.concatenate([self.jaw_points, right, top, left]), is_closed=True)

    def dome(self, start: float, end: float, *, growth: ArrayLike = 1.0, num_points: int = 48) -> Points:
        """Give the outline of the skull in pixels, from one direction to another.

        Args:
            start: Clockwise from the head's "up", in radians.
            end: Likewise.
            growth: Factor on the skull's radius, one or one per point.
            num_points: In equal steps of the direction.
        """
        angle = np.linspace(start, end, num_points) + np.deg2rad(self.pose.roll)
        direction = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
        shadow = (self.rotation * np.multiply(SKULL_RADII, (self.width, 1, 1)))[:2]
        radius = 1 / np.sqrt(np.sum(direction @ np.linalg.inv(shadow @ shadow.T) * direction, axis=1))
        return self.skull_centre + direction * (radius * growth * self.pose.scale)[:, None]

    def ring(self, y: float, *, growth: float, bend: float = 0.0, around: Points | None = None) -> Points:
        """Give a level line around the skull in pixels, by default the half that is seen, from left to right.

        Args:
            y: Height in the head's frame, of its ends.
            growth: Factor on the skull's radius.
            bend: How much higher it lies in front.
            around: Angles of its points, 0 in front, more than 0 to the right.
        """
        half, _, depth = np.multiply(SKULL_RADII, growth) * (self.width, 1, 1)
        yaw = np.deg2rad(self.pose.yaw)
        end = np.arctan2(half * np.cos(yaw), depth * np.sin(yaw))
        angle = np.linspace(end - np.pi, end, 25) if around is None else around
        height = y - bend * np.cos(angle)
        narrow = np.sqrt(1 - ((height - SKULL_CENTRE[1]) / (SKULL_RADII[1] * growth)) ** 2)
        x, z = half * narrow * np.sin(angle), SKULL_CENTRE[2] + depth * narrow * np.cos(angle)
        return self.project(np.stack([x, height, z], axis=1))

    @property
    def skull_centre(self) -> Points:
        """Give the middle of the skull in pixels."""
        return self.project([SKULL_CENTRE])[0]

    def direction_of(self, point: ArrayLike) -> float:
        """Give the direction of a pixel from the skull's middle, clockwise from the head's "up", in −π … π."""
        x, y = np.asarray(point) - self.skull_centre
        turned = np.arctan2(x, -y) - np.deg2rad(self.pose.roll)
        return float((turned + np.pi) % (2 * np.pi) - np.pi)

    @cached_property
    def points(self) -> Points:
        """Give the 70 points in pixels, shape (70, 2)."""
        middle = np.concatenate([*self._brows(), self._nose()])
        eyes = self._eyes()
        lips = self._lips()
        placed = (middle, eyes[0], eyes[1], lips, self.pupils)
        return np.concatenate([self.jaw_points, *(self.project(part) for part in placed)])

    def eye_box(self, side: int) -> tuple[Points, Points]:
        """Give the inner and outer corner (x, y) of an eye in the head's frame; side −1 is the left of the picture."""
        middle = 0.445 + 0.03 * self.shape.eye_gap
        half = 0.218 * (1 + 0.09 * self.shape.eye_size)
        tilt = 0.03 * self.shape.eye_tilt
        inner = np.array([side * (middle - half) * self.width, 0.012])
        outer = np.array([side * (middle + half) * self.width, -0.012 - tilt])
        return inner, outer

    def _eyes(self) -> tuple[Points, Points]:
        """Give the six points of each eye: left from its outer corner, right from its inner corner."""
        left, right = self._eye(-1, self.expression.left_eye), self._eye(1, self.expression.right_eye)
        return left[[3, 2, 1, 0, 5, 4]], right

    def _eye(self, side: int, openness: float) -> Points:
        """Give inner corner, two points above, outer corner, two points below (outer first)."""
        inner, outer = self.eye_box(side)
        size = 1 + 0.16 * self.shape.eye_size
        upper, lower = 0.122 * size, 0.068 * size * (1 - 0.25 * max(self.expression.smile, 0))
        closed = 0.05 * size  # shut lids meet a little below the middle
        lid = closed * (1 - openness) - upper * openness
        under = closed * (1 - min(openness, 1)) + lower * min(openness, 1)
        rows = [inner, *((inner + (outer - inner) * place) for place, _ in _LIDS), outer]
        rows += [inner + (outer - inner) * place for place, _ in _LIDS[::-1]]
        eye = np.array(rows)
        shares = np.array([share for _, share in _LIDS])
        eye[1:3, 1] += lid * shares
        eye[4:6, 1] += under * shares[::-1]
        return self.on_surface(eye, lift=-0.03)

    @cached_property
    def pupils(self) -> Points:
        """Give the middle of each pupil in the head's frame; of a shut eye, where it is behind the lid."""
        places = []
        for eye, shares in zip(self._eyes(), ((0, 1, 2, 3, 4, 5), (3, 2, 1, 0, 5, 4)), strict=True):
            points = eye[list(shares)]
            along, upper, lower = (points[0] + points[3]) / 2, points[1:3].mean(axis=0), points[4:6].mean(axis=0)
            half = abs(points[3][0] - points[0][0]) / 2
            gap = (lower[1] - upper[1]) / 2
            x = along[0] + self.expression.gaze[0] * 0.3 * half
            y = (upper[1] + lower[1]) / 2 - 0.02 * min(gap / 0.08, 1) + self.expression.gaze[1] * 0.3 * gap
            places.append((x, y))
        return self.on_surface(places, lift=-0.03)

    def _brows(self) -> tuple[Points, Points]:
        """Give the upper edges of the brows: left from outside, right from inside."""
        brow = np.array(_BROW)
        arch = np.array([-0.3, 0.5, 0.8, 0.2, -0.5]) * 0.035 * self.shape.brow_arch
        raised = np.array([0.5, 0.8, 1, 1, 0.9]) * 0.075 * self.expression.brows
        brow[:, 1] -= arch + raised + 0.035 * self.shape.brow_height
        brow[:, 0] *= self.width
        right = self.on_surface(brow, lift=0.02)
        return right * (-1, 1, 1), right[::-1]

    def _nose(self) -> Points:
        """Give the bridge from the top, and the lower edge of the nose from the left."""
        length = 1 + 0.07 * self.shape.nose_length
        wide = (0.2 + 0.035 * self.shape.nose_width) * self.width
        bridge = [(0, 0.0), (0, 0.18 * length), (0, 0.355 * length), (0, 0.525 * length)]
        base = [(-wide, 0.615), (-wide * 0.52, 0.655), (0, 0.68), (wide * 0.52, 0.655), (wide, 0.615)]
        lower = np.array(base) * (1, length)
        lift = [0.09, 0.18, 0.27, 0.34, 0.10, 0.17, 0.21, 0.17, 0.10]
        return self.on_surface(np.concatenate([bridge, lower]), lift=lift)

    def _lips(self) -> Points:
        """Give the outer lip (12 points) and the inner lip (8 points), each clockwise from the left corner."""
        half = (0.37 + 0.035 * self.shape.mouth_width) * self.width
        mouth, smile = self.expression.mouth, self.expression.smile
        half *= 1 + 0.17 * smile - 0.2 * mouth
        full = (1 + 0.25 * self.shape.lips) * (1 - 0.18 * max(smile, 0))
        bow = np.array([0, -0.075, -0.105, -0.088]) * full
        under = np.array([0.082, 0.115, 0.122]) * full
        drop = 0.44 * mouth
        corner = -0.085 * smile + 0.42 * drop
        upper_inner, lower_inner = -0.02 * mouth, 0.006 + drop
        rounding = 0.16 * mouth  # a yawn's corners are round: their neighbours move outwards
        outer = [(-1, corner), (-0.62 - rounding, bow[1] + 0.1 * drop), (-0.24 - rounding, bow[2]), (0, bow[3])]
        outer += [(-x, y) for x, y in outer[2::-1]]
        below = [
            (0.64 + rounding, under[0] + 0.86 * drop),
            (0.27 + rounding, under[1] + 0.98 * drop),
            (0, under[2] + drop),
        ]
        outer += [*below, *((-x, y) for x, y in below[1::-1])]
        inner = [(-0.86, corner * 0.93), (-0.3 - 1.6 * rounding, upper_inner - 0.008 + 0.06 * drop), (0, upper_inner)]
        inner += [(-x, y) for x, y in inner[1::-1]]
        inner += [
            (x, lower_inner * 0.94 if x else lower_inner) for x in (0.3 + 1.6 * rounding, 0, -0.3 - 1.6 * rounding)
        ]
        curl = np.array([*outer, *inner])
        rise = -0.085 * smile * np.abs(curl[:, 0]) ** 1.6  # a smile lifts what is near the corners
        curl[:, 1] += np.where(np.abs(curl[:, 0]) < 0.85, rise, 0)
        place = curl * (half, 1) + (0, 0.93 + 0.03 * self.shape.nose_length)
        return self.on_surface(place, lift=0.05)


def _edge_angle(half: ArrayLike, depth: ArrayLike, yaw: ArrayLike) -> Points:
    """Give the angle on a half ellipse, 0 its front and 90° its side, where the camera sees its edge.

    Args:
        half: Half width of the ellipse.
        depth: From its side to its front.
        yaw: Degrees by which this side turns away; less than 0 turns towards the camera, and the edge stays put.
    """
    away = np.tan(np.deg2rad(np.maximum(yaw, 0)))
    return np.arctan2(np.asarray(half, np.float64), np.asarray(depth) * away)
