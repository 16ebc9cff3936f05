"""Bundled data for trying everything without network: real digits from a library that we need anyway, drawn faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.drawing.face_set import broken_faces, write_faces
from headstart.files import folder_written_aside

__all__ = ["ENLARGED", "broken_faces", "write_digits", "write_faces"]

ENLARGED = 8
"""Each 8×8 digit is drawn this many times larger, so that a person can see it."""


def write_digits(directory: Path) -> int:
    """Write scikit-learn's 1,797 handwritten digits as class folders of PNG, ``directory/7/0042.png``.

    Args:
        directory: Made here; must not hold anything yet.

    Returns:
        The number of pictures.

    Raises:
        HeadstartError: The directory holds files already.

    References:
        E. Alpaydin, C. Kaynak: "Optical recognition of handwritten digits", UCI, 1998 (test set, 43 writers in all).
    """
    import cv2
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    with folder_written_aside(directory) as aside:
        for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            folder = aside / str(label)
            folder.mkdir(exist_ok=True)
            ink = np.clip(255 - image * (255 / 16), 0, 255).astype(np.uint8)
            size = (image.shape[1] * ENLARGED, image.shape[0] * ENLARGED)
            drawn = cv2.resize(ink, size, interpolation=cv2.INTER_CUBIC)
            (folder / f"{number:04}.png").write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
    return len(digits.target)
