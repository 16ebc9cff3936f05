"""The run folder: what lies where, who holds it, and how long each stage took.

recipe.toml  table.parquet  split.parquet  probe/  checkpoints/  history.csv  tensorboard/
bundle/  predictions.parquet  metrics.json  report.html  run.json
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headstart.errors import RunError, must_be
from headstart.files import write_json
from headstart.recipe import Recipe, make_recipe, read_recipe
from headstart.recipe_defaults import trains_head_on_features, without_unheeded

PACKAGES = (
    "headstart", "torch", "timm", "lightning", "openvino", "opencv-python-headless", "simplejpeg", "pillow", "numpy",
    "polars", "scikit-learn",
)  # fmt: skip
"""Packages whose versions a run records: those that can change its numbers."""

BEGINNING = {"recipe.toml", "run.json", ".lock"}
"""What a folder holds whose run stopped before it had read anything (a mistyped path, say); it counts as new."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes:
        path: The folder.
        recipe: What the run was asked to do.
    """

    path: Path
    recipe: Recipe

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """Make a new run folder with the recipe in it.

        The recipe of a run that was extended is carried out in the same parts: the folder's own recipe has the epochs
        of the first, and ``epochs_to_come`` those of the others.

        Raises:
            RunError: The folder holds something already; nothing is overwritten.
        """
        if path.exists() and not path.is_dir():
            raise RunError(must_be("--out", "a folder", str(path), "Name another one."))
        if path.is_dir() and not _is_new(path):
            is_begun = (path / "recipe.toml").exists() and not (path / "report.html").exists()
            remedy = f"Go on with it: headstart train --resume {path}" if is_begun else "Name another one."
            raise RunError(must_be("--out", "a new or empty folder", str(path), remedy))
        path.mkdir(parents=True, exist_ok=True)
        first, *to_come = *recipe.epochs_before, recipe.epochs
        recipe = recipe.model_copy(update={"epochs": first, "epochs_before": ()})
        facts = {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "versions": versions(), "seconds": {}}
        write_json(path / "run.json", facts | ({"epochs_to_come": to_come} if to_come else {}))
        recipe.save(path / "recipe.toml")  # last: a folder with it is a run that can be resumed
        return cls(path, recipe)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder.

        Raises:
            RunError: There is no run in it.
        """
        if not (path / "recipe.toml").exists():
            remedy = "It lacks recipe.toml; name a folder that headstart train --out made."
            raise RunError(must_be("RUN", "a run folder", str(path), remedy))
        settings = without_unheeded(read_recipe(path / "recipe.toml"))  # refused by now, they had no effect on the run
        return cls(path, make_recipe(settings, place="recipe.toml"))

    def extended(self, epochs: int) -> RunFolder:
        """Give the run with more epochs to do. A finished one notes its test scores: the test is no longer untouched.

        Raises:
            RunError: It has as many epochs already.
        """
        if epochs == self.recipe.epochs and not self.is_finished:
            return self
        if epochs <= self.recipe.epochs:
            raise RunError(must_be("--epochs", f"more than the run's {self.recipe.epochs}", epochs, "Raise it."))
        if trains_head_on_features(self.recipe.model_dump()):
            raise RunError(must_be("--epochs", "given to a run that fine-tunes", "--unfreeze none", "Train anew."))
        update: dict[str, Any] = {"epochs": epochs}
        done: dict[str, Any] = {"epochs": self.recipe.epochs, "to": epochs}
        to_come = [later for later in self.epochs_to_come if later > epochs]
        if self.is_finished:
            scores = json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))
            extensions = [*self.facts.get("extensions", []), done | {"test": scores.get("test")}]
            self.note(extensions=extensions, is_extending=True, epochs_to_come=to_come)
            update["epochs_before"] = (*self.recipe.epochs_before, self.recipe.epochs)
        elif (self.path / "checkpoints").exists():
            self.note(raised_midway=[*self.facts.get("raised_midway", []), done], epochs_to_come=to_come)
        recipe = self.recipe.model_copy(update=update)
        recipe.save(self.path / "recipe.toml")  # the old report stays until the new one is written
        return RunFolder(self.path, recipe)

    @property
    def epochs_to_come(self) -> list[int]:
        """Epochs in all of each part that the recipe has beyond this one."""
        return self.facts.get("epochs_to_come", [])

    def describe_repetition(self) -> list[str]:
        """Say how the run is repeated, and what is not."""
        recipe = self.recipe
        same = "with the same files, machine and versions to the bit on a CPU, nearly on a GPU"
        lines = [f"headstart train --recipe {self.path / 'recipe.toml'} --out NEW repeats the run: {same}."]
        if recipe.epochs_before:
            parts = ", then on to ".join(map(str, (*recipe.epochs_before, recipe.epochs)))
            lines.append(f"It trains {parts} epochs, as this run was extended.")
        if recipe.from_run is not None:
            known = f" (SHA-256 {recipe.from_sha256[:12]}…); others are refused" if recipe.from_sha256 else ""
            lines.append(f"It starts from the weights that {recipe.from_run} had{known}.")
        return [*lines, *self.describe_unrepeatable()]

    def describe_unrepeatable(self) -> list[str]:
        """Say what no recipe repeats: that the epochs were raised in the middle of training."""
        return [
            f"The recipe does not repeat {self.path}: its epochs were raised from {one['epochs']} to {one['to']} in "
            "the middle of training, so its learning rates were those of neither. The weights will be others."
            for one in self.facts.get("raised_midway", [])
        ]

    @property
    def is_finished(self) -> bool:
        """Whether the run has been carried out to its report."""
        is_written = (self.path / "report.html").exists() and (self.path / "metrics.json").exists()
        return is_written and not self.facts.get("is_extending")

    @property
    def facts(self) -> dict[str, Any]:
        """What the run has written down of itself."""
        return json.loads((self.path / "run.json").read_text(encoding="utf-8"))

    def note(self, **facts: Any) -> None:
        """Write facts down in run.json, beside those that stand there."""
        write_json(self.path / "run.json", self.facts | facts)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to a stage's seconds, over all sessions, also where the stage breaks off."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.facts["seconds"]
            self.note(seconds=seconds | {stage: round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on the same run; on Ctrl-C say how to resume.

        Raises:
            RunError: Another process holds it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            with lock.acquire(timeout=0):
                yield
        except Timeout:
            raise RunError(must_be("RUN", "free", str(self.path), "Another process is training it.")) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Nothing is lost. Go on with: headstart train --resume {self.path}") from None


def weights_hash(folder: Path) -> str | None:
    """Give the SHA-256 of the weights of a run or a bundle, as its bundle.json says; None where there is no bundle."""
    for file in (folder / "bundle.json", folder / "bundle" / "bundle.json"):
        if file.is_file():
            try:
                return json.loads(file.read_text(encoding="utf-8"))["weights"]["sha256"]
            except (ValueError, LookupError, TypeError):
                return None  # a damaged one is refused where it is loaded
    return None


def _is_new(folder: Path) -> bool:
    """Say whether nothing has been done in a folder yet, and nobody is about to."""
    names = {path.name for path in folder.iterdir() if path.suffix != ".tmp"}
    if not names <= BEGINNING:
        return False
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return True
    except Timeout:
        return False


def versions() -> dict[str, str]:
    """Give the versions that a run's numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
