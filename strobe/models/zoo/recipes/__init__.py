"""How each bundled model is made: `strobe train NAME` follows the recipe called NAME.

A module here that has a tuple RECIPES adds them; adding a recipe is adding the file.
"""

import pkgutil
from functools import cache
from importlib import import_module

from strobe.models.zoo.recipes.recipe import Make, Progress, Recipe

__all__ = ["Make", "Progress", "Recipe", "recipe", "recipes"]


@cache
def recipes() -> dict[str, Recipe]:
    """Every recipe by its name. Raises ValueError if two have the same one."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    every = [one for module in modules for one in getattr(module, "RECIPES", ())]
    by_name = {one.name: one for one in every}
    if len(by_name) < len(every):
        names = [one.name for one in every]
        raise ValueError(f"two recipes are called {next(n for n in names if names.count(n) > 1)!r}; rename one")
    return by_name


def recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises ValueError with the known names."""
    if name not in recipes():
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(recipes())}")
    return recipes()[name]
