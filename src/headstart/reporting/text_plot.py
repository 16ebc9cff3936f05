"""A curve in the terminal, in braille dots: two across and four down in each character."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 64, 10

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of the dots of a character: by column, then by row from the top."""


def text_curve(values: Sequence[float], *, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Draw values from left to right, the highest at the top and 0 at the bottom.

    Args:
        values: At equal distances; more than there are columns are thinned out.
        width: Characters across.
        height: Lines.

    Returns:
        The lines, without labels.

    Examples:
        >>> text_curve([0, 1], width=1, height=1)
        ['⡸']
    """
    top, columns, rows = max(values) or 1.0, width * 2, height * 4
    cells = [[0] * width for _ in range(height)]
    before: int | None = None
    for column in range(columns):
        value = values[round(column * (len(values) - 1) / max(columns - 1, 1))]
        row = round((1 - value / top) * (rows - 1))
        low, high = (row, row) if before is None else (min(row, before + 1), max(row, before - 1))
        for dot in range(max(min(low, high), 0), min(max(low, high), rows - 1) + 1):
            cells[dot // 4][column // 2] |= _DOTS[column % 2][dot % 4]
        before = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]
