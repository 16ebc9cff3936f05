"""Going on from another run: its weights, checked against what this run learns, and who its ancestors were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headstart.data.table import SampleTable
from headstart.errors import RunError, all_at_once, must_be
from headstart.models.bundle import Bundle, load_bundle
from headstart.runs import RunFolder

if TYPE_CHECKING:
    from headstart.models.network import Network
    from headstart.recipe import Recipe


@dataclass(frozen=True)
class Learned:
    """What runs have learned from or chosen by.

    Attributes:
        hashes: Content hashes of their training and validation images.
        groups: Their persons.
        unknown: Ancestors whose data is not known any more.
    """

    hashes: frozenset[str]
    groups: frozenset[str]
    unknown: tuple[str, ...]


def ancestors_of(path: Path) -> list[str]:
    """Give the folders of a run and of those that it went on from, the oldest first."""
    earlier = RunFolder.open(path).facts.get("ancestors", []) if (path / "run.json").exists() else []
    return [*earlier, str(path)]


def learned_by(ancestors: Sequence[str]) -> Learned:
    """Gather what runs have learned from, from their tables."""
    hashes: set[str] = set()
    groups: set[str] = set()
    unknown: list[str] = []
    for ancestor in ancestors:
        file = Path(ancestor) / "table.parquet"
        if not file.exists():
            unknown.append(ancestor)
            continue
        rows = SampleTable.load(file).kept.filter(pl.col("split").is_in(["train", "validation"]))
        hashes.update(rows["content_hash"].drop_nulls().to_list())
        groups.update(rows["group"].drop_nulls().to_list())
    return Learned(frozenset(hashes), frozenset(groups), tuple(unknown))


def seen_before(ancestors: Sequence[str], table: SampleTable) -> list[str]:
    """Say which test images and groups the ancestors have learned from: they flatter the scores.

    Args:
        ancestors: Folders of all runs that this one comes from.
        table: Split, with content hashes.
    """
    learned, test = learned_by(ancestors), table.kept.filter(pl.col("split") == "test")
    lines = [f"Leak from {place}? What it was trained on is not known any more." for place in learned.unknown]
    remedy = "--split takes its split."
    num_images = test.filter(pl.col("content_hash").is_in(list(learned.hashes)))["path"].n_unique()
    if num_images:
        lines.append(f"Leak from {ancestors[-1]}: it has learned from {num_images:,} of the test images; {remedy}")
    seen = test["group"].drop_nulls().unique().is_in(list(learned.groups)).sum()
    if seen:
        lines.append(f"Leak from {ancestors[-1]}: it has learned from {seen:,} of the groups in the test; {remedy}")
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
    bundle.network.head.dropout.p = recipe.dropout
    ancestry = [*bundle.metadata.get("extra", {}).get("ancestry", []), _describe(path, bundle)]
    return bundle.network, ancestry


def _differing_settings(bundle: Bundle, recipe: Recipe) -> list[str]:
    contract = bundle.network.contract
    pairs = {
        "backbone": (bundle.network.name, recipe.backbone),
        "head": (bundle.network.head.kind, recipe.head),
        "fit": (contract.fit, recipe.fit),
        "image_size": (contract.image_size, recipe.image_size or contract.image_size),
        "targets": (_targets(bundle), recipe.targets),
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
