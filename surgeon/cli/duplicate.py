"""`surgeon duplicate`: write the checkpoint that a layer plan makes. Never imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from surgeon.block import Block
from surgeon.cli import complete, options
from surgeon.cli.output import Output
from surgeon.errors import UnknownName, UsageError
from surgeon.plan import LayerPlan, repeat_blocks

if TYPE_CHECKING:
    from surgeon.checkpoint.store import Checkpoint

EPILOG = """\
Examples:  surgeon duplicate demo:planted ./upgraded --block 4:8
  ·  surgeon probe ./model --json | surgeon duplicate ./model ./upgraded --from -
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("duplicate", epilog=EPILOG)(duplicate)


def duplicate(
    model: options.ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    block: Annotated[
        list[str] | None,
        typer.Option("--block", metavar="A:B", help="Run layers A..B-1 again; may be repeated."),
    ] = None,
    times: Annotated[int, typer.Option("--times", min=1, help="Passes through each block.")] = 2,
    layers: Annotated[
        str | None,
        typer.Option("--layers", metavar="PLAN", help="The exact plan, such as ':11,6:'."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Take the plan from a JSON result or a mergekit YAML; - is stdin.",
        ),
    ] = None,
    link: Annotated[
        str,
        typer.Option(
            "--link",
            help="auto, reflink, copy or hard: how bytes are moved.",
            autocompletion=complete.one_of("auto", "reflink", "copy", "hard"),
        ),
    ] = "auto",
    drop_mtp: Annotated[
        bool, typer.Option("--drop-mtp", help="Leave multi-token-prediction layers behind.")
    ] = False,
    emit: Annotated[
        str | None,
        typer.Option("--emit", metavar="mergekit", help="Write the plan to OUT as mergekit YAML."),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Write a checkpoint in which a block of layers runs twice, by copying bytes."""
    said = Output(as_json, quiet, verbose, not no_progress)
    from surgeon.checkpoint.copying import Link
    from surgeon.checkpoint.mergekit import write_mergekit
    from surgeon.checkpoint.rewrite import duplicate as write
    from surgeon.checkpoint.store import Checkpoint
    from surgeon.hub import resolve
    from surgeon.report.tables import manifest_table

    if sum(given is not None for given in (block or None, layers, source)) != 1:
        raise UsageError("give exactly one of --block, --layers and --from")
    if link not in get_args(Link):
        raise UnknownName("link mode", link, get_args(Link))
    checkpoint = Checkpoint.open(resolve(model, offline=offline).path)
    plan = _plan(checkpoint, block, times, layers, source)
    if emit is not None:
        name = str(checkpoint.path) if model.startswith("demo:") else model
        if emit != "mergekit":
            raise UnknownName("file format", emit, ["mergekit"])
        if drop_mtp:
            raise UsageError("--drop-mtp cannot be said in mergekit YAML; leave out one of the two")
        file = write_mergekit(plan, name, out, force=force, dry_run=dry_run)
        said.result(file, file.text.rstrip(), str(out))
        return
    manifest = write(
        checkpoint,
        plan,
        out,
        force=force,
        dry_run=dry_run,
        drop_mtp=drop_mtp,
        link=cast(Link, link),
        on_warning=said.warning,
    )
    said.result(manifest, manifest_table(manifest, out, dry_run), str(out))


def _plan(
    checkpoint: "Checkpoint",
    blocks: list[str] | None,
    times: int,
    layers: str | None,
    source: str | None,
) -> LayerPlan:
    """The plan that the options name."""
    if layers is not None:
        return LayerPlan.parse(layers, checkpoint.depth)
    if source is not None:
        from surgeon.checkpoint.mergekit import from_mergekit
        from surgeon.selection import plan_from

        if source.endswith((".yaml", ".yml")):
            return from_mergekit(options.read_text(source), checkpoint.depth)
        return plan_from(options.read_json(source), checkpoint.depth, times)
    return repeat_blocks(checkpoint.depth, [Block.parse(text) for text in blocks or []], times)
