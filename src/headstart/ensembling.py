"""``headstart ensemble``: trained models put together as one, scored on photos that none of them has learned from.

Members may be runs, bundles, folds or ensembles; ensembles are taken apart into their own members. The result is a run
folder that holds copies of all of them, and what they have learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headstart.ancestry import LEARNED_FILE, Learned, ancestors_of, learned_by, rows_learned, unknown_among
from headstart.data.label_layout import labels_of
from headstart.data.table import SampleTable
from headstart.ensemble_scoring import EnsembleScoring, MemberAnswers, ask_members, open_views, score_votes
from headstart.errors import RunError, SourceError, must_be
from headstart.evaluation.ensembles import (
    Weighting,
    check_same_names,
    equal_weights,
    fit_weights,
    fit_weights_to_truth,
)
from headstart.evaluation.several_labels import of_truth
from headstart.files import folder_written_aside, write_json, written_aside
from headstart.models.bundle import Bundle, find_bundle
from headstart.models.ensemble import Ensemble, MemberSource, load_model, save_ensemble
from headstart.progress import say
from headstart.recipe import Recipe, make_recipe
from headstart.reevaluation import with_labels_of
from headstart.reporting.ensemble_results import write_member_report
from headstart.runs import RunFolder
from headstart.scoring import save_metrics, save_predictions
from headstart.training.fit import choose_device
from headstart.wording import counted

_FEW: Final = 30
"""Validation photos below which fitted weights say more of chance than of members."""


@dataclass(frozen=True)
class _Part:
    """One of what the user named.

    Attributes:
        path: As named.
        model: Loaded.
        run: Its run folder; None for a bundle alone.
        ancestors: Folders of the runs that it goes back to, and its own.
        unknown: Those of them whose data is not known any more.
    """

    path: Path
    model: Bundle | Ensemble
    run: RunFolder | None
    ancestors: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class _Labelled:
    """Labelled photos to ask members about.

    Attributes:
        table: Its chosen rows are ``split``; its units are those of all members' tables together.
        recipe: How to read it.
        count: How many are chosen.
        num_kin: How many are not, though no member knows them: others were learned from that they belong together with.
    """

    table: SampleTable
    recipe: Recipe
    count: int
    num_kin: int


def make_ensemble(
    paths: Sequence[Path],
    *,
    out: Path,
    weights: Weighting = "equal",
    device: str = "auto",
    num_threads: int | None = None,
) -> RunFolder:
    """Put trained models together, score them where that is honest, and write the folder.

    Args:
        paths: Run folders, bundles or ensembles: two or more, with the same classes or points.
        out: The ensemble's folder, new or empty.
        weights: Of the votes: equal, or fitted on validation photos that no member trained on.
        device: Where members run.
        num_threads: Threads that prepare pixels.

    Raises:
        RunError: There are too few members, one is named twice, or weights cannot be fitted.
        HeadstartError: Members answer in other classes.
    """
    with folder_written_aside(out) as aside:  # a place that cannot be written is said at once
        parts = [_open(path) for path in paths]
        _check(parts, weights)
        ensemble, sources = _joined(parts)
        recipe = make_recipe({"device": device, "num_threads": num_threads})
        for joint in ensemble.joints:
            joint.to(choose_device(recipe))
        if weights == "fitted":
            ensemble = replace(ensemble, weights=_fitted(parts, ensemble, recipe))
        sources = [replace(one, weight=share) for one, share in zip(sources, ensemble.weights, strict=True)]
        test = _unseen(parts)
        scoring, lines = _scored(parts, ensemble, test, recipe)
        run = RunFolder.create(aside, _base_recipe(parts, test))
        _write(run, parts, ensemble, sources, scoring, lines, title=out)
    for line in (*lines, *(scoring[0].describe() if scoring else ())):
        say(line)
    say(f"report: {out / 'report.html'}")
    return RunFolder.open(out)


def _open(path: Path) -> _Part:
    folder = path.parent if path.name == "bundle" and (path.parent / "recipe.toml").exists() else path
    run = RunFolder.open(folder) if (folder / "recipe.toml").exists() else None
    ancestors = ancestors_of(folder)
    return _Part(path, load_model(path), run, tuple(ancestors), unknown_among(ancestors))


def _ancestors(parts: Sequence[_Part]) -> list[str]:
    return [ancestor for part in parts for ancestor in part.ancestors]


def _check(parts: Sequence[_Part], weights: Weighting) -> None:
    if len(parts) < 2:
        raise RunError(
            must_be("RUNS", "two or more models", len(parts), "Name the folders of the runs to put together.")
        )
    places = [find_bundle(part.path).resolve() for part in parts]
    twice = [str(part.path) for part, place in zip(parts, places, strict=True) if places.count(place) > 1]
    if twice:
        raise RunError(must_be("RUNS", "named once each", twice[0], "Weights say how much one counts."))
    points = {str(part.path): part.model.keypoints.names for part in parts if part.model.keypoints}
    if points and len(points) < len(parts):
        other = next(str(part.path) for part in parts if part.model.keypoints is None)
        raise RunError(must_be(other, "a model of points, as the others", "a model of classes", "Leave it out."))
    if points and weights == "fitted":
        raise RunError(must_be("--weights", "'equal' for models of points", "fitted", "Leave it out."))
    _refuse_other_forms(parts)
    _refuse_other_crops(parts)
    names = points or {str(part.path): part.model.class_names for part in parts}
    check_same_names(names, what="points" if points else "classes")
    if points and len(set(points.values())) > 1:
        raise RunError(must_be("RUNS", "models whose points come in the same order", "other orders"))


def _refuse_other_forms(parts: Sequence[_Part]) -> None:
    """Refuse models whose labels are of another form than the first one's: only equal answers can be averaged."""
    words = {None: "one label a photo", "joint": "combinations as classes (--label a+b)"}
    words |= {"heads": "a head for each column (--label a,b)", "multi": "several classes at once (--multi-label)"}
    forms = [part.model.labels.form if part.model.labels else None for part in parts]
    for part, form in zip(parts, forms, strict=True):
        if form != forms[0]:
            expected = f"a model of {words[forms[0]]}, as {parts[0].path}"
            raise RunError(must_be(str(part.path), expected, f"a model of {words[form]}", "Leave it out."))


def _refuse_other_crops(parts: Sequence[_Part]) -> None:
    """Refuse models that look at another part of the photos than the first one: one recipe cuts it out for all."""
    first = _crop_of(_bundles_of(parts[0].model)[0])
    for part in parts:
        for crop in map(_crop_of, _bundles_of(part.model)):
            if crop != first:
                expected = f"a model that looks at {_word_crop(first)}, as {parts[0].path}"
                got = f"one that looks at {_word_crop(crop)}"
                raise RunError(must_be(str(part.path), expected, got, "Leave it out, or train it anew in that way."))


def _bundles_of(model: Bundle | Ensemble) -> tuple[Bundle, ...]:
    return model.members if isinstance(model, Ensemble) else (model,)


def _crop_of(bundle: Bundle) -> dict[str, Any]:
    """Give the settings by which a model's part of each photo is cut out; none where it looks at all of it."""
    crop = bundle.metadata.get("extra", {}).get("crop", {})
    return {name: value for name, value in crop.items() if value is not None}


def _word_crop(crop: Mapping[str, Any]) -> str:
    """Word a crop.

    Examples:
        >>> _word_crop({"crop_to_box": "Face"}), _word_crop({})
        ('what --crop-to-box Face cuts out', 'whole photos')
    """
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in crop.items())
    return f"what {flags} cuts out" if crop else "whole photos"


def _joined(parts: Sequence[_Part]) -> tuple[Ensemble, list[MemberSource]]:
    """Give all members as one ensemble, those of ensembles each by itself, and where each lies."""
    members: list[Bundle] = []
    shares: list[float] = []
    sources: list[MemberSource] = []
    for part, share in zip(parts, equal_weights(len(parts)).tolist(), strict=True):
        folder, model = find_bundle(part.path), part.model
        if isinstance(model, Bundle):
            members.append(model)
            shares.append(share)
            sources.append(MemberSource(folder, share, origin=str(part.path)))
            continue
        members += model.members
        shares += [share * weight for weight in model.weights]
        sources += [
            MemberSource(folder / entry["folder"], 0.0, origin=f"{part.path}, {entry['from'] or entry['folder']}")
            for entry in model.metadata["members"]
        ]
    first = parts[0].model
    return Ensemble(tuple(members), tuple(shares), first.class_names, first.keypoints, {}, first.labels), sources


def _fitted(parts: Sequence[_Part], ensemble: Ensemble, recipe: Recipe) -> tuple[float, ...]:
    """Fit weights on the validation photos of one part that no part trained on.

    Raises:
        RunError: There are none, or it is not known what a part trained on.
    """
    trained = learned_by(_ancestors(parts), splits=("train",))
    found = _most([_labelled(part, trained, split="validation") for part in parts])
    unknown = trained.unknown
    if found is None or unknown:
        remedy = "Use --weights equal, or runs that share a split (--split RUN/split.parquet)."
        got = f"none: what {unknown[0]} was trained on is not known" if unknown else "none"
        expected = "'equal' where there are no validation photos that no member trained on"
        raise RunError(must_be("--weights", expected, f"fitted, with {got}", remedy))
    if found.count < _FEW:
        say(f"Careful: weights are fitted on {found.count:,} photos only; equal ones may do better.")
    table = with_labels_of(ensemble, found.table)
    everyone = replace(ensemble, weights=tuple(equal_weights(len(ensemble.members)).tolist()))
    views, chosen = open_views(everyone, table, found.recipe), pl.col("split") == "validation"
    how = found.recipe.model_copy(update={"num_threads": recipe.num_threads})
    said = ask_members(everyone, views, how, chosen=lambda rows: rows.filter(chosen))
    weights = _fit(said, table)
    say(f"weights fitted on {found.count:,} validation photos: {', '.join(f'{one:.3f}' for one in weights)}")
    return tuple(weights.tolist())


def _fit(said: MemberAnswers, table: SampleTable) -> NDArray[np.float64]:
    if table.labels is None:
        return fit_weights(said.answers, said.rows["label"].cast(pl.Int64).to_numpy())
    labels = labels_of(said.rows)
    return fit_weights_to_truth(np.stack([of_truth(one, labels, table.labels) for one in said.answers]))


def _unseen(parts: Sequence[_Part]) -> _Labelled | None:
    """Give the photos that no part has learned from, of the part that has most of them, as a test; None without any."""
    learned = learned_by(_ancestors(parts))
    return None if learned.unknown else _most([_labelled(part, learned, split="test") for part in parts])


def _labelled(part: _Part, learned: Learned, *, split: str) -> _Labelled | None:
    """Give a part's own photos that belong together with none of what all parts have learned from; None without any.

    For validation those that it validated with, for a test all: what another part was tested on may serve, too.
    """
    if part.run is None or not (part.run.path / "table.parquet").exists():
        return None
    table = SampleTable.load(part.run.path / "table.parquet")
    units, is_learned = learned.joined(table.frame)
    frame = table.frame.with_columns(unit=pl.when(pl.col("unit").is_not_null()).then(pl.Series(units)))
    is_free = pl.lit(value=True) if split == "test" else pl.col("split") == "validation"
    is_free = (pl.col("excluded").is_null() & is_free).fill_null(value=False)
    is_kept = frame.select(kept=is_free & ~pl.Series(is_learned))["kept"]
    if not is_kept.any():
        return None
    is_kin = is_free & pl.Series(is_learned) & ~pl.col("content_hash").is_in(list(learned.hashes))
    num_kin = frame.filter(is_kin).height
    frame = frame.with_columns(split=pl.when(is_kept).then(pl.lit(split)))
    return _Labelled(table.with_frame(frame), part.run.recipe, int(is_kept.sum()), num_kin)


def _most(found: Sequence[_Labelled | None]) -> _Labelled | None:
    return max((one for one in found if one is not None), key=lambda one: one.count, default=None)


def _scored(
    parts: Sequence[_Part], ensemble: Ensemble, test: _Labelled | None, recipe: Recipe
) -> tuple[tuple[EnsembleScoring, SampleTable] | None, list[str]]:
    """Score the ensemble on its test; or say why it has none."""
    if test is None:
        unknown = [place for part in parts for place in part.unknown]
        why = "each labelled photo of its members was learned from by at least one of them, or one of its group was"
        why = f"what {unknown[0]} has learned from is not known" if unknown else why
        return None, [f"Not scored: {why}. Score it on other photos: headstart evaluate ENSEMBLE DATA."]
    table = with_labels_of(ensemble, test.table) if test.table.keypoints is None else test.table
    how = test.recipe.model_copy(update={"num_threads": recipe.num_threads})
    try:
        views = open_views(ensemble, table, how)
    except SourceError as error:
        return None, [f"Not scored: {error}"]
    said = ask_members(ensemble, views, how, chosen=lambda rows: rows.filter(pl.col("split") == "test"))
    scoring = score_votes(said, ensemble.weights, table, how, splits=("test",))
    lines = [f"Scored on {test.count:,} photos of {test.recipe.data} that no member has seen."]
    if test.num_kin:
        kin = counted(test.num_kin, "more is", "more are")
        lines.append(f"{kin} left out: members learned from others of the same group, burst or set of copies.")
    return (scoring, views[0].table), lines


def _base_recipe(parts: Sequence[_Part], test: _Labelled | None) -> Recipe:
    """Give the recipe by which photos are read: the test's, else the first run's, else what the bundles say."""
    runs = [part.run.recipe for part in parts if part.run]
    if test is not None or runs:
        return (test.recipe if test else runs[0]).updated(folds=None, fold=None)
    bundle = _bundles_of(parts[0].model)[0]
    task = "classification" if bundle.keypoints is None else "keypoints"
    return make_recipe({"task": task, "backbone": bundle.network.name, **_crop_of(bundle)})


def _write(
    run: RunFolder,
    parts: Sequence[_Part],
    ensemble: Ensemble,
    sources: Sequence[MemberSource],
    scoring: tuple[EnsembleScoring, SampleTable] | None,
    lines: Sequence[str],
    *,
    title: Path,
) -> None:
    """Write all files of the ensemble's folder."""
    members = [{"from": one.origin, "weight": one.weight} for one in sources]
    unknown, leaks = sorted({place for part in parts for place in part.unknown}), _leaks(parts)
    run.note(kind="ensemble", members=members, unknown=unknown, split=list(lines), account=[], leaks=leaks, weights=[])
    save_ensemble(
        run.path / "bundle", sources, class_names=ensemble.class_names, keypoints=ensemble.keypoints,
        labels=ensemble.labels,
        extra={"crop": _crop_of(ensemble.members[0]), "versions": run.facts["versions"]},
    )  # fmt: skip
    _save_learned(parts, run.path / LEARNED_FILE)
    table = scoring[1] if scoring else None
    vote = scoring[0] if scoring else None
    write_member_report(run, members, table, vote, ensemble=ensemble, title=title.resolve().name)
    more: dict[str, Any] = {"members": members, "chosen": "ensemble"}
    if scoring is None or table is None:
        task = "keypoints" if ensemble.keypoints else ensemble.labels.task if ensemble.labels else "classification"
        write_json(run.path / "metrics.json", {"task": task, "seconds": {}} | more)
        return
    table.save(run.path / "table.parquet")
    save_predictions(scoring[0].vote, run.path / "predictions.parquet")
    save_metrics(scoring[0].vote, table, run.path / "metrics.json", seconds={}, **more, **scoring[0].to_metrics_json())


def _leaks(parts: Sequence[_Part]) -> list[str]:
    """Give the leaks of the members' own splits, each with those that have it."""
    found: dict[str, list[str]] = {}
    for part in parts:
        for line in part.run.facts.get("leaks", []) if part.run else ():
            found.setdefault(line, []).append(str(part.path))
    return [f"{', '.join(names)}: {line}" for line, names in found.items()]


def _save_learned(parts: Sequence[_Part], path: Path) -> None:
    """Write down what members know of and have learned from, themselves and through those that they go back to."""
    with written_aside(path) as aside:
        rows_learned(_ancestors(parts)).write_parquet(aside)
