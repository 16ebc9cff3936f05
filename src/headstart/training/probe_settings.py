"""Settings of the probe, of which ``headstart schedule`` tells without loading PyTorch."""

from __future__ import annotations

from typing import Any

from headstart.recipe import Recipe
from headstart.recipe_defaults import DECOUPLED_DECAY

BATCH_SIZE = 128
"""Samples a step of the probe: features are small, larger batches are faster and score the same."""


def probe_recipe(recipe: Recipe) -> Recipe:
    """Give the settings of the probe: the recipe's own where nothing else will train, else AdamW and a cosine.

    Examples:
        >>> from headstart.recipe import Recipe
        >>> probe_recipe(Recipe(optimizer="sgd", probe_epochs=40)).optimizer
        'adamw'
        >>> probe_recipe(Recipe(optimizer="sgd", unfreeze="none", epochs=30)).epochs
        30
    """
    if recipe.trains_only_head and recipe.epochs:
        return recipe
    own: dict[str, Any] = {"epochs": recipe.probe_epochs, "lr": recipe.probe_lr, "batch_size": BATCH_SIZE}
    own["patience"] = max(recipe.probe_epochs, 1)  # an epoch takes no time, and the best one is kept
    plain = {"optimizer": "adamw", "weight_decay": DECOUPLED_DECAY, "schedule": "cosine", "warmup_epochs": 1.0}
    return recipe.model_copy(update=own | plain | {"min_lr": 0.0, "cycle_epochs": None, "accumulate": 1})
