"""`surgeon verify`: is a checkpoint what its manifest, its base and its plan say."""

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output

EPILOG = "Example:  surgeon verify ./upgraded --base demo:planted --logits"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("verify", epilog=EPILOG)(verify)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The checkpoint to verify.")],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="What it was made from.",
            autocompletion=complete.models,
        ),
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Load both and compare logits (needs --base).")
    ] = False,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Check files, digests, bytes, structure, loader keys and, on request, logits.

    Ends with exit code 1 if a check fails.
    """
    out = Output(as_json, quiet, verbose)
    from surgeon.hub import resolve
    from surgeon.report.checkpoints import verification_table
    from surgeon.verification.checks import verify as look

    source = resolve(base, offline=offline).path if base else None
    found = look(folder, base=source, logits=logits, strict=False)
    out.result(found, verification_table(found), "passed" if found.passed else "failed")
    if not found.passed:
        raise typer.Exit(1)
