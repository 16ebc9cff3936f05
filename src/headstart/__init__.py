"""headstart: from a folder of labelled photos to an image model its owner can trust.

The public API, loaded when first used::

    import headstart

    run = headstart.train("photos/", out="runs/first")
    model = headstart.load("runs/first")
    model.predict(["new.jpg"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.deploy.predictor import Prediction as Prediction
    from headstart.deploy.predictor import Predictor as Predictor
    from headstart.deploy.predictor import load as load
    from headstart.errors import HeadstartError as HeadstartError
    from headstart.pipeline import check as check
    from headstart.pipeline import convert as convert
    from headstart.pipeline import ensemble as ensemble
    from headstart.pipeline import evaluate as evaluate
    from headstart.pipeline import train as train
    from headstart.recipe import Recipe as Recipe

__version__ = "0.1.0"

_HOMES = {
    "HeadstartError": "errors",
    "Prediction": "deploy.predictor",
    "Predictor": "deploy.predictor",
    "Recipe": "recipe",
    "check": "pipeline",
    "convert": "pipeline",
    "ensemble": "pipeline",
    "evaluate": "pipeline",
    "load": "deploy.predictor",
    "train": "pipeline",
}

__all__ = [
    "HeadstartError", "Prediction", "Predictor", "Recipe", "check", "convert", "ensemble", "evaluate", "load", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    return getattr(import_module(f"headstart.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
