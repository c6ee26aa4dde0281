"""`surgeon inspect`: what a checkpoint is, read from headers alone."""

import typer

from surgeon.cli import options
from surgeon.cli.output import Output

EPILOG = "Example:  surgeon inspect demo:planted --json"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("inspect", epilog=EPILOG)(inspect)


def inspect(
    model: options.ModelArgument,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show parameters, size class, family, layers and what the guard says."""
    out = Output(as_json, quiet, verbose)
    from surgeon.checkpoint.inspect import inspect as look
    from surgeon.checkpoint.store import Checkpoint
    from surgeon.hub import resolve
    from surgeon.report.tables import inspection_table

    inspection = look(Checkpoint.open(resolve(model, offline=offline).path))
    out.result(inspection, inspection_table(inspection), inspection.size_class)
