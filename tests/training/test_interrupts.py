"""A block that has begun is finished before Ctrl-C is heard."""

import signal
import subprocess
import sys

import pytest

from headstart.training.interrupts import held_back

_INTERRUPTED = """
import signal, threading, time
from headstart.training.interrupts import held_back

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
threading.Thread(target=time.sleep, args=(1,), daemon=True).start()  # beside others, Python hears a signal later
try:
    with held_back():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        print("whole")
    print("not heard")
except KeyboardInterrupt:
    print("then heard")
"""


def test_ctrl_c_waits_for_the_end_of_the_block():
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["whole", "then heard", ""]


def test_an_error_in_the_block_comes_out_and_ctrl_c_works_again():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="wrong"), held_back():
        raise ValueError("wrong")
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ctrl_c_nothing_happens():
    with held_back():
        pass
