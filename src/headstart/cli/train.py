"""``headstart train``: check, split, train, evaluate, report, bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from headstart.cli.flags import recipe_from_flags, with_recipe_flags
from headstart.errors import RecipeError
from headstart.progress import say
from headstart.recipe import make_recipe
from headstart.runs import RunFolder

GROUPS = ("Data", "Split", "Pixels", "Augmentation", "Model", "Training", "Machine")

WRITTEN = ("from_sha256", "epochs_before")
"""Settings that a run writes into its recipe, and nobody types."""


def _train(
    data: Annotated[Path | None, Parameter(help="the photos: a folder, a table, or an archive of either")] = None,
    *,
    out: Annotated[Path | None, Parameter(help="the run folder, new or empty")] = None,
    recipe: Annotated[
        Path | None,
        Parameter(help="settings from a TOML file (RUN/recipe.toml), or of the gallery (headstart recipes)"),
    ] = None,
    resume: Annotated[
        Path | None, Parameter(help="go on with this run where it stopped, or (with --epochs) beyond its end")
    ] = None,
    **settings: Any,
) -> None:
    from headstart import pipeline

    if resume is not None:
        epochs = settings.pop("epochs", None)
        flags = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
        given = [name for name, value in {"DATA": data, "--out": out, "--recipe": recipe, **flags}.items() if value]
        if given:
            problem = f"--resume takes everything but --epochs from the run's own recipe; leave out {', '.join(given)}."
            raise RecipeError(problem)
        pipeline.resume(resume, epochs=None if epochs is None else make_recipe({"epochs": epochs}).epochs)
        return
    if data is not None:
        settings["data"] = str(data)
    resolved = recipe_from_flags(settings, command=_train, recipe_file=recipe)
    if out is None or resolved.data is None:
        raise RecipeError(
            "train needs DATA and --out RUN, or --recipe FILE with data in it and --out RUN, or --resume RUN."
        )
    if recipe is not None:
        _say_what_is_not_repeated(recipe)
    pipeline.train(out=out, recipe=resolved)


def _say_what_is_not_repeated(recipe: Path) -> None:
    """Say so where the recipe lies in the folder of a run that it does not repeat."""
    if recipe.name == "recipe.toml" and (recipe.parent / "run.json").exists():
        for line in RunFolder.open(recipe.parent).describe_unrepeatable():
            say(f"Careful: {line}")


train = with_recipe_flags(_train, groups=GROUPS, leave_out=WRITTEN)
