"""Heads: what turns pooled features into answers."""

from __future__ import annotations

from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """Dropout and one linear layer: features (n, num_features) → logits (n, num_classes).

    Examples:
        >>> import torch
        >>> ClassificationHead(8, 3)(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_features: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(num_features, num_classes)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.linear.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Give the logits of pooled features."""
        return self.linear(self.dropout(features))
