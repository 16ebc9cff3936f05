"""2,000,000 rows: CSV → table → grouped, stratified split, in a process of its own; seconds and peak memory.

Usage: python benchmarks/table.py [--quick] [--record]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from harness import Aim, finish, parse_arguments

ROWS, QUICK_ROWS, NUM_CLASSES, ROWS_PER_GROUP = 2_000_000, 200_000, 50, 6.7
AIM_SECONDS, AIM_GIGABYTES, AIM_BYTES = 30.0, 1.0, 200.0


def main() -> None:
    """Write the CSV, measure a child process that reads and splits it, and print a line per aim."""
    if len(sys.argv) == 3 and sys.argv[1] == "--child":
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    arguments = parse_arguments((__doc__ or "").splitlines()[0])
    rows = QUICK_ROWS if arguments.quick else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        write_csv(path, rows)
        command = [sys.executable, __file__, "--child", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    report(rows, found, record=arguments.record)


def write_csv(path: Path, rows: int) -> None:
    """Write random paths, labels and groups of about seven rows, most of which hold several classes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, NUM_CLASSES, rows)
    groups = random.integers(0, int(rows / ROWS_PER_GROUP), rows)
    with path.open("w", encoding="utf-8") as file:
        file.write("path,label,person\n")
        file.writelines(
            f"photos/{group % 1000:03d}/{number:08d}.jpg,class_{label:02d},person_{group:06d}\n"
            for number, (label, group) in enumerate(zip(labels.tolist(), groups.tolist(), strict=True))
        )


def measure(path: Path) -> dict[str, float]:
    """Read and split the table; give seconds, the peak of resident bytes, and the table's bytes a row as Arrow."""
    start = time.perf_counter()
    from headstart.data.sources import read_source
    from headstart.data.splits import assign_splits
    from headstart.recipe import Recipe

    recipe = Recipe(data=str(path), group_column="person")
    imported = time.perf_counter()
    table = read_source(recipe, unpack_dir=path.parent)
    read = time.perf_counter()
    table, split = assign_splits(table, recipe)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "seconds": done - start,
        "import": imported - start,
        "read": read - imported,
        "split": done - read,
        "peak_bytes": peak,
        "row_bytes": len(table.frame.write_ipc(None, compat_level=pl.CompatLevel.newest()).getbuffer())
        / table.frame.height,
        "gap": split.worst_share_gap,
        "units": split.num_units,
    }


def report(rows: int, found: dict[str, float], *, record: bool) -> None:
    """Print what was measured and a line per aim."""
    note = (
        f"{rows:,} rows, {found['units']:,.0f} groups, {NUM_CLASSES} classes: import {found['import']:.1f} s, "
        f"read {found['read']:.1f} s, split {found['split']:.1f} s; largest class share gap {found['gap']:.3f} points"
    )
    print(note)
    aims = [
        Aim("table-seconds", found["seconds"], AIM_SECONDS, at_most=True),
        Aim("table-peak-gigabytes", found["peak_bytes"] / 1e9, AIM_GIGABYTES, at_most=True),
        Aim("table-bytes-a-row", found["row_bytes"], AIM_BYTES, at_most=True),
    ]
    finish(aims, packages=("headstart", "polars"), record=record, notes=[note])


if __name__ == "__main__":
    main()
