"""From a model's answers to one document's row, by the task's own filters and metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from surgeon.errors import SurgeonError, UsageError
from surgeon.evals.evaltask import EvalTask, Prompt
from surgeon.evals.rows import Row

INVALID = "[invalid]"
"""What lm-eval's answer filters return where they find nothing."""


def grade(prompt: Prompt, responses: Sequence[Any], tokens: Sequence[int]) -> Row:
    """One document's row, from what a backend answered.

    Args:
        prompt: the document.
        responses: one per request of `prompt.asked`, as lm-eval's model methods give them.
        tokens: number of answer tokens of each request.
    """
    task, inner = prompt.task, prompt.task.task
    own = responses[: len(prompt.instances)]
    filtered = _filtered(prompt, own)
    metrics = inner.process_results(prompt.doc, filtered)
    score = _score(task, metrics)
    at = _gold_index(prompt) if task.output_type == "multiple_choice" else 0
    gold = responses[-1] if prompt.gold is not None else own[at]
    chosen, extracted = _chosen(task, own, filtered)
    return Row(
        task=task.name,
        doc_id=prompt.doc_id,
        doc_hash=prompt.doc_hash,
        prompt_hash=prompt.prompt_hash,
        target_hash=prompt.target_hash,
        score=score,
        chosen=chosen,
        gold_loglikelihood=float(gold[0] if isinstance(gold, tuple) else gold),
        gold_tokens=tokens[-1] if prompt.gold is not None else tokens[at],
        extracted=extracted,
    )


def _filtered(prompt: Prompt, responses: Sequence[Any]) -> list[Any]:
    """The responses after the task's primary filter, as lm-eval's `FilterEnsemble` applies it."""
    ensemble = next(f for f in prompt.task.task._filters if f.name == prompt.task.filter)
    kept: Any = [[response] for response in responses]
    for each in ensemble.filters:
        kept = each().apply(kept, [prompt.doc] * len(kept))
    return list(kept)


def _score(task: EvalTask, metrics: Mapping[str, Any]) -> float:
    if task.metric not in metrics:
        known = ", ".join(metrics)
        raise SurgeonError(f"task `{task.name}` gave no `{task.metric}`; it gives {known}")
    value = metrics[task.metric]
    if task.output_type == "loglikelihood_rolling":
        loglikelihood, units = value  # (nats, words or bytes): per unit, in bits, higher is better
        return float(loglikelihood) / int(units) / math.log(2)
    if not isinstance(value, int | float | bool | np.number):
        raise UsageError(
            f"metric `{task.metric}` of task `{task.name}` has no value per document",
            hint=f"choose another with --metric: {', '.join(metrics)}",
        )
    better = task.task.higher_is_better().get(task.metric, True)
    return float(value) if better else -float(value)


def _gold_index(prompt: Prompt) -> int:
    """Which request holds the right choice."""
    inner, doc = prompt.task.task, prompt.doc
    gold = inner.doc_to_text(doc) if inner.multiple_input else inner.doc_to_target(doc)
    first = gold[0] if isinstance(gold, list) else gold
    if isinstance(first, str):
        choices = inner.doc_to_choice(doc)
        first = choices.index(first) if first in choices else -1
    if not (isinstance(first, int) and 0 <= first < len(prompt.instances)):
        raise SurgeonError(
            f"task `{prompt.task.name}` document {prompt.doc_id}: its right answer `{gold}` is "
            "not among the choices"
        )
    return first


def _chosen(task: EvalTask, own: Sequence[Any], filtered: Sequence[Any]) -> tuple[int | str, bool]:
    """The answer in a form that can be compared, and whether one was found at all."""
    if task.output_type == "multiple_choice":
        # Mutual information asks for every choice a second time, without the question.
        count = len(own) // 2 if "acc_mutual_info" in task.task.aggregation() else len(own)
        return int(np.argmax([response[0] for response in own[:count]])), True
    if task.output_type == "loglikelihood":
        return int(own[0][1]), True
    if task.output_type == "loglikelihood_rolling":
        return 0, True
    answer = filtered[0][0] if isinstance(filtered[0], list) and filtered[0] else filtered[0]
    text = str(answer)
    return text, text.strip() not in ("", INVALID)
