"""Ctrl-C at the right moment: a step that has begun is finished first, so that what is saved then is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C (and a scheduler's SIGTERM, where it is handled) back until the block is done, then let it through.

    Without it, an optimizer step cut in two would be saved as the state to resume from. Outside the main thread, where
    Python delivers no signals, it does nothing.

    Examples:
        >>> with held_back():
        ...     weights = 1
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[signal.Signals] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: arrived.append(signal.Signals(number)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:  # heard now and here: a signal that is raised anew may come to be heard some lines later
        handlers[arrived[0]](arrived[0], None)
