"""`surgeon report`: the page, the summary and the model card of a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.output import Output

EPILOG = "Example:  surgeon report runs/demo"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("report", epilog=EPILOG)(report)


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write report.html, report.md and the model card of a run again.

    `surgeon run` writes them at its end; this is for a folder that was moved, or made by an
    earlier version. report.html is one file that loads nothing.
    """
    out = Output(as_json, quiet, verbose)
    from surgeon.outcome import Written
    from surgeon.report.write import write_reports

    made = Written(files=tuple(write_reports(folder)))
    out.result(made, "\n".join(str(path) for path in made.files), str(made.files[0]))
