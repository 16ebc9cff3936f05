"""Train, validation, test: whole units on one side, class shares alike, and leaks of a given split told.

The split is dealt anew (stratified and grouped, by seed), or taken from the data, or from another run's file; what a
given split lacks is carved out of its training part. The report says how it was done, how close the class shares came,
and what stands on two sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.folders import SPLIT_NAMES, some
from headstart.data.label_strata import with_strata
from headstart.data.stratification import divide_units, join_units
from headstart.data.table import SPLITS, SampleTable, Split
from headstart.errors import SplitError, did_you_mean, must_be
from headstart.files import written_aside
from headstart.recipe import Recipe

LeakKind = Literal["copy", "near", "group"]
_LEAK_COLUMNS: Final[tuple[tuple[LeakKind, str], ...]] = (("copy", "copy_set"), ("near", "cluster"), ("group", "group"))
_LEAK_WORDS: Final = {"copy": "byte-identical files", "near": "near-identical photos", "group": "groups"}
_MAX_EXAMPLES: Final = 5
_MAX_NAMED_CLASSES: Final = 10
_TRAIN, _VALIDATION, _TEST = 0, 1, 2  # positions in SPLITS
_OPEN, _ASIDE = -1, -2  # not decided yet; takes no part, as the common test in a fold's own split
_ASIDE_NAME: Final = "aside"
_CODES: Final = {**{name: position for position, name in enumerate(SPLITS)}, _ASIDE_NAME: _ASIDE}


@dataclass(frozen=True)
class Leak:
    """What stands on two sides of a given split.

    Attributes:
        kind: ``copy`` byte-identical files, ``near`` near-identical photos, ``group`` the user's groups.
        splits: The sides, e.g. ``("train", "test")``.
        count: Number of sets, clusters or groups that stand on exactly these sides.
        num_samples: Samples in them.
        examples: For a few of them, one path on each side, in the order of ``splits``.
    """

    kind: LeakKind
    splits: tuple[Split, ...]
    count: int
    num_samples: int
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SplitReport:
    """How the samples were split, and how honest the split is.

    Attributes:
        how: How it was done, in words.
        sizes: Samples in each split.
        class_shares: One row per class: ``class_name``, and the number of its samples in each split.
        worst_share_gap: Largest difference, in percentage points, of a class's share in a split from its share in all.
        num_units: Number of units (joined groups, copies and clusters); equals the samples where nothing is joined.
        leaks: What stands on two sides; empty unless the split was given.
        notes: What else the user should know, a sentence each.
    """

    how: str
    sizes: dict[Split, int]
    class_shares: pl.DataFrame
    worst_share_gap: float
    num_units: int
    leaks: tuple[Leak, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """A split under way: positions in ``SPLITS`` for each kept sample (or ``_ASIDE``), and what is to be said."""

    codes: NDArray[np.int8]
    how: tuple[str, ...]
    notes: tuple[str, ...] = ()
    given: frozenset[int] = frozenset()


def assign_splits(table: SampleTable, recipe: Recipe) -> tuple[SampleTable, SplitReport]:
    """Give every kept sample a split, and say how.

    Args:
        table: Samples; those with the same ``group``, ``copy_set`` or ``cluster`` (where there are such columns) are
            kept together. Its ``split`` column, where filled, is the given split.
        recipe: Fractions and seed; ``resplit`` ignores a given split, ``split`` names a file to take it from.

    Returns:
        The table with ``unit`` and ``split`` filled for kept samples (null for the others), and the report. Where the
        split is that of a fold, ``split`` is null for what stands aside there, too.

    Raises:
        SplitError: There are too few samples or units, or the given split cannot be used.

    Examples:
        >>> from headstart.data.table import table_from_columns
        >>> paths = [f"{number}.jpg" for number in range(20)]
        >>> table = table_from_columns(paths, [0, 1] * 10, root=Path("photos"), class_names=("cat", "dog"))
        >>> table, report = assign_splits(table, Recipe())
        >>> report.sizes
        {'train': 14, 'validation': 3, 'test': 3}
    """
    kept = table.kept
    if not kept.height:
        remedy = f"Left out: {table.excluded_counts}."
        raise SplitError(must_be(str(table.root), "data with usable samples", 0, remedy))
    units = join_units(kept)
    kept, strata = with_strata(kept, units, table)
    draft = _given_split(kept, units, recipe)
    draft = _dealt(kept, units, recipe) if draft is None else _completed(kept, units, draft, recipe)
    _check_sizes(draft, units, recipe)
    report = _report(strata or ("all",), kept, units, draft)
    return table.with_frame(_written(table.frame, kept, units, draft.codes)), report


def describe(report: SplitReport) -> list[str]:
    """Say a report in lines for the terminal.

    Examples:
        >>> shares = pl.DataFrame({"class_name": ["a", "b"], "train": [1, 1], "validation": [0, 1], "test": [0, 0]})
        >>> describe(SplitReport("As given.", {"train": 2, "validation": 1, "test": 0}, shares, 0.0, 3))
        ['As given.', 'train 2 · validation 1 · test 0; class shares differ from the whole by at most 0.0 points.']
    """
    sizes = " · ".join(f"{split} {count:,}" for split, count in report.sizes.items())
    has_classes = report.class_shares.height > 1
    gap = f"; class shares differ from the whole by at most {report.worst_share_gap:.1f} points" if has_classes else ""
    leaks = [
        f"Leak between {' and '.join(leak.splits)} through {_LEAK_WORDS[leak.kind]}: {leak.count:,} "
        f"({leak.num_samples:,} samples), e.g. {some(list(leak.examples[0]))}; --resplit mends it."
        for leak in report.leaks
    ]
    return [report.how, f"{sizes}{gap}.", *leaks, *report.notes]


def save_split(table: SampleTable, path: Path) -> None:
    """Write path, content hash and split of every kept sample, for ``--split FILE`` of another run.

    A split that is null (of a fold: the test of all folds) says that the sample takes no part there either.
    """
    columns = [name for name in ("path", "content_hash", "split") if name in table.frame.columns]
    with written_aside(path) as aside:
        table.kept.select(columns).write_parquet(aside)


def _dealt(kept: pl.DataFrame, units: NDArray[np.uint32], recipe: Recipe) -> _Draft:
    validation, test = checked_validation_fraction(recipe), recipe.test_fraction
    shares = (1 - validation - test, validation, test)
    codes = _deal(kept, units, shares, recipe)
    percent = "/".join(f"{100 * share:g}" for share in shares)
    how = f"Split {percent} at random (seed {recipe.seed}){strata_words(kept)}{_units_words(units)}."
    return _Draft(codes, (how,))


def strata_words(kept: pl.DataFrame) -> str:
    """Say by what kept rows are stratified, to stand after how they are dealt out."""
    if kept["label"].null_count() == kept.height:
        return ""
    return ", stratified by combination of labels" if "labels" in kept.columns else ", stratified by class"


def _units_words(units: NDArray[np.uint32]) -> str:
    num_units = int(units.max()) + 1
    if num_units == len(units):
        return ""
    return f"; what belongs together stays together ({len(units):,} samples in {num_units:,} units)"


def _deal(
    kept: pl.DataFrame, units: NDArray[np.uint32], shares: tuple[float, float, float], recipe: Recipe
) -> NDArray[np.int8]:
    """Divide samples by the shares of train, validation, test; a share of 0 leaves a split out."""
    wanted = [position for position, share in enumerate(shares) if share > 0]
    fractions = tuple(shares[position] for position in wanted)
    part = divide_units(units, _labels(kept), fractions=fractions, seed=recipe.seed)
    return np.array(wanted, np.int8)[part]


def checked_validation_fraction(recipe: Recipe) -> float:
    """Give the share of validation.

    Raises:
        SplitError: It is 0.
    """
    if not recipe.validation_fraction:
        remedy = "The best epoch is chosen on validation; try 0.15."
        raise SplitError(must_be("--validation-fraction", "greater than 0", recipe.validation_fraction, remedy))
    return recipe.validation_fraction


def _labels(kept: pl.DataFrame) -> NDArray[np.int32]:
    """Give class numbers; samples without classes (keypoints) count as one class."""
    return kept["label"].fill_null(0).to_numpy().astype(np.int32)


def check_split_settings(recipe: Recipe) -> None:
    """Refuse a split file that cannot be used before the pass over the files, which may take long.

    Raises:
        SplitError: The file is missing or is no split, or ``resplit`` is asked for beside it.
    """
    if recipe.split is None:
        return
    if recipe.resplit:
        raise SplitError(must_be("--resplit", "left out beside --split", recipe.split, "Give one of the two."))
    _read_split_file(Path(recipe.split).expanduser())


def _given_split(kept: pl.DataFrame, units: NDArray[np.uint32], recipe: Recipe) -> _Draft | None:
    """Take the split from the file named, or from the data; None where it is to be dealt anew."""
    if recipe.split is not None:
        check_split_settings(recipe)
        return _follow_units(units, *_from_file(kept, Path(recipe.split).expanduser()))
    if recipe.resplit or kept["split"].null_count() == kept.height:
        return None
    return _follow_units(units, _codes(kept["split"]), "Split as given with the data")


def _codes(split: pl.Series) -> NDArray[np.int8]:
    return split.replace_strict(_CODES, default=_OPEN, return_dtype=pl.Int8).fill_null(_OPEN).to_numpy().copy()


def _from_file(kept: pl.DataFrame, path: Path) -> tuple[NDArray[np.int8], str]:
    """Find each sample's split in a file: by content where both know it, else by path."""
    file = _read_split_file(path)
    found = kept.select(pl.lit(None, pl.String).alias("split"))["split"]
    for key in ("content_hash", "path"):
        if key in kept.columns and key in file.columns:
            sure = file.drop_nulls(key).group_by(key).agg(pl.col("split").unique())
            sure = sure.filter(pl.col("split").list.len() == 1).with_columns(pl.col("split").list.first())
            found = found.fill_null(kept.select(key).join(sure, on=key, how="left", maintain_order="left")["split"])
    if found.null_count() == kept.height:
        remedy = "Give the split of a run on the same photos."
        example = file["path"][0] if "path" in file.columns and file.height else None
        raise SplitError(must_be(f"--split {path}", "a split of these photos", example, remedy))
    return _codes(found), f"Split taken from {path}"


def _read_split_file(path: Path) -> pl.DataFrame:
    remedy = "Give RUN/split.parquet of another run."
    if not path.is_file():
        raise SplitError(must_be("--split", "a file", str(path), f"No such file. {remedy}"))
    try:
        file = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SplitError(must_be(f"--split {path}", "a Parquet file", f"{error}", remedy)) from None
    if "split" not in file.columns or not {"path", "content_hash"} & set(file.columns):
        raise SplitError(
            must_be(f"--split {path}", "a file with path or content_hash, and split", file.columns, remedy)
        )
    clean = pl.col("split").cast(pl.String).str.strip_chars().str.to_lowercase()
    unknown = file.filter(~clean.is_in(list(SPLIT_NAMES)))["split"]
    if len(unknown):
        near = did_you_mean(str(unknown[0]), SPLIT_NAMES)
        raise SplitError(must_be(f"--split {path}, column 'split'", "train, validation or test", unknown[0], near))
    return file.with_columns(
        split=clean.replace_strict(dict(SPLIT_NAMES), return_dtype=pl.String).fill_null(_ASIDE_NAME)
    )


def _follow_units(units: NDArray[np.uint32], codes: NDArray[np.int8], how: str) -> _Draft:
    """Put samples without a given split where their unit is, or into train where it is nowhere."""
    given = frozenset(np.unique(codes[codes >= 0]).tolist())
    codes, notes = _with_open_ones(units, codes)
    num_aside = int((codes == _ASIDE).sum())
    if num_aside:
        notes.append(
            f"{num_aside:,} samples take no part in that split: nothing is learned from them, and they are not scored."
        )
    return _Draft(codes, (how,), tuple(notes), given)


def _with_open_ones(units: NDArray[np.uint32], codes: NDArray[np.int8]) -> tuple[NDArray[np.int8], list[str]]:
    is_open = codes == _OPEN
    if not is_open.any():
        return codes, []
    of_unit = np.full(int(units.max()) + 1, _OPEN, np.int8)
    of_unit[units[~is_open][::-1]] = codes[~is_open][::-1]  # the first sample of a unit decides
    followed = of_unit[units]
    num_followed, num_new = int((is_open & (followed != _OPEN)).sum()), int((followed == _OPEN).sum())
    codes = np.where(is_open, np.where(followed == _OPEN, _TRAIN, followed), codes).astype(np.int8)
    note = f"{is_open.sum():,} samples have no given split: {num_new:,} went to train"
    note += f", {num_followed:,} to where their group or copies are." if num_followed else "."
    return codes, [note]


def _completed(kept: pl.DataFrame, units: NDArray[np.uint32], draft: _Draft, recipe: Recipe) -> _Draft:
    """Carve what a given split lacks out of its training part, leaving units there that stand on a second side."""
    validation = 0.0 if _VALIDATION in draft.given else checked_validation_fraction(recipe)
    test = 0.0 if _TEST in draft.given else recipe.test_fraction
    if not validation and not test:
        return draft
    outside = np.unique(units[draft.codes != _TRAIN])
    is_free = (draft.codes == _TRAIN) & ~np.isin(units, outside)
    if not is_free.any():
        remedy = "Use --resplit, or name training samples."
        raise SplitError(must_be("the given split", "one with training samples", "none that stand on one side", remedy))
    codes = draft.codes.copy()
    shares = (1 - validation - test, validation, test)
    codes[is_free] = _deal(kept.filter(pl.Series(is_free)), units[is_free], shares, recipe)
    parts = [f"{name} ({100 * share:g} %)" for name, share in zip(SPLITS[1:], shares[1:], strict=True) if share]
    carved = " and ".join(parts)
    how = f"{carved} carved out of its training part (seed {recipe.seed}){strata_words(kept)}{_units_words(units)}"
    return replace(draft, codes=codes, how=(*draft.how, how))


def _check_sizes(draft: _Draft, units: NDArray[np.uint32], recipe: Recipe) -> None:
    sizes = np.bincount(draft.codes[draft.codes != _ASIDE], minlength=len(SPLITS))
    wanted = [_TRAIN, _VALIDATION, *([_TEST] if recipe.test_fraction or _TEST in draft.given else [])]
    empty = [SPLITS[position] for position in wanted if not sizes[position]]
    if empty:
        got = f"{len(units):,} samples in {int(units.max()) + 1:,} units, none left for {' and '.join(empty)}"
        remedy = "Add samples of other groups, or change the fractions."
        raise SplitError(f"the data must be enough for {', '.join(SPLITS[p] for p in wanted)}; got {got}. {remedy}")


def _written(
    frame: pl.DataFrame, kept: pl.DataFrame, units: NDArray[np.uint32], codes: NDArray[np.int8]
) -> pl.DataFrame:
    names = dict(enumerate(SPLITS))
    split = pl.Series("split", codes).replace_strict(names, default=None, return_dtype=pl.String)
    columns = [split, pl.Series("unit", units)]
    if kept.height == frame.height:
        return frame.with_columns(columns)
    found = kept.select("sample_id").with_columns(columns)
    bare = frame.select(name for name in frame.columns if name != "unit")
    order = [*bare.columns, "unit"]
    return bare.drop("split").join(found, on="sample_id", how="left", maintain_order="left").select(order)


def _report(class_names: tuple[str, ...], kept: pl.DataFrame, units: NDArray[np.uint32], draft: _Draft) -> SplitReport:
    takes_part = draft.codes != _ASIDE
    kept, units = kept.filter(pl.Series(takes_part)), units[takes_part]
    draft = replace(draft, codes=draft.codes[takes_part])
    labels, num_classes = _labels(kept), len(class_names)
    keys = draft.codes.astype(np.int64) * num_classes + labels
    counts = np.bincount(keys, minlength=len(SPLITS) * num_classes).reshape(len(SPLITS), num_classes)
    shares = pl.DataFrame({"class_name": class_names, **dict(zip(SPLITS, counts, strict=True))})
    sizes = dict(zip(SPLITS, counts.sum(axis=1).tolist(), strict=True))
    leaks = tuple(_find_leaks(kept, draft.codes)) if draft.given else ()
    notes = (*draft.notes, *_absent_class_notes(class_names, counts, labels, units, draft.given))
    how = "; ".join(draft.how).rstrip(".") + "."
    return SplitReport(how, sizes, shares, _worst_gap(counts), len(np.unique(units)), leaks, notes)


def _worst_gap(counts: NDArray[np.int64]) -> float:
    counts = counts[counts.sum(axis=1) > 0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(100 * np.abs(shares - counts.sum(axis=0) / counts.sum()).max())


def _absent_class_notes(
    class_names: tuple[str, ...],
    counts: NDArray[np.int64],
    labels: NDArray[np.int32],
    units: NDArray[np.uint32],
    given: frozenset[int],
) -> Iterator[str]:
    """Name classes that a split made here lacks, and how many units they have to deal."""
    made = [position for position in range(len(SPLITS)) if position not in given and counts[position].any()]
    absent = np.flatnonzero((counts[made] == 0).any(axis=0) & (counts.sum(axis=0) > 0)).tolist() if made else []
    for label in absent[:_MAX_NAMED_CLASSES]:
        where = " and ".join(SPLITS[position] for position in made if not counts[position, label])
        num_units = len(np.unique(units[labels == label]))
        samples = f"{counts[:, label].sum():,} samples in {num_units:,} units that stay whole"
        yield f"Class {class_names[label]!r} is not in {where}: it has {samples}."
    if len(absent) > _MAX_NAMED_CLASSES:
        yield f"{len(absent) - _MAX_NAMED_CLASSES:,} more classes are too small for every split."


def _find_leaks(kept: pl.DataFrame, codes: NDArray[np.int8]) -> Iterator[Leak]:
    """Find sets, clusters and groups on two sides; copies among a cluster are not told a second time as near."""
    rows = kept.with_columns(side=pl.Series(codes))
    for kind, column in _LEAK_COLUMNS:
        if column not in kept.columns or kept[column].null_count() == kept.height:
            continue
        here = rows.filter(pl.col(column).is_not_null())
        if kind == "near" and "copy_set" in kept.columns:
            content = pl.col("copy_set").cast(pl.Int64).fill_null(-1 - pl.col("sample_id").cast(pl.Int64))
            here = here.filter(content.n_unique().over(column) > 1)
        here = here.filter(pl.col("side").n_unique().over(column) > 1)
        sides = (
            here.sort("side", "path")
            .group_by(column, "side", maintain_order=True)
            .agg(pl.col("path").first(), pl.len())
        )
        sets = sides.group_by(column, maintain_order=True).agg("side", "path", pl.col("len").sum())
        for (side, *_), same in sets.sort("path").group_by("side", maintain_order=True):
            splits = tuple(SPLITS[position] for position in side)
            examples = tuple(map(tuple, same["path"].head(_MAX_EXAMPLES).to_list()))
            yield Leak(kind, splits, same.height, int(same["len"].sum()), examples)
