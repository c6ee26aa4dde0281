"""The `surgeon` command: its verbs, its help, and how errors become exit codes."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from surgeon.cli import (
    check,
    complete,
    duplicate,
    env,
    inspect,
    probe,
    push,
    recipes,
    report,
    run,
    sweep,
    topics,
    verify,
)
from surgeon.cli.output import Output
from surgeon.errors import SurgeonError
from surgeon.version import __version__


class SurgeonGroup(TyperGroup):
    """Turns deliberate errors into a message and their exit code; lets defects through."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        Output.reset()
        try:
            return super().invoke(ctx)
        except SurgeonError as error:
            Output.current().error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            print("interrupted; what was finished is kept", file=sys.stderr)
            raise typer.Exit(130) from None


EPILOG = "Exit codes: 0 done · 1 failed · 2 usage · 3 refused · 4 login · 5 --require · 130 stopped"

app = typer.Typer(
    cls=SurgeonGroup,
    help="Model surgery on small language models: probe, duplicate, save, check.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"surgeon {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Model surgery on small language models: probe, duplicate, save, check."""


COMMANDS = (
    run, probe, sweep, duplicate, check, inspect, verify, report, push, recipes, env, topics,
)  # fmt: skip

for module in COMMANDS:
    module.add_to(app)


def main() -> None:
    """Entry point of the `surgeon` script."""
    if os.environ.get("_SURGEON_COMPLETE") == "complete_bash":
        complete.answer_bash(app)
    else:
        app()
