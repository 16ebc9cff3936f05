"""Going on from another run: its weights, checked against what this run learns, and who its ancestors were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from headstart.data.stratification import join_units
from headstart.data.table import SampleTable
from headstart.errors import RunError, all_at_once, must_be
from headstart.models.bundle import Bundle, load_bundle
from headstart.runs import RunFolder

if TYPE_CHECKING:
    from headstart.models.network import Network
    from headstart.recipe import Recipe


LEARNED_FILE: Final = "learned.parquet"
"""In an ensemble's folder: what its members know of, so that it need not find them again."""

_KNOWN_BY: Final = ("content_hash", "group", "unit")
"""Columns by which photos of several tables are found to be the same, or to belong together."""

_ROWS: Final[Mapping[str, pl.DataType]] = {name: pl.String() for name in (*_KNOWN_BY, "split")}


@dataclass(frozen=True)
class Learned:
    """What runs have learned from or chosen by.

    Attributes:
        rows: All photos that the runs know of: ``content_hash, group, unit`` (see ``rows_learned``) and ``is_learned``.
        unknown: Ancestors whose data is not known any more.
    """

    rows: pl.DataFrame
    unknown: tuple[str, ...]

    @cached_property
    def hashes(self) -> frozenset[str]:
        """Content hashes of what was learned from."""
        return self._values("content_hash")

    @cached_property
    def groups(self) -> frozenset[str]:
        """Persons of what was learned from."""
        return self._values("group")

    def joined(self, rows: pl.DataFrame) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Give the unit of each row, and whether any photo of it was learned from.

        Photos belong together that are of one group, burst or set of copies: by ``rows`` or by the table of any run,
        also through a third. So one run's persons count for another that knew of none.

        Args:
            rows: Of any table after the pass over the files.

        Returns:
            Numbers of units, and whether they are learned, each of shape (n,).
        """
        asked = _named_units(rows).with_columns(is_learned=pl.lit(value=False))
        everything = pl.concat([asked, self.rows])
        units = join_units(everything, columns=_KNOWN_BY)
        is_learned = np.isin(units, units[everything["is_learned"].to_numpy()])
        return units[: rows.height], is_learned[: rows.height]

    def _values(self, name: str) -> frozenset[str]:
        return frozenset(self.rows.filter("is_learned")[name].drop_nulls().to_list())


def ancestors_of(path: Path) -> list[str]:
    """Give the folders of a run and of those that it went on from, the oldest first."""
    earlier = RunFolder.open(path).facts.get("ancestors", []) if (path / "run.json").exists() else []
    return [*earlier, str(path)]


def learned_by(ancestors: Sequence[str], *, splits: Sequence[str] = ("train", "validation")) -> Learned:
    """Gather what runs have learned from or chosen by, from their tables; an ensemble's are those of its members.

    Args:
        ancestors: Folders of runs.
        splits: ``("train",)`` leaves out what they have chosen by.
    """
    is_learned = pl.col("split").is_in(list(splits)).fill_null(value=False)
    rows = rows_learned(ancestors).select(*_KNOWN_BY, is_learned.alias("is_learned"))
    return Learned(rows, unknown_among(ancestors))


def rows_learned(ancestors: Sequence[str]) -> pl.DataFrame:
    """Give all photos that runs know of: ``content_hash, group, unit, split``; none of those that are unknown.

    A unit (a group, copies and near-identical photos, joined) is named by its least hash, whatever its table calls it.
    """
    tables: list[pl.DataFrame] = []
    for ancestor in dict.fromkeys(ancestors):
        if (file := _table_file(Path(ancestor))) is not None:
            rows = pl.read_parquet(file) if file.name == LEARNED_FILE else SampleTable.load(file).kept
            tables.append(_named_units(rows).with_columns(rows["split"]))
    return pl.concat([pl.DataFrame(schema=_ROWS), *tables]).unique(maintain_order=True)


def unknown_among(ancestors: Sequence[str]) -> tuple[str, ...]:
    """Name the runs whose data is not known any more, and members of ensembles whose was not when those were made."""
    unknown: list[str] = []
    for ancestor in ancestors:
        unknown += [ancestor] if _table_file(Path(ancestor)) is None else unknown_members(Path(ancestor))
    return tuple(unknown)


def _table_file(folder: Path) -> Path | None:
    return next((folder / name for name in (LEARNED_FILE, "table.parquet") if (folder / name).exists()), None)


def _named_units(rows: pl.DataFrame) -> pl.DataFrame:
    """Give what rows are known by in any table; see ``rows_learned``."""
    if "unit" not in rows.columns:
        return rows.select("content_hash", "group", unit="content_hash")
    least = pl.col("content_hash").min().over("unit")
    return rows.select("content_hash", "group", unit=pl.when(pl.col("unit").is_not_null()).then(least))


def unknown_members(folder: Path) -> list[str]:
    """Name the members of an ensemble whose data was not known when it was made; none for other runs."""
    return RunFolder.open(folder).facts.get("unknown", []) if (folder / "recipe.toml").exists() else []


def seen_before(ancestors: Sequence[str], table: SampleTable, *, in_folds: bool = False) -> list[str]:
    """Say which test images and groups the ancestors have learned from: they flatter the scores.

    Args:
        ancestors: Folders of all runs that this one comes from.
        table: Split, with content hashes.
        in_folds: The table has folds, which are held out in turn: what is in them is scored, too.
    """
    learned = learned_by(ancestors)
    lines = [f"Leak from {place}? What it was trained on is not known any more." for place in learned.unknown]
    scored = {"test": (pl.col("split") == "test", "--split takes its split.")}
    if in_folds:
        scored["folds"] = (pl.col("fold").is_not_null(), "no score out of fold is honest after it.")
    for where, (chosen, remedy) in scored.items():
        rows = table.kept.filter(chosen)
        num_images = rows.filter(pl.col("content_hash").is_in(list(learned.hashes)))["path"].n_unique()
        if num_images:
            what = "test images" if where == "test" else "images in the folds"
            lines.append(f"Leak from {ancestors[-1]}: it has learned from {num_images:,} of the {what}; {remedy}")
        seen = rows["group"].drop_nulls().unique().is_in(list(learned.groups)).sum()
        if seen:
            lines.append(
                f"Leak from {ancestors[-1]}: it has learned from {seen:,} of the groups in the {where}; {remedy}"
            )
    return lines


def continue_from(path: Path, recipe: Recipe, table: SampleTable) -> tuple[Network, list[str]]:
    """Give the network of a finished run, and a sentence for each run that it came from, the oldest first.

    Args:
        path: The run folder, or a bundle.
        recipe: Of the run that goes on: backbone, head, image size and fit must be the same.
        table: What it learns: classes or points must be the same, in the same order.

    Raises:
        RunError: They are not, or the recipe is of a run that started from other weights.
        BundleError: There is no bundle.
    """
    bundle = load_bundle(path)
    problems = [*_differing_settings(bundle, recipe), *_differing_targets(bundle, table)]
    problems += _changed_weights(path, bundle, recipe)
    if problems:
        raise RunError(all_at_once(problems))
    for module in bundle.network.head.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = recipe.dropout
    ancestry = [*bundle.metadata.get("extra", {}).get("ancestry", []), _describe(path, bundle)]
    return bundle.network, ancestry


def _differing_settings(bundle: Bundle, recipe: Recipe) -> list[str]:
    contract, built = bundle.network.contract, bundle.network.head.settings
    pairs = {
        "backbone": (bundle.network.name, recipe.backbone),
        "head": (bundle.network.head.kind, recipe.head),
        "fit": (contract.fit, recipe.fit),
        "image_size": (contract.image_size, recipe.image_size or contract.image_size),
        "targets": (_targets(bundle), recipe.targets),
        "pooling": (built.get("pooling", "own"), recipe.pooling),
        "head_hidden": (tuple(built.get("hidden", ())), recipe.head_hidden),
        "head_norm": (built.get("norm", False), recipe.head_norm),
    }
    return [
        must_be(name, f"{theirs!r}, as in the run that this one goes on from", ours, "Set it so, or train anew.")
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    ]


def _changed_weights(path: Path, bundle: Bundle, recipe: Recipe) -> list[str]:
    """Refuse weights that are not those which the recipe's run started from: the parent was trained on since."""
    now = bundle.metadata["weights"]["sha256"]
    if recipe.from_sha256 in (None, now):
        return []
    expected = f"with the weights that the recipe's run started from (SHA-256 {recipe.from_sha256[:12]}…)"
    remedy = f"It was trained on since, so this recipe cannot be repeated. --from {path} starts from what it is now."
    return [must_be(str(path), expected, f"{now[:12]}…", remedy)]


def _targets(bundle: Bundle) -> str:
    is_pixels = getattr(bundle.network.head, "frame", (1, 1)) != (1, 1)
    return "pixels" if is_pixels else "normalised"


def _differing_targets(bundle: Bundle, table: SampleTable) -> list[str]:
    if bundle.keypoints is not None or table.keypoints is not None:
        theirs = bundle.keypoints and bundle.keypoints.names
        ours = table.keypoints and table.keypoints.names
        what = "points"
    else:
        theirs, ours, what = bundle.class_names, table.output_names, "classes"
        forms = [one.form if one is not None else "single" for one in (bundle.labels, table.labels)]
        if forms[0] != forms[1]:
            expected = f"learned as in the run that this one goes on from ({forms[0]})"
            return [must_be("the labels", expected, forms[1], "Give --label or --multi-label as it did.")]
    if theirs == ours:
        return []
    expected = f"with the {what} of the run that this one goes on from ({_some(theirs)})"
    return [must_be("the data", expected, _some(ours), "Give the same kind of data, or train anew.")]


def _some(names: tuple[str, ...] | None) -> str:
    return f"{len(names)}: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else "none"


def _describe(path: Path, bundle: Bundle) -> str:
    """Say what a run was: its recipe's settings that matter for going on, its weights, and the epoch they are of."""
    extra = bundle.metadata.get("extra", {})
    which = f"{extra.get('stage', 'bundle')}, epoch {extra.get('epoch', '?')}"
    weights = f"weights {bundle.metadata['weights']['sha256'][:12]}…"
    if not (path / "recipe.toml").exists():
        return f"{path} ({which}; {weights})"
    recipe = RunFolder.open(path).recipe
    how = f"lr {recipe.lr:g}, loss {recipe.loss}, batch size {recipe.batch_size}"
    return f"{path} ({which} of {recipe.epochs}, {how}; {weights})"
