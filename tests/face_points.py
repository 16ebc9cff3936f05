"""Points for tests of shapes: the 68-point table, real faces, and drawn shapes with noise."""

from pathlib import Path

import numpy as np
import polars as pl

FACE_PAIRS = (
    *((i, 16 - i) for i in range(8)),
    *((17, 26), (18, 25), (19, 24), (20, 23), (21, 22), (31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
)
FACE_AXIS = (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)
FIVE = np.array([[30.0, 40.0], [70.0, 40.0], [50.0, 60.0], [35.0, 80.0], [65.0, 80.0]])
"""Eyes, nose, corners of the mouth."""


def read_faces(folder: Path):
    """Points (n, 68, 2), sizes (n, 2) and file names of the training frames."""
    home = folder / "face_keypoints_udacity"
    frame = pl.read_csv(home / "training_frames_keypoints.csv")
    points = frame[:, 1:].to_numpy().astype(float).reshape(-1, 68, 2)
    persons = pl.read_csv(home / "persons.csv").filter(pl.col("split") == "training")
    sizes = {file: (height, width) for file, width, height in persons.select("file", "width", "height").iter_rows()}
    names = frame[:, 0].to_list()
    return points, np.array([sizes[name] for name in names]), names


def noisy(shape, num_samples=200, *, noise=1.0, seed=0):
    """Copies of a shape with normal noise, and all visible."""
    points = np.asarray(shape) + np.random.default_rng(seed).normal(0, noise, (num_samples, *np.shape(shape)))
    return points, np.ones(points.shape[:2], bool)


def turned(points, *, seed=0, most=180.0):
    """Each sample turned about the origin by up to ``most`` degrees, scaled and shifted."""
    random = np.random.default_rng(seed)
    angles = np.radians(random.uniform(-most, most, len(points)))
    z = (points[..., 0] + 1j * points[..., 1]) * (np.exp(1j * angles) * random.uniform(0.5, 2, len(points)))[:, None]
    z += random.normal(0, 100, (len(points), 1)) * (1 + 1j)
    return np.stack([z.real, z.imag], axis=-1)


def mirrored(points, share=0.05, *, seed=0):
    """Some samples mirrored with their labels left as they are."""
    chosen = np.random.default_rng(seed).random(len(points)) < share
    return np.where(chosen[:, None, None], points * [-1, 1] + [200, 0], points)
