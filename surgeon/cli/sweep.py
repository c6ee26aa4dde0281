"""`surgeon sweep`: measure every block instead of predicting it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output
from surgeon.errors import UsageError

if TYPE_CHECKING:
    from surgeon.score import Ranking

EPILOG = """\
Examples:  surgeon sweep demo:planted --task cups --race
  ·  surgeon sweep ./model --task gsm8k --against probe.json --out runs/sweep
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("sweep", epilog=EPILOG)(sweep)


def sweep(
    model: options.ModelArgument,
    sizes: options.Sizes = "3:6",
    every: Annotated[
        bool, typer.Option("--all", help="Every block there is, whatever its size.")
    ] = False,
    times: Annotated[
        str, typer.Option("--times", metavar="N|A..B", help="How often a block runs: 2, or 1..4.")
    ] = "2",
    each_layer: Annotated[
        bool, typer.Option("--each-layer", help="Also repeat each layer of a block in place.")
    ] = False,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="A bundled or any lm-eval task; may be repeated.",
            autocompletion=complete.tasks,
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Of bundled tasks: select, confirm or calibrate.")
    ] = "select",
    include_path: Annotated[
        Path | None, typer.Option("--include-path", help="A folder of lm-eval task YAML files.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "--documents", min=1, help="Most documents per candidate.")
    ] = 500,
    race: Annotated[
        bool,
        typer.Option("--race", help="Drop candidates as soon as they cannot be the best."),
    ] = False,
    beam: Annotated[
        int, typer.Option("--beam", metavar="N", min=0, help="Compose blocks, keeping the N best.")
    ] = 0,
    blocks: Annotated[
        int, typer.Option("--blocks", min=1, help="Most blocks of a composition, with --beam.")
    ] = 3,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="JSON of surgeon probe: compare its rankings; - is stdin; may be repeated.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", help="Differences smaller than this do not matter.")
    ] = 0.02,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Error probability of all intervals together.")
    ] = 0.05,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="Stop after this long.")
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="For hidden states, such as 512MiB.")
    ] = "1GiB",
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Work on this Ray cluster, or auto."),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", metavar="FILE", help="Rows to go on with; default in --out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where files go; default runs/sweep-NAME."),
    ] = None,
    fewshot: Annotated[
        int | None, typer.Option("--fewshot", min=0, help="Number of shots; the task's if not set.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Apply the tokenizer's chat template.")
    ] = False,
    plots: Annotated[
        Literal["auto", "yes", "no"], typer.Option("--plots", help="Also write PNG figures.")
    ] = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Measure the effect of every block, in memory; no checkpoint is written.

    Measured rows are kept in a ledger: the same command goes on where it was stopped, and
    several may work on one at a time.
    """
    said = Output(as_json, quiet, verbose, not no_progress)
    wanted = None if every else options.size_range(sizes)
    repeats, budget = _times(times), options.byte_count(memory)
    rankings = _rankings(against or [])
    from surgeon.checkpoint.store import Checkpoint
    from surgeon.hub import resolve

    source = resolve(model, offline=offline)
    if dry_run:
        from surgeon.report.sweep_tables import sweep_plan_text
        from surgeon.sweeping.preview import plan_sweep

        depth = Checkpoint.open(source.path).depth
        planned = plan_sweep(depth, wanted, repeats, each_layer, limit)
        said.result(planned, sweep_plan_text(planned), str(planned.candidates))
        return
    folder = out or Path("runs") / f"sweep-{_name(model)}"
    from surgeon.evals.evaltask import Protocol
    from surgeon.report.sweep_tables import sweep_table
    from surgeon.report.sweep_write import check_writable, write_sweep
    from surgeon.sweeping.sweep import sweep as run_sweep

    def watch(line: str) -> None:
        said.live(line)
        said.note(line)

    check_writable(folder, plots)
    with said.working() as report:
        result = run_sweep(
            source.path,
            task or ["deduction"],
            sizes=wanted,
            times=repeats,
            each=each_layer,
            split=split,
            documents=limit,
            race=race,
            beam=beam,
            blocks=blocks,
            against=rankings,
            ledger=ledger or folder / "sweep.jsonl",
            memory=budget,
            margin=margin,
            alpha=alpha,
            minutes=minutes,
            seed=seed,
            device=device,
            dtype=dtype,
            protocol=Protocol(fewshot=fewshot, chat=chat),
            include_path=include_path,
            offline=offline,
            ray=ray,
            name="@".join(filter(None, (source.name.partition("@")[0], source.revision))),
            report=report,
            watch=watch,
        )
    for note in result.notes:
        said.warning(note)
    for path in write_sweep(result, folder, plots):
        said.note(f"wrote {path}")
    said.result(result, sweep_table(result), result.winner or "no winner")


def _name(model: str) -> str:
    """The model's own name, for a folder."""
    return re.sub(r"[^\w.-]+", "-", Path(model.partition("@")[0]).name).strip("-.") or "model"


def _times(text: str) -> tuple[int, ...]:
    """`2` is twice, `2,4` twice and four times, `1..4` all from 1 to 4."""
    found = re.fullmatch(r"(\d{1,2})\.\.(\d{1,2})", text.strip())
    if found:
        return tuple(range(int(found[1]), int(found[2]) + 1))
    if re.fullmatch(r"\d{1,2}(,\d{1,2})*", text.replace(" ", "")):
        return tuple(sorted({int(part) for part in text.split(",")}))
    raise UsageError(f"--times `{text}` is not a number or a range", hint="2, or 2,3, or 1..4")


def _rankings(files: list[str]) -> "list[Ranking]":
    """The rankings of probes."""
    from surgeon.probing.result import ProbeResult

    return [
        ranking
        for file in files
        for ranking in ProbeResult.from_dict(options.read_json(file)).rankings
    ]
