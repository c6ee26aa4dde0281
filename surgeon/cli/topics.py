"""`surgeon help TOPIC`: what does not belong to one command."""

from typing import Annotated

import typer

from surgeon.cli import complete, options
from surgeon.cli.output import Output
from surgeon.errors import UnknownName

EPILOG = "Example:  surgeon help exit-codes"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("help", epilog=EPILOG)(topic_help)


def topic_help(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="environment, exit-codes, files or notation.",
            autocompletion=complete.topics,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Explain the environment, exit codes, notation or files."""
    from surgeon.topics import TOPICS, Topic

    if topic is None:
        text = "Topics: " + ", ".join(TOPICS) + "\n\nsurgeon COMMAND --help explains a command."
        Output(as_json).result(Topic(topic="topics", text=text), text, "topics")
        return
    if topic not in TOPICS:
        raise UnknownName("help topic", topic, TOPICS)
    Output(as_json).result(Topic(topic=topic, text=TOPICS[topic]), TOPICS[topic], topic)
