"""`surgeon push`: a checkpoint to the Hub, verified, with its card."""

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.output import Output

EPILOG = """\
Examples:  surgeon push runs/demo me/planted-16 --private
  ·  surgeon push ./upgraded me/upgraded --check check.json --pr
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("push", epilog=EPILOG)(push)


def push(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run folder, or a checkpoint surgeon wrote.")
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO_ID", help="owner/name on the Hub.")],
    check: Annotated[
        str | None,
        typer.Option(
            "--check", metavar="FILE", help="JSON of surgeon check, if no run has one; - is stdin."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create it as private.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch; created if it is missing.")
    ] = None,
    pull_request: Annotated[
        bool, typer.Option("--pr", help="Open a pull request instead of committing.")
    ] = False,
    allow_verdict: Annotated[
        bool,
        typer.Option("--allow-verdict", help="Push what is worse, undecided or never checked."),
    ] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
) -> None:
    """Verify a checkpoint and upload it with its model card, as one commit.

    Refuses what is worse, undecided or was never checked. Needs `hf auth login` or HF_TOKEN;
    ends with exit code 4 without. The same command goes on after a failure.
    """
    out = Output(as_json, quiet, verbose, not no_progress)
    from surgeon.evals.result import CheckResult
    from surgeon.release import push as send
    from surgeon.report.tables import push_table

    found = CheckResult.from_dict(options.read_json(check)) if check else None
    with out.working() as report:
        pushed = send(
            folder,
            repository,
            check=found,
            private=private,
            revision=revision,
            pull_request=pull_request,
            allow_verdict=allow_verdict,
            dry_run=dry_run,
            report=report,
        )
    out.result(pushed, push_table(pushed), pushed.upload.url if pushed.upload else "dry run")
