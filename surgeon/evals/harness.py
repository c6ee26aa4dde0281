"""The only module that knows lm-eval: its tasks, prompts, filters and metrics.

lm-eval is used for what a task is; scheduling, pairing and statistics are ours. A document's
requests are built once and scored by whatever backend is asked, then filtered and scored by
the task's own code. None of lm-eval's caches, limits or document samplers is used, because
each can silently give two runs different documents or one run the other's answers.

lm-eval, torch and transformers are imported when they are first needed.
"""

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon.errors import Refused, SurgeonError, UnknownName, UsageError
from surgeon.evals.evaltask import FEWSHOT_SEED, EvalTask, Prompt, Protocol, doc_hash, text_hash
from surgeon.evals.rows import Rows
from surgeon.tasks import TASKS
from surgeon.tasks.documents import SPLITS, documents

METRICS = ("acc", "exact_match", "acc_norm", "bits_per_byte")
"""Order of preference for a task's primary metric; else its first."""

_TASK_LINE = re.compile(r"^task:\s*[\"']?([\w.\-]+)[\"']?\s*$", re.MULTILINE)


def _quiet_lm_eval() -> None:
    """lm-eval warns about things that are meant here; what matters is raised."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    logging.getLogger("datasets").setLevel(logging.ERROR)


def go_offline() -> None:
    """Make every Hub look-up of this process fail at once instead of waiting for it."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    os.environ.update(dict.fromkeys(names, "1"))
    # Libraries that are loaded already read the variables at import.
    for module, name in (("huggingface_hub.constants", names[0]), ("datasets.config", names[0])):
        if module in sys.modules:
            setattr(sys.modules[module], name, True)


def task_names(names: Sequence[str]) -> list[str]:
    """The names, checked as far as is possible without loading anything.

    Raises:
        UsageError: none, or one twice.
    """
    if not names:
        raise UsageError("no task was given", hint=f"bundled tasks: {', '.join(TASKS)}")
    repeated = {name for name in names if list(names).count(name) > 1}
    if repeated:
        raise UsageError(f"task `{min(repeated)}` is given twice")
    return list(names)


def load_tasks(
    names: Sequence[str],
    split: str = "confirm",
    include_path: Path | None = None,
    offline: bool = False,
    protocol: Protocol | None = None,
) -> list[EvalTask]:
    """Load tasks by name: bundled ones, then YAML below `include_path`, then lm-eval's own.

    Args:
        names: task or group names; a group becomes its tasks.
        split: of bundled tasks: `select`, `confirm` or `calibrate`. Other tasks have the
            one evaluation split that their definition names.
        include_path: a folder of task YAML files.
        offline: fail at once where data would have to be fetched.
        protocol: few-shot number, metric, filter, chat template.

    Raises:
        UnknownName: no such task.
        UsageError: no such split, metric or filter.
        SurgeonError: the task's data cannot be loaded, or it has no documents.
    """
    protocol = protocol or Protocol()
    _quiet_lm_eval()
    if offline:
        go_offline()
    loaded: list[EvalTask] = []
    for name in task_names(names):
        if name in TASKS:
            loaded.append(_bundled(name, split, protocol))
        else:
            loaded.extend(_stock(name, include_path, offline, protocol))
    return loaded


def _bundled(name: str, split: str, protocol: Protocol) -> EvalTask:
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)

    def dataset(**_: Any) -> Any:
        from datasets import Dataset

        def table(which: str) -> Any:
            rows = documents(TASKS[name], which)
            return Dataset.from_list(
                [{"text": d.text, "choices": list(d.choices), "gold": d.gold} for d in rows]
            )

        shots = "select" if split == "calibrate" else "calibrate"
        return {"test": table(split), "shots": table(shots)}

    config = {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "fewshot_split": "shots",
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["text"],
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["gold"],
        "num_fewshot": protocol.fewshot or 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_defaults=False).load([config])["tasks"]
    return _finish(name, split, tasks[name], protocol)


def _stock(
    name: str, include_path: Path | None, offline: bool, protocol: Protocol
) -> list[EvalTask]:
    try:
        tasks = _find_stock(name, include_path)
    except IndexError as error:  # lm-eval looks at a task's first document
        raise SurgeonError(f"task `{name}` has no documents") from error
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        hint = (
            "run once without --offline to fetch it, or use a bundled task: " + ", ".join(TASKS)
            if offline
            else "check the network and the name of the data set"
        )
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SurgeonError(f"the data of task `{name}` cannot be loaded: {reason}", hint) from error
    return [_finish(each, "evaluation", task, protocol) for each, task in tasks.items()]


def _find_stock(name: str, include_path: Path | None) -> dict[str, Any]:
    from lm_eval import tasks as stock
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise UsageError(f"--include-path `{include_path}` is not a folder")
    own = TaskManager(include_defaults=False, include_path=include_path) if include_path else None
    if own is not None and name in own.all_tasks:
        return dict(own.load([name])["tasks"])
    # Indexing lm-eval's 14,000 files takes 5-10 s; a task's own file is found in about one.
    files = _yaml_files(name, Path(str(stock.__file__)).parent)
    own_files = [path for path, text in files.items() if name in _TASK_LINE.findall(text)]
    if len(own_files) == 1:
        return dict(TaskManager(include_defaults=False).load([str(own_files[0])])["tasks"])
    if not files and own is None:
        raise UnknownName("task", name, TASKS)
    manager = TaskManager(include_path=include_path)
    if name not in manager.all_tasks:
        raise UnknownName("task", name, TASKS)
    return dict(manager.load([name])["tasks"])


def _yaml_files(name: str, root: Path) -> dict[Path, str]:
    """Task definitions below `root` that mention the name, with their text.

    The file that is named like the task is tried before all others are read.
    """
    paths = [
        Path(folder, file)
        for folder, _, files in os.walk(root)
        for file in files
        if file.endswith((".yaml", ".yml"))
    ]
    for group in ([path for path in paths if path.stem == name], paths):
        texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in group}
        found = {path: text for path, text in texts.items() if name in text}
        if found:
            return found
    return {}


def _finish(name: str, split: str, task: Any, protocol: Protocol) -> EvalTask:
    if protocol.fewshot is not None:
        task.set_config("num_fewshot", protocol.fewshot)
    docs = task.eval_docs
    if not len(docs):
        raise SurgeonError(f"task `{name}` has no documents")
    if getattr(task, "UNSAFE_CODE", False):
        raise Refused(f"task `{name}` runs code that the model wrote, which is never done here")
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"task `{name}` needs images or sound; models here read text")
    if (getattr(task.config, "repeats", 1) or 1) > 1:
        raise UsageError(
            f"task `{name}` samples each answer {task.config.repeats} times",
            hint="a paired comparison needs one deterministic answer a document",
        )
    metrics = list(task._metric_fn_list) or list(task.aggregation())
    metric = protocol.metric or next((m for m in METRICS if m in metrics), metrics[0])
    if metric not in metrics:
        raise UnknownName(f"metric of `{name}`", metric, metrics)
    filters = [each.name for each in task._filters]
    # Of several answer filters the lenient one asks about ability, the strict one about format.
    lenient = next((each for each in filters if "flexible" in each), filters[0])
    chosen = protocol.filter or lenient
    if chosen not in filters:
        raise UnknownName(f"filter of `{name}`", chosen, filters)
    return EvalTask(name, split, task, docs, metric, chosen, protocol)


def build(task: EvalTask, doc_ids: Iterable[int], chat_template: Any = None) -> list[Prompt]:
    """Build the requests of chosen documents, in the order given.

    Args:
        task: loaded.
        doc_ids: document numbers, distinct.
        chat_template: renders chat messages to text, where the protocol asks for chat.

    Raises:
        UsageError: no documents, one twice, or a number out of range.
    """
    ids = list(doc_ids)
    if not ids or len(set(ids)) != len(ids):
        raise UsageError(f"task `{task.name}`: documents must be distinct, and at least one")
    if not all(0 <= at < len(task) for at in ids):
        raise UsageError(f"task `{task.name}` has documents 0..{len(task) - 1}")
    return [_prompt(task, at, chat_template) for at in ids]


def _prompt(task: EvalTask, doc_id: int, chat_template: Any) -> Prompt:
    inner, doc, chat = task.task, task.docs[doc_id], task.protocol.chat
    # lm-eval draws shots from one running generator: seeded anew, they belong to the document.
    inner.set_fewshot_seed(FEWSHOT_SEED + doc_id)
    context = inner.fewshot_context(
        doc,
        num_fewshot=inner.config.num_fewshot or 0,
        system_instruction=task.protocol.system,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=chat_template if chat else None,
        gen_prefix=inner.doc_to_prefix(doc),
    )
    built = inner.construct_requests(
        doc=doc,
        ctx=context,
        metadata=(task.name, doc_id, inner.config.repeats),
        apply_chat_template=chat,
        chat_template=chat_template if chat else None,
    )
    instances = tuple(built if isinstance(built, list) else [built])
    target = inner.doc_to_target(doc)
    return Prompt(
        task=task,
        doc_id=doc_id,
        doc=doc,
        instances=instances,
        gold=_gold_request(task, doc, instances[0], target),
        doc_hash=doc_hash(doc),
        prompt_hash=text_hash(instances[0].arguments[0]),
        target_hash=text_hash(str(target)),
    )


def _gold_request(task: EvalTask, doc: Any, first: Any, target: Any) -> Any | None:
    """For generation: score the right answer after the prompt, to see damage without noise."""
    if task.output_type != "generate_until":
        return None
    from lm_eval.api.instance import Instance

    if task.task.config.doc_to_choice is not None and isinstance(target, int):
        target = task.task.doc_to_choice(doc)[target]
    answer = str(target[0] if isinstance(target, list) and target else target).strip() or "."
    # A target that starts with white space of its own needs no delimiter.
    text = (first.arguments[0], f" {answer}")
    return Instance("loglikelihood", doc, text, idx=0, metadata=(task.name, first.doc_id, 1))


def lm_of(model: Any, tokenizer: Any, batch_size: int = 16) -> Any:
    """lm-eval's `HFLM` over a loaded model, with softmax in float32.

    Args:
        model: a `PreTrainedModel`.
        tokenizer: its tokenizer.
        batch_size: rows per forward, where lm-eval itself runs the model.
    """
    _quiet_lm_eval()
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=batch_size,
        softmax_dtype="float32",
    )


def vllm_of(path: Path, dtype: str, seed: int) -> Any:
    """lm-eval's vLLM model over a checkpoint folder.

    Raises:
        SurgeonError: vLLM is not installed.
    """
    _quiet_lm_eval()
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise SurgeonError(
            "--backend vllm was asked for, but vllm is not installed",
            hint="install vllm, or leave --backend at its default",
        )
    from lm_eval.models.vllm_causallms import VLLM

    # Base and candidate are loaded together, so each gets less than half of the memory.
    return VLLM(
        pretrained=str(path),
        dtype=dtype,
        seed=seed,
        trust_remote_code=False,
        gpu_memory_utilization=0.45,
    )


def versions() -> dict[str, str]:
    """Versions of everything a score depends on."""
    from importlib.metadata import version

    names = ("lm_eval", "transformers", "torch", "datasets", "numpy")
    return {name: version(name) for name in names}


def score(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[EvalTask],
    doc_ids: Mapping[str, Sequence[int]],
    batch_size: int = 256,
) -> Rows:
    """Score chosen documents of each task with one model.

    Args:
        model: a `PreTrainedModel`, loaded, in eval mode.
        tokenizer: its tokenizer.
        tasks: from `load_tasks`.
        doc_ids: document numbers per task, distinct; every task needs at least one.
        batch_size: most rows of a forward.

    Raises:
        UsageError: a task without documents, a document twice, a number out of range.
        SurgeonError: a log-likelihood that is not finite.
    """
    from surgeon.evals.backends import EngineBackend
    from surgeon.plan import LayerPlan

    known = {task.name for task in tasks}
    if unknown := set(doc_ids) - known:
        raise UnknownName("task", min(unknown), known)
    backend = EngineBackend(model, tokenizer, batch_size=batch_size)
    prompts = [
        prompt
        for task in tasks
        for prompt in build(task, doc_ids.get(task.name, ()), backend.lm.apply_chat_template)
    ]
    plan = LayerPlan.identity(backend.engine.depth)
    return backend.rows(prompts, {"model": plan})["model"]
