"""`surgeon recipes`: list, show, copy and validate recipes, and their JSON Schema."""

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A shipped recipe's name, or a recipe file.",
        autocompletion=complete.recipes,
    ),
]

EPILOG = """\
Examples:  surgeon recipes ls
  ·  surgeon recipes cp demo my.yaml
  ·  surgeon recipes validate my.yaml --set check.documents=500
"""

group = typer.Typer(help="List, show, copy and validate recipes.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the command group."""
    app.add_typer(group, name="recipes", epilog=EPILOG)


@group.command("ls")
def ls(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the recipes that ship with the package."""
    from surgeon.catalogue import list_recipes
    from surgeon.report.tables import plain_table

    out = Output(as_json, quiet)
    found = list_recipes()
    table = plain_table("recipe", "model", "purpose")
    for each in found.recipes:
        table.add_row(each.name, each.model, each.purpose)
    out.result(found, table, "\n".join(each.name for each in found.recipes))


@group.command("show")
def show(name: NameArgument, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Print a recipe with its comments; with --json, as it is understood."""
    from surgeon.recipe import find_recipe, load_recipe

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
    from surgeon.catalogue import copy_recipe

    out = Output(as_json, quiet)
    copied = copy_recipe(name, to, force=force)
    out.result(copied, str(copied.path), str(copied.path))


@group.command("validate")
def validate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Recipe files or names.", autocompletion=complete.recipes
        ),
    ],
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
    from surgeon.catalogue import validate_recipes
    from surgeon.cli.run import settings_of

    out = Output(as_json, quiet)
    found = validate_recipes(names, settings_of(setting or []))
    out.result(found, "\n".join(f"{recipe.name}: valid" for recipe in found.recipes), "valid")


@group.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    With the YAML language server, put `# yaml-language-server: $schema=recipe.schema.json`
    on a recipe's first line.
    """
    from surgeon.catalogue import recipe_schema

    Output().document(recipe_schema())
