"""`surgeon probe`: rank the blocks of a base model by activation statistics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output

if TYPE_CHECKING:
    from surgeon.probing.prompts import Prompts

EPILOG = """\
Examples:  surgeon probe demo:planted --prompts task:cups --limit 100 --robustness
  ·  surgeon probe ./model --scorer stability --sizes 3:6 --json > probe.json
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("probe", epilog=EPILOG)(probe)


def probe(
    model: options.ModelArgument,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            help="Name of a scorer; may be repeated.",
            autocompletion=complete.scorers,
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts",
            metavar="FILE|NAME",
            help="A bundled set, task:NAME, lm-eval:TASK or a file; may be repeated.",
            autocompletion=complete.prompts,
        ),
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option("--include-path", help="A folder of lm-eval task YAML files.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Use at most this many prompts.")
    ] = None,
    sizes: options.Sizes = "3:6",
    top: Annotated[int, typer.Option("--top", min=1, help="Blocks shown per scorer.")] = 3,
    compat: Annotated[
        str | None,
        typer.Option(
            "--compat",
            metavar="circuitprobe",
            help="Rank as that program does.",
            autocompletion=complete.one_of("circuitprobe"),
        ),
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Score again over subsets of the prompts.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write .png, .svg or .html.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Cut longer prompts.")
    ] = 256,
    skip_first: Annotated[
        int,
        typer.Option("--skip-first", min=0, help="Leading positions to leave out of the means."),
    ] = 0,
    entropy: Annotated[
        bool, typer.Option("--entropy", help="Also measure attention entropy (slower).")
    ] = False,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put prompts into the chat template.")
    ] = False,
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
    from surgeon.probing.engine import DEFAULT_SCORERS
    from surgeon.probing.engine import probe as run_probe
    from surgeon.report.plots import check_plot_path, save_probe_plots
    from surgeon.report.tables import probe_table
    from surgeon.score import check_compat, get_scorer

    scorers = tuple(scorer) if scorer else DEFAULT_SCORERS[: 2 if compat else None]
    for name in scorers:
        get_scorer(name)
    check_compat(compat)
    if plot:
        check_plot_path(plot)
    wanted = options.size_range(sizes)
    calibration = _prompts(prompts or ["default"], limit, seed, include_path, offline)
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
            compat=compat is not None,
            max_tokens=max_tokens,
            skip_first=skip_first,
            entropy=entropy,
            chat_template=chat_template,
            trust=robustness,
            report=report,
        )
    out.note(f"device {result.device.value} ({result.device.reason})")
    out.note(f"dtype {result.dtype.value} ({result.dtype.reason})")
    for note in result.notes:
        out.warning(note)
    if plot:
        out.note(f"plots in {save_probe_plots(result, plot)}")
    first = result.rankings[0].best
    out.result(result, probe_table(result, top), str(first.block) if first else "")


def _prompts(
    names: list[str], limit: int | None, seed: int, include_path: Path | None, offline: bool
) -> "Prompts":
    """One set, or several in a row; `limit` holds for each."""
    from surgeon.calibration import find_prompts
    from surgeon.probing.prompts import Prompts

    parts = [
        find_prompts(name, limit=limit, seed=seed, include_path=include_path, offline=offline)
        for name in names
    ]
    if len(parts) == 1:
        return parts[0]
    return Prompts.of(
        "+".join(part.name for part in parts),
        "; ".join(part.origin for part in parts),
        [text for part in parts for text in part.texts],
    )
