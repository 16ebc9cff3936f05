"""Freed memory stays with the process: what is allocated again causes no page faults."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from headstart.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"1") * 100_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults(), faults()
keep_freed_memory()
with_it = faults(), faults()
print(without[1], with_it[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's")
def test_a_large_block_is_cleared_once():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    without, with_it = map(int, done.stdout.split())
    assert without > 1000
    assert with_it < without / 10
