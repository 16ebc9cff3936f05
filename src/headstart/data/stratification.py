"""Which units go to which split: groups stay whole, and class shares come as close as groups allow.

A unit is what must not be torn apart: a group, a set of copies, a cluster of near-identical photos, or all of these
joined. ``join_units`` finds the units; ``divide_units`` deals them out so that the squared distance of every class's
count from its target, relative to the target, stays small: first units with several classes, largest first, one by
one; then units of one class, in blocks of equal size, which mend what the first left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart import randomness

JOINING_COLUMNS: Final = ("group", "copy_set", "cluster")
"""Columns whose equal values join samples to one unit."""

_FEW: Final = 8  # units of a block that are dealt one by one; the rest is computed
_MAX_CANDIDATES: Final = 1000  # units that are tried when a class lacks a split
_MAX_POLISHED: Final = 3000  # units for which a better place is looked for at the end
_MAX_ROUNDS: Final = 20
_TINY: Final = 1e-9  # smaller gains are rounding, and would move units back and forth


def join_units(frame: pl.DataFrame, *, columns: Sequence[str] = JOINING_COLUMNS) -> NDArray[np.uint32]:
    """Join samples that share a group, a copy set or a cluster, also through a third; number the units from 0.

    Args:
        frame: Samples.
        columns: What joins them; those that are there are used, nulls join nothing.

    Returns:
        The unit of each row, shape (n,).

    Examples:
        >>> frame = pl.DataFrame({"group": ["a", "a", None, None], "cluster": [None, 7, 7, None]})
        >>> join_units(frame).tolist()
        [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row = pl.int_range(pl.len(), dtype=pl.Int32)
    pairs: list[NDArray[np.int32]] = []
    for column in columns:
        if column in frame.columns and frame[column].null_count() < frame.height:
            linked = frame.select(column, row=row).drop_nulls().select("row", first=pl.col("row").first().over(column))
            pairs.append(linked.filter(pl.col("row") != pl.col("first")).to_numpy())
    if not pairs:
        return np.arange(frame.height, dtype=np.uint32)
    edges = np.concatenate(pairs)
    graph = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(frame.height, frame.height))
    _, units = connected_components(graph.tocsr(), directed=False)
    return units.astype(np.uint32)


def divide_units(
    units: NDArray[np.uint32], labels: NDArray[np.int32], *, fractions: tuple[float, ...], seed: int
) -> NDArray[np.int8]:
    """Deal units to parts so that each part gets its fraction of every class, as closely as whole units allow.

    Every class with at least as many units as there are parts comes into each part where whole units allow it, and
    every class comes into the first part.

    Args:
        units: The unit of each sample, any whole numbers, shape (n,).
        labels: The class of each sample, shape (n,).
        fractions: Share of each part; positive, summing to 1. The first is the training part.
        seed: Decides among equals.

    Returns:
        The part of each sample, shape (n,).

    Examples:
        >>> part = divide_units(np.arange(10), np.array([0, 1] * 5), fractions=(0.6, 0.2, 0.2), seed=0)
        >>> np.bincount(part).tolist()
        [6, 2, 2]
    """
    _, compact = np.unique(units, return_inverse=True)
    counts = _count(compact, labels)
    ledger = _Ledger.start(counts, np.asarray(fractions, float))
    rank = randomness.generator(seed, stream="split").permutation(counts.num_units)
    _deal_mixed(counts, ledger, rank)
    _deal_pure(counts, ledger, rank)
    _fill_missing(counts, ledger)
    if counts.num_units <= _MAX_POLISHED:
        _polish(counts, ledger, rank)
    return ledger.part[compact]


@dataclass(frozen=True)
class _Counts:
    """Samples per unit and class, as runs: entries ``starts[u]`` to ``starts[u + 1]`` belong to unit u.

    The last entry of each unit counts all its samples, under the extra class number ``num_classes``: so the size of
    the parts is held like a class.
    """

    classes: NDArray[np.int64]
    sizes: NDArray[np.float64]
    starts: NDArray[np.int64]
    num_classes: int

    @property
    def num_units(self) -> int:
        return len(self.starts) - 1

    def of(self, unit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        run = slice(self.starts[unit], self.starts[unit + 1])
        return self.classes[run], self.sizes[run]


def _count(units: NDArray[np.int64], labels: NDArray[np.int32]) -> _Counts:
    num_classes, num_units = int(labels.max()) + 1, int(units.max()) + 1
    width = num_classes + 1
    keys, sizes = np.unique(units * width + labels, return_counts=True)
    keys = np.concatenate([keys, np.arange(num_units) * width + num_classes])
    sizes = np.concatenate([sizes, np.bincount(units, minlength=num_units)])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.searchsorted(keys, np.arange(num_units + 1) * width)
    return _Counts(keys % width, sizes[order].astype(float), starts, num_classes)


@dataclass
class _Ledger:
    """What each part still lacks of each class (the last row: of all samples), and where each unit went."""

    lacking: NDArray[np.float64]  # (classes + 1, parts)
    weight: NDArray[np.float64]  # 1 / target
    held: NDArray[np.int64]  # units of the class in the part
    part: NDArray[np.int8]  # −1 while undecided

    @classmethod
    def start(cls, counts: _Counts, fractions: NDArray[np.float64]) -> _Ledger:
        totals = np.bincount(counts.classes, weights=counts.sizes, minlength=counts.num_classes + 1)
        target = totals[:, None] * fractions
        weight = np.divide(1.0, target, out=np.zeros_like(target), where=target > 0)
        return cls(target, weight, np.zeros(target.shape, np.int64), np.full(counts.num_units, -1, np.int8))

    def gains(self, classes: NDArray[np.int64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give how much nearer to the target all counts come by adding a unit to each part."""
        return sizes @ ((2 * self.lacking[classes] - sizes[:, None]) * self.weight[classes])

    def losses(self, classes: NDArray[np.int64], sizes: NDArray[np.float64], part: int) -> float:
        """Give how much farther from the target all counts come by taking a unit out of its part."""
        return float(sizes @ ((2 * self.lacking[classes, part] + sizes) * self.weight[classes, part]))

    def put(self, unit: int, part: int, classes: NDArray[np.int64], sizes: NDArray[np.float64]) -> None:
        """Add a unit to a part, after taking it out of the one that holds it."""
        before = self.part[unit]
        if before >= 0:
            self.lacking[classes, before] += sizes
            self.held[classes, before] -= 1
        self.lacking[classes, part] -= sizes
        self.held[classes, part] += 1
        self.part[unit] = part

    def may_leave(self, unit_classes: NDArray[np.int64], part: int) -> bool:
        """Say whether a unit can go without taking a class's last unit from a part that should have one."""
        held = self.held[unit_classes]
        enough = held.sum(axis=1) >= self.held.shape[1]
        needed = enough | (part == 0)
        return bool(((held[:, part] > 1) | ~needed).all())


def _deal_mixed(counts: _Counts, ledger: _Ledger, rank: NDArray[np.int64]) -> None:
    """Deal units with several classes, the largest first, each to where it helps most."""
    mixed = np.flatnonzero(np.diff(counts.starts) > 2)
    whole = counts.sizes[counts.starts[mixed + 1] - 1]
    for unit in mixed[np.lexsort((rank[mixed], -whole))].tolist():
        classes, sizes = counts.of(unit)
        ledger.put(unit, int(ledger.gains(classes, sizes).argmax()), classes, sizes)


def _deal_pure(counts: _Counts, ledger: _Ledger, rank: NDArray[np.int64]) -> None:
    """Deal units of one class in blocks of equal class and size, the largest first, each block in random order."""
    pure = np.flatnonzero(np.diff(counts.starts) == 2)
    classes, sizes = counts.classes[counts.starts[pure]], counts.sizes[counts.starts[pure]]
    order = np.lexsort((rank[pure], classes, -sizes))
    pure, classes, sizes = pure[order], classes[order], sizes[order]
    is_new = np.flatnonzero((np.diff(classes, prepend=-1) != 0) | (np.diff(sizes, prepend=-1.0) != 0))
    for start, stop in pairwise([*is_new.tolist(), len(pure)]):
        rows = np.array([classes[start], counts.num_classes])
        size = sizes[start]
        gains = ledger.gains(rows, np.array([size, size]))
        slopes = 2 * size * size * ledger.weight[rows].sum(axis=0)
        shares = _shares(gains, slopes, stop - start)
        ledger.part[pure[start:stop]] = np.repeat(np.arange(len(shares)), shares)
        ledger.lacking[rows] -= shares * size
        ledger.held[rows] += shares


def _shares(gains: NDArray[np.float64], slopes: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Give how many of ``count`` equal units each part gets if each goes where the gain is largest.

    A part's gain falls by its slope with every unit it gets. The bulk is computed by levelling the gains; the last few
    are dealt one by one, so that the result is that of dealing all one by one.

    Examples:
        >>> _shares(np.array([2.0, 2.0]), np.array([0.1, 0.3]), 100).tolist()
        [75, 25]
    """
    shares = np.zeros(len(gains), np.int64)
    if count > _FEW:
        shares = np.maximum(np.floor(_level(gains, slopes, count)).astype(np.int64) - 1, 0)
    gains = gains - shares * slopes
    for _ in range(count - int(shares.sum())):
        best = int(gains.argmax())
        shares[best] += 1
        gains[best] -= slopes[best]
    return shares


def _level(gains: NDArray[np.float64], slopes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Give the amounts, summing to ``count``, that bring all gains that take part to one level."""
    level = -np.inf
    used: list[int] = []
    for part in np.argsort(-gains).tolist():
        if level >= gains[part]:
            break
        used.append(part)
        level = ((gains[used] / slopes[used]).sum() - count) / (1 / slopes[used]).sum()
    return np.maximum((gains - level) / slopes, 0)


def _fill_missing(counts: _Counts, ledger: _Ledger) -> None:
    """Bring every class with enough units into every part, and every class into the first, at the least cost."""
    held = ledger.held
    num_units = held.sum(axis=1)
    is_wanted = (num_units >= held.shape[1])[:, None] | (np.arange(held.shape[1]) == 0)[None]
    wanted = np.argwhere((held == 0) & is_wanted & (num_units > 0)[:, None])
    if not len(wanted):
        return
    owner = np.repeat(np.arange(counts.num_units), np.diff(counts.starts))
    by_class = np.argsort(counts.classes, kind="stable")
    bounds = np.searchsorted(counts.classes[by_class], np.arange(counts.num_classes + 2))
    for label, part in wanted.tolist():
        candidates = owner[by_class[bounds[label] : bounds[label + 1]]]
        if not ledger.held[label, part]:
            _move_cheapest(counts, ledger, candidates[:_MAX_CANDIDATES], part)


def _move_cheapest(counts: _Counts, ledger: _Ledger, candidates: NDArray[np.int64], part: int) -> None:
    best, least = -1, np.inf
    for unit in candidates.tolist():
        classes, sizes = counts.of(unit)
        source = int(ledger.part[unit])
        if source != part and ledger.may_leave(classes, source):
            cost = ledger.losses(classes, sizes, source) - ledger.gains(classes, sizes)[part]
            best, least = (unit, cost) if cost < least else (best, least)
    if best >= 0:
        ledger.put(best, part, *counts.of(best))


def _polish(counts: _Counts, ledger: _Ledger, rank: NDArray[np.int64]) -> None:
    """Move single units while that brings the counts nearer to their targets (small sets, where it is felt)."""
    order = np.argsort(rank).tolist()
    for _ in range(_MAX_ROUNDS):
        num_moved = sum(_improve(counts, ledger, unit) for unit in order)
        if not num_moved:
            return


def _improve(counts: _Counts, ledger: _Ledger, unit: int) -> bool:
    classes, sizes = counts.of(unit)
    source = int(ledger.part[unit])
    gains = ledger.gains(classes, sizes)
    gains[source] = ledger.losses(classes, sizes, source)
    gains[source] = ledger.losses(classes, sizes, source) + _TINY
    best = int(gains.argmax())
    if best == source or not ledger.may_leave(classes, source):
        return False
    ledger.put(unit, best, classes, sizes)
    return True
