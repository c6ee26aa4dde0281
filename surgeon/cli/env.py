"""`surgeon env`: what a result depends on besides the inputs, for a bug report."""

import typer

from surgeon.cli import options
from surgeon.cli.output import Output

EPILOG = "Example:  surgeon env --json"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("env", epilog=EPILOG)(env)


def env(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Show versions, devices and settings, for a bug report. Shows no token."""
    from surgeon.environment import look_around
    from surgeon.report.tables import plain_table

    found = look_around()
    table = plain_table("", "")
    table.show_header = False
    rows = {"surgeon": found.surgeon, "python": found.python, "platform": found.platform}
    rows |= {name: version or "not installed" for name, version in found.packages.items()}
    rows |= {
        "devices": ", ".join(found.devices) or "cpu only",
        "cpus": str(found.cpus),
        "free disk here": f"{found.free_disk_bytes / 1e9:,.1f} GB",
        "logged in": "yes" if found.logged_in else "no",
        **found.variables,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Output(as_json, quiet).result(found, table, found.surgeon)
