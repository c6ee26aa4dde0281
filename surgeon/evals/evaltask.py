"""What is asked: a task with its documents and primary metric, and one document's requests.

lm-eval's task and request objects are held here, and nothing of lm-eval is imported.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np

from surgeon.errors import UsageError

ROLLING_SCALE = 0.25
"""Bits per unit of text: a larger change of one document counts no more than this."""

FEWSHOT_SEED = 1234
"""Seed of few-shot draws, with the document's number: a prompt never depends on the subset."""


@dataclass(frozen=True)
class Protocol:
    """How prompts are made; the same for everything that is compared.

    `fewshot` None is the task's own number. `metric` and `filter` None are the task's
    primary ones. `chat` applies the tokenizer's chat template, with `system` as the system
    message.
    """

    fewshot: int | None = None
    metric: str | None = None
    filter: str | None = None
    chat: bool = False
    system: str | None = None


@dataclass(frozen=True)
class EvalTask:
    """One lm-eval task, ready: its documents are loaded and its primary metric is fixed.

    `scale` is the difference in `metric` that counts as a whole document's worth; 1 for
    metrics in 0..1.
    """

    name: str
    split: str
    task: Any
    docs: Any
    metric: str
    filter: str
    protocol: Protocol = field(default_factory=Protocol)

    def __len__(self) -> int:
        return len(self.docs)

    @property
    def output_type(self) -> str:
        """`multiple_choice`, `loglikelihood`, `loglikelihood_rolling` or `generate_until`."""
        return str(self.task.OUTPUT_TYPE)

    @property
    def bounded(self) -> bool:
        """Whether scores lie in 0..1."""
        return self.output_type != "loglikelihood_rolling"

    def order(self, seed: int) -> list[int]:
        """All document numbers in seeded random order; benchmarks are often sorted."""
        ids = list(range(len(self)))
        # random() alone keeps its sequence across Python versions.
        generator = random.Random(f"surgeon/{self.name}/{seed}")
        return sorted(ids, key=lambda _: generator.random())

    @property
    def generates(self) -> bool:
        """Whether the model writes its answers."""
        return self.output_type == "generate_until"

    @cached_property
    def doc_hashes(self) -> list[str]:
        """lm-eval's hash of every document."""
        return [doc_hash(self.docs[at]) for at in range(len(self))]

    @property
    def repeated(self) -> frozenset[int]:
        """Numbers of documents that repeat an earlier one."""
        first: dict[str, int] = {}
        for at, text in enumerate(self.doc_hashes):
            first.setdefault(text, at)
        return frozenset(range(len(self))) - frozenset(first.values())

    def describe(self) -> dict[str, Any]:
        """What a reader needs to repeat the measurement."""
        fewshot = getattr(self.task.config, "num_fewshot", None)
        return {
            "task": self.name,
            "version": str(getattr(self.task, "VERSION", "")),
            "split": self.split,
            "documents": len(self),
            "output_type": self.output_type,
            "metric": self.metric,
            "filter": self.filter,
            "fewshot": int(fewshot or 0),
            "fewshot_seed": FEWSHOT_SEED,
            "chat_template": self.protocol.chat,
            "system": self.protocol.system,
        }


def pooled_scale(tasks: Sequence[EvalTask]) -> float:
    """The largest difference that should count, in units of the pooled score.

    Raises:
        UsageError: tasks whose scores cannot be pooled.
    """
    rolling = [not task.bounded for task in tasks]
    if any(rolling) and not all(rolling):
        raise UsageError("tasks in bits per unit of text and tasks in 0..1 cannot be pooled")
    return ROLLING_SCALE if all(rolling) else 1.0


@dataclass(frozen=True)
class Prompt:
    """One document as lm-eval requests: `instances` as the task built them, and the hashes.

    `gold` is the extra request whose log-likelihood is the right answer's, for tasks that
    generate; None where the task's own requests hold it.
    """

    task: EvalTask
    doc_id: int
    doc: Any
    instances: tuple[Any, ...]
    gold: Any | None
    doc_hash: str
    prompt_hash: str
    target_hash: str

    @property
    def asked(self) -> tuple[Any, ...]:
        """Everything a backend has to answer."""
        return (*self.instances, self.gold) if self.gold is not None else self.instances


def text_hash(text: str) -> str:
    """Hash of a text as lm-eval logs it."""
    return sha256(text.encode()).hexdigest()


def doc_hash(doc: Any) -> str:
    """Hash of a document as lm-eval logs it."""
    return text_hash(json.dumps(doc, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """What lm-eval writes for values that JSON has no form for."""
    if isinstance(value, np.integer):
        return int(value)
    return list(value) if isinstance(value, set) else str(value)
