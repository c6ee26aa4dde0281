"""Everything a command says.

stdout carries the result and nothing else: a table or a line, with `--json` exactly one
document, with `--quiet` only the identifier. stderr carries the talk: progress, notes,
`warning:`, `error:`, `hint:`. Progress bars appear only on a terminal; elsewhere each
stage leaves one line.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from surgeon.errors import SurgeonError

if TYPE_CHECKING:  # help must not wait for them
    from rich.console import Console, RenderableType

    from surgeon.record import Record

Report = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`; `total` 0 means unknown."""

_current: ContextVar["Output | None"] = ContextVar("output", default=None)


class Output:
    """How one command speaks.

    Args:
        as_json: print the record's JSON document instead of text.
        quiet: print only the identifier, and nothing but errors on stderr.
        verbose: also print what is done and why.
        progress: show progress (a bar on a terminal, one line a stage elsewhere).
    """

    def __init__(
        self,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        progress: bool = True,
    ):
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.progress = progress and not quiet
        self.answered = False
        self._live = ""
        _current.set(self)

    @staticmethod
    def current() -> "Output":
        """The output of the command that is running, or a plain one."""
        return _current.get() or Output()

    @staticmethod
    def reset() -> None:
        """Forget the last command's output."""
        _current.set(None)

    def result(self, record: "Record", text: "RenderableType", identifier: str) -> None:
        """Print the command's one result on stdout."""
        if self.as_json:
            self.document(record.to_dict())
        elif self.quiet:
            print(identifier)
        else:
            console(sys.stdout).print(text)

    def document(self, data: dict[str, Any]) -> None:
        """Print the one JSON document on stdout."""
        self.answered = True
        print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))

    def note(self, text: str) -> None:
        """Something done automatically, with its reason."""
        if self.verbose and not self.quiet:
            print(text, file=sys.stderr)

    def live(self, text: str) -> None:
        """What is known so far; stands beside the bar of a terminal."""
        self._live = text

    def warning(self, text: str) -> None:
        """Something the user should know although the command goes on."""
        if not self.quiet:
            print(f"warning: {text}", file=sys.stderr)

    def stage(self, text: str) -> None:
        """A finished stage of several; a terminal shows bars and the summary instead."""
        if self.progress and not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)

    def error(self, error: SurgeonError) -> None:
        """A deliberate failure: on stderr, and as the document if there was none yet."""
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        if self.as_json and not self.answered:
            self.document(
                {
                    "schema": "surgeon.error/1",
                    "error": str(error),
                    "kind": type(error).__name__,
                    "hint": error.hint,
                    "exit_code": error.exit_code,
                }
            )

    @contextmanager
    def working(self, stages: bool = False) -> Iterator[Report]:
        """Show progress while the body runs; yields the callback to report it with.

        Args:
            stages: the command says its stages by itself, so that off a terminal no line is
                wanted for what happens within them.
        """
        if not self.progress or (stages and not sys.stderr.isatty()):
            yield lambda stage, done, total: None
        elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            yield from self._bars()
        else:
            yield from self._lines()

    def _bars(self) -> Iterator[Report]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        tasks: dict[str, TaskID] = {}
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console(sys.stderr),
            transient=True,
        ) as bars:

            def report(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total or None)
                text = f"{stage}  {self._live}" if self._live else stage
                bars.update(tasks[stage], completed=done, total=total or None, description=text)

            yield report

    def _lines(self) -> Iterator[Report]:
        started: dict[str, float] = {}
        ended: set[str] = set()

        def report(stage: str, done: int, total: int) -> None:
            started.setdefault(stage, time.monotonic())
            if total and done >= total and stage not in ended:
                ended.add(stage)
                seconds = time.monotonic() - started[stage]
                print(f"{stage}: {done} in {seconds:.1f} s", file=sys.stderr)

        yield report


def console(stream: Any) -> "Console":
    """A rich console for a stream; wide and plain where it is not a terminal."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else 120, highlight=False)
