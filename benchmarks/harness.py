"""What every benchmark shares: interleaved rounds, medians of ratios, one line per aim, a row in RESULTS.md."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True)
class Aim:
    """One promised number: reached where ``value`` is at least (or, with ``at_most``, at most) ``aim``."""

    name: str
    value: float
    aim: float
    at_most: bool = False
    spread: tuple[float, float] | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the promise holds."""
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    @property
    def line(self) -> str:
        """The line that ends a script, e.g. ``decode-720p-vs-pillow: 3.61 (aim 3.50) ok``."""
        return f"{self.name}: {self.value:.2f} (aim {self.aim:.2f}) {'ok' if self.is_reached else 'short'}"


def parse_arguments(description: str) -> argparse.Namespace:
    """Read ``--quick`` (less work, within a minute) and ``--record`` (append the result to RESULTS.md)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="the same on less work, within a minute")
    parser.add_argument("--record", action="store_true", help="append the result to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    wait_passively()
    return arguments


def wait_passively() -> None:
    """Start the script anew with OpenMP threads that sleep while they wait, for headstart and peers alike.

    The command line of headstart sets this for itself. Spinning threads make eager PyTorch several times slower as soon
    as anything else runs on the machine (predict.py measured 8 to 14 instead of 3), which is no merit of ours.
    """
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is imported, and it is already
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this script, with its own arguments


def interleaved(contestants: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Time each contestant once per round, in turn (A B A B …), after one warm-up round.

    Returns:
        Seconds of each counted round, by contestant.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Give the median of the round-by-round ratios, and the lowest and highest of them."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return statistics.median(ratios), (min(ratios), max(ratios))


def finish(aims: Sequence[Aim], *, packages: Sequence[str], record: bool, notes: Sequence[str] = ()) -> None:
    """Print a line per aim, record them where asked, and exit: 0 where all are reached, else 1."""
    print()
    for aim in aims:
        print(aim.line)
    if record:
        _append(aims, packages, notes)
    sys.exit(0 if all(aim.is_reached for aim in aims) else 1)


def data_folder() -> Path:
    """Give the folder of real data, or end with the reason."""
    folder = os.environ.get("HEADSTART_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit("This benchmark needs real photos: set HEADSTART_DATA to the folder that holds them.")
    os.environ.setdefault("HEADSTART_WEIGHTS", str(Path(folder) / "weights"))
    return Path(folder)


def _append(aims: Sequence[Aim], packages: Sequence[str], notes: Sequence[str]) -> None:
    command = f"python benchmarks/{Path(sys.argv[0]).name} " + " ".join(a for a in sys.argv[1:] if a != "--record")
    machine = f"{os.cpu_count()} cores, {_processor()}"
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [f"\n## `{command.strip()}`, {time.strftime('%Y-%m-%d')}\n", f"{machine}; {versions}\n"]
    lines += ["| measure | value | spread | aim | |", "|---|---|---|---|---|"]
    for aim in aims:
        spread = f"{aim.spread[0]:.2f}–{aim.spread[1]:.2f}" if aim.spread else ""
        sign, verdict = ("≤" if aim.at_most else "≥"), ("ok" if aim.is_reached else "**short**")
        lines.append(f"| {aim.name} | {aim.value:.2f} | {spread} | {sign} {aim.aim:.2f} | {verdict} |")
    lines += ["", *[f"- {note}" for note in notes]]
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines).rstrip() + "\n")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
