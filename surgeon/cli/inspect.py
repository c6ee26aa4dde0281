"""`surgeon inspect`: what a checkpoint is, read from headers alone."""

from typing import Annotated

import typer

from surgeon.block import Block
from surgeon.cli import options
from surgeon.cli.output import Output
from surgeon.errors import UsageError
from surgeon.plan import LayerPlan, repeat_blocks

EPILOG = "Example:  surgeon inspect demo:planted --json"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("inspect", epilog=EPILOG)(inspect)


def inspect(
    model: options.ModelArgument,
    block: Annotated[
        list[str] | None,
        typer.Option("--block", metavar="A:B", help="Also say where the result can be used."),
    ] = None,
    times: Annotated[int, typer.Option("--times", min=1, help="Passes through each block.")] = 2,
    layers: Annotated[
        str | None, typer.Option("--layers", metavar="PLAN", help="The same for an exact plan.")
    ] = None,
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
    from surgeon.report.checkpoints import inspection_table

    checkpoint = Checkpoint.open(resolve(model, offline=offline).path)
    if block and layers:
        raise UsageError("give --block or --layers, not both")
    plan = None
    if layers:
        plan = LayerPlan.parse(layers, checkpoint.depth)
    elif block:
        plan = repeat_blocks(checkpoint.depth, [Block.parse(text) for text in block], times)
    inspection = look(checkpoint, plan)
    out.result(inspection, inspection_table(inspection), inspection.size_class)
