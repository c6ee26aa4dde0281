"""The texts a model is probed with: bundled sets, a bundled task, or the user's own file.

A prompt set is recorded with where it came from and a digest of its texts, because a
ranking is only comparable with another one over the same prompts. The texts are handed on
as they are: no chat template, no truncation (the engine does both, and says so).
"""

import hashlib
import json
import os
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from surgeon.errors import SurgeonError, UnknownName, UsageError
from surgeon.record import Record
from surgeon.tasks import TASKS, find_task
from surgeon.tasks.documents import documents, shuffled

SETS: dict[str, tuple[str, ...]] = {
    "default": ("reasoning", "general"),
    "reasoning": ("reasoning",),
    "general": ("general",),
    "reasoning-en": ("reasoning-en",),
    "reasoning-hi": ("reasoning-hi",),
    "reasoning-zh": ("reasoning-zh",),
    "reasoning-fr": ("reasoning-fr",),
}
"""Bundled set -> the data files it is made of.

`default` is 25 reasoning and 25 general texts, the mix of the CircuitProbe paper
(arXiv 2604.00716). The four languages hold the same problems, line by line.
"""

TASK_PREFIX = "task:"
TEXT_FIELDS = ("text", "prompt", "question")
SUFFIXES = (".txt", ".jsonl")


def prompts_digest(texts: Sequence[str]) -> str:
    """sha256 (hex) over the texts in order, as one ASCII-only JSON array."""
    return hashlib.sha256(json.dumps(list(texts)).encode("ascii")).hexdigest()


class Prompts(Record):
    """A set of prompts.

    `name` is what was asked for, `origin` one sentence on where the texts come from,
    `digest` their `prompts_digest`; there is at least one text and none is blank.
    """

    SCHEMA: ClassVar[str] = "surgeon.prompts/1"

    name: str
    origin: str
    digest: str
    texts: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what no probe can use, and a digest that is not that of the texts."""
        if defect := _defect(self.texts):
            raise ValueError(defect)
        if self.digest != prompts_digest(self.texts):
            raise ValueError(f"digest `{self.digest}` is not that of the texts")
        return self

    @classmethod
    def of(cls, name: str, origin: str, texts: Sequence[str]) -> Self:
        """The set of these texts, with its digest.

        Raises:
            UsageError: no texts, or one that is blank or not Unicode text.
        """
        if defect := _defect(texts):
            raise UsageError(f"prompt set `{name}`: {defect}")
        return cls(name=name, origin=origin, digest=prompts_digest(texts), texts=tuple(texts))


def load_prompts(source: str, *, limit: int | None = None, seed: int = 0) -> Prompts:
    """The prompts that `source` names.

    Args:
        source: the name of a bundled set (`SETS`); `task:NAME`, the 1,000 texts of a
            bundled task's `calibrate` split, without answers; or the path of a file. A
            bundled name wins over a file of that name (write `./reasoning` for the file).
            A `.txt` file holds one prompt a line, white space at both ends removed. A
            `.jsonl` file holds one object a line, and the prompt is its `text`, else
            `prompt`, else `question` field, kept exactly. Both are UTF-8; blank lines are
            skipped; a prompt of any length is kept whole.
        limit: at most this many prompts, drawn at random and kept in their order; as
            evenly as possible from each part of `default`. None takes all.
        seed: of that draw; without `limit` it has no effect.

    Example:
        >>> import surgeon
        >>> prompts = surgeon.load_prompts("task:cups", limit=2)
        >>> print(prompts.origin)
        The calibrate split of the bundled task `cups`, ... (2 of 1000 drawn with seed 0)

    Raises:
        UnknownName: no such set or task; the message lists the names.
        UsageError: no such file, not UTF-8, a malformed line, an empty prompt, no prompts
            at all, or a limit below 1; for a line the message gives file and line number.
        SurgeonError: the file cannot be read.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"prompt limit is {limit}, expected 1 or more")
    origin, parts = _parts(source)
    total = sum(len(part) for part in parts)
    if limit is not None and limit < total:
        parts = _drawn(parts, limit, seed)
        origin = f"{origin} ({limit} of {total} drawn with seed {seed})"
    return Prompts.of(source, origin, [text for part in parts for text in part])


def _parts(source: str) -> tuple[str, list[list[str]]]:
    """Origin and texts of a source, in the parts a limit is spread over."""
    if source in SETS:
        bundled = [_bundled(name) for name in SETS[source]]
        return " ".join(origin for origin, _ in bundled), [texts for _, texts in bundled]
    if source.startswith(TASK_PREFIX):
        task = find_task(source.removeprefix(TASK_PREFIX))
        texts = [document.text for document in documents(task, "calibrate")]
        return f"The calibrate split of the bundled task `{task.name}`, without answers.", [texts]
    path = Path(source)
    if os.path.isfile(source) and path.suffix.lower() in SUFFIXES:
        return f"The file `{source}`.", [_read_file(path)]
    raise _no_such_source(source)


def _no_such_source(source: str) -> UsageError:
    """Why `source` is no prompt set: what is wrong with the path, if it looks like one."""
    known = [*SETS, *(TASK_PREFIX + name for name in TASKS)]
    names = f"or name a bundled set: {', '.join(known)}"
    if os.path.isdir(source):
        return UsageError(f"prompt source `{source}` is a folder", f"give a file, {names}")
    if os.path.exists(source):
        return UsageError(
            f"prompt file `{source}` does not end in {' or '.join(SUFFIXES)}",
            "`.txt` holds one prompt a line, `.jsonl` one JSON object a line",
        )
    if os.path.basename(source) != source or Path(source).suffix:
        return UsageError(f"prompt file `{source}` does not exist", f"check the path, {names}")
    return UnknownName("prompt set", source, known)


def _drawn(parts: list[list[str]], limit: int, seed: int) -> list[list[str]]:
    """`limit` texts in all, spread evenly (earlier parts first), each part in its order."""
    rng = random.Random(f"surgeon/prompts/{seed}")
    shares = [0] * len(parts)
    while sum(shares) < limit:
        open_parts = [i for i, part in enumerate(parts) if shares[i] < len(part)]
        shares[min(open_parts, key=lambda i: shares[i])] += 1
    return [
        [part[i] for i in sorted(shuffled(rng, range(len(part)))[:share])]
        for part, share in zip(parts, shares, strict=True)
    ]


def _bundled(name: str) -> tuple[str, list[str]]:
    """Origin and texts of a data file; its first line holds the origin."""
    lines = (files("surgeon.probing") / "data" / f"{name}.jsonl").read_text("utf-8").splitlines()
    origin: str = json.loads(lines[0])["origin"]
    return origin, [json.loads(line)["text"] for line in lines[1:]]


def _read_file(path: Path) -> list[str]:
    """The prompts of a `.txt` or `.jsonl` file (see `load_prompts`)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SurgeonError(f"prompt file `{path}` cannot be read: {error.strerror}") from error
    texts = []
    # Only \n ends a line: splitlines() would also cut at characters that occur in texts.
    for number, line in enumerate(_decoded(path, content).split("\n"), start=1):
        if not line.strip():
            continue
        text = line.strip() if path.suffix.lower() == ".txt" else _field(path, number, line)
        if problem := _problem(text):
            raise UsageError(f"{path}: line {number}: the prompt {problem}")
        texts.append(text)
    if not texts:
        raise UsageError(f"prompt file `{path}` holds no prompts")
    return texts


def _decoded(path: Path, content: bytes) -> str:
    """The file as text, a leading byte order mark removed."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise UsageError(
            f"{path}: line {line}, byte {column} (offset {error.start} in the file): "
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            hint="save the file as UTF-8",
        ) from error


def _field(path: Path, number: int, line: str) -> str:
    """The prompt in one line of JSON."""
    where = f"{path}: line {number}"
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of open brackets
        raise UsageError(f"{where}: not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: expected a JSON object, got {type(entry).__name__}")
    for field in TEXT_FIELDS:
        if field in entry:
            value = entry[field]
            if not isinstance(value, str):
                raise UsageError(f"{where}: `{field}` is {type(value).__name__}, expected text")
            return value
    raise UsageError(f"{where}: none of the fields {', '.join(f'`{f}`' for f in TEXT_FIELDS)}")


def _problem(text: str) -> str | None:
    """What makes a text unusable as a prompt, or None.

    JSON escapes can spell half of a surrogate pair, which no tokenizer accepts.
    """
    if not text.strip():
        return "is empty"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "is not Unicode text: it holds half of a surrogate pair"
    return None


def _defect(texts: Sequence[str]) -> str | None:
    """What makes texts unusable as a set, or None."""
    if not texts:
        return "there are no prompts"
    problems = ((i, _problem(text)) for i, text in enumerate(texts))
    return next((f"prompt {i} {problem}" for i, problem in problems if problem), None)
