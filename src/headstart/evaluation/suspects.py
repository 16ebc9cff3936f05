"""Which labels are probably wrong: confident learning on probabilities of models that did not see the sample.

A model that learned from a wrong label agrees with it; one that has not seen the sample does not. So the probabilities
must be out of fold. A class's threshold is how sure the models are of it on average where it is the label; a sample
that reaches another class's threshold counts as that class. These counts, brought to the classes' real sizes, say how
many samples labelled i are truly j; so many are named, those first where j is likeliest over i.

References:
    Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021
    (arXiv 1911.00068): the confident joint, equation 1; its calibration, equation 3; pruning by noise
    rate, section 3.2.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headstart.evaluation.metrics import checked_predictions


def confident_joint(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Estimate how many samples have each pair of given label (row) and true class (column).

    Args:
        probabilities: Out of fold, shape (n, classes); rows sum to 1.
        labels: Given class numbers, shape (n,).

    Returns:
        Shape (classes, classes). A row sums to the samples with that label.

    Examples:
        >>> sure = np.array([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 4)
        >>> confident_joint(sure, [0, 0, 0, 1, 1, 1, 1, 1]).round(2).tolist()
        [[3.0, 0.0], [1.0, 4.0]]
    """
    table, numbers = checked_predictions(probabilities, labels)
    num_classes, size = table.shape[1], np.bincount(numbers, minlength=table.shape[1])
    own = np.bincount(numbers, weights=table[np.arange(len(numbers)), numbers], minlength=num_classes)
    threshold = np.divide(own, size, out=np.full(num_classes, np.inf), where=size > 0)
    reaches = table >= threshold - 1e-12
    guess = np.where(reaches, table, -1.0).argmax(axis=1)
    is_counted = reaches.any(axis=1)
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (numbers[is_counted], guess[is_counted]), 1.0)
    empty = (counts.sum(axis=1) == 0) & (size > 0)
    counts[empty, empty] = size[empty]
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0) * size[:, None]


def find_suspects(probabilities: ArrayLike, labels: ArrayLike) -> pl.DataFrame:
    """Name the samples whose labels are probably wrong, the least credible first.

    Args:
        probabilities: Out of fold: by models that did not see the sample; shape (n, classes), rows sum to 1.
        labels: Given class numbers, shape (n,).

    Returns:
        ``row`` (position in the arrays), ``suggested`` (class number), ``self_confidence`` (the probability of the
        given label), ordered by the last. Empty where nothing is suspicious.

    Examples:
        >>> sure = np.array([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 4)
        >>> find_suspects(sure, [0, 0, 0, 1, 1, 1, 1, 1]).rows()
        [(3, 0, 0.1)]
    """
    table, numbers = checked_predictions(probabilities, labels)
    joint = np.rint(confident_joint(table, numbers)).astype(int)
    np.fill_diagonal(joint, 0)
    rows: set[int] = set()
    for given, true in np.argwhere(joint).tolist():
        candidates = np.flatnonzero(numbers == given)
        margin = table[candidates, true] - table[candidates, given]
        first = np.argsort(-margin, kind="stable")[: joint[given, true]]
        rows.update(candidates[first].tolist())
    suggested = table.argmax(axis=1)
    named = np.array(sorted(row for row in rows if suggested[row] != numbers[row]), np.int64)
    credible = table[named, numbers[named]]
    columns = {"row": named, "suggested": suggested[named].astype(np.int64), "self_confidence": credible}
    return pl.DataFrame(columns).sort("self_confidence", maintain_order=True)
