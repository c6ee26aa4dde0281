"""The recipes that ship with the package: list them, copy one, check names, their JSON Schema."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

from surgeon.calibration import LM_EVAL
from surgeon.errors import OutputExists, RecipeError, UsageError
from surgeon.probing.prompts import load_prompts
from surgeon.recipe import Recipe, find_recipe, load_recipe, recipe_names
from surgeon.record import Record
from surgeon.score import get_scorer
from surgeon.tasks import find_task


class Listed(Record):
    """One line of `recipes ls`."""

    name: str
    model: str
    purpose: str


class RecipeList(Record):
    """The recipes that ship with the package."""

    SCHEMA: ClassVar[str] = "surgeon.recipes/1"

    recipes: tuple[Listed, ...]


class Validated(Record):
    """Recipes that were found valid."""

    SCHEMA: ClassVar[str] = "surgeon.recipes.validate/1"

    recipes: tuple[Recipe, ...]


class Copied(Record):
    """Where a recipe was copied to."""

    SCHEMA: ClassVar[str] = "surgeon.recipes.cp/1"

    path: Path


def list_recipes() -> RecipeList:
    """Name, model and purpose of each; the purpose is the first line of its file."""
    return RecipeList(recipes=tuple(_listed(name) for name in recipe_names()))


def _listed(name: str) -> Listed:
    first = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0]
    return Listed(name=name, model=load_recipe(name).model, purpose=first.lstrip("# ").rstrip("."))


def copy_recipe(name: str, to: Path, *, force: bool = False) -> Copied:
    """Copy a recipe to a file, or into a folder that is there.

    Raises:
        OutputExists: the target is there and `force` was not given.
        UsageError: no such recipe, or no such folder.
    """
    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists() and not force:
        raise OutputExists(f"`{target}` exists", hint="choose another path, or give --force")
    if not target.parent.is_dir():
        raise UsageError(f"the folder `{target.parent}` does not exist")
    shutil.copyfile(source, target)
    return Copied(path=target)


def validate_recipes(names: list[str], settings: dict[str, str]) -> Validated:
    """Read recipes and look up every name in them.

    Raises:
        RecipeError: every problem of every recipe, in one message.
    """
    good, problems = [], []
    for name in names:
        try:
            recipe = load_recipe(name, settings)
            check_names(recipe, name)
            good.append(recipe)
        except UsageError as error:
            problems.append(str(error) + (f"\n  {error.hint}" if error.hint else ""))
    if problems:
        raise RecipeError("\n".join(problems))
    return Validated(recipes=tuple(good))


def check_names(recipe: Recipe, origin: str) -> None:
    """Look up the names of scorers, tasks and prompts; open no model.

    Raises:
        RecipeError: some do not exist; all in one message.
    """
    tasks = dict.fromkeys((recipe.select.task, *recipe.check.tasks))
    lookups: list[Callable[[], object]] = [
        *(partial(get_scorer, scorer) for scorer in recipe.probe.scorers),
        *(partial(find_task, task) for task in tasks),
    ]
    if not recipe.probe.prompts.startswith(LM_EVAL):  # its documents may have to be fetched
        lookups.append(partial(load_prompts, recipe.probe.prompts, limit=recipe.probe.limit))
    problems = []
    for look in lookups:
        try:
            look()
        except UsageError as error:
            problems.append(f"{origin}: {error}" + (f"; {error.hint}" if error.hint else ""))
    if problems:
        raise RecipeError("\n".join(problems))


def recipe_schema() -> dict[str, object]:
    """JSON Schema (draft 2020-12) of a recipe file."""
    made = Recipe.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "surgeon recipe",
    }
