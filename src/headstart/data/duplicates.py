"""Photos that are the same, byte for byte or to the eye, so that no two of them stand on two sides of a split.

Byte-identical files share a record since the pass over the files. Near-identical ones (re-encoded, resized, brightened,
frames of a burst) are found by perceptual hash and confirmed on 32×32 thumbnails, so that two plain skies are not taken
for copies of each other. Nothing is removed: ``splits.py`` keeps a cluster together, ``account.py`` reports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.hashing import PLAIN, THUMBNAIL_SIZE, detail, is_plain, thumbnail
from headstart.data.records import PixelStore
from headstart.data.table import SampleTable
from headstart.errors import HeadstartError, must_be
from headstart.progress import track

LEAST_CORRELATION: Final = 0.91
STEP_PER_BIT: Final = 0.0075
MOST_CORRELATION: Final = 0.97
"""How alike the details of two thumbnails must be: 0.91, and 0.0075 more for each bit that the hashes differ by, up to
0.97. Measured: of 981 pairs of frames of one burst (48×48 faces) 99 % end in one cluster, and no face with another
person's (their best is 0.946, at 12 bits); among 5,758 scenes nothing but true copies is joined."""

_NUM_NEIGHBOURS: Final = 32
_NUM_HEADS: Final = 8
"""Bounds on the work where very many photos hash alike: nearest hashes looked at, and different pictures per hash."""

_NUM_FLAT: Final = 20_000
"""Up to so many hashes a linear scan is fastest (2 s); 300,000 take 45 s through the hash tables, 2 cores."""

_MAX_LOOKUPS: Final = 10**10
"""Comparisons within the hash tables' buckets, about a minute's worth, beyond which only neighbours are compared."""

_PAIRS_AT_ONCE: Final = 8_192
_HASHES_AT_ONCE: Final = 16_384

_Pairs = NDArray[np.int64]


def find_duplicates(table: SampleTable, store: PixelStore, *, max_distance: int, quiet: bool = False) -> SampleTable:
    """Number the sets of byte-identical samples and the clusters of near-identical ones.

    Args:
        table: The samples, after ``fill_store``.
        store: The pixels that the table's ``record`` points to.
        max_distance: Bits (of 64) two perceptual hashes may differ by to be compared. Beyond 20,000 photos distances
            over 8 are found mostly, not all.
        quiet: Show no progress.

    Returns:
        The table with ``copy_set`` (same number: byte-identical) and ``cluster`` (same number: near-identical, exact
        copies included), both null for samples that stand alone. Numbers follow the order of the table.

    Raises:
        HeadstartError: The table has not been through ``fill_store``.
    """
    if "record" not in table.frame.columns:
        columns = list(table.frame.columns)
        raise HeadstartError(must_be("table", "given with a column 'record'", columns, "Call fill_store first."))
    kept = table.frame.filter(pl.col("record").is_not_null()).select("sample_id", "path", "record", "perceptual_hash")
    nodes = kept.unique("record", keep="first", maintain_order=True).sort("record").with_row_index("node")
    records, hashes = nodes["record"].to_numpy().astype(np.int64), nodes["perceptual_hash"].to_numpy()
    components = _components(_near_pairs(records, hashes, store, max_distance, quiet=quiet), len(nodes))
    kept = kept.join(nodes.select("record", component=pl.Series(components)), on="record", maintain_order="left")
    copies = _numbered("record")
    if table.keypoints is not None:  # several faces of one photo are no copies of it
        copies = pl.when(pl.col("path").n_unique().over("record") > 1).then(copies)
    numbered = kept.select("sample_id", copies.alias("copy_set"), _numbered("component").alias("cluster"))
    frame = table.frame.drop("copy_set", "cluster", strict=False)
    return table.with_frame(frame.join(numbered, on="sample_id", how="left", maintain_order="left"))


def near_identical(
    first: NDArray[np.uint8], second: NDArray[np.uint8], distances: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Confirm pairs on their thumbnails: what they show beside a slope must correlate, and must be there at all.

    Correlation does not feel brightness and contrast. Plain pictures are never confirmed.

    Args:
        first: Thumbnails, shape (n, 32, 32).
        second: Their candidates' thumbnails, same shape.
        distances: Bits that the perceptual hashes differ by, shape (n,).

    Returns:
        Shape (n,).

    Examples:
        >>> step = np.kron(np.eye(2), np.full((16, 16), 120)).astype(np.uint8)[None]
        >>> near_identical(step, step + 30, np.array([0])).tolist()
        [True]
    """
    a, b = detail(first), detail(second)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation = np.einsum("ij,ij->i", a, b) / np.maximum(norms, 1e-6)
    needed = np.minimum(LEAST_CORRELATION + STEP_PER_BIT * distances, MOST_CORRELATION)
    return (correlation >= needed) & ~is_plain(first) & ~is_plain(second)


@dataclass(frozen=True)
class _Confirmer:
    """Looks at pairs of nodes, a block at a time, so that memory stays small."""

    records: _Pairs
    store: PixelStore
    pool: ThreadPoolExecutor

    def confirmed(self, pairs: _Pairs, distances: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of each pair of nodes, shape (n, 2), whether they are near-identical."""
        blocks = range(0, len(pairs), _PAIRS_AT_ONCE)
        found = [self._block(pairs[i : i + _PAIRS_AT_ONCE], distances[i : i + _PAIRS_AT_ONCE]) for i in blocks]
        return np.concatenate(found) if found else np.zeros(0, bool)

    def _block(self, pairs: _Pairs, distances: NDArray[np.int64]) -> NDArray[np.bool_]:
        nodes, positions = np.unique(pairs, return_inverse=True)
        thumbnails = np.empty((len(nodes), THUMBNAIL_SIZE, THUMBNAIL_SIZE), np.uint8)
        for row, small in enumerate(self.pool.map(self._thumbnail, self.records[nodes].tolist())):
            thumbnails[row] = small
        first, second = positions.reshape(pairs.shape).T
        return near_identical(thumbnails[first], thumbnails[second], distances)

    def _thumbnail(self, record: int) -> NDArray[np.uint8]:
        return thumbnail(self.store.read(record))


def _near_pairs(
    records: _Pairs, hashes: NDArray[np.uint64], store: PixelStore, max_distance: int, *, quiet: bool
) -> _Pairs:
    """Give the confirmed pairs of nodes, shape (n, 2)."""
    telling = np.flatnonzero(hashes != PLAIN)
    if len(telling) < 2:
        return np.zeros((0, 2), np.int64)
    with ThreadPoolExecutor() as pool:
        confirmer = _Confirmer(records, store, pool)
        same, heads = _within_hashes(telling, hashes, confirmer)
        pairs, distances = _between_hashes(heads, hashes, max_distance, quiet=quiet)
        return np.concatenate([same, pairs[confirmer.confirmed(pairs, distances)]])


def _within_hashes(nodes: _Pairs, hashes: NDArray[np.uint64], confirmer: _Confirmer) -> tuple[_Pairs, _Pairs]:
    """Compare photos of equal hash: each with the first, those left with the first of these, and so on.

    Returns:
        The confirmed pairs, and the heads: the nodes that stand for their hash in the comparison with others.
    """
    found, heads, left = [np.zeros((0, 2), np.int64)], [], nodes
    for _ in range(_NUM_HEADS):
        _, first, groups = np.unique(hashes[left], return_index=True, return_inverse=True)
        heads.append(left[first])
        pairs = np.stack([left[first][groups], left], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        is_same = confirmer.confirmed(pairs, np.zeros(len(pairs), np.int64))
        found.append(pairs[is_same])
        left = pairs[~is_same, 1]
        if not len(left):
            break
    return np.concatenate(found), np.concatenate(heads)


def _between_hashes(
    heads: _Pairs, hashes: NDArray[np.uint64], max_distance: int, *, quiet: bool
) -> tuple[_Pairs, NDArray[np.int64]]:
    """Give pairs of heads whose hashes differ by 1 … ``max_distance`` bits, and by how many."""
    distinct, numbers = np.unique(hashes[heads], return_inverse=True)
    with track("comparing photos", len(distinct), quiet=quiet or len(distinct) <= _NUM_FLAT) as advance:
        blocks = [np.zeros((0, 2), np.int64)]
        search = _neighbours_in_order if _is_crowded(distinct) else _near_hashes
        for pairs in search(distinct, max_distance):
            blocks.append(pairs)
            advance(_HASHES_AT_ONCE)
    near = np.unique(np.concatenate(blocks), axis=0)
    members = pl.DataFrame({"number": numbers.astype(np.int64), "head": heads})
    pairs = (
        pl.DataFrame({"a": near[:, 0], "b": near[:, 1]})
        .join(members, left_on="a", right_on="number")
        .join(members, left_on="b", right_on="number", suffix="_b")
        .select("head", "head_b")
        .sort("head", "head_b")  # neighbours in the store share a block, and the order is always the same
        .to_numpy()
    )
    return pairs, np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)


def _near_hashes(distinct: NDArray[np.uint64], max_distance: int) -> Iterator[_Pairs]:
    """Give, block by block, pairs (a < b) of positions of hashes that differ by at most ``max_distance`` bits."""
    index = _hash_index(len(distinct), max_distance)
    codes = distinct.view(np.uint8).reshape(-1, 8)
    index.add(codes)
    for start in range(0, len(codes), _HASHES_AT_ONCE):
        block = codes[start : start + _HASHES_AT_ONCE]
        distances, positions = index.search(block, min(_NUM_NEIGHBOURS + 1, len(codes)))
        query, column = np.nonzero((distances <= max_distance) & (positions >= 0))
        pairs = np.stack([query + start, positions[query, column]], axis=1)
        yield np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)


def _hash_index(num_hashes: int, max_distance: int) -> Any:
    """Give an empty faiss index: a scan for few, for many three tables of 21 bits, each looked up with 2 bits flipped.

    Hashes that differ by at most 8 bits differ by at most 2 in one of three parts, so none of them is overlooked.
    """
    import faiss

    if num_hashes <= _NUM_FLAT:
        return faiss.IndexBinaryFlat(64)
    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = min(max_distance // 3, 2)
    return index


def _is_crowded(distinct: NDArray[np.uint64]) -> bool:
    """Say whether very many hashes share a 21-bit part, as those of pictures with one layout do."""
    if len(distinct) <= _NUM_FLAT:
        return False
    parts = (distinct >> np.uint64(shift) & np.uint64(2**21 - 1) for shift in (0, 21, 42))
    return sum(int((np.unique(part, return_counts=True)[1] ** 2).sum()) for part in parts) > _MAX_LOOKUPS


def _neighbours_in_order(distinct: NDArray[np.uint64], max_distance: int) -> Iterator[_Pairs]:
    """Give pairs of hashes that stand near each other when sorted, by their bits as they are and turned by 16, 32, 48.

    Time grows with the number of hashes alone, but a pair whose leading bits differ each time is overlooked.
    """
    for turn in (0, 16, 32, 48):
        turned = distinct << np.uint64(turn) | (distinct >> np.uint64(64 - turn) if turn else np.uint64(0))
        order = np.argsort(turned, kind="stable")
        for step in range(1, _NUM_NEIGHBOURS // 4 + 1):
            a, b = order[:-step], order[step:]
            is_near = np.bitwise_count(distinct[a] ^ distinct[b]) <= max_distance
            yield np.sort(np.stack([a[is_near], b[is_near]], axis=1), axis=1)


def _components(pairs: _Pairs, num_nodes: int) -> NDArray[np.int64]:
    """Number the connected components of the graph of confirmed pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(num_nodes, num_nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _numbered(column: str) -> pl.Expr:
    """Number the values that occur more than once, in the order in which they first occur; null for the others."""
    first = pl.col("sample_id").min().over(column)
    return pl.when(pl.len().over(column) > 1).then(first).otherwise(None).rank("dense").cast(pl.UInt32) - 1
