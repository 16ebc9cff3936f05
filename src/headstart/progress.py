"""Progress of long stages, said once and the same way everywhere: a bar on a terminal, one line when piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """Give the one console that everything prints to (standard output; plain when piped)."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def say(message: str = "") -> None:
    """Print one line for the user. Square brackets stay as they are: no markup is read."""
    console().print(message, markup=False)


@contextmanager
def track(
    description: str, total: int, *, unit: str = "images", quiet: bool = False, is_said_after: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show how far a long stage has come, its speed, and the time left.

    Args:
        description: What is being done, e.g. ``"reading photos"``.
        total: Number of units to do.
        unit: What is counted, in the plural.
        quiet: Show nothing (a library caller that wants no output).
        is_said_after: The caller says a line of its own when the stage ends: the bar goes away, nothing is printed.

    Yields:
        A function that takes the number of units just finished. Safe to call from any thread.

    Examples:
        >>> with track("adding", 3, quiet=True) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    if quiet:
        yield lambda _: None
        return
    if console().is_terminal:
        yield from _bar(description, total, unit, transient=is_said_after)
        return
    start, done = time.perf_counter(), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count

    yield advance
    if is_said_after:
        return
    seconds = max(time.perf_counter() - start, 1e-9)
    say(f"{description}: {done:,} {unit} in {seconds:.1f} s, {done / seconds:,.0f} {unit}/s")


def _bar(description: str, total: int, unit: str, *, transient: bool) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    start = time.perf_counter()
    with Progress(*columns, console=console(), transient=transient) as progress:
        task = progress.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            seconds = max(time.perf_counter() - start, 1e-9)
            done = progress.tasks[0].completed + count
            progress.update(task, advance=count, rate=f"{done / seconds:,.0f} {unit}/s")

        yield advance
