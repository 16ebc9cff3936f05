"""What a split is stratified by where a sample has several labels: combinations, and for rare ones a single label.

A combination that few units show cannot stand in every split, and forcing each rare one into training would leave the
test without any. So rare combinations are told apart by their rarest label only: each label comes into every split that
its units allow (the idea of iterative stratification, in one step).

References:
    Sechidis, Tsoumakas, Vlahavas: "On the stratification of multi-label data", ECML 2011.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.data.label_layout import MISSING, LabelLayout, labels_of
from headstart.data.table import SampleTable

ENOUGH: Final = 7
"""Units that a combination needs to be a stratum of its own: enough for one in a split of 15 %."""

NO_LABELS: Final = "none of the labels"


def with_strata(
    kept: pl.DataFrame, units: NDArray[np.integer], table: SampleTable
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Give kept rows with the number of their stratum as ``label``, and the strata's names.

    Args:
        kept: Rows of the table.
        units: What stays together, shape (n,).
        table: Says what the labels are. Of one label a sample, or joint classes, the classes are the strata.

    Returns:
        The rows, for whoever deals them out, and a name for each stratum.
    """
    if table.labels is None or table.labels.form == "joint" or kept.is_empty():
        return kept, table.class_names
    combination = kept["label"].cast(pl.Int64).to_numpy()
    pairs = np.unique(np.stack([combination, units.astype(np.int64)], axis=1), axis=0)
    num_units = np.bincount(pairs[:, 0], minlength=len(table.class_names))
    is_rare = num_units[combination] < ENOUGH
    rarest = _rarest_labels(labels_of(kept), table.labels)
    names = (*table.class_names, *table.labels.output_names, NO_LABELS)
    number = np.where(is_rare, len(table.class_names) + rarest, combination)
    used, strata = np.unique(number, return_inverse=True)
    return kept.with_columns(label=pl.Series(strata, dtype=pl.Int32)), tuple(names[one] for one in used.tolist())


def _rarest_labels(labels: NDArray[np.int64], layout: LabelLayout) -> NDArray[np.int64]:
    """Give the number of each sample's rarest label among the network's outputs; their number where it has none."""
    num_outputs, num_samples = len(layout.output_names), len(labels)
    if layout.form == "multi":
        counts = labels.sum(axis=0)
        frequency = np.where(labels == 1, counts, num_samples + 1)
        outputs = np.broadcast_to(np.arange(num_outputs), labels.shape)
    else:
        starts = np.array([part.start for part in layout.slices])
        outputs = labels + starts
        counts = np.bincount(outputs[labels != MISSING], minlength=num_outputs)
        frequency = np.where(labels == MISSING, num_samples + 1, counts[outputs.clip(0)])
    best = frequency.argmin(axis=1)
    rows = np.arange(num_samples)
    return np.where(frequency[rows, best] > num_samples, num_outputs, outputs[rows, best])
