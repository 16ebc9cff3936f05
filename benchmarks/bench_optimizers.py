"""Optimizers: three epochs with each at its default rate, on cached features and fine-tuned, and their steps' time.

Usage: HEADSTART_DATA=… python benchmarks/bench_optimizers.py [--quick] [--record]
"""

from __future__ import annotations

from comparison import main

CONTESTANTS = {
    name: {"optimizer": name}
    for name in ("adamw", "adam", "madgrad", "sgd", "nesterov", "rmsprop", "lion", "nadamw", "lamb")
}
HEAVIER = ("madgrad", "rmsprop", "lion", "nadamw", "lamb")
"""Not fused by PyTorch: each parameter's update is several calls."""

if __name__ == "__main__":
    main((__doc__ or "").splitlines()[0], CONTESTANTS, heavier=HEAVIER)
