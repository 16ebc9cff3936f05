import base64
import io

import numpy as np
import pytest
from PIL import Image

from headstart.errors import HeadstartError
from headstart.reporting.thumbnails import thumbnail


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_large_image_is_shrunk_in_proportion():
    small = thumbnail(np.full((300, 600, 3), (200, 30, 30), np.uint8))
    assert (small.width, small.height) == (160, 80)
    assert decoded(small.uri).size == (160, 80)
    assert np.abs(np.asarray(decoded(small.uri)).mean(axis=(0, 1)) - (200, 30, 30)).max() < 4


def test_a_small_image_is_not_enlarged():
    assert decoded(thumbnail(np.zeros((8, 5, 3), np.uint8)).uri).size == (5, 8)


def test_a_thin_image_keeps_a_pixel():
    small = thumbnail(np.zeros((1, 4000, 3), np.uint8))
    assert (small.width, small.height) == (160, 1)


def test_grey_and_strided_views_work():
    image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    assert thumbnail(image[::2, ::2]).width == 32
    assert thumbnail(image[:, :, 0]).width == 64


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 of shape"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(image, got):
    with pytest.raises(HeadstartError, match=rf"image must be uint8 of shape .*; got '.*{got}"):
        thumbnail(image)
