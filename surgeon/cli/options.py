"""Options and arguments that several commands share, spelled the same everywhere."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from surgeon.cli import complete
from surgeon.errors import UsageError

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder, owner/name\\[@revision] on the Hub, or demo:planted / demo:control.",
        show_default=False,
        autocompletion=complete.models,
    ),
]

Device = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype", help="auto, float32, bfloat16 or float16.", autocompletion=complete.dtypes
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing output.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say what would be done; touch nothing.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the identifier.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also say what is done and why, on stderr.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show no progress.")]

Sizes = Annotated[
    str, typer.Option("--sizes", metavar="A:B", help="Block sizes, half-open like a block.")
]


def size_range(text: str) -> tuple[int, ...]:
    """`3:6` is sizes 3, 4, 5; `4` is size 4.

    Raises:
        UsageError: neither.
    """
    from surgeon.block import Block

    if text.isdigit() and int(text) > 0:
        return (int(text),)
    try:
        return tuple(size for size in Block.parse(text).layers if size > 0)
    except UsageError as error:
        raise UsageError(
            f"--sizes `{text}` is not a range", hint="3:6 means sizes 3, 4 and 5"
        ) from error


UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def byte_count(text: str) -> int:
    """`512MiB`, `1.5GB` or `800000000` in bytes.

    Raises:
        UsageError: it is not a size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", text.strip().upper())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise UsageError(f"`{text}` is not a size", hint="write 512MiB, 2GiB or 1.5GB")
    return int(float(found[1]) * UNITS[found[2]])


def read_json(source: str) -> Any:
    """The JSON document in a file, or on stdin for `-`.

    Raises:
        UsageError: it is not there or not JSON.
    """
    name = "stdin" if source == "-" else f"`{source}`"
    try:
        return json.loads(read_text(source))
    except ValueError as error:
        raise UsageError(f"{name} is no readable JSON: {error}") from error


def read_text(source: str) -> str:
    """The text in a file, or on stdin for `-`.

    Raises:
        UsageError: it is not there or not text.
    """
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        name = "stdin" if source == "-" else f"`{source}`"
        raise UsageError(f"cannot read {name}: {error}") from error
