"""The bundled digits: all of them, in their class folders, never over something else."""

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from headstart.errors import HeadstartError
from headstart.samples import write_digits


def test_all_digits_are_written_to_the_folder_of_their_class(tmp_path):
    assert write_digits(tmp_path / "digits") == 1797
    counts = [len(list((tmp_path / "digits" / str(digit)).glob("*.png"))) for digit in range(10)]
    assert counts == [int((load_digits().target == digit).sum()) for digit in range(10)]


def test_a_digit_can_be_seen(tmp_path):
    write_digits(tmp_path / "digits")
    with Image.open(tmp_path / "digits" / "0" / "0000.png") as image:
        assert image.size == (64, 64)
        assert image.getextrema()[0] < 30 < 220 < image.getextrema()[1]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(HeadstartError, match="a new or empty folder"):
        write_digits(tmp_path)
