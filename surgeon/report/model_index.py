"""A check as `model-index` metadata, the form in which model cards carry measurements.

Only what a reader can place is written: the split, the number of documents, and the paired
difference with its interval. A check that stopped early, or saw a bundled task, is no
benchmark score, and its name says how many documents it is from.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surgeon.evals.result import CheckResult, TaskResult


def model_index(result: "CheckResult", name: str) -> list[dict[str, Any]]:
    """The `model-index` entry of a candidate: one result per task.

    Args:
        result: a finished check.
        name: of the candidate, as the card calls it.
    """
    described = {task["task"]: task for task in result.protocol["tasks"]}
    return [
        {"name": name, "results": [_entry(each, described[each.task]) for each in result.tasks]}
    ]


def _entry(each: "TaskResult", described: dict[str, Any]) -> dict[str, Any]:
    verdict = each.verdict
    low, high = verdict.interval
    metric = {
        "type": described["metric"],
        "value": round(verdict.candidate, 4),
        "name": f"{described['metric']} ({verdict.n} of {described['documents']} documents)",
        "args": {
            "verdict": verdict.verdict,
            "documents": verdict.n,
            "base": round(verdict.base, 4),
            "paired_difference": round(verdict.difference, 4),
            "interval": [round(low, 4), round(high, 4)],
            "level": round(verdict.level, 6),
            "method": verdict.method,
            "fewshot": described["fewshot"],
        },
    }
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": each.task, "type": each.task, "split": described["split"]},
        "metrics": [metric],
    }
