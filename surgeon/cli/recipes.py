"""`surgeon recipes`: list, show, copy and validate recipes, and their JSON Schema."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from surgeon.cli import options
from surgeon.cli.output import Output
from surgeon.errors import OutputExists, RecipeError, UsageError
from surgeon.recipe import Recipe, find_recipe, load_recipe, recipe_names
from surgeon.record import Record

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A shipped recipe's name, or a recipe file.")
]

EPILOG = """\
Examples:  surgeon recipes ls
  ·  surgeon recipes cp demo my.yaml
  ·  surgeon recipes validate my.yaml --set check.documents=500
"""

group = typer.Typer(help="List, show, copy and validate recipes.", no_args_is_help=True)


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


def add_to(app: typer.Typer) -> None:
    """Register the command group."""
    app.add_typer(group, name="recipes", epilog=EPILOG)


@group.command("ls")
def list_recipes(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the recipes that ship with the package."""
    from surgeon.report.tables import plain_table

    out = Output(as_json, quiet)
    found = [_listed(name) for name in recipe_names()]
    table = plain_table("recipe", "model", "purpose")
    for each in found:
        table.add_row(each.name, each.model, each.purpose)
    names = "\n".join(each.name for each in found)
    out.result(RecipeList(recipes=tuple(found)), table, names)


def _listed(name: str) -> Listed:
    first = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0]
    return Listed(name=name, model=load_recipe(name).model, purpose=first.lstrip("# ").rstrip("."))


@group.command("show")
def show(name: NameArgument, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Print a recipe with its comments; with --json, as it is understood."""
    out = Output(as_json, quiet)
    recipe = load_recipe(name)
    if as_json:
        out.document(recipe.to_dict())
    else:
        print(find_recipe(name).read_text(encoding="utf-8"), end="")


@group.command("cp")
def copy(
    name: NameArgument,
    to: Annotated[Path, typer.Argument(metavar="DEST", help="A file, or a folder that is there.")],
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Copy a recipe to a file of your own."""
    out = Output(as_json, quiet)
    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists() and not force:
        raise OutputExists(f"`{target}` exists", hint="choose another path, or give --force")
    if not target.parent.is_dir():
        raise UsageError(f"the folder `{target.parent}` does not exist")
    shutil.copyfile(source, target)
    out.result(Copied(path=target), str(target), str(target))


@group.command("validate")
def validate(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Recipe files or names.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipes."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Report every problem of every recipe with its file, line and key.

    Looks at keys, values and the names of scorers, tasks and prompts; opens no model.
    """
    from surgeon.cli.run import settings_of

    out = Output(as_json, quiet)
    settings = settings_of(setting or [])
    good, problems = [], []
    for name in names:
        try:
            recipe = load_recipe(name, settings)
            _check_names(recipe, name)
            good.append(recipe)
        except UsageError as error:
            problems.append(str(error) + (f"\n  {error.hint}" if error.hint else ""))
    if problems:
        raise RecipeError("\n".join(problems))
    text = "\n".join(f"{recipe.name}: valid" for recipe in good)
    out.result(Validated(recipes=tuple(good)), text, "valid")


def _check_names(recipe: Recipe, origin: str) -> None:
    """Raise on scorers, tasks or prompts that do not exist, all in one message."""
    from surgeon.probing.prompts import load_prompts
    from surgeon.score import get_scorer
    from surgeon.tasks import find_task

    tasks = dict.fromkeys((recipe.select.task, *recipe.check.tasks))
    lookups: list[Callable[[], object]] = [
        *(partial(get_scorer, scorer) for scorer in recipe.probe.scorers),
        *(partial(find_task, task) for task in tasks),
        partial(load_prompts, recipe.probe.prompts, limit=recipe.probe.limit),
    ]
    problems = []
    for look in lookups:
        try:
            look()
        except UsageError as error:
            problems.append(f"{origin}: {error}" + (f"; {error.hint}" if error.hint else ""))
    if problems:
        raise RecipeError("\n".join(problems))


@group.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    With the YAML language server, put `# yaml-language-server: $schema=recipe.schema.json`
    on a recipe's first line.
    """
    Output().document(recipe_schema())


def recipe_schema() -> dict[str, object]:
    """JSON Schema (draft 2020-12) of a recipe file."""
    made = Recipe.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "surgeon recipe",
    }
