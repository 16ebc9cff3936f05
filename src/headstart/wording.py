"""How numbers of things are worded, for all that is printed and for every page."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Word a number of things.

    Args:
        count: How many.
        noun: What one of them is called; may hold more words, up to the verb.
        plural: What several are called, where that is not ``noun`` with an s.

    Examples:
        >>> counted(1, "image"), counted(2000, "image"), counted(0, "copy", "copies")
        ('1 image', '2,000 images', '0 copies')
        >>> counted(1, "sample is", "samples are")
        '1 sample is'
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
