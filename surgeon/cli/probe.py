"""`surgeon probe`: rank the blocks of a base model by activation statistics."""

from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.output import Output
from surgeon.errors import UsageError

EPILOG = """\
Examples:  surgeon probe demo:planted --prompts task:cups --limit 100
  ·  surgeon probe ./model --scorer stability --sizes 3:6 --json > probe.json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("probe", epilog=EPILOG)(probe)


def probe(
    model: options.ModelArgument,
    scorer: Annotated[
        list[str] | None, typer.Option("--scorer", help="Name of a scorer; may be repeated.")
    ] = None,
    prompts: Annotated[
        str, typer.Option("--prompts", metavar="FILE|NAME", help="Calibration prompts.")
    ] = "default",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Use at most this many prompts.")
    ] = None,
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="A:B", help="Block sizes, half-open like a block.")
    ] = "3:6",
    top: Annotated[int, typer.Option("--top", min=1, help="Blocks shown per scorer.")] = 3,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    seed: options.Seed = 0,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Predict which blocks are worth running twice, from activation statistics."""
    out = Output(as_json, quiet, verbose, not no_progress)
    from surgeon.hub import resolve
    from surgeon.probe.engine import DEFAULT_SCORERS
    from surgeon.probe.engine import probe as run_probe
    from surgeon.probe.prompts import load_prompts
    from surgeon.report.tables import probe_table
    from surgeon.score import get_scorer

    scorers = tuple(scorer) if scorer else DEFAULT_SCORERS
    for name in scorers:
        get_scorer(name)
    wanted = _sizes(sizes)
    calibration = load_prompts(prompts, limit=limit, seed=seed)
    source = resolve(model, offline=offline)
    with out.working() as report:
        result = run_probe(
            source.path,
            calibration,
            scorers=scorers,
            sizes=wanted,
            device=device,
            dtype=dtype,
            seed=seed,
            report=report,
        )
    out.note(f"device {result.device.value} ({result.device.reason})")
    out.note(f"dtype {result.dtype.value} ({result.dtype.reason})")
    for note in result.notes:
        out.warning(note)
    first = result.rankings[0].best
    out.result(result, probe_table(result, top), str(first.block) if first else "")


def _sizes(text: str) -> tuple[int, ...]:
    """`3:6` is sizes 3, 4, 5; `4` is size 4."""
    from surgeon.block import Block

    if text.isdigit() and int(text) > 0:
        return (int(text),)
    try:
        return tuple(size for size in Block.parse(text).layers if size > 0)
    except UsageError as error:
        raise UsageError(
            f"--sizes `{text}` is not a range", hint="3:6 means sizes 3, 4 and 5"
        ) from error
