"""Recipes: the settings of a published result, with the figures to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from somatlas.errors import InputError
from somatlas.runs.setting_sources import read_toml
from somatlas.runs.settings import Config


@dataclass(frozen=True)
class Recipe:
    """Settings as a configuration has them, and what was published for them."""

    settings: dict[str, Any]
    published: dict[str, Any]


def recipe_names() -> list[str]:
    """The recipes that come with somatlas, one for each model of the paper."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir())


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file of the user's own.

    `system_from = "module:NAME"` takes the system prompt from a library that carries it, so that
    its text need not be copied. Raises InputError for an unknown name, or a file that names no
    model or a setting that there is not.
    """
    if name in recipe_names():
        content = read_toml(_folder() / f"{name}.toml", "recipe")
    elif name.endswith(".toml"):
        content = read_toml(Path(name), "recipe")
    else:
        raise InputError(f"there is no recipe {name!r}: take {', '.join(recipe_names())} or a file")
    published = content.pop("published", {})
    if source := content.pop("system_from", None):
        content["system"] = _imported(source)
    if "model" not in content:
        raise InputError(f"recipe {name} names no model")
    Config.merged(content)
    return Recipe(content, published)


def published_for(config: Config) -> dict[str, Any] | None:
    """What was published for the run's recipe; None without one.

    Where flags won over the recipe in what decides a result, `otherwise` names those settings: the
    figures are of others.
    """
    if config.recipe is None:
        return None
    recipe = load_recipe(config.recipe)
    whole = Config.merged(recipe.settings)
    otherwise = [
        name
        for name in recipe.settings
        if Config.stage_of(name) is not None and getattr(whole, name) != getattr(config, name)
    ]
    return recipe.published | ({"otherwise": otherwise} if otherwise else {})


def _imported(source: str) -> str:
    module, _, attribute = source.partition(":")
    try:
        return str(getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise InputError(f"the system prompt {source} cannot be had ({error})") from None


def _folder() -> Traversable:
    return files("somatlas") / "data" / "recipes"
