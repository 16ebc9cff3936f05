"""A block that has begun is finished before Ctrl-C is heard."""

import signal
import time

import pytest

from headstart.training.interrupts import held_back


@pytest.fixture(autouse=True)
def _heard():
    """Hear SIGINT, which a shell's background jobs are started deaf to."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(done)
    assert done == ["whole"]


def _interrupted(done):
    with held_back():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)  # where other threads run, Python hears it some lines later
        done.append("whole")


def test_an_error_in_the_block_comes_out_and_ctrl_c_works_again():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="wrong"), held_back():
        raise ValueError("wrong")
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ctrl_c_nothing_happens():
    with held_back():
        pass
