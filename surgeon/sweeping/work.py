"""One worker of a sweep: a loaded model that answers units of work.

A unit is some plans on some documents. What a worker needs is a `Setting`, which travels to
other processes and machines; the same unit gives the same rows anywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from surgeon.checkpoint.store import Checkpoint
from surgeon.evals.backends import EngineBackend
from surgeon.evals.engine import Cost
from surgeon.evals.evaltask import EvalTask, Protocol
from surgeon.evals.harness import build, load_tasks, versions
from surgeon.evals.rows import Rows
from surgeon.models import load_model, load_tokenizer
from surgeon.plan import LayerPlan
from surgeon.sweeping.ledger import Line, Row, Unit

Progress = Callable[[int, int], None]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""Files that decide how a text becomes tokens, as far as a model has them."""


@dataclass(frozen=True)
class Setting:
    """Everything that decides a row but the document and the plan.

    Args:
        model: folder of the base.
        tasks: task names.
        split: of bundled tasks.
        device: resolved, `cpu` or `cuda:N`.
        dtype: resolved, a name.
        memory: bytes that hidden states and what is computed from them may take.
        protocol: few-shot number, metric, filter, chat template.
        include_path: a folder of task YAML files.
        offline: never fetch data.
    """

    model: str
    tasks: tuple[str, ...]
    split: str
    device: str
    dtype: str
    memory: int
    protocol: Protocol = field(default_factory=Protocol)
    include_path: str | None = None
    offline: bool = False

    def load_tasks(self) -> list[EvalTask]:
        """The tasks with their documents.

        Raises:
            UnknownName: no such task or split.
        """
        folder = Path(self.include_path) if self.include_path else None
        return load_tasks(self.tasks, self.split, folder, self.offline, self.protocol)

    def inputs(self, tasks: Sequence[EvalTask]) -> dict[str, Any]:
        """What a row depends on, by digest; another value of any of it is another ledger key."""
        folder = Path(self.model)
        files = [folder / name for name in TOKENIZER_FILES]
        return {
            "model": Checkpoint.open(folder).identity(),
            "tokenizer": {f.name: sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()},
            "tasks": [
                {**task.describe(), "sha256": sha256("".join(task.doc_hashes).encode()).hexdigest()}
                for task in tasks
            ],
            "device": self.device.partition(":")[0],
            "dtype": self.dtype,
            "versions": versions(),
        }


class Worker:
    """Loads the model once and answers units.

    Args:
        setting: what to load.
        tasks: loaded already, or None to load them here.

    Raises:
        SurgeonError: the model cannot be loaded.
    """

    def __init__(self, setting: Setting, tasks: Sequence[EvalTask] | None = None):
        self.tasks = {task.name: task for task in tasks or setting.load_tasks()}
        folder = Path(setting.model)
        self.backend = EngineBackend(
            load_model(folder, device=setting.device, dtype=setting.dtype),
            load_tokenizer(folder),
            memory=setting.memory,
        )

    def answer(self, unit: Unit, progress: Progress | None = None) -> list[Line]:
        """The rows of a unit, one line per plan and task.

        Raises:
            SurgeonError: a log-likelihood that is not finite.
        """
        template = self.backend.lm.apply_chat_template
        prompts = []
        for name, drawn in groupby(sorted(unit.documents, key=_task), key=_task):
            ids = [document.doc_id for document in drawn]
            prompts += build(self.tasks[name], ids, template)
        depth = self.backend.engine.depth
        plans = {text: LayerPlan.parse(text, depth) for text in unit.plans}
        found = self.backend.rows(prompts, plans, progress)
        self.backend.forget()
        return [line for plan, rows in found.items() for line in _lines(plan, rows)]

    @property
    def cost(self) -> Cost:
        """Work done so far."""
        return self.backend.engine.cost

    @property
    def notes(self) -> list[str]:
        """What a reader of the rows must know."""
        return self.backend.engine.notes


def _task(document: Any) -> str:
    return str(document.task)


def _lines(plan: str, rows: Rows) -> list[Line]:
    return [
        Line(
            plan,
            task,
            tuple(row.doc_id for row in part),
            tuple(Row(row.score, row.gold_loglikelihood, row.chosen) for row in part),
        )
        for task, part in (
            (name, rows.of(name).rows) for name in dict.fromkeys(r.task for r in rows)
        )
    ]
