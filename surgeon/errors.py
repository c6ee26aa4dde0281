"""Everything `surgeon` raises on purpose, with the exit code a command ends with.

    SurgeonError            1   it failed: I/O, model, harness
    ├── UsageError          2   what was asked is not well formed
    │   ├── UnknownName         a scorer, task, prompt set or recipe that does not exist
    │   └── RecipeError         a recipe with unknown keys or wrong values
    ├── Refused             3   a guard says no before anything is read or written
    │   ├── TooLarge            7B class: duplication is known to hurt
    │   ├── UnsupportedModel    architecture or per-layer state that a copy would break
    │   ├── UnsafeCheckpoint    pickle, or malformed or hostile safetensors
    │   ├── NoSpace             not enough disk
    │   └── OutputExists        OUT is there and --force was not given
    ├── NeedsLogin          4   gated or private repository
    └── RequirementNotMet   5   --require was given and the verdict does not meet it

A message starts with the fact, names the value, and has no full stop if it is one
sentence; `hint` is the next thing to do. Any other exception is a defect of `surgeon` and
is shown with its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SurgeonError(Exception):
    """Base of all deliberate errors.

    Args:
        message: the fact with its value.
        hint: what to do next, or None.

    Example:
        >>> import surgeon
        >>> try:
        ...     surgeon.resolve("demo:plantd")
        ... except surgeon.SurgeonError as error:
        ...     print(error, error.exit_code, error.hint, sep="; ")
        unknown demo model `plantd`; known: control, planted; 2; did you mean `planted`?
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint


class UsageError(SurgeonError):
    """What was asked is not well formed."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not in a closed list; the message carries the list."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        super().__init__(
            f"unknown {kind} `{name}`; known: {', '.join(names)}",
            hint=f"did you mean `{near[0]}`?" if near else None,
        )


class RecipeError(UsageError):
    """A recipe that does not validate; all problems in one message."""


class Refused(SurgeonError):
    """A guard says no; nothing was read or written."""

    exit_code = 3


class TooLarge(Refused):
    """The model is in the size class where duplication is known to hurt."""


class UnsupportedModel(Refused):
    """The architecture, or state it keeps per layer, cannot be copied soundly."""


class UnsafeCheckpoint(Refused):
    """Pickle, or malformed or hostile safetensors."""


class NoSpace(Refused):
    """The output would not fit on the disk."""


class OutputExists(Refused):
    """The output path is taken."""


class NeedsLogin(SurgeonError):
    """The repository is gated or private and no valid token was given."""

    exit_code = 4


class RequirementNotMet(SurgeonError):
    """`--require` was given and the verdict does not meet it."""

    exit_code = 5
