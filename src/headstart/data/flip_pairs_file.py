"""``--flip-pairs FILE``: left/right pairs that the user gives, as CSV or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headstart.data.flip_pairs import Pairs
from headstart.errors import SourceError, all_at_once, must_be

_NUM_PROBLEMS: Final = 10
_REMEDY: Final = "Write one pair a line: left,right, counted from 0."

_Cells = tuple[str, list[object]]  # where a pair stands, and what stands there


def read_flip_pairs(path: Path | str, num_keypoints: int) -> Pairs:
    r"""Read which keypoints change places when a picture is mirrored.

    Args:
        path: A CSV file with two columns (left, right; a header is allowed; separated by comma, semicolon or tab), or a
            ``.json`` file with a list of pairs. Indices count from 0; points in no pair keep their place.
        num_keypoints: Points of each sample.

    Returns:
        The pairs, the lower index first, ascending.

    Raises:
        SourceError: The file cannot be read or holds no pair; an index is not a number, is out of range, or stands in
            two pairs. All problems are reported together.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "pairs.csv")
        ...     _ = file.write_text("left,right\n36,45\n31,35\n")
        ...     read_flip_pairs(file, 68)
        ((31, 35), (36, 45))
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise SourceError(must_be("--flip-pairs", "a file that can be read", str(path), f"{error.strerror}.")) from None
    listed = list(_json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text))
    if not listed:
        raise SourceError(must_be(str(path), "a list of pairs, one at least", "none", _REMEDY))
    problems = [problem for place, cells in listed for problem in _cell_problems(place, cells, num_keypoints)]
    problems = problems or _repeats(listed)
    if problems:
        more = [f"and {len(problems) - _NUM_PROBLEMS} more."] if len(problems) > _NUM_PROBLEMS else []
        raise SourceError(all_at_once([*problems[:_NUM_PROBLEMS], *more]))
    pairs = [sorted(int(str(cell)) for cell in cells) for _, cells in listed]
    return tuple(sorted((low, high) for low, high in pairs))


def _csv_rows(path: Path, text: str) -> Iterator[_Cells]:
    separator = max((",", ";", "\t"), key=text.count)
    rows = csv.reader(text.splitlines(), delimiter=separator)
    for number, row in enumerate(rows):
        cells: list[object] = [cell.strip() for cell in row]
        is_header = number == 0 and not any(_index(cell) is not None for cell in cells)
        if any(cells) and not is_header:
            yield f"{path} row {rows.line_num}", cells


def _json_rows(path: Path, text: str) -> Iterator[_Cells]:
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise SourceError(must_be(str(path), "JSON", str(error), "Write [[left, right], …].")) from None
    if not isinstance(listed, list):
        raise SourceError(must_be(str(path), "a list of pairs", type(listed).__name__, "Write [[left, right], …]."))
    for number, pair in enumerate(listed, 1):
        yield f"{path} pair {number}", list(pair) if isinstance(pair, list) else [pair]


def _index(cell: object) -> int | None:
    """Read an index; None where it is not a whole number."""
    if isinstance(cell, str) and cell.lstrip("-").isdecimal():
        return int(cell)
    return cell if isinstance(cell, int) and not isinstance(cell, bool) else None


def _cell_problems(place: str, cells: list[object], num_keypoints: int) -> Iterator[str]:
    if len(cells) != 2:
        yield must_be(place, "two point indices", cells, _REMEDY)
        return
    for name, cell in zip(("left", "right"), cells, strict=True):
        index = _index(cell)
        if index is None or not 0 <= index < num_keypoints:
            yield must_be(f"{place}, {name}", f"a point index from 0 to {num_keypoints - 1}", cell)


def _repeats(listed: list[_Cells]) -> list[str]:
    """Word each point that stands in two places."""
    first: dict[int, str] = {}
    problems: list[str] = []
    for place, cells in listed:
        for cell in cells:
            index = int(str(cell))
            if index in first:
                remedy = f"Point {index} stands in {'the same pair' if first[index] == place else first[index]} too."
                problems.append(must_be(place, "two points that stand in no other pair", index, remedy))
            first.setdefault(index, place)
    return problems
