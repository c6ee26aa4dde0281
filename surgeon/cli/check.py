"""`surgeon check`: is the candidate better, worse or the same, document by document."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output
from surgeon.errors import RequirementNotMet, UsageError

EPILOG = """\
Examples:  surgeon check ./model ./upgraded --task deduction --limit 200 --require improved
  ·  surgeon check ./model ./upgraded --task gsm8k --limit 300 --margin 0.03 --rows rows.jsonl
"""

CandidateArgument = Annotated[
    str,
    typer.Argument(
        metavar="CANDIDATE",
        help="What to compare with it; a folder or owner/name\\[@revision].",
        show_default=False,
        autocompletion=complete.models,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("check", epilog=EPILOG)(check)


def check(
    base: options.ModelArgument,
    candidate: CandidateArgument,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="A bundled or any lm-eval task; may be repeated.",
            autocompletion=complete.tasks,
        ),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option("--weight", help="Weight of each --task, in order; equal if not given."),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Of bundled tasks: select, confirm or calibrate.")
    ] = "confirm",
    include_path: Annotated[
        Path | None, typer.Option("--include-path", help="A folder of lm-eval task YAML files.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "--budget", min=1, help="Most documents in all.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="Stop after this long.")
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", help="Differences smaller than this do not matter.")
    ] = 0.02,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Error probability of the verdict.")
    ] = 0.05,
    plan: Annotated[
        Literal["sequential", "fixed", "obf"],
        typer.Option("--plan", help="Stop when clear; one test at the end; or five looks."),
    ] = "sequential",
    candidates: Annotated[
        int,
        typer.Option("--candidates", min=1, help="How many are being compared on this split."),
    ] = 1,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", help="JSONL file that counts the candidates ever checked."),
    ] = None,
    require: Annotated[
        Literal["improved", "not-worse"] | None,
        typer.Option("--require", help="End with exit code 5 unless this is shown."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Primary metric, if not the task's first.")
    ] = None,
    answer_filter: Annotated[
        str | None, typer.Option("--filter", help="Answer filter, if not the task's lenient one.")
    ] = None,
    fewshot: Annotated[
        int | None, typer.Option("--fewshot", min=0, help="Number of shots; the task's if not set.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Apply the tokenizer's chat template.")
    ] = False,
    system: Annotated[
        str | None, typer.Option("--system", help="System message, with --chat.")
    ] = None,
    duplicates: Annotated[
        Literal["refuse", "drop"],
        typer.Option("--duplicates", help="What to do about documents that occur twice."),
    ] = "refuse",
    rows: Annotated[
        Path | None, typer.Option("--rows", help="Write per-document results as JSON lines.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Folder for a forest and a running plot.")
    ] = None,
    backend: Annotated[
        Literal["engine", "hf", "vllm"],
        typer.Option("--backend", help="engine shares weights and work; hf, vllm: lm-eval's own."),
    ] = "engine",
    independent: Annotated[
        bool, typer.Option("--independent", help="Load both models whatever is known of them.")
    ] = False,
    device_map: Annotated[
        Literal["auto"] | None,
        typer.Option("--device-map", help="auto spreads a model over all devices."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Most rows of a forward pass.")
    ] = 256,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    seed: options.Seed = 0,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Compare a candidate with its base on the same documents and give a verdict."""
    out = Output(as_json, quiet, verbose, not no_progress)
    names = task or ["deduction"]
    weights = _weights(names, weight)
    if system is not None and not chat:
        raise UsageError("--system needs --chat")
    from surgeon.evals.check import check as run_check
    from surgeon.evals.evaltask import Protocol
    from surgeon.hub import resolve
    from surgeon.paired import Verdict
    from surgeon.report.verdicts import check_table, live_line

    def watch(verdict: Verdict) -> None:
        out.live(live_line(verdict))
        out.note(live_line(verdict))

    sources = [resolve(each, offline=offline) for each in (base, candidate)]
    with out.working() as report:
        result = run_check(
            sources[0].path,
            sources[1].path,
            names,
            split=split,
            limit=limit,
            minutes=minutes,
            margin=margin,
            plan=plan,
            alpha=alpha,
            candidates=candidates,
            seed=seed,
            weights=weights,
            require=require,
            protocol=Protocol(fewshot, metric, answer_filter, chat, system),
            duplicates=duplicates,
            include_path=include_path,
            offline=offline,
            device=device,
            dtype=dtype,
            device_map=device_map,
            independent=independent,
            backend=backend,
            batch_size=batch_size,
            ledger=ledger,
            rows_to=rows,
            report=report,
            watch=watch,
        )
    if plots:
        from surgeon.report.plots_check import save_plots

        for path in save_plots(result, plots):
            out.note(f"wrote {path}")
    out.result(result, check_table(result), result.verdict.verdict)
    if require and not result.meets(require):
        raise RequirementNotMet(
            f"--require {require} is not met: the verdict is {result.verdict.verdict}"
            + (f", worse on {', '.join(result.regressed)}" if result.regressed else "")
        )


def _weights(names: list[str], weight: list[float] | None) -> dict[str, float] | None:
    if not weight:
        return None
    if len(weight) != len(names):
        raise UsageError(f"{len(weight)} --weight for {len(names)} --task; give one each")
    return dict(zip(names, weight, strict=True))
