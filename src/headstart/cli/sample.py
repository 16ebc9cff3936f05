"""``headstart sample``: write a bundled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def sample(
    name: Annotated[Literal["digits", "faces"], Parameter(help="which data set")],
    directory: Annotated[Path, Parameter(help="a new folder")],
    /,
    *,
    count: Annotated[int | None, Parameter(help="faces: how many pictures (default 600)")] = None,
    seed: Annotated[int | None, Parameter(help="faces: same seed, same pictures (default 0)")] = None,
    broken: Annotated[bool, Parameter(help="faces: break three label files, to see them found", negative="")] = False,
) -> None:
    """Write a bundled data set.

    digits: real handwritten digits (from scikit-learn) as class folders of PNG.
    faces: drawn faces with persons, masks and 70 exact keypoints, one JSON per picture.
    """
    from headstart.progress import say

    if name == "digits":
        _refuse_flags({"--count": count, "--seed": seed, "--broken": broken or None})
        from headstart.samples import write_digits

        say(f"{name}: {write_digits(directory):,} pictures in {directory}")
        return
    from headstart.samples import broken_faces, write_faces

    wanted, first = 600 if count is None else count, seed or 0
    say(f"{name}: {write_faces(directory, count=wanted, seed=first, with_broken=broken):,} pictures in {directory}")
    for path, damage in broken_faces(count=wanted, seed=first).items() if broken else ():
        say(f"  broken on purpose: {path} ({damage})")


def _refuse_flags(given: dict[str, object]) -> None:
    from headstart.errors import HeadstartError, all_at_once, must_be

    remedy = "There is one set of digits: leave it out."
    problems = [
        must_be(flag, "a flag of sample faces", value, remedy) for flag, value in given.items() if value is not None
    ]
    if problems:
        raise HeadstartError(all_at_once(problems))
