"""Values that a shell completes: names of recipes, models, scorers, tasks and prompts.

Where none fits, the shell offers files. Nothing heavy is imported, so that a shell does not
wait; what a user wrote himself (lm-eval tasks, folders, models of the Hub) is not listed.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from io import StringIO

import typer


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from surgeon.recipe import recipe_names

    return _beginning(recipe_names(), incomplete)


def models(incomplete: str) -> list[str]:
    """Bundled models."""
    from surgeon.hub import DEMO_MODELS

    return _beginning([f"demo:{name}" for name in DEMO_MODELS], incomplete)


def scorers(incomplete: str) -> list[str]:
    """Every scorer."""
    from surgeon.score import SCORERS

    return _beginning(SCORERS, incomplete)


def tasks(incomplete: str) -> list[str]:
    """Bundled tasks."""
    from surgeon.tasks import TASKS

    return _beginning(TASKS, incomplete)


def prompts(incomplete: str) -> list[str]:
    """Bundled prompt sets, and the bundled tasks as prompts."""
    from surgeon.probing.prompts import SETS, TASK_PREFIX
    from surgeon.tasks import TASKS

    return _beginning([*SETS, *(f"{TASK_PREFIX}{name}" for name in TASKS)], incomplete)


def topics(incomplete: str) -> list[str]:
    """Topics of `surgeon help`."""
    from surgeon.topics import TOPICS

    return _beginning(TOPICS, incomplete)


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Completes a closed list."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(values, incomplete)

    return complete


devices = one_of("auto", "cpu", "cuda")
dtypes = one_of("auto", "float32", "bfloat16", "float16")


def _beginning(values: Iterable[str], incomplete: str) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]


def answer_bash(app: typer.Typer) -> None:
    """Answer bash, which takes `demo:planted` for three words, as if it were one.

    Bash breaks words at colons and replaces only what follows the last one, so the words are
    joined again before, and what bash already has is taken from the answers after.
    """
    words, at = joined(os.environ["COMP_WORDS"].split(), int(os.environ["COMP_CWORD"]))
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(words), str(at)
    has = words[at].rpartition(":")[0] + ":" if at < len(words) and ":" in words[at] else ""
    answers = StringIO()
    try:
        with redirect_stdout(answers):
            app()
    finally:
        for line in answers.getvalue().splitlines():
            print(line.removeprefix(has))


def joined(words: list[str], at: int) -> tuple[list[str], int]:
    """The words with those around a colon in one, and where the word at `at` went.

    >>> joined(["surgeon", "inspect", "demo", ":", "pl"], 4)
    (['surgeon', 'inspect', 'demo:pl'], 2)
    """
    whole: list[str] = []
    place, glue = 0, False
    for number, word in enumerate(words):
        if whole and (glue or word == ":"):
            whole[-1] += word
        else:
            whole.append(word)
        glue = word.endswith(":")
        if number == at:
            place = len(whole) - 1
    return whole, place if at < len(words) else len(whole)
