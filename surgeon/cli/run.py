"""`surgeon run`: the whole chain, from a recipe."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output
from surgeon.errors import RequirementNotMet, UsageError

EPILOG = """\
Examples:  surgeon run demo --out runs/demo
  ·  surgeon run my.yaml --set check.documents=500 --require improved --json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("run", epilog=EPILOG)(run)


def run(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe file, or a shipped recipe's name.",
            autocompletion=complete.recipes,
        ),
    ] = "demo",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Use this model instead.",
            autocompletion=complete.models,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Run folder; default runs/RECIPE."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Save the best block even if none gained enough.")
    ] = False,
    require: Annotated[
        Literal["improved", "not-worse"] | None,
        typer.Option("--require", help="End with exit code 5 unless this is shown."),
    ] = None,
    dry_run: options.DryRun = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of random choices.")] = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Run the whole chain: probe, select, duplicate, verify, check, cost.

    Finished stages of an earlier run in the same folder are taken as they are.
    """
    from surgeon.recipe import load_recipe

    said = Output(as_json, quiet, verbose, not no_progress)
    given = {"model": model, "device": device, "seed": seed}
    settings = settings_of(setting or [], given)
    asked = load_recipe(recipe, settings)
    folder = out or Path("runs") / asked.name

    from surgeon.hub import resolve
    from surgeon.pipeline import judge_names
    from surgeon.pipeline import run as run_chain
    from surgeon.report.tables import outcome_table, recipe_text, stage_line

    source = resolve(asked.model, offline=offline)
    if dry_run:
        judge_names(asked, source)
        said.result(asked, recipe_text(asked, folder), asked.name)
        return
    with said.working(stages=True) as report:
        outcome = run_chain(
            asked,
            source,
            folder,
            keep=keep,
            report=report,
            say=lambda stage: said.stage(stage_line(stage)),
        )
    for warning in outcome.warnings:
        said.warning(warning)
    said.result(outcome, outcome_table(outcome), outcome.conclusion)
    if require and not outcome.meets(require):
        raise RequirementNotMet(f"--require {require}: the run ended `{outcome.conclusion}`")


def settings_of(
    pairs: list[str], given: dict[str, str | int | None] | None = None
) -> dict[str, str]:
    """`--set` pairs, and the options that stand for recipe keys, as overrides.

    Raises:
        UsageError: a pair without a key or an equals sign.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UsageError(f"--set `{pair}` is not KEY=VALUE", hint="--set check.documents=500")
        settings[key] = value
    options_ = {key: str(value) for key, value in (given or {}).items() if value is not None}
    return settings | options_
