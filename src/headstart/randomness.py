"""Randomness without state: (seed, epoch, sample index) → sample order and augmentation draws.

Every draw is one output word of the counter-based generator Philox-4x32-10, addressed by (seed, stream, epoch, index,
draw number). Nothing is carried from one draw to the next, so a resumed run draws what the unbroken run would have
drawn, and any number of threads or ranks sees the same order.

References:
    Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

STREAMS: Final = {
    "order": 0,
    "augmentation": 1,
    "split": 2,
    "bootstrap": 3,
    "torch": 4,
    "init": 5,
    "noise": 6,
    "shapes": 7,
    "mixing": 8,
}
"""One number per use of randomness, so that two uses with the same seed never share draws."""

_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_MASK: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)


def philox(counters: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Encrypt 4×32-bit counters with ten rounds of Philox.

    Args:
        counters: Shape (n, 4), each entry below 2³².
        key: Two 32-bit words.

    Returns:
        Shape (n, 4): four random 32-bit words per counter.

    Examples:
        The known answer of the reference implementation for counter 0, key 0:

        >>> " ".join(f"{word:08x}" for word in philox(np.zeros((1, 4), np.uint64), (0, 0))[0])
        '6627e8d5 e169c58d bc57ac4c 9b00dbd8'
    """
    c0, c1, c2, c3 = (counters[:, column].astype(np.uint64) for column in range(4))
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(10):
        high_low_0, high_low_1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (high_low_1 >> _SHIFT) ^ c1 ^ k0,
            high_low_1 & _MASK,
            (high_low_0 >> _SHIFT) ^ c3 ^ k1,
            high_low_0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def words(seed: int, *, stream: str, epoch: int, indices: ArrayLike, count: int) -> NDArray[np.uint32]:
    """Draw ``count`` random 32-bit words for each index.

    Args:
        seed: The run's seed, 0 ≤ seed < 2⁶⁴.
        stream: What the draws are for: a name in ``STREAMS``.
        epoch: Epoch (or step) number, below 2²⁴.
        indices: Sample numbers, shape (n,).
        count: Words per index.

    Returns:
        Shape (n, count). A row depends on its own index only.
    """
    index = np.atleast_1d(np.asarray(indices, dtype=np.uint64))
    num_blocks = -(-count // 4)
    counters = np.empty((len(index), num_blocks, 4), np.uint64)
    counters[..., 0] = (index & _MASK)[:, None]
    counters[..., 1] = (index >> _SHIFT)[:, None]
    counters[..., 2] = np.uint64(epoch) << np.uint64(8) | np.uint64(STREAMS[stream])
    counters[..., 3] = np.arange(num_blocks, dtype=np.uint64)[None]
    drawn = philox(counters.reshape(-1, 4), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return drawn.reshape(len(index), num_blocks * 4)[:, :count]


def uniforms(seed: int, *, stream: str, epoch: int, indices: ArrayLike, count: int) -> NDArray[np.float64]:
    """Draw ``count`` numbers in [0, 1) for each index; see ``words`` for the arguments.

    Examples:
        >>> both = uniforms(7, stream="augmentation", epoch=1, indices=[4, 9], count=3)
        >>> alone = uniforms(7, stream="augmentation", epoch=1, indices=[9], count=3)
        >>> bool((both[1] == alone[0]).all())
        True
    """
    drawn = words(seed, stream=stream, epoch=epoch, indices=indices, count=count)
    return drawn.astype(np.float64) / 2**32


def permutation(seed: int, *, stream: str, epoch: int, num_samples: int) -> NDArray[np.int64]:
    """Give the order of an epoch: a permutation of 0 … num_samples − 1.

    Examples:
        >>> sorted(permutation(1, stream="order", epoch=0, num_samples=4).tolist())
        [0, 1, 2, 3]
    """
    drawn = words(seed, stream=stream, epoch=epoch, indices=np.arange(num_samples), count=2).astype(np.uint64)
    return np.argsort(drawn[:, 0] << _SHIFT | drawn[:, 1], kind="stable")


def generator(seed: int, *, stream: str, epoch: int = 0) -> np.random.Generator:
    """Give a NumPy generator for uses that want a whole stream (bootstrap), keyed like every other draw."""
    first = words(seed, stream=stream, epoch=epoch, indices=[0], count=4)[0]
    return np.random.Generator(np.random.Philox(key=int(first[0]) << 32 | int(first[1])))
