"""Losses of classes: three epochs with each, on cached features and fine-tuned, and the time of their steps.

Usage: HEADSTART_DATA=… python benchmarks/bench_losses.py [--quick] [--record]
"""

from __future__ import annotations

from comparison import main

CONTESTANTS = {
    "smoothed": {"loss": "cross_entropy", "label_smoothing": 0.1},
    "cross-entropy": {"loss": "cross_entropy", "label_smoothing": 0.0},
    "weighted": {"loss": "cross_entropy", "label_smoothing": 0.0, "class_weights": "balanced"},
    "focal": {"loss": "focal"},
    "soft F1": {"loss": "soft_f1"},
    "binary": {"loss": "bce"},
}

if __name__ == "__main__":
    main((__doc__ or "").splitlines()[0], CONTESTANTS)
