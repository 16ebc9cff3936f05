"""Learning-rate schedules: pure functions of the step, so that a resumed run follows the same curve."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Give the factor on the highest learning rate at a step: linear warmup, then half a cosine down to zero.

    Args:
        step: Optimizer step, counted from 0.
        total_steps: Steps of the whole training.
        warmup_steps: Steps of the linear rise; the rate is highest at its end.

    Returns:
        A factor in (0, 1].

    Examples:
        >>> [round(warmup_cosine(step, total_steps=6, warmup_steps=2), 2) for step in range(6)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]

    References:
        Loshchilov, Hutter: "SGDR", ICLR 2017, eq. 5; Goyal et al., arXiv 1706.02677 (warmup).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
