"""The account that ``headstart check`` gives: every file kept or excluded, and what is wrong with those kept.

Counted on the table alone, after the pass over the files and the duplicate search; printed by ``describe``, shown as a
page by ``reporting/check_page.py``, and saved with the table as Parquet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from headstart.data.label_layout import class_counts, output_counts
from headstart.data.table import SPLITS, SampleTable

CrossingKind = Literal["copy", "near", "group"]

_COLUMNS: Final[dict[CrossingKind, str]] = {"copy": "copy_set", "near": "cluster", "group": "group"}
_WORDS: Final[dict[CrossingKind, str]] = {
    "copy": "sets of byte-identical files",
    "near": "clusters of near-identical images",
    "group": "groups",
}
_NUM_EXAMPLES: Final = 3
_NUM_NAMES: Final = 8
_GIANT_SHARE: Final = 0.05


@dataclass(frozen=True)
class Sizes:
    """(height, width) of upright originals.

    Attributes:
        median: Of heights and of widths.
        smallest: The photo with the fewest pixels.
        largest: The photo with the most.
        num_distinct: How many different sizes there are.
    """

    median: tuple[int, int]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    num_distinct: int


@dataclass(frozen=True)
class Crossing:
    """What stands in several of the given splits.

    Attributes:
        kind: "copy": byte-identical files; "near": near-identical images; "group": the user's groups.
        splits: The splits, e.g. ("train", "test").
        count: Sets, clusters or groups that stand in exactly these.
        num_samples: Samples in them.
        examples: For a few of them, one path in each split.
    """

    kind: CrossingKind
    splits: tuple[str, ...]
    count: int
    num_samples: int
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Account:
    """Everything that ``check`` found; ``num_found`` = ``num_kept`` + the sum of ``excluded``.

    Attributes:
        num_found: Samples found.
        num_kept: Samples that can be used.
        excluded: Number of samples left out for each reason, the most frequent first.
        exclusions: One row per sample left out: ``path, excluded, detail``.
        class_counts: Kept samples of each class, also of those that have none.
        num_copy_sets: Sets of byte-identical samples.
        num_copied: Samples in them.
        num_clusters: Clusters of near-identical images, sets of mere copies not counted.
        num_clustered: Samples in them.
        largest_cluster: Samples in the largest of them.
        conflicts: Copies that carry different labels, one row per sample: ``copy_set, path, class_name``.
        num_groups: The user's groups.
        largest_group: Samples in the largest.
        split_counts: Kept samples in each given split.
        crossings: What stands in several given splits.
        absent_classes: Classes that lack in some given split: name → the splits that have it.
        sizes: None where no photo is kept.
        label_counts: Where a sample has several labels: kept samples of each class, by label column.
        are_combinations: Whether the classes are combinations of labels.
    """

    num_found: int
    num_kept: int
    excluded: dict[str, int]
    exclusions: pl.DataFrame
    class_counts: dict[str, int]
    num_copy_sets: int
    num_copied: int
    num_clusters: int
    num_clustered: int
    largest_cluster: int
    conflicts: pl.DataFrame
    num_groups: int
    largest_group: int
    split_counts: dict[str, int]
    crossings: tuple[Crossing, ...]
    absent_classes: dict[str, tuple[str, ...]]
    sizes: Sizes | None
    label_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    are_combinations: bool = False

    @property
    def num_excluded(self) -> int:
        """Samples left out."""
        return sum(self.excluded.values())

    @property
    def num_conflicting_sets(self) -> int:
        """Sets of byte-identical samples that carry different labels."""
        return self.conflicts["copy_set"].n_unique()

    @property
    def imbalance(self) -> float | None:
        """Samples of the largest class for each of the smallest; None where a class has none."""
        counts = self.class_counts.values()
        return max(counts) / min(counts) if counts and min(counts) else None


def account(table: SampleTable) -> Account:
    """Count what ``check`` reports.

    Args:
        table: The samples, after ``fill_store`` and ``find_duplicates``; counts of what did not happen yet are 0.

    Returns:
        The account.

    Examples:
        >>> from pathlib import Path
        >>> from headstart.data.table import table_from_columns
        >>> found = account(table_from_columns(["1.jpg", "2.jpg"], [0, None], root=Path("photos"), class_names=("a",)))
        >>> found.num_found, found.num_kept, found.excluded
        (2, 1, {'no label': 1})
    """
    kept = _with_all_columns(table.kept)
    labels = class_counts(kept, table.labels) if table.labels is not None else {}
    copies, groups = _set_sizes(kept, "copy_set"), _set_sizes(kept, "group")
    clusters = _set_sizes(kept.filter(_is_more_than_copies()), "cluster")
    return Account(
        num_found=table.frame.height,
        num_kept=kept.height,
        excluded=table.excluded_counts,
        exclusions=table.frame.filter(pl.col("excluded").is_not_null()).select("path", "excluded", "detail"),
        class_counts=_class_counts(kept, table),
        num_copy_sets=len(copies),
        num_copied=int(copies.sum()),
        num_clusters=len(clusters),
        num_clustered=int(clusters.sum()),
        largest_cluster=_largest(clusters),
        conflicts=_conflicts(kept, table.class_names),
        num_groups=len(groups),
        largest_group=_largest(groups),
        split_counts={split: count for split in SPLITS if (count := int((kept["split"] == split).sum()))},
        crossings=_crossings(kept),
        absent_classes=_absent_classes(kept, table.class_names) if table.has_plain_classes else {},
        sizes=_sizes(kept),
        label_counts=labels,
        are_combinations=table.labels is not None and table.has_plain_classes,
    )


def describe(found: Account, *, with_splits: bool = True) -> list[str]:
    r"""Word an account, one idea a line.

    Args:
        found: The account.
        with_splits: Say what is wrong with given splits; not needed where ``splits.describe`` follows.

    Returns:
        The lines, without line breaks.

    Examples:
        >>> from pathlib import Path
        >>> from headstart.data.table import table_from_columns
        >>> table = table_from_columns(["1.jpg", "2.jpg"], [0, None], root=Path("photos"), class_names=("a",))
        >>> print(*describe(account(table)), sep="\n")
        found: 2 images = 1 kept + 1 excluded
        excluded: 1 no label
        classes: 1 (a: 1)
    """
    lines = [f"found: {found.num_found:,} images = {found.num_kept:,} kept + {found.num_excluded:,} excluded"]
    lines += _excluded_lines(found)
    lines += _class_lines(found)
    lines += _size_lines(found)
    if found.num_groups:
        lines.append(f"groups: {found.num_groups:,}, the largest of {found.largest_group:,} images")
    lines += _copy_lines(found)
    return lines + (_split_lines(found) if with_splits else [])


# --- counting


def _with_all_columns(kept: pl.DataFrame) -> pl.DataFrame:
    types = {"copy_set": pl.UInt32, "cluster": pl.UInt32, "record": pl.UInt32, "height": pl.UInt32, "width": pl.UInt32}
    return kept.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in types.items() if name not in kept.columns
    )


def _is_more_than_copies() -> pl.Expr:
    """Say of each sample whether its cluster holds different files, not only copies of one."""
    return pl.col("cluster").is_not_null() & (pl.col("record").n_unique().over("cluster") > 1)


def _set_sizes(kept: pl.DataFrame, column: str) -> pl.Series:
    return kept[column].drop_nulls().value_counts()["count"]


def _largest(sizes: pl.Series) -> int:
    return int(sizes.to_numpy().max(initial=0))


def _class_counts(kept: pl.DataFrame, table: SampleTable) -> dict[str, int]:
    if table.labels is not None and not table.has_plain_classes:
        return output_counts(kept, table.labels)
    counts = dict(kept["label"].drop_nulls().value_counts().iter_rows())
    return {name: counts.get(label, 0) for label, name in enumerate(table.class_names)}


def _named_labels(class_names: tuple[str, ...]) -> pl.Expr:
    return pl.col("label").replace_strict(
        list(range(len(class_names))), list(class_names), default=None, return_dtype=pl.String
    )


def _conflicts(kept: pl.DataFrame, class_names: tuple[str, ...]) -> pl.DataFrame:
    is_conflicting = pl.col("copy_set").is_not_null() & (pl.col("label").n_unique().over("copy_set") > 1)
    rows = kept.filter(is_conflicting).sort("copy_set", "path")
    return rows.select("copy_set", "path", _named_labels(class_names).alias("class_name"))


def _crossings(kept: pl.DataFrame) -> tuple[Crossing, ...]:
    rows = kept.filter(pl.col("split").is_not_null())
    found: list[Crossing] = []
    for kind, column in _COLUMNS.items():
        members = rows.filter(pl.col(column).is_not_null())
        if kind == "near":
            members = members.filter(_is_more_than_copies())
        sets = members.filter(pl.col("split").n_unique().over(column) > 1)
        found += _crossings_of(sets.sort(column, "sample_id"), kind, column)
    return tuple(found)


def _crossings_of(sets: pl.DataFrame, kind: CrossingKind, column: str) -> list[Crossing]:
    """Count sets by the splits that they stand in."""
    first = {split: pl.col("path").filter(pl.col("split") == split).first() for split in SPLITS}
    each = sets.group_by(column, maintain_order=True).agg(pl.len(), **first)
    if each.is_empty():
        return []
    sides = pl.concat_list(pl.when(pl.col(split).is_not_null()).then(pl.lit(split)) for split in SPLITS)
    each = each.with_columns(sides=sides.list.drop_nulls())
    found = []
    for (splits,), part in each.group_by("sides", maintain_order=True):
        names = tuple(splits)  # pyright: ignore[reportArgumentType]
        examples = tuple(part.head(_NUM_EXAMPLES).select(names).iter_rows())
        found.append(Crossing(kind, names, part.height, int(part["len"].sum()), examples))
    return found


def _absent_classes(kept: pl.DataFrame, class_names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    rows = kept.filter(pl.col("split").is_not_null() & pl.col("label").is_not_null())
    given = [split for split in SPLITS if (rows["split"] == split).any()]
    present = dict(rows.group_by("label").agg(pl.col("split").unique()).iter_rows())
    by_class = {name: tuple(s for s in given if s in present.get(label, ())) for label, name in enumerate(class_names)}
    return {name: splits for name, splits in by_class.items() if 0 < len(splits) < len(given)}


def _sizes(kept: pl.DataFrame) -> Sizes | None:
    sizes = kept.select("height", "width").drop_nulls()
    if sizes.is_empty():
        return None
    area = pl.col("height").cast(pl.Int64) * pl.col("width")
    median = sizes.median().row(0)
    smallest, largest = (sizes.row(int(sizes.select(pick).item())) for pick in (area.arg_min(), area.arg_max()))
    return Sizes(
        (int(median[0]), int(median[1])), (smallest[0], smallest[1]), (largest[0], largest[1]), sizes.n_unique()
    )


# --- wording


def _excluded_lines(found: Account) -> list[str]:
    if not found.excluded:
        return []
    lines = ["excluded: " + ", ".join(f"{count:,} {reason}" for reason, count in found.excluded.items())]
    for reason, count in found.excluded.items():
        if reason == "no label":
            continue
        rows = found.exclusions.filter(pl.col("excluded") == reason).head(_NUM_EXAMPLES)
        lines += [f"  {reason}: {path} ({detail})" for path, _, detail in rows.iter_rows()]
        if count > rows.height:
            lines.append(f"  {reason}: and {count - rows.height:,} more")
    return lines


def _class_lines(found: Account) -> list[str]:
    counts = found.class_counts
    if not counts:
        return []
    what = "combinations" if found.are_combinations else "classes"
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    if len(ordered) <= _NUM_NAMES:
        words = ", ".join(f"{name}: {counts[name]:,}" for name in ordered)
    else:
        most, least = ordered[0], ordered[-1]
        words = f"largest {most}: {counts[most]:,}, smallest {least}: {counts[least]:,}"
    ratio = f"; {found.imbalance:.1f} : 1" if found.imbalance and found.imbalance >= 1.5 else ""
    empty = [name for name in ordered if not counts[name]]
    lines = _label_lines(found)
    if found.are_combinations or not found.label_counts:
        lines.append(f"{what}: {len(counts):,} ({words}{ratio})")
    return lines + ([f"classes without a usable image: {_listed(empty)}"] if empty else [])


def _label_lines(found: Account) -> list[str]:
    """Count the classes of each label column, the most frequent first."""
    lines: list[str] = []
    for column, counts in found.label_counts.items():
        ordered = sorted(counts, key=lambda name: (-counts[name], name))
        words = ", ".join(f"{name}: {counts[name]:,}" for name in ordered[:_NUM_NAMES])
        more = f" and {len(ordered) - _NUM_NAMES:,} more" if len(ordered) > _NUM_NAMES else ""
        lines.append(f"{column}: {len(counts):,} classes ({words}{more})")
    return lines


def _size_lines(found: Account) -> list[str]:
    if found.sizes is None:
        return []
    sizes = found.sizes
    if sizes.num_distinct == 1:
        return [f"sizes: all {_by(sizes.median)} (height × width)"]
    return [f"sizes: median {_by(sizes.median)} (height × width), from {_by(sizes.smallest)} to {_by(sizes.largest)}"]


def _copy_lines(found: Account) -> list[str]:
    lines = []
    if found.num_copy_sets:
        lines.append(f"copies: {_count(found.num_copy_sets, 'copy')} ({found.num_copied:,} images)")
    if found.num_conflicting_sets:
        lines.append(f"copies with different labels: {found.num_conflicting_sets:,}")
        sets = found.conflicts.partition_by("copy_set", maintain_order=True)[:_NUM_EXAMPLES]
        named = [[f"{path} ({name})" for _, path, name in rows.head(_NUM_EXAMPLES).iter_rows()] for rows in sets]
        lines += [f"  {' = '.join(names)}" for names in named]
    if found.num_clusters:
        size = f"{found.num_clustered:,} images, the largest of {found.largest_cluster:,}"
        noun = "cluster" if found.num_clusters == 1 else "clusters"
        lines.append(f"near-identical: {found.num_clusters:,} {noun} ({size})")
    if found.largest_cluster > max(50, _GIANT_SHARE * found.num_kept):
        lines.append("  The largest holds very many images. If they are not copies, lower --duplicate-distance.")
    return lines


def _split_lines(found: Account) -> list[str]:
    if not found.split_counts:
        return []
    lines = ["given splits: " + ", ".join(f"{split} {count:,}" for split, count in found.split_counts.items())]
    for crossing in found.crossings:
        sides = " and ".join(crossing.splits)
        images = f"{crossing.num_samples:,} images"
        lines.append(f"leak: {_count(crossing.count, crossing.kind)} in {sides} ({images}); --resplit mends it")
        if crossing.kind != "group":
            lines += ["  " + " ~ ".join(paths) for paths in crossing.examples]
    for name, splits in list(found.absent_classes.items())[:_NUM_NAMES]:
        lines.append(f"class {name!r} is in {' and '.join(splits)} only")
    more = len(found.absent_classes) - _NUM_NAMES
    return lines + ([f"and {more:,} more classes that lack in some split"] if more > 0 else [])


def _count(count: int, kind: CrossingKind) -> str:
    words = _WORDS[kind]
    if count == 1:
        first, _, rest = words.partition(" ")
        words = f"{first.removesuffix('s')} {rest}".strip()
    return f"{count:,} {words}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]:,} × {size[1]:,}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMES:,} more" if len(names) > _NUM_NAMES else ""
    return ", ".join(names[:_NUM_NAMES]) + more
