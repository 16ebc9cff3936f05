"""What the outputs of a network that gives several labels mean: logits → probabilities, column by column.

Heads answer each for itself (softmax over their own outputs). Joint classes are combinations: a column's class is as
probable as all combinations together that hold it. Several labels in a cell are independent (a sigmoid each).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from headstart.data.label_layout import LabelLayout

THRESHOLD: Final = 0.5
"""The least probability of a class that is given, where a photo may have several."""


def output_probabilities(
    logits: ArrayLike, layout: LabelLayout, temperatures: Sequence[float] = ()
) -> NDArray[np.float64]:
    """Give the probability of each output, in the order of ``layout.output_names``.

    Args:
        logits: Shape (n, outputs).
        layout: What the labels are.
        temperatures: What logits are divided by: of heads one each, else one; 1 where there are none.

    Returns:
        Shape (n, outputs): those of a head, or of all joint classes, sum to 1.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> layout = LabelLayout("heads", (LabelColumn("a", ("0", "1")), LabelColumn("b", ("x", "y"))))
        >>> output_probabilities([[0.0, 0.0, 2.0, 0.0]], layout, (1.0, 2.0)).round(3).tolist()
        [[0.5, 0.5, 0.731, 0.269]]
    """
    values = torch.from_numpy(np.asarray(logits, np.float64))
    return calibrated(values, layout, temperatures or (1.0,) * layout.num_temperatures).numpy()


def calibrated(logits: Tensor, layout: LabelLayout | None, temperatures: Sequence[float] | Tensor) -> Tensor:
    """Give the probability of each output as a tensor of the same kind; of a single label a photo, too.

    Args:
        logits: Shape (n, outputs).
        layout: What the labels are; None: one label a photo.
        temperatures: What logits are divided by: of heads one each, else one.

    Examples:
        >>> calibrated(torch.tensor([[0.0, 0.0]]), None, [2.0]).tolist()
        [[0.5, 0.5]]
    """
    if layout is not None and layout.form == "multi":
        return torch.sigmoid(logits / temperatures[0])
    parts = layout.slices if layout is not None and layout.form == "heads" else (slice(None),)
    return torch.cat([torch.softmax(logits[:, part] / temperatures[at], 1) for at, part in enumerate(parts)], 1)


def column_probabilities(probabilities: NDArray[np.floating], layout: LabelLayout) -> dict[str, NDArray[np.float64]]:
    """Give each label column's probabilities, shape (n, classes): parts of the heads' outputs, or marginals.

    Args:
        probabilities: Shape (n, outputs), from ``output_probabilities``.
        layout: Of heads or of joint classes.

    Examples:
        >>> from headstart.data.label_layout import LabelColumn
        >>> columns = (LabelColumn("a", ("0", "1")), LabelColumn("b", ("x", "y")))
        >>> layout = LabelLayout("joint", columns, ((0, 0), (0, 1), (1, 1)))
        >>> column_probabilities(np.array([[0.5, 0.2, 0.3]]), layout)["b"].tolist()
        [[0.5, 0.5]]
    """
    table = np.asarray(probabilities, np.float64)
    if layout.form == "heads":
        return {column.name: table[:, part] for column, part in zip(layout.columns, layout.slices, strict=True)}
    combinations = np.array(layout.combinations).reshape(len(layout.combinations), len(layout.columns))
    found: dict[str, NDArray[np.float64]] = {}
    for place, column in enumerate(layout.columns):
        holds = combinations[:, place, None] == np.arange(len(column.class_names))
        found[column.name] = table @ holds.astype(np.float64)
    return found
