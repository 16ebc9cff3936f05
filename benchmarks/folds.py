"""Five folds of a probe against one, whole commands; and what a fold ensemble gains over its members, by person.

Speed: ``headstart train`` on the scenes with the backbone frozen, with ``--folds 5`` and without, in turn, each from an
empty cache: reading the files, converting the network, the pass over the pixels, scores and report are charged.

Gain: faces of 118 persons (CK+), each person in the test of one of three outer splits. In each split five folds of the
other persons are fine-tuned; their vote is set against the mean of the five on the same photos, and the difference is
resampled over persons.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from harness import Aim, data_folder, finish, parse_arguments, ratio

NUM_FOLDS = 5
NUM_OUTER = 3
FACES = "--backbone mobilenetv2_100 --image-size 96 --epochs 6 --batch-size 32 --checkpoint-seconds 600"


def main() -> None:
    """Time folds against one, then measure what their vote gains."""
    arguments = parse_arguments(__doc__.splitlines()[0])
    data = data_folder()
    with tempfile.TemporaryDirectory() as scratch:
        speed, notes = compare_speed(data, Path(scratch), quick=arguments.quick)
        gain, more = measure_gain(data, Path(scratch), quick=arguments.quick)
    packages = ("headstart", "torch", "timm", "openvino")
    finish([speed, gain], packages=packages, record=arguments.record, notes=[*notes, *more])


def compare_speed(data: Path, scratch: Path, *, quick: bool) -> tuple[Aim, list[str]]:
    """Time both commands in turn, each with a cache of its own."""
    photos, rounds = (_some(data, scratch), 1) if quick else (data / "scenes_intel100", 3)
    seconds: dict[str, list[float]] = {"one": [], "five": []}
    for number in range(rounds):
        for name, flags in (("one", ""), ("five", f"--folds {NUM_FOLDS}")):
            start = time.perf_counter()
            _train(photos, scratch / f"{name}-{number}", f"--unfreeze none {flags}")
            seconds[name].append(time.perf_counter() - start)
            print(f"round {number + 1}: {name} {seconds[name][-1]:.1f} s")
    value, spread = ratio(seconds["five"], seconds["one"])
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    note = f"probe of mobilenetv2_100 at 224 px: one {median['one']:.1f} s, {NUM_FOLDS} folds {median['five']:.1f} s"
    return Aim("folds-of-a-probe-vs-one", value, 1.5, at_most=True, spread=spread), [note]


def measure_gain(data: Path, scratch: Path, *, quick: bool) -> tuple[Aim, list[str]]:
    """Train folds on each outer split, and give the vote's gain over the mean of its members over all persons."""
    from headstart.evaluation.ensembles import equal_weights, gain_in_accuracy, vote

    outer = _outer_splits(data / "ck48_emotion_by_subject")
    parts = []
    for number in range(1 if quick else NUM_OUTER):
        table, out = scratch / f"faces-{number}.csv", scratch / f"faces-{number}"
        outer.with_columns(
            split=pl.when(pl.col("outer") == number).then(pl.lit("test")).otherwise(pl.lit("train"))
        ).drop("outer").write_csv(table)
        columns = "--path-column file --label-column label --group-column subject --split-column split"
        flags = FACES.replace("--epochs 6", "--epochs 1") if quick else FACES
        _train(table, out, f"--folds {NUM_FOLDS} {columns} {flags}")
        parts.append(_answers(out))
        print(f"outer split {number + 1}: {len(parts[-1][1]):,} photos")
    answers = np.concatenate([part[0] for part in parts], axis=1)
    labels, persons = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    weights = equal_weights(NUM_FOLDS)
    gain = gain_in_accuracy(answers, weights, labels, units=persons)
    together = (vote(answers, weights).argmax(axis=-1) == labels).mean()
    alone = (answers.argmax(axis=-1) == labels).mean()
    note = (
        f"ensemble {100 * together:.2f} %, mean of its members {100 * alone:.2f} %, difference {100 * gain.value:.2f} "
    )
    note += f"points (95 % interval over {len(set(persons))} persons: {100 * gain.low:.2f} to {100 * gain.high:.2f})"
    print(note)
    return Aim("fold-ensemble-gain-points-low-end", 100 * gain.low, 0.0, spread=(100 * gain.low, 100 * gain.high)), [
        note
    ]


def _answers(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give what each member says of the test, the labels and the persons."""
    from headstart.data.table import SampleTable
    from headstart.ensemble_scoring import ask_members, open_views
    from headstart.models.ensemble import load_model
    from headstart.runs import RunFolder

    table, recipe = SampleTable.load(run / "table.parquet"), RunFolder.open(run).recipe
    ensemble = load_model(run)
    views = open_views(ensemble, table, recipe)
    said = ask_members(ensemble, views, recipe, chosen=lambda rows: rows.filter(pl.col("split") == "test"))
    return said.answers, said.rows["label"].to_numpy(), said.rows["group"].to_numpy()


def _outer_splits(folder: Path) -> pl.DataFrame:
    """Deal persons to the outer splits, class shares alike."""
    from headstart.data.stratification import divide_units

    rows = pl.read_csv(folder / "labels.csv").with_columns(file=pl.concat_str(pl.lit(f"{folder}/"), "file"))
    units = rows["subject"].rank("dense").cast(pl.UInt32).to_numpy()
    labels = rows["label"].rank("dense").cast(pl.Int32).to_numpy() - 1
    outer = divide_units(units, labels, fractions=(1 / NUM_OUTER,) * NUM_OUTER, seed=0)
    return rows.with_columns(outer=pl.Series(outer))


def _some(data: Path, scratch: Path, *, per_class: int = 30) -> Path:
    """Link a few scenes of each class, for a quick look."""
    for split in ("train", "test"):
        for folder in sorted((data / "scenes_intel100" / split).iterdir()):
            target = scratch / "photos" / split / folder.name
            target.mkdir(parents=True)
            for photo in sorted(folder.glob("*.jpg"))[:per_class]:
                (target / photo.name).symlink_to(photo)
    return scratch / "photos"


def _train(photos: Path, out: Path, flags: str) -> None:
    command = [sys.executable, "-m", "headstart", "train", str(photos), "--out", str(out), *flags.split()]
    empty = os.environ | {"HEADSTART_CACHE": f"{out}-cache"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=empty)


if __name__ == "__main__":
    main()
